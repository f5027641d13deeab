"""What the LanceDB store writes: records, deletes, tombstones. Each call is a commit of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from lancedb.table import Table

from undrift.errors import WriteFailed
from undrift.ports import Deletion, Record, Vectors
from undrift.state import Tombstone
from undrift.stores import _lance_layout as layout
from undrift.stores._lance_commits import committed
from undrift.stores._lance_database import Database
from undrift.stores._lance_errors import mapped_errors
from undrift.stores._records import STAMP_COLUMNS

ROWS_AT_ONCE = 10_000
"""Rows of a commit; 15 MB of vectors of 384 components."""

ANOTHER_TABLE = "set ?table= in VECTOR_URL to another table and run `undrift sync --all`"

_SECONDS = timedelta(seconds=300)
_RESTAMP_ATTEMPTS = 4

T = TypeVar("T")


class _Kept(NamedTuple):
    """A vector that a write keeps, and the version that it was read with."""

    vector: Vectors
    version: int


class Writing:
    """The commits of one store.

    Args:
        namespace: whose records are written.
    """

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database
        self._namespace = namespace
        self._location = database.location

    def write(self, table: Table, records: Sequence[Record]) -> None:
        """Write *records* where the stored version is older or absent.

        Raises:
            WriteFailed: the vectors have another dimension than the table's; nothing is written.
        """
        puts = [record for record in records if record.embedding is not None]
        restamps = [record for record in records if record.embedding is None]
        dimension = layout.dimension_of(table.schema)
        for record in puts[:1]:  # all of a batch have the same
            self._refuse_other_dimension(record, dimension)
        for part in _parts(puts):
            rows = _rows(part, [record.embedding for record in part], dimension)
            self._merge(table, rows, layout.MAKES_WAY, inserts=True)
        for part in _parts(restamps):
            self._restamp(table, part, dimension)

    def bury(self, table: Table, tombstones: Sequence[Tombstone]) -> None:
        """Put *tombstones* where the stored version is older or absent."""
        schema = layout.records_schema(layout.dimension_of(table.schema))
        for part in _parts(tombstones):
            columns: dict[str, Sequence[object]] = {
                name: [getattr(stone, name) for stone in part] for name in Tombstone._fields
            }
            empty = dict.fromkeys(("fingerprint", "text_hash", "model", "text"), "")
            fixed = {"namespace": self._namespace, "deleted": 1, "metadata": "{}", **empty}
            rows = _table(schema, columns | {n: [v] * len(part) for n, v in fixed.items()})
            self._merge(table, rows, layout.MAKES_WAY, inserts=True)

    def delete(self, table: Table, deletions: Sequence[Deletion]) -> None:
        """Delete records that still have the version that is named."""
        self._delete(table, deletions, layout.IS_RECORD)

    def collect(self, table: Table, deletions: Sequence[Deletion]) -> None:
        """Delete tombstones that still have the version that is named."""
        self._delete(table, deletions, layout.IS_TOMBSTONE)

    def _delete(self, table: Table, deletions: Sequence[Deletion], kind: str) -> None:
        for part in _parts(deletions, layout.IDS_AT_ONCE):
            keys = (layout.version_key(one.version, one.vector_id, one.owner_id) for one in part)
            where = " AND ".join(
                (
                    layout.any_of("namespace", [self._namespace]),
                    kind,
                    layout.any_of("vector_id", (one.vector_id for one in part)),
                    layout.is_at_version(keys),
                )
            )
            with mapped_errors(self._location):
                committed(partial(table.delete, where))

    def _restamp(self, table: Table, records: Sequence[Record], dimension: int) -> None:
        """Write all but the vector, which is read, and must still be the stored one at the commit.

        A column alone cannot be replaced: LanceDB would rewrite it for whole files, and has shown
        no way to make that conditional on the row.
        """
        left = list(records)
        for _ in range(_RESTAMP_ATTEMPTS):
            kept = self._kept_vectors(table, left)
            left = [record for record in left if record.stamp.vector_id in kept]
            if not left:
                return
            vectors = [kept[record.stamp.vector_id] for record in left]
            rows = _rows(
                left, [one.vector for one in vectors], dimension, [one.version for one in vectors]
            )
            updated = self._merge(table, rows, layout.IS_STILL_ITS_VECTOR, inserts=False)
            if updated == len(left):  # else somebody wrote in between
                return

    def _kept_vectors(self, table: Table, records: Sequence[Record]) -> Mapping[str, _Kept]:
        """The vectors that *records* may keep, by vector_id."""
        stamps = {record.stamp.vector_id: record.stamp for record in records}
        kept = {}
        for part in layout.parts(list(stamps)):
            where = " AND ".join(
                (
                    layout.any_of("vector_id", part),
                    layout.any_of("namespace", [self._namespace]),
                    layout.IS_RECORD,
                    f"NOT {layout.IS_LOST}",
                )
            )
            columns = ("vector_id", "text_hash", "model", "version", layout.VECTOR)
            for batch in self._database.rows(table, where, columns):
                vectors = vectors_in(batch)
                ids, hashes, models, versions = (batch.column(n).to_pylist() for n in columns[:-1])
                for row, vector_id in enumerate(ids):
                    stamp, version = stamps[vector_id], versions[row] or 0
                    is_its = (hashes[row], models[row]) == (stamp.text_hash, stamp.model)
                    if is_its and version < stamp.version:
                        kept[vector_id] = _Kept(vectors[row], version)
        return kept

    def _merge(self, table: Table, rows: pa.Table, where: str, *, inserts: bool) -> int:
        """Replace the rows that *where* holds of; return how many were."""
        merge = table.merge_insert("vector_id").when_matched_update_all(where=where)
        if inserts:
            merge = merge.when_not_matched_insert_all()
        # An index on the key would be used, and then the commit names no inserted keys.
        merge = merge.use_index(False)
        has_vectors = rows.column(layout.VECTOR).null_count == 0
        # "null" would also make vectors of another dimension null, without a word.
        on_bad = "error" if has_vectors else "null"
        with mapped_errors(self._location):
            result = committed(lambda: merge.execute(rows, on_bad_vectors=on_bad, timeout=_SECONDS))
        return int(result.num_updated_rows)

    def _refuse_other_dimension(self, record: Record, dimension: int) -> None:
        assert record.embedding is not None
        if len(record.embedding) != dimension:
            raise WriteFailed(
                "The store refused a batch",
                why=f"its vectors have {len(record.embedding)} components, those of "
                f"{self._location} have {dimension}; nothing was written.",
                fix=ANOTHER_TABLE,
            )


def vectors_in(batch: pa.RecordBatch) -> Vectors:
    """The vectors of *batch*, one in a row; all of its records must have one."""
    column = batch.column(layout.VECTOR)
    values: Vectors = column.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(batch), column.type.list_size)


def _rows(
    records: Sequence[Record],
    vectors: Sequence[Vectors | None],
    dimension: int,
    replaces: Sequence[int] | None = None,
) -> pa.Table:
    columns: dict[str, Sequence[object]] = dict(
        zip(STAMP_COLUMNS, zip(*(record.stamp for record in records), strict=True), strict=True)
    )
    columns["text"] = [record.text for record in records]
    columns["metadata"] = [record.metadata_json for record in records]
    columns["deleted"] = [0] * len(records)
    if replaces is not None:
        columns["replaces"] = replaces
    flat = np.concatenate([np.asarray(vector, dtype=np.float32) for vector in vectors])
    embeddings = pa.FixedSizeListArray.from_arrays(pa.array(flat), dimension)
    return _table(layout.records_schema(dimension), columns, embeddings)


def _table(
    schema: pa.Schema,
    columns: Mapping[str, Sequence[object]],
    embeddings: pa.Array | None = None,
) -> pa.Table:
    """A table of *schema*; what is not in *columns* is null."""
    count = len(columns["vector_id"])
    arrays = [
        embeddings
        if field.name == layout.VECTOR and embeddings is not None
        else pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _parts(rows: Sequence[T], size: int = ROWS_AT_ONCE) -> Iterator[Sequence[T]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
