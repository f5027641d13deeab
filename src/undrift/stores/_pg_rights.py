"""What a role needs in the store's database: told all at once, so that a DBA is asked once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow, class_row

from undrift.errors import ConfigError, keep_first_line
from undrift.postgres import default_option
from undrift.stores._pg_address import Address, parse_address
from undrift.stores._pg_errors import mapped_error

_RIGHTS = """
SELECT current_user AS role, current_database() AS database,
       EXISTS (SELECT FROM pg_roles WHERE rolname = current_user AND rolsuper) AS is_superuser,
       EXISTS (SELECT FROM pg_extension WHERE extname = 'vector') AS has_extension,
       n.oid IS NOT NULL AS has_schema,
       has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
       coalesce(has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege(n.oid, 'CREATE'),
                false) AS may_create_in_schema
FROM (SELECT) AS one LEFT JOIN pg_namespace n ON n.nspname = %s"""

_REFUSED = "42501"
_NOT_INSTALLABLE = ("0A000", "58P01")


class _Rights(NamedTuple):
    """What the database says of this role."""

    role: str
    database: str
    is_superuser: bool
    has_extension: bool
    has_schema: bool
    may_create_schema: bool
    may_create_in_schema: bool


@contextmanager
def creating(connection: Connection[TupleRow], address: Address) -> Iterator[None]:
    """Around the transaction that creates the store: a refusal names every right that is missing.

    The server names the first alone; whoever asks for that one is refused the next.

    Raises:
        ConfigError: the role may not; psycopg's own errors otherwise.
    """
    try:
        yield
    except psycopg.Error as error:
        is_about_extension = '"vector"' in str(error)
        if error.sqlstate != _REFUSED and not (
            is_about_extension and error.sqlstate in _NOT_INSTALLABLE
        ):
            raise
        statements = lacking_to_create(connection, address)
        if not statements:
            raise
        mapped = mapped_error(error, address, "create")
        fix = f"let an administrator of the database run: {'; '.join(statements)}"
        if error.sqlstate != _REFUSED:
            fix = f"install the server's pgvector package, and {fix}"
        elif not is_about_extension:
            fix = f"let the owner run: {'; '.join(statements)}"
        raise ConfigError(mapped.what, why=mapped.why, fix=fix) from keep_first_line(error)


def lacking_to_create(connection: Connection[TupleRow], address: Address) -> list[str]:
    """The statements of somebody else's without which this role cannot create the store."""
    with connection.cursor(row_factory=class_row(_Rights)) as cursor:
        found = cursor.execute(_RIGHTS, [address.table.schema]).fetchone()
    assert found is not None
    role = sql.Identifier(found.role)
    statements: list[sql.Composable] = []
    if not found.has_extension and not found.is_superuser:
        statements.append(sql.SQL("CREATE EXTENSION vector"))
    if not found.has_schema and not found.may_create_schema:
        database = sql.Identifier(found.database)
        statements.append(sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(database, role))
    elif found.has_schema and not found.may_create_in_schema:
        schema = sql.Identifier(address.table.schema)
        statements.append(sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(schema, role))
    return [statement.as_string(None) for statement in statements]


class Login(NamedTuple):
    """As whom a URL logs in, and where; as far as it, the environment and libpq tell."""

    role: str
    place: tuple[str, ...]


def login_of(url: str) -> Login:
    """Who *url* logs in as. Connects to nothing.

    Raises:
        ConfigError: the URL is malformed.
    """
    address = parse_address(url)
    given = psycopg.conninfo.conninfo_to_dict(address.conninfo)
    names = ("host", "hostaddr", "port", "service")
    place = (str(given.get(name) or default_option(name)) for name in names)
    return Login(address.role, (*place, address.database))


def grants(url: str) -> list[str]:
    """The rights on a store that somebody else has created, for the role of *url*."""
    address = parse_address(url)
    schema = sql.Identifier(address.table.schema).as_string(None)
    table = address.table.identifier.as_string(None)
    reading = (f"GRANT USAGE ON SCHEMA {schema} TO", f"GRANT SELECT ON {table} TO")
    claims = address.table.claims.as_string(None)
    writing = (
        f"GRANT INSERT, UPDATE, DELETE ON {table} TO",
        f"GRANT SELECT, INSERT, UPDATE ON {claims} TO",
    )
    if address.role:
        role = sql.Identifier(address.role).as_string(None)
        return [
            "-- For the role of VECTOR_URL, to check and to search:",
            *(f"{grant} {role};" for grant in reading),
            "-- To sync, too; leave this out where it only checks and searches:",
            *(f"{grant} {role};" for grant in writing),
        ]
    lines = [
        "-- Replace the roles' names by yours.",
        "-- To check and to search:",
        *(f"-- {grant} undrift_reader, undrift_writer;" for grant in reading),
        "-- To sync, too:",
        *(f"-- {grant} undrift_writer;" for grant in writing),
    ]
    # A line's end in a name would make the rest of a comment a statement.
    return [" ".join(line.splitlines()) for line in lines]
