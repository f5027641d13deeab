"""A vector store of Qdrant's points, whichever road leads to them.

Class C: writes are upserts that Qdrant applies only where the stored version is older, and a
deleted record leaves a tombstone, a point without a vector.

Order of what is read:
    Pages of points follow one another by id. Each is read for itself, so that what is written
    meanwhile may be there or not; what was there before and stays is always there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from undrift.digests import RecordsDigest
from undrift.failpoints import reach
from undrift.fingerprint import is_storable_id
from undrift.model import Stamp
from undrift.ports import Capabilities, Deletion, Match, Record, StoreClass, StoreInfo, Vectors
from undrift.state import Claim, Tombstone
from undrift.stores._listing import OwnerListing
from undrift.stores._meaning import NOT_CREATED
from undrift.stores._qdrant_claims import Claims
from undrift.stores._qdrant_conditions import Condition, Equals, HasVector, Not, OneOf, every
from undrift.stores._qdrant_digests import digests
from undrift.stores._qdrant_layout import CHANGE_DIMENSION, find_created, unit
from undrift.stores._qdrant_payload import (
    DELETED,
    KIND,
    MATCH_FIELDS,
    MODEL,
    NAMESPACE,
    OWNER,
    STAMP_FIELDS,
    TOMBSTONE_FIELDS,
    match_of,
    parts_of,
    stamp_of,
    tombstone_of,
)
from undrift.stores._qdrant_points import FoundPoint, Points, is_point_id
from undrift.stores._qdrant_writing import A_TOMBSTONE, Writing
from undrift.stores._records import (
    Batch,
    batch_of,
    collectable,
    deletions_of,
    storable,
    tombstones_of,
)

PAGE_POINTS = 10_000
"""Points in a page: Qdrant's default, 10, would make a thousand calls of one."""

_OWNERS_PER_CALL = 1_000
_IDS_PER_CALL = 5_000

# What a first count of all owners may hold; one with more is asked again for ten times as many.
_OWNERS_AT_FIRST = 100_000

WHY_NOT = {
    "store_class": "Qdrant has no transactions, so a state cannot share one; its conditional "
    "writes keep out what is late, and a deleted record leaves a tombstone for that",
    "atomic_records": "Qdrant has no transactions: of a publish that breaks off, a part may be "
    "written",
    "exact_vectors": "Qdrant stores vectors scaled to length 1 where the metric is Cosine",
}


class QdrantPointStore:
    """The `ClaimableStore` in one collection of Qdrant's.

    Args:
        points: the collection.
        namespace: whose records are managed.
        keep_text: False stores neither texts nor metadata.
        why_not_many_processes: the reason where only one process may use it at once.
    """

    def __init__(
        self, points: Points, *, namespace: str, keep_text: bool, why_not_many_processes: str = ""
    ) -> None:
        self._points = points
        self._namespace = namespace
        self._keep_text = keep_text
        self._why_not_many_processes = why_not_many_processes
        self._writing = Writing(points, namespace, keep_text=keep_text)
        self._claims = Claims(points, namespace)
        self._listing = OwnerListing(self._all_owners)
        self._is_managed = every(Equals(NAMESPACE, namespace), Not(A_TOMBSTONE))

    @property
    def namespace(self) -> str:
        """The namespace whose records are managed."""
        return self._namespace

    @property
    def capabilities(self) -> Capabilities:
        """Conditional writes, no transactions; search compares an owner's points one by one."""
        why_not = dict(WHY_NOT)
        if self._why_not_many_processes:
            why_not["many_processes"] = self._why_not_many_processes
        return Capabilities(
            store_class=StoreClass.CONDITIONAL,
            atomic_records=0,
            many_processes=not self._why_not_many_processes,
            exact_vectors=False,
            why_not=why_not,
        )

    # --- what is there, and creating it

    def describe(self) -> StoreInfo:
        """Say what is there; creates nothing."""
        found = find_created(self._points)
        return StoreInfo(
            location=self._points.location,
            exists=found is not None,
            dimension=None if found is None else found.dimension,
            change_dimension=CHANGE_DIMENSION,
        )

    def ddl(self, dimension: int) -> Sequence[str]:
        """What `create` does, as calls of Qdrant's API."""
        return self._points.ddl(dimension)

    def create(self, dimension: int) -> None:
        """Create the collection and its indexes, as far as they are missing."""
        if find_created(self._points) is None:
            self._points.create(dimension)

    # --- reading

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """Yield every stamp of *owners* in the namespace, in pages.

        The points without a vector are asked for first: one that is written meanwhile is then
        shown as what it was, and none is left out.
        """
        for part in parts_of(storable(owners), _OWNERS_PER_CALL):
            where = every(OneOf(OWNER, part), self._is_managed)
            lost = {point.vector_id for point in self._pages(every(where, _NO_VECTOR), ())}
            for stamp in map(stamp_of, self._pages(where, STAMP_FIELDS)):
                yield stamp._replace(model="") if stamp.vector_id in lost else stamp

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """Yield the stamps found under *vector_ids*, whatever owner or namespace they claim."""
        ids = [vector_id for vector_id in vector_ids if is_point_id(vector_id)]
        for part in parts_of(ids, _IDS_PER_CALL):
            for point in self._points.retrieve(part, (*STAMP_FIELDS, DELETED)):
                if point.payload.get(DELETED) != 1:
                    yield stamp_of(point)

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """Yield every tombstone of *owners* in the namespace, in pages."""
        for part in parts_of(storable(owners), _OWNERS_PER_CALL):
            where = every(OneOf(OWNER, part), Equals(NAMESPACE, self._namespace), A_TOMBSTONE)
            yield from map(tombstone_of, self._pages(where, TOMBSTONE_FIELDS))

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* that are not of the namespace."""
        elsewhere = every(Not(Equals(NAMESPACE, self._namespace)), Not(A_TOMBSTONE))
        counts: dict[str, int] = {}
        for part in parts_of(storable(owners), _OWNERS_PER_CALL):
            where = every(OneOf(OWNER, part), elsewhere)
            counts |= self._points.facet(OWNER, where, len(part) + 1)
        return counts

    def digests(
        self, owners: Sequence[str], *, model: str, kinds: Collection[str]
    ) -> Mapping[str, RecordsDigest]:
        """The digest of each of *owners*; a point that is written meanwhile is in it or not."""
        asked, namespace = storable(owners), self._namespace
        return dict(digests(self._points, asked, namespace=namespace, model=model, kinds=kinds))

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """At most *limit* distinct owners of managed records, by code point, behind *after*."""
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
        """The nearest records of *owner_id* and *model*, compared one by one by Qdrant."""
        wanted = None if kinds is None else storable(kinds)
        if limit < 1 or wanted == [] or not is_storable_id(owner_id) or not has_length(vector):
            return []
        conditions: list[Condition] = [
            Equals(OWNER, owner_id),
            self._is_managed,
            Equals(MODEL, model),
        ]
        if wanted is not None:
            conditions.append(OneOf(KIND, wanted))
        found = self._points.nearest(unit(vector), every(*conditions), MATCH_FIELDS, limit)
        return [match_of(point) for point in found]

    # --- writing

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Write, then delete; the port says what applies."""
        batch = Batch(
            batch_of(writes, self._namespace, keep_text=self._keep_text),
            [deletion for deletion in deletions_of(deletes) if is_point_id(deletion.vector_id)],
        )
        if batch.is_empty:
            return
        reach("store.publish.begun")
        self._writing.write(batch.writes)
        reach("store.publish.written")
        self._writing.delete(batch.deletes, is_first=not batch.writes)
        reach("store.publish.deleted")
        self._points.settle()
        reach("store.publish.committed")

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones where what is stored is older."""
        batch = tombstones_of(tombstones)
        if batch:
            self._writing.bury(batch)
            self._points.settle()

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones that are still there with that version."""
        batch = [gone for gone in collectable(tombstones) if is_point_id(gone.vector_id)]
        if batch:
            self._writing.collect(batch)
            self._points.settle()

    # --- whose store this is

    def claim(self) -> Claim | None:
        """The namespace's claim; None if nobody has claimed it."""
        return self._claims.find()

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*.

        Raises:
            ConfigError: the store may not be written, or has not been created.
        """
        if find_created(self._points) is None:
            raise NOT_CREATED.error(self._points.location, "there is no such collection")
        return self._claims.put(claim, replacing=replacing)

    def close(self) -> None:
        """Give back what is open. Safe to call twice."""
        self._points.close()

    def _pages(self, where: Condition, fields: Sequence[str]) -> Iterator[FoundPoint]:
        next_id = None
        while True:
            page = self._points.page(where, fields, next_id, PAGE_POINTS)
            yield from page.points
            next_id = page.next_id
            if next_id is None:
                return

    def _all_owners(self) -> Mapping[str, int]:
        limit = _OWNERS_AT_FIRST
        while True:
            counts = self._points.facet(OWNER, self._is_managed, limit)
            if len(counts) < limit:
                return counts
            limit *= 10


_NO_VECTOR = Not(HasVector(""))


def has_length(vector: Vectors) -> bool:
    """Whether anything can be near to *vector*."""
    squared = float(np.dot(vector.astype(np.float64), vector.astype(np.float64)))
    return bool(np.isfinite(squared)) and squared > 0.0
