"""`Triggers` of a SQLite source."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from undrift.changes import LOCK_SECONDS, ChangeStatus
from undrift.errors import UnsupportedError
from undrift.sources.changes import sqlite_sql as sql
from undrift.sources.changes.sqlite_file import installed, read_watch, refusal, writing
from undrift.sources.changes.tracked import (
    TrackedTable,
    nothing_to_watch,
    refusal_of_conditions,
    unseen_by_conditions,
)
from undrift.sources.database import Database

_log = logging.getLogger(__name__)

_UNSEEN = (
    "a file that is replaced as a whole, such as by a restore",
    "programs that switch triggers off (SQLITE_DBCONFIG_ENABLE_TRIGGER)",
)
_MARKS = sa.text("""
SELECT count(*) AS marks, (julianday('now') - min(at)) * 86400 AS oldest_seconds
FROM undrift_change""")


class _Look(NamedTuple):
    """What is there, and what should be.

    Attributes:
        triggers: the wanted statements by table and trigger.
        found: the statements that are there, by name; the table of marks among them.
    """

    tables: Sequence[TrackedTable]
    refused: tuple[str, ...]
    triggers: dict[str, dict[str, str]]
    found: dict[str, str]

    @property
    def left_over(self) -> list[str]:
        """Triggers that no mapped table needs."""
        wanted = {name for triggers in self.triggers.values() for name in triggers}
        return sorted(self.found.keys() - wanted - {sql.CHANGES})


class SqliteTriggers:
    """Triggers in a SQLite file, looked up in its schema at every call.

    Args:
        tracked: asks for the mapped tables.
    """

    def __init__(self, database: Database, tracked: Callable[[], Sequence[TrackedTable]]) -> None:
        self._database = database
        self._tracked = tracked

    def status(self) -> ChangeStatus:
        """Say what there is; changes nothing."""
        tables = self._tracked()
        with self._database.snapshot() as connection:
            look = _look(connection, tables)
            marks, oldest_seconds = 0, None
            if sql.CHANGES in look.found:
                row = connection.execute(_MARKS).one()
                marks = row.marks
                oldest_seconds = None if row.marks == 0 else max(0.0, row.oldest_seconds)
        problems = [p for name in look.triggers for p in _problems(name, look)]
        if look.found and sql.CHANGES not in look.found:
            problems.append(f"the table {sql.CHANGES} is missing, and writes to the tables fail")
        if look.left_over:
            problems.append(f"left over: {', '.join(look.left_over)}")
        unseen = [line for table in look.tables for line in unseen_by_conditions(table)]
        return ChangeStatus(
            location=self._database.location,
            tables=tuple(table.name for table in look.tables),
            refused=look.refused,
            is_installed=bool(look.found),
            problems=tuple(problems if look.found else ()),
            unseen=(*unseen, *(_UNSEEN if look.tables else ())),
            marks=marks,
            oldest_seconds=oldest_seconds,
        )

    def ddl(self, *, notify: bool = False) -> Sequence[str]:
        """What `install` runs where nothing is installed."""
        self._require_polling(notify)
        look = self._look()
        self._require_tables(look)
        created = [s for triggers in look.triggers.values() for s in triggers.values()]
        return [sql.CREATE_CHANGES, *created, sql.MARK_EVERYBODY]

    def removal_ddl(self) -> Sequence[str]:
        """What `remove` runs; none where nothing is installed."""
        with self._database.snapshot() as connection:
            return _removal(installed(connection))

    def install(
        self, *, notify: bool = False, lock_timeout_seconds: float = LOCK_SECONDS
    ) -> ChangeStatus:
        """Put in what is missing, renew what is outdated, take out what no mapped table needs."""
        self._require_polling(notify)
        tables = self._tracked()
        self._require_tables(self._look())
        with writing(self._database, lock_seconds=lock_timeout_seconds) as connection:
            look = _look(connection, tables)  # again: nobody can change it any more
            statements = [] if sql.CHANGES in look.found else [sql.CREATE_CHANGES]
            for triggers in look.triggers.values():
                for name, statement in triggers.items():
                    if look.found.get(name) != statement:
                        statements += [sql.drop_trigger(name), statement]
            # Whatever was not seen until now is seen by looking at everybody.
            mends = bool(statements)
            statements += [sql.drop_trigger(name) for name in look.left_over]
            _run(connection, [*statements, *([sql.MARK_EVERYBODY] if mends else [])])
        return self.status()

    def remove(self, *, lock_timeout_seconds: float = LOCK_SECONDS) -> None:
        """Take everything out again, marks included."""
        with self._database.snapshot() as connection:
            is_installed = bool(installed(connection))
        if is_installed:
            with writing(self._database, lock_seconds=lock_timeout_seconds) as connection:
                _run(connection, _removal(installed(connection)))

    def close(self) -> None:
        """Nothing is kept open."""

    def _look(self) -> _Look:
        tables = self._tracked()
        with self._database.snapshot() as connection:
            return _look(connection, tables)

    def _require_tables(self, look: _Look) -> None:
        if not look.tables:
            raise nothing_to_watch(self._database.location, look.refused)

    def _require_polling(self, notify: bool) -> None:
        if notify:
            raise UnsupportedError(
                "SQLite cannot notify",
                why=f"{self._database.location} is a file, and no server tells of its changes.",
                fix="leave --notify out; a worker looks for marks several times a second",
            )


def _look(connection: Connection, tables: Sequence[TrackedTable]) -> _Look:
    watched, refused, triggers = [], [], {}
    for table in tables:
        why_not = refusal_of_conditions(table) or refusal(connection, table)
        if why_not is not None:
            refused.append(why_not)
            continue
        watched.append(table)
        triggers[table.name] = sql.triggers(read_watch(connection, table))
    return _Look(watched, tuple(refused), triggers, installed(connection))


def _removal(found: dict[str, str]) -> list[str]:
    dropped = [sql.drop_trigger(name) for name in sorted(found) if name != sql.CHANGES]
    return [*dropped, *([sql.DROP_CHANGES] if sql.CHANGES in found else [])]


def _run(connection: Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)
        _log.info("ran: %s", statement, extra={"action": "triggers.change"})


def _problems(table: str, look: _Look) -> list[str]:
    """What is missing or outdated at one table, a sentence each."""
    wanted = look.triggers[table]
    missing = [name for name in wanted if name not in look.found]
    outdated = [n for n, statement in wanted.items() if look.found.get(n, statement) != statement]
    problems = []
    if missing:
        problems.append(f"{table} lacks the triggers {', '.join(missing)}")
    if outdated:
        problems.append(
            f"{table}: the triggers {', '.join(outdated)} are outdated, as the mapping or the "
            "table has changed since"
        )
    return problems
