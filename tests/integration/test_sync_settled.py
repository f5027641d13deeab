"""A sync of everybody passes over whoever needs nothing, and over nobody else."""

from __future__ import annotations

import pytest

from support.layouts import Document, document, experience
from support.sides import World
from undrift import Undrift
from undrift.events import OwnersBusy, SyncEvent
from undrift.look import Sides
from undrift.model import Read
from undrift.state import Observation, State


def working(title: str) -> Document:
    """A document with two experiences."""
    return document(experience("exp_1", title), experience("exp_2", f"{title}, too"))


EVERYBODY = {str(number): working(f"Job {number}") for number in range(1, 13)}


@pytest.fixture
def synced(world: World) -> World:
    """Everybody in sync, and remembered to be."""
    world.bring_in_sync(EVERYBODY)
    list(world.sides.sync_all())
    assert {report.read for report in world.sides.sync_all()} == {Read.DIGESTS}
    return world


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Owners whose stamps are read from here on."""
    found: set[str] = set()
    read_store = Sides.read_store

    def noted(self: Sides, owners: list[str]) -> object:
        found.update(owners)
        return read_store(self, owners)

    monkeypatch.setattr(Sides, "read_store", noted)
    return found


def state_of(sides: Undrift) -> State:
    """The state that the sides are synced by."""
    return sides._connections.states.state


def test_nobody_is_looked_at_where_nobody_needs_anything(
    synced: World, looked_at: set[str]
) -> None:
    """Neither leased, nor read in full, nor embedded for; and it is told as in sync already."""
    reports = {report.owner_id: report for report in synced.sides.sync_all()}
    assert looked_at == set()
    assert reports.keys() == EVERYBODY.keys()
    for report in reports.values():
        assert (report.skipped, report.verified, report.is_in_sync) == (True, True, True)
        assert (report.written, report.deleted, report.embedded) == (0, 0, 0)
        assert report.before.source == report.before.store == {"experience": 2}


def test_whoever_differs_is_repaired_and_nobody_else_is_looked_at(
    synced: World, looked_at: set[str]
) -> None:
    """Changed by SQL on either side."""
    synced.put(3, working("Another job"))
    synced.store.database.run(f"DELETE FROM {synced.store.vectors} WHERE owner_id = '5'")
    synced.remove_owners(["7"])
    synced.put(99, working("A first job"))
    reports = {report.owner_id: report for report in synced.sides.sync_all()}
    assert looked_at == {"3", "5", "7", "99"}
    assert {o: (r.written, r.deleted) for o, r in reports.items() if not r.skipped} == {
        "3": (2, 0), "5": (2, 0), "7": (0, 2), "99": (2, 0),
    }  # fmt: skip
    assert all(report.is_in_sync for report in reports.values())


def test_whoever_has_a_version_that_was_not_read_back_is_looked_at(
    synced: World, looked_at: set[str]
) -> None:
    """A worker that saw other content for a moment may still publish it, unless it is overtaken."""
    state = state_of(synced.sides)
    note = state.note(["4"]).owners["4"]
    (row, *_) = note.entities.values()
    seen = row._replace(version=row.version + 1, fingerprint="f" * 32)
    accepted = state.observe([Observation(owner_id="4", noted=note.observation, rows=[seen])])
    assert accepted == {"4"}
    assert state.dirty_owners(10) == []
    assert all(report.is_in_sync for report in synced.sides.sync_all())
    assert looked_at == {"4"}
    now = state.note(["4"]).owners["4"].entities[row.identity]
    assert (now.fingerprint, now.version > seen.version) == (row.fingerprint, True)


def test_whoever_is_marked_is_looked_at_and_acknowledged(
    synced: World, looked_at: set[str]
) -> None:
    """Whatever a mark was for."""
    state_of(synced.sides).mark(["6"])
    list(synced.sides.sync_all())
    assert looked_at == {"6"}
    assert state_of(synced.sides).dirty_owners(10) == []


def test_lost_state_makes_everybody_looked_at(synced: World, looked_at: set[str]) -> None:
    """What it remembered is what kept late writes out."""
    is_postgres = synced.store.database.is_postgres
    prefix = "undrift." if is_postgres else "undrift_"
    synced.store.database.run(f"DELETE FROM {prefix}entity_state")
    reports = list(synced.sides.sync_all())
    assert looked_at >= EVERYBODY.keys()
    assert all(report.is_in_sync and report.read is Read.FULL for report in reports)


def test_force_passes_over_nobody(synced: World) -> None:
    """It is for whoever does not believe what is remembered."""
    reports = list(synced.sides.sync_all(force=True))
    assert all(report.written == 2 and report.is_in_sync for report in reports)


def test_whoever_was_waited_for_and_needs_nothing_any_more_ends_the_wait(synced: World) -> None:
    """Somebody else had it leased, and did all there was to do."""
    state = state_of(synced.sides)
    state.lease(["4"], "somebody", 60)
    waited: list[int] = []

    def release(event: SyncEvent) -> None:
        if isinstance(event, OwnersBusy):
            waited.append(event.owners)
            state.release(["4"], "somebody")

    reports = list(synced.sides.sync_all(listener=release))
    assert waited == [1]
    assert sorted(report.owner_id for report in reports) == sorted(EVERYBODY)
    assert all(report.is_in_sync and report.skipped for report in reports)
