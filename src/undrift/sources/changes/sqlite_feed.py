"""`ChangeFeed` of a SQLite source."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from undrift.changes import ChangeStatus, MarkEveryone, MarkOwners, Peeked
from undrift.sources.changes.failures import not_installed
from undrift.sources.changes.sqlite_file import installed, writing
from undrift.sources.changes.sqlite_sql import CHANGES
from undrift.sources.changes.sqlite_triggers import SqliteTriggers
from undrift.sources.changes.taken import hand_over, peeked
from undrift.sources.changes.tracked import TrackedTable
from undrift.sources.database import Database

REMOVED_AT_ONCE = 1_000
"""Marks removed in one transaction: the application's writes wait for it, some milliseconds."""

LOCK_SECONDS = 10.0

_READ = sa.text("SELECT id, token, owner_id FROM undrift_change ORDER BY id LIMIT :limit")
# DISTINCT alone would take 1 and 1.0 for one, which are two owners.
_PEEK = sa.text("SELECT DISTINCT typeof(owner_id), owner_id FROM undrift_change")
_REMOVE = sa.text("DELETE FROM undrift_change WHERE id = :id AND token = :token")


class SqliteFeed:
    """The marks in a SQLite file.

    They are read without a lock and removed when they have been handed over: while the state takes
    the marks, perhaps in the same file, nothing is held here. Two workers may read the same marks.
    """

    def __init__(self, database: Database, tracked: Callable[[], Sequence[TrackedTable]]) -> None:
        self._database = database
        self._triggers = SqliteTriggers(database, tracked)

    def pending(self) -> ChangeStatus:
        """As `Triggers.status`."""
        return self._triggers.status()

    def drain(self, limit: int, mark: MarkOwners, mark_everyone: MarkEveryone) -> int:
        """Take at most *limit* marks, oldest first, and remove them when they are handed over."""
        with self._database.snapshot() as connection:
            self._require_installed(connection)
            marks = connection.execute(_READ, {"limit": limit}).all()
        hand_over((row.owner_id for row in marks), mark, mark_everyone)
        for begin in range(0, len(marks), REMOVED_AT_ONCE):
            removed = marks[begin : begin + REMOVED_AT_ONCE]
            with writing(self._database, lock_seconds=LOCK_SECONDS) as connection:
                connection.execute(_REMOVE, [{"id": m.id, "token": m.token} for m in removed])
        return len(marks)

    def peek(self, limit: int, after: str | None = None) -> Peeked:
        """Whom the marks name that nobody has taken; takes, locks and writes nothing."""
        with self._database.snapshot() as connection:
            self._require_installed(connection)
            marks = connection.execute(_PEEK)
            return peeked((row.owner_id for row in marks), limit, after)

    def wait(self, seconds: float) -> None:
        """Pause: a file calls nobody."""
        time.sleep(seconds)

    def close(self) -> None:
        """Nothing is kept open."""

    def _require_installed(self, connection: Connection) -> None:
        if CHANGES not in installed(connection):
            raise not_installed(self._database.location)
