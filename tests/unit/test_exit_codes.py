"""Exit codes: what each outcome and error is worth, and which wins."""

from __future__ import annotations

from itertools import pairwise

import pytest

from undrift.cli.exit_codes import of_error, of_outcomes, strongest
from undrift.errors import (
    ConfigError,
    DimensionMismatch,
    EmbeddingBudgetSpent,
    EmbeddingFailed,
    InvalidDocument,
    OwnerNotFound,
    SafetyStop,
    SourceUnavailable,
    TransientError,
    UndriftError,
    UnsupportedError,
    WriteFailed,
)
from undrift.model import Outcome

TEXT = {"why": "because.", "fix": "mend it"}


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 0),
        (["in_sync", "in_motion"], 0),
        (["in_sync", "drift"], 1),
        (["failed", "in_motion"], 1),
        (["drift", "not_found"], 2),
        (["drift", "not_found", "unknown"], 3),
    ],
)
def test_strongest_outcome_decides(outcomes: list[str], code: int) -> None:
    """One unknown user among a thousand in sync is not in sync."""
    assert of_outcomes(map(Outcome, outcomes)) == code
    assert of_outcomes(map(Outcome, reversed(outcomes))) == code


def test_every_outcome_has_a_code() -> None:
    """None is forgotten, and only two are good."""
    assert {outcome for outcome in Outcome if of_outcomes([outcome]) == 0} == {
        Outcome.IN_SYNC,
        Outcome.IN_MOTION,
    }


def test_user_that_vanished_from_a_fleet_is_no_usage_error() -> None:
    """Nobody named it."""
    assert of_outcomes([Outcome.NOT_FOUND], are_named=False) == 0
    assert of_outcomes([Outcome.NOT_FOUND, Outcome.DRIFT], are_named=False) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x", **TEXT), 2),
        (OwnerNotFound("1"), 2),
        (DimensionMismatch(expected=1, found=2, model="m", fix="f"), 2),
        (UnsupportedError("x", **TEXT), 2),
        (SourceUnavailable("x", **TEXT), 3),
        (InvalidDocument("1", **TEXT), 3),
        (TransientError("x", **TEXT), 3),
        (UndriftError("x", **TEXT), 3),
        (SafetyStop("x", **TEXT), 4),
        (EmbeddingBudgetSpent(1), 5),
        (WriteFailed("x", **TEXT), 1),
        (EmbeddingFailed("x", **TEXT), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, UndriftError) else str(value),
)
def test_error_has_the_code_of_its_branch(error: UndriftError, code: int) -> None:
    """What has no better name could not look."""
    assert of_error(error) == code


def test_interruption_beats_safety_stop_beats_budget_beats_unknown_beats_usage() -> None:
    """Any two codes, whatever their order."""
    for stronger, weaker in pairwise([130, 143, 141, 4, 5, 3, 2, 1, 0]):
        assert strongest([stronger, weaker]) == strongest([weaker, stronger]) == stronger
    assert strongest([]) == 0
