"""Faults at failpoints: they strike where and as often as they were told, and then are gone."""

from __future__ import annotations

import pytest

from undrift import failpoints
from undrift.testing.faults import call_at, raise_at


def test_a_fault_strikes_at_its_failpoint_and_occurrence_only() -> None:
    with raise_at("sync.planned", InterruptedError(), occurrence=2) as fault:
        failpoints.reach("sync.looked")
        failpoints.reach("sync.planned")
        with pytest.raises(InterruptedError):
            failpoints.reach("sync.planned")
        failpoints.reach("sync.planned")
    assert fault.reached == 3


def test_a_fault_is_gone_after_its_block() -> None:
    with raise_at("sync.planned", InterruptedError()):
        pass
    failpoints.reach("sync.planned")


def test_faults_add_up_and_end_in_reverse_order() -> None:
    struck: list[str] = []
    with call_at("sync.looked", lambda: struck.append("outer")):
        with call_at("sync.looked", lambda: struck.append("inner")):
            failpoints.reach("sync.looked")
        assert struck == ["outer", "inner"]
    failpoints.reach("sync.looked")
    assert struck == ["outer", "inner"]


def test_a_fault_at_an_unknown_failpoint_is_an_error() -> None:
    """It would never strike, and the test would prove nothing."""
    with pytest.raises(ValueError, match=r"no failpoint.*nearest.*sync\.planned"):
        call_at("sync.plannd", lambda: None)
