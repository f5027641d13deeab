"""The guard between a fleet run and its deletes: a damaged source must not empty the store."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pytest

from support.layouts import Document, document, experience
from support.sides import World
from undrift import Outcome, SafetyStop, SyncReport
from undrift.events import BatchDeleted, DeletesHeld, SyncEvent

KINDS = document(experience("exp_1"), experience("exp_2"), skills=["SQL", "Go", "Kotlin"])


def owners(count: int) -> dict[str, Document]:
    """Owners of one record each."""
    return {str(n): document(experience("exp_1", f"Text {n}")) for n in range(1, count + 1)}


def stopped(run: Iterable[SyncReport]) -> list[SyncReport]:
    """The reports of a run that the guard stops."""
    reports: list[SyncReport] = []
    with pytest.raises(SafetyStop):
        reports.extend(run)  # keeps what came before the stop
    return reports


def test_emptied_source_deletes_nothing(world: World) -> None:
    """A table without rows is taken for an accident, however few records there are."""
    documents = owners(3)
    world.bring_in_sync(documents)
    world.remove_owners(documents)
    before = world.store.records()

    reports = stopped(world.sides.sync_all())

    assert {report.outcome for report in reports} == {Outcome.DRIFT}
    assert all(isinstance(report.error, SafetyStop) for report in reports)
    assert world.store.records() == before


def test_control_the_same_deletes_pass_when_their_owners_are_named(world: World) -> None:
    """What the guard withholds from a fleet run, a person's command does."""
    documents = owners(3)
    world.bring_in_sync(documents)
    world.remove_owners(documents)

    reports = list(world.sides.sync_owners(documents))

    assert all(report.is_in_sync for report in reports)
    assert world.store.identities() == {}


def test_source_that_lost_most_owners_deletes_nothing_and_writes_are_made(world: World) -> None:
    """Half-restored: 30 of 50 owners are gone, one text is edited, one owner is new."""
    documents = owners(50)
    world.bring_in_sync(documents)
    world.remove_owners([str(n) for n in range(1, 31)])
    written = {"50": document(experience("exp_1", "Edited")), "51": KINDS}
    world.put_all(written)

    reports = stopped(world.sides.sync_all())

    assert sorted(world.embedder.texts) == sorted(
        entity.text for d in written.values() for entity in world.layout.entities(d).values()
    )
    outcomes = {report.owner_id: report.outcome for report in reports}
    assert outcomes.keys() == {str(n) for n in range(1, 52)}
    assert {outcomes[str(n)] for n in range(1, 31)} == {Outcome.DRIFT}
    assert {outcomes[str(n)] for n in range(31, 52)} == {Outcome.IN_SYNC}
    world.assert_store_holds(documents | written)


@pytest.mark.parametrize(("gone", "passes"), [(25, True), (26, False)])
def test_guard_stops_above_half_of_the_managed_records(
    world: World, gone: int, passes: bool
) -> None:
    """Of 50 records 25 may go in one run, 26 may not."""
    documents = owners(50)
    world.bring_in_sync(documents)
    world.remove_owners([str(n) for n in range(1, gone + 1)])

    if passes:
        events: list[SyncEvent] = []
        assert all(r.is_in_sync for r in world.sides.sync_all(listener=events.append))
        assert DeletesHeld(gone, gone, 50) in events
        assert len(world.store.identities()) == 50 - gone
    else:
        stopped(world.sides.sync_all())
        world.assert_store_holds(documents)


@pytest.mark.parametrize(("gone", "passes"), [(20, True), (21, False)])
def test_guard_lets_a_handful_of_deletes_pass(world: World, gone: int, passes: bool) -> None:
    """20 deletes pass even where they are more than half; 21 do not."""
    documents = owners(30)
    world.bring_in_sync(documents)
    world.remove_owners([str(n) for n in range(1, gone + 1)])

    if passes:
        assert all(report.is_in_sync for report in world.sides.sync_all())
        assert len(world.store.identities()) == 30 - gone
    else:
        stopped(world.sides.sync_all())
        world.assert_store_holds(documents)


def test_guard_counts_each_kind_by_itself(world: World) -> None:
    """A template that loses one kind is seen, though other kinds are many."""
    documents = {
        str(n): document(experience("e"), experience("f"), experience("g"), skills=[f"Skill {n}"])
        for n in range(1, 31)
    }
    world.bring_in_sync(documents)
    without_skills = {
        owner: document(*documents[owner]["experiences"]) for owner in list(documents)[:21]
    }
    world.put_all(without_skills)

    stopped(world.sides.sync_all())  # 21 of 120 records, but 21 of 30 skills

    world.assert_store_holds(documents)


def test_guard_counts_all_kinds_together(world: World) -> None:
    """15 records of each of three kinds are few of a kind, and together most there is."""
    project = {"id": "p_1", "title": "Kiln", "description": "Fires"}
    documents = {
        str(n): document(experience("exp_1", projects=[project]), skills=[f"Skill {n}"])
        for n in range(1, 19)
    }
    world.bring_in_sync(documents)
    world.remove_owners([str(n) for n in range(1, 16)])

    stopped(world.sides.sync_all())

    world.assert_store_holds(documents)


@pytest.mark.parametrize(
    ("limit", "passes"),
    [("6", True), ("5", False), ("0", False), ("12%", True), ("11.9%", False), ("100%", True)],
)
@pytest.mark.parametrize("named", [False, True], ids=["all", "named"])
def test_limit_of_a_person_replaces_the_guard(
    sqlite: World, limit: str, passes: bool, named: bool
) -> None:
    """6 of 50 records are to go; the limit decides, for a fleet and for named owners."""
    documents = owners(50)
    sqlite.bring_in_sync(documents)
    gone = [str(n) for n in range(1, 7)]
    sqlite.remove_owners(gone)
    run = (
        sqlite.sides.sync_owners(documents, max_delete=limit)
        if named
        else sqlite.sides.sync_all(max_delete=limit)
    )

    if passes:
        assert all(report.is_in_sync for report in run)
        sqlite.assert_store_holds({o: d for o, d in documents.items() if o not in gone})
    else:
        stopped(run)
        sqlite.assert_store_holds(documents)


def test_high_limit_lifts_the_guard_of_an_emptied_source(world: World) -> None:
    """The person who says 100 % has looked."""
    documents = owners(30)
    world.bring_in_sync(documents)
    world.remove_owners(documents)

    assert all(report.is_in_sync for report in world.sides.sync_all(max_delete="100%"))
    assert world.store.identities() == {}


def test_force_does_not_lift_the_guard(world: World) -> None:
    """Everything left is rewritten by force, and nothing is deleted."""
    documents = owners(50)
    world.bring_in_sync(documents)
    world.remove_owners([str(n) for n in range(1, 31)])

    stopped(world.sides.sync_all(force=True))

    assert len(world.embedder.texts) == 20
    world.assert_store_holds(documents)


def test_copies_count_as_deletes(world: World) -> None:
    """A store in which every record was copied twice is not emptied without asking."""
    documents = owners(22)
    world.bring_in_sync(documents)
    for vector_id in world.store.identities().values():
        first = world.store.copy(vector_id, entity_id="exp_1")
        world.store.copy(first, entity_id="exp_1")
    before = world.store.records()

    stopped(world.sides.sync_all())

    assert len(before) == 66
    assert world.store.records() == before


# --- the source changes after the guard has decided ----------------------------------------------


def halved(documents: dict[str, Document], count: int) -> dict[str, Document]:
    """The first *count* of *documents*, with one experience less."""
    return {
        owner: document(*documents[owner]["experiences"][1:]) for owner in list(documents)[:count]
    }


def owners_of_two(count: int) -> dict[str, Document]:
    """Owners of two records each."""
    return {
        str(n): document(experience("exp_1", f"One {n}"), experience("exp_2", f"Two {n}"))
        for n in range(1, count + 1)
    }


def test_source_emptied_between_the_decision_and_the_deletes_stops_the_run(world: World) -> None:
    """25 of 60 deletes may pass; by the time they are made, all 60 would go: none is made."""
    documents = owners_of_two(30)
    world.bring_in_sync(documents)
    world.put_all(halved(documents, 25))

    def empty(event: SyncEvent) -> None:
        if isinstance(event, DeletesHeld):
            world.remove_owners(documents)

    stopped(world.sides.sync_all(listener=empty))

    world.assert_store_holds(documents)


def test_source_emptied_while_deletes_are_verified_costs_no_more_than_the_guard_let_pass(
    world: World,
) -> None:
    """25 deletes are made; then the source is emptied, and the verification finds 25 more."""
    documents = owners_of_two(30)
    world.bring_in_sync(documents)
    world.put_all(halved(documents, 25))

    def empty(event: SyncEvent) -> None:
        if isinstance(event, BatchDeleted):
            world.remove_owners(documents)

    reports: list[SyncReport] = []
    with suppress(SafetyStop):
        reports.extend(world.sides.sync_all(listener=empty))

    assert len(world.store.identities()) >= 60 - 30
    in_sync = {report.owner_id for report in reports if report.outcome is Outcome.IN_SYNC}
    assert in_sync <= documents.keys() - halved(documents, 25).keys()


def test_every_owner_is_told_of_when_the_run_stops_late(sqlite: World) -> None:
    """Deletes of 600 owners wait, which are two pages; the stop in the first concerns both."""
    documents = owners_of_two(650)
    sqlite.bring_in_sync(documents)
    smaller = halved(documents, 600)
    sqlite.put_all(smaller)

    def shrink(event: SyncEvent) -> None:
        if isinstance(event, DeletesHeld):
            sqlite.put_all({owner: {} for owner in smaller})

    reports = stopped(sqlite.sides.sync_all(listener=shrink))

    assert {report.owner_id for report in reports} == documents.keys()
