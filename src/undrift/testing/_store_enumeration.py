"""The contract's part on enumeration: everything is seen, and nobody else's."""

from __future__ import annotations

import pytest

from undrift.fingerprint import vector_id
from undrift.model import Stamp
from undrift.ports import MAX_VERSION, VectorStore
from undrift.testing._store_fixtures import Crowd, Open, StoreFixtures, enumerated, stamps_of
from undrift.testing.builders import MODEL, deletion, record, records, vectors

ODD_IDS = {
    "quotes": """it's "quoted" `here`""",
    "percent": "100%s %(x)s %_",
    "braces": "{0} {{x}} $1 :id ?",
    "backslash": "\\ \\n \\u0000",
    "white space": " \t\n ",
    "sql": "'; DROP TABLE vectors; --",
    "emoji": "\N{PARTY POPPER}\N{FAMILY}\N{ZERO WIDTH JOINER}",
    "right to left": "\N{RIGHT-TO-LEFT OVERRIDE}שלום مرحبا",
    "decomposed": "Zu\N{COMBINING DIAERESIS}rich",
    "composed": "Zürich",
    "colons": "a:b::c",
    "very long": "".join(chr(33 + (i * i * 31 + i // 7) % 94) for i in range(1_000)),
}
"""Ids that a store must give back as they were written."""

LOOKALIKE_OWNERS = ("1", "10", "01", "1 ", "1%", "_", "%", "", "a", "A", *ODD_IDS.values())
"""Owners that a pattern, a prefix or a collation could take for one another."""


class EnumerationContract(StoreFixtures):
    """Stamps, owners and what is not managed."""

    def test_every_record_of_a_large_owner_is_enumerated(self, crowd: Crowd) -> None:
        """More than any window or default limit known of a vector store (16,384 and less)."""
        assert len(crowd.by_owner["many"]) > 20_000
        assert enumerated(crowd.store, "many") == stamps_of(crowd.by_owner["many"])

    def test_every_record_of_many_owners_is_enumerated(self, crowd: Crowd) -> None:
        """One call for all owners gives what one for each would."""
        expected = {record.stamp for written in crowd.by_owner.values() for record in written}
        assert enumerated(crowd.store, *crowd.by_owner) == expected

    def test_a_call_takes_any_number_of_owners_and_ids(self, crowd: Crowd) -> None:
        """Drivers limit the parameters of a statement; a store's callers do not count them."""
        absent = [f"absent-{number}" for number in range(40_000)]
        assert enumerated(crowd.store, *absent, "few") == stamps_of(crowd.by_owner["few"])
        many = stamps_of(crowd.by_owner["many"])
        found = list(crowd.store.stamps_by_vector_id([stamp.vector_id for stamp in many]))
        assert len(found) == len(many)
        assert set(found) == many
        assert crowd.store.unmanaged([*absent, *crowd.by_owner]) == {}

    def test_an_enumeration_may_be_left_unfinished(self, crowd: Crowd) -> None:
        """What was asked next is answered all the same, and completely."""
        first = next(iter(crowd.store.stamps(["many"])))
        assert first in stamps_of(crowd.by_owner["many"])
        assert enumerated(crowd.store, "some") == stamps_of(crowd.by_owner["some"])

    def test_two_enumerations_may_run_at_once(self, crowd: Crowd) -> None:
        """Iterators do not share a cursor."""
        pairs = list(zip(crowd.store.stamps(["some"]), crowd.store.stamps(["some"]), strict=True))
        assert {stamp for pair in pairs for stamp in pair} == stamps_of(crowd.by_owner["some"])

    @pytest.mark.parametrize("limit", [1, 7, 1_000])
    def test_pages_of_owners_cover_every_owner_once(self, store: VectorStore, limit: int) -> None:
        """Each page goes on behind the last owner of the one before, whatever order that is."""
        for owner_id in LOOKALIKE_OWNERS:
            store.publish(records(3, owner_id=owner_id), [])
        seen: list[str] = []
        after = None
        while page := store.owners(after, limit):
            assert len(page) <= limit
            seen.extend(page)
            assert len(seen) <= len(LOOKALIKE_OWNERS)
            after = page[-1]
        assert sorted(seen) == sorted(LOOKALIKE_OWNERS)

    def test_ids_come_back_as_they_were_written(self, store: VectorStore) -> None:
        """In every field that a source may fill."""
        written = [record(odd, owner_id=odd, kind="k", text=odd or "x") for odd in ODD_IDS.values()]
        written += [record(odd, owner_id="1", kind="k") for odd in ODD_IDS.values()]
        store.publish(written, [])
        assert enumerated(store, "1", *ODD_IDS.values()) == stamps_of(written)
        by_id = store.stamps_by_vector_id([r.stamp.vector_id for r in written])
        assert set(by_id) == stamps_of(written)

    def test_no_owner_sees_or_touches_anothers_records(self, store: VectorStore) -> None:
        """Whatever the owners are called (I7)."""
        written = {owner_id: records(2, owner_id=owner_id) for owner_id in LOOKALIKE_OWNERS}
        for batch in written.values():
            store.publish(batch, [])
        query = vectors(1)[0]
        for owner_id in LOOKALIKE_OWNERS:
            assert enumerated(store, owner_id) == stamps_of(written[owner_id])
            found = store.search(owner_id, query, model=MODEL, kinds=None, limit=100)
            assert {match.stamp for match in found} == stamps_of(written[owner_id])
        store.publish([], [deletion(r) for r in written["1%"] + written["%"]])
        rest = {owner_id for owner_id in LOOKALIKE_OWNERS if enumerated(store, owner_id)}
        assert rest == set(LOOKALIKE_OWNERS) - {"1%", "%"}

    def test_owners_that_cannot_exist_have_no_records(self, store: VectorStore) -> None:
        """An id that no store can hold is no error to ask for."""
        store.publish(records(2), [])
        nobody = ["nobody", "\x00", "1\x00", "\ud800"]
        assert enumerated(store, *nobody) == set()
        assert store.unmanaged(nobody) == {}
        for owner_id in nobody:
            assert not store.search(owner_id, vectors(1)[0], model=MODEL, kinds=None, limit=5)
        assert enumerated(store) == set()
        assert enumerated(store, *nobody, "1") == stamps_of(records(2))
        assert not list(store.stamps_by_vector_id(["not a vector_id", "\x00"]))
        assert not list(store.stamps_by_vector_id([]))

    def test_the_largest_version_comes_back(self, store: VectorStore) -> None:
        """Versions are integers of 52 bits, and none of them is rounded."""
        written = [record("a", version=MAX_VERSION - 1), record("b", version=MAX_VERSION - 2)]
        store.publish(written, [])
        assert enumerated(store, "1") == stamps_of(written)

    # --- records that are not managed

    def test_another_namespace_sees_nothing(self, store: VectorStore, open_store: Open) -> None:
        """Neither enumeration, owners nor search; it only counts them."""
        store.publish(records(3), [])
        other = open_store("other")
        assert other.namespace == "other"
        assert enumerated(other, "1") == set()
        assert list(other.owners(None, 10)) == []
        assert not other.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5)
        assert other.unmanaged(["1", "2"]) == {"1": 3}
        assert store.unmanaged(["1", "2"]) == {}

    def test_records_without_a_namespace_are_only_counted(
        self, store: VectorStore, location: str
    ) -> None:
        """A record whose stamp somebody took away is nobody's."""
        kept, lost = written = records(2)
        store.publish(written, [])
        self.damage(location, lost.stamp.vector_id, "namespace", None)
        assert enumerated(store, "1") == stamps_of([kept])
        assert store.unmanaged(["1"]) == {"1": 1}
        found = store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5)
        assert {match.stamp for match in found} == stamps_of([kept])

    def test_no_call_changes_an_unmanaged_record(
        self, store: VectorStore, open_store: Open, location: str
    ) -> None:
        """Not a newer write under its vector_id, nor a delete of just this record."""
        other, lost = open_store("other"), record("lost")
        theirs = record("theirs", namespace="other")
        store.publish([lost], [])
        other.publish([theirs], [])
        self.damage(location, lost.stamp.vector_id, "namespace", None)
        ids = [lost.stamp.vector_id, theirs.stamp.vector_id]
        before = set(store.stamps_by_vector_id(ids))
        for unmanaged in (lost, theirs):
            stamp = unmanaged.stamp._replace(namespace="default", version=9)
            store.publish([unmanaged._replace(stamp=stamp)], [])
            store.publish([unmanaged._replace(stamp=stamp, embedding=None)], [])
            store.publish([], [deletion(unmanaged), deletion(unmanaged, version=9)])
        assert set(store.stamps_by_vector_id(ids)) == before
        assert before == {lost.stamp._replace(namespace=""), theirs.stamp}

    def test_a_foreign_record_is_shown_with_empty_fields(
        self, store: VectorStore, location: str
    ) -> None:
        """Under its vector_id; what it lacks reads as empty."""
        foreign = vector_id("elsewhere", "1", "k", "1")
        self.insert_foreign(location, foreign, "1")
        empty = Stamp(foreign, "", "1", "", "", "", "", "", 0)
        assert list(store.stamps_by_vector_id([foreign])) == [empty]
        assert store.unmanaged(["1"]) == {"1": 1}
        assert enumerated(store, "1") == set()

    @pytest.mark.parametrize("field", ["version", "fingerprint", "text_hash", "model", "kind"])
    def test_a_damaged_record_is_enumerated_and_can_be_replaced(
        self, store: VectorStore, location: str, field: str
    ) -> None:
        """What is lost reads as empty, a version as 0, so that the next write applies."""
        written = record()
        store.publish([written], [])
        self.damage(location, written.stamp.vector_id, field, None)
        fields = written.stamp._asdict() | {field: 0 if field == "version" else ""}
        assert enumerated(store, "1") == {Stamp(**fields)}
        repaired = record(version=2)
        store.publish([repaired], [])
        assert enumerated(store, "1") == stamps_of([repaired])

    def test_a_record_moved_to_another_owner_is_found_by_its_vector_id(
        self, store: VectorStore, location: str
    ) -> None:
        """So that the next write for it can be given a version above the stored one."""
        written = record(version=5)
        store.publish([written], [])
        self.damage(location, written.stamp.vector_id, "owner_id", "2")
        assert enumerated(store, "1") == set()
        (stray,) = store.stamps_by_vector_id([written.stamp.vector_id])
        assert stray == written.stamp._replace(owner_id="2")
        repaired = record(version=stray.version + 1)
        store.publish([repaired], [])
        assert enumerated(store, "1", "2") == stamps_of([repaired])
