"""Editing one owner's document under its row's lock: the only place that writes to a source.

Checks, syncs and searches never come here. It has connections of its own, so that those of the
readers stay unable to write.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from undrift.errors import (
    InvalidDocument,
    OwnerNotFound,
    UndriftError,
    UnsupportedError,
    WriteFailed,
)
from undrift.mapping import DocumentTable
from undrift.sources.database import Database, condition, postgres_engine
from undrift.sources.failures import mapped_failures, without_details
from undrift.sources.forks import own_after_fork
from undrift.sources.owners import OwnerColumn
from undrift.sources.refusals import mapped_refusals, not_saved, saved_or_not

LOCK_SECONDS = 10
"""How long an edit waits for a row that another transaction holds."""


class TableDocumentEditor:
    """The `DocumentEditor` of a table with one JSON document per owner.

    Args:
        database: the readers' view of the same database; it describes the table.
    """

    def __init__(self, database: Database, layout: DocumentTable) -> None:
        self._database = database
        self._layout = layout
        self._opening = Lock()
        self._engine: Engine | None = None
        self._described: tuple[sa.Table, OwnerColumn] | None = None

    def edit(self, owner_id: str, change: Callable[[str], str]) -> None:
        """Replace the owner's document by what *change* makes of it; the port says the rest."""
        table, owner = self._table()
        document = table.c[self._layout.document]
        mine = self._rows_of(owner, owner_id)
        with self._locked(owner_id, table, owner) as (connection, stored):
            raw = _text_of(owner_id, stored)
            changed = change(raw)
            if changed == raw:
                return
            value = self._value(document, changed, as_bytes=isinstance(stored, bytes))
            with self._mapped(is_writing=True):
                written = connection.execute(
                    sa.update(table).where(*mine).values({document: value})
                )
                if written.rowcount != 1:
                    raise _not_one_row(owner_id, written.rowcount)
                lost = _committed(connection)
        if lost is not None:
            self._settle(owner_id, raw, changed, lost)

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""
        with self._opening:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _table(self) -> tuple[sa.Table, OwnerColumn]:
        if self._described is None:
            self._described = self._database.document_table(self._layout)
        return self._described

    def _rows_of(self, owner: OwnerColumn, owner_id: str) -> list[sa.ColumnElement[bool]]:
        conditions = [owner.named([owner_id]), *condition(self._layout.where)]
        # A collation may find two spellings equal, and only one of them is meant.
        spelled = sa.literal(owner_id, sa.Text())
        if self._database.is_postgres:
            # Not a cast, which takes the blanks from behind a char(n).
            printed = sa.func.format(sa.literal("%s", sa.Text()), owner.listed, type_=sa.Text())
            conditions.append(sa.collate(printed, "C") == spelled)
        else:
            letters = sa.collate(sa.cast(owner.listed, sa.Text), "BINARY")
            is_text = sa.func.typeof(owner.listed) == "text"
            conditions.append(sa.or_(~is_text, letters == spelled))
        return conditions

    @contextmanager
    def _locked(
        self, owner_id: str, table: sa.Table, owner: OwnerColumn
    ) -> Iterator[tuple[Connection, object]]:
        """The owner's document as it is stored, its row locked; rolled back if not committed."""
        document = table.c[self._layout.document]
        read = sa.select(
            owner.listed.label("owner"), _as_text(document, self._database).label("document")
        ).where(*self._rows_of(owner, owner_id))
        if self._database.is_postgres:
            read = read.with_for_update()
        with mapped_failures(self._database.location), self._connect() as connection:
            with self._mapped(is_writing=False):
                if self._database.is_postgres:
                    limit = {"lock_timeout": f"{LOCK_SECONDS * 1000:.0f}"}
                    connection.execute(_AS_WE_WRITE, limit)
                rows = [row for row in connection.execute(read) if str(row.owner) == owner_id]
            if not rows:
                raise OwnerNotFound(owner_id, in_source_only=True)
            if len(rows) > 1:
                raise _several_rows(owner_id, len(rows))
            yield connection, rows[0].document

    def _settle(self, owner_id: str, raw: str, changed: str, lost: sa.exc.DBAPIError) -> None:
        """Find out what became of a commit that was not answered.

        The row's lock makes sure that it is over: while it could still succeed, its own lock is
        there.

        Raises:
            TransientError: nothing was written.
            UnknownStateError: nobody can tell.
        """
        location = self._database.location
        try:
            with self._locked(owner_id, *self._table()) as (_, stored):
                now = _text_of(owner_id, stored)
        except UndriftError as exc:
            raise saved_or_not(location, owner_id) from exc
        if now == raw:
            raise not_saved(location) from without_details(lost)
        if not _is_same_json(now, changed):
            raise saved_or_not(location, owner_id) from without_details(lost)

    def _value(
        self, document: sa.Column[Any], changed: str, *, as_bytes: bool
    ) -> sa.ColumnElement[Any]:
        if as_bytes:
            return sa.literal(changed.encode(), sa.LargeBinary())
        value = sa.literal(changed, sa.Text())
        return sa.cast(value, document.type) if self._database.is_postgres else value

    def _mapped(self, *, is_writing: bool) -> AbstractContextManager[None]:
        return mapped_refusals(
            self._database.location, lock_seconds=LOCK_SECONDS, is_writing=is_writing
        )

    def _connect(self) -> Connection:
        with self._opening:
            if self._engine is None:
                self._engine = (
                    postgres_engine(self._database.url, may_write=True)
                    if self._database.is_postgres
                    else _sqlite_engine(self._database.url)
                )
            engine = self._engine
        return engine.connect()


# What a policy hides must be an error here too: a hidden row would look like no such user.
_AS_WE_WRITE = sa.text(
    "SELECT set_config('row_security', 'off', true),"
    " set_config('lock_timeout', :lock_timeout, true)"
)


def _as_text(document: sa.Column[Any], database: Database) -> sa.ColumnElement[Any]:
    if database.is_postgres:
        return sa.cast(document, sa.Text)
    return sa.type_coerce(document, sa.types.NullType())


def _text_of(owner_id: str, raw: object) -> str:
    if isinstance(raw, bytes):
        try:
            raw = raw.decode()
        except UnicodeDecodeError:
            raw = None
    if not isinstance(raw, str):
        raise InvalidDocument(
            owner_id,
            why="it is NULL or no text, so there is nothing to add to.",
            fix="store an object ({} for an empty profile), then try again",
        )
    return raw


def _sqlite_engine(url: URL) -> Engine:
    path = Path(url.database or "").absolute()

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",  # never creates a source
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=LOCK_SECONDS,
        )
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        return connection

    engine = sa.create_engine(
        "sqlite://", creator=connect, poolclass=sa.QueuePool, hide_parameters=True
    )

    # The write lock comes before the read: two edits that both read first would lose one.
    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return own_after_fork(engine)


def _committed(connection: Connection) -> sa.exc.DBAPIError | None:
    """Commit; what broke the connection, if it broke before the answer."""
    try:
        connection.commit()
    except sa.exc.DBAPIError as exc:
        if exc.connection_invalidated:
            return exc
        # SQLite keeps a transaction whose commit found a reader in its way, and with it the lock.
        connection.rollback()
        raise
    return None


def _is_same_json(one: str, other: str) -> bool:
    try:
        return bool(json.loads(one) == json.loads(other))
    except (ValueError, RecursionError):
        return False


def _several_rows(owner_id: str, count: int) -> UnsupportedError:
    return UnsupportedError(
        f"The documents of user {owner_id} cannot be edited",
        why=f"there are {count} rows of this owner, and which of them is meant is not known.",
        fix="keep one row per owner, or write the row with your own SQL and call sync(owner)",
    )


def _not_one_row(owner_id: str, count: int) -> WriteFailed:
    return WriteFailed(
        f"The document of user {owner_id} was not written",
        why=f"the update met {count} rows instead of one, and was undone.",
        fix="look at the table's rules and triggers",
    )
