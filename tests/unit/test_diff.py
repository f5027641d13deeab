"""The diff finds exactly what was planted, in whatever order its inputs come."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.worlds import (
    KINDS,
    MODEL,
    NO_VECTOR,
    OTHER_MODEL,
    OWNER,
    World,
    difference,
    entity,
    stamp_of,
    wanted_of,
    worlds,
)
from undrift.diff import OwnerDiff, diff_owner, standing, status_of
from undrift.fingerprint import vector_id
from undrift.model import EntityId, Outcome, Stamp

A, B = entity("note", "a"), entity("note", "b")
FOREIGN_ID = "00000000-0000-0000-0000-000000000001"
OTHER_FOREIGN_ID = "00000000-0000-0000-0000-000000000002"


def found(diff: OwnerDiff) -> dict[str, object]:
    """Everything a diff says, without its order."""
    return {
        "missing": {(e.kind, e.entity_id) for e in diff.missing},
        "stale": {s.vector_id for s in diff.stale},
        "changed": {(p.entity.kind, p.entity.entity_id) for p in diff.changed},
        "wrong_model": {(p.entity.kind, p.entity.entity_id) for p in diff.wrong_model},
        "duplicates": {s.vector_id for s in diff.duplicates},
        "foreign_kinds": diff.foreign_kinds,
    }


# --- what a diff finds ------------------------------------------------------------------------


@given(worlds())
def test_diff_finds_exactly_what_was_planted(world: World) -> None:
    """Nothing more, nothing less, in any mixture."""
    assert found(world.diff) == {
        "missing": world.missing,
        "stale": world.stale,
        "changed": world.changed,
        "wrong_model": world.wrong_model,
        "duplicates": world.duplicates,
        "foreign_kinds": world.foreign,
    }


@given(worlds(), st.randoms(use_true_random=False))
def test_order_of_the_inputs_does_not_matter(world: World, random: Random) -> None:
    """Neither side's order is meaningful."""
    one, other = world.diff, world.shuffled(random).diff
    assert found(one) == found(other)
    assert one.kept == other.kept
    assert one.store_counts == other.store_counts
    assert status_of(one, unmanaged=0) == status_of(other, unmanaged=0)


@given(worlds())
def test_nothing_is_said_twice(world: World) -> None:
    """Every record and every entity is in a list once."""
    diff = world.diff
    deleted = [stamp.vector_id for stamp in diff.deletes]
    assert len(deleted) == len(set(deleted))
    for listed in (diff.missing, diff.changed, diff.wrong_model):
        assert len(listed) == len(set(listed))


@given(worlds())
def test_every_managed_record_is_counted(world: World) -> None:
    """By kind, duplicates and stale ones included; not what no search finds, nor foreign kinds."""
    counts = world.diff.store_counts
    managed = [stamp.kind for stamp in world.stamps if stamp.kind in KINDS and stamp.model]
    assert {kind: count for kind, count in counts.items() if count} == {
        kind: managed.count(kind) for kind in set(managed)
    }


@given(worlds())
def test_record_that_is_kept_is_never_deleted(world: World) -> None:
    """For every entity that is wanted and has a record, one record stays (I1)."""
    diff = world.diff
    deleted = {stamp.vector_id for stamp in diff.deletes}
    for wanted in world.wanted:
        stands = diff.kept.get((wanted.kind, wanted.entity_id))
        assert stands is None or stands.vector_id not in deleted


@given(worlds())
def test_owner_that_the_source_lacks_leaves_only_stale_records(world: World) -> None:
    """All managed records are to go, whatever they hold."""
    diff = difference(None, world.stamps)
    managed = {stamp.vector_id for stamp in world.stamps if stamp.kind in KINDS}
    assert found(diff) == {
        "missing": set(),
        "stale": managed,
        "changed": set(),
        "wrong_model": set(),
        "duplicates": set(),
        "foreign_kinds": world.foreign,
    }
    assert status_of(diff, unmanaged=0).orphan_owner == bool(managed)


def test_equal_sides_are_clean() -> None:
    """Metadata, text and model agree."""
    diff = difference(wanted_of([A, B]), [stamp_of(B), stamp_of(A)])
    assert diff.is_clean
    assert diff.deletes == ()
    assert not diff.is_unknown_to_both


def test_metadata_that_differs_is_a_change() -> None:
    """The texts' hashes are equal, the fingerprints are not."""
    diff = difference(wanted_of([A]), [stamp_of(entity("note", "a", title="old"))])
    assert [pair.entity for pair in diff.changed] == [A]


def test_record_can_be_changed_and_of_another_model() -> None:
    """Both are said."""
    diff = difference(wanted_of([A]), [stamp_of(entity("note", "a", "old"), model=OTHER_MODEL)])
    assert len(diff.changed) == len(diff.wrong_model) == 1


def test_record_that_has_lost_its_vector_is_missing() -> None:
    """It is there, and no search finds it."""
    diff = difference(wanted_of([A]), [stamp_of(A, model=NO_VECTOR)])
    assert (diff.missing, diff.changed, diff.wrong_model) == ((A,), (), ())
    assert diff.store_counts == {}


def test_equal_ids_of_two_kinds_are_two_entities() -> None:
    """An id is unique within its kind."""
    note, part = entity("note", "1"), entity("part", "1")
    diff = difference(wanted_of([note]), [stamp_of(part)])
    assert (diff.missing, [s.kind for s in diff.stale]) == ((note,), ["part"])


def test_record_under_the_entitys_own_vector_id_stands_before_a_newer_one() -> None:
    """Every write goes there."""
    own, foreign = stamp_of(A, version=1), stamp_of(A, version=9, under=FOREIGN_ID)
    diff = difference(wanted_of([A]), [foreign, own])
    assert diff.kept["note", "a"] == own
    assert diff.duplicates == (foreign,)


def test_newest_record_stands_where_all_are_foreign() -> None:
    """By version, then by vector_id, so that every process decides alike."""
    old = stamp_of(A, version=1, under=OTHER_FOREIGN_ID)
    new = stamp_of(A, version=2, under=FOREIGN_ID)
    twin = stamp_of(A, version=2, under=OTHER_FOREIGN_ID[:-1] + "3")
    assert difference(wanted_of([A]), [old, new]).kept["note", "a"] == new
    assert difference(wanted_of([A]), [twin, old, new]).kept["note", "a"] == twin


def test_record_that_a_store_lists_twice_is_one_record() -> None:
    """An enumeration that overlaps itself must not have the only record deleted."""
    once = stamp_of(A)
    again = Stamp(*once)
    diff = difference(wanted_of([A]), [once, again])
    assert diff.duplicates == ()
    assert diff.is_clean
    assert diff.store_counts == {"note": 1}


def test_record_that_is_rewritten_while_it_is_listed_is_one_record() -> None:
    """The newer of the two stamps counts."""
    old, new = stamp_of(entity("note", "a", "old"), version=1), stamp_of(A, version=2)
    for stamps in ([old, new], [new, old]):
        diff = difference(wanted_of([A]), stamps)
        assert diff.is_clean
        assert diff.kept["note", "a"] == new


def test_stale_record_that_a_store_lists_twice_is_one_record() -> None:
    """It is deleted once, and counted once by the guard."""
    diff = difference(None, [stamp_of(A), Stamp(*stamp_of(A))])
    assert len(diff.stale) == 1
    assert diff.store_counts == {"note": 1}


# --- what stands in two looks -----------------------------------------------------------------


@given(worlds(), worlds())
def test_only_what_is_equal_in_both_looks_stands(first: World, second: World) -> None:
    """A difference that came or went in between was in motion."""
    one, two = first.diff, second.diff
    stands = standing(one, two)
    for name in ("missing", "stale", "changed", "wrong_model", "duplicates"):
        in_both = set(getattr(one, name)) & set(getattr(two, name))
        assert set(getattr(stands, name)) == in_both
    assert (stands.wanted, stands.kept, stands.store_counts, stands.foreign_kinds) == (
        two.wanted,
        two.kept,
        two.store_counts,
        two.foreign_kinds,
    )


@given(worlds(), st.randoms(use_true_random=False))
def test_everything_stands_where_nothing_moved(world: World, random: Random) -> None:
    """In whatever order the second look saw it."""
    assert found(standing(world.diff, world.shuffled(random).diff)) == found(world.diff)


@pytest.mark.parametrize(
    "second",
    [
        stamp_of(entity("note", "a", "older"), version=2),
        stamp_of(entity("note", "a", "old"), version=2),
    ],
    ids=["other content", "other version"],
)
def test_change_whose_record_was_rewritten_in_between_was_in_motion(second: Stamp) -> None:
    """Somebody is at work on it."""
    one = difference(wanted_of([A]), [stamp_of(entity("note", "a", "old"))])
    assert standing(one, difference(wanted_of([A]), [second])).is_clean


def test_missing_entity_that_changed_in_between_was_in_motion() -> None:
    """The source moved; the next check tells."""
    one = difference(wanted_of([A]), [])
    two = difference(wanted_of([entity("note", "a", "new")]), [])
    assert standing(one, two).is_clean
    assert not two.is_clean


# --- statuses ---------------------------------------------------------------------------------


@given(worlds(), st.integers(0, 3))
def test_status_says_what_the_diff_found(world: World, unmanaged: int) -> None:
    """Ids are sorted and said once; foreign kinds are unmanaged."""
    diff = world.diff
    status = status_of(diff, unmanaged=unmanaged, notes=("a note",))
    assert status.outcome is (Outcome.IN_SYNC if diff.is_clean else Outcome.DRIFT)
    assert status.is_in_sync == diff.is_clean == status.in_sync
    assert status.missing_ids == tuple(sorted(EntityId.of(*i) for i in world.missing))
    assert status.changed_ids == tuple(sorted(EntityId.of(*i) for i in world.changed))
    assert status.wrong_model_ids == tuple(sorted(EntityId.of(*i) for i in world.wrong_model))
    for ids, stamps in ((status.stale_ids, diff.stale), (status.duplicate_ids, diff.duplicates)):
        assert ids == tuple(sorted({stamp.key for stamp in stamps}))
    assert status.unmanaged == unmanaged + world.foreign
    assert status.notes == ("a note",)
    assert not status.orphan_owner


def test_owner_that_neither_side_has_is_not_found() -> None:
    """That is neither in sync nor drift."""
    status = status_of(difference(None, []), unmanaged=0)
    assert status.outcome is Outcome.NOT_FOUND
    assert status.in_sync is None


def test_owner_without_entities_and_without_records_is_in_sync() -> None:
    """An empty profile is one."""
    assert status_of(difference(wanted_of([]), []), unmanaged=0).outcome is Outcome.IN_SYNC


def test_owner_that_only_has_unmanaged_records_is_not_drift() -> None:
    """Records of a kind that is not configured are nobody's to delete."""
    status = status_of(difference(None, [stamp_of(entity("unconfigured", "1"))]), unmanaged=0)
    assert status.outcome is not Outcome.DRIFT
    assert (status.stale_ids, status.unmanaged, status.orphan_owner) == ((), 1, False)


def test_orphan_owner_is_drift() -> None:
    """The source does not have the owner, the store does."""
    status = status_of(difference(None, [stamp_of(A)]), unmanaged=0)
    assert (status.outcome, status.orphan_owner) == (Outcome.DRIFT, True)
    assert status.stale_ids == ("note:a",)
    assert status.source == {}


def test_entities_without_a_text_are_told() -> None:
    """They are in the source's counts and want no record."""
    wanted = wanted_of([A], without_text=2)
    assert status_of(difference(wanted, [stamp_of(A)]), unmanaged=0).without_text == 2


def test_kinds_without_records_are_not_counted_in_the_store() -> None:
    """A removed kind's records are unmanaged until somebody drops the kind."""
    diff = diff_owner(OWNER, wanted_of([]), [stamp_of(A)], model=MODEL, kinds=())
    assert (diff.store_counts, diff.foreign_kinds, diff.is_clean) == ({}, 1, True)


def test_own_vector_id_is_the_namespaces() -> None:
    """The test's own idea of a record's place is the product's."""
    assert stamp_of(A).vector_id == vector_id("default", OWNER, "note", "a")
