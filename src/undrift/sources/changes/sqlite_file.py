"""The application's SQLite file: what it says of a table, and short writes into it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from undrift.sources.changes.failures import mapped_change_failures
from undrift.sources.changes.sqlite_sql import (
    CHANGES,
    PREFIX,
    KeyTerm,
    UniqueKey,
    Watch,
    parse_index,
    quoted,
)
from undrift.sources.changes.tracked import UNTIL_LOOKED_AT, TrackedTable
from undrift.sources.database import Database

_GENERATED_OR_PLAIN = (0, 2, 3)  # `hidden` of PRAGMA table_xinfo; 1 is a virtual table's own
_EXPRESSION = -2  # `cid` of PRAGMA index_xinfo
_RIGHTS = "let undrift run as a user who may write the file and its folder"


def plain_name(name: str) -> str:
    """A mapped table's name without its schema, which is ``main``."""
    return name.rpartition(".")[2]


def refusal(connection: Connection, table: TrackedTable) -> str | None:
    """Why *table* cannot have triggers that see its changes; None if it can."""
    schema = table.name.rpartition(".")[0]
    found = connection.execute(
        sa.text("SELECT type, sql FROM sqlite_master WHERE lower(name) = lower(:name)"),
        {"name": plain_name(table.name)},
    ).first()
    if schema.lower() not in ("", "main") or found is None:
        return f"{table.name} is not a table of this file; {UNTIL_LOOKED_AT}"
    if found.type != "table":
        return f"{table.name} is a {found.type}, which changes without a trigger; {UNTIL_LOOKED_AT}"
    if str(found.sql).upper().startswith("CREATE VIRTUAL"):
        return f"{table.name} is a virtual table, which can have no triggers; {UNTIL_LOOKED_AT}"
    return None


def read_watch(connection: Connection, table: TrackedTable) -> Watch:
    """What the triggers of *table* are made of."""
    name = plain_name(table.name)
    columns = tuple(
        row.name
        for row in connection.exec_driver_sql(f"PRAGMA table_xinfo({quoted(name)})")
        if row.hidden in _GENERATED_OR_PLAIN
    )
    indexes = connection.exec_driver_sql(f"PRAGMA index_list({quoted(name)})").all()
    keys = [
        _unique_key(connection, index.name, is_primary=index.origin == "pk")
        for index in indexes
        if index.unique
    ]
    return Watch(
        table=name,
        owners=tuple(owner.name for owner in table.owners),
        compared=columns if table.compared is None else table.compared,
        columns=columns,
        rowid=_rowid(connection, name, columns),
        keys=tuple(keys),
    )


def installed(connection: Connection) -> dict[str, str]:
    """Undrift's triggers, and its table, as they are: their statements by name."""
    rows = connection.execute(
        sa.text(
            "SELECT name, sql FROM sqlite_master WHERE substr(name, 1, :length) = :prefix"
            " AND (type = 'trigger' OR name = :changes)"
        ),
        {"length": len(PREFIX), "prefix": PREFIX, "changes": CHANGES},
    )
    return {row.name: row.sql for row in rows}


@contextmanager
def writing(database: Database, *, lock_seconds: float) -> Iterator[Connection]:
    """A short transaction that has the write lock from its beginning."""
    path = Path(database.url.database or "").absolute()

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",  # never creates a source
            uri=True,
            isolation_level=None,
            timeout=lock_seconds,
        )

    engine = sa.create_engine(
        "sqlite://", creator=connect, poolclass=sa.NullPool, hide_parameters=True
    )

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with (
        mapped_change_failures(
            database.location, table="the file", rights=_RIGHTS, lock_seconds=lock_seconds
        ),
        engine.begin() as connection,
    ):
        yield connection


def _unique_key(connection: Connection, name: str, *, is_primary: bool) -> UniqueKey:
    statement = connection.scalar(
        sa.text("SELECT sql FROM sqlite_master WHERE type = 'index' AND name = :name"),
        {"name": name},
    )
    # An index that a constraint made has no statement, and neither expressions nor a predicate.
    expressions, predicate = parse_index(statement) if statement else ([], "")
    terms = []
    for row in connection.exec_driver_sql(f"PRAGMA index_xinfo({quoted(name)})"):
        if not row.key:
            continue
        is_expression = row.cid == _EXPRESSION
        terms.append(
            KeyTerm(
                column="" if is_expression else row.name,
                expression=expressions[row.seqno] if is_expression else "",
                collation=row.coll,
            )
        )
    return UniqueKey(tuple(terms), predicate, is_primary)


def _rowid(connection: Connection, table: str, columns: tuple[str, ...]) -> str:
    taken = {column.lower() for column in columns}
    for name in ("rowid", "_rowid_", "oid"):
        if name in taken:
            continue
        try:
            column: sa.ColumnElement[Any] = sa.literal_column(name)
            probe = sa.select(column).select_from(sa.table(table)).limit(0)
            connection.execute(probe)
        except sa.exc.OperationalError:
            return ""  # WITHOUT ROWID
        return name
    return ""
