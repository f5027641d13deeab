"""A plan repairs any difference, in any store that keeps its two conditions, without a gap."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.worlds import (
    MODEL,
    NAMESPACE,
    OTHER_MODEL,
    OWNER,
    ModelStore,
    World,
    difference,
    entity,
    stamp_of,
    wanted_of,
    worlds,
)
from undrift.diff import OwnerDiff
from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.model import Cost, Stamp
from undrift.plan import Plan, cost_of, plan_owner, texts_to_embed
from undrift.ports import MAX_VERSION, Deletion

A = entity("note", "a")
FOREIGN_ID = "00000000-0000-0000-0000-000000000001"


def planned(
    diff: OwnerDiff, *, force: bool = False, occupied: dict[str, int] | None = None
) -> Plan:
    """The plan that repairs *diff*."""
    return plan_owner(diff, namespace=NAMESPACE, model=MODEL, force=force, occupied=occupied)


def repaired(world: World, plan: Plan) -> ModelStore:
    """The store after *plan* and the round in which its read-back is acted on."""
    store = ModelStore(world.stamps)
    for _ in store.apply(plan):
        pass
    settle(world, store)
    return store


def settle(world: World, store: ModelStore) -> None:
    """Apply what a look at the store as it is now asks for."""
    after = difference(wanted_of(world.wanted), store.records.values())
    for _ in store.apply(planned(after)):
        pass


# --- properties -------------------------------------------------------------------------------


@given(worlds(), st.booleans())
def test_applying_a_plan_leaves_a_clean_diff(world: World, force: bool) -> None:
    """I4: two rounds are enough when nobody else writes, and the second writes nothing."""
    store = repaired(world, planned(world.diff, force=force))
    after = difference(wanted_of(world.wanted), store.records.values())
    assert after.is_clean
    assert after.foreign_kinds == world.foreign


@given(worlds(), st.booleans())
def test_applying_a_plan_again_changes_nothing(world: World, force: bool) -> None:
    """I5: a retried request does no harm, and a repaired owner needs no plan."""
    plan = planned(world.diff, force=force)
    store = repaired(world, plan)
    before = dict(store.records)
    for _ in store.apply(plan):
        assert store.records == before
    after = planned(difference(wanted_of(world.wanted), before.values()))
    assert (after.writes, after.deletes) == ((), ())


@given(worlds(), st.booleans())
def test_no_live_entity_stops_being_searchable_at_any_step(world: World, force: bool) -> None:
    """I1: wherever the run is cut off, what was searchable and is wanted still is."""
    store = ModelStore(world.stamps)
    live = {(e.kind, e.entity_id) for e in world.wanted} & store.searchable()
    for _ in store.apply(planned(world.diff, force=force)):
        assert live <= store.searchable()


@given(worlds(), st.booleans(), st.data())
def test_interrupted_plan_is_finished_by_the_next(
    world: World, force: bool, data: st.DataObject
) -> None:
    """I6: a crash after any step leaves what a new look can repair."""
    plan = planned(world.diff, force=force)
    store = ModelStore(world.stamps)
    steps = len(plan.writes) + len(plan.deletes)
    for _, _ in zip(range(data.draw(st.integers(0, steps))), store.apply(plan), strict=False):
        pass
    wanted = wanted_of(world.wanted)
    for _ in range(2):
        settle(world, store)
    assert difference(wanted, store.records.values()).is_clean


@given(worlds(), st.booleans())
def test_versions_only_grow(world: World, force: bool) -> None:
    """I2: every write is newer than everything known of its entity, and below the limit."""
    known: dict[tuple[str, str], int] = {}
    for stamp in world.stamps:
        identity = (stamp.kind, stamp.entity_id)
        known[identity] = max(known.get(identity, 0), stamp.version)
    for write in planned(world.diff, force=force).writes:
        version = write.stamp.version
        assert version == known.get((write.stamp.kind, write.stamp.entity_id), 0) + 1
        assert version < MAX_VERSION


@given(worlds())
def test_late_plan_replaces_nothing_newer(world: World) -> None:
    """A plan that was overtaken is refused: writes by version, deletes by version."""
    plan = planned(world.diff)
    store = ModelStore(stamp._replace(version=stamp.version + 100) for stamp in world.stamps)
    before = dict(store.records)
    for _ in store.apply(plan):
        pass
    assert before.items() <= store.records.items()


@given(worlds(), st.booleans(), st.randoms(use_true_random=False))
def test_order_of_the_inputs_does_not_matter(world: World, force: bool, random: Random) -> None:
    """The same repair comes out."""
    one = planned(world.diff, force=force)
    other = planned(world.shuffled(random).diff, force=force)
    assert {w.stamp for w in one.writes} == {w.stamp for w in other.writes}
    assert set(one.deletes) == set(other.deletes)


@given(worlds(), st.booleans())
def test_plan_touches_only_what_its_owner_has(world: World, force: bool) -> None:
    """I7: every write carries owner and namespace, every delete names a record that was read."""
    plan = planned(world.diff, force=force)
    assert plan.owner_id == OWNER
    read = {(stamp.owner_id, stamp.vector_id, stamp.version) for stamp in world.stamps}
    assert {tuple(deletion) for deletion in plan.deletes} <= read
    assert len(plan.deletes) == len(set(plan.deletes))
    for write in plan.writes:
        assert (write.stamp.owner_id, write.stamp.namespace) == (OWNER, NAMESPACE)
        assert write.stamp == stamp_of(write.entity, version=write.stamp.version)


@given(worlds())
def test_plan_costs_only_the_difference(world: World) -> None:
    """What is in sync is neither written nor embedded."""
    written = {(w.entity.kind, w.entity.entity_id) for w in planned(world.diff).writes}
    assert written == world.missing | world.changed | world.wrong_model


@given(worlds())
def test_force_rewrites_and_embeds_everything(world: World) -> None:
    """Every wanted entity, in sync or not."""
    plan = planned(world.diff, force=True)
    assert {w.entity for w in plan.writes} == set(world.wanted)
    assert all(write.needs_embedding for write in plan.writes)


# --- single cases -----------------------------------------------------------------------------


def test_missing_entity_is_written_as_version_one() -> None:
    """There is nothing to be newer than."""
    (write,) = planned(difference(wanted_of([A]), [])).writes
    assert write.stamp == stamp_of(A, version=1)
    assert write.needs_embedding


def test_metadata_change_needs_no_embedding() -> None:
    """The stored vector still belongs to the text."""
    old = stamp_of(entity("note", "a", title="old"), version=4)
    (write,) = planned(difference(wanted_of([A]), [old])).writes
    assert write.stamp == stamp_of(A, version=5)
    assert not write.needs_embedding


@pytest.mark.parametrize(
    "stored",
    [
        stamp_of(entity("note", "a", "old text")),
        stamp_of(entity("note", "a", title="old"), model=OTHER_MODEL),
        stamp_of(entity("note", "a", title="old"), under=FOREIGN_ID),
        stamp_of(A, model=OTHER_MODEL),
    ],
    ids=["other text", "other model and metadata", "another record's vector", "other model"],
)
def test_anything_else_needs_an_embedding(stored: Stamp) -> None:
    """There is no vector of this text and model under this id."""
    (write,) = planned(difference(wanted_of([A]), [stored])).writes
    assert write.needs_embedding


def test_changed_and_of_another_model_is_written_once() -> None:
    """One record, one write."""
    old = stamp_of(entity("note", "a", "old"), model=OTHER_MODEL)
    assert len(planned(difference(wanted_of([A]), [old])).writes) == 1


def test_foreign_record_goes_only_after_its_entity_is_seen_to_be_written() -> None:
    """It is the only one that a search finds until then; a refused write must not cost it."""
    foreign = stamp_of(entity("note", "a", "old"), version=3, under=FOREIGN_ID)
    plan = planned(difference(wanted_of([A]), [foreign]))
    (write,) = plan.writes
    assert write.stamp == stamp_of(A, version=4)
    assert plan.deletes == ()
    after = planned(difference(wanted_of([A]), [foreign, write.stamp]))
    assert after.writes == ()
    assert after.deletes == (Deletion(OWNER, FOREIGN_ID, 3),)


def test_duplicates_of_an_entity_in_sync_are_deleted_without_a_write() -> None:
    """The record that stands is right."""
    plan = planned(difference(wanted_of([A]), [stamp_of(A), stamp_of(A, under=FOREIGN_ID)]))
    assert (plan.writes, plan.deletes) == ((), (Deletion(OWNER, FOREIGN_ID, 1),))


def test_record_that_a_store_lists_twice_is_not_deleted() -> None:
    """I1, whatever an enumeration repeats."""
    plan = planned(difference(wanted_of([A]), [stamp_of(A), stamp_of(A)._replace()]))
    assert plan.deletes == ()


def test_orphan_owners_records_are_deleted() -> None:
    """With force, too: there is nothing to write."""
    for force in (False, True):
        plan = planned(difference(None, [stamp_of(A, version=7)]), force=force)
        assert plan.writes == ()
        assert plan.deletes == (Deletion(OWNER, stamp_of(A).vector_id, 7),)


def test_write_is_newer_than_a_record_that_occupies_its_place() -> None:
    """Else the store would refuse it for ever."""
    own = stamp_of(A).vector_id
    intruder = stamp_of(A, version=9)._replace(owner_id="bob")
    wanted = wanted_of([A])
    plan = planned(difference(wanted, []), occupied={own: 9, FOREIGN_ID: 50})
    store = ModelStore([intruder])
    for _ in store.apply(plan):
        pass
    assert store.records[own] == stamp_of(A, version=10)


def test_occupied_place_does_not_lower_a_version() -> None:
    """The highest of all that is known counts."""
    foreign = stamp_of(entity("note", "a", "old"), version=30, under=FOREIGN_ID)
    own = stamp_of(A).vector_id
    (write,) = planned(difference(wanted_of([A]), [foreign]), occupied={own: 9}).writes
    assert write.stamp.version == 31


# --- texts and cost ---------------------------------------------------------------------------


def test_equal_texts_are_embedded_once() -> None:
    """By their hash, over all plans of a run, in the writes' order."""
    entities = [entity("note", "a", "X"), entity("note", "b", "Y"), entity("part", "c", "X")]
    plans = [planned(difference(wanted_of(entities), []))] * 2
    assert texts_to_embed(plans) == {entities[0].text_hash: "X", entities[1].text_hash: "Y"}
    assert list(texts_to_embed(plans).values()) == ["X", "Y"]


def test_only_the_beginning_of_a_long_text_is_paid_for() -> None:
    """As many characters as are embedded, at four a token."""
    long = entity("note", "a", "x" * (MAX_EMBEDDED_CHARACTERS + 1000))
    cost = cost_of(planned(difference(wanted_of([long]), [])), already_counted=set())
    assert cost.tokens == MAX_EMBEDDED_CHARACTERS // 4


def test_cost_counts_distinct_texts_once_in_a_run() -> None:
    """Texts that an earlier plan pays for are free; writes and deletes are not."""
    entities = [
        entity("note", "a", "four"),
        entity("note", "b", "four"),
        entity("note", "c", "five5"),
    ]
    plan = planned(difference(wanted_of(entities), [stamp_of(entity("part", "gone"))]))
    paid: set[str] = set()
    first, second = cost_of(plan, already_counted=paid), cost_of(plan, already_counted=paid)
    assert first == Cost(texts=2, tokens=1 + 2, writes=3, deletes=1)
    assert second == Cost(texts=0, tokens=0, writes=3, deletes=1)
    assert first + second == Cost(texts=2, tokens=3, writes=6, deletes=2)
    assert len(paid) == 2


def test_cost_of_a_metadata_change_is_a_write_alone() -> None:
    """Nothing is embedded for it."""
    plan = planned(difference(wanted_of([A]), [stamp_of(entity("note", "a", title="old"))]))
    assert cost_of(plan, already_counted=set()) == Cost(texts=0, tokens=0, writes=1, deletes=0)


@given(worlds(), st.booleans())
def test_cost_is_what_the_plan_does(world: World, force: bool) -> None:
    """A dry run's numbers are the real run's."""
    plan = planned(world.diff, force=force)
    cost = cost_of(plan, already_counted=set())
    assert cost.writes == len(plan.writes)
    assert cost.deletes == len(plan.deletes)
    assert cost.texts == len(texts_to_embed([plan]))
