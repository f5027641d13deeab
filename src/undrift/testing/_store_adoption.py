"""The contract's part on adoption: records that another program wrote, and goes on using.

class TestMyAdoption(AdoptionContract):
@pytest.fixture(scope="class")
@classmethod
def new_location(cls) -> Callable[[], str]: ...

def fields(self, location): ...
def write_foreign(self, location, records): ...
def raw(self, location): ...
def searchable(self, location): ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from undrift.adoption import UNSTATED_MODEL, StoreFields
from undrift.errors import ConfigError
from undrift.model import Stamp
from undrift.ports import Deletion, Record, StoreClass, Vectors, VectorStore
from undrift.state import Claim, ClaimableStore
from undrift.stores import open_store
from undrift.testing.builders import MODEL, record, restamp, tombstone, vectors

OWNER = "7"
KIND = "experience"


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignRecord:
    """A record as another program writes and reads it.

    Attributes:
        id: the record's own; any text that the store takes, a UUID where it takes nothing else.
        owner: a number, as programs store users' ids; None where the field is missing.
        text: None where the program keeps it elsewhere.
        vector: None where it is gone.
        extra: a field that undrift knows nothing of.
    """

    id: str
    owner: int | None
    entity_id: str | None
    text: str | None
    vector: Vectors | None = field(compare=False, default=None)
    extra: str | None = None


class AdoptionContract(ABC):
    """What a store does that was opened with ``fields=``; kind and model are constants."""

    @abstractmethod
    def fields(self, location: str) -> StoreFields:
        """Where the collection's records hold what; kind is `KIND`, model the builders' MODEL."""

    @abstractmethod
    def write_foreign(self, location: str, records: Sequence[ForeignRecord]) -> None:
        """Create the collection if it is not there, and write *records* as the program does."""

    @abstractmethod
    def raw(self, location: str) -> Mapping[str, ForeignRecord]:
        """Every record by its id, tombstones and claims included, as the program reads them."""

    @abstractmethod
    def searchable(self, location: str) -> set[str]:
        """The ids of everything that the program's own search can find."""

    def foreign_id(self, number: int) -> str:
        """An id such as the other program gives."""
        return f"00000000-0000-4000-8000-{number:012d}"

    @pytest.fixture
    def location(self, new_location: Callable[[], str]) -> str:
        """An address where no collection is yet."""
        return new_location()

    @pytest.fixture
    def opened(self, location: str) -> Iterator[Callable[..., ClaimableStore]]:
        """A function that opens the collection, which has to be there."""
        stores: list[VectorStore] = []

        def open_(namespace: str = "default", fields: StoreFields | None = None) -> ClaimableStore:
            fields = fields or self.fields(location)
            stores.append(open_store(location, namespace=namespace, fields=fields))
            assert isinstance(stores[-1], ClaimableStore)
            return stores[-1]

        yield open_
        for store in stores:
            store.close()

    def foreign(
        self, number: int, *, owner: int | None = int(OWNER), text: str | None = None
    ) -> ForeignRecord:
        """The record number *number*, of the entity ``e<number>``."""
        text = f"Text {number} of {owner}." if text is None else text
        return ForeignRecord(
            id=self.foreign_id(number + 1_000 * (owner or 0)),
            owner=owner,
            entity_id=f"e{number}",
            text=text,
            vector=vectors(1, seed=number)[0],
            extra=f"extra {number}",
        )

    def wanted(self, of: ForeignRecord, **changes: object) -> Record:
        """What undrift would write for *of*."""
        values = {"text": of.text, "owner_id": str(of.owner), "kind": KIND} | changes
        return record(of.entity_id or "", **values)  # type: ignore[arg-type]

    def stamped(self, of: ForeignRecord, *, version: int = 1) -> Record:
        """A stamp alone, at the place where *of* lies."""
        wanted = restamp(self.wanted(of), version=version, metadata={"extra": "of the source"})
        return wanted._replace(stamp=wanted.stamp._replace(vector_id=of.id))

    # --- what is there ------------------------------------------------------------------------

    def test_a_collection_that_is_not_there_is_an_error(
        self, opened: Callable[..., ClaimableStore]
    ) -> None:
        """Nobody adopts nothing, and nothing is created."""
        with pytest.raises(ConfigError, match="no such collection") as caught:
            opened().describe()
        assert "store.fields" in caught.value.fix

    def test_records_without_a_stamp_say_what_their_fields_say(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """Owner, kind, entity and the text's hash; no fingerprint, and the version 0."""
        there = [self.foreign(1), self.foreign(2)]
        self.write_foreign(location, [*there, self.foreign(3, owner=8)])
        store = opened()
        assert store.describe().exists
        assert set(store.stamps([OWNER])) == {self.unstamped(of) for of in there}
        assert set(store.stamps_by_vector_id([there[0].id])) == {self.unstamped(there[0])}
        assert list(store.owners(None, 10)) == [OWNER, "8"]
        assert store.unmanaged([OWNER, "8"]) == {}
        assert store.claim() is None
        assert set(store.stamps(["70", "no number", "", "\x00"])) == set()

    def test_white_space_around_a_text_does_not_change_it(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """Templates render none."""
        self.write_foreign(location, [self.foreign(1, text=" \n A text.\n")])
        (stamp,) = opened().stamps([OWNER])
        assert stamp.text_hash == self.wanted(self.foreign(1, text="A text.")).stamp.text_hash

    def test_what_the_fields_do_not_cover_is_only_counted(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """A record that names no entity, and one that another namespace has stamped."""
        theirs = self.foreign(1)
        self.write_foreign(location, [theirs, replace(self.foreign(2), entity_id=None)])
        other = opened("other")
        write = self.stamped(theirs)
        other.publish([write._replace(stamp=write.stamp._replace(namespace="other"))], [])
        store = opened()
        assert set(store.stamps([OWNER])) == set()
        assert store.unmanaged([OWNER]) == {OWNER: 2}
        before = self.raw(location)
        store.publish([self.stamped(theirs, version=9)], [Deletion(OWNER, theirs.id, 1)])
        assert self.raw(location) == before

    def test_without_a_model_in_the_fields_it_is_unstated(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """And without a text there is no hash."""
        self.write_foreign(location, [self.foreign(1)])
        fields = replace(self.fields(location), model=None, text=None)
        (stamp,) = opened(fields=fields).stamps([OWNER])
        assert (stamp.model, stamp.text_hash) == (UNSTATED_MODEL, "")

    def test_any_number_of_records_is_enumerated(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """Beyond any page or window."""
        there = [self.foreign(number) for number in range(2_500)]
        self.write_foreign(location, there)
        assert set(opened().stamps([OWNER])) == {self.unstamped(of) for of in there}

    def unstamped(self, of: ForeignRecord) -> Stamp:
        """What is enumerated of *of* before it has a stamp."""
        return self.wanted(of).stamp._replace(vector_id=of.id, fingerprint="", version=0)

    # --- stamps -------------------------------------------------------------------------------

    def test_a_stamp_changes_nothing_else(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """The vector is the same to the bit, and so is every field of the other program's."""
        there = self.foreign(1)
        self.write_foreign(location, [there])
        before = self.raw(location)
        store = opened()
        write = self.stamped(there)
        store.publish([write], [])
        assert set(store.stamps([OWNER])) == {write.stamp}
        after = self.raw(location)
        assert after == before
        assert _bits(after[there.id]) == _bits(before[there.id])
        assert self.searchable(location) == {there.id}

    @pytest.mark.parametrize("obstacle", ["text", "model", "owner", "absent"])
    def test_a_stamp_goes_only_where_it_belongs(
        self, location: str, opened: Callable[..., ClaimableStore], obstacle: str
    ) -> None:
        """Else the store would say of a vector what is not so."""
        there = self.foreign(1)
        self.write_foreign(location, [there])
        write = self.stamped(self.foreign(1, text="another text") if obstacle == "text" else there)
        if obstacle == "model":
            write = write._replace(stamp=write.stamp._replace(model="another"))
        elif obstacle == "absent":
            write = write._replace(stamp=write.stamp._replace(vector_id=self.foreign_id(99)))
        elif obstacle == "owner":
            self.write_foreign(location, [replace(there, owner=None)])
        before = self.raw(location)
        store = opened()
        store.publish([write], [])
        assert self.raw(location) == before
        assert not any(stamp.fingerprint for stamp in store.stamps([OWNER]))

    def test_a_program_that_replaces_its_record_takes_the_stamp_with_it(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """So that nothing false is left behind."""
        there, changed = self.foreign(1), self.foreign(1, text="another text")
        self.write_foreign(location, [there])
        store = opened()
        store.publish([self.stamped(there)], [])
        self.write_foreign(location, [changed])
        assert set(store.stamps([OWNER])) == {self.unstamped(changed)}

    # --- writes -------------------------------------------------------------------------------

    def test_a_record_that_is_written_anew_keeps_what_other_programs_read(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """Its other fields; and a number stays a number."""
        there = self.foreign(1)
        self.write_foreign(location, [there])
        store = opened()
        write = self.wanted(there, text="a new text", version=2)
        if store.capabilities.store_class is StoreClass.TRANSACTIONAL:
            write = write._replace(stamp=write.stamp._replace(vector_id=there.id))
        store.publish([write], [])
        new = self.raw(location)[write.stamp.vector_id]
        assert new == replace(there, id=write.stamp.vector_id, text="a new text")
        assert write.stamp in set(store.stamps([OWNER]))
        assert write.stamp.vector_id in self.searchable(location)
        assert write.embedding is not None
        assert new.vector is not None
        similarity = float(np.dot(new.vector, write.embedding)) / float(
            np.linalg.norm(new.vector) * np.linalg.norm(write.embedding)
        )
        assert similarity == pytest.approx(1.0, abs=1e-3)

    def test_a_new_record_is_found_by_the_other_program(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """With its owner, entity and text where that program looks for them."""
        self.write_foreign(location, [self.foreign(1)])
        store = opened()
        new = self.wanted(self.foreign(2), text="of a new entity")
        store.publish([new], [])
        found = self.raw(location)[new.stamp.vector_id]
        assert (found.owner, found.entity_id, found.text) == (7, "e2", "of a new entity")
        assert new.stamp.vector_id in self.searchable(location)
        assert new.stamp in set(store.stamps([OWNER]))
        late = self.wanted(self.foreign(2), text="late")
        store.publish([late], [])
        assert new.stamp in set(store.stamps([OWNER]))

    def test_deletes_apply_to_just_what_was_seen(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """Stamped or not."""
        kept, gone, stamped = (self.foreign(number) for number in (1, 2, 3))
        self.write_foreign(location, [kept, gone, stamped])
        store = opened()
        store.publish([self.stamped(stamped)], [])
        store.publish(
            [],
            [
                Deletion(OWNER, kept.id, 1),
                Deletion("8", kept.id, 0),
                Deletion(OWNER, gone.id, 0),
                Deletion(OWNER, stamped.id, 0),
            ],
        )
        assert set(self.raw(location)) == {kept.id, stamped.id}
        store.publish([], [Deletion(OWNER, stamped.id, 1)])
        assert set(self.raw(location)) == {kept.id}

    # --- search, claims, tombstones -----------------------------------------------------------

    def test_search_finds_what_another_program_wrote(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """By the model that the fields name; of this owner alone."""
        there, other = self.foreign(1), self.foreign(2, owner=8)
        self.write_foreign(location, [there, other])
        store = opened()
        assert there.vector is not None
        for model, expected in ((MODEL, [there.id]), ("another", [])):
            found = store.search(OWNER, there.vector, model=model, kinds=[KIND], limit=5)
            assert [match.stamp.vector_id for match in found] == expected
        (match,) = store.search(OWNER, there.vector, model=MODEL, kinds=None, limit=5)
        assert match.score == pytest.approx(1.0, abs=1e-3)
        assert match.text == there.text
        assert store.search(OWNER, there.vector, model=MODEL, kinds=["other"], limit=5) == []

    def test_a_claim_leaves_no_trace_in_the_collection(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """It lies in a place of undrift's own."""
        self.write_foreign(location, [self.foreign(1)])
        before = self.raw(location)
        claim = Claim("1/app", "a state", 3)
        store = opened()
        assert store.put_claim(claim, replacing=None)
        assert not store.put_claim(claim, replacing=None)
        assert opened().claim() == claim
        assert opened("other").claim() is None
        assert store.put_claim(claim._replace(epoch=4), replacing=claim)
        assert set(self.searchable(location)) == set(before)
        assert list(store.owners(None, 10)) == [OWNER]

    def test_the_other_programs_search_finds_no_tombstone(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """And it keeps late writes out all the same."""
        self.write_foreign(location, [self.foreign(1)])
        store = opened()
        if store.capabilities.store_class is StoreClass.TRANSACTIONAL:
            pytest.skip("class T deletes for good: the fence keeps late writes out")
        gone = self.wanted(self.foreign(2))
        store.publish([gone], [])
        stone = tombstone(gone, version=3)
        store.bury([stone])
        store.publish([self.wanted(self.foreign(2), version=2)], [])
        assert set(store.tombstones([OWNER])) == {stone}
        assert set(store.stamps([OWNER])) == {self.unstamped(self.foreign(1))}
        assert self.searchable(location) == {self.foreign(1).id}
        store.collect([stone])
        assert set(store.tombstones([OWNER])) == set()


def _bits(found: ForeignRecord) -> bytes:
    assert found.vector is not None
    return found.vector.astype(np.float32).tobytes()
