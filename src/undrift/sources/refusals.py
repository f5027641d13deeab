"""What a database says to a writer, and to no reader, mapped to undrift's errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from undrift.errors import (
    ConfigError,
    TransientError,
    UndriftError,
    UnknownStateError,
    UnsupportedError,
    WriteFailed,
)
from undrift.sources.failures import without_details

_IN_THE_WAY = {
    "40001": "another transaction changed it meanwhile",
    "40P01": "another transaction and this one waited for each other",
    "57014": "a time limit of the role or the server ended the statement",
    "25P03": "a time limit of the role or the server ended the transaction",
    "25P04": "a time limit of the role or the server ended the transaction",
}
"""Why a transaction was given up that may do better next time."""


@contextmanager
def mapped_refusals(location: str, *, lock_seconds: float, is_writing: bool) -> Iterator[None]:
    """Turn the driver's errors into undrift's; what concerns readers too is let pass.

    Args:
        is_writing: whether the document is being written, which lets its constraints and triggers
            speak; else its row is being locked.
    """
    try:
        yield
    except sa.exc.DBAPIError as exc:
        error = _passing(exc, location, lock_seconds) or _refusal(exc, location, is_writing)
        if error is None:
            raise
        cause = _wordless(exc) if isinstance(error, WriteFailed) else without_details(exc)
        raise error from cause


def saved_or_not(location: str, owner_id: str) -> UnknownStateError:
    """The connection broke at the commit, and nobody could be asked what became of it."""
    return UnknownStateError(
        f"It is not known whether the document of user {owner_id} was saved",
        why=f"{location}: the connection broke before the answer, and a look at the row settled "
        "nothing.",
        fix="read the profile before you try again; what has an id of its own is not added twice",
    )


def not_saved(location: str) -> TransientError:
    """The connection broke, and the transaction ended with it."""
    return TransientError(
        "The connection broke before the profile was saved",
        why=f"{location}: nothing was written.",
        fix="try again",
    )


def _passing(exc: sa.exc.DBAPIError, location: str, lock_seconds: float) -> UndriftError | None:
    """The error, if the same call may succeed when it is tried again."""
    original = exc.orig
    state = getattr(original, "sqlstate", None)
    if state == "55P03" or _is_locked_file(original):
        why = f"its row was not free within {lock_seconds:g} s"
    elif state in _IN_THE_WAY:
        why = _IN_THE_WAY[state]
    elif exc.connection_invalidated:
        return not_saved(location)
    else:
        return None
    return TransientError(
        "The profile is being changed by another program"
        if state != "57014" and not (state or "").startswith("25")
        else "The profile could not be changed in time",
        why=f"{location}: {why}; nothing was written.",
        fix="try again",
    )


def _refusal(exc: sa.exc.DBAPIError, location: str, is_writing: bool) -> UndriftError | None:
    original = exc.orig
    state = getattr(original, "sqlstate", None)
    diagnostics = getattr(original, "diag", None)
    # What has a context was raised within a function, such as a trigger's, in words of its own.
    is_own = not getattr(diagnostics, "context", None)
    first_line = (str(original).strip().splitlines() or [""])[0].rstrip(".")
    if (state == "25006" and is_own) or _is_readonly_file(original):
        return ConfigError(
            "The source cannot be written",
            why=f"{location} is read-only or a standby.",
            fix="point DATABASE_URL at the primary, with a role that may write",
        )
    # The server's message is translated, the file it comes from is not.
    if state == "42501" and is_own and getattr(diagnostics, "source_file", None) != "rls.c":
        return ConfigError(
            "The source role may not write",
            why=f"{location}: {first_line}.",
            fix="GRANT SELECT, UPDATE on the documents' table to this role; only the assistant's "
            "tools need it",
        )
    if state in ("0A000", "55000") and is_own:
        return UnsupportedError(
            "This table cannot be edited",
            why=f"{location}: {first_line}.",
            fix="name the table itself in [source.documents], not a view over it",
        )
    if not is_writing or getattr(diagnostics, "source_file", None) == "rls.c":
        return None
    # Of constraints and triggers only the kind is told: the message may quote the row.
    return WriteFailed(
        "The source refused the new document",
        why=f"{location}: a constraint or a trigger stands against it, or it could not be stored "
        f"({_code_of(original)}); nothing was written.",
        fix="look at the table's constraints and triggers, and at the server's log",
    )


def _wordless(exc: sa.exc.DBAPIError) -> sa.exc.DBAPIError:
    """*exc* as it may become the cause of an error: a trigger's words may be the profile's."""
    code = _code_of(exc.orig)
    if exc.orig is not None:
        exc.orig.args = (code,)
    exc.args = (code,)
    return exc


def _code_of(original: BaseException | None) -> str:
    state = getattr(original, "sqlstate", None)
    if state is not None:
        return f"SQLSTATE {state}"
    return str(getattr(original, "sqlite_errorname", None) or type(original).__name__)


def _is_locked_file(original: BaseException | None) -> bool:
    code = getattr(original, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _is_readonly_file(original: BaseException | None) -> bool:
    code = getattr(original, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_READONLY
