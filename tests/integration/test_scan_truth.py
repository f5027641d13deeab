"""A check of everybody says of each owner what a check by name says, whatever it remembers.

The drift is planted by SQL behind the back of memos that were true a moment ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import pytest

from support.drift import Drift, fleet, plant_everything
from support.layouts import (
    Document,
    DocumentsLayout,
    Layout,
    TablesLayout,
    document,
    experience,
    skill_key,
)
from support.scanning import (
    NO_MEMOS,
    assert_true,
    checked,
    content,
    forget_memos,
    memory_table,
    named,
    opened_by_url,
    owners_of,
    small_pages,
    store_digest,
    warm,
)
from support.sides import World, drift_of
from undrift import Outcome, SyncStatus
from undrift.model import Read
from undrift.scan import engine, feed, run
from undrift.scan.options import DEFAULT_CHECK, CheckOptions

OWNERS = 100


@pytest.fixture(params=[DocumentsLayout(), TablesLayout()], ids=["documents", "tables"])
def layout(request: pytest.FixtureRequest) -> Layout:
    """Each layout of a source."""
    found: Layout = request.param
    return found


def planted(world: World, seed: int) -> Drift:
    """Every kind of drift, behind memos of a fleet that was in sync."""
    random = Random(seed)
    documents = fleet(OWNERS, random)
    world.bring_in_sync(documents)
    warm(world)
    drift = Drift(world, documents, random)
    plant_everything(drift, random)
    return drift


def assert_as_planted(found: dict[str, SyncStatus], drift: Drift) -> None:
    """Nothing else than what was planted is said, of anybody."""
    by_owner = {owner: drift_of(status) for owner, status in found.items()}
    assert {owner: ids for owner, ids in by_owner.items() if ids} == drift.expected
    assert {owner for owner, status in found.items() if status.orphan_owner} == drift.orphans
    assert {owner: status.unmanaged for owner, status in found.items() if status.unmanaged} == {
        owner: count for owner, count in drift.unmanaged.items() if owner in drift.documents
    }
    for owner, status in found.items():
        assert status.outcome is (Outcome.DRIFT if owner in drift.expected else Outcome.IN_SYNC)


@pytest.mark.parametrize("page_owners", [7, 2_000])
def test_planted_drift_is_found_exactly_whatever_is_remembered(
    new_world: Callable[..., World],
    layout: Layout,
    page_owners: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With memos of before, with new ones, without any, and without using them."""
    small_pages(monkeypatch, page_owners)
    world = new_world(layout)
    drift = planted(world, seed=page_owners)
    before = world.store.records()
    for options in (DEFAULT_CHECK, DEFAULT_CHECK, NO_MEMOS):
        assert_as_planted(assert_true(world, options), drift)
    forget_memos(world)
    found = assert_true(world)
    assert_as_planted(found, drift)
    assert {status.read for status in found.values()} == {Read.FULL}
    assert Read.DIGESTS in {status.read for status in checked(world.sides).values()}
    assert world.store.records() == before
    assert world.embedder.texts == []


def test_processes_find_exactly_the_planted_drift(
    new_world: Callable[..., World], layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They open both sides for themselves, and give their answers in the owners' order."""
    small_pages(monkeypatch, 9)
    monkeypatch.setattr(engine, "MANY_RENDERED", 0)
    world = new_world(layout)
    drift = planted(world, seed=3)
    forget_memos(world)
    with opened_by_url(world) as sides:
        for options in (CheckOptions(processes=2), CheckOptions(processes=2, memos=False)):
            found = assert_true(world, options, sides=sides)
            assert_as_planted(found, drift)
            assert list(found) == list(checked(world.sides))


# --- one fault at a time, behind memos ------------------------------------------------------------

FOUR: dict[str, Document] = {
    str(owner): document(
        experience("exp_1", f"Baker {owner}"),
        experience("exp_2", f"Miller {owner}"),
        experience("blank", "", title="", company=""),
        skills=["SQL", "Grafting"],
    )
    for owner in range(1, 5)
}
KEPT, OTHER = "experience:exp_1", "experience:exp_2"


def swap(world: World, one: str, other: str, *columns: str) -> None:
    """Let two records change what they say in *columns*."""
    records = world.store.records()
    for target, origin in ((one, other), (other, one)):
        world.store.set(target, **{column: records[origin][column] for column in columns})


def rekey(world: World) -> None:
    world.store.set(world.vector_id(1, KEPT), entity_id="exp_9")


def swap_keys(world: World) -> None:
    skill = world.vector_id(1, skill_key("SQL"))
    swap(world, world.vector_id(1, KEPT), skill, "kind", "entity_id")


def swap_fingerprints(world: World) -> None:
    swap(world, world.vector_id(1, KEPT), world.vector_id(1, OTHER), "fingerprint")


def swap_fingerprints_of_two(world: World) -> None:
    swap(world, world.vector_id(1, KEPT), world.vector_id(2, KEPT), "fingerprint")


def swap_owners(world: World) -> None:
    swap(world, world.vector_id(1, KEPT), world.vector_id(2, KEPT), "owner_id")


def blank_fingerprint(world: World) -> None:
    world.store.set(world.vector_id(1, KEPT), fingerprint="")


def lose_record(world: World) -> None:
    world.store.delete(world.vector_id(1, KEPT))


def lose_vector(world: World) -> None:
    world.store.lose_vector(world.vector_id(1, KEPT))


def bury(world: World) -> None:
    world.store.set(world.vector_id(1, KEPT), deleted=1)


def remodel(world: World) -> None:
    world.store.set(world.vector_id(1, KEPT), model="test/other:16:l2")


def copy(world: World) -> None:
    world.store.copy(world.vector_id(1, KEPT), entity_id="exp_1")


def copy_from_nowhere(world: World) -> None:
    world.store.copy(world.vector_id(1, KEPT), entity_id="never_was")


def expel(world: World) -> None:
    world.store.set(world.vector_id(1, KEPT), namespace="other")


def rekind(world: World) -> None:
    world.store.set(world.vector_id(1, KEPT), kind="hobby")


def rename_in_store(world: World) -> None:
    rows = world.store.managed()
    for vector_id in [v for v, row in rows.items() if row["owner_id"] == "1"]:
        world.store.set(vector_id, owner_id="77")


def rename_in_source(world: World) -> None:
    world.source.run("UPDATE profiles SET user_id = 77 WHERE user_id = 1")


def remove_owner(world: World) -> None:
    world.remove_owners(["1"])


def swap_documents(world: World) -> None:
    world.put_all({"1": FOUR["2"], "2": FOUR["1"]})


def edit(world: World) -> None:
    world.put(1, document(experience("exp_1", "Brewer"), *FOUR["1"]["experiences"][1:]))


def empty(world: World) -> None:
    world.put(1, {})


def erase(world: World) -> None:
    world.source.run("UPDATE profiles SET filtered_data = NULL WHERE user_id = 1")


def spoil(world: World) -> None:
    world.source.run("UPDATE profiles SET filtered_data = '[1, 2]' WHERE user_id = 1")


def name_twice(world: World) -> None:
    world.put(1, document(experience("exp_1", "Baker"), experience("exp_1", "Miller")))


FAULTS: dict[Callable[[World], None], set[str]] = {
    rekey: {"1"},
    swap_keys: {"1"},
    swap_fingerprints: {"1"},
    swap_fingerprints_of_two: {"1", "2"},
    swap_owners: {"1", "2"},
    blank_fingerprint: {"1"},
    lose_record: {"1"},
    lose_vector: {"1"},
    bury: {"1"},
    remodel: {"1"},
    copy: {"1"},
    copy_from_nowhere: {"1"},
    expel: {"1"},
    rekind: {"1"},
    rename_in_store: {"1", "77"},
    rename_in_source: {"1", "77"},
    remove_owner: {"1"},
    swap_documents: {"1", "2"},
    edit: {"1"},
    empty: {"1"},
    erase: {"1"},
    spoil: {"1"},
    name_twice: {"1"},
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_fault_behind_true_memos_is_found(world: World, fault: Callable[[World], None]) -> None:
    """By the next check, and by the one behind it, which remembers more; the others are in sync."""
    world.bring_in_sync(FOUR)
    warm(world)
    fault(world)
    for options in (DEFAULT_CHECK, DEFAULT_CHECK, NO_MEMOS):
        found = assert_true(world, options)
        assert {o for o, status in found.items() if not status.is_in_sync} == FAULTS[fault]
        others = [status for o, status in found.items() if o not in FAULTS[fault]]
        assert {status.without_text for status in others} == {1}
        assert {status.read for status in others} == {
            Read.FULL if options is NO_MEMOS else Read.DIGESTS
        }


@pytest.mark.parametrize("change", [{"namespace": "other"}, {"namespace": None}, {"kind": "hobby"}])
def test_records_that_are_not_managed_are_counted_and_no_drift(
    world: World, change: dict[str, object]
) -> None:
    """By digests as by stamps; an owner of whom there is nothing else is nobody."""
    world.bring_in_sync(FOUR)
    warm(world)
    world.store.copy(world.vector_id(1, KEPT), **change)
    if "namespace" in change:
        world.store.copy(world.vector_id(2, KEPT), owner_id="88", **change)
    found = assert_true(world)
    assert {owner: status.unmanaged for owner, status in found.items() if status.unmanaged} == {
        "1": 1
    }
    assert {status.read for status in found.values()} == {Read.DIGESTS}
    assert all(status.is_in_sync for status in found.values())


def test_edits_that_no_trigger_saw_are_found(world: World) -> None:
    """Memos are held against what the source holds now, not against what anybody tells."""
    world.bring_in_sync(FOUR)
    world.sides.triggers.install()
    warm(world)
    if world.source.is_postgres:
        world.source.run("ALTER TABLE profiles DISABLE TRIGGER ALL")
    else:
        for row in world.source.rows("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
            world.source.run(f'DROP TRIGGER "{row["name"]}"')
    marks = f"SELECT * FROM {memory_table(world, 'change')}"
    before = world.source.rows(marks)
    edit(world)
    assert world.source.rows(marks) == before  # the control
    found = assert_true(world)
    assert [owner for owner, status in found.items() if not status.is_in_sync] == ["1"]


def test_drift_that_is_mended_by_hand_is_no_drift(world: World) -> None:
    """A memo that was in the way before is not, or is made anew."""
    world.bring_in_sync(FOUR)
    warm(world)
    vector_id = world.vector_id(1, KEPT)
    fingerprint = world.store.records()[vector_id]["fingerprint"]
    world.store.set(vector_id, fingerprint="0" * 32)
    edit(world)
    assert not assert_true(world)["1"].is_in_sync
    world.store.set(vector_id, fingerprint=fingerprint)
    world.put(1, FOUR["1"])
    assert all(status.is_in_sync for status in assert_true(world).values())


def test_store_that_is_not_there_is_read_as_empty_and_not_created(world: World) -> None:
    """Everything is missing, and the note says why."""
    world.put_all(FOUR)
    found = checked(world.sides)
    expected = named(world.sides, sorted(FOUR))
    assert found == expected
    assert {status.outcome for status in found.values()} == {Outcome.DRIFT}
    assert all(status.notes for status in found.values())
    assert not world.store.exists


def test_fleet_of_nobody_is_checked(world: World) -> None:
    """Nothing in the source, nothing in the store."""
    world.bring_in_sync(FOUR)
    world.remove_owners(FOUR)
    assert all(status.orphan_owner for status in assert_true(world).values())
    for vector_id in world.store.records():
        world.store.delete(vector_id)
    assert owners_of(world) == set()
    assert checked(world.sides) == {}


# --- owners that only the store has ---------------------------------------------------------------


def give_to_a_stranger(world: World) -> None:
    """Owner 4's records are another's now, whom the source does not have: as many are stored."""
    for vector_id, row in world.store.records().items():
        if row["owner_id"] == "4":
            world.store.set(vector_id, owner_id="stranger")


@pytest.mark.parametrize("page_owners", [1, 2_000])
def test_owner_that_only_the_store_has_is_told_in_whatever_part(
    world: World, monkeypatch: pytest.MonkeyPatch, page_owners: int
) -> None:
    """Once, by whichever part of everybody it belongs to."""
    small_pages(monkeypatch, page_owners)
    world.bring_in_sync(FOUR)
    warm(world)
    give_to_a_stranger(world)
    found = assert_true(world)
    assert {owner for owner, status in found.items() if status.orphan_owner} == {"stranger"}
    assert {owner for owner, status in found.items() if status.missing_ids} == {"4"}
    parts = [checked(world.sides, CheckOptions(shard=f"{part}/3")) for part in (1, 2, 3)]
    assert content({owner: one for part in parts for owner, one in part.items()}) == content(found)


def told_while_records_change_hands(world: World, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Whom a check tells: the records go to the stranger when everybody else was looked at."""
    look = feed.Feed.sum_of_store

    def late(self: feed.Feed) -> int:
        give_to_a_stranger(world)
        return look(self)

    world.bring_in_sync(FOUR)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "PAGES_EACH", 0)  # a page is told before the next one is listed
        patch.setattr(feed.Feed, "sum_of_store", late)
        found = checked(world.sides)
    assert found["4"].is_in_sync, "it was looked at behind the change"
    return set(found)


def test_as_many_owners_as_were_met_are_not_the_same_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One had its records when it was looked at, and another has them when they are counted."""
    assert told_while_records_change_hands(world, monkeypatch) == {*FOUR, "stranger"}


def test_control_who_counts_owners_overlooks_the_stranger(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their number is the same before and after."""
    for module in (feed, run):
        monkeypatch.setattr(module, "owner_sum", lambda owners: len(list(owners)))
    assert told_while_records_change_hands(world, monkeypatch) == {*FOUR}


def test_source_is_not_asked_for_owners_who_add_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drift does not matter for that; an owner without records is not expected to be stored."""
    asked: list[object] = []
    look = feed.Feed.of_store_only

    def noted(self: feed.Feed, after: str | None = None) -> Iterator[feed.Page]:
        asked.append(after)
        yield from look(self, after)

    monkeypatch.setattr(feed.Feed, "of_store_only", noted)
    world.bring_in_sync(FOUR)
    world.put(5, document())
    rekey(world)
    for options in (DEFAULT_CHECK, DEFAULT_CHECK, NO_MEMOS):
        assert not assert_true(world, options)["1"].is_in_sync
        assert not asked
    give_to_a_stranger(world)
    assert_true(world)
    assert asked


# --- memos that lie -------------------------------------------------------------------------------


def test_memo_of_another_owner_costs_a_look_and_no_more(world: World) -> None:
    """Its digest is not the store's, so both sides are read, and they agree."""
    world.bring_in_sync(FOUR)
    warm(world)
    memos = memory_table(world, "state_memo")
    world.store.database.run(
        f"UPDATE {memos} SET wanted = (SELECT wanted FROM {memos} WHERE owner_id = '2') "
        "WHERE owner_id = '1'"
    )
    found = assert_true(world)
    assert found["1"].is_in_sync
    assert {owner: status.read for owner, status in found.items()} == {
        "1": Read.FULL,
        "2": Read.DIGESTS,
        "3": Read.DIGESTS,
        "4": Read.DIGESTS,
    }


def test_memo_that_was_forged_to_fit_the_drift_hides_it_from_everybody_but_a_full_check(
    world: World,
) -> None:
    """Whoever may write the state and the store can lie to a check that remembers.

    A check without memos, and one by name, ask nobody; so does every sync.
    """
    world.bring_in_sync(FOUR)
    warm(world)
    rekey(world)
    assert not checked(world.sides)["1"].is_in_sync
    world.store.database.run(
        f"UPDATE {memory_table(world, 'state_memo')} SET wanted = :wanted WHERE owner_id = '1'",
        wanted=store_digest(world, "1"),
    )
    assert checked(world.sides)["1"].is_in_sync  # the lie
    found = assert_true(world, NO_MEMOS)
    assert [owner for owner, status in found.items() if not status.is_in_sync] == ["1"]
