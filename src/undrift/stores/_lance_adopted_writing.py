"""What is written into a LanceDB table of another program's, and into the one beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from lancedb.table import Table

from undrift.errors import WriteFailed
from undrift.ports import Deletion, Record, Vectors
from undrift.state import Tombstone
from undrift.stores import _lance_layout as layout
from undrift.stores._lance_adopted_ledger import Ledger
from undrift.stores._lance_adopted_rows import AdoptedRows, Found, Known, Row
from undrift.stores._lance_commits import committed
from undrift.stores._lance_database import Database
from undrift.stores._lance_errors import mapped_errors

_SECONDS = timedelta(seconds=300)

_Entity = tuple[str, str, str]


class _There(NamedTuple):
    """What lies under some ids, in the table and beside it."""

    found: Mapping[str, Found]
    known: Mapping[str, Known]


class _Put(NamedTuple):
    """A row to be written."""

    row: Row
    vector: Vectors


class AdoptedWriting:
    """Reads, compares and writes; one batch at a time."""

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger

    def write(self, table: Table, rows: AdoptedRows, records: Sequence[Record]) -> None:
        """Write *records* where the stored version is older or absent.

        The stamps first: until a row is as its stamp says, the stamp does not count.

        Raises:
            WriteFailed: the vectors have another dimension than the table's; nothing is written.
        """
        self._refuse_other_dimension(rows, records)
        there = self._under(table, rows, [record.stamp.vector_id for record in records])
        applied = [record for record in records if _applies(rows, record, there)]
        if not applied:
            return
        self._ledger.remove(_outlived(rows, there))
        alike = self._of_the_same_entities(table, rows, applied)
        stamps, puts = [], []
        for record in applied:
            before = there.found.get(record.stamp.vector_id)
            put = _put_of(rows, record, before or alike.get(record.stamp[2:5]))
            if record.embedding is None:
                assert before is not None, "or it would not apply"
                # What another program wrote stays as it is until undrift has written it once.
                if not rows.counts(there.known.get(record.stamp.vector_id), before):
                    put = put._replace(row=before.row)
            stamps.append((record.stamp, rows.seen(put.vector, rows.text_of(Found(*put)))))
            if record.embedding is not None or before is None or put.row != before.row:
                puts.append(put)
        self._ledger.put(stamps)
        self._put(table, rows, puts)

    def delete(self, table: Table, rows: AdoptedRows, deletions: Sequence[Deletion]) -> None:
        """Delete records that still have the owner and the version that are named."""
        there = self._under(table, rows, [one.vector_id for one in deletions])
        gone = []
        for one in deletions:
            found, known = there.found.get(one.vector_id), there.known.get(one.vector_id)
            if found is not None and rows.is_managed(found, known):
                stamp = rows.stamp_of(found, known)
                if (stamp.owner_id, stamp.version) == (one.owner_id, one.version):
                    gone.append(one.vector_id)
        self._remove(table, rows, gone)
        beside = (there.known[id_] for id_ in gone if id_ in there.known)
        self._ledger.remove([known for known in beside if not known.is_tombstone])

    def bury(self, table: Table, rows: AdoptedRows, tombstones: Sequence[Tombstone]) -> None:
        """Put *tombstones* beside where what is stored is older, and remove that."""
        there = self._under(table, rows, [stone.vector_id for stone in tombstones])
        applied = [stone for stone in tombstones if _makes_way(rows, stone, there)]
        if not applied:
            return
        self._ledger.create()
        self._ledger.remove(_outlived(rows, there))
        self._ledger.store.bury(applied)  # first: it keeps out what is still on its way
        self._remove(table, rows, [s.vector_id for s in applied if s.vector_id in there.found])

    def _put(self, table: Table, rows: AdoptedRows, puts: Sequence[_Put]) -> None:
        if not puts:
            return
        position = rows.schema.get_field_index(rows.vector)
        with mapped_errors(self._database.location):
            plain = pa.Table.from_pylist(
                [dict(put.row) for put in puts], schema=rows.schema.remove(position)
            )
            flat = pa.array(np.concatenate([put.vector for put in puts]))
            vectors = pa.FixedSizeListArray.from_arrays(flat, rows.dimension)
            written = plain.add_column(position, rows.schema.field(position), vectors)
            merge = (
                table.merge_insert(rows.id)
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .use_index(False)
            )
            committed(lambda: merge.execute(written, on_bad_vectors="null", timeout=_SECONDS))

    def _remove(self, table: Table, rows: AdoptedRows, ids: Sequence[str]) -> None:
        for part in layout.parts(ids):
            with mapped_errors(self._database.location):
                committed(partial(table.delete, rows.under(part)))

    def _under(self, table: Table, rows: AdoptedRows, ids: Sequence[str]) -> _There:
        found = {}
        for part in layout.parts(ids):
            for batch in self._database.rows(table, rows.under(part), rows.schema.names):
                found.update({rows.id_of(one): one for one in rows.read(batch)})
        return _There(found, self._ledger.under(ids))

    def _of_the_same_entities(
        self, table: Table, rows: AdoptedRows, records: Sequence[Record]
    ) -> Mapping[_Entity, Found]:
        """Rows that stand for the entities of *records*, under whatever id; the newest of each."""
        entities: set[_Entity] = {record.stamp[2:5] for record in records}
        newest: dict[_Entity, tuple[int, Found]] = {}
        for part in layout.parts([owner_id for owner_id, _, _ in entities]):
            if not (where := rows.of_owners(part)):
                continue
            known = self._ledger.of_owners(part)
            for batch in self._database.rows(table, where, rows.schema.names):
                for found in rows.read(batch):
                    entity, beside = rows.entity(found), known.get(rows.id_of(found))
                    if entity in entities and rows.is_managed(found, beside):
                        version = rows.stamp_of(found, beside).version
                        if entity not in newest or newest[entity][0] < version:
                            newest[entity] = version, found
        return {entity: found for entity, (_, found) in newest.items()}

    def _refuse_other_dimension(self, rows: AdoptedRows, records: Sequence[Record]) -> None:
        lengths = {len(one.embedding) for one in records if one.embedding is not None}
        if lengths - {rows.dimension}:
            raise WriteFailed(
                "The store refused a batch",
                why=f"its vectors have {lengths.pop()} components, those of "
                f"{self._database.location} have {rows.dimension}; nothing was written.",
                fix="set embedder.name in undrift.toml to the model that filled the collection",
            )


def _put_of(rows: AdoptedRows, record: Record, like: Found | None) -> _Put:
    """The row that *record* becomes; without a vector of its own it keeps that of *like*."""
    vector = record.embedding
    if vector is None:
        assert like is not None, "or it would not apply"
        vector = like.vector
    return _Put(rows.row_of(record, like), np.asarray(vector, dtype=np.float32))


def _applies(rows: AdoptedRows, record: Record, there: _There) -> bool:
    """Whether what lies there makes way for *record*, or is what a write without a vector means."""
    wanted = record.stamp
    found, known = there.found.get(wanted.vector_id), there.known.get(wanted.vector_id)
    if known is not None and known.is_tombstone and known.stamp[2:5] == wanted[2:5]:
        is_late = known.stamp.version >= wanted.version
        if is_late or known.stamp.namespace != wanted.namespace:
            return False
    if found is None:
        return record.embedding is not None
    stamp = rows.stamp_of(found, known)
    if not rows.is_managed(found, known) or stamp.version >= wanted.version:
        return False
    is_meant = stamp[2:5] == wanted[2:5] and stamp[6:8] == wanted[6:8]
    return record.embedding is not None or (is_meant and found.vector is not None)


def _makes_way(rows: AdoptedRows, stone: Tombstone, there: _There) -> bool:
    found, known = there.found.get(stone.vector_id), there.known.get(stone.vector_id)
    if found is None:
        return True
    is_managed = rows.is_managed(found, known)
    return is_managed and rows.stamp_of(found, known).version < stone.version


def _outlived(rows: AdoptedRows, there: _There) -> list[Known]:
    """Stamps whose row is gone or another one by now: their versions must keep nothing out."""
    return [
        known
        for id_, known in there.known.items()
        if not known.is_tombstone
        and known.stamp.namespace == rows.namespace
        and (id_ not in there.found or not rows.counts(known, there.found[id_]))
    ]
