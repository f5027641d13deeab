"""The database driver's errors, mapped once to what a caller can do about them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from undrift.errors import (
    ConfigError,
    IncompleteRead,
    SourceUnavailable,
    UndriftError,
    keep_first_line,
    without_quotation,
)

_REFUSED_LOGIN = ("authentication failed", "no password supplied", "no pg_hba.conf entry")
_UNKNOWN_NAME = ("does not exist",)
_NO_DATABASE = re.compile(r'database ".*" does not exist|no such database', re.IGNORECASE)


@contextmanager
def mapped_failures(location: str) -> Iterator[None]:
    """Turn the driver's errors into undrift's.

    Args:
        location: the source's address without a password, for the message.
    """
    try:
        yield
    except sa.exc.DBAPIError as exc:
        raise _mapped(exc, location) from without_details(exc)
    except sa.exc.TimeoutError as exc:
        raise _unavailable(location, "no connection became free in time") from exc


def without_details(exc: sa.exc.DBAPIError) -> sa.exc.DBAPIError:
    """*exc* as it may become the cause of an error: its details could quote a profile."""
    if exc.orig is not None and not isinstance(exc.orig, UndriftError):
        exc.args = keep_first_line(exc.orig).args
    return exc


def _mapped(exc: sa.exc.DBAPIError, location: str) -> UndriftError:
    original = exc.orig
    if isinstance(original, UndriftError):
        return original
    state = getattr(original, "sqlstate", None)
    message = _first_line(original)
    if state is None:
        return _without_state(message, location)
    if state == "42501":
        return _refused_read(original, message, location)
    if state in ("42P01", "42703", "42601", "42804", "42883", "22P02", "3F000"):
        return ConfigError(
            "The source refused a query",
            why=f"{location}: {message}.",
            fix="check the table, column and where settings in undrift.toml",
        )
    if state == "3D000":
        return _no_database(message, location)
    if state in ("28P01", "28000"):
        return _refused_login(message, location)
    return _unavailable(location, message)


def _without_state(message: str, location: str) -> UndriftError:
    lowered = message.lower()
    if _NO_DATABASE.search(message):
        return _no_database(message, location)
    if any(words in lowered for words in (*_REFUSED_LOGIN, *_UNKNOWN_NAME)):
        return _refused_login(message, location)
    if lowered.startswith(("no such table", "no such column", "near ", "no such function")):
        return ConfigError(
            "The source refused a query",
            why=f"{location}: {message}.",
            fix="check the table, column and where settings in undrift.toml",
        )
    if "not a database" in lowered:
        return ConfigError(
            "The source is not a SQLite database",
            why=f"{location}: {message}.",
            fix="correct DATABASE_URL",
        )
    return _unavailable(location, message)


def _no_database(message: str, location: str) -> ConfigError:
    return ConfigError(
        "The source's database does not exist",
        why=f"{location}: {message}.",
        fix="correct the database name in DATABASE_URL",
    )


def _refused_login(message: str, location: str) -> ConfigError:
    return ConfigError(
        "The source refused the login",
        why=f"{location}: {message}.",
        fix="correct the user, password or database name in DATABASE_URL; in a URL, a password's "
        "? is written %3F, its # %23",
    )


def _refused_read(original: BaseException | None, message: str, location: str) -> UndriftError:
    diagnostics = getattr(original, "diag", None)
    # The server's message is translated, the file it comes from is not.
    if getattr(diagnostics, "source_file", None) == "rls.c":
        return IncompleteRead(
            "The source hides rows from this role",
            why=f"{location}: {message}.",
            fix="let the role bypass row level security (ALTER ROLE … BYPASSRLS), or read with "
            "the tables' owner; what is hidden would look deleted",
        )
    return ConfigError(
        "The source role may not read",
        why=f"{location}: {message}.",
        fix="GRANT SELECT on the mapped tables, and USAGE on their schema, to this role",
    )


def _unavailable(location: str, message: str) -> SourceUnavailable:
    return SourceUnavailable(
        "The source cannot be read",
        why=f"{location}: {message}.",
        fix="check that the server runs and can be reached from here, then run again",
    )


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    if error is None or not lines:
        return type(error).__name__
    return without_quotation(error, lines[0].rstrip("."))
