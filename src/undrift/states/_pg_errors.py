"""PostgreSQL's errors, mapped once to what a caller can do about them.

A message names what the server says in its first line, never its details: those may quote a row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import psycopg
from psycopg import sql

from undrift.errors import (
    ConfigError,
    StateUnavailable,
    UndriftError,
    keep_first_line,
    without_quotation,
)
from undrift.states._meaning import FOREIGN, NOT_CREATED, REFUSED, UNUSABLE_VALUE, Meaning
from undrift.states._pg_address import TABLES, Address

Doing = Literal["read", "write", "create"]

PASSING = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)
"""The same transaction may simply be tried again."""

_LOGIN = Meaning(
    ConfigError,
    "The state's database refused the login",
    "correct the user, password, database name or TLS settings in the state's URL",
)
_NO_DATABASE = Meaning(
    ConfigError,
    "The state's database does not exist",
    "correct the database name in the state's URL; undrift creates tables, never a database",
)
_LAYOUT = Meaning(
    ConfigError,
    "The state's tables are not as this undrift knows them",
    "run `undrift sync`, which brings those of an older one up to date, or upgrade this one",
)
_READ_ONLY = Meaning(
    ConfigError,
    "The state's database is read-only",
    "point the state's URL at the primary, with a role whose transactions may write",
)
_UNAVAILABLE = Meaning(
    StateUnavailable,
    "The state did not answer",
    "check that the server runs and can be reached from here, then run again",
)
_BUSY = Meaning(
    StateUnavailable,
    "The state was too busy",
    "run again; what was acknowledged is kept",
)

# By SQLSTATE, the longest prefix that fits; where none fits, there was no definite answer.
_MEANINGS = {
    "22": UNUSABLE_VALUE,
    "23": REFUSED,
    "25006": _READ_ONLY,
    "28": _LOGIN,
    "3D": _NO_DATABASE,
    "3F": NOT_CREATED,
    "40": _BUSY,
    "42": _LAYOUT,
    "42P01": NOT_CREATED,
    "53100": REFUSED,
    "54": REFUSED,
    "P0": REFUSED,
}

# A refused login carries no SQLSTATE here, only the server's words (or a pooler's). In another
# language they are not recognised, and the error is the safe one: no definite answer.
_REFUSED_LOGIN = re.compile(
    r"authentication failed|no password supplied|no pg_hba\.conf entry|is not permitted to log in"
    r"|role \S+ does not exist|no such user|permission denied for database"
    r"|does not support SSL|certificate verify failed|root certificate file",
    re.IGNORECASE,
)
_UNKNOWN_DATABASE = re.compile(r'database ".*" does not exist|no such database', re.IGNORECASE)


@contextmanager
def mapped_errors(
    address: Address, doing: Doing, *, but: tuple[type[psycopg.Error], ...] = ()
) -> Iterator[None]:
    """Turn what psycopg raises inside the block, *but* these, into undrift's own errors."""
    try:
        yield
    except but:
        raise
    except psycopg.Error as error:
        raise mapped_error(error, address, doing) from keep_first_line(error)
    except UnicodeEncodeError:
        # Its message would quote the value.
        raise UNUSABLE_VALUE.error(address.location, "it is not valid Unicode") from None


def mapped_error(
    error: psycopg.Error, address: Address, doing: Doing, tables: Sequence[str] = TABLES
) -> UndriftError:
    """What psycopg's *error* means, met with *tables*."""
    # psycopg itself refuses some values, without a state.
    state = error.sqlstate or ("22000" if isinstance(error, psycopg.DataError) else "")
    message = error.diag.message_primary or " ".join(str(error).split())
    message = without_quotation(error, message)
    if state == "42501":
        return missing_right(address, message, doing, tables)
    return _meaning_of(state, message, doing).error(address.location, message)


def grants(address: Address, doing: Doing, tables: Sequence[str] = TABLES) -> str:
    """The rights that a role needs on *tables* of a state that somebody else has created."""
    role = sql.Identifier(address.role)
    schema = sql.Identifier(address.schema)
    if doing == "create":
        statement = sql.SQL("GRANT USAGE, CREATE ON SCHEMA {} TO {}").format(schema, role)
    else:
        rights = "SELECT" if doing == "read" else "SELECT, INSERT, UPDATE, DELETE"
        statement = sql.SQL("GRANT USAGE ON SCHEMA {} TO {}; GRANT {} ON {} TO {}").format(
            schema, role, sql.SQL(rights), sql.SQL(", ").join(map(address.table, tables)), role
        )
    return statement.as_string(None)


def missing_right(
    address: Address, message: str, doing: Doing, tables: Sequence[str] = TABLES
) -> ConfigError:
    """The role may not do that to *tables*; *message* is the server's."""
    return ConfigError(
        f"The state's role may not {doing}",
        why=f"{address.location}: {message}.",
        fix=f"let the owner run: {grants(address, doing, tables)}",
    )


def _meaning_of(state: str, message: str, doing: Doing) -> Meaning:
    if not state and _UNKNOWN_DATABASE.search(message):
        return _NO_DATABASE
    if not state:
        return _LOGIN if _REFUSED_LOGIN.search(message) else _UNAVAILABLE
    if doing == "create" and state[:2] in ("42", "23"):
        return FOREIGN
    prefixes = (state[:length] for length in range(len(state), 1, -1))
    return next((_MEANINGS[prefix] for prefix in prefixes if prefix in _MEANINGS), _UNAVAILABLE)
