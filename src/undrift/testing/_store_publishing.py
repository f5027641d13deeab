"""The contract's part on writing: conditional, idempotent, all or nothing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from undrift import failpoints
from undrift.errors import WriteFailed
from undrift.fingerprint import vector_id
from undrift.ports import MAX_VERSION, Deletion, Record, VectorStore
from undrift.testing._store_fixtures import Open, StoreFixtures, enumerated, stamps_of
from undrift.testing.builders import (
    DIMENSION,
    deletion,
    record,
    records,
    restamp,
    vectors,
)
from undrift.testing.faults import raise_at

LARGE_BATCH = 3_000


def _with_ids(*, entity_id: str = "bad", owner_id: str = "1") -> Record:
    """A write with an id that no store can hold."""
    good = record("bad")
    return good._replace(stamp=good.stamp._replace(entity_id=entity_id, owner_id=owner_id))


UNSTORABLE = {
    "NUL in an id": lambda: _with_ids(entity_id="a\x00b"),
    "NUL in an owner": lambda: _with_ids(owner_id="\x00"),
    "NUL in a text": lambda: record("bad")._replace(text="a\x00b"),
    "NUL in metadata": lambda: record("bad")._replace(metadata_json='{"a":"\x00"}'),
    "lone surrogate in an id": lambda: _with_ids(entity_id="\ud83d"),
    "lone surrogate in a text": lambda: record("bad")._replace(text="\udc00"),
    "version out of range": lambda: record("bad", version=MAX_VERSION),
    "other namespace": lambda: record("bad", namespace="other"),
    "other dimension": lambda: record("bad", dimension=DIMENSION + 1),
    "no dimension": lambda: record("bad", embedding=np.zeros((0,), dtype=np.float32)),
    "two dimensions": lambda: record("bad", embedding=vectors(2)),
    "NaN": lambda: record("bad", embedding=np.full(DIMENSION, np.nan, dtype=np.float32)),
    "infinity": lambda: record("bad", embedding=np.full(DIMENSION, np.inf, dtype=np.float32)),
    "too long": lambda: record("bad", embedding=np.full(DIMENSION, 1e30, dtype=np.float32)),
    "zero": lambda: record("bad", embedding=np.zeros(DIMENSION, dtype=np.float32)),
}
"""Writes that are refused as such."""


class ShadowStore:
    """What `publish` has to do, in ten lines: the store of the random batches' expectation."""

    def __init__(self) -> None:
        self.stored: dict[str, Record] = {}

    def publish(self, writes: Iterable[Record], deletes: Iterable[Deletion]) -> None:
        highest: dict[str, Record] = {}
        for write in writes:
            rival = highest.setdefault(write.stamp.vector_id, write)
            if write.stamp.version > rival.stamp.version:
                highest[write.stamp.vector_id] = write
        for id_, write in highest.items():
            standing = self.stored.get(id_)
            if standing is None and write.embedding is not None:
                self.stored[id_] = write
            elif standing is not None and standing.stamp.version < write.stamp.version:
                if write.embedding is not None:
                    self.stored[id_] = write
                elif standing.stamp[6:8] == write.stamp[6:8]:  # text_hash and model
                    self.stored[id_] = write._replace(embedding=standing.embedding)
        for owner_id, id_, version in deletes:
            standing = self.stored.get(id_)
            if standing and (owner_id, version) == (
                standing.stamp.owner_id,
                standing.stamp.version,
            ):
                del self.stored[id_]


class PublishingContract(StoreFixtures):
    """What one `publish` does and does not do."""

    # --- what applies

    def test_what_was_published_is_read_at_once(self, store: VectorStore, open_store: Open) -> None:
        """By this store and by one opened before."""
        opened_before = open_store()
        assert enumerated(opened_before, "1") == set()
        store.publish(records(3), [])
        assert enumerated(store, "1") == stamps_of(records(3))
        assert enumerated(opened_before, "1") == stamps_of(records(3))
        assert enumerated(open_store(), "1") == stamps_of(records(3))

    def test_publishing_twice_is_publishing_once(self, store: VectorStore) -> None:
        """So that a call without an answer can be repeated."""
        written, gone = records(3)[:2], records(3)[2]
        store.publish([gone], [])
        for _ in range(2):
            store.publish(written, [deletion(gone)])
        assert enumerated(store, "1") == stamps_of(written)

    @pytest.mark.parametrize("version", [1, 2, 3])
    def test_only_a_newer_version_replaces(
        self, store: VectorStore, location: str, version: int
    ) -> None:
        """Older content never replaces newer (I2), and an equal version changes nothing."""
        standing = record(text="standing", version=2)
        late = record(text="late", version=version)
        store.publish([standing], [])
        store.publish([late], [])
        expected = late if version > 2 else standing
        assert enumerated(store, "1") == stamps_of([expected])
        self.assert_stored(store, location, expected)

    @pytest.mark.parametrize("order", ["rising", "falling"])
    def test_the_highest_version_wins_within_a_batch(self, store: VectorStore, order: str) -> None:
        """Wherever it stands."""
        duplicates = [record(text=f"{n}", version=n) for n in (1, 2, 3)]
        others = records(5)
        batch = [*others, *(duplicates if order == "rising" else duplicates[::-1]), *others]
        store.publish(batch, [])
        assert enumerated(store, "1") == stamps_of([*others, duplicates[-1]])

    def test_vectors_are_stored_bit_for_bit(self, store: VectorStore, location: str) -> None:
        """The smallest and largest that have a length, signed zeros, and what no decimal names."""
        self.need(store, "exact_vectors")
        awkward = np.zeros(DIMENSION, dtype=np.float32)
        awkward[:8] = [1 / 3, -0.0, 1e-45, -1e-38, 9e18, -9e18, np.nextafter(1, 2), 1e-20]
        written = record(embedding=awkward)
        store.publish([written], [])
        found = self.stored_vector(location, written.stamp.vector_id)
        assert found.dtype == np.float32
        assert found.tobytes() == awkward.tobytes()

    # --- writes without a vector

    def test_a_restamp_keeps_the_vector_bit_for_bit(
        self, store: VectorStore, location: str
    ) -> None:
        """Metadata, fingerprint and version change; nothing was embedded."""
        standing = record()
        store.publish([standing], [])
        stored = self.stored_vector(location, standing.stamp.vector_id)
        new = restamp(standing, version=2, metadata={"title": "new"})
        store.publish([new], [])
        assert enumerated(store, "1") == stamps_of([new])
        vector = self.stored_vector(location, standing.stamp.vector_id)
        assert vector.tobytes() == stored.tobytes()
        assert standing.embedding is not None
        query = standing.embedding
        (match,) = store.search("1", query, model=new.stamp.model, kinds=None, limit=1)
        assert match.stamp == new.stamp
        assert "new" in match.metadata_json

    @pytest.mark.parametrize("obstacle", ["text", "model", "older", "equal", "absent", "no vector"])
    def test_a_restamp_applies_only_to_the_vector_it_means(
        self, store: VectorStore, location: str, obstacle: str
    ) -> None:
        """Else the store would hold a vector of another text under this one's hash."""
        standing = record(
            text="another" if obstacle == "text" else "text",
            model="another" if obstacle == "model" else "model",
            version=5,
        )
        if obstacle != "absent":
            store.publish([standing], [])
        if obstacle == "no vector":
            self.lose_vector(location, standing.stamp.vector_id)
        of = record(text="text", model="model")
        version = {"older": 4, "equal": 5}.get(obstacle, 6)
        store.publish([restamp(of, version=version, metadata={"a": 1})], [])
        expected = stamps_of([] if obstacle == "absent" else [standing])
        if obstacle == "no vector":
            expected = {stamp._replace(model="") for stamp in expected}
        assert enumerated(store, "1") == expected

    def test_a_record_that_lost_its_vector_names_no_model_until_it_is_written_again(
        self, store: VectorStore, location: str
    ) -> None:
        """Else a check would call in sync what no search can find."""
        lost, kept = written = records(2)
        store.publish(written, [])
        self.lose_vector(location, lost.stamp.vector_id)
        expected = {lost.stamp._replace(model=""), kept.stamp}
        assert enumerated(store, "1") == expected
        again = lost._replace(stamp=lost.stamp._replace(version=lost.stamp.version + 1))
        store.publish([again], [])
        assert enumerated(store, "1") == stamps_of([again, kept])

    # --- deletes

    def test_deletes_apply_to_just_the_version_that_was_seen(self, store: VectorStore) -> None:
        """Not to a newer one, to another owner's, or to one that is not there."""
        kept, gone = written = records(2, version=3)
        store.publish(written, [])
        stale = [deletion(kept, version=version) for version in (0, 1, 2, 4)]
        elsewhere = [Deletion("2", kept.stamp.vector_id, 3), Deletion("\x00", "\x00", 3)]
        absent = Deletion("1", vector_id("default", "1", "k", "absent"), 3)
        store.publish([], [*stale, *elsewhere, absent, deletion(gone), deletion(gone)])
        assert enumerated(store, "1") == stamps_of([kept])

    def test_writes_come_before_deletes(self, store: VectorStore) -> None:
        """A delete of the version before spares what its own batch writes."""
        store.publish(records(2), [])
        spared, met = records(2, version=2)
        store.publish([spared, met], [deletion(spared, version=1), deletion(met, version=2)])
        assert enumerated(store, "1") == stamps_of([spared])

    def test_a_deleted_record_can_come_back(self, store: VectorStore, location: str) -> None:
        """With another vector, and under any version."""
        store.publish([record(text="old", version=7)], [])
        store.publish([], [deletion(record(version=7))])
        back = record(text="new")
        store.publish([back], [])
        assert enumerated(store, "1") == stamps_of([back])
        self.assert_stored(store, location, back)

    # --- all or nothing

    @pytest.mark.parametrize("unstorable", UNSTORABLE)
    def test_a_refused_batch_leaves_nothing(self, store: VectorStore, unstorable: str) -> None:
        """Neither its good writes nor its deletes apply, and the store goes on working."""
        standing = record("standing")
        store.publish([standing], [])
        bad: Callable[[], Record] = UNSTORABLE[unstorable]
        with pytest.raises(WriteFailed):
            store.publish([record("good"), bad(), record("good too")], [deletion(standing)])
        assert enumerated(store, "1", "\x00") == stamps_of([standing])
        store.publish([record("good")], [])
        assert enumerated(store, "1") == stamps_of([standing, record("good")])

    @pytest.mark.parametrize("failpoint", ["begun", "written", "deleted"])
    def test_a_large_batch_that_breaks_off_leaves_nothing(
        self, store: VectorStore, failpoint: str
    ) -> None:
        """Whatever was sent of it already."""
        self.need(store, "atomic_records")
        size = min(store.capabilities.atomic_records, LARGE_BATCH)
        standing = records(size // 2)
        store.publish(standing, [])
        with raise_at(f"store.publish.{failpoint}", InterruptedError()) as fault:
            with pytest.raises(InterruptedError):
                store.publish(records(size - 1, version=2), [deletion(standing[-1], version=2)])
            assert fault.reached == 1
        assert enumerated(store, "1") == stamps_of(standing)
        store.publish(records(size, version=2), [])
        assert enumerated(store, "1") == stamps_of(records(size, version=2))

    def test_a_publish_passes_every_failpoint_in_order(self, store: VectorStore) -> None:
        """Where crashes are tested is where the steps really end."""
        seen: list[str] = []
        previous = failpoints.install(seen.append)
        store.publish(records(2), [])
        store.publish([], [deletion(records(2)[0])])
        failpoints.install(previous)
        steps = ["begun", "written", "deleted", "committed"]
        assert seen == [f"store.publish.{step}" for step in steps] * 2

    def test_an_empty_batch_is_no_error(self, store: VectorStore) -> None:
        """It does nothing."""
        store.publish([], [])
        assert enumerated(store, "1") == set()

    # --- all of it together

    @pytest.mark.parametrize("seed", range(4))
    def test_random_batches_do_what_they_should(
        self, store: VectorStore, location: str, seed: int
    ) -> None:
        """A few entities, versions and texts in every combination, against ten lines of Python."""
        chance = random.Random(seed)  # noqa: S311 - repeatable is what it is to be
        shadow = ShadowStore()
        for _ in range(60):
            writes = [_random_write(chance) for _ in range(chance.randrange(5))]
            deletes = [_random_deletion(chance) for _ in range(chance.randrange(4))]
            store.publish(writes, deletes)
            shadow.publish(writes, deletes)
            assert enumerated(store, "1", "2") == stamps_of(list(shadow.stored.values()))
        for expected in shadow.stored.values():
            self.assert_stored(store, location, expected)

    def test_threads_may_share_a_store(self, store: VectorStore) -> None:
        """Each sees what it wrote, at once."""

        def work(owner_id: str) -> Sequence[bool]:
            results = []
            for version in range(1, 11):
                written = records(20, owner_id=owner_id, version=version)
                store.publish(written, [])
                results.append(enumerated(store, owner_id) == stamps_of(written))
            return results

        with ThreadPoolExecutor(4) as threads:
            for results in threads.map(work, "abcdefgh"):
                assert all(results)


def _random_write(chance: random.Random) -> Record:
    """A write of one of six entities."""
    written = record(
        chance.choice(("a", "b", "c")),
        owner_id=chance.choice("12"),
        text=chance.choice(("one text", "another text")),
        model=chance.choice(("one model", "another model")),
        version=chance.randrange(1, 7),
    )
    return chance.choice((written, written, written._replace(embedding=None)))


def _random_deletion(chance: random.Random) -> Deletion:
    target = _random_write(chance)
    return deletion(target)
