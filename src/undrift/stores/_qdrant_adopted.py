"""The vector store in a Qdrant collection that another program filled.

The other program's fields stay what they are. A record whose text changed is written under an id
of undrift's own, takes over those fields, and the old one is deleted behind it; a record whose text
is still the source's gets a stamp where it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import Lock

import numpy as np

from undrift.adoption import Adoption, StoreFields
from undrift.errors import DimensionMismatch
from undrift.failpoints import reach
from undrift.fingerprint import is_storable_id
from undrift.model import Stamp
from undrift.ports import Capabilities, Deletion, Match, Record, StoreClass, StoreInfo, Vectors
from undrift.state import Claim, Tombstone
from undrift.stores._listing import OwnerListing
from undrift.stores._nearest import FLOAT, nearest
from undrift.stores._qdrant_adopted_layout import (
    CHANGE_DIMENSION,
    AdoptedLayout,
    find_adopted,
    require_fields,
)
from undrift.stores._qdrant_adopted_points import AdoptedPoints
from undrift.stores._qdrant_adopted_writing import AdoptedWriting
from undrift.stores._qdrant_claims import Claims
from undrift.stores._qdrant_conditions import Condition, Equals, HasId, HasVector, Not, OneOf, every
from undrift.stores._qdrant_layout import COSINE, unit
from undrift.stores._qdrant_payload import parts_of
from undrift.stores._qdrant_points import Fields, FoundPoint, Points, is_point_id
from undrift.stores._qdrant_store import PAGE_POINTS, WHY_NOT, has_length
from undrift.stores._records import (
    Batch,
    batch_of,
    collectable,
    deletions_of,
    storable,
    tombstones_of,
)

_OWNERS_PER_CALL = 1_000
_IDS_PER_CALL = 5_000
_SEARCHED_AT_FIRST = 64


class AdoptedQdrantStore:
    """The `ClaimableStore` over a collection of somebody else's.

    Args:
        points: the collection.
        fields: where its points hold what.
        why_not_many_processes: the reason where only one process may use it at once.
    """

    def __init__(
        self,
        points: Points,
        *,
        namespace: str,
        fields: StoreFields,
        why_not_many_processes: str = "",
    ) -> None:
        self._points = points
        self._fields = fields
        self._namespace = namespace
        self._why_not_many_processes = why_not_many_processes
        self._listing = OwnerListing(self._all_owners)
        self._layout: AdoptedLayout | None = None
        self._looking = Lock()

    @property
    def namespace(self) -> str:
        """The namespace whose stamps are its own."""
        return self._namespace

    @property
    def capabilities(self) -> Capabilities:
        """Conditional writes, no transactions; records of another program."""
        why_not = dict(WHY_NOT)
        if self._why_not_many_processes:
            why_not["many_processes"] = self._why_not_many_processes
        return Capabilities(
            store_class=StoreClass.CONDITIONAL,
            atomic_records=0,
            many_processes=not self._why_not_many_processes,
            exact_vectors=False,
            adoption=Adoption(fields=self._fields),
            why_not=why_not,
        )

    # --- what is there

    def describe(self) -> StoreInfo:
        """Say what is there.

        Raises:
            ConfigError: there is no such collection, or it is not as the fields say.
        """
        layout = self._look()
        require_fields(self._points, self._fields)
        return StoreInfo(
            location=self._points.location,
            exists=True,
            dimension=layout.dimension,
            change_dimension=CHANGE_DIMENSION,
        )

    def ddl(self, dimension: int) -> Sequence[str]:
        """Nothing is created but indexes, with the first write."""
        return ()

    def create(self, dimension: int) -> None:
        """Create the indexes that conditions need, as far as they are missing."""
        self._prepared()

    # --- reading

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """Yield every stamp of *owners*; one that only its fields make has no fingerprint."""
        layout, read = self._known()
        for part in parts_of(storable(owners), _OWNERS_PER_CALL):
            where = layout.of_owners(part)
            if where is None:
                continue
            asked = frozenset(part)
            lost = self._without_vector(where)
            for point in self._pages(where, layout.read()):
                if read.is_managed(point.payload) and read.owner(point.payload) in asked:
                    yield read.stamp_of(point, is_lost=point.vector_id in lost)

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """Yield the stamps found under *vector_ids*, whatever owner or namespace they claim."""
        layout, read = self._known()
        ids = [vector_id for vector_id in vector_ids if is_point_id(vector_id)]
        for part in parts_of(ids, _IDS_PER_CALL):
            lost = self._without_vector(HasId(part))
            for point in self._points.retrieve(part, layout.read()):
                if read.stamp_in(point.payload).get("deleted") != 1:
                    yield read.stamp_of(point, is_lost=point.vector_id in lost)

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """Yield every tombstone of *owners* in the namespace."""
        layout, read = self._known()
        if not layout.was_written:
            layout = self._look()  # somebody else may have begun to write in the meantime
        if not layout.was_written:
            return
        field = layout.stamp_field
        for part in parts_of(storable(owners), _OWNERS_PER_CALL):
            where = every(
                OneOf(field("owner_id"), part),
                Equals(field("namespace"), self._namespace),
                Equals(field("deleted"), 1),
            )
            yield from map(read.tombstone_of, self._pages(where, layout.read(with_text=False)))

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* that the fields do not cover, or of another namespace."""
        layout, read = self._known()
        counts: dict[str, int] = {}
        for part in parts_of(storable(owners), _OWNERS_PER_CALL):
            asked, where = frozenset(part), layout.of_owners(part)
            for point in self._pages(where, layout.read(with_text=False)) if where else ():
                owner_id = read.owner(point.payload)
                if owner_id in asked and not read.is_managed(point.payload):
                    counts[owner_id] = counts.get(owner_id, 0) + 1
        return counts

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
        """The nearest records of *owner_id* and *model* by cosine, whatever the metric is."""
        layout, read = self._known()
        if len(vector) != layout.dimension:
            raise DimensionMismatch(
                expected=len(vector), found=layout.dimension, model=model, fix=CHANGE_DIMENSION
            )
        where = layout.of_owners([owner_id]) if is_storable_id(owner_id) else None
        if limit < 1 or where is None or not has_length(vector):
            return []

        def is_wanted(point: FoundPoint) -> bool:
            if not read.is_managed(point.payload) or read.owner(point.payload) != owner_id:
                return False
            stamp = read.stamp_of(point, is_lost=False)
            return stamp.model == model and (kinds is None or stamp.kind in kinds)

        if layout.distance != COSINE:
            return self._compared_here(vector, where, is_wanted, limit)
        asked = max(limit, _SEARCHED_AT_FIRST)
        while True:
            found = self._points.nearest(unit(vector), where, None, asked, using=layout.vector)
            wanted = [point for point in found if is_wanted(point)]
            if len(wanted) >= limit or len(found) < asked:
                return [read.match_of(point, point.score) for point in wanted[:limit]]
            asked *= 4  # others than those that are wanted were nearer

    def _compared_here(
        self, vector: Vectors, where: Condition, is_wanted: Callable[[FoundPoint], bool], limit: int
    ) -> Sequence[Match]:
        """As `search`, where Qdrant would rank by another metric: every vector is read."""
        layout, read = self._known()
        candidates: dict[str, FoundPoint] = {}

        def chunks() -> Iterator[Sequence[tuple[str, bytes]]]:
            for page in self._chunks(where, None, vector=layout.vector):
                wanted = [point for point in page if point.vector is not None and is_wanted(point)]
                candidates.update((point.vector_id, point) for point in wanted)
                yield [
                    (point.vector_id, np.asarray(point.vector, dtype=FLOAT).tobytes())
                    for point in wanted
                ]

        scores = nearest((chunk for chunk in chunks() if chunk), vector, limit)
        return [read.match_of(candidates[vector_id], score) for vector_id, score in scores]

    # --- writing

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Write, then delete; the port says what applies."""
        batch = Batch(
            batch_of(writes, self._namespace, keep_text=True),
            [deletion for deletion in deletions_of(deletes) if is_point_id(deletion.vector_id)],
        )
        if batch.is_empty:
            return
        writing = self._prepared()
        reach("store.publish.begun")
        writing.put([record for record in batch.writes if record.embedding is not None])
        writing.restamp([record for record in batch.writes if record.embedding is None])
        reach("store.publish.written")
        writing.delete(batch.deletes)
        reach("store.publish.deleted")
        self._points.settle()
        reach("store.publish.committed")

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones where what is stored is older; they have neither vector nor fields."""
        batch = tombstones_of(tombstones)
        if batch:
            self._prepared().bury(batch)
            self._points.settle()

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones that are still there with that version."""
        batch = [gone for gone in collectable(tombstones) if is_point_id(gone.vector_id)]
        if batch:
            self._prepared().collect(batch)
            self._points.settle()

    # --- whose store this is

    def claim(self) -> Claim | None:
        """The namespace's claim; None if nobody has claimed it."""
        layout, _ = self._known()
        return Claims(self._points, self._namespace, above=layout.stamp).find()

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*."""
        self._prepared()
        layout, _ = self._known()
        return Claims(self._points, self._namespace, above=layout.stamp).put(
            claim, replacing=replacing
        )

    def close(self) -> None:
        """Give back what is open. Safe to call twice."""
        self._points.close()

    # --- how

    def _look(self) -> AdoptedLayout:
        layout = find_adopted(self._points, self._fields)
        with self._looking:
            self._layout = layout
        return layout

    def _known(self) -> tuple[AdoptedLayout, AdoptedPoints]:
        layout = self._layout
        if layout is None or not layout.is_sampled:
            layout = self._look()
        return layout, AdoptedPoints(layout, self._namespace)

    def _prepared(self) -> AdoptedWriting:
        """The writes, once the indexes are there that their conditions need."""
        layout, _ = self._known()
        if missing := layout.missing_indexes():
            self._points.create_indexes(missing)
            layout = self._look()
        return AdoptedWriting(self._points, layout, self._namespace)

    def _without_vector(self, where: Condition) -> set[str]:
        """The ids of points that no search finds; asked for first, as in undrift's own."""
        layout, _ = self._known()
        lost = every(where, Not(HasVector(layout.vector)))
        return {point.vector_id for point in self._pages(lost, ())}

    def _all_owners(self) -> Iterator[str]:
        layout, read = self._known()
        for point in self._pages(None, layout.read(with_text=False)):
            if read.is_managed(point.payload):
                yield read.owner(point.payload)

    def _pages(self, where: Condition | None, fields: Fields) -> Iterator[FoundPoint]:
        for page in self._chunks(where, fields):
            yield from page

    def _chunks(
        self, where: Condition | None, fields: Fields, *, vector: str | None = None
    ) -> Iterator[Sequence[FoundPoint]]:
        next_id = None
        while True:
            page = self._points.page(where, fields, next_id, PAGE_POINTS, vector=vector)
            yield page.points
            next_id = page.next_id
            if next_id is None:
                return
