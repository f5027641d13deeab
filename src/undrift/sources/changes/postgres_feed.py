"""`ChangeFeed` of a PostgreSQL source."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Condition, Lock
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from undrift.changes import ChangeStatus, MarkEveryone, MarkOwners, Peeked
from undrift.errors import UndriftError
from undrift.forks import after_fork, leave_to_parent
from undrift.sources.changes.failures import mapped_change_failures, not_installed, outdated
from undrift.sources.changes.postgres_catalog import read_catalogue
from undrift.sources.changes.postgres_sql import CHANNEL, OWNERS_A_MARK
from undrift.sources.changes.postgres_triggers import LOOK_RIGHTS, PostgresTriggers
from undrift.sources.changes.taken import hand_over, peeked
from undrift.sources.changes.tracked import TrackedTable
from undrift.sources.database import Database, postgres_engine
from undrift.sources.failures import without_details

_log = logging.getLogger(__name__)

# Whoever locks a mark removes it; another worker takes the next ones instead of waiting.
_TAKE = sa.text("""
SELECT id, coalesce(owner_ids, ARRAY[owner_id]) AS owners FROM undrift.change
WHERE id > :behind ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED""")
# The mark for everybody comes first, whatever the page. One owner more than asked for says that
# there are more.
_PEEK = sa.text("""
SELECT m.owner FROM undrift.change
CROSS JOIN LATERAL unnest(coalesce(owner_ids, ARRAY[owner_id])) AS m(owner)
WHERE m.owner IS NULL OR CAST(:after AS text) IS NULL OR m.owner > CAST(:after AS text)
GROUP BY m.owner ORDER BY m.owner NULLS FIRST LIMIT :limit""")
_REMOVE = sa.text("DELETE FROM undrift.change WHERE id = ANY(CAST(:ids AS bigint[]))")
_RIGHTS = (
    'let the role that installed them run: GRANT USAGE ON SCHEMA "undrift" and GRANT SELECT, '
    'UPDATE, DELETE ON "undrift"."change" to this role'
)


class PostgresFeed:
    """The marks in a PostgreSQL database."""

    def __init__(self, database: Database, tracked: Callable[[], Sequence[TrackedTable]]) -> None:
        self._database = database
        self._triggers = PostgresTriggers(database, tracked)
        self._engine: Engine | None = None
        self._opening = Lock()
        self._listening: Connection | None = None
        self._ears = Lock()
        self._woken = Condition()
        self._is_notified: bool | None = None
        after_fork(self, PostgresFeed._begin_afresh)

    def pending(self) -> ChangeStatus:
        """As `Triggers.status`."""
        status = self._triggers.status()
        self._is_notified = status.is_notified
        return status

    def drain(self, limit: int, mark: MarkOwners, mark_everyone: MarkEveryone) -> int:
        """Take *limit* marks, oldest first, and remove them when they are handed over."""
        with (
            mapped_change_failures(self._database.location, rights=_RIGHTS),
            self._opened().begin() as connection,
        ):
            marks = self._taken(connection, limit)
            if marks:
                hand_over((owner for row in marks for owner in row.owners), mark, mark_everyone)
                connection.execute(_REMOVE, {"ids": [row.id for row in marks]})
            return _count(marks)

    def peek(self, limit: int, after: str | None = None) -> Peeked:
        """Whom the marks name that nobody has taken; takes, locks and writes nothing."""
        with (
            self._database.snapshot() as connection,
            mapped_change_failures(self._database.location, rights=LOOK_RIGHTS),
        ):
            marks = self._marks(connection, _PEEK, limit=limit + 2, after=after)
        return peeked((row.owner for row in marks), limit, after)

    def wait(self, seconds: float) -> None:
        """Return when there may be marks again, at the latest after so long."""
        until = time.monotonic() + seconds
        if not self._ears.acquire(blocking=False):
            # Another thread listens for all of them.
            with self._woken:
                self._woken.wait(seconds)
            return
        try:
            is_woken = self._listen(seconds)
            if is_woken:
                with self._woken:
                    self._woken.notify_all()
        except (UndriftError, sa.exc.SQLAlchemyError, psycopg.Error) as exc:
            # The pause goes on without ears; the next call opens a connection again.
            _log.info("not listening: %s", type(exc).__name__, extra={"action": "changes.wait"})
            self._stop_listening()
            is_woken = False
        finally:
            self._ears.release()
        if not is_woken:
            time.sleep(max(0.0, until - time.monotonic()))

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""
        self._stop_listening()
        self._triggers.close()
        with self._opening:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _taken(self, connection: Connection, limit: int) -> list[sa.Row[Any]]:
        """Lock marks until they name *limit* owners, and no more: others want the rest."""
        marks: list[sa.Row[Any]] = []
        count, rows = 0, -(-limit // OWNERS_A_MARK)
        while count < limit:
            behind = marks[-1].id if marks else 0
            found = self._marks(connection, _TAKE, behind=behind, limit=rows)
            marks += found
            if len(found) < rows:
                break
            count = _count(marks)
            rows = max(1, (limit - count) * len(marks) // count)
        return marks

    def _marks(
        self, connection: Connection, statement: sa.TextClause, **parameters: object
    ) -> Sequence[sa.Row[Any]]:
        try:
            return connection.execute(statement, parameters).all()
        except sa.exc.ProgrammingError as exc:
            if getattr(exc.orig, "sqlstate", None) in ("42P01", "3F000"):
                raise not_installed(self._database.location) from without_details(exc)
            if getattr(exc.orig, "sqlstate", None) == "42703":
                raise outdated(self._database.location) from without_details(exc)
            raise

    def _listen(self, seconds: float) -> bool:
        """Wait for a mark's call; whether there may be marks."""
        if self._is_notified is None:
            with self._database.snapshot() as connection:
                found = read_catalogue(connection).functions.values()
            self._is_notified = any("pg_notify" in function.body for function in found)
        if not self._is_notified:
            return False
        if self._listening is None:
            opened = self._opened().connect().execution_options(isolation_level="AUTOCOMMIT")
            self._listening = opened
            opened.exec_driver_sql(f"LISTEN {CHANNEL}")
            return True  # whatever was marked before that called nobody
        driver = self._listening.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        return bool(list(driver.notifies(timeout=seconds, stop_after=1)))

    def _begin_afresh(self) -> None:
        leave_to_parent(self._listening)
        self._listening = None
        self._opening = Lock()
        self._ears = Lock()
        self._woken = Condition()

    def _stop_listening(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            with suppress(sa.exc.SQLAlchemyError, psycopg.Error):
                # Not back into the pool, where it would go on listening.
                listening.invalidate()
                listening.close()

    def _opened(self) -> Engine:
        with self._opening:
            if self._engine is None:
                self._engine = postgres_engine(self._database.url, may_write=True)
            return self._engine


def _count(marks: Sequence[sa.Row[Any]]) -> int:
    """The owners that *marks* name; a mark of nobody, made by hand, is one all the same."""
    return sum(max(1, len(row.owners)) for row in marks)
