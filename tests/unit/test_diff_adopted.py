"""Records that another program wrote: what a comparison may say of them, and where a repair writes.

Until undrift has stamped such a record, it says nothing of its content but its text and its model,
if even those.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.worlds import (
    KINDS,
    MODEL,
    NAMESPACE,
    NO_VECTOR,
    OTHER_MODEL,
    OWNER,
    ModelStore,
    entity,
    stamp_of,
    wanted_of,
)
from undrift.adoption import UNSTATED_MODEL, Adoption, Field, StoreFields
from undrift.diff import OwnerDiff, diff_owner, standing, status_of
from undrift.fingerprint import text_hash, vector_id
from undrift.model import Entity, Outcome, Stamp
from undrift.plan import Plan, plan_owner
from undrift.state import EntityRow
from undrift.versions import OrderedPlan, order_plan

A = entity("note", "a")
OTHER_TEXT = text_hash(b"other")
NO_TEXT = ""

WHOLE = Adoption(
    fields=StoreFields(
        owner=Field(path=("user",)), kind=Field(path=("kind",)), entity_id=Field(path=("id",))
    )
)
IN_PARTS = Adoption(fields=replace(WHOLE.fields, part=Field(path=("chunk",))))


def foreign_id(number: int) -> str:
    return str(UUID(int=number))


def unstamped(of: Entity, number: int = 1, *, text: str | None = None, model: str = MODEL) -> Stamp:
    """What a store says of a record of *of* that has no stamp."""
    stored = of.text_hash if text is None else text
    plain = stamp_of(of, version=0, model=model, under=foreign_id(number))
    return plain._replace(fingerprint="", text_hash=stored)


def compared(
    wanted: Iterable[Entity], stamps: Sequence[Stamp], adoption: Adoption | None = WHOLE
) -> OwnerDiff:
    return diff_owner(OWNER, wanted_of(wanted), stamps, model=MODEL, kinds=KINDS, adoption=adoption)


def outcome(diff: OwnerDiff) -> Outcome:
    return status_of(diff, unmanaged=0).outcome


# --- what may be said ---------------------------------------------------------------------------

_TEXTS = st.sampled_from([A.text_hash, A.text_hash, OTHER_TEXT, NO_TEXT])
_MODELS = st.sampled_from([MODEL, MODEL, OTHER_MODEL, UNSTATED_MODEL, NO_VECTOR])


@st.composite
def foreign_records(draw: st.DrawFn) -> list[Stamp]:
    """Records that another program wrote of up to three entities, in any state."""
    drawn = st.tuples(st.sampled_from("abc"), _TEXTS, _MODELS)
    return [
        unstamped(entity("note", entity_id), number, text=text, model=model)
        for number, (entity_id, text, model) in enumerate(draw(st.lists(drawn, max_size=8)), 1)
    ]


@given(foreign_records(), st.sampled_from([WHOLE, IN_PARTS]))
def test_an_unstamped_record_is_in_sync_only_where_its_text_and_model_are_the_sources(
    stamps: list[Stamp], adoption: Adoption
) -> None:
    """And where it is the only one of its entity; everything else is told."""
    wanted = [entity("note", entity_id) for entity_id in "abc"]
    diff = compared(wanted, stamps, adoption)
    differing = {e.entity_id for e in diff.missing} | {s.entity_id for s in diff.duplicates}
    for pairs in (diff.changed, diff.wrong_model, diff.unknown):
        differing |= {pair.entity.entity_id for pair in pairs}
    settled = set()
    for entity_id in "abc":
        own = [(s.text_hash, s.model) for s in stamps if s.entity_id == entity_id]
        settled |= {entity_id} if own == [(A.text_hash, MODEL)] else set()
    assert differing == set("abc") - settled
    assert settled <= {pair.entity.entity_id for pair in diff.unstamped}
    assert (outcome(diff) is Outcome.IN_SYNC) == (settled == set("abc"))


@given(foreign_records(), st.sampled_from([WHOLE, IN_PARTS]))
def test_content_unknown_is_never_in_sync(stamps: list[Stamp], adoption: Adoption) -> None:
    """It is drift where something else is, and unknown where nothing else is."""
    diff = compared([entity("note", entity_id) for entity_id in "abc"], stamps, adoption)
    if diff.unknown:
        assert not diff.is_clean
        assert outcome(diff) is (Outcome.DRIFT if diff.has_drifted else Outcome.UNKNOWN)
        status = status_of(diff, unmanaged=0)
        assert {key.id for key in status.unknown_ids} == {p.entity.entity_id for p in diff.unknown}


@pytest.mark.parametrize(
    ("text", "model", "expected"),
    [
        (A.text_hash, MODEL, {"unstamped"}),
        (A.text_hash, UNSTATED_MODEL, {"unknown"}),
        (NO_TEXT, MODEL, {"unknown"}),
        (NO_TEXT, UNSTATED_MODEL, {"unknown"}),
        (OTHER_TEXT, MODEL, {"changed"}),
        (OTHER_TEXT, UNSTATED_MODEL, {"changed"}),
        (A.text_hash, OTHER_MODEL, {"wrong_model"}),
        (NO_TEXT, OTHER_MODEL, {"wrong_model"}),
        (OTHER_TEXT, OTHER_MODEL, {"changed", "wrong_model"}),
        (A.text_hash, NO_VECTOR, {"missing"}),
    ],
)
def test_what_is_said_of_one_record(text: str, model: str, expected: set[str]) -> None:
    """By what its text and its model say, and nothing besides."""
    diff = compared([A], [unstamped(A, text=text, model=model)])
    lists = ("missing", "stale", "changed", "wrong_model", "duplicates", "unknown", "unstamped")
    assert {name for name in lists if getattr(diff, name)} == expected


def test_only_an_adopted_store_takes_a_record_without_a_fingerprint_for_more_than_changed() -> None:
    """In undrift's own store it is a record that somebody damaged."""
    diff = compared([A], [unstamped(A)], None)
    assert [pair.entity for pair in diff.changed] == [A]
    assert (diff.unknown, diff.unstamped) == ((), ())


def test_a_stamped_record_is_compared_as_any_other() -> None:
    """Under another program's id, too."""
    stamped = stamp_of(A, version=3, under=foreign_id(1))
    assert compared([A], [stamped]).is_complete
    changed = stamp_of(entity("note", "a", "old"), under=foreign_id(1))
    assert [pair.entity for pair in compared([A], [changed]).changed] == [A]


def test_unstamped_records_are_clean_and_not_complete() -> None:
    """A check says in sync; a sync has something to write."""
    diff = compared([A], [unstamped(A)])
    assert diff.is_clean
    assert not diff.is_complete
    assert status_of(diff, unmanaged=0).unstamped == 1


def test_a_record_of_no_entity_is_stale() -> None:
    """Whatever its content."""
    diff = compared([], [unstamped(A, text=NO_TEXT)])
    assert [stamp.entity_id for stamp in diff.stale] == ["a"]
    assert diff.unknown == ()


# --- several records of one entity --------------------------------------------------------------


def test_several_records_without_parts_are_duplicates_and_the_one_that_agrees_stands() -> None:
    """The others are to go."""
    agreeing, odd = unstamped(A, 1), unstamped(A, 2, text=OTHER_TEXT)
    for stamps in ([agreeing, odd], [odd, agreeing]):
        diff = compared([A], stamps)
        assert diff.kept["note", "a"] == agreeing
        assert diff.duplicates == (odd,)
        assert [pair.stamp for pair in diff.unstamped] == [agreeing]
        assert outcome(diff) is Outcome.DRIFT


def test_parts_are_one_entity_of_unknown_content() -> None:
    """Even where one of them has the whole text; and they count as one."""
    parts = [unstamped(A, 1), unstamped(A, 2, text=OTHER_TEXT), unstamped(A, 3, text=NO_TEXT)]
    diff = compared([A], parts, IN_PARTS)
    assert [pair.entity for pair in diff.unknown] == [A]
    assert (diff.deletes, diff.unstamped, diff.changed) == ((), (), ())
    assert outcome(diff) is Outcome.UNKNOWN
    assert diff.store_counts == {"note": 3}


def test_a_single_part_is_the_whole() -> None:
    """Where a program made one vector of a short text."""
    assert compared([A], [unstamped(A)], IN_PARTS).unstamped


def test_parts_of_another_model_are_said_to_be() -> None:
    """By the one that stands for them."""
    diff = compared([A], [unstamped(A, n, model=OTHER_MODEL) for n in (1, 2)], IN_PARTS)
    assert len(diff.wrong_model) == len(diff.unknown) == 1


def test_parts_of_an_entity_that_is_gone_are_all_stale() -> None:
    """Each is a record to be deleted."""
    diff = compared([], [unstamped(A, n) for n in (1, 2, 3)], IN_PARTS)
    assert len(diff.stale) == 3


@pytest.mark.parametrize("under", [None, foreign_id(9)], ids=["own id", "foreign id"])
def test_a_record_that_undrift_wrote_stands_before_the_parts(under: str | None) -> None:
    """It is of the whole text; the parts are left over."""
    stamped = stamp_of(A, version=1, under=under)
    parts = [unstamped(A, 1), unstamped(A, 2, text=OTHER_TEXT)]
    diff = compared([A], [*parts, stamped], IN_PARTS)
    assert diff.kept["note", "a"] == stamped
    assert set(diff.duplicates) == set(parts)
    assert (diff.unknown, diff.unstamped) == ((), ())


def test_a_record_that_is_stamped_between_two_looks_was_in_motion() -> None:
    """What is unknown in both stays unknown."""
    before = compared([A], [unstamped(A, text=NO_TEXT)])
    after = compared([A], [stamp_of(A, under=foreign_id(1))])
    assert standing(before, after).is_complete
    assert standing(before, before).unknown == before.unknown


# --- where a repair writes ----------------------------------------------------------------------


def planned(diff: OwnerDiff, *, stays: Iterable[tuple[str, str]] = ()) -> Plan:
    return plan_owner(diff, namespace=NAMESPACE, model=MODEL, stays=frozenset(stays))


def own_id(of: Entity = A) -> str:
    return vector_id(NAMESPACE, OWNER, of.kind, of.entity_id)


def test_a_stamp_is_written_where_the_record_lies_without_an_embedding() -> None:
    diff = compared([A], [unstamped(A)])
    (write,) = planned(diff, stays=[("note", "a")]).writes
    assert (write.stamp.vector_id, write.needs_embedding) == (foreign_id(1), False)
    assert write.stamp.version == 1
    assert write.stamp.fingerprint == A.fingerprint


@pytest.mark.parametrize(
    "record",
    [
        unstamped(A, text=OTHER_TEXT),
        unstamped(A, text=NO_TEXT),
        unstamped(A, model=UNSTATED_MODEL),
        unstamped(A, model=OTHER_MODEL),
        unstamped(A, model=NO_VECTOR),
    ],
)
def test_what_is_not_certain_is_embedded(record: Stamp) -> None:
    """In its place where it may stay, else under the entity's own id."""
    diff = compared([A], [record])
    (write,) = planned(diff, stays=[("note", "a")]).writes
    assert (write.stamp.vector_id, write.needs_embedding) == (foreign_id(1), True)
    (write,) = planned(diff).writes
    assert (write.stamp.vector_id, write.needs_embedding) == (own_id(), True)


def test_parts_are_replaced_by_one_record_which_is_written_first() -> None:
    """The parts go in the next round, when the read-back has shown it."""
    parts = [unstamped(A, 1), unstamped(A, 2, text=OTHER_TEXT)]
    plan = planned(compared([A], parts, IN_PARTS))
    assert [write.stamp.vector_id for write in plan.writes] == [own_id()]
    assert plan.deletes == ()
    after = compared([A], [*parts, plan.writes[0].stamp], IN_PARTS)
    assert {deletion.vector_id for deletion in planned(after).deletes} == {
        part.vector_id for part in parts
    }


@given(foreign_records(), st.sampled_from([WHOLE, IN_PARTS]), st.booleans())
def test_repairs_end_complete_and_never_leave_a_gap(
    stamps: list[Stamp], adoption: Adoption, in_place: bool
) -> None:
    """I1, I4: whatever another program wrote, two rounds are enough."""
    wanted = [entity("note", entity_id) for entity_id in "abc"]
    store = ModelStore(stamps)
    searchable = store.searchable() & {("note", entity_id) for entity_id in "abc"}
    for _ in range(2):
        diff = compared(wanted, list(store.records.values()), adoption)
        stays = list(diff.kept) if in_place else []
        for _ in store.apply(planned(diff, stays=stays)):
            assert searchable <= store.searchable()
    assert compared(wanted, list(store.records.values()), adoption).is_complete


# --- with a state -------------------------------------------------------------------------------


def ordered(diff: OwnerDiff, *, version: int, keeps_tombstones: bool) -> OrderedPlan:
    """The plan of a store that shares its transactions with the state (T), or does not (C)."""
    row = EntityRow("note", "a", version, A.fingerprint, MODEL, False)
    return order_plan(
        diff,
        {row.identity: row},
        {},
        namespace=NAMESPACE,
        model=MODEL,
        keeps_tombstones=keeps_tombstones,
        is_adopted=True,
    )


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("text", [A.text_hash, OTHER_TEXT, NO_TEXT])
def test_a_transactional_store_writes_every_record_where_it_lies(text: str, version: int) -> None:
    """Nothing late gets through, so that the other program's ids stay."""
    diff = compared([A], [unstamped(A, text=text)])
    (write,) = ordered(diff, version=version, keeps_tombstones=False).plan.writes
    assert write.stamp.vector_id == foreign_id(1)
    assert write.stamp.version == version
    assert write.needs_embedding is (text != A.text_hash)


def test_a_conditional_store_stamps_where_the_record_lies_if_nothing_can_be_late() -> None:
    """That is where the first version ever is given out, and text and model agree."""
    diff = compared([A], [unstamped(A)])
    (write,) = ordered(diff, version=1, keeps_tombstones=True).plan.writes
    assert (write.stamp.vector_id, write.needs_embedding) == (foreign_id(1), False)


@pytest.mark.parametrize(
    ("record", "version"),
    [
        (unstamped(A), 2),
        (unstamped(A, text=OTHER_TEXT), 1),
        (unstamped(A, text=NO_TEXT), 1),
        (unstamped(A, model=UNSTATED_MODEL), 1),
        (unstamped(A, model=OTHER_MODEL), 1),
    ],
)
def test_a_conditional_store_writes_all_else_under_the_entitys_own_id(
    record: Stamp, version: int
) -> None:
    """A late write goes there too, and must meet a newer version."""
    (write,) = ordered(compared([A], [record]), version=version, keeps_tombstones=True).plan.writes
    assert write.stamp.vector_id == own_id()
    assert write.needs_embedding
    assert write.stamp.version == version


def test_a_stamped_record_in_its_place_needs_nothing_in_a_transactional_store() -> None:
    """And one whose version is ahead of the state raises the state's."""
    diff = compared([A], [stamp_of(A, version=1, under=foreign_id(1))])
    assert ordered(diff, version=1, keeps_tombstones=False).is_empty_for_store
    ahead = compared([A], [stamp_of(A, version=7, under=foreign_id(1))])
    plan = ordered(ahead, version=1, keeps_tombstones=False)
    assert plan.plan.writes == ()
    assert plan.raised is not None
    assert [row.version for row in plan.raised.raised] == [7]
