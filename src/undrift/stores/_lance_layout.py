"""The LanceDB store's tables, and its conditions in SQL. Lists of ids are cut into parts.

Two things of the layout carry the promises:

- ``vector_id`` is marked as the primary key. LanceDB does not enforce it, but only where it is
  marked does a commit name the keys that it inserts, so that of two writers that insert the same
  new one, the second is made to look again. Without the mark both rows stay (measured: 800
  duplicates in 40 rounds of four processes; with it none).
- ``replaces`` holds, in a write that keeps the vector, the version that the vector was read with.
  The write applies only where that is still the stored one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from undrift.stores._records import STAMP_COLUMNS

PRIMARY_KEY = {b"lance-schema:unenforced-primary-key": b"true"}

OWNER = "owner_id"
VECTOR = "embedding"
TEXTS = ("text", "metadata")

IDS_AT_ONCE = 5_000
"""Ids in one condition; 40,000 at once were no quicker, and took 330 MB instead of 40."""

_STRING = pa.string()
_COLUMNS = {
    **dict.fromkeys(STAMP_COLUMNS, _STRING),
    "version": pa.int64(),
    "deleted": pa.int8(),
    "replaces": pa.int64(),
    **dict.fromkeys(TEXTS, _STRING),
}
CLAIM_COLUMNS = ("source", "state_id", "epoch")


def records_schema(dimension: int) -> pa.Schema:
    """The table of the records."""
    fields = [pa.field(name, kind) for name, kind in _COLUMNS.items() if name != "vector_id"]
    return pa.schema(
        [_key("vector_id"), *fields, pa.field(VECTOR, pa.list_(pa.float32(), dimension))]
    )


CLAIMS_SCHEMA = pa.schema(
    [
        pa.field("namespace", _STRING, nullable=False, metadata=PRIMARY_KEY),
        pa.field("source", _STRING),
        pa.field("state_id", _STRING),
        pa.field("epoch", pa.int64()),
    ]
)


def why_unusable(schema: pa.Schema) -> str:
    """Why a table of *schema* cannot hold the records; empty if it can."""
    missing = [name for name in (*_COLUMNS, VECTOR) if name not in schema.names]
    if missing:
        return f"it lacks the columns {', '.join(missing)}"
    wrong = [name for name, kind in _COLUMNS.items() if schema.field(name).type != kind]
    if wrong:
        return "the type of " + ", ".join(
            f"{name} is {schema.field(name).type}, not {_COLUMNS[name]}" for name in wrong
        )
    vector = schema.field(VECTOR).type
    if not pa.types.is_fixed_size_list(vector) or vector.value_type != pa.float32():
        return f"{VECTOR} is {vector}, not a list of float32 of a fixed size"
    marks = schema.field("vector_id").metadata or {}
    if not PRIMARY_KEY.items() <= marks.items():
        return "vector_id is not marked as its primary key, so that two writers could double it"
    return ""


def dimension_of(schema: pa.Schema) -> int:
    """Components of a vector."""
    return int(schema.field(VECTOR).type.list_size)


def ddl(schema: pa.Schema, table: str) -> str:
    """The table, for people."""
    columns = ", ".join(
        f"{field.name} {field.type}" + (" primary key (unenforced)" if not field.nullable else "")
        for field in schema
    )
    return f"create table {table} ({columns})"


# --- conditions

IS_RECORD = "(deleted IS NULL OR deleted <> 1)"
IS_TOMBSTONE = "deleted = 1"

IS_LOST = f"{VECTOR} IS NULL"
"""Whether a record has lost its vector. To tell, LanceDB reads the vectors, and it keeps nothing
else that says so: half of what an enumeration of everything takes."""

# Functions are no part of the language of these conditions, and no "is distinct from" is.
_NAMES_ANOTHER = " OR ".join(
    f"target.{name} IS NULL OR target.{name} <> source.{name}"
    for name in ("owner_id", "kind", "entity_id")
)
MAKES_WAY = (
    "target.namespace = source.namespace AND (target.version IS NULL "
    f"OR target.version < source.version OR (target.deleted = 1 AND ({_NAMES_ANOTHER})))"
)
"""Where a write or a tombstone replaces what lies under its vector_id. A tombstone that names
another entity than its vector_id follows from is damaged, and keeps nothing out."""

IS_STILL_ITS_VECTOR = (
    "target.namespace = source.namespace AND (target.deleted IS NULL OR target.deleted <> 1) "
    "AND target.text_hash = source.text_hash AND target.model = source.model "
    "AND (target.version = source.replaces OR (target.version IS NULL AND source.replaces = 0))"
)
"""Where a write that keeps the vector applies."""


def quoted(value: str) -> str:
    """*value* in SQL; a backslash means nothing there."""
    return "'" + value.replace("'", "''") + "'"


def any_of(column: str, values: Iterable[str]) -> str:
    """Where *column* is one of *values*."""
    return f"{column} IN ({','.join(map(quoted, values))})"


def parts(values: Sequence[str]) -> Iterator[Sequence[str]]:
    """*values* in parts of what one condition may hold, each value once."""
    distinct = list(dict.fromkeys(values))
    for start in range(0, len(distinct), IDS_AT_ONCE):
        yield distinct[start : start + IDS_AT_ONCE]


def _key(name: str) -> pa.Field:
    return pa.field(name, _STRING, nullable=False, metadata=PRIMARY_KEY)


def is_at_version(keys: Iterable[str]) -> str:
    """Where owner, vector_id and version are those of one of *keys*, made by `version_key`."""
    return any_of(
        "concat(CAST(coalesce(version, 0) AS string), ' ', vector_id, ' ', owner_id)", keys
    )


def version_key(version: int, vector_id: str, owner_id: str) -> str:
    """What a row's columns make together; two rows of one vector_id differ in it."""
    return f"{version} {vector_id} {owner_id}"
