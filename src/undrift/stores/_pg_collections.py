"""What a PostgreSQL database holds of other programs' vectors. Reads only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple
from urllib.parse import quote

from psycopg import Connection, sql
from psycopg.rows import TupleRow

from undrift.postgres import connect, read_url
from undrift.stores._adopted import STAMP_KEY
from undrift.stores._pg_address import parse_address
from undrift.stores._pg_errors import mapped_errors
from undrift.stores.collections import CollectionSample, flattened

SAMPLE_CHARACTERS = 20_000_000
_VALUE_CHARACTERS = 20_100  # more of a text is never embedded
_MAX_TABLES = 50
_MAX_COLLECTIONS = 50

_TEXTS = ("text", "varchar", "bpchar")
_IDS = (*_TEXTS, "uuid")
_READABLE = (*_IDS, "int2", "int4", "int8")
_JSON = ("json", "jsonb")
_VECTORS = ("vector", "halfvec")
_OWN_COLUMNS = {"vector_id", "entity_id", "fingerprint", "text_hash"}

_WAIT_BRIEFLY = "SELECT set_config('lock_timeout', '5s', true)"
_TABLES = """
SELECT c.oid, n.nspname, c.relname,
       has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT'),
       row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%%'
  AND (%(schema)s::text IS NULL OR n.nspname = %(schema)s AND c.relname = %(table)s)
  AND EXISTS (
    SELECT FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      AND t.typname IN ('vector', 'halfvec'))
ORDER BY n.nspname <> 'public', n.nspname, c.relname
LIMIT %(limit)s"""
_COLUMNS = """
SELECT a.attname, t.typname, a.atttypmod
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum"""
_KEYS = """
SELECT a.attname
FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = %s AND i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL
ORDER BY NOT i.indisprimary, a.attname"""

# By its columns: the program that makes such tables.
_WRITERS: tuple[tuple[str, frozenset[str]], ...] = (
    ("LangChain", frozenset({"collection_id", "embedding", "document", "cmetadata"})),
    ("LangChain", frozenset({"langchain_id", "content", "embedding"})),
    ("LlamaIndex", frozenset({"text", "metadata_", "node_id", "embedding"})),
    ("Mastra", frozenset({"vector_id", "embedding", "metadata"})),
)
_NAMED_COLLECTIONS = "langchain_pg_collection"


class _Column(NamedTuple):
    name: str
    type: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A table with vectors that is not undrift's own."""

    oid: int
    schema: str
    name: str
    columns: Mapping[str, _Column]
    keys: Sequence[str]
    why_not: str = ""

    @property
    def identifier(self) -> sql.Identifier:
        return sql.Identifier(self.schema, self.name)

    @property
    def writer(self) -> str:
        names = set(self.columns)
        return next((writer for writer, columns in _WRITERS if columns <= names), "")

    def of_type(self, types: Sequence[str]) -> list[str]:
        return [column.name for column in self.columns.values() if column.type in types]


def sample_tables(url: str, limit: int) -> list[CollectionSample]:
    """A sample of every table with vectors that another program filled.

    LangChain keeps all its collections in one table; each is a sample of its own.

    Args:
        url: with ``?table=`` only that table.
        limit: records of each, at most.

    Raises:
        ConfigError: a malformed address, or a wrong login.
        StoreUnavailable: the server does not answer.
    """
    address = parse_address(url, schema="public")
    parsed = read_url(url, ["table", "search", "vectors"])
    assert parsed is not None, "parse_address has read it"
    is_named = "table" in parsed.own
    asked = address.table if is_named else None
    found: list[CollectionSample] = []
    with (
        mapped_errors(address, "read"),
        connect(address.conninfo) as connection,
        connection.transaction(),
    ):
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute(_WAIT_BRIEFLY)
        for table in list(_tables(connection, asked.names if asked else (None, None))):
            sample = CollectionSample(
                location=parsed.location(f"table={table.schema}.{table.name}"),
                url=_without_password(url, table),
                name=f"{table.schema}.{table.name}",
                parameter="" if is_named else _parameter(table),
                writer=table.writer,
                why_not=table.why_not,
            )
            found.extend(_samples(connection, table, sample, limit))
    return found


def _tables(
    connection: Connection[TupleRow], asked: tuple[str | None, str | None]
) -> Iterator[_Table]:
    parameters = {"schema": asked[0], "table": asked[1], "limit": _MAX_TABLES}
    for oid, schema, name, is_readable, hides_rows in connection.execute(_TABLES, parameters):
        columns = {row[0]: _Column(*row) for row in connection.execute(_COLUMNS, [oid])}
        if set(columns) >= _OWN_COLUMNS:
            continue
        keys = [key for (key,) in connection.execute(_KEYS, [oid])]
        why_not = "" if is_readable else "this role may not read it"
        if is_readable and hides_rows:
            why_not = "row level security hides rows of it from this role"
        yield _Table(oid=oid, schema=schema, name=name, columns=columns, keys=keys, why_not=why_not)


def _samples(
    connection: Connection[TupleRow], table: _Table, sample: CollectionSample, limit: int
) -> Iterator[CollectionSample]:
    if sample.why_not:
        yield sample
        return
    vectors = {name: _dimension(connection, table, name) for name in table.of_type(_VECTORS)}
    sample = replace(
        sample,
        vectors=vectors if len(vectors) > 1 else {},
        dimension=next(iter(vectors.values())),
        stamp_places=tuple(table.of_type(_JSON)),
    )
    collections = _collections(connection, table)
    if collections is None:
        yield _sampled(connection, table, sample, limit)
    for number, name in collections or ():
        yield _sampled(
            connection,
            table,
            replace(sample, name=name, fixed={"collection_id": number}),
            limit,
        )


def _collections(connection: Connection[TupleRow], table: _Table) -> list[tuple[str, str]] | None:
    """LangChain's collections in *table*, with their names; None where it is not LangChain's."""
    if "collection_id" not in table.columns or table.writer != "LangChain":
        return None
    names = sql.Identifier(table.schema, _NAMED_COLLECTIONS)
    (are_readable,) = connection.execute(
        "SELECT coalesce(has_table_privilege(to_regclass(%s), 'SELECT'), false)",
        [names.as_string(None)],
    ).fetchone() or (False,)
    statement = (
        sql.SQL("SELECT uuid::text, name FROM {names} ORDER BY name LIMIT {limit}")
        if are_readable
        else sql.SQL(
            "SELECT DISTINCT collection_id::text, collection_id::text FROM {table} "
            "WHERE collection_id IS NOT NULL ORDER BY 1 LIMIT {limit}"
        )
    )
    found = connection.execute(
        statement.format(names=names, table=table.identifier, limit=_MAX_COLLECTIONS)
    )
    return [(number, name) for number, name in found]


def _sampled(
    connection: Connection[TupleRow], table: _Table, sample: CollectionSample, limit: int
) -> CollectionSample:
    columns = [column for column in table.columns.values() if column.type in (*_READABLE, *_JSON)]
    conditions = [
        sql.SQL("{}::text = {}").format(sql.Identifier(name), value)
        for name, value in sample.fixed.items()
    ]
    statement = sql.SQL("SELECT {columns} FROM {table} WHERE {conditions} LIMIT {limit}").format(
        columns=sql.SQL(", ").join(map(_selected, columns)) if columns else sql.SQL("NULL"),
        table=table.identifier,
        conditions=sql.SQL(" AND ").join(conditions or [sql.SQL("true").format()]),
        limit=limit,
    )
    records: list[dict[str, str]] = []
    is_stamped, characters = False, 0
    with connection.cursor() as cursor:
        for row in cursor.stream(statement):
            values = {column.name: value for column, value in zip(columns, row, strict=False)}
            objects = {name: _object(values[name]) for name in table.of_type(_JSON)}
            is_stamped |= any(isinstance(found.get(STAMP_KEY), dict) for found in objects.values())
            shown = {
                name: v for name, v in {**values, **objects}.items() if name not in sample.fixed
            }
            records.append(flattened(shown))
            characters += sum(len(value) for value in row if value is not None)
            if characters > SAMPLE_CHARACTERS:
                break
    return _with_id(table, replace(sample, records=records, is_stamped=is_stamped))


def _selected(column: _Column) -> sql.Composed:
    name = sql.Identifier(column.name)
    if column.type in _JSON:
        return sql.SQL("{}::text").format(name)
    return sql.SQL("left({}::text, {})").format(name, _VALUE_CHARACTERS)


def _object(value: str | None) -> dict[str, object]:
    """The JSON object that a column holds; an empty one where it holds something else."""
    try:
        found = None if value is None else json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _with_id(table: _Table, sample: CollectionSample) -> CollectionSample:
    """*sample* with the column that tells its records apart, and with what it lacks."""
    unique = [key for key in table.keys if table.columns[key].type in _IDS]
    if not sample.stamp_places:
        return replace(
            sample,
            why_not="it has no column of JSON, in which undrift's stamp could lie; one can be "
            f"added: ALTER TABLE {table.identifier.as_string(None)} ADD COLUMN {STAMP_KEY} jsonb",
        )
    if unique:
        return replace(sample, record_id=unique[0])
    apart = [name for name in table.of_type(_IDS) if _tells_apart(name, sample.records)]
    if not apart:
        return replace(sample, why_not="no column of text or uuid tells its records apart")
    apart.sort(key=lambda name: (name != "node_id", not name.endswith("id")))
    return replace(sample, record_id=apart[0], id_is_usual=False)


def _tells_apart(name: str, records: Sequence[Mapping[str, str]]) -> bool:
    values = {record.get(name) for record in records}
    return None not in values and len(values) == len(records) and bool(records)


def _dimension(connection: Connection[TupleRow], table: _Table, vector: str) -> int | None:
    if table.columns[vector].size > 0:
        return table.columns[vector].size
    # The type's output is the same wherever the extension is installed.
    statement = sql.SQL("SELECT {0}::text FROM {1} WHERE {0} IS NOT NULL LIMIT 1")
    row = connection.execute(statement.format(sql.Identifier(vector), table.identifier)).fetchone()
    return None if row is None else str(row[0]).count(",") + 1


def _parameter(table: _Table) -> str:
    names = (quote(name, safe="") for name in (table.schema, table.name))
    return f"table={'.'.join(names)}"


def _without_password(url: str, table: _Table) -> str:
    """*url* with *table* and without any password."""
    scheme, _, rest = url.partition("://")
    credentials, at, place = rest.partition("@")
    if not at or "/" in credentials:  # libpq's rule
        credentials, at, place = "", "", rest
    base, _, query = place.partition("?")
    secret = ("table", "password", "sslpassword")
    kept = [one for one in query.split("&") if one and one.partition("=")[0] not in secret]
    user = credentials.partition(":")[0]
    return f"{scheme}://{user}{at}{base}?{'&'.join([*kept, _parameter(table)])}"
