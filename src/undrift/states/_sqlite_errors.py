"""SQLite's errors, mapped once to what a caller can do about them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from undrift.errors import ConfigError, StateUnavailable
from undrift.states._meaning import (
    FOREIGN,
    NOT_CREATED,
    OLDER_LAYOUT,
    REFUSED,
    UNUSABLE_VALUE,
    Meaning,
)

_NO_RIGHTS = Meaning(
    ConfigError,
    "The state's file may not be used like that",
    "let this user write the file and its folder (SQLite keeps a lock file there even to read), "
    "and to write, leave out ?mode=ro",
)
_UNREADABLE = Meaning(
    StateUnavailable,
    "The state cannot be read",
    "check the disk and the file, and run again",
)

# By SQLite's primary result code; where the code is not here, there was no definite answer.
_MEANINGS = {
    sqlite3.SQLITE_NOTADB: Meaning(
        ConfigError,
        "The state's file is not a SQLite database",
        "set the state's URL to another file, or remove this one if nothing needs it",
    ),
    sqlite3.SQLITE_READONLY: _NO_RIGHTS,
    sqlite3.SQLITE_CANTOPEN: _NO_RIGHTS,
    sqlite3.SQLITE_PERM: _NO_RIGHTS,
    sqlite3.SQLITE_AUTH: _NO_RIGHTS,
    sqlite3.SQLITE_CONSTRAINT: REFUSED,
    sqlite3.SQLITE_FULL: REFUSED,
    sqlite3.SQLITE_TOOBIG: REFUSED,
    sqlite3.SQLITE_MISMATCH: REFUSED,
    sqlite3.SQLITE_BUSY: Meaning(
        StateUnavailable,
        "The state is locked",
        "end the program that keeps the file locked, or run again later",
    ),
    sqlite3.SQLITE_CORRUPT: Meaning(
        StateUnavailable,
        "The state's file is damaged",
        "move the file away and run `undrift state adopt`, then `undrift sync --all`, which build "
        "the state anew",
    ),
}


@contextmanager
def mapped_errors(location: str) -> Iterator[None]:
    """Turn what SQLite raises inside the block into undrift's own errors."""
    try:
        yield
    except sqlite3.Error as error:
        raise _meaning_of(error).error(location, str(error)) from error
    except UnicodeEncodeError:
        # Its message would quote the value.
        raise UNUSABLE_VALUE.error(location, "it is not valid Unicode") from None


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the lock that was wanted."""
    return _code(error) == sqlite3.SQLITE_BUSY


def _meaning_of(error: sqlite3.Error) -> Meaning:
    code, message = _code(error), str(error)
    if code == sqlite3.SQLITE_ERROR and message.startswith("no such table"):
        return NOT_CREATED
    if code == sqlite3.SQLITE_ERROR and ("no such column" in message or "no column" in message):
        return OLDER_LAYOUT
    if code == sqlite3.SQLITE_ERROR and message.endswith("already exists"):
        return FOREIGN
    return _MEANINGS.get(code, _UNREADABLE)


def _code(error: sqlite3.Error) -> int:
    # Extended codes carry the primary one in their low byte; the driver's own errors have none.
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF
