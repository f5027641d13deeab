"""What the Chroma store writes: records, deletes, tombstones.

Every write looks first and then writes, whatever came in between: Chroma has no conditional write.
Within a process one waits for the other; between processes there is a window of a round trip, in
which an older write may replace a newer one (`Capabilities.store_class` N).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from undrift.ports import Deletion, Record
from undrift.state import Tombstone
from undrift.stores._chroma_api import Collection, Row, lost_among, parts_of
from undrift.stores._chroma_codec import Codec, Standing
from undrift.stores._chroma_ledger import Ledger
from undrift.stores._records import collectable


class Writing:
    """What writes into *records* and the *ledger* beside it."""

    def __init__(self, records: Collection, ledger: Ledger, codec: Codec, namespace: str) -> None:
        self._records = records
        self._ledger = ledger
        self._codec = codec
        self._namespace = namespace

    def write(self, records: Sequence[Record]) -> None:
        """Write *records* where the stored version is older or absent."""
        for part in parts_of(records):
            self._put([record for record in part if record.embedding is not None])
            self._restamp([record for record in part if record.embedding is None])

    def delete(self, deletions: Sequence[Deletion]) -> None:
        """Delete records that still have the version that is named."""
        for part in parts_of(deletions):
            standing = self._standing([deletion.vector_id for deletion in part])
            gone = {
                deletion.vector_id
                for deletion in part
                if self._is_met(standing.get(deletion.vector_id), deletion)
            }
            if gone:
                self._records.delete(sorted(gone))

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put *tombstones* where the stored version is older or absent.

        First the tombstone, then the record goes: a crash in between leaves both, and the next call
        with the same tombstone finishes.
        """
        for part in parts_of(tombstones):
            ids = [stone.vector_id for stone in part]
            standing, graves = self._standing(ids), self._ledger.standing(ids)
            applied = [
                stone
                for stone in part
                if self._is_older(standing.get(stone.vector_id), stone.version)
                and not self._is_kept_out(
                    graves.get(stone.vector_id), stone.version + 1, stone[1:4]
                )
            ]
            if applied:
                self._ledger.bury(applied)
            gone = [stone.vector_id for stone in applied if stone.vector_id in standing]
            if gone:
                self._records.delete(gone)

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones that still have the version that is named."""
        for part in parts_of(collectable(tombstones)):
            graves = self._ledger.standing([gone.vector_id for gone in part])
            met = {
                gone.vector_id for gone in part if self._is_met(graves.get(gone.vector_id), gone)
            }
            self._ledger.open_graves(sorted(met))

    def _put(self, records: Sequence[Record]) -> None:
        if not records:
            return
        there, graves = self._there_and_graves(records)
        applied = [record for record in records if self._applies(record, there, graves)]
        if applied:
            self._records.upsert(self._codec.puts_of(applied, there, self._records))
        self._ledger.open_graves(
            [record.stamp.vector_id for record in applied if record.stamp.vector_id in graves]
        )

    def _restamp(self, records: Sequence[Record]) -> None:
        """Write what keeps the stored vector, where that is the one the write means."""
        if not records:
            return
        there, graves = self._there_and_graves(records)
        applied = [
            record
            for record in records
            if record.stamp.vector_id in there
            and self._applies(record, there, graves)
            and self._codec.is_meant(record, there[record.stamp.vector_id])
        ]
        lost = lost_among(self._records, [record.stamp.vector_id for record in applied])
        applied = [record for record in applied if record.stamp.vector_id not in lost]
        if applied:
            self._records.update(self._codec.restamps_of(applied, there))

    def _there_and_graves(
        self, records: Sequence[Record]
    ) -> tuple[dict[str, Row], dict[str, Standing]]:
        """The records and the tombstones under the ids of *records*."""
        ids = [record.stamp.vector_id for record in records]
        return self._there(ids), self._ledger.standing(ids)

    def _applies(
        self, record: Record, there: Mapping[str, Row], graves: Mapping[str, Standing]
    ) -> bool:
        """Whether neither a record nor a tombstone keeps *record* out."""
        stamp, row = record.stamp, there.get(record.stamp.vector_id)
        standing = None if row is None else self._codec.standing_of(row)
        return self._is_older(standing, stamp.version) and not self._is_kept_out(
            graves.get(stamp.vector_id), stamp.version, stamp[2:5]
        )

    def _is_older(self, standing: Standing | None, version: int) -> bool:
        """Whether no record keeps *version* out: an older one of this namespace, or none."""
        return standing is None or (
            standing.namespace == self._namespace and standing.version < version
        )

    def _is_kept_out(
        self, grave: Standing | None, version: int, entity: tuple[str, str, str]
    ) -> bool:
        """Whether a tombstone keeps *version* of *entity*, its owner, kind and id, out.

        A vector_id follows from these three: a tombstone under it that names others is damaged,
        shows up with nobody whom it concerns, and so must not keep anything out.
        """
        if grave is None:
            return False
        if grave.namespace != self._namespace:
            return True
        return grave.entity == entity and grave.version >= version

    def _is_met(self, standing: Standing | None, gone: Deletion) -> bool:
        return (
            standing is not None
            and standing.namespace == self._namespace
            and standing.version == gone.version
            and standing.entity[0] == gone.owner_id
        )

    def _there(self, ids: Sequence[str]) -> dict[str, Row]:
        rows = self._records.rows(ids=ids, with_documents=self._codec.needs_documents)
        return {row.id: row for row in rows}

    def _standing(self, ids: Sequence[str]) -> dict[str, Standing]:
        return {id_: self._codec.standing_of(row) for id_, row in self._there(ids).items()}
