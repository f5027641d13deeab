"""The contract's part on digests: what a store computes is what its stamps say."""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence

import pytest

from undrift.digests import (
    NO_RECORDS,
    DigestingStore,
    RecordsDigest,
    records_digest,
    stamps_digest,
    wanted_digest,
)
from undrift.fingerprint import vector_id
from undrift.model import Stamp
from undrift.ports import Record, VectorStore
from undrift.state import ClaimableStore
from undrift.testing._store_enumeration import LOOKALIKE_OWNERS, ODD_IDS
from undrift.testing._store_fixtures import Crowd, Open, StoreFixtures
from undrift.testing.builders import MODEL, entity, record, records, tombstone

KINDS = ("experience", "project")
"""The configured ones in these tests."""

TELLTALE_IDS = (
    *ODD_IDS.values(),
    "",
    "|",
    ":",
    "1:a",
    "exp_1|experience:5:exp_1",
    "a\nb",
    "\x7f",
    "\N{LATIN SMALL LETTER SHARP S}",
    "\uffff",
    "\U00010000",
    "\U0010ffff" * 3,
)
"""Ids that look like parts of what is hashed, or are counted and sorted otherwise elsewhere."""

DAMAGES: Mapping[str, Sequence[object]] = {
    "namespace": (None, "", "other", "Default"),
    "kind": (None, "", "skill", "Experience", "experience|project"),
    "entity_id": (None, *TELLTALE_IDS),
    "fingerprint": (None, "", "f", "0" * 31, "0" * 32, "é" * 32, "0" * 33, "Z|:" * 11),
    "model": (None, "", "another/model@1:16:l2"),
    "version": (None, 0, 7),
    "text_hash": (None, "0" * 32),
}
"""What somebody may write into a record, by field."""


class DigestContract(StoreFixtures):
    """The promises of `undrift.digests.DigestingStore`, for stores that make them."""

    def test_digest_is_that_of_the_stamps(self, store: VectorStore, open_store: Open) -> None:
        """Whatever owners, kinds and ids are called, and whatever else the store holds."""
        ids = enumerate(TELLTALE_IDS)
        written = [record(odd, owner_id="1", kind=KINDS[number % 2]) for number, odd in ids]
        written += [record(odd, owner_id="1", kind="skill") for odd in TELLTALE_IDS]
        for number, owner_id in enumerate(LOOKALIKE_OWNERS):
            written += records(1 + number % 4, owner_id=owner_id, kind="project")
        store.publish(written, [])
        open_store("other").publish([record(owner_id="1", namespace="other")], [])
        found = _digests(store, *LOOKALIKE_OWNERS)
        assert found == _by_stamps(store, *LOOKALIKE_OWNERS)
        assert found["1"].records == len(TELLTALE_IDS) + 1
        assert found["1"].unmanaged == len(TELLTALE_IDS) + 1
        assert found["1"].amiss == 0

    def test_digest_is_that_of_what_the_source_wants(self, store: VectorStore) -> None:
        """So that a store that has just these records need not be read."""
        wanted = {
            (kind, odd): entity(odd, kind=kind, text=odd or "x")
            for kind in KINDS
            for odd in TELLTALE_IDS
        }
        written = [record(e.entity_id, kind=e.kind, text=e.text) for e in wanted.values()]
        store.publish(written, [])
        digest = _digests(store, "1")["1"]
        assert digest.digest == wanted_digest({key: e.fingerprint for key, e in wanted.items()})
        assert digest == RecordsDigest(len(written), digest.digest, amiss=0, unmanaged=0)
        assert NO_RECORDS.digest == wanted_digest({})

    def test_every_owner_that_is_there_has_a_digest_and_no_other(self, store: VectorStore) -> None:
        """In whatever order and number they are asked for."""
        for owner_id in ("b", "a", "c"):
            store.publish(records(2, owner_id=owner_id), [])
        found = _digests(store, "c", "a", "B", "nobody", "\x00", "\ud800", "a")
        assert set(found) == {"a", "c"}
        assert _digests(store) == {}
        assert _digests(store, *(f"absent-{number}" for number in range(40_000))) == {}

    def test_digest_of_a_large_owner_leaves_nothing_out(self, crowd: Crowd) -> None:
        """More records than any window or default limit known of a vector store."""
        found = _digests(crowd.store, *crowd.by_owner)
        for owner_id, written in crowd.by_owner.items():
            assert found[owner_id] == RecordsDigest(len(written), _of(written), 0, 0)

    def test_records_of_other_kinds_and_namespaces_are_only_counted(
        self, store: VectorStore, open_store: Open, location: str
    ) -> None:
        """An owner that has no other records is there all the same."""
        store.publish(records(2, kind="skill"), [])
        open_store("other").publish(records(3, owner_id="2", namespace="other"), [])
        found = _digests(store, "1", "2", "3")
        assert found == {
            "1": NO_RECORDS._replace(unmanaged=2),
            "2": NO_RECORDS._replace(unmanaged=3),
        }
        self.insert_foreign(location, vector_id("elsewhere", "3", "k", "1"), "3")
        assert _digests(store, "3") == {"3": NO_RECORDS._replace(unmanaged=1)}
        assert _digests(store, "1", kinds=["skill"])["1"].records == 2
        assert _digests(store, "1", kinds=[]) == {"1": NO_RECORDS._replace(unmanaged=2)}

    def test_tombstone_is_no_record(self, store: VectorStore) -> None:
        """Neither counted nor hashed, and who has nothing else is not there."""
        _need_digests(store)
        if not isinstance(store, ClaimableStore):
            pytest.skip("the store has no tombstones")
        kept, gone = written = records(2)
        store.publish([*written, record(owner_id="2")], [])
        store.bury([tombstone(gone, version=5), tombstone(record(owner_id="2"), version=5)])
        assert _digests(store, "1", "2") == {"1": RecordsDigest(1, _of([kept]), 0, 0)}

    def test_record_that_no_search_finds_is_amiss(self, store: VectorStore, location: str) -> None:
        """One that lost its vector, or has that of another model; both is once."""
        written = records(4)
        store.publish(written, [])
        _need_digests(store)
        self.lose_vector(location, written[0].stamp.vector_id)
        assert _digests(store, "1") == {"1": RecordsDigest(4, _of(written), 1, 0)}
        for lost in written[:2]:
            self.damage(location, lost.stamp.vector_id, "model", "another/model@1:16:l2")
        assert _digests(store, "1") == {"1": RecordsDigest(4, _of(written), 2, 0)}
        assert _digests(store, "1") == _by_stamps(store, "1")
        assert _digests(store, "1", model="another/model@1:16:l2")["1"].amiss == 3

    def test_lost_vector_of_an_unmanaged_record_concerns_nobody(
        self, store: VectorStore, open_store: Open, location: str
    ) -> None:
        """It belongs to another kind or namespace."""
        _need_digests(store)
        kept, skill, theirs = (
            record(),
            record("s", kind="skill"),
            record("t", namespace="other"),
        )
        store.publish([kept, skill], [])
        open_store("other").publish([theirs], [])
        for lost in (skill, theirs):
            self.lose_vector(location, lost.stamp.vector_id)
        assert _digests(store, "1") == {"1": RecordsDigest(1, _of([kept]), 0, 2)}

    @pytest.mark.parametrize("seed", range(4))
    def test_digest_of_damaged_records_is_that_of_their_stamps(
        self, store: VectorStore, location: str, seed: int
    ) -> None:
        """Whatever was written into whatever fields: empty, alike, too long, or two of a kind."""
        _need_digests(store)
        chance = random.Random(seed)  # noqa: S311 - repeatable is what it is to be
        owners = [f"owner-{number}" for number in range(12)]
        written = [
            record(f"e{number % 7}", owner_id=owner, kind=chance.choice((*KINDS, "skill")))
            for owner in owners
            for number in range(chance.randrange(9))
        ]
        store.publish(written, [])
        before = _digests(store, *owners)
        assert before == _by_stamps(store, *owners)
        for of in chance.sample(written, len(written) // 2):
            field = chance.choice(list(DAMAGES))
            another = getattr(chance.choice(written).stamp, field)
            value = chance.choice((*DAMAGES[field], another))
            self.damage(location, of.stamp.vector_id, field, value)
        for of in chance.sample(written, len(written) // 8):
            self.lose_vector(location, of.stamp.vector_id)
        after = _digests(store, *chance.sample(owners, len(owners)))
        assert after == _by_stamps(store, *owners)
        assert after != before

    @pytest.mark.parametrize("field", ["kind", "entity_id", "fingerprint"])
    def test_another_record_is_another_digest(
        self, store: VectorStore, location: str, field: str
    ) -> None:
        """Every field that is hashed counts, and one that is restored restores it."""
        written = records(3)
        store.publish(written, [])
        before = _digests(store, "1")["1"]
        stamp = written[0].stamp
        value = {"kind": "project", "entity_id": "r0 ", "fingerprint": "0" * 32}[field]
        self.damage(location, stamp.vector_id, field, value)
        changed = _digests(store, "1")["1"]
        assert changed.records == before.records
        assert changed.digest != before.digest
        self.damage(location, stamp.vector_id, field, getattr(stamp, field))
        assert _digests(store, "1")["1"] == before

    def test_digest_is_computed_anew(self, store: VectorStore, open_store: Open) -> None:
        """What another process writes is in the next one."""
        store.publish(records(2), [])
        before = _digests(store, "1")
        added = record("added")
        open_store().publish([added], [])
        assert _digests(store, "1") == {"1": RecordsDigest(3, _of([*records(2), added]), 0, 0)}
        assert _digests(store, "1") != before


def _need_digests(store: VectorStore) -> DigestingStore:
    if not isinstance(store, DigestingStore):
        pytest.skip("the store computes no digests; they are made from its stamps")
    return store


def _digests(
    store: VectorStore, *owners: str, model: str = MODEL, kinds: Collection[str] = KINDS
) -> dict[str, RecordsDigest]:
    return dict(_need_digests(store).digests(owners, model=model, kinds=kinds))


def _by_stamps(store: VectorStore, *owners: str) -> dict[str, RecordsDigest]:
    """The same of what is enumerated and counted."""
    stamps: dict[str, list[Stamp]] = {owner_id: [] for owner_id in owners}
    for stamp in store.stamps(owners):
        stamps[stamp.owner_id].append(stamp)
    others = store.unmanaged(owners)
    found = {}
    for owner_id, own in stamps.items():
        digest = stamps_digest(own, model=MODEL, kinds=KINDS)
        found[owner_id] = digest._replace(
            unmanaged=digest.unmanaged + others.get(owner_id, 0),
        )
    return {owner_id: digest for owner_id, digest in found.items() if digest != NO_RECORDS}


def _of(written: Sequence[Record]) -> bytes:
    stamps = [of.stamp for of in written]
    return records_digest((s.fingerprint, s.kind, s.entity_id) for s in stamps)
