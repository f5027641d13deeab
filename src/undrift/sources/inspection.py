"""What a database holds: its tables, and samples of them. Read only; nothing is configured yet."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from undrift.sources.database import Database, condition
from undrift.sources.owners import Verbatim

SAMPLE_ROWS = 200
SAMPLE_CHARACTERS = 20_000_000
"""A sample ends here too: two hundred documents may be of any size."""

LOCK_SECONDS = 5
"""How long a look waits for a table that somebody alters."""

_WAIT_BRIEFLY = sa.text(f"SELECT set_config('lock_timeout', '{LOCK_SECONDS}s', true)")

# The store's own tables, and what it may keep beside them, are no source.
_STORE_COLUMNS = {"vector_id", "entity_id", "fingerprint", "text_hash"}
_STORE_EMBEDDINGS = {"vector_id", "embedding"}

# Nor are the tables in which LangChain, LlamaIndex and Mastra keep vectors.
_COLLECTIONS = (
    {"collection_id", "embedding", "document", "cmetadata"},
    {"langchain_id", "content", "embedding"},
    {"uuid", "name", "cmetadata"},
    {"node_id", "text", "metadata_", "embedding"},
    {"vector_id", "embedding", "metadata"},
)

_FACTS = sa.text("""
SELECT n.nspname, c.relname, c.reltuples::bigint AS rows,
       has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
           AS is_readable,
       row_security_active(c.oid) AS hides_rows
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
  AND n.nspname NOT IN ('information_schema', 'undrift') AND n.nspname NOT LIKE 'pg\\_%'
  AND NOT c.relispartition
ORDER BY n.nspname, c.relname""")


class Type(StrEnum):
    """What a column may hold, as far as its declaration tells."""

    JSON = "json"
    TEXT = "text"
    NUMBER = "number"
    TIME = "time"
    FLAG = "flag"
    OTHER = "other"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundColumn:
    """A column as the database describes it."""

    name: str
    type: Type
    is_nullable: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTable:
    """A table or view as the database describes it.

    Attributes:
        name: as a mapping writes it, ``table`` or ``schema.table``.
        references: the table that each single-column foreign key points at, by column.
        rows: an estimate; None where the database has none.
        why_not: why it cannot be read; empty where it can.
    """

    name: str
    columns: tuple[FoundColumn, ...]
    primary_key: tuple[str, ...] = ()
    references: Mapping[str, str]
    rows: int | None = None
    why_not: str = ""

    @property
    def column_names(self) -> tuple[str, ...]:
        """Its columns, in their order."""
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> FoundColumn | None:
        """The column of that name, if there is one."""
        return next((column for column in self.columns if column.name == name), None)


class _Fact(NamedTuple):
    rows: int | None = None
    why_not: str = ""


def inspect_tables(database: Database) -> list[FoundTable]:
    """Every table and view that a mapping can name, in the default schema first.

    Raises:
        ConfigError: the address or the login is wrong.
        SourceUnavailable: the database cannot be reached.
    """
    with brief_snapshot(database) as connection, warnings.catch_warnings():
        # Columns of types SQLAlchemy does not know, such as vectors, are not ours.
        warnings.simplefilter("ignore", sa.exc.SAWarning)
        inspector = sa.inspect(connection)
        default = inspector.default_schema_name or ""
        if not database.is_postgres:
            names = [*inspector.get_table_names(), *inspector.get_view_names()]
            found = [_described(inspector, None, name, _Fact()) for name in names]
        else:
            facts = _facts(connection)
            places = sorted(facts, key=lambda place: (place[0] != default, place))
            found = [
                _described(inspector, None if schema == default else schema, name, fact)
                for (schema, name), fact in ((place, facts[place]) for place in places)
            ]
    return [table for table in found if table is not None]


def sample_rows(
    database: Database, table: str, columns: Sequence[str], *, where: str = ""
) -> list[tuple[object, ...]]:
    """Some rows of *table*, JSON as its text, at most `SAMPLE_ROWS`.

    Raises:
        ConfigError: there is no such table or column, or the role may not read it.
        IncompleteRead: a policy hides rows from this role.
        SourceUnavailable: the read broke off.
    """
    schema, _, name = table.rpartition(".")
    # Whatever their types: a value that fails to convert must not end the look.
    source = sa.table(name, *(sa.column(column) for column in columns), schema=schema or None)
    selected = [_selected(source.c[column], database) for column in columns]
    statement = sa.select(*selected).where(*condition(where)).limit(SAMPLE_ROWS)
    rows: list[tuple[object, ...]] = []
    characters = 0
    with brief_snapshot(database) as connection:
        for row in database.stream(connection, statement):
            rows.append(tuple(row))
            characters += sum(len(value) for value in row if isinstance(value, str | bytes))
            if characters > SAMPLE_CHARACTERS:
                break
    return rows


def columns_of_words(database: Database, table: sa.Table) -> list[str]:
    """The columns of *table* that may hold words, as far as their types tell."""
    types = (Type.TEXT,) if database.is_postgres else (Type.TEXT, Type.OTHER)
    return [name for name, column in table.c.items() if _type_of(column.type) in types]


def parsed(raw: object) -> object:
    """The JSON value that *raw* holds; *raw* itself if it is none."""
    if not isinstance(raw, str | bytes):
        return raw
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return raw


@contextmanager
def brief_snapshot(database: Database) -> Iterator[Connection]:
    """A snapshot that does not wait long for locks."""
    with database.snapshot() as connection:
        if database.is_postgres:
            connection.execute(_WAIT_BRIEFLY)
        yield connection


def _facts(connection: Connection) -> dict[tuple[str, str], _Fact]:
    facts = {}
    for row in connection.execute(_FACTS):
        why_not = ""
        if not row.is_readable:
            why_not = "this role may not read it"
        elif row.hides_rows:
            why_not = "row level security hides rows of it from this role"
        # A table that was never analysed has -1 rows.
        facts[row.nspname, row.relname] = _Fact(row.rows if row.rows >= 0 else None, why_not)
    return facts


def _described(
    inspector: sa.Inspector, schema: str | None, name: str, fact: _Fact
) -> FoundTable | None:
    """The table, or None where it is not a source's or cannot be named."""
    if "." in name or not _is_text(name):
        return None
    try:
        described = inspector.get_columns(name, schema=schema)
        key = inspector.get_pk_constraint(name, schema=schema)["constrained_columns"]
        references = inspector.get_foreign_keys(name, schema=schema)
    except (sa.exc.NoSuchTableError, sa.exc.OperationalError):
        return None  # dropped meanwhile, or a view over what is gone
    columns = tuple(
        FoundColumn(
            name=column["name"],
            type=_type_of(column["type"]),
            is_nullable=bool(column["nullable"]) and column["name"] not in key,
        )
        for column in described
        if _is_text(column["name"])
    )
    names = {column.name for column in columns}
    if not columns or names >= _STORE_COLUMNS or names == _STORE_EMBEDDINGS:
        return None
    if any(names >= collection for collection in _COLLECTIONS):
        return None
    return FoundTable(
        name=f"{schema}.{name}" if schema else name,
        columns=columns,
        primary_key=tuple(key),
        references={
            reference["constrained_columns"][0]: reference["referred_table"]
            for reference in references
            if len(reference["constrained_columns"]) == 1
        },
        rows=fact.rows,
        why_not=fact.why_not,
    )


def _is_text(name: str) -> bool:
    """Whether a file can hold *name*: SQLite knows names that are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return "\x00" not in name


def _type_of(declared: sa.types.TypeEngine[Any]) -> Type:
    for type_, classes in _TYPES.items():
        if isinstance(declared, classes):
            return type_
    return Type.OTHER


_TYPES: Mapping[Type, tuple[type[sa.types.TypeEngine[Any]], ...]] = {
    Type.JSON: (sa.JSON,),
    Type.FLAG: (sa.Boolean,),
    Type.TEXT: (sa.String, sa.Enum),
    Type.NUMBER: (sa.Integer, sa.Numeric),
    Type.TIME: (sa.Date, sa.DateTime, sa.Time, sa.Interval),
}


def _selected(column: sa.ColumnClause[Any], database: Database) -> sa.ColumnElement[Any]:
    if database.is_postgres:
        return sa.cast(column, sa.Text).label(column.name)
    return sa.type_coerce(column, Verbatim()).label(column.name)
