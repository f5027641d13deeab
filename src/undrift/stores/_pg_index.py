"""The statements of the optional index on vectors, and what the catalogue says of it.

The index is built on the column, whose indexes end at 2,000 components of a ``vector`` and at
4,000 of a ``halfvec``. Of a ``vector`` with more it is built on the halves of each; a search over
them takes its scores from the whole vectors.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from psycopg import Connection, sql
from psycopg.rows import TupleRow

from undrift.search_index import IndexParameters, IndexProgress, IndexType
from undrift.stores._pg_address import HALF, WHOLE, Table, VectorType

VECTOR_COMPONENTS = 2_000
HALFVEC_COMPONENTS = 4_000

# pgvector's own.
DEFAULT_M = 16
DEFAULT_EF_CONSTRUCTION = 64
DEFAULT_LISTS = 100

# As pgvector's documentation advises.
_RECORDS_PER_LIST = 1_000
_ROOT_FROM_RECORDS = 1_000_000

_CREATE = """\
CREATE INDEX CONCURRENTLY {index} ON {table}
USING {method} ({expression} {operator_class}) WITH ({options})"""
_COMMENT = "COMMENT ON INDEX {index} IS {text}"
_BUILT_ON = "built on {} records"

_FIND = """
SELECT i.relname, a.amname, x.indisvalid, o.opcname, pg_relation_size(i.oid), i.reloptions,
       substring(obj_description(i.oid, 'pg_class') FROM '^built on ([0-9]{1,15}) records$')
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_am a ON a.oid = i.relam AND a.amname IN ('hnsw', 'ivfflat')
JOIN pg_opclass o ON o.oid = x.indclass[0]
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = %(schema)s AND t.relname = %(table)s AND x.indpred IS NULL
  AND o.opcname IN ('vector_cosine_ops', 'halfvec_cosine_ops')
ORDER BY i.relname = ANY(%(ours)s) DESC, x.indisvalid DESC, i.relname"""
_TABLE = """
SELECT t.oid, t.relkind = 'p', EXISTS (SELECT FROM pg_am WHERE amname = 'hnsw'),
       ARRAY(SELECT c.relname::text FROM pg_class c
             WHERE c.relnamespace = t.relnamespace AND c.relname = ANY(%(ours)s))
FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = %(schema)s AND t.relname = %(table)s"""

# To a role without the right to see another's work, its progress is a row of nulls.
_PROGRESS = """
SELECT phase, blocks_done, blocks_total, nullif(current_locker_pid, 0)
FROM pg_stat_progress_create_index
WHERE datname = current_database() AND relid = %s"""
# Every role sees the lock that a build holds from its first to its last moment, and that VACUUM
# and ANALYZE take as well.
_IS_HELD = """
SELECT EXISTS (
    SELECT FROM pg_locks
    WHERE locktype = 'relation' AND relation = %s AND mode = 'ShareUpdateExclusiveLock' AND granted
      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
      AND pid NOT IN (SELECT pid FROM pg_stat_progress_vacuum UNION ALL
                      SELECT pid FROM pg_stat_progress_analyze))"""


class FoundIndex(NamedTuple):
    """An index on vectors that the catalogue knows.

    Attributes:
        m: of hnsw alone, as is *ef_construction*.
        lists: of ivfflat alone.
        built_on_records: as the build wrote it down.
    """

    name: str
    type: IndexType
    is_valid: bool
    operator_class: str
    size_bytes: int
    m: int | None = None
    ef_construction: int | None = None
    lists: int | None = None
    built_on_records: int | None = None

    def is_as(self, parameters: IndexParameters) -> bool:
        """Whether it was built with *parameters*; lists that are not given are as they are."""
        if self.type is not parameters.type:
            return False
        if self.type is IndexType.IVFFLAT:
            return parameters.lists in (None, self.lists)
        return (self.m, self.ef_construction) == (
            parameters.m or DEFAULT_M,
            parameters.ef_construction or DEFAULT_EF_CONSTRUCTION,
        )

    @property
    def parameters(self) -> str:
        """Its own, for people."""
        if self.type is IndexType.IVFFLAT:
            return f"lists = {self.lists}"
        return f"m = {self.m} and ef_construction = {self.ef_construction}"


class FoundTable(NamedTuple):
    """The table, as far as an index is concerned.

    Attributes:
        can_be_indexed: pgvector is new enough to have HNSW indexes.
        names_taken: those of our indexes' names that something has.
    """

    oid: int
    is_partitioned: bool
    can_be_indexed: bool
    names_taken: list[str]


class Indexed(NamedTuple):
    """What is indexed, and by which operator class."""

    type: VectorType
    dimension: int
    is_column: bool

    @property
    def operator_class(self) -> str:
        """The cosine distance of that type."""
        return f"{self.type}_cosine_ops"

    def of(self, value: sql.Composable, vector_schema: str) -> sql.Composable:
        """*value*, of the column's type, as what is indexed."""
        if self.is_column:
            return value
        return sql.SQL("({}::{}({}))").format(
            value, sql.Identifier(vector_schema, self.type), sql.Literal(self.dimension)
        )


def indexed_of(column: VectorType, dimension: int) -> Indexed:
    """What an index over a column of *dimension* components is made of."""
    kind = WHOLE if column == WHOLE and dimension <= VECTOR_COMPONENTS else HALF
    return Indexed(kind, dimension, is_column=kind == column)


def lists_for(records: int) -> int:
    """The lists that an ivfflat index over so many records should have."""
    if records <= _ROOT_FROM_RECORDS:
        return max(1, round(records / _RECORDS_PER_LIST))
    return math.isqrt(records)


def create_statements(
    table: Table,
    indexed: Indexed,
    parameters: IndexParameters,
    *,
    records: int,
    vector_schema: str,
) -> list[sql.Composed]:
    """The statements that build our index.

    Args:
        records: how many there are in the table, from which ivfflat learns.
    """
    name = table.search_index_name(parameters.type)
    create = sql.SQL(_CREATE).format(
        index=sql.Identifier(name),
        table=table.identifier,
        method=sql.SQL(parameters.type.value),
        expression=indexed.of(sql.Identifier("embedding"), vector_schema),
        operator_class=sql.Identifier(vector_schema, indexed.operator_class),
        options=_options(parameters, records),
    )
    # What tells the planner how many records each owner has; else it takes the index for none.
    analyze = sql.SQL("ANALYZE {}").format(table.identifier)
    if parameters.type is IndexType.HNSW:
        return [create, analyze]
    comment = sql.SQL(_COMMENT).format(
        index=sql.Identifier(table.schema, name), text=sql.Literal(_BUILT_ON.format(records))
    )
    return [create, comment, analyze]


def drop_statement(table: Table, name: str) -> sql.Composed:
    """The statement that removes the index *name* while the table is in use."""
    index = sql.Identifier(table.schema, name)
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index)


def found_table(connection: Connection[TupleRow], table: Table) -> FoundTable | None:
    """What the catalogue says of *table*; None if it is not there."""
    row = connection.execute(_TABLE, _names(table)).fetchone()
    return None if row is None else FoundTable(*row)


def found_indexes(connection: Connection[TupleRow], table: Table) -> list[FoundIndex]:
    """Every approximate index over cosine distances of *table*, ours first."""
    return [_found_index(row) for row in connection.execute(_FIND, _names(table))]


def found_progress(connection: Connection[TupleRow], oid: int) -> IndexProgress | None:
    """How far a build on the table *oid* is; None if none is shown to this role."""
    row = connection.execute(_PROGRESS, [oid]).fetchone()
    if row is None:
        return None
    phase, done, total, waits_for = row
    # While it waits, the figures are those of the phase before.
    percent = round(100 * done / total, 1) if total and waits_for is None else None
    return IndexProgress(phase=phase, percent=percent, waits_for=waits_for)


def is_being_built(connection: Connection[TupleRow], oid: int) -> bool:
    """Whether somebody, of whatever role, builds an index on the table *oid*."""
    row = connection.execute(_IS_HELD, [oid]).fetchone()
    return row is not None and bool(row[0])


def _found_index(row: TupleRow) -> FoundIndex:
    name, method, is_valid, operator_class, size_bytes, options, built_on = row
    given: dict[str, str] = dict(option.split("=", 1) for option in options or ())
    found = FoundIndex(name, IndexType(method), is_valid, operator_class, size_bytes)
    if found.type is IndexType.IVFFLAT:
        return found._replace(
            lists=int(given.get("lists", DEFAULT_LISTS)),
            built_on_records=None if built_on is None else int(built_on),
        )
    return found._replace(
        m=int(given.get("m", DEFAULT_M)),
        ef_construction=int(given.get("ef_construction", DEFAULT_EF_CONSTRUCTION)),
    )


def _options(parameters: IndexParameters, records: int) -> sql.Composed:
    if parameters.type is IndexType.IVFFLAT:
        lists = parameters.lists or lists_for(records)
        return sql.SQL("lists = {}").format(sql.Literal(lists))
    return sql.SQL("m = {}, ef_construction = {}").format(
        sql.Literal(parameters.m or DEFAULT_M),
        sql.Literal(parameters.ef_construction or DEFAULT_EF_CONSTRUCTION),
    )


def _names(table: Table) -> dict[str, object]:
    return {"schema": table.schema, "table": table.name, "ours": table.search_index_names}
