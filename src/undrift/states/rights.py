"""The rights on a state that somebody else creates, for a DBA's script."""

from __future__ import annotations

from collections.abc import Sequence


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
