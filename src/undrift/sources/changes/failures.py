"""What a database says to whoever installs triggers or takes marks, mapped to undrift's errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from undrift.errors import ConfigError, TransientError, UndriftError, keep_first_line
from undrift.sources.failures import mapped_failures, without_details


@contextmanager
def mapped_change_failures(
    location: str, *, table: str = "", rights: str, lock_seconds: float | None = None
) -> Iterator[None]:
    """Turn the driver's errors into undrift's.

    Args:
        table: the table that is being worked at.
        rights: what to do where a right is missing.
        lock_seconds: how long a lock was waited for, if by a limit of our own.
    """
    with mapped_failures(location):
        try:
            yield
        except sa.exc.DBAPIError as exc:
            error = _mapped(exc, location, table, rights, lock_seconds)
            if error is None:
                raise
            raise error from without_details(exc)


def not_installed(location: str) -> ConfigError:
    """There are no marks to take."""
    return ConfigError(
        "Change capture is not installed",
        why=f"{location} has no marks of undrift's triggers.",
        fix="run `undrift triggers install`",
    )


def outdated(location: str) -> ConfigError:
    """The table of marks lacks what this undrift reads."""
    return ConfigError(
        "Change capture is of an earlier undrift",
        why=f"{location} has its table of marks; no mark was taken, and none is lost.",
        fix="run `undrift triggers install`, which brings it up to date, and start watches again",
    )


def _mapped(
    exc: sa.exc.DBAPIError, location: str, table: str, rights: str, lock_seconds: float | None
) -> UndriftError | None:
    original = exc.orig
    state = getattr(original, "sqlstate", None)
    code = getattr(original, "sqlite_errorcode", None)
    first_line = str(keep_first_line(original)).rstrip(".") if original is not None else ""
    is_locked = code is not None and code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    if state in ("55P03", "40P01", "40001") or is_locked:
        waited = "" if lock_seconds is None else f" within {lock_seconds:g} s"
        return TransientError(
            "The source is in use by other transactions",
            why=f"{location}: {table or 'it'} was not free{waited}; nothing of it was changed.",
            fix="try again in a quiet hour, or with a longer --lock-timeout; while it waits, "
            "writes to the table wait behind it",
        )
    is_readonly = code is not None and code & 0xFF == sqlite3.SQLITE_READONLY
    if state == "25006" or is_readonly:
        return ConfigError(
            "The source cannot be written",
            why=f"{location} is read-only or a standby.",
            fix="point DATABASE_URL at the primary, with a role that may write",
        )
    if state == "42501":
        return ConfigError(
            "The source role has not the rights for change capture",
            why=f"{location}: {first_line}.",
            fix=rights,
        )
    return None
