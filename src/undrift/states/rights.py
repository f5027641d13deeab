"""The rights on a state that somebody else has created, or is to create."""

from __future__ import annotations

from collections.abc import Sequence

_RIGHTS = """
SELECT current_user::text, relname::text,
       has_schema_privilege(relnamespace, 'USAGE')
       AND has_table_privilege(pg_class.oid, 'SELECT')
       AND has_table_privilege(pg_class.oid, 'INSERT')
       AND has_table_privilege(pg_class.oid, 'UPDATE')
       AND has_table_privilege(pg_class.oid, 'DELETE')
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = %(schema)s AND relname = ANY(%(tables)s)
ORDER BY relname"""


def grants_of(url: str) -> Sequence[str]:
    """The lines of a script that let the role of *url* keep its state there. Connects to nothing.

    Raises:
        ConfigError: the URL is malformed.
    """
    if url.partition("://")[0].lower().startswith("sqlite"):
        return ()
    from psycopg import sql

    from undrift.states._pg_address import TABLES, parse_address

    address = parse_address(url)
    schema = sql.Identifier(address.schema).as_string(None)
    tables = ", ".join(address.table(name).as_string(None) for name in TABLES)
    grants = (
        f"GRANT USAGE ON SCHEMA {schema} TO",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO",
    )
    if address.role:
        role = sql.Identifier(address.role).as_string(None)
        return ("-- To sync, too:", *(f"{grant} {role};" for grant in grants))
    # A line's end in a name would make the rest of a comment a statement.
    lines = (f"-- {grant} undrift_writer;" for grant in grants)
    return ("-- To sync, too:", *(" ".join(line.splitlines()) for line in lines))


def lacking_grants(url: str) -> Sequence[str]:
    """What the role of *url* lacks to keep its state there, as statements for the tables' owner.

    Nothing in a file, and nothing where there are no tables yet.

    Raises:
        ConfigError: the URL is malformed, or the role may not even log in.
        StateUnavailable: it could not be looked at.
    """
    if url.partition("://")[0].lower().startswith("sqlite"):
        return ()
    from psycopg import sql

    from undrift.postgres import connect
    from undrift.states._pg_address import TABLES, parse_address
    from undrift.states._pg_errors import mapped_errors

    address = parse_address(url)
    names = [address.prefix + name for name in TABLES]
    with mapped_errors(address, "read"), connect(address.conninfo) as connection:
        found = connection.execute(_RIGHTS, {"schema": address.schema, "tables": names}).fetchall()
    if all(may_write for _, _, may_write in found):
        return ()
    role = sql.Identifier(found[0][0]).as_string(None)
    schema = sql.Identifier(address.schema).as_string(None)
    lacking = sql.SQL(", ").join(
        sql.Identifier(address.schema, name) for _, name, may_write in found if not may_write
    )
    tables = lacking.as_string(None)
    return (
        f"GRANT USAGE ON SCHEMA {schema} TO {role}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {role}",
    )
