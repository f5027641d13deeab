"""Editing one owner's document under its row's lock: the only place that writes to a source.

Checks, syncs and searches never come here. It has connections of its own, so that those of the
readers stay unable to write.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from undrift.errors import (
    ConfigError,
    InvalidDocument,
    OwnerNotFound,
    TransientError,
    UndriftError,
    UnsupportedError,
    WriteFailed,
)
from undrift.mapping import DocumentTable
from undrift.sources.database import Database, condition, postgres_engine
from undrift.sources.failures import mapped_failures
from undrift.sources.owners import OwnerColumn

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
        read = sa.select(
            owner.listed.label("owner"), _as_text(document, self._database).label("document")
        ).where(*mine)
        if self._database.is_postgres:
            read = read.with_for_update()
        with self._writing() as connection:
            rows = [row for row in connection.execute(read) if str(row.owner) == owner_id]
            if not rows:
                raise OwnerNotFound(owner_id, in_source_only=True)
            if len(rows) > 1:
                raise _several_rows(owner_id, len(rows))
            raw = _text_of(owner_id, rows[0].document)
            changed = change(raw)
            if changed == raw:
                return
            value = sa.literal(changed, sa.Text())
            written = connection.execute(
                sa.update(table).where(*mine).values({document: sa.cast(value, document.type)})
                if self._database.is_postgres
                else sa.update(table).where(*mine).values({document: value})
            )
            if written.rowcount != 1:
                raise _not_one_row(owner_id, written.rowcount)

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""
        with self._opening:
            engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()

    def _table(self) -> tuple[sa.Table, OwnerColumn]:
        if self._described is None:
            layout = self._layout
            table = self._database.table(
                layout.table,
                layout.owner,
                [layout.document],
                setting="[source.documents] table, owner and document",
            )
            self._described = table, self._database.owner_column(table.c[layout.owner])
        return self._described

    def _rows_of(self, owner: OwnerColumn, owner_id: str) -> list[sa.ColumnElement[bool]]:
        conditions = [owner.named([owner_id]), *condition(self._layout.where)]
        if self._database.is_postgres:
            # A collation may find two spellings equal, and only one of them is meant.
            printed = sa.collate(sa.cast(owner.listed, sa.Text), "C")
            conditions.append(printed == sa.literal(owner_id, sa.Text()))
        return conditions

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """One transaction that may write; it commits if the block ends normally."""
        location = self._database.location
        with self._opening:
            if self._engine is None:
                self._engine = (
                    postgres_engine(self._database.url, may_write=True)
                    if self._database.is_postgres
                    else _sqlite_engine(self._database.url)
                )
            engine = self._engine
        with mapped_failures(location), _mapped_refusals(location), engine.begin() as connection:
            if self._database.is_postgres:
                connection.execute(_AS_WE_WRITE, {"lock_timeout": f"{LOCK_SECONDS * 1000:.0f}"})
            yield connection


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

    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.QueuePool)

    # The write lock comes before the read: two edits that both read first would lose one.
    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


# --- refusals ---------------------------------------------------------------------------------


@contextmanager
def _mapped_refusals(location: str) -> Iterator[None]:
    """Turn what a database says to a writer, and to no reader, into undrift's errors."""
    try:
        yield
    except sa.exc.DBAPIError as exc:
        error = _refusal(exc.orig, location)
        if error is None:
            raise
        raise error from exc


def _refusal(original: BaseException | None, location: str) -> UndriftError | None:
    state = getattr(original, "sqlstate", None)
    first_line = (str(original).strip().splitlines() or [""])[0].rstrip(".")
    lowered = first_line.lower()
    source_file = getattr(getattr(original, "diag", None), "source_file", None)
    if state in ("55P03", "40001", "40P01") or "locked" in lowered:
        return TransientError(
            "The profile is being changed by another program",
            why=f"{location}: its row was not free within {LOCK_SECONDS} s; nothing was written.",
            fix="try again",
        )
    if state == "25006" or "readonly database" in lowered:
        return ConfigError(
            "The source cannot be written",
            why=f"{location} is read-only or a standby.",
            fix="point DATABASE_URL at the primary, with a role that may write",
        )
    if state == "42501" and source_file != "rls.c":
        return ConfigError(
            "The source role may not write",
            why=f"{location}: {first_line}.",
            fix="GRANT SELECT, UPDATE on the documents' table to this role; only the assistant's "
            "tools need it",
        )
    if state in ("0A000", "55000"):
        return UnsupportedError(
            "This table cannot be edited",
            why=f"{location}: {first_line}.",
            fix="name the table itself in [source.documents], not a view over it",
        )
    # Of constraints and triggers only the kind is told: the message may quote the row.
    if (state or "")[:2] in ("22", "23", "44", "P0") or "constraint" in lowered:
        return WriteFailed(
            "The source refused the new document",
            why=f"{location}: a constraint or a trigger stands against it"
            f"{f' (SQLSTATE {state})' if state else ''}; nothing was written.",
            fix="look at the table's constraints and triggers",
        )
    return None


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
