"""The statements of the optional HNSW index on vectors, and what the catalogue says of it.

The index is built on ``vector``, whose indexes end at 2,000 components, and above that on
``halfvec``, whose indexes end at 4,000; a search over halves takes its scores from the whole
vectors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from psycopg import Connection, sql
from psycopg.rows import TupleRow

from undrift.errors import ConfigError, UndriftError, UnsupportedError
from undrift.search_index import IndexParameters, IndexProgress
from undrift.stores._pg_address import Address, Table

VECTOR_COMPONENTS = 2_000
HALFVEC_COMPONENTS = 4_000

_LINKS = range(2, 101)
_CANDIDATES = range(4, 1_001)
_MEMORY = re.compile(r"([1-9][0-9]{0,9}) ?(kB|MB|GB|TB)")
_KILOBYTES = {"kB": 1, "MB": 2**10, "GB": 2**20, "TB": 2**30}
_SERVER_KILOBYTES = range(2**10, 2**31)  # what every supported server takes

_CREATE = """\
CREATE INDEX CONCURRENTLY {index} ON {table}
USING hnsw ({expression} {operator_class}) WITH (m = {m}, ef_construction = {ef_construction})"""

_FIND = """
SELECT i.relname, x.indisvalid, o.opcname, pg_relation_size(i.oid), i.reloptions
FROM pg_index x
JOIN pg_class i ON i.oid = x.indexrelid
JOIN pg_am a ON a.oid = i.relam AND a.amname = 'hnsw'
JOIN pg_opclass o ON o.oid = x.indclass[0]
JOIN pg_class t ON t.oid = x.indrelid
JOIN pg_namespace n ON n.oid = t.relnamespace
WHERE n.nspname = %(schema)s AND t.relname = %(table)s AND x.indpred IS NULL
  AND o.opcname IN ('vector_cosine_ops', 'halfvec_cosine_ops')
ORDER BY i.relname = %(ours)s DESC, x.indisvalid DESC, i.relname"""
_TABLE = """
SELECT t.oid, t.relkind = 'p', EXISTS (SELECT FROM pg_am WHERE amname = 'hnsw'),
       EXISTS (SELECT FROM pg_class c WHERE c.relnamespace = t.relnamespace
               AND c.relname = %(ours)s)
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


# As far as an index goes: fewer candidates found 44 % of the nearest of random vectors at 40 and
# 97 % at 400, and owners for whom less would do are searched exactly. Sorting comes afterwards.
_SEARCH_SETTINGS = {"hnsw.ef_search": "1000", "hnsw.iterative_scan": "relaxed_order"}
# Before the library is loaded PostgreSQL takes any value under any name, and a version that lacks
# a setting refuses it: only what the library has declared is in pg_settings, and is set.
_SET = """
SELECT name, set_config(name, value, true)
FROM pg_settings
JOIN (VALUES ('hnsw.ef_search', '1000'), ('hnsw.iterative_scan', 'relaxed_order'))
     AS wanted (wanted_name, value) ON wanted_name = name"""


class FoundIndex(NamedTuple):
    """An index on vectors that the catalogue knows."""

    name: str
    is_valid: bool
    operator_class: str
    size_bytes: int
    m: int
    ef_construction: int


class FoundTable(NamedTuple):
    """The table, as far as an index is concerned.

    Attributes:
        can_be_indexed: pgvector is new enough to have HNSW indexes.
        is_name_taken: something has the name of our index.
    """

    oid: int
    is_partitioned: bool
    can_be_indexed: bool
    is_name_taken: bool


class Expression(NamedTuple):
    """What is indexed, and by which operator class."""

    type: str
    dimension: int
    operator_class: str

    def of(self, value: sql.Composable, vector_schema: str) -> sql.Composable:
        """*value*, a vector, as what is indexed."""
        if self.type == "vector":
            return value
        return sql.SQL("({}::{}({}))").format(
            value, sql.Identifier(vector_schema, self.type), sql.Literal(self.dimension)
        )


def expression_for(dimension: int) -> Expression:
    """What an index over vectors of *dimension* components is made of."""
    kind = "vector" if dimension <= VECTOR_COMPONENTS else "halfvec"
    return Expression(kind, dimension, f"{kind}_cosine_ops")


def require_sensible(parameters: IndexParameters) -> None:
    """Refuse what the server would refuse, in words that name the option.

    Raises:
        ConfigError: a parameter is out of range.
    """
    if parameters.m not in _LINKS:
        raise _out_of_range("--m", parameters.m, f"{_LINKS[0]} to {_LINKS[-1]}")
    if parameters.ef_construction not in _CANDIDATES:
        found, allowed = parameters.ef_construction, f"{_CANDIDATES[0]} to {_CANDIDATES[-1]}"
        raise _out_of_range("--ef-construction", found, allowed)
    if parameters.ef_construction < 2 * parameters.m:
        raise _out_of_range(
            "--ef-construction",
            parameters.ef_construction,
            f"at least twice --m, which is {parameters.m}",
        )
    memory = parameters.maintenance_work_mem
    if memory is not None:
        parts = _MEMORY.fullmatch(memory)
        if parts is None or int(parts[1]) * _KILOBYTES[parts[2]] not in _SERVER_KILOBYTES:
            allowed = "a number and kB, MB, GB or TB, from 1MB to less than 2TB"
            raise _out_of_range("--maintenance-work-mem", memory, allowed)


def require_indexable(address: Address, found: FoundTable | None, dimension: int) -> None:
    """Refuse to index what cannot be indexed.

    Raises:
        ConfigError: pgvector is too old, or the vectors have too many components.
        UnsupportedError: the table is partitioned.
    """
    if found is not None and found.is_partitioned:
        raise UnsupportedError(
            "A partitioned table cannot be indexed while it is in use",
            why=f"{address.table} in {address.location} has partitions, and PostgreSQL builds an "
            "index CONCURRENTLY on each of them only.",
            fix="run CREATE INDEX CONCURRENTLY on every partition, as "
            "`undrift index build --sql` prints it for the table",
        )
    if found is not None and not found.can_be_indexed:
        raise ConfigError(
            "The server's pgvector has no HNSW indexes",
            why=f"{address.location} has a version older than 0.5.0.",
            fix="update it, and let its administrator run: ALTER EXTENSION vector UPDATE",
        )
    if not 1 <= dimension <= HALFVEC_COMPONENTS:
        raise ConfigError(
            "The vectors cannot be indexed",
            why=f"the column embedding of {address.table} in {address.location} "
            + (f"holds {dimension} components" if dimension else "has no fixed dimension")
            + f", and an index takes at most {HALFVEC_COMPONENTS}.",
            fix="search exactly, which needs no index, or embed with a model of fewer dimensions",
        )


def create_statement(
    table: Table, dimension: int, parameters: IndexParameters, vector_schema: str
) -> sql.Composed:
    """The statement that builds our index."""
    expression = expression_for(dimension)
    return sql.SQL(_CREATE).format(
        index=sql.Identifier(table.search_index_name),
        table=table.identifier,
        expression=expression.of(sql.Identifier("embedding"), vector_schema),
        operator_class=sql.Identifier(vector_schema, expression.operator_class),
        m=sql.Literal(parameters.m),
        ef_construction=sql.Literal(parameters.ef_construction),
    )


def analyze_statement(table: Table) -> sql.Composed:
    """What tells the planner how many records each owner has; else it takes the index for none."""
    return sql.SQL("ANALYZE {}").format(table.identifier)


def drop_statement(table: Table, name: str) -> sql.Composed:
    """The statement that removes the index *name* while the table is in use."""
    index = sql.Identifier(table.schema, name)
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index)


def found_table(connection: Connection[TupleRow], table: Table) -> FoundTable | None:
    """What the catalogue says of *table*; None if it is not there."""
    row = connection.execute(_TABLE, _names(table)).fetchone()
    return None if row is None else FoundTable(*row)


def found_indexes(connection: Connection[TupleRow], table: Table) -> list[FoundIndex]:
    """Every HNSW index over cosine distances of *table*, ours first."""
    found: list[FoundIndex] = []
    for *columns, options in connection.execute(_FIND, _names(table)):
        given: dict[str, str] = dict(option.split("=", 1) for option in options or ())
        m, ef_construction = given.get("m", "16"), given.get("ef_construction", "64")
        name, is_valid, operator_class, size_bytes = columns
        found.append(
            FoundIndex(
                name=name,
                is_valid=is_valid,
                operator_class=operator_class,
                size_bytes=size_bytes,
                m=int(m),
                ef_construction=int(ef_construction),
            )
        )
    return found


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


def ask_index(
    connection: Connection[TupleRow],
    is_large: bytes,
    query: sql.Composed,
    parameters: Mapping[str, object],
) -> Sequence[TupleRow] | None:
    """What the index finds for *query*; None where an exact search is to answer.

    The settings end with the transaction, so that the connection, or the server session that a
    pooler lends, stays as it was.
    """
    with connection.transaction():
        ((has_many,),) = connection.execute(is_large, parameters).fetchall()
        if not has_many:
            return None
        if dict(connection.execute(_SET).fetchall()) != _SEARCH_SETTINGS:
            return None
        return connection.execute(query, parameters).fetchall()


def foreign_index(address: Address, name: str) -> UndriftError:
    """The error where another's index would be in the way."""
    drop = drop_statement(address.table, name).as_string(None)
    return ConfigError(
        "The vectors have an index already",
        why=f"{name} on {address.table} in {address.location} is not one that undrift built, and "
        "is left alone; searches can use it as it is.",
        fix=f"leave it, or drop it and build again: {drop}",
    )


def other_index(address: Address, found: FoundIndex) -> UndriftError:
    """The error where our index is there with other parameters."""
    drop = drop_statement(address.table, found.name).as_string(None)
    return ConfigError(
        "The vectors have an index with other parameters",
        why=f"{found.name} on {address.table} in {address.location} was built with m = {found.m} "
        f"and ef_construction = {found.ef_construction}, and is in use.",
        fix=f"drop it and build again: {drop}",
    )


def name_taken(address: Address) -> UndriftError:
    """The error where something else has our index's name."""
    name = sql.Identifier(address.table.schema, address.table.search_index_name).as_string(None)
    return ConfigError(
        "The name of the index is taken",
        why=f"{name} in {address.location} is something else than an HNSW index on the vectors' "
        "cosine distance.",
        fix="rename or drop it, or build an index under another name with the statement that "
        "`undrift index build --sql` prints",
    )


def _names(table: Table) -> dict[str, str]:
    return {"schema": table.schema, "table": table.name, "ours": table.search_index_name}


def _out_of_range(option: str, found: object, allowed: str) -> ConfigError:
    return ConfigError(
        f"{option} is out of range",
        why=f"{found} was given, and it takes {allowed}.",
        fix=f"give another {option}, or leave it out",
    )
