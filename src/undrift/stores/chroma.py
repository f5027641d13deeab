"""Vectors in a collection of a Chroma server.

Records are in the collection that the address names, their stamps in the metadata and their texts
as documents; tombstones and claims are in one beside it, called ``….undrift``, so that other
programs that search, list or count the records meet nothing else.

Safety:
    Chroma has no conditional writes and no transactions. A write looks first and then writes,
    writes of one process follow each other, and between processes there is a window of a round trip
    in which an older write may replace a newer one; the state's order finds that after its horizon.
    The server answers a write when it is in its log, on disk (``fsync``), and applied: every later
    read shows it. A batch is applied a page of 2,000 records at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from threading import Lock

from undrift.adoption import StoreFields
from undrift.errors import DimensionMismatch, WriteFailed
from undrift.failpoints import reach
from undrift.fingerprint import is_storable_id
from undrift.model import Stamp
from undrift.ports import (
    Capabilities,
    Deletion,
    Match,
    Record,
    StoreClass,
    StoreInfo,
    Vectors,
)
from undrift.state import Claim, Tombstone
from undrift.stores._chroma_address import Address, parse_server
from undrift.stores._chroma_api import Chroma, lost_among, parts_of
from undrift.stores._chroma_errors import ANOTHERS, WRONG_METRIC
from undrift.stores._chroma_http import ChromaServer
from undrift.stores._chroma_ledger import Ledger
from undrift.stores._chroma_reading import OWNERS_PER_CALL, Opened
from undrift.stores._chroma_records import OwnRecords
from undrift.stores._chroma_sample import sample_of
from undrift.stores._chroma_search import Chosen, vectors_of
from undrift.stores._chroma_writing import Writing
from undrift.stores._listing import OwnerListing
from undrift.stores._meaning import NOT_CREATED
from undrift.stores._nearest import nearest
from undrift.stores._records import batch_of, deletions_of, storable, tombstones_of
from undrift.stores.collections import CollectionSample

ANOTHER_COLLECTION = (
    "name another collection in VECTOR_URL and run `undrift sync --all`, which creates it"
)
COSINE = "cosine"

# The owners of a few are cheaper to tell apart here than by a filter, for which Chroma goes through
# the whole collection.
_FEW_OWNERS = 20

WHY_NOT = {
    "store_class": "Chroma has no conditional writes: between processes an older write that comes "
    "late may replace a newer one, until the next sync behind the horizon finds it",
    "atomic_records": "Chroma has no transactions",
    "exact_vectors": "Chroma keeps a vector of a cosine index as a direction and a length, which "
    "rounds its last bits",
}
"""Reasons for each promise that is not made."""

_locks: dict[tuple[int, str], Lock] = {}


def open_at(
    url: str, *, namespace: str, keep_text: bool, fields: StoreFields | None
) -> ChromaStore:
    """The store at ``chroma+http(s)://[key@]host[:port]/collection[?tenant=…&database=…]``.

    Raises:
        ConfigError: the URL is malformed.
    """
    address = parse_server(url)
    chroma = ChromaServer(address)
    if fields is not None:
        from undrift.stores._chroma_adopted import AdoptedChromaStore

        return AdoptedChromaStore(chroma, address, namespace=namespace, fields=fields)
    return ChromaStore(chroma, address, namespace=namespace, keep_text=keep_text)


def sample_collection(url: str, limit: int) -> CollectionSample | None:
    """Some records of the collection at *url*; None where there is none of another program."""
    address = parse_server(url)
    with closing(ChromaServer(address)) as chroma:
        return sample_of(chroma, address, address.location, limit)


class ChromaStore:
    """The `ClaimableStore` in a collection of Chroma.

    Args:
        chroma: the server, or what else holds collections.
        namespace: whose records are managed.
        keep_text: False stores neither texts nor metadata.
        why_not_many_processes: the reason where only one process may use it at once.

    Attributes:
        change_dimension: what a person does to store vectors of another dimension.
    """

    change_dimension = ANOTHER_COLLECTION

    def __init__(
        self,
        chroma: Chroma,
        address: Address,
        *,
        namespace: str = "default",
        keep_text: bool = True,
        why_not_many_processes: str = "",
    ) -> None:
        self._chroma = chroma
        self._address = address
        self._namespace = namespace
        self._keep_text = keep_text
        self._why_not_many_processes = why_not_many_processes
        self._listing = OwnerListing(lambda: self._open().all_owners())

    @property
    def namespace(self) -> str:
        """The namespace whose records are managed."""
        return self._namespace

    @property
    def capabilities(self) -> Capabilities:
        """Class N, no transactions, on a server any number of processes, exact search."""
        why_not = dict(WHY_NOT)
        if self._why_not_many_processes:
            why_not["many_processes"] = self._why_not_many_processes
        return Capabilities(
            store_class=StoreClass.NEITHER,
            atomic_records=0,
            many_processes=not self._why_not_many_processes,
            exact_vectors=False,
            why_not=why_not,
        )

    # --- what is there, and creating it

    def describe(self) -> StoreInfo:
        """Say what is there; creates nothing."""
        opened = self._find()
        return StoreInfo(
            location=self._address.location,
            exists=opened is not None,
            dimension=opened.records.dimension if opened is not None else None,
            change_dimension=self.change_dimension,
        )

    def ddl(self, dimension: int) -> Sequence[str]:
        """What `create` makes; the first vector fixes the dimension, not that."""
        database = f"in database {self._address.database} of tenant {self._address.tenant}"
        return [
            f"create collection {self._address.collection} (hnsw space {COSINE}) {database}",
            f"create collection {self._address.ledger} (tombstones and claims) {database}",
        ]

    def create(self, dimension: int) -> None:
        """Create the collections that are missing, safely in several processes at once."""
        if self._find() is None:
            for name in (self._address.collection, self._address.ledger):
                if self._chroma.find(name) is None:
                    self._chroma.create(name)

    # --- reading

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """Yield every stamp of *owners* in the namespace, each page from one moment.

        Whether a record has its vector is looked up in the index, which holds it apart from the
        other fields.
        """
        opened = self._open()
        for page in opened.of_owners(owners):
            managed = [row for row in page if opened.codec.is_managed(row)]
            lost = lost_among(opened.records, [row.id for row in managed])
            for row in managed:
                stamp = opened.codec.stamp_of(row)
                yield stamp._replace(model="") if row.id in lost else stamp

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """Yield the stamps found under *vector_ids*, whatever owner or namespace they claim."""
        opened = self._open()
        for part in parts_of(storable(vector_ids)):
            yield from map(opened.codec.stamp_of, opened.rows(part))

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """Yield every tombstone of *owners* in the namespace."""
        opened = self._open()
        if opened.ledger is None:
            return
        for part in parts_of(storable(owners), OWNERS_PER_CALL):
            for stones in parts_of(list(opened.ledger.tombstones(part))):
                newer = opened.newer_than(stones)
                yield from (stone for stone in stones if stone.vector_id not in newer)

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* that are not managed."""
        opened = self._open()
        counts: dict[str, int] = {}
        also = opened.codec.of_unmanaged() if len(owners) > _FEW_OWNERS else None
        for page in opened.of_owners(owners, also):
            for row in page:
                if not opened.codec.is_managed(row):
                    owner_id = opened.codec.owner_of(row)
                    counts[owner_id] = counts.get(owner_id, 0) + 1
        return counts

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """At most *limit* distinct owners of managed records, by code point, behind *after*.

        Chroma lists nothing in an order: the first page reads them all, the others go on from that.
        """
        return self._listing.page(after, limit)

    def search(
        self,
        owner_id: str,
        vector: Vectors,
        *,
        model: str,
        kinds: Sequence[str] | None,
        limit: int,
    ) -> Sequence[Match]:
        """The nearest records of *owner_id* and *model*, compared one by one with numpy.

        Not by Chroma's index, which under a filter misses some of the nearest: of 50,000 records it
        took 43 ms to search an owner's 50, reading their vectors takes 19 ms.
        """
        kinds = None if kinds is None else storable(kinds)
        if limit < 1 or kinds == [] or not is_storable_id(owner_id):
            return []
        opened = self._open()
        records = opened.records
        if records.dimension not in (None, len(vector)):
            raise DimensionMismatch(
                expected=len(vector),
                found=records.dimension,
                model=model,
                fix=self.change_dimension,
            )
        chosen = Chosen(codec=opened.codec, owner_id=owner_id, model=model, kinds=kinds)
        candidates = chosen.candidates(records)
        scores = dict(nearest(vectors_of(records, candidates), vector, limit))
        found = {
            row.id: row
            for part in parts_of(list(scores))
            for row in records.rows(ids=part, with_documents=True)
        }
        # One that was written meanwhile may not be what was compared any more.
        return [
            opened.codec.match_of(found[vector_id], score)
            for vector_id, score in scores.items()
            if vector_id in found and chosen.holds(found[vector_id])
        ]

    # --- writing

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Write, then delete, each where what is stored allows it; the port says what applies."""
        batch = batch_of(writes, self._namespace, keep_text=self._keep_text)
        gone = deletions_of(deletes)
        if not batch and not gone:
            return
        with self._one_at_a_time():
            writing = self._writing(batch)
            reach("store.publish.begun")
            writing.write(batch)
            reach("store.publish.written")
            writing.delete(gone)
            reach("store.publish.deleted")
        reach("store.publish.committed")

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones where what is stored is older."""
        batch = tombstones_of(tombstones)
        if batch:
            with self._one_at_a_time():
                self._writing([]).bury(batch)

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones that are still there with that version."""
        if tombstones:
            with self._one_at_a_time():
                self._writing([]).collect(tombstones)

    # --- whose store this is

    def claim(self) -> Claim | None:
        """The namespace's claim; None if nobody has claimed it."""
        opened = self._find()
        return None if opened is None or opened.ledger is None else opened.ledger.claim()

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*; also between processes.

        Raises:
            ConfigError: the store has not been created.
        """
        return self._prepared()[1].put_claim(claim, replacing=replacing)

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._chroma.close()

    # --- the collections

    def _find(self) -> Opened | None:
        """Both collections; None if the store has not been created.

        Raises:
            ConfigError: the collection is another program's, or measures another distance.
        """
        records = self._chroma.find(self._address.collection)
        if records is None:
            return None
        ledger = self._chroma.find(self._address.ledger)
        if ledger is None and records.count() > 0:
            raise ANOTHERS.error(
                self._address.location,
                f"it has {records.count()} records, and no collection {self._address.ledger} "
                "beside it",
            )
        if records.space != COSINE:
            raise WRONG_METRIC.error(
                self._address.location,
                f"its index was created with the space {records.space!r}, not {COSINE!r}",
            )
        if ledger is None:
            return None
        return Opened(records, Ledger(ledger, self._namespace), OwnRecords(self._namespace))

    def _open(self) -> Opened:
        opened = self._find()
        if opened is None:
            raise NOT_CREATED.error(self._address.location, "there is no such collection")
        return opened

    def _prepared(self) -> tuple[Opened, Ledger]:
        """What is written into, the ledger too.

        Raises:
            ConfigError: the store has not been created.
        """
        opened = self._open()
        assert opened.ledger is not None, "a store has both"
        return opened, opened.ledger

    def _writing(self, batch: Sequence[Record]) -> Writing:
        """What writes *batch*, whose vectors fit.

        Raises:
            WriteFailed: they have another dimension than those that are stored.
        """
        opened, ledger = self._prepared()
        stored = opened.records.dimension
        vector = next((r.embedding for r in batch if r.embedding is not None), None)
        if vector is not None and stored not in (None, len(vector)):
            raise WriteFailed(
                "The store refused a batch",
                why=f"its vectors have {len(vector)} components, those of "
                f"{self._address.location} have {stored}; nothing was written.",
                fix=self.change_dimension,
            )
        return Writing(opened.records, ledger, opened.codec, self._namespace)

    def _one_at_a_time(self) -> AbstractContextManager[object]:
        """The lock of this process on the store; a forked one has its own."""
        return _locks.setdefault((os.getpid(), self._address.location), Lock())
