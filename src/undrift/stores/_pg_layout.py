"""The table of the pgvector store: how it is created, and whether the one found is it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from psycopg import Connection, sql
from psycopg.rows import TupleRow

from undrift.errors import ConfigError
from undrift.stores._pg_address import HALF, WHOLE, Address, Table, VectorType

CREATE_EXTENSION = sql.SQL("CREATE EXTENSION IF NOT EXISTS vector")

_CREATE_SCHEMA = sql.SQL("CREATE SCHEMA IF NOT EXISTS {schema}")

# Owners sort by code point, as they do everywhere in undrift; a tombstone has no embedding.
_CREATE_TABLE = sql.SQL("""\
CREATE TABLE IF NOT EXISTS {table} (
    vector_id uuid PRIMARY KEY,
    namespace text,
    owner_id text COLLATE "C" NOT NULL,
    kind text,
    entity_id text,
    fingerprint text,
    text_hash text,
    model text,
    version bigint,
    deleted smallint DEFAULT 0,
    deleted_at timestamptz,
    text text,
    metadata jsonb,
    embedding {vector}({dimension})
)""")

# Enumeration reads stamps from the index alone. Tables of before have `deleted` in no index; there
# it is read from the table.
_CREATE_INDEX = sql.SQL("""\
CREATE INDEX IF NOT EXISTS {index} ON {table} (owner_id, namespace)
INCLUDE (kind, entity_id, fingerprint, text_hash, model, version, vector_id, deleted)""")

# Which records have lost their vectors: hardly any, so it stays small.
_CREATE_LOST_INDEX = sql.SQL("""\
CREATE INDEX IF NOT EXISTS {index} ON {table} (owner_id) INCLUDE (vector_id)
WHERE embedding IS NULL AND deleted IS DISTINCT FROM 1""")

_CREATE_BURIED_INDEX = sql.SQL("""\
CREATE INDEX IF NOT EXISTS {index} ON {table} (owner_id, namespace)
INCLUDE (kind, entity_id, version, vector_id)
WHERE deleted = 1""")

# One for all stores of a schema: a claim goes with the table's name.
_CREATE_CLAIMS = sql.SQL("""\
CREATE TABLE IF NOT EXISTS {claims} (
    vectors text,
    namespace text,
    source text NOT NULL,
    state_id text NOT NULL,
    epoch bigint NOT NULL,
    PRIMARY KEY (vectors, namespace)
)""")

_COLUMN_TYPES = {
    "vector_id": "uuid",
    "namespace": "text",
    "owner_id": "text",
    "kind": "text",
    "entity_id": "text",
    "fingerprint": "text",
    "text_hash": "text",
    "model": "text",
    "version": "int8",
    "deleted": "int2",
    "deleted_at": "timestamptz",
    "text": "text",
    "metadata": "jsonb",
}

# The catalogue, unlike to_regclass(), shows to every role what there is.
_FIND_TABLE = """
SELECT c.oid, c.relkind IN ('r', 'p'), row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s"""
_FIND_COLUMNS = """
SELECT a.attname, t.typname, a.atttypmod
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped"""
_FIND_VECTORS = """
SELECT t.typname
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid JOIN pg_type t ON t.oid = a.atttypid
WHERE n.nspname = %s AND c.relname = %s AND a.attname = 'embedding' AND NOT a.attisdropped"""
_HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)"
_HAS_EXTENSION = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'vector')"


class Layout(NamedTuple):
    """What is known of the table.

    Attributes:
        dimension: its vectors', if they have one.
        vectors: how they are stored, None where there is no table.
    """

    exists: bool
    dimension: int | None = None
    vectors: VectorType | None = None


def ddl(
    address: Address, dimension: int, *, vector_schema: str | None = None
) -> tuple[sql.Composed, ...]:
    """The statements that create the table of *address*, its schema and its indexes.

    Args:
        vector_schema: where pgvector is installed, if that is known; None leaves it to the role's
            search path.
    """
    table, kind = address.table, address.vectors or WHOLE
    vector = sql.Identifier(vector_schema, kind) if vector_schema else sql.SQL(kind)
    return (
        _CREATE_SCHEMA.format(schema=sql.Identifier(table.schema)),
        _CREATE_TABLE.format(
            table=table.identifier, vector=vector, dimension=sql.Literal(dimension)
        ),
        _CREATE_INDEX.format(index=sql.Identifier(table.index_name), table=table.identifier),
        _CREATE_LOST_INDEX.format(
            index=sql.Identifier(table.lost_index_name), table=table.identifier
        ),
        _CREATE_BURIED_INDEX.format(
            index=sql.Identifier(table.buried_index_name), table=table.identifier
        ),
        claims_ddl(table),
    )


def claims_ddl(table: Table) -> sql.Composed:
    """The statement that creates the table of claims beside *table*."""
    return _CREATE_CLAIMS.format(claims=table.claims)


def own_schema_ddl(of: Table) -> tuple[sql.Composed, ...]:
    """The statements that create undrift's own schema, with the claims of a foreign table."""
    own = Table(name=str(of))
    return _CREATE_SCHEMA.format(schema=sql.Identifier(own.schema)), claims_ddl(own)


def has_extension(connection: Connection[TupleRow]) -> bool:
    """Whether pgvector is installed in the database."""
    return _is_true(connection, _HAS_EXTENSION, [])


def found_vectors(connection: Connection[TupleRow], table: Table) -> VectorType | None:
    """How *table* stores vectors; None where it is not there, or not one of undrift's."""
    row = connection.execute(_FIND_VECTORS, table.names).fetchone()
    return _vector_type(row[0]) if row is not None else None


def has_schema(connection: Connection[TupleRow], table: Table) -> bool:
    """Whether the table's schema exists."""
    return _is_true(connection, _HAS_SCHEMA, [table.schema])


def found_layout(connection: Connection[TupleRow], address: Address) -> Layout:
    """What the database has under the table's name.

    Raises:
        ConfigError: something else than a table of undrift's, one that hides rows, or one that
            stores vectors otherwise than the address says.
    """
    table = address.table
    found = connection.execute(_FIND_TABLE, [table.schema, table.name]).fetchone()
    if found is None:
        return Layout(exists=False)
    oid, is_table, hides_rows = found
    if not is_table:
        raise _foreign(address, "it is not a table")
    if hides_rows:
        raise ConfigError(
            "The vector store hides rows from this role",
            why=f"row-level security is active on {table} in {address.location}; what it hides "
            "would look missing.",
            fix=f"let the role bypass it (ALTER ROLE … BYPASSRLS), or disable it: "
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
        )
    columns = {name: (kind, size) for name, kind, size in connection.execute(_FIND_COLUMNS, [oid])}
    for name, kind in _COLUMN_TYPES.items():
        if name not in columns:
            raise _foreign(address, f"it lacks the column {name}")
        if columns[name][0] != kind:
            raise _foreign(address, f"its column {name} is {columns[name][0]}, not {kind}")
    if "embedding" not in columns:
        raise _foreign(address, "it lacks the column embedding")
    type_name, dimension = columns["embedding"]
    vectors = _vector_type(type_name)
    if vectors is None:
        raise _foreign(address, f"its column embedding is {type_name}, not {WHOLE} or {HALF}")
    if address.vectors not in (None, vectors):
        raise _stored_otherwise(address, vectors)
    return Layout(exists=True, dimension=dimension if dimension > 0 else None, vectors=vectors)


def _vector_type(name: str) -> VectorType | None:
    return name if name in (WHOLE, HALF) else None


def _stored_otherwise(address: Address, found: VectorType) -> ConfigError:
    return ConfigError(
        "The vector store keeps its vectors in another type",
        why=f"the column embedding of {address.table} in {address.location} is {found}, and "
        f"VECTOR_URL says ?vectors={address.vectors}.",
        fix=f"leave vectors= out of VECTOR_URL to go on with {found}; for {address.vectors} set "
        "another ?table= too and run `undrift sync --all`",
    )


def _foreign(address: Address, why: str) -> ConfigError:
    return ConfigError(
        "The vector store's table is not one of undrift's",
        why=f"{address.table} in {address.location}: {why}.",
        fix="set ?table= in VECTOR_URL to another name, under which `undrift sync` creates a table",
    )


def _is_true(connection: Connection[TupleRow], query: str, parameters: Sequence[str]) -> bool:
    row = connection.execute(query.encode(), parameters).fetchone()
    return row is not None and bool(row[0])
