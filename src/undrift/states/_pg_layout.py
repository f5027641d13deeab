"""The tables of a state in PostgreSQL: how they are created, and whether those found are they.

Times are timestamptz, by the server's clock; nothing else is. Owners and ids sort by code point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import LiteralString, NamedTuple
from uuid import uuid4

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow, class_row

from undrift.errors import ConfigError, keep_first_line
from undrift.states._meaning import FOREIGN, NEWER_LAYOUT, OLDER_LAYOUT
from undrift.states._pg_address import MEMORY_TABLES, TABLES, Address
from undrift.states._pg_errors import mapped_error
from undrift.states._pg_statements import Statements

_CREATE_SCHEMA = sql.SQL("CREATE SCHEMA IF NOT EXISTS {schema}")

_STANDING = """\
CREATE TABLE {state_standing} (
    scope text COLLATE "C" PRIMARY KEY,
    state_id text NOT NULL,
    epoch bigint NOT NULL DEFAULT 0,
    config text NOT NULL DEFAULT '',
    round bigint NOT NULL DEFAULT 0,
    round_at timestamptz NOT NULL DEFAULT now(),
    again_at timestamptz,
    refused_at timestamptz,
    scrub_after text,
    scrub_is_second boolean NOT NULL DEFAULT false,
    scrub_began_at timestamptz,
    scrub_holder text NOT NULL DEFAULT '',
    scrub_until timestamptz NOT NULL DEFAULT '-infinity'
)"""
_CONFIG = """\
CREATE TABLE {state_config} (
    scope text COLLATE "C",
    config text COLLATE "C",
    epoch bigint NOT NULL,
    PRIMARY KEY (scope, config)
)"""
# A row that is not known holds nothing but a lease. Leases and versions are in no index, so that
# they are changed in place, in the room that is left on every page.
_OWNER = """\
CREATE TABLE {owner_state} (
    scope text COLLATE "C",
    owner_id text COLLATE "C",
    is_known boolean NOT NULL DEFAULT false,
    generation bigint NOT NULL DEFAULT 0,
    synced_generation bigint NOT NULL DEFAULT 0,
    observation bigint NOT NULL DEFAULT 0,
    floor bigint NOT NULL DEFAULT 0,
    round bigint NOT NULL DEFAULT 0,
    live bigint NOT NULL DEFAULT 0,
    priority integer NOT NULL DEFAULT 0,
    dirty_since timestamptz,
    suspect_until timestamptz,
    lease_holder text NOT NULL DEFAULT '',
    lease_until timestamptz NOT NULL DEFAULT '-infinity',
    verified_at timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL DEFAULT '-infinity',
    last_error text NOT NULL DEFAULT '',
    last_error_at timestamptz,
    PRIMARY KEY (scope, owner_id)
) WITH (fillfactor = 80)"""
_ENTITY = """\
CREATE TABLE {entity_state} (
    scope text COLLATE "C",
    owner_id text COLLATE "C",
    kind text COLLATE "C",
    entity_id text COLLATE "C",
    version bigint NOT NULL,
    fingerprint text NOT NULL,
    model text NOT NULL,
    deleted boolean NOT NULL,
    deleted_at timestamptz,
    published_version bigint NOT NULL DEFAULT 0,
    parked_reason text NOT NULL DEFAULT '',
    parked_attempts integer NOT NULL DEFAULT 0,
    parked_until timestamptz,
    PRIMARY KEY (scope, owner_id, kind, entity_id)
) WITH (fillfactor = 80)"""
# Live entities of each kind, kept as they come and go: counting a million takes too long. In
# slots, so that writers do not wait for each other's commits.
_KIND = """\
CREATE TABLE {kind_state} (
    scope text COLLATE "C",
    kind text COLLATE "C",
    slot integer,
    live bigint NOT NULL,
    PRIMARY KEY (scope, kind, slot)
)"""
_DELETE = """\
CREATE TABLE {state_delete} (
    scope text COLLATE "C",
    kind text COLLATE "C",
    minute_at timestamptz,
    records bigint NOT NULL,
    PRIMARY KEY (scope, kind, minute_at)
)"""
_WORKER = """\
CREATE TABLE {state_worker} (
    scope text COLLATE "C",
    worker_id text COLLATE "C",
    owners bigint NOT NULL,
    failures bigint NOT NULL,
    embedded bigint NOT NULL,
    written bigint NOT NULL,
    deleted bigint NOT NULL,
    started_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL,
    PRIMARY KEY (scope, worker_id)
)"""

# What raw content rendered to, and runs over the fleet: see `undrift.memory`.
_MEMO = """\
CREATE TABLE {state_memo} (
    scope text COLLATE "C",
    owner_id text COLLATE "C",
    key text NOT NULL,
    raw bytea NOT NULL,
    wanted bytea NOT NULL,
    counts text NOT NULL,
    PRIMARY KEY (scope, owner_id)
) WITH (fillfactor = 90)"""
_RUN = """\
CREATE TABLE {state_run} (
    scope text COLLATE "C",
    name text COLLATE "C",
    run_id text NOT NULL,
    position text NOT NULL,
    results bigint NOT NULL DEFAULT 0,
    began_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (scope, name)
)"""
_RESULT = """\
CREATE TABLE {state_result} (
    scope text COLLATE "C",
    name text COLLATE "C",
    run_id text COLLATE "C",
    number bigint,
    result text NOT NULL,
    PRIMARY KEY (scope, name, run_id, number)
)"""

# A million owners that are clean, and entities that are neither parked nor deleted, are in none of
# these but the second, whose beginning alone is read. A claim's lists read one each.
_INDEXES: tuple[LiteralString, ...] = (
    """\
CREATE INDEX ON {owner_state} (scope, priority DESC, dirty_since)
WHERE dirty_since IS NOT NULL AND next_attempt_at = '-infinity'""",
    """\
CREATE INDEX ON {owner_state} (scope, round) WHERE is_known AND next_attempt_at = '-infinity'""",
    """\
CREATE INDEX ON {owner_state} (scope, next_attempt_at) WHERE next_attempt_at > '-infinity'""",
    "CREATE INDEX ON {owner_state} (scope, suspect_until) WHERE suspect_until IS NOT NULL",
    "CREATE INDEX ON {entity_state} (scope, parked_until) WHERE parked_until IS NOT NULL",
    "CREATE INDEX ON {entity_state} (scope, deleted_at) INCLUDE (kind) WHERE deleted",
)

VERSIONS: list[tuple[LiteralString, ...]] = [
    (
        "CREATE TABLE {state_layout} (version integer NOT NULL)",
        "INSERT INTO {state_layout} VALUES (0)",
        *(_STANDING, _CONFIG, _OWNER, _ENTITY, _KIND, _DELETE, _WORKER),
        *_INDEXES,
    ),
    (_MEMO, _RUN, _RESULT),
]
"""What leads from each layout to the next: the first from nothing to version 1."""

_MEMORY_VERSION = 2

# Two processes that create a state do it one after the other ("undrifu" in ASCII).
_LOCK = f"SELECT pg_advisory_xact_lock({0x756E6472696675})"
_GET_VERSION: LiteralString = "SELECT max(version) FROM {state_layout}"
_SET_VERSION_TO: LiteralString = "UPDATE {state_layout} SET version = "
_SET_VERSION: LiteralString = _SET_VERSION_TO + "%(version)s"
_HAS_SCOPE: LiteralString = "SELECT 1 FROM {state_standing} WHERE scope = %(scope)s"
_ADD_SCOPE: LiteralString = """
INSERT INTO {state_standing} (scope, state_id) VALUES (%(scope)s, %(state_id)s)
ON CONFLICT (scope) DO NOTHING"""

# The catalogue, unlike to_regclass(), shows to every role what there is.
_FIND_TABLES = """
SELECT c.relname, c.relkind IN ('r', 'p'), row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = ANY(%s)"""
_HAS_SCHEMA = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)"
_RIGHTS = """
SELECT current_user AS role, current_database() AS database, n.oid IS NOT NULL AS has_schema,
       has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
       coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE'),
                false) AS may_create_in_schema
FROM (SELECT) AS one LEFT JOIN pg_namespace n ON n.nspname = %s"""
_REFUSED = "42501"


class _Rights(NamedTuple):
    """What the database says of this role."""

    role: str
    database: str
    has_schema: bool
    may_create_schema: bool
    may_create_in_schema: bool


class Layout:
    """The tables at one address, for one scope."""

    def __init__(self, address: Address, statements: Statements, scope: str) -> None:
        self._address = address
        self._statements = statements
        self._scope = scope

    def ddl(self) -> list[str]:
        """The statements that create a state from nothing, for people."""
        schema = _CREATE_SCHEMA.format(schema=sql.Identifier(self._address.schema))
        version = self._plain(_SET_VERSION_TO) + str(len(VERSIONS))
        return [schema.as_string(None), *map(self._plain, _flat(VERSIONS)), version]

    def found_version(self, connection: Connection[TupleRow]) -> int:
        """The version of the layout that is there; 0 if there is none.

        Raises:
            ConfigError: it is of a newer undrift, or these are somebody else's tables, or they
                hide rows.
        """
        address = self._address
        names = [address.prefix + name for name in TABLES]
        found = {
            name: (is_table, hides_rows)
            for name, is_table, hides_rows in connection.execute(
                _FIND_TABLES, [address.schema, names]
            )
        }
        if not found:
            return 0
        later = [address.prefix + name for name in MEMORY_TABLES]
        missing = [name for name in names if not found.get(name, (False, False))[0]]
        self._refuse_without([name for name in missing if name not in later])
        for name, (_, hides_rows) in found.items():
            if hides_rows:
                raise self._hidden(name)
        row = connection.execute(self._statements.ready(_GET_VERSION), {}).fetchone()
        if row is None or not isinstance(row[0], int):
            raise FOREIGN.error(address.location, "its layout has no version")
        if row[0] > len(VERSIONS):
            raise NEWER_LAYOUT.error(
                address.location, f"its layout is version {row[0]}, this undrift's {len(VERSIONS)}"
            )
        if row[0] >= _MEMORY_VERSION:
            self._refuse_without(missing)
        return row[0]

    def _refuse_without(self, missing: Sequence[str]) -> None:
        """Let pass only where no table is *missing*."""
        if missing:
            address = self._address
            raise FOREIGN.error(
                address.location,
                f"schema {address.schema} has some of undrift's tables, but no {missing[0]}",
            )

    def refuse_older(self, connection: Connection[TupleRow]) -> None:
        """Let only the current layout pass."""
        version = self.found_version(connection)
        if 0 < version < len(VERSIONS):
            raise OLDER_LAYOUT.error(
                self._address.location,
                f"its layout is version {version}, this undrift's {len(VERSIONS)}",
            )

    def is_current(self, connection: Connection[TupleRow]) -> bool:
        """Whether there is nothing to create and nothing to migrate."""
        return self.found_version(connection) == len(VERSIONS) and self.has_scope(connection)

    def has_scope(self, connection: Connection[TupleRow]) -> bool:
        """Whether the scope's state has been created."""
        found = connection.execute(self._statements.ready(_HAS_SCOPE), {"scope": self._scope})
        return found.fetchone() is not None

    def create(self, connection: Connection[TupleRow]) -> None:
        """Create or migrate what is missing, in one transaction.

        Only what is missing: ``CREATE SCHEMA IF NOT EXISTS`` needs the right to create schemas
        even where the schema exists.
        """
        with self._explained(connection), connection.transaction():
            connection.execute(_LOCK)
            version = self.found_version(connection)
            schema = self._address.schema
            row = connection.execute(_HAS_SCHEMA, [schema]).fetchone()
            if row is None or not row[0]:
                connection.execute(_CREATE_SCHEMA.format(schema=sql.Identifier(schema)))
            ready = self._statements.ready
            for statement in _flat(VERSIONS[version:]):
                connection.execute(ready(statement), {})  # so that a %% in a name is one %
            if version < len(VERSIONS):
                connection.execute(ready(_SET_VERSION), {"version": len(VERSIONS)})
            connection.execute(ready(_ADD_SCOPE), {"scope": self._scope, "state_id": str(uuid4())})

    @contextmanager
    def _explained(self, connection: Connection[TupleRow]) -> Iterator[None]:
        """A refusal names every right that is missing; the server names the first alone."""
        try:
            yield
        except psycopg.Error as error:
            if error.sqlstate != _REFUSED:
                raise
            statements = self._lacking(connection)
            doing = "create" if statements else "write"
            mapped = mapped_error(error, self._address, "create" if statements else "write")
            if doing == "write":
                raise mapped from keep_first_line(error)
            raise ConfigError(
                mapped.what,
                why=mapped.why,
                fix=f"let an administrator of the database run: {'; '.join(statements)}",
            ) from keep_first_line(error)

    def _lacking(self, connection: Connection[TupleRow]) -> list[str]:
        with connection.cursor(row_factory=class_row(_Rights)) as cursor:
            found = cursor.execute(_RIGHTS, [self._address.schema]).fetchone()
        assert found is not None
        role = sql.Identifier(found.role)
        if not found.has_schema and not found.may_create_schema:
            database = sql.Identifier(found.database)
            statement = sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, role)
            return [statement.as_string(None)]
        if found.has_schema and not found.may_create_in_schema:
            schema = sql.Identifier(self._address.schema)
            statement = sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(schema, role)
            return [statement.as_string(None)]
        return []

    def _hidden(self, table: str) -> ConfigError:
        return ConfigError(
            "The state hides rows from this role",
            why=f"row-level security is active on {self._address.schema}.{table} in "
            f"{self._address.location}; what it hides would look forgotten.",
            fix="let the role bypass it (ALTER ROLE … BYPASSRLS), or disable it: "
            f"ALTER TABLE {self._address.schema}.{table} DISABLE ROW LEVEL SECURITY",
        )

    def _plain(self, statement: LiteralString) -> str:
        tables = {name: self._address.table(name) for name in TABLES}
        return sql.SQL(statement).format(**tables).as_string(None)


def _flat(versions: Sequence[tuple[LiteralString, ...]]) -> list[LiteralString]:
    return [statement for statements in versions for statement in statements]
