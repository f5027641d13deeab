"""Looks at a pgvector store, and rehearses in one transaction what a sync does.

The rehearsal is the only proof of the rights: roles, ownership, policies, event triggers and
read-only settings all have their say in it. It is rolled back, whatever happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from typing import LiteralString, NamedTuple

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow, class_row

from undrift.errors import ConfigError, UndriftError
from undrift.findings import Finding, Status, of_error, ok, problem, warning
from undrift.state import Claim
from undrift.stores import _pg_layout as layout
from undrift.stores._pg_address import WHOLE, Address, parse_address
from undrift.stores._pg_claims import ClaimTable
from undrift.stores._pg_errors import Doing, mapped_errors
from undrift.stores._pg_rights import creating, lacking_to_create
from undrift.stores._pg_vectors import learn_vectors
from undrift.stores.probe import COUNTED_RECORDS, RecordCount, StoreProbe

CONNECT_TIMEOUT_SECONDS = 10

_SERVER = """
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS is_standby,
       current_setting('synchronous_commit') AS synchronous_commit,
       current_setting('fsync') AS fsync,
       (SELECT extversion FROM pg_extension WHERE extname = 'vector') AS installed,
       (SELECT default_version FROM pg_available_extensions WHERE name = 'vector') AS available"""
_COUNTS = """
SELECT namespace, coalesce(model, ''), coalesce(kind, ''), count(*)
FROM (SELECT namespace, model, kind FROM {table}
      WHERE deleted IS DISTINCT FROM 1 LIMIT %s) AS counted
GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
_TABLE = """
SELECT c.relpersistence = 'u'
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s"""
_INDEXES = """
SELECT i.relname AS name, m.amname AS method, x.indisvalid AS is_valid
FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_am m ON m.oid = i.relam
JOIN pg_class c ON c.oid = x.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s ORDER BY 1"""
_BRIEFLY = (
    "SELECT set_config('lock_timeout', '5s', true), set_config('statement_timeout', '15s', true)"
)
_INSERT = """
INSERT INTO {table} (vector_id, namespace, owner_id, version)
VALUES (gen_random_uuid(), 'undrift-doctor', 'undrift', 0) RETURNING vector_id"""
_UPDATE = "UPDATE {table} SET version = 1 WHERE vector_id = %s"
_DELETE = "DELETE FROM {table} WHERE vector_id = %s"
_TRIED_NAMESPACE = "undrift-doctor"
_APPROXIMATE = ("hnsw", "ivfflat")


class _Server(NamedTuple):
    """What the server says of itself; the versions are pgvector's."""

    version: str
    is_standby: bool
    synchronous_commit: str
    fsync: str
    installed: str | None
    available: str | None


class _Index(NamedTuple):
    """An index on the store's table."""

    name: str
    method: str
    is_valid: bool


def probe_pgvector(url: str, dimension: int | None) -> StoreProbe:
    """Look at the store of *url*; creates nothing, and what is written is rolled back."""
    address = parse_address(url)
    try:
        with mapped_errors(address, "read"), closing(_connect(address)) as connection:
            return _probed(connection, address, dimension)
    except UndriftError as error:
        return StoreProbe(findings=(of_error("store.server", error),))


def _probed(
    connection: Connection[TupleRow], address: Address, dimension: int | None
) -> StoreProbe:
    facts = _server(connection)
    findings = [ok("store.server", f"PostgreSQL {facts.version} at {address.location}")]
    findings.extend(_extension(connection, address, facts))
    findings.extend(_durability(facts))
    another_table = "set another ?table= in VECTOR_URL and run `undrift sync --all`"
    try:
        found = layout.found_layout(connection, address)
    except ConfigError as error:
        return StoreProbe(findings=(*findings, of_error("store.table", error)))
    counts: list[RecordCount] | None = None
    if found.exists:
        findings.append(ok("store.table", f"{address.table} is there"))
        findings.extend(_table(connection, address))
        try:
            with mapped_errors(address, "read"):
                rows = connection.execute(_ready(_COUNTS, address), [COUNTED_RECORDS])
                counts = [RecordCount(*row) for row in rows]
        except UndriftError as error:
            findings.append(of_error("store.rights", error))
            return StoreProbe(
                findings=tuple(findings),
                exists=True,
                dimension=found.dimension,
                change_dimension=another_table,
            )
    else:
        findings.append(ok("store.table", f"{address.table} is not created yet"))
    if found.exists or facts.installed or facts.available:
        findings.append(_rehearsed(connection, address, facts, found.exists, dimension or 1))
    return StoreProbe(
        findings=tuple(findings),
        exists=found.exists,
        dimension=found.dimension,
        change_dimension=another_table,
        counts=counts,
    )


def _extension(
    connection: Connection[TupleRow], address: Address, facts: _Server
) -> Iterator[Finding]:
    if facts.installed is not None:
        yield ok("store.pgvector", f"pgvector {facts.installed} is installed")
    elif facts.available is None:
        major = facts.version.partition(".")[0]
        statements = lacking_to_create(connection, address)
        then = f" and let an administrator of the database run: {'; '.join(statements)};"
        yield problem(
            "store.pgvector",
            "The server has no pgvector",
            f"install the server's package (Debian, Ubuntu: apt install postgresql-{major}-"
            f"pgvector){then if statements else ','} or set VECTOR_URL=sqlite:///vectors.db",
            stops_check=False,
        )
    else:
        yield ok(
            "store.pgvector",
            f"pgvector {facts.available} is available on the server, and not yet in this database",
        )


def _durability(facts: _Server) -> Iterator[Finding]:
    weak = [name for name in ("synchronous_commit", "fsync") if getattr(facts, name) == "off"]
    if weak:
        yield warning(
            "store.durability",
            f"{' and '.join(weak)} {'is' if len(weak) == 1 else 'are'} off: a failing server may "
            "forget vectors that a sync reported as written",
            "let a superuser run: "
            + "; ".join(f"ALTER SYSTEM SET {name} = on" for name in weak)
            + "; SELECT pg_reload_conf(). Until then the check after a failure finds what was lost",
        )


def _table(connection: Connection[TupleRow], address: Address) -> Iterator[Finding]:
    if connection.execute(_TABLE, address.table.names).fetchone() == (True,):
        yield warning(
            "store.durability.table",
            f"{address.table} is UNLOGGED: a crash of the server empties it",
            f"ALTER TABLE {address.table.identifier.as_string(None)} SET LOGGED",
        )
    with connection.cursor(row_factory=class_row(_Index)) as cursor:
        indexes = cursor.execute(_INDEXES, address.table.names).fetchall()
    for index in indexes:
        if not index.is_valid:
            name = sql.Identifier(address.table.schema, index.name).as_string(None)
            yield warning(
                "store.index",
                f"The index {index.name} is not valid; its build was broken off, and it costs "
                "writes and serves nobody",
                f"DROP INDEX CONCURRENTLY {name}",
            )
    approximate = [i.name for i in indexes if i.method in _APPROXIMATE and i.is_valid]
    if approximate:
        yield ok("store.index", f"There is an approximate index: {', '.join(approximate)}")
    elif all(index.is_valid for index in indexes):
        yield ok("store.index", "There is no approximate index; a search reads its owner's rows")


def _rehearsed(
    connection: Connection[TupleRow],
    address: Address,
    facts: _Server,
    exists: bool,
    dimension: int,
) -> Finding:
    """Do what a sync does, creating the store included, and roll it back."""
    if facts.is_standby:
        return problem(
            "store.rights",
            "It is a standby, which nobody can write",
            "point VECTOR_URL at the primary",
            stops_check=False,
        )
    doing: Doing = "write" if exists else "create"
    explained = nullcontext() if exists else creating(connection, address)
    try:
        with (
            mapped_errors(address, doing),
            explained,
            connection.transaction(force_rollback=True),
        ):
            connection.execute(_BRIEFLY)
            if not exists:
                _create(connection, address, dimension)
            _write(connection, address)
            _put_claim(connection, address)
    except UndriftError as error:
        return _refused(error, doing)
    can = "It can be written" if exists else "The first sync can create and write it"
    return ok("store.rights", f"{can} (tried, and rolled back)")


def _create(connection: Connection[TupleRow], address: Address, dimension: int) -> None:
    table = address.table
    if not layout.has_extension(connection):
        connection.execute(layout.CREATE_EXTENSION)
    vector_schema = learn_vectors(connection, address.location, address.vectors or WHOLE)
    create_schema, *others = layout.ddl(address, dimension, vector_schema=vector_schema)
    if not layout.has_schema(connection, table):
        connection.execute(create_schema)
    for statement in others:
        connection.execute(statement)


def _write(connection: Connection[TupleRow], address: Address) -> None:
    row = connection.execute(_ready(_INSERT, address), []).fetchone()
    connection.execute(_ready(_UPDATE, address), row)
    connection.execute(_ready(_DELETE, address), row)


def _put_claim(connection: Connection[TupleRow], address: Address) -> None:
    claims = ClaimTable(address, _TRIED_NAMESPACE)
    if not claims.exists(connection):
        claims.create(connection)
    tried = Claim(source="", state_id=_TRIED_NAMESPACE, epoch=0)
    for replacing in (None, tried):
        claims.put(connection, tried, replacing=replacing)


def _refused(error: UndriftError, doing: Doing) -> Finding:
    found = of_error("store.rights", error, stops_check=False)
    if found.status is not Status.PROBLEM or doing != "create":
        return found
    return replace(found, fix=f"{error.fix}; or let a DBA run what `undrift init --sql` prints")


def _connect(address: Address) -> Connection[TupleRow]:
    given = psycopg.conninfo.conninfo_to_dict(address.conninfo)
    return psycopg.connect(
        address.conninfo,
        autocommit=True,
        prepare_threshold=None,
        application_name=given.get("application_name", "undrift"),
        connect_timeout=given.get("connect_timeout", CONNECT_TIMEOUT_SECONDS),
        client_encoding="utf-8",
    )


def _server(connection: Connection[TupleRow]) -> _Server:
    with connection.cursor(row_factory=class_row(_Server)) as cursor:
        found = cursor.execute(_SERVER).fetchone()
    assert found is not None
    return found


def _ready(statement: LiteralString, address: Address) -> sql.Composed:
    # psycopg reads a % as the beginning of a placeholder, quoted or not.
    names = (name.replace("%", "%%") for name in address.table.names)
    return sql.SQL(statement).format(table=sql.Identifier(*names))
