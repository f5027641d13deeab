"""SQLite's errors, mapped once to what a caller can do about them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from undrift.errors import ConfigError, StoreUnavailable
from undrift.stores._meaning import NOT_CREATED, REFUSED_BATCH, Meaning

NO_RIGHTS = Meaning(
    ConfigError,
    "The vector store's file may not be used like that",
    "let this user write the file and its folder (SQLite keeps a lock file there even to read), "
    "and to write, leave out ?mode=ro",
)
_UNREADABLE = Meaning(
    StoreUnavailable,
    "The vector store cannot be read",
    "check the disk and the file, and run again",
)

# By SQLite's primary result code; where the code is not here, undrift could not look.
_MEANINGS = {
    sqlite3.SQLITE_NOTADB: Meaning(
        ConfigError,
        "The vector store's file is not a SQLite database",
        "set VECTOR_URL to another file, or remove this one if nothing needs it",
    ),
    sqlite3.SQLITE_READONLY: NO_RIGHTS,
    sqlite3.SQLITE_CANTOPEN: NO_RIGHTS,
    sqlite3.SQLITE_PERM: NO_RIGHTS,
    sqlite3.SQLITE_AUTH: NO_RIGHTS,
    sqlite3.SQLITE_CONSTRAINT: REFUSED_BATCH,
    sqlite3.SQLITE_FULL: REFUSED_BATCH,
    sqlite3.SQLITE_TOOBIG: REFUSED_BATCH,
    sqlite3.SQLITE_MISMATCH: REFUSED_BATCH,
    sqlite3.SQLITE_BUSY: Meaning(
        StoreUnavailable,
        "The vector store is locked",
        "end the program that keeps the file locked, or run again later",
    ),
    sqlite3.SQLITE_CORRUPT: Meaning(
        StoreUnavailable,
        "The vector store's file is damaged",
        "move the file away and run `undrift sync --all`, which builds it anew",
    ),
}


@contextmanager
def mapped_errors(location: str) -> Iterator[None]:
    """Turn what SQLite raises inside the block into undrift's own errors."""
    try:
        yield
    except sqlite3.Error as error:
        raise _meaning_of(error).error(location, str(error)) from error


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the lock that was wanted."""
    return _code(error) == sqlite3.SQLITE_BUSY


def _meaning_of(error: sqlite3.Error) -> Meaning:
    code = _code(error)
    if code == sqlite3.SQLITE_ERROR and str(error).startswith("no such table"):
        return NOT_CREATED
    return _MEANINGS.get(code, _UNREADABLE)


def _code(error: sqlite3.Error) -> int:
    # Extended codes carry the primary one in their low byte; the driver's own errors have none.
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF
