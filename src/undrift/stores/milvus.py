"""Vectors in a collection of a Milvus server.

Records, tombstones and the claims of namespaces are in the one collection that the address names,
told apart by the field ``deleted``: 0, 1 and 2. What is no record has a vector of zeros, which no
search by the cosine finds; other programs that read by a filter add ``deleted == 0`` to it.

Safety:
    Milvus has no conditional writes and no transactions. A write looks first and then writes,
    writes of one process follow each other, and between processes there is a window in which an
    older write may replace a newer one; the state's order finds that after its horizon. The server
    answers a write when it is in its log, and every read here waits until all that was answered
    before is applied (strong consistency). How the log is kept on disk is the server's
    configuration. A batch is applied 2,000 records at a time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
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
from undrift.stores._listing import OwnerListing
from undrift.stores._meaning import NOT_CREATED
from undrift.stores._milvus_address import Address, parse
from undrift.stores._milvus_errors import refuse_too_old
from undrift.stores._milvus_reading import IS_RECORD, OWNERS_PER_CALL, Reading
from undrift.stores._milvus_records import (
    CLAIM_FIELDS,
    FLAT,
    OWNERS,
    ROLE,
    TOMBSTONE,
    VECTOR,
    all_of,
    claim_key,
    claim_of,
    dimension_of,
    fields_of,
    has_direction,
    literal,
    metadata_of,
    one_of,
    parts_of,
    refuse_index,
    refuse_too_long,
    refuse_too_long_ids,
    stamp_of_row,
    tombstone_of,
)
from undrift.stores._milvus_wire import Described, Milvus
from undrift.stores._milvus_writing import Writing
from undrift.stores._records import (
    STAMP_COLUMNS,
    batch_of,
    deletions_of,
    storable,
    tombstones_of,
)

ANOTHER_COLLECTION = (
    "name another collection in VECTOR_URL and run `undrift sync --all`, which creates it"
)

WHY_NOT = {
    "store_class": "Milvus has no conditional writes: between processes an older write that comes "
    "late may replace a newer one, until the next sync behind the horizon finds it",
    "atomic_records": "Milvus has no transactions",
}
"""Reasons for each promise that is not made."""

_locks: dict[tuple[int, str], Lock] = {}


def open_at(
    url: str, *, namespace: str, keep_text: bool, fields: StoreFields | None
) -> MilvusStore:
    """The store at ``milvus+http(s)://[user:password@ or token@]host[:port]/collection[?…]``.

    Raises:
        ConfigError: the URL is malformed.
    """
    del fields  # not adopted
    address = parse(url)
    return MilvusStore(Milvus(address), address, namespace=namespace, keep_text=keep_text)


class MilvusStore:
    """The `ClaimableStore` in a collection of Milvus.

    Args:
        namespace: whose records are managed.
        keep_text: False stores neither texts nor metadata.
    """

    def __init__(
        self,
        milvus: Milvus,
        address: Address,
        *,
        namespace: str = "default",
        keep_text: bool = True,
    ) -> None:
        self._milvus = milvus
        self._address = address
        self._namespace = namespace
        self._keep_text = keep_text
        self._checked = 0
        self._listing = OwnerListing(self._all_owners)

    @property
    def namespace(self) -> str:
        """The namespace whose records are managed."""
        return self._namespace

    @property
    def capabilities(self) -> Capabilities:
        """Class N, no transactions, any number of processes, exact search, exact vectors."""
        return Capabilities(store_class=StoreClass.NEITHER, atomic_records=0, why_not=WHY_NOT)

    # --- what is there, and creating it

    def describe(self) -> StoreInfo:
        """Say what is there; creates nothing."""
        reading = self._find()
        return StoreInfo(
            location=self._address.location,
            exists=reading is not None,
            dimension=None if reading is None else reading.dimension,
            change_dimension=ANOTHER_COLLECTION,
        )

    def ddl(self, dimension: int) -> Sequence[str]:
        """What `create` makes."""
        name = f"{self._address.collection} in database {self._address.database}"
        names = ", ".join(field.name for field in fields_of(dimension))
        return [
            f"create collection {name} ({names}; {dimension} dimensions)",
            f"create index {VECTOR} ({FLAT.kind}, {FLAT.metric}) on {name}",
            f"create index owner_id ({OWNERS.kind}) on {name}",
            f"load collection {name}",
        ]

    def create(self, dimension: int) -> None:
        """Create what is missing and load it, safely in several processes at once.

        The index of the vectors comes last: a collection without it counts as not created.
        """
        if self._find() is None:
            refuse_too_old(self._milvus.version(), self._address.location)
            if self._milvus.describe() is None:
                self._milvus.create(fields_of(dimension))
            self._milvus.create_index("owner_id", OWNERS)
            self._milvus.create_index(VECTOR, FLAT)
        self._milvus.load()

    # --- reading

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """Yield every stamp of *owners* in the namespace, each page from one moment."""
        reading = self._open()
        for where in self._of_owners(owners, self._managed):
            for page, lost in reading.whole_pages(where, STAMP_COLUMNS):
                for row in page:
                    stamp = stamp_of_row(row)
                    yield stamp._replace(model="") if stamp.vector_id in lost else stamp

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """Yield the stamps found under *vector_ids*, whatever owner or namespace they claim."""
        reading = self._open()
        for row in reading.by_id(storable(vector_ids), (*STAMP_COLUMNS, ROLE)):
            if not row[ROLE]:
                yield stamp_of_row(row)

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """Yield every tombstone of *owners* in the namespace."""
        reading = self._open()
        buried = all_of(f"namespace == {literal(self._namespace)}", f"{ROLE} == {TOMBSTONE}")
        for where in self._of_owners(owners, buried):
            for page in reading.pages(where, Tombstone._fields):
                yield from map(tombstone_of, page)

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* that are not of the namespace."""
        reading = self._open()
        others = all_of(f"namespace != {literal(self._namespace)}", IS_RECORD)
        counts: dict[str, int] = {}
        for where in self._of_owners(owners, others):
            for page in reading.pages(where, ("vector_id", "owner_id")):
                for row in page:
                    counts[row["owner_id"]] = counts.get(row["owner_id"], 0) + 1
        return counts

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """At most *limit* distinct owners of managed records, by code point, behind *after*.

        Milvus lists nothing by another field than the primary key: the first page reads all
        owners, the others go on from that.
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
        """The nearest records of *owner_id* and *model*; a FLAT index compares them one by one."""
        kinds = None if kinds is None else storable(kinds)
        if limit < 1 or kinds == [] or not is_storable_id(owner_id) or not is_storable_id(model):
            return []
        reading = self._open()
        if reading.dimension != len(vector):
            raise DimensionMismatch(
                expected=len(vector),
                found=reading.dimension,
                model=model,
                fix=ANOTHER_COLLECTION,
            )
        if not has_direction(vector):
            return []
        filters = [self._managed, one_of("owner_id", [owner_id]), one_of("model", [model])]
        if kinds is not None:
            filters.append(one_of("kind", kinds))
        fields = (*STAMP_COLUMNS, "text", "metadata")
        return [
            Match(stamp_of_row(row), min(1.0, max(-1.0, score)), row["text"], metadata_of(row))
            for row, score in reading.nearest(vector, all_of(*filters), limit, fields)
        ]

    # --- writing

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Write, then delete, each where what is stored allows it; the port says what applies."""
        batch = batch_of(writes, self._namespace, keep_text=self._keep_text)
        refuse_too_long(batch)
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
        refuse_too_long_ids(batch)
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
        reading = self._find()
        return None if reading is None else self._claim_in(reading)

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*.

        Two processes that claim in the same moment may both be told that they have; the claim is
        the one that was written last, and whoever reads it next learns of that.

        Raises:
            ConfigError: the store has not been created.
        """
        with self._one_at_a_time():
            reading = self._open()
            if self._claim_in(reading) != replacing:
                return False
            Writing(self._milvus, reading, self._namespace).put_claim(claim)
            return self._claim_in(reading) == claim

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._milvus.close()

    # --- the collection

    def _find(self) -> Reading | None:
        """The collection, to be read; None if the store has not been created.

        Raises:
            ConfigError: it is another program's, or measures another distance.
        """
        described = self._milvus.describe()
        if described is None:
            return None
        dimension = dimension_of(described.fields, self._address.location)
        if not self._is_indexed(described):
            return None
        return Reading(self._milvus, dimension)

    def _is_indexed(self, described: Described) -> bool:
        if described.number == self._checked:
            return True
        index = self._milvus.indexes().get(VECTOR)
        if index is None:
            return False
        refuse_index(index, self._address.location)
        self._checked = described.number
        return True

    def _open(self) -> Reading:
        reading = self._find()
        if reading is None:
            raise NOT_CREATED.error(self._address.location, "there is no such collection")
        return reading

    def _writing(self, batch: Sequence[Record]) -> Writing:
        """What writes *batch*, whose vectors fit.

        Raises:
            WriteFailed: they have another dimension than the collection's.
        """
        reading = self._open()
        vector = next((r.embedding for r in batch if r.embedding is not None), None)
        if vector is not None and reading.dimension != len(vector):
            raise WriteFailed(
                "The store refused a batch",
                why=f"its vectors have {len(vector)} components, those of "
                f"{self._address.location} have {reading.dimension}; nothing was written.",
                fix=ANOTHER_COLLECTION,
            )
        return Writing(self._milvus, reading, self._namespace)

    def _one_at_a_time(self) -> AbstractContextManager[object]:
        """The lock of this process on the store; a forked one has its own."""
        return _locks.setdefault((os.getpid(), self._address.location), Lock())

    @property
    def _managed(self) -> str:
        return all_of(f"namespace == {literal(self._namespace)}", IS_RECORD)

    def _of_owners(self, owners: Sequence[str], also: str) -> Iterator[str]:
        """Filters that together let pass what *owners* have and *also* lets pass."""
        for part in parts_of(storable(owners), OWNERS_PER_CALL):
            yield all_of(one_of("owner_id", part), also)

    def _all_owners(self) -> Iterator[str]:
        for page in self._open().pages(self._managed, ("vector_id", "owner_id")):
            yield from (row["owner_id"] for row in page)

    def _claim_in(self, reading: Reading) -> Claim | None:
        rows = list(reading.by_id([claim_key(self._namespace)], CLAIM_FIELDS))
        return claim_of(rows[0]) if rows else None
