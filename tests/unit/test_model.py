"""The words undrift speaks in: what they print as and what they say of themselves."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.worlds import entity, stamp_of
from undrift.errors import SourceUnavailable
from undrift.model import Cost, EntityId, Outcome, SyncReport, SyncStatus


@given(st.text(st.characters(exclude_characters=":"), min_size=1), st.text())
def test_entity_id_joins_and_divides(kind: str, entity_id: str) -> None:
    """A kind never holds a colon, an id may hold any number."""
    key = EntityId.of(kind, entity_id)
    assert (key.kind, key.id) == (kind, entity_id)
    assert key == f"{kind}:{entity_id}"


def test_entity_id_serialises_as_a_string() -> None:
    """And comes back from a pickle as itself."""
    key = EntityId.of("experience", "exp_9")
    assert json.dumps([key]) == '["experience:exp_9"]'
    again = pickle.loads(pickle.dumps(key))
    assert (type(again), again) == (EntityId, key)


def test_entity_and_its_stamp_have_one_name() -> None:
    """Both print as `kind:id`."""
    what = entity("note", "1", title="T")
    assert what.key == stamp_of(what).key == "note:1"
    assert what.metadata == {"title": "T"}


@pytest.mark.parametrize(
    ("outcome", "in_sync"),
    [
        (Outcome.IN_SYNC, True),
        (Outcome.DRIFT, False),
        (Outcome.FAILED, False),
        (Outcome.IN_MOTION, None),
        (Outcome.UNKNOWN, None),
        (Outcome.NOT_FOUND, None),
    ],
)
def test_unknown_is_neither_in_sync_nor_drift(outcome: Outcome, in_sync: bool | None) -> None:
    """I9: three answers, not two."""
    status = SyncStatus(owner_id="ann", outcome=outcome)
    assert status.in_sync is in_sync
    assert status.is_in_sync == (in_sync is True)
    assert SyncReport(owner_id="ann", outcome=outcome, before=status).is_in_sync == (
        in_sync is True
    )


def test_status_of_an_owner_that_could_not_be_looked_at_says_why() -> None:
    """And nothing else."""
    error = SourceUnavailable("What happened", why="this was found.", fix="do that")
    status = SyncStatus.unknown("ann", error)
    assert (status.outcome, status.error, status.missing_ids) == (Outcome.UNKNOWN, error, ())


def test_costs_add_up() -> None:
    """A run's cost is its owners' together."""
    one = Cost(texts=1, tokens=2, writes=3, deletes=4)
    assert sum([one, one], Cost()) == Cost(texts=2, tokens=4, writes=6, deletes=8)


def test_status_of_another_owner_is_the_same_in_all_else() -> None:
    """Whatever is in it; the first one stays what it is."""
    status = SyncStatus(
        owner_id="ann",
        outcome=Outcome.DRIFT,
        source={"skill": 2},
        missing_ids=(EntityId("skill:1"),),
        unmanaged=3,
        notes=("a note",),
    )
    assert status.of("bob") == replace(status, owner_id="bob")
    assert status.owner_id == "ann"
