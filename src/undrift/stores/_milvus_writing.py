"""What the Milvus store writes: records, deletes, tombstones, claims.

Every write looks first and then writes, whatever came in between: Milvus has no conditional write.
Within a process one waits for the other; between processes there is a window between the look and
the write, in which an older write may replace a newer one (`Capabilities.store_class` N).
"""

from __future__ import annotations

from collections.abc import Sequence

from undrift.ports import Deletion, Record
from undrift.state import Claim, Tombstone
from undrift.stores._milvus_reading import IDS_PER_CALL, Reading
from undrift.stores._milvus_records import (
    RECORD,
    STANDING_FIELDS,
    TOMBSTONE,
    Put,
    Standing,
    claim_put,
    columns_of,
    cut,
    fields_of,
    grave_of,
    one_of,
    parts_of,
    put_of,
    standing_of,
)
from undrift.stores._milvus_wire import Milvus
from undrift.stores._records import collectable

RECORDS_PER_CALL = 2_000
_BYTES_PER_CALL = 16_000_000
"""The server takes calls of 64 MB, and cuts them into messages of 5 MB for its log."""


class Writing:
    """What writes into the collection of *milvus*."""

    def __init__(self, milvus: Milvus, reading: Reading, namespace: str) -> None:
        self._milvus = milvus
        self._reading = reading
        self._namespace = namespace

    def write(self, records: Sequence[Record]) -> None:
        """Write *records* where the stored version is older or absent."""
        for start in range(0, len(records), RECORDS_PER_CALL):
            part = records[start : start + RECORDS_PER_CALL]
            standing = self._standing([record.stamp.vector_id for record in part])
            applied = [
                record
                for record in part
                if self._applies(record, standing.get(record.stamp.vector_id))
            ]
            self._put([put_of(record) for record in self._with_vectors(applied)])

    def delete(self, deletions: Sequence[Deletion]) -> None:
        """Delete records that still have the version that is named."""
        self._remove(deletions, RECORD)

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put *tombstones* in the place of what is older, or where nothing is."""
        standing = self._standing([stone.vector_id for stone in tombstones])
        applied = [
            stone
            for stone in tombstones
            if self._makes_way(standing.get(stone.vector_id), stone.version, stone[1:4])
        ]
        self._put([grave_of(stone, self._namespace) for stone in applied])

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones that still have the version that is named."""
        self._remove(collectable(tombstones), TOMBSTONE)

    def put_claim(self, claim: Claim) -> None:
        """Write *claim* over what is there."""
        self._put([claim_put(claim, self._namespace)])

    def _applies(self, record: Record, standing: Standing | None) -> bool:
        stamp = record.stamp
        if not self._makes_way(standing, stamp.version, stamp[2:5]):
            return False
        if record.embedding is not None:
            return True
        # What keeps the stored vector is for the one of this very text and model.
        return (
            standing is not None
            and standing.role == RECORD
            and standing.embedded == (stamp.text_hash, stamp.model)
        )

    def _makes_way(
        self, standing: Standing | None, version: int, entity: tuple[str, str, str]
    ) -> bool:
        """Whether nothing keeps *version* of *entity*, its owner, kind and id, out.

        A vector_id follows from these three: a tombstone under it that names others is damaged,
        shows up with nobody whom it concerns, and so must not keep anything out.
        """
        if standing is None:
            return True
        if standing.namespace != self._namespace:
            return False
        is_damaged = standing.role == TOMBSTONE and standing.entity != entity
        return is_damaged or standing.version < version

    def _with_vectors(self, records: Sequence[Record]) -> list[Record]:
        """*records*, those without a vector with the stored one, or left out where that is lost.

        Milvus writes a record whole: what is to stay has to be sent again.
        """
        kept = [record.stamp.vector_id for record in records if record.embedding is None]
        stored = self._reading.vectors(kept) if kept else {}
        return [
            record
            if record.embedding is not None
            else record._replace(embedding=stored[record.stamp.vector_id])
            for record in records
            if record.embedding is not None or record.stamp.vector_id in stored
        ]

    def _remove(self, gone: Sequence[Deletion], role: int) -> None:
        standing = self._standing([deletion.vector_id for deletion in gone])
        met = {
            deletion.vector_id
            for deletion in gone
            if (there := standing.get(deletion.vector_id)) is not None
            and there.role == role
            and there.namespace == self._namespace
            and there.version == deletion.version
            and there.entity[0] == deletion.owner_id
        }
        for part in parts_of(sorted(met), IDS_PER_CALL):
            self._milvus.delete(one_of("vector_id", part))

    def _put(self, puts: Sequence[Put]) -> None:
        dimension = self._reading.dimension
        for part in cut(puts, RECORDS_PER_CALL, lambda put: put.size, _BYTES_PER_CALL):
            self._milvus.upsert(fields_of(dimension), columns_of(part, dimension), len(part))

    def _standing(self, ids: Sequence[str]) -> dict[str, Standing]:
        return {
            row["vector_id"]: standing_of(row) for row in self._reading.by_id(ids, STANDING_FIELDS)
        }
