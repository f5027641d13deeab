"""The contract's part on tombstones: what a versioned delete leaves, and what it keeps out."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from undrift.errors import WriteFailed
from undrift.model import Stamp
from undrift.ports import MAX_VERSION, Record, VectorStore
from undrift.state import ClaimableStore, Tombstone
from undrift.testing._store_enumeration import LOOKALIKE_OWNERS, ODD_IDS
from undrift.testing._store_fixtures import Open, StoreFixtures, enumerated, stamps_of
from undrift.testing.builders import (
    DIMENSION,
    MODEL,
    deletion,
    record,
    records,
    restamp,
    tombstone,
    vectors,
)

MANY = 3_000

UNSTORABLE: dict[str, Callable[[Tombstone], Tombstone]] = {
    "NUL in an id": lambda stone: stone._replace(entity_id="a\x00b"),
    "NUL in an owner": lambda stone: stone._replace(owner_id="\x00"),
    "lone surrogate in a kind": lambda stone: stone._replace(kind="\ud83d"),
    "version out of range": lambda stone: stone._replace(version=MAX_VERSION),
    "negative version": lambda stone: stone._replace(version=-1),
}
"""Tombstones that are refused as such."""


class ClaimableFixtures(StoreFixtures):
    """The fixtures of a store that knows whose it is and can keep tombstones."""

    @pytest.fixture
    def claimable(self, store: VectorStore) -> ClaimableStore:
        """A store that is created and empty."""
        return as_claimable(store)


def as_claimable(store: VectorStore) -> ClaimableStore:
    """*store*, which must be one."""
    assert isinstance(store, ClaimableStore)
    return store


def buried_in(store: ClaimableStore, *owners: str) -> set[Tombstone]:
    """The tombstones that *store* shows; none of them twice."""
    found = list(store.tombstones(owners))
    assert len(found) == len(set(found))
    return set(found)


def found_by_search(store: VectorStore, *, owner_id: str = "1", model: str = MODEL) -> set[Stamp]:
    """Everything that a search of *owner_id* can find."""
    matches = store.search(owner_id, vectors(1)[0], model=model, kinds=None, limit=1_000)
    return {match.stamp for match in matches}


class TombstoneContract(ClaimableFixtures):
    """The promises of `ClaimableStore.bury`, `tombstones` and `collect`."""

    # --- what a tombstone is

    def test_nothing_shows_a_tombstone_but_tombstones(
        self, claimable: ClaimableStore, open_store: Open
    ) -> None:
        """No search, no enumeration, no count, by whatever namespace."""
        kept, gone = written = records(2)
        alone = record(owner_id="2")
        claimable.publish([*written, alone], [])
        stones = {tombstone(gone, version=2), tombstone(alone, version=2)}
        claimable.bury(list(stones))
        for store in (claimable, as_claimable(open_store())):
            assert buried_in(store, "1", "2", "3") == stones
            assert enumerated(store, "1", "2") == stamps_of([kept])
            assert found_by_search(store) == stamps_of([kept])
            assert found_by_search(store, owner_id="2") == set()
            assert found_by_search(store, model="") == set()
            assert list(store.owners(None, 10)) == ["1"]
            assert list(store.owners("1", 10)) == []
            assert store.unmanaged(["1", "2"]) == {}
        ids = [r.stamp.vector_id for r in (*written, alone)]
        assert set(claimable.stamps_by_vector_id(ids)) == stamps_of([kept])
        other = as_claimable(open_store("other"))
        assert other.unmanaged(["1", "2"]) == {"1": 1}
        assert buried_in(other, "1", "2") == set()

    def test_a_tombstone_can_be_put_where_nothing_is(self, claimable: ClaimableStore) -> None:
        """The write that it keeps out may still be on its way."""
        claimable.bury([tombstone(record(), version=5)])
        claimable.publish([record(version=4)], [])
        assert enumerated(claimable, "1") == set()
        assert buried_in(claimable, "1") == {tombstone(record(), version=5)}

    def test_the_vector_is_gone_and_no_restamp_brings_the_record_back(
        self, claimable: ClaimableStore
    ) -> None:
        """A later write of the metadata alone has nothing to go with."""
        standing = record()
        claimable.publish([standing], [])
        claimable.bury([tombstone(standing, version=2)])
        claimable.publish([restamp(standing, version=3, metadata={"a": 1})], [])
        assert enumerated(claimable, "1") == set()
        assert found_by_search(claimable) == set()

    def test_ids_of_tombstones_come_back_as_they_were_written(
        self, claimable: ClaimableStore
    ) -> None:
        """And no owner sees or touches another's, whatever they are called (I7)."""
        stones = {
            owner: tombstone(record(odd, owner_id=owner, kind="k"), version=3)
            for owner, odd in zip(LOOKALIKE_OWNERS, [*ODD_IDS.values()] * 2, strict=False)
        }
        claimable.bury(list(stones.values()))
        for owner, stone in stones.items():
            assert buried_in(claimable, owner) == {stone}
        assert buried_in(claimable, *LOOKALIKE_OWNERS) == set(stones.values())
        assert buried_in(claimable, "\x00", "\ud800", "nobody") == set()
        assert buried_in(claimable) == set()

    # --- what applies

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_only_a_newer_write_replaces_a_tombstone(
        self, claimable: ClaimableStore, location: str, version: int
    ) -> None:
        """A late one below it is refused, and an equal one too."""
        stone = tombstone(record(), version=2)
        claimable.bury([stone])
        late = record(text="late", version=version)
        claimable.publish([late], [])
        if version <= 2:
            assert enumerated(claimable, "1") == set()
            assert found_by_search(claimable) == set()
            assert buried_in(claimable, "1") == {stone}
        else:
            assert enumerated(claimable, "1") == stamps_of([late])
            assert found_by_search(claimable) == stamps_of([late])
            assert buried_in(claimable, "1") == set()
            self.assert_stored(claimable, location, late)

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_a_tombstone_replaces_only_an_older_record(
        self, claimable: ClaimableStore, version: int
    ) -> None:
        """A late delete takes nothing away that is newer."""
        standing = record(version=2)
        claimable.publish([standing], [])
        late = tombstone(standing, version=version)
        claimable.bury([late])
        is_gone = version > 2
        assert enumerated(claimable, "1") == (set() if is_gone else stamps_of([standing]))
        assert found_by_search(claimable) == (set() if is_gone else stamps_of([standing]))
        assert buried_in(claimable, "1") == ({late} if is_gone else set())

    def test_burying_twice_is_burying_once_and_the_highest_version_stays(
        self, claimable: ClaimableStore
    ) -> None:
        """In one batch and in several, in whatever order they arrive."""
        older, old, new = (tombstone(record(), version=version) for version in (1, 2, 3))
        for batch in ([old, older], [old], [old, new, old], [older], [new]):
            claimable.bury(batch)
        assert buried_in(claimable, "1") == {new}

    def test_no_call_buries_another_namespaces_record(
        self, claimable: ClaimableStore, open_store: Open
    ) -> None:
        """What is not managed is never touched."""
        theirs = record(namespace="other")
        other = as_claimable(open_store("other"))
        other.publish([theirs], [])
        claimable.bury([tombstone(theirs, version=9)])
        assert enumerated(other, "1") == stamps_of([theirs])
        assert buried_in(claimable, "1") == set()
        stone = tombstone(theirs, version=2)
        other.bury([stone])
        claimable.collect([stone])
        claimable.publish([record(version=9)._replace(stamp=_moved(theirs, version=9))], [])
        assert buried_in(other, "1") == {stone}
        assert enumerated(claimable, "1") == set()

    def test_a_delete_of_records_leaves_tombstones_alone(self, claimable: ClaimableStore) -> None:
        """Only `collect` removes them."""
        stone = tombstone(record(), version=2)
        claimable.bury([stone])
        claimable.publish([], [deletion(record(version=2)), deletion(record(version=1))])
        assert buried_in(claimable, "1") == {stone}

    def test_a_tombstone_that_names_another_entity_keeps_nothing_out(
        self, claimable: ClaimableStore, location: str
    ) -> None:
        """Somebody edited it by hand; its own owner would never learn of it."""
        write, stone = record("a"), tombstone(record("b"), version=1)
        for of in (record("a"), record("b")):
            claimable.bury([tombstone(of, version=5)])
            self.damage(location, of.stamp.vector_id, "owner_id", "2")
        claimable.publish([write], [])
        claimable.bury([stone])
        assert enumerated(claimable, "1", "2") == stamps_of([write])
        assert buried_in(claimable, "1", "2") == {stone}

    # --- collecting

    def test_only_a_tombstone_of_just_that_version_is_collected(
        self, claimable: ClaimableStore
    ) -> None:
        """A newer one, another owner's and a record stay."""
        newer, met, back = records(3)
        claimable.bury([tombstone(newer, version=3), tombstone(met, version=2)])
        claimable.publish([back._replace(stamp=back.stamp._replace(version=2))], [])
        wrong = [tombstone(newer, version=version) for version in (0, 1, 2, 4)]
        elsewhere = tombstone(newer, version=3)._replace(owner_id="2")
        absent = tombstone(record("absent"), version=2)
        odd = Tombstone("\x00", "\x00", "k", "1", 1)
        for _ in range(2):
            claimable.collect(
                [*wrong, *(tombstone(of, version=2) for of in (met, back)), elsewhere, absent, odd]
            )
        assert buried_in(claimable, "1") == {tombstone(newer, version=3)}
        assert enumerated(claimable, "1") == {back.stamp._replace(version=2)}

    def test_a_collected_tombstone_keeps_nothing_out(self, claimable: ClaimableStore) -> None:
        """Which is why it stays until no late write can arrive any more."""
        stone = tombstone(record(), version=7)
        claimable.bury([stone])
        claimable.collect([stone])
        claimable.publish([record()], [])
        assert enumerated(claimable, "1") == stamps_of([record()])

    # --- all or nothing

    @pytest.mark.parametrize("unstorable", UNSTORABLE)
    def test_a_refused_batch_buries_nothing(
        self, claimable: ClaimableStore, unstorable: str
    ) -> None:
        """And the store goes on working."""
        standing = records(2)
        claimable.publish(standing, [])
        good, bad = (tombstone(of, version=2) for of in standing)
        with pytest.raises(WriteFailed):
            claimable.bury([good, UNSTORABLE[unstorable](bad)])
        assert enumerated(claimable, "1") == stamps_of(standing)
        assert buried_in(claimable, "1") == set()
        claimable.bury([good])
        assert buried_in(claimable, "1") == {good}

    def test_an_empty_batch_of_tombstones_is_no_error(self, claimable: ClaimableStore) -> None:
        """It does nothing."""
        claimable.bury([])
        claimable.collect([])
        assert buried_in(claimable, "1") == set()

    def test_any_number_of_tombstones_is_buried_shown_and_collected(
        self, claimable: ClaimableStore
    ) -> None:
        """Whatever a statement or a page of the store's may hold."""
        written = records(MANY)
        claimable.publish(written, [])
        stones = {tombstone(of, version=2) for of in written[1:]}
        claimable.bury(list(stones))
        assert buried_in(claimable, "1", *(f"absent-{n}" for n in range(40_000))) == stones
        assert enumerated(claimable, "1") == stamps_of(written[:1])
        claimable.collect(list(stones))
        assert buried_in(claimable, "1") == set()

    def test_a_store_of_tombstones_alone_goes_on(self, claimable: ClaimableStore) -> None:
        """It has no owners, and takes writes."""
        claimable.publish(records(3), [])
        claimable.bury([tombstone(of, version=2) for of in records(3)])
        assert list(claimable.owners(None, 10)) == []
        assert claimable.describe().exists
        assert claimable.describe().dimension in (None, DIMENSION)
        claimable.publish(records(3, version=3), [])
        assert enumerated(claimable, "1") == stamps_of(records(3, version=3))

    # --- all of it together

    @pytest.mark.parametrize("seed", range(3))
    def test_whatever_order_writes_and_deletes_arrive_in_the_newest_stays(
        self, claimable: ClaimableStore, seed: int
    ) -> None:
        """Each entity ends as its highest version says, and nothing older is ever shown."""
        chance = random.Random(seed)  # noqa: S311 - repeatable is what it is to be
        calls = [(f"e{number}", version) for number in range(5) for version in range(1, 9)]
        chance.shuffle(calls)
        newest: dict[str, int] = {}
        for entity_id, version in calls:
            _arrive(claimable, entity_id, version)
            newest[entity_id] = max(version, newest.get(entity_id, 0))
            assert _shown(claimable) == newest

    def test_threads_that_write_and_bury_agree_on_the_newest(
        self, claimable: ClaimableStore
    ) -> None:
        """In opposite orders, without an error for either."""
        orders: list[Sequence[int]] = [range(1, 21), range(20, 0, -1), range(1, 21, 2), [20, 1]]

        def work(versions: Sequence[int]) -> None:
            for version in versions:
                for entity_id in ("a", "b", "c"):
                    _arrive(claimable, entity_id, version)

        with ThreadPoolExecutor(len(orders)) as threads:
            list(threads.map(work, orders))
        assert _shown(claimable) == dict.fromkeys("abc", 20)


def _arrive(store: ClaimableStore, entity_id: str, version: int) -> None:
    """An even version is a delete."""
    if version % 2 == 0:
        store.bury([tombstone(record(entity_id), version=version)])
    else:
        store.publish([record(entity_id, text=f"version {version}", version=version)], [])


def _shown(store: ClaimableStore) -> dict[str, int]:
    """The version that each entity has, which must be as `_arrive` left it."""
    stamps, stones = enumerated(store, "1"), buried_in(store, "1")
    assert found_by_search(store) == stamps
    versions = {stamp.entity_id: stamp.version for stamp in stamps}
    assert all(version % 2 for version in versions.values())
    under = {stone.entity_id: stone.version for stone in stones}
    assert not any(version % 2 for version in under.values())
    assert not versions.keys() & under.keys()
    return versions | under


def _moved(of: Record, *, version: int) -> Stamp:
    """A write of the default namespace under the vector_id that *of* has in another."""
    return of.stamp._replace(namespace="default", version=version)
