"""Writes into a collection that another program filled, each on a condition.

Only fields of undrift's own are named in conditions, and the owner's, as those have indexes. What
a point was when it was read decides how it may be written; the condition sees to it that it still
is when the write arrives.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from undrift.ports import Deletion, Record
from undrift.state import Tombstone
from undrift.stores._qdrant_adopted_layout import AdoptedLayout
from undrift.stores._qdrant_adopted_points import AdoptedPoints, Standing
from undrift.stores._qdrant_conditions import (
    AtLeast,
    Condition,
    Equals,
    HasId,
    HasVector,
    Lacks,
    Not,
    either,
    every,
)
from undrift.stores._qdrant_layout import COSINE, unit
from undrift.stores._qdrant_points import (
    Change,
    FoundPoint,
    NewPoint,
    Payload,
    Points,
    is_point_id,
    json_path,
)
from undrift.stores._qdrant_writing import bytes_of, in_parts, one_part

PART_POINTS = 500
_PART_CHANGES = 200
_PAGE_POINTS = 5_000

Identity = tuple[str, str, str]


class AdoptedWriting:
    """The writes of one call.

    Args:
        layout: as it was last looked at.
    """

    def __init__(self, points: Points, layout: AdoptedLayout, namespace: str) -> None:
        self._points = points
        self._layout = layout
        self._read = AdoptedPoints(layout, namespace)
        self._is_ours = Equals(layout.stamp_field("namespace"), namespace)
        self._has_no_stamp = Lacks(layout.stamp_field("namespace"))
        self._is_tombstone = Equals(layout.stamp_field("deleted"), 1)
        self._has_written = False

    # --- points

    def put(self, records: Sequence[Record]) -> None:
        """Write *records* with their vectors where what stands there is older."""
        for part in in_parts(records, bytes_of):
            there = self._there([record.stamp.vector_id for record in part])
            others = self._of_the_same_entities(part, there)
            new = [self._new_point(record, there, others) for record in part]
            versions = {record.stamp.vector_id: record.stamp.version for record in part}
            entities = {record.stamp.vector_id: record.stamp[2:5] for record in part}
            self._upsert(new, versions, entities, there)

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put *tombstones* where what stands there is older."""
        for start in range(0, len(tombstones), PART_POINTS):
            part = tombstones[start : start + PART_POINTS]
            there = self._there([stone.vector_id for stone in part])
            new = [NewPoint(stone.vector_id, {}, self._read.grave_of(stone)) for stone in part]
            versions = {stone.vector_id: stone.version for stone in part}
            entities = {stone.vector_id: stone[1:4] for stone in part}
            self._upsert(new, versions, entities, there)

    def _upsert(
        self,
        new: Sequence[NewPoint],
        versions: Mapping[str, int],
        entities: Mapping[str, Identity],
        there: Mapping[str, FoundPoint],
    ) -> None:
        alternatives: list[Condition] = []
        by_version: Mapping[int, list[str]] = defaultdict(list)
        unstamped: list[str] = []
        for vector_id, version in versions.items():
            standing = self._standing(there.get(vector_id))
            if standing is Standing.UNSTAMPED:
                unstamped.append(vector_id)
            else:
                by_version[version].append(vector_id)
            if standing is Standing.TOMBSTONE:
                stone = self._read.tombstone_of(there[vector_id])
                if stone[1:4] != entities[vector_id]:  # it is damaged, and keeps nothing out
                    alternatives.append(self._still(stone))
        version_field = self._layout.stamp_field("version")
        for version, ids in by_version.items():
            alternatives.append(
                every(HasId(ids), self._is_ours, Not(AtLeast(version_field, version)))
            )
        if unstamped:
            alternatives.append(every(HasId(unstamped), self._has_no_stamp))
        with self._one_part():
            self._points.upsert(new, either(alternatives))

    def _still(self, stone: Tombstone) -> Condition:
        field = self._layout.stamp_field
        return every(
            HasId([stone.vector_id]),
            self._is_ours,
            self._is_tombstone,
            Equals(field("owner_id"), stone.owner_id),
            Equals(field("version"), stone.version),
        )

    def _new_point(
        self,
        record: Record,
        there: Mapping[str, FoundPoint],
        others: Mapping[Identity, Payload],
    ) -> NewPoint:
        assert record.embedding is not None
        own = there.get(record.stamp.vector_id)
        if own is not None and self._read.is_managed(own.payload):
            before: Payload = own.payload
        else:
            before = others.get(record.stamp[2:5], {})
        is_cosine = self._layout.distance == COSINE
        vector = unit(record.embedding) if is_cosine else record.embedding
        payload = self._read.payload_of(record, before)
        return NewPoint(record.stamp.vector_id, {self._layout.vector: vector}, payload)

    def _of_the_same_entities(
        self, part: Sequence[Record], there: Mapping[str, FoundPoint]
    ) -> dict[Identity, Payload]:
        """For records that are written for the first time: what else stands for their entities.

        The other program's fields in it go on in the record that takes its place.
        """
        wanted = {
            record.stamp[2:5]
            for record in part
            if self._standing(there.get(record.stamp.vector_id))
            not in (Standing.STAMPED, Standing.UNSTAMPED)
        }
        ids: dict[Identity, str] = {}
        where = self._layout.of_owners(sorted({owner_id for owner_id, _, _ in wanted}))
        for point in self._pages(where) if wanted else ():
            identity = (self._read.owner(point.payload), *self._read.identity(point.payload))
            if identity in wanted and self._read.is_managed(point.payload):
                ids[identity] = point.vector_id
        found = self._there(list(ids.values()))
        return {identity: found[id_].payload for identity, id_ in ids.items() if id_ in found}

    # --- stamps

    def restamp(self, records: Sequence[Record]) -> None:
        """Write stamps without vectors, where the vector is the one that they mean."""
        for start in range(0, len(records), _PART_CHANGES):
            part = records[start : start + _PART_CHANGES]
            there = self._there([record.stamp.vector_id for record in part])
            changes = [
                self._change(record, there[record.stamp.vector_id])
                for record in part
                if record.stamp.vector_id in there
                and self._fits(record, there[record.stamp.vector_id])
            ]
            if changes:
                with self._one_part():
                    self._points.change(changes)

    def _fits(self, record: Record, point: FoundPoint) -> bool:
        """Whether the point is the record's, and, if it has no stamp, of its text and model."""
        payload = point.payload
        standing = self._read.standing(payload)
        identity = (self._read.owner(payload), *self._read.identity(payload))
        if standing not in (Standing.STAMPED, Standing.UNSTAMPED) or identity != record.stamp[2:5]:
            return False
        if standing is Standing.STAMPED and self._read.is_stamp_of_its_text(payload):
            return True  # the condition compares it
        stamp = self._read.stamp_of(point, is_lost=False)
        return stamp[6:8] == record.stamp[6:8]  # text_hash and model

    def _change(self, record: Record, point: FoundPoint) -> Change:
        stamp, field = record.stamp, self._layout.stamp_field
        if self._read.standing(point.payload) is Standing.STAMPED:
            of_this = (
                (Equals(field("text_hash"), stamp.text_hash), Equals(field("model"), stamp.model))
                if self._read.is_stamp_of_its_text(point.payload)
                else self._same_text(point.payload)
            )
            is_newer = Not(AtLeast(field("version"), stamp.version))
            is_meant = every(self._is_ours, is_newer, *of_this)
        else:
            is_meant = every(self._has_no_stamp, *self._same_text(point.payload))
        where = every(
            HasId([stamp.vector_id]),
            self._layout.is_owner(stamp.owner_id),
            HasVector(self._layout.vector),
            is_meant,
        )
        into = json_path(self._layout.above_stamp)
        return Change(self._read.beside_stamp(record, point.payload), where, into)

    def _same_text(self, payload: Payload) -> Iterator[Condition]:
        """That the text is still the one that was read.

        In strict mode a text cannot be asked for. What another program writes in just that moment
        replaces the payload and the stamp with it, or is written behind it.
        """
        text, field = self._read.text(payload), self._layout.fields.text
        if text is not None and field is not None and not self._layout.is_strict:
            yield Equals(json_path(field.path), text)

    # --- deletes

    def delete(self, deletions: Sequence[Deletion]) -> None:
        """Delete records that still have the owner and version that are named."""
        for start in range(0, len(deletions), PART_POINTS):
            part = deletions[start : start + PART_POINTS]
            there = self._there([deletion.vector_id for deletion in part])
            alternatives = [
                every(
                    HasId([deletion.vector_id]),
                    self._layout.is_owner(deletion.owner_id),
                    self._has_version(deletion.version),
                )
                for deletion in part
                if deletion.vector_id in there
                and self._read.is_managed(there[deletion.vector_id].payload)
            ]
            if alternatives:
                with self._one_part():
                    self._points.delete(either(alternatives))

    def collect(self, deletions: Sequence[Deletion]) -> None:
        """Delete tombstones that still have the owner and version that are named."""
        field = self._layout.stamp_field
        for start in range(0, len(deletions), PART_POINTS):
            alternatives = [
                every(
                    HasId([gone.vector_id]),
                    Equals(field("owner_id"), gone.owner_id),
                    Equals(field("version"), gone.version),
                )
                for gone in deletions[start : start + PART_POINTS]
            ]
            self._points.delete(every(self._is_ours, self._is_tombstone, either(alternatives)))

    def _has_version(self, version: int) -> Condition:
        """That a point has *version*; one without a stamp has 0."""
        exactly = every(self._is_ours, Equals(self._layout.stamp_field("version"), version))
        return exactly if version else either([exactly, self._has_no_stamp])

    @contextmanager
    def _one_part(self) -> Iterator[None]:
        with one_part(is_first=not self._has_written):
            yield
        self._has_written = True

    # --- what is there

    def _standing(self, point: FoundPoint | None) -> Standing | None:
        return None if point is None else self._read.standing(point.payload)

    def _there(self, vector_ids: Sequence[str]) -> dict[str, FoundPoint]:
        ids = [vector_id for vector_id in vector_ids if is_point_id(vector_id)]
        found = self._points.retrieve(ids, None) if ids else ()
        return {point.vector_id: point for point in found}

    def _pages(self, where: Condition | None) -> Iterator[FoundPoint]:
        if where is None:
            return
        fields, next_id = self._layout.read(with_text=False), None
        while True:
            page = self._points.page(where, fields, next_id, _PAGE_POINTS)
            yield from page.points
            next_id = page.next_id
            if next_id is None:
                return
