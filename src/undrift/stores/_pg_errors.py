"""PostgreSQL's errors, mapped once to what a caller can do about them.

A message names what the server says in its first line, never its details: those may quote a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import psycopg
from psycopg import sql

from undrift.errors import (
    ConfigError,
    StoreUnavailable,
    UndriftError,
    keep_first_line,
    without_quotation,
)
from undrift.stores._meaning import NOT_CREATED, REFUSED_BATCH, Meaning
from undrift.stores._pg_address import Address

Doing = Literal["read", "write", "create", "index"]

_LOGIN = Meaning(
    ConfigError,
    "The vector store refused the login",
    "correct the user, password, database name or TLS settings in VECTOR_URL",
)
_NO_DATABASE = Meaning(
    ConfigError,
    "The vector store's database does not exist",
    "correct the database name in VECTOR_URL; undrift creates tables, never a database",
)
_LAYOUT = Meaning(
    ConfigError,
    "The vector store's table is not one of undrift's",
    "set ?table= in VECTOR_URL to another table, which `undrift sync` creates",
)
_READ_ONLY = Meaning(
    ConfigError,
    "The vector store is read-only",
    "point VECTOR_URL at the primary, with a role whose transactions may write",
)
_UNAVAILABLE = Meaning(
    StoreUnavailable,
    "The vector store did not answer",
    "check that the server runs and can be reached from here, then run again",
)
_BUSY = Meaning(
    StoreUnavailable,
    "The vector store was too busy",
    "run again; what was acknowledged is kept",
)
_NO_EXTENSION = Meaning(
    ConfigError,
    "pgvector cannot be installed in the database",
    "install the server's pgvector package if it lacks it, and let an administrator of the "
    "database run: CREATE EXTENSION vector",
)

_NO_ROOM = Meaning(
    StoreUnavailable,
    "The server ran out of room while it built the index",
    "give less --maintenance-work-mem (in a container /dev/shm has 64 MB unless --shm-size says "
    "more) or make room on its disk, and run `undrift index build` again, which replaces what is "
    "left",
)
_INDEX_REFUSED = Meaning(
    ConfigError,
    "The server refused to build the index",
    "mend what the message names; `undrift index build --sql` prints the statements",
)

# By SQLSTATE, the longest prefix that fits; where none fits, undrift could not look.
_MEANINGS = {
    "0A": _LAYOUT,
    "22": REFUSED_BATCH,
    "23": REFUSED_BATCH,
    "25006": _READ_ONLY,
    "28": _LOGIN,
    "3D": _NO_DATABASE,
    "3F": NOT_CREATED,
    "40": _BUSY,
    "42": _LAYOUT,
    "42P01": NOT_CREATED,
    "53100": REFUSED_BATCH,
    "54": REFUSED_BATCH,
    "P0": REFUSED_BATCH,
}

# What a batch or a table is to the other statements, parameters and memory are to a build.
_OF_INDEX = {"0A": _INDEX_REFUSED, "22": _INDEX_REFUSED, "53": _NO_ROOM, "54": _INDEX_REFUSED}

# A refused login carries no SQLSTATE here, only the server's words (or a pooler's). In another
# language they are not recognised, and the error is the safe one: could not look.
_REFUSED_LOGIN = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|is not permitted to log in"
    r"|role \S+ does not exist|no such user|permission denied for database"
    r"|does not support SSL|certificate verify failed|root certificate file",
    re.IGNORECASE,
)
_UNKNOWN_DATABASE = re.compile(r'database ".*" does not exist|no such database', re.IGNORECASE)


@contextmanager
def mapped_errors(address: Address, doing: Doing) -> Iterator[None]:
    """Turn what psycopg raises inside the block into undrift's own errors."""
    try:
        yield
    except psycopg.Error as error:
        mapped = mapped_error(error, address, doing)
        raise mapped from keep_first_line(error)


def mapped_error(error: psycopg.Error, address: Address, doing: Doing) -> UndriftError:
    """What psycopg's *error* means."""
    # psycopg itself refuses some values, without a state.
    state = error.sqlstate or ("22000" if isinstance(error, psycopg.DataError) else "")
    message = error.diag.message_primary or " ".join(str(error).split())
    message = without_quotation(error, message)
    if state == "42501" and '"vector"' not in message:
        return _missing_right(address, message, doing)
    return _meaning_of(state, message, doing).error(address.location, message)


def _meaning_of(state: str, message: str, doing: Doing) -> Meaning:
    if not state and _UNKNOWN_DATABASE.search(message):
        return _NO_DATABASE
    if not state:
        return _LOGIN if _REFUSED_LOGIN.search(message) else _UNAVAILABLE
    if doing == "create" and ('"vector"' in message or state == "58P01"):
        return _NO_EXTENSION
    if doing == "index" and state[:2] in _OF_INDEX:
        return _OF_INDEX[state[:2]]
    prefixes = (state[:length] for length in range(len(state), 1, -1))
    meaning = next((_MEANINGS[prefix] for prefix in prefixes if prefix in _MEANINGS), _UNAVAILABLE)
    if meaning is REFUSED_BATCH and doing != "write":
        return _UNAVAILABLE if doing == "read" else _LAYOUT
    return meaning


def _missing_right(address: Address, message: str, doing: Doing) -> ConfigError:
    if doing == "index":
        return ConfigError(
            "The vector store's role may not build or drop an index",
            why=f"{address.location}: {message}.",
            fix="let the table's owner run what `undrift index build --sql` or `undrift index drop "
            "--sql` prints, or run it as that role",
        )
    role = sql.Identifier(address.role)
    schema = sql.Identifier(address.table.schema)
    if doing == "create" and "database" in message:
        grants = sql.SQL("GRANT CREATE ON DATABASE {} TO {}").format(
            sql.Identifier(address.database), role
        )
    elif doing == "create":
        grants = sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(schema, role)
    else:
        rights = "SELECT" if doing == "read" else "SELECT, INSERT, UPDATE, DELETE"
        grants = sql.SQL("GRANT USAGE ON SCHEMA {} TO {}; GRANT {} ON {} TO {}").format(
            schema, role, sql.SQL(rights), address.table.identifier, role
        )
        if doing == "write":  # all at once, so that a DBA is asked once
            grants += sql.SQL("; GRANT SELECT, INSERT, UPDATE ON {} TO {}").format(
                address.table.claims, role
            )
    return ConfigError(
        f"The vector store's role may not {doing}",
        why=f"{address.location}: {message}.",
        fix=f"let the owner run: {grants.as_string(None)}",
    )
