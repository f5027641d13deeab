"""Versions rise above everything known, in every store, whatever lies in it."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.worlds import (
    KINDS,
    MODEL,
    NAMESPACE,
    OTHER_MODEL,
    OWNER,
    World,
    difference,
    entity,
    stamp_of,
    wanted_of,
    worlds,
)
from undrift.errors import WriteFailed
from undrift.fingerprint import vector_id
from undrift.model import Wanted
from undrift.ports import MAX_VERSION
from undrift.state import EntityRow, OwnerNote, Tombstone
from undrift.versions import OrderedPlan, Rows, observed_rows, order_plan, with_rows

A = entity("note", "a")
B_CONTENT = entity("note", "a", text="B")
ROW = EntityRow("note", "a", 3, A.fingerprint, MODEL, False)


def observed(note: OwnerNote, wanted: Wanted | None) -> tuple[EntityRow, ...]:
    """The rows that a snapshot of *wanted* changes."""
    return observed_rows(note, wanted, model=MODEL, kinds=KINDS)


def noted(*rows: EntityRow) -> OwnerNote:
    """What is remembered."""
    return OwnerNote(owner_id=OWNER, entities={row.identity: row for row in rows})


def ordered(
    world: World,
    rows: Rows,
    *,
    keeps_tombstones: bool = True,
    tombstones: tuple[Tombstone, ...] = (),
    force: bool = False,
    retry_parked: bool = False,
) -> OrderedPlan:
    """The plan that repairs *world*, in order."""
    return order_plan(
        world.diff,
        rows,
        {stone.vector_id: stone for stone in tombstones},
        namespace=NAMESPACE,
        model=MODEL,
        keeps_tombstones=keeps_tombstones,
        force=force,
        retry_parked=retry_parked,
    )


def own_id(kind: str = "note", entity_id: str = "a") -> str:
    """Where the entity's record belongs."""
    return vector_id(NAMESPACE, OWNER, kind, entity_id)


# --- what an observation changes -----------------------------------------------------------------


def test_an_entity_that_is_seen_for_the_first_time_has_version_one() -> None:
    """Nothing can be on its way that was newer."""
    assert observed(noted(), wanted_of([A])) == (
        EntityRow("note", "a", 1, A.fingerprint, MODEL, False),
    )


def test_an_entity_that_comes_back_when_it_was_forgotten_begins_behind_its_last_version() -> None:
    """Its tombstone was collected, and a copy of it may still be on its way."""
    note = OwnerNote(owner_id=OWNER, floor=7)
    assert [row.version for row in observed(note, wanted_of([A]))] == [8]


def test_an_entity_that_is_as_it_was_keeps_its_version() -> None:
    """Looking twice changes nothing."""
    assert observed(noted(ROW), wanted_of([A])) == ()


@pytest.mark.parametrize(
    "before",
    [
        ROW._replace(fingerprint="other"),
        ROW._replace(model=OTHER_MODEL),
        ROW._replace(fingerprint="", model="", is_deleted=True),
    ],
    ids=["changed", "of another model", "deleted before"],
)
def test_whatever_differs_gets_the_next_version(before: EntityRow) -> None:
    """The parking of what it was before is over, too."""
    parked = before._replace(parked_reason="NaN", is_parked=True, published_version=2)
    expected = ROW._replace(version=4, published_version=2)
    assert observed(noted(parked), wanted_of([A])) == (expected,)


def test_what_is_gone_gets_the_next_version_once() -> None:
    """A delete is a write: it has to be newer than what it deletes."""
    gone = ROW._replace(version=4, fingerprint="", model="", is_deleted=True)
    assert observed(noted(ROW), None) == (gone,)
    assert observed(noted(gone), None) == ()


def test_nothing_is_said_of_a_kind_that_is_not_configured() -> None:
    """Its records are not ours to delete."""
    assert observed(noted(ROW._replace(kind="unconfigured")), wanted_of([])) == ()


def test_a_version_that_has_reached_its_end_is_an_error() -> None:
    """And not a version that a store would round."""
    with pytest.raises(WriteFailed, match="2\\*\\*52"):
        observed(noted(ROW._replace(version=MAX_VERSION - 1)), None)


# --- what a plan makes of it --------------------------------------------------------------------


@st.composite
def remembered(draw: st.DrawFn) -> tuple[World, dict[tuple[str, str], EntityRow]]:
    """Any difference, with any memory of it that an observation has just brought up to date."""
    world = draw(worlds())
    identities = {(stamp.kind, stamp.entity_id) for stamp in world.stamps if stamp.kind in KINDS}
    identities |= {(wanted.kind, wanted.entity_id) for wanted in world.wanted}
    rows = []
    for kind, entity_id in sorted(identities):
        if draw(st.booleans()):
            is_deleted = draw(st.booleans())
            fingerprint = "" if is_deleted else entity(kind, entity_id).fingerprint
            model = "" if is_deleted else MODEL
            version = draw(st.integers(1, 8))
            rows.append(EntityRow(kind, entity_id, version, fingerprint, model, is_deleted))
    note = noted(*rows)
    return world, with_rows(note.entities, observed(note, wanted_of(world.wanted)))


@given(remembered(), st.booleans(), st.booleans())
def test_every_write_carries_its_rows_version_above_all_that_is_stored(
    drawn: tuple[World, dict[tuple[str, str], EntityRow]], keeps: bool, force: bool
) -> None:
    """So none is refused but for a newer one, and none is unknown to the state."""
    world, rows = drawn
    plan = ordered(world, rows, keeps_tombstones=keeps, force=force)
    after = with_rows(rows, plan.raised.raised if plan.raised else ())
    stored = {stamp.vector_id: stamp for stamp in world.stamps}
    for write in plan.plan.writes:
        row = after[(write.stamp.kind, write.stamp.entity_id)]
        assert write.stamp.version == row.version
        assert row.fingerprint == write.stamp.fingerprint
        assert not row.is_deleted
        under = stored.get(write.stamp.vector_id)
        assert under is None or under.version < write.stamp.version


@given(remembered(), st.booleans())
def test_versions_never_fall_and_are_raised_from_what_was_observed(
    drawn: tuple[World, dict[tuple[str, str], EntityRow]], keeps: bool
) -> None:
    """A raise is a compare and set; what it compares with is what the plan was made from."""
    world, rows = drawn
    plan = ordered(world, rows, keeps_tombstones=keeps)
    if plan.raised is None:
        return
    assert {row.identity for row in plan.raised.observed} == {
        row.identity for row in plan.raised.raised if row.identity in rows
    }
    for row in plan.raised.observed:
        assert rows[row.identity] == row
    for row in plan.raised.raised:
        before = rows.get(row.identity)
        assert before is None or row.version > before.version
        assert before is None or row._replace(version=0) == before._replace(version=0)


@given(remembered())
def test_a_store_that_keeps_tombstones_gets_one_for_every_deleted_entity(
    drawn: tuple[World, dict[tuple[str, str], EntityRow]],
) -> None:
    """Also where nothing is stored: what is on its way must find something newer."""
    world, rows = drawn
    plan = ordered(world, rows)
    after = with_rows(rows, plan.raised.raised if plan.raised else ())
    stones = {stone.vector_id: stone for stone in plan.tombstones}
    for identity, row in rows.items():
        if row.is_deleted:
            assert stones[own_id(*identity)].version == after[identity].version
    stored = {stamp.vector_id: stamp.version for stamp in world.stamps}
    for stone in plan.tombstones:
        assert stone.version > stored.get(stone.vector_id, 0)
    assert not {d.vector_id for d in plan.plan.deletes} & stones.keys()


@given(remembered())
def test_where_nothing_late_gets_through_no_tombstone_is_left(
    drawn: tuple[World, dict[tuple[str, str], EntityRow]],
) -> None:
    """Every record that a repair removes goes by its exact version, justified by a row."""
    world, rows = drawn
    plan = ordered(world, rows, keeps_tombstones=False)
    after = with_rows(rows, plan.raised.raised if plan.raised else ())
    assert plan.tombstones == ()
    stored = {stamp.vector_id: stamp for stamp in world.stamps}
    for deletion in plan.plan.deletes:
        assert stored[deletion.vector_id].version == deletion.version
        expected = plan.expected[deletion.vector_id]
        assert after[(expected.kind, expected.entity_id)].version == expected.version


def test_an_older_record_of_the_same_content_is_stamped_anew_without_embedding() -> None:
    """A, then B, then A again: the B that comes late must find something newer (class C)."""
    world = World(wanted=[A], stamps=[stamp_of(A, version=1)])
    (write,) = ordered(world, {ROW.identity: ROW}).plan.writes
    assert (write.stamp.version, write.needs_embedding) == (3, False)
    assert ordered(world, {ROW.identity: ROW}, keeps_tombstones=False).is_empty_for_store


def test_a_newer_record_of_the_wanted_content_is_adopted() -> None:
    """The state was lost or restored, the store was not."""
    world = World(wanted=[A], stamps=[stamp_of(A, version=9)])
    plan = ordered(world, {ROW.identity: ROW})
    assert plan.is_empty_for_store
    assert plan.raised is not None
    assert plan.raised.raised == [ROW._replace(version=9)]


def test_a_newer_record_of_other_content_is_overwritten_by_a_newer_one() -> None:
    """Tampered with, or written by a state that is lost."""
    world = World(wanted=[A], stamps=[stamp_of(B_CONTENT, version=9)])
    plan = ordered(world, {ROW.identity: ROW})
    assert [write.stamp.version for write in plan.plan.writes] == [10]
    assert plan.raised is not None
    assert plan.raised.raised == [ROW._replace(version=10)]


def test_a_record_that_nothing_is_remembered_of_is_deleted_above_its_version() -> None:
    """And remembered as deleted."""
    world = World(stamps=[stamp_of(A, version=9)])
    plan = ordered(world, {})
    gone = EntityRow("note", "a", 10, "", "", True)
    assert plan.raised is not None
    assert (plan.raised.observed, plan.raised.raised) == ([], [gone])
    assert plan.tombstones == (Tombstone(own_id(), OWNER, "note", "a", 10),)


def test_an_entity_that_comes_back_is_written_above_its_tombstone() -> None:
    """Or the store would refuse it."""
    stone = Tombstone(own_id(), OWNER, "note", "a", 7)
    plan = ordered(World(wanted=[A]), {ROW.identity: ROW}, tombstones=(stone,))
    assert [write.stamp.version for write in plan.plan.writes] == [8]


def test_a_tombstone_that_nobody_remembers_is_remembered_again() -> None:
    """So that it is collected one day."""
    stone = Tombstone(own_id(), OWNER, "note", "a", 7)
    plan = ordered(World(), {}, tombstones=(stone,))
    assert plan.is_empty_for_store
    assert plan.raised is not None
    assert plan.raised.raised == [EntityRow("note", "a", 7, "", "", True)]


def test_a_tombstone_that_is_as_remembered_is_left_alone() -> None:
    """Syncing again does nothing."""
    row = EntityRow("note", "a", 7, "", "", True)
    stone = Tombstone(own_id(), OWNER, "note", "a", 7)
    plan = ordered(World(), {row.identity: row}, tombstones=(stone,))
    assert plan.is_empty_for_store
    assert plan.raised is None


def test_a_record_under_a_foreign_vector_id_is_deleted_not_buried() -> None:
    """No write of ours is ever sent there, so nothing can come late."""
    foreign = str(UUID(int=1))
    world = World(stamps=[stamp_of(A, version=2, under=foreign)])
    gone = EntityRow("note", "a", 4, "", "", True)
    plan = ordered(world, {gone.identity: gone})
    assert [deletion.vector_id for deletion in plan.plan.deletes] == [foreign]
    assert [stone.vector_id for stone in plan.tombstones] == [own_id()]


def test_what_is_parked_is_left_out_until_it_is_to_be_tried_again() -> None:
    """The others go on."""
    other = entity("note", "b")
    rows = {
        ROW.identity: ROW._replace(parked_reason="NaN", is_parked=True),
        ("note", "b"): EntityRow("note", "b", 1, other.fingerprint, MODEL, False),
    }
    world = World(wanted=[A, other])
    plan = ordered(world, rows)
    assert [write.stamp.entity_id for write in plan.plan.writes] == ["b"]
    assert plan.parked == (rows[ROW.identity],)
    again = ordered(world, rows, retry_parked=True)
    assert [write.stamp.entity_id for write in again.plan.writes] == ["a", "b"]
    assert not again.parked


def test_a_plan_for_sides_that_agree_is_empty() -> None:
    """Control for all of the above: in order is in order."""
    world = World(wanted=[A], stamps=[stamp_of(A, version=3)])
    for keeps in (True, False):
        plan = ordered(world, {ROW.identity: ROW}, keeps_tombstones=keeps)
        assert plan.is_empty_for_store
        assert plan.raised is None
    assert difference(wanted_of([A]), world.stamps).is_clean
