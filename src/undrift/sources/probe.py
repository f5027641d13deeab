"""Looks at a source's server and its mapped tables, and says what is amiss. Changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from undrift.errors import UndriftError
from undrift.findings import Finding, Status, of_error, ok, problem, warning
from undrift.sources.database import Database, condition
from undrift.sources.inspection import brief_snapshot

SHORT_SECONDS = 60.0
"""A time-out below this may end the read of a page in the middle."""

COUNTED_ROWS = 100_000
"""Counting further, or longer than `COUNT_SECONDS`, would make the look itself slow."""

COUNT_SECONDS = 5.0

_SERVER = sa.text("""
SELECT current_setting('server_version') AS version, pg_is_in_recovery() AS is_standby,
       pg_backend_pid() AS backend_pid, inet_server_port() AS port, current_user AS role,
       extract(epoch FROM current_setting('statement_timeout')::interval) AS statement_timeout,
       extract(epoch FROM current_setting('idle_in_transaction_session_timeout')::interval)
           AS idle_in_transaction_session_timeout""")
# Other servers than PostgreSQL 17 and later do not know it.
_TRANSACTION_TIMEOUT = sa.text(
    "SELECT extract(epoch FROM current_setting('transaction_timeout', true)::interval)"
)
_NO_LONGER = sa.text("SELECT set_config('statement_timeout', :milliseconds, true)")
_RIGHTS = sa.text("""
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.reltuples::bigint AS rows,
       c.relrowsecurity AS has_policies, row_security_active(c.oid) AS hides_rows,
       has_schema_privilege(n.oid, 'USAGE') AS may_use_schema,
       has_table_privilege(c.oid, 'SELECT') AS may_select,
       array(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attname = ANY(CAST(:columns AS text[]))
               AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT')) AS forbidden,
       array(SELECT p.polname::text FROM pg_policy p WHERE p.polrelid = c.oid ORDER BY 1)
           AS policies,
       EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid
               AND a.attname = :owner AND a.attnotnull) AS owner_is_never_null
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relname = :name
  AND (n.nspname = :schema OR (CAST(:schema AS text) = '' AND pg_table_is_visible(c.oid)))""")


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedTable:
    """A table that the mapping reads.

    Attributes:
        columns: those that must be readable, the owner's among them.
    """

    table: str
    owner: str
    columns: tuple[str, ...]
    where: str = ""


class _Greeting(NamedTuple):
    """What libpq was told, and the port that it really asked for: the URL may name none."""

    backend_pid: int
    port: int


def probe_server(database: Database) -> list[Finding]:
    """Connect, and say what the server is.

    Raises:
        ConfigError: the address or the login is wrong.
        SourceUnavailable: the server cannot be reached.
    """
    if not database.is_postgres:
        return _sqlite_file(database)
    with brief_snapshot(database) as connection:
        facts = connection.execute(_SERVER).one()
        transaction_timeout = connection.scalar(_TRANSACTION_TIMEOUT)
        greeting = _greeting(connection)
    findings = [
        ok("source.server", f"PostgreSQL {facts.version} at {database.location}"),
        _standby(facts.is_standby),
    ]
    timeouts = {
        "statement_timeout": facts.statement_timeout,
        "transaction_timeout": transaction_timeout or 0,
        "idle_in_transaction_session_timeout": facts.idle_in_transaction_session_timeout,
    }
    for name, seconds in timeouts.items():
        if 0 < seconds < SHORT_SECONDS:
            findings.append(_short_timeout(name, float(seconds), facts.role))
    return [*findings, _pooler(facts, greeting)]


def probe_table(database: Database, mapped: MappedTable) -> list[Finding]:
    """Whether the role may read everything in a table that the mapping reads, and what is there.

    Raises:
        ConfigError: a name or the where condition is wrong.
        SourceUnavailable: the read broke off.
    """
    if database.is_postgres:
        schema, _, name = mapped.table.rpartition(".")
        asked = {"schema": schema, "name": name, "owner": mapped.owner}
        with brief_snapshot(database) as connection:
            rights = connection.execute(
                _RIGHTS, {**asked, "columns": list(mapped.columns)}
            ).one_or_none()
            role = connection.scalar(sa.text("SELECT current_user"))
            refusals = [] if rights is None else _refusals(connection, mapped, rights, str(role))
        if refusals:
            return refusals
        estimate = None if rights is None or rights.rows < 0 else int(rights.rows)
        never_null = rights is not None and rights.owner_is_never_null
        policies = list(rights.policies) if rights is not None and rights.has_policies else []
    else:
        estimate, never_null, policies = None, False, []
    readable = _readable(database, mapped, estimate, policies)
    if readable.status is not Status.OK or never_null:
        return [readable]
    return [readable, *_rows_without_owner(database, mapped)]


# --- the server -------------------------------------------------------------------------------


def _sqlite_file(database: Database) -> list[Finding]:
    with database.snapshot() as connection:
        version = connection.scalar(sa.text("SELECT sqlite_version()"))
        mode = connection.scalar(sa.text("PRAGMA journal_mode"))
    return [
        ok("source.server", f"SQLite {version} at {database.location}, journal mode {mode}"),
    ]


def _standby(is_standby: bool) -> Finding:
    if not is_standby:
        return ok("source.role", "It is a primary")
    return problem(
        "source.role",
        "It is a standby: what has not arrived there yet would be deleted from the vectors",
        "point DATABASE_URL at the primary",
        stops_check=False,
    )


def _short_timeout(name: str, seconds: float, role: str) -> Finding:
    return warning(
        f"source.{name}",
        f"{name} is {seconds:g} s for this role; a page that takes longer to read ends the run",
        f"ALTER ROLE {_identifier(role)} SET {name} = '5min'",
    )


def _pooler(facts: sa.Row[Any], greeting: _Greeting | None) -> Finding:
    """Whether somebody stands between. A pooler greets with a number of its own."""
    if greeting is not None and greeting.backend_pid != facts.backend_pid:
        hint = "the server's process is not the one that greeted us"
    elif greeting is not None and facts.port is not None and facts.port != greeting.port:
        hint = f"the server listens on port {facts.port}, and {greeting.port} was asked for"
    else:
        return ok("source.pooler", "No pooler or proxy is seen in between")
    # Not a warning: undrift keeps no state between transactions, so that every pooler serves.
    return ok(
        "source.pooler",
        "Something seems to be in between, a pooler such as PgBouncer or a forwarded port "
        f"({hint}); that works",
    )


def _greeting(connection: Connection) -> _Greeting | None:
    driver = connection.connection.driver_connection
    return None if driver is None else _Greeting(driver.info.backend_pid, driver.info.port)


# --- a table ----------------------------------------------------------------------------------


def _refusals(
    connection: Connection, mapped: MappedTable, rights: sa.Row[Any], role: str
) -> list[Finding]:
    name, who = _quoted(connection, mapped.table), _identifier(role)
    grants = []
    if not rights.may_use_schema:
        grants.append(f"GRANT USAGE ON SCHEMA {_identifier(rights.schema)} TO {who}")
    if rights.forbidden and not rights.may_select:
        grants.append(f"GRANT SELECT ON {name} TO {who}")
    if grants:
        listed = ", ".join(sorted(rights.forbidden)) or "any column"
        return [
            problem(
                f"source.rights.{mapped.table}",
                f"The role {role} may not read {listed} of {mapped.table}",
                f"let the owner of the table run: {'; '.join(grants)}",
            )
        ]
    if rights.hides_rows:
        return [
            problem(
                f"source.rows_hidden.{mapped.table}",
                f"Row level security hides rows of {mapped.table} from the role {role} (policies: "
                f"{', '.join(rights.policies) or 'none'}); what is hidden would look deleted, so "
                "undrift refuses to read it",
                f"let an administrator run: ALTER ROLE {who} BYPASSRLS",
            )
        ]
    return []


def _readable(
    database: Database, mapped: MappedTable, estimate: int | None, policies: Sequence[str]
) -> Finding:
    name = f"source.table.{mapped.table}"
    schema, _, table = mapped.table.rpartition(".")
    source = sa.table(
        table, *(sa.column(column) for column in mapped.columns), schema=schema or None
    )
    rows = sa.select(*source.c).where(*condition(mapped.where))
    try:
        with brief_snapshot(database) as connection:
            connection.execute(rows.limit(1)).all()
    except UndriftError as error:
        return of_error(name, error)
    amount = _amount(database, source, mapped.where, estimate)
    policed = f"; its policies ({', '.join(policies)}) hide nothing from this role"
    return ok(
        name,
        f"{mapped.table}({', '.join(mapped.columns)}) can be read; {amount}"
        f"{policed if policies else ''}",
    )


def _amount(database: Database, source: sa.TableClause, where: str, estimate: int | None) -> str:
    """How many rows a check reads: counted, or the server's estimate where that would take long."""
    if estimate is not None and estimate > COUNTED_ROWS and not where:
        return f"rows: about {estimate}"
    ones = sa.select(sa.literal(1)).select_from(source).where(*condition(where))
    counting = sa.select(sa.func.count()).select_from(ones.limit(COUNTED_ROWS + 1).subquery())
    try:
        with brief_snapshot(database) as connection:
            _hurry(connection, database)
            counted = connection.scalar(counting) or 0
    except UndriftError as error:
        return f"its rows were not counted ({error.what})"
    return f"rows: more than {COUNTED_ROWS}" if counted > COUNTED_ROWS else f"rows: {counted}"


def _hurry(connection: Connection, database: Database) -> None:
    if database.is_postgres:
        milliseconds = str(round(COUNT_SECONDS * 1000))
        connection.execute(_NO_LONGER, {"milliseconds": milliseconds})


def _rows_without_owner(database: Database, mapped: MappedTable) -> list[Finding]:
    schema, _, table = mapped.table.rpartition(".")
    source = sa.table(table, sa.column(mapped.owner), schema=schema or None)
    nobodys = source.c[mapped.owner].is_(None)
    statement = sa.select(sa.literal(1)).select_from(source).where(nobodys)
    statement = statement.where(*condition(mapped.where)).limit(1)
    name = f"source.owners.{mapped.table}"
    try:
        with brief_snapshot(database) as connection:
            _hurry(connection, database)
            found = connection.execute(statement).first()
    except UndriftError as error:
        return [
            warning(
                name,
                f"Whether rows of {mapped.table} lack an owner could not be told in time "
                f"({error.what})",
                f"nothing is wrong with {mapped.owner} if the column is NOT NULL; else look",
            )
        ]
    if found is None:
        return []
    return [
        warning(
            name,
            f"Rows of {mapped.table} have no owner ({mapped.owner} is NULL); nobody's vectors are "
            "made of them",
            f"set {mapped.owner} in those rows, if they belong to somebody",
        )
    ]


def _quoted(connection: Connection, table: str) -> str:
    schema, _, name = table.rpartition(".")
    quote = connection.dialect.identifier_preparer.quote_identifier
    return ".".join(quote(part) for part in (schema, name) if part)


def _identifier(name: str) -> str:
    """*name* as SQL for a person to run: in quotes only where it needs them."""
    if name.isascii() and name.isidentifier() and name == name.lower():
        return name
    return '"' + name.replace('"', '""') + '"'
