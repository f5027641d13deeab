"""Fences over a table of their own beside the vectors, for the stores' contract."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from undrift.state import Expected
from undrift.testing.faulty_store import MemoryTransaction

Row = tuple[str, str, str]


def open_fence(location: str) -> SqliteFence | PostgresFence | MemoryFence:
    """The fence beside the store at *location*."""
    if location.startswith("memory:"):
        return MemoryFence()
    if location.startswith("sqlite:///"):
        return SqliteFence(location.removeprefix("sqlite:///"))
    url, _, table = location.partition("?table=")
    return PostgresFence(url, table.partition(".")[0])


def _unexpected(expected: Sequence[Expected], found: dict[Row, int]) -> frozenset[str]:
    return frozenset(row.owner_id for row in expected if found.get(row[:3]) != row.version)


class SqliteFence:
    """In a SQLite file, whose one write lock holds everybody."""

    def __init__(self, path: str) -> None:
        self._path = path
        with closing(self._connect()) as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS fence (owner_id TEXT, kind TEXT, entity_id TEXT, "
                "version INTEGER, published INTEGER DEFAULT 0, "
                "PRIMARY KEY (owner_id, kind, entity_id))"
            )

    def hold(self, connection: object, expected: Sequence[Expected]) -> frozenset[str]:
        """See `Fence.hold`."""
        assert isinstance(connection, sqlite3.Connection)
        assert connection.in_transaction
        found = {row[:3]: row[3] for row in connection.execute("SELECT * FROM fence")}
        return _unexpected(expected, found)

    def published(self, connection: object, expected: Sequence[Expected]) -> None:
        """See `Fence.published`."""
        assert isinstance(connection, sqlite3.Connection)
        connection.executemany(
            "UPDATE fence SET published = max(published, :version) WHERE owner_id = :owner_id "
            "AND kind = :kind AND entity_id = :entity_id",
            [row._asdict() for row in expected],
        )

    def put(self, rows: Sequence[Expected]) -> None:
        """See `RowFence.put`."""
        with closing(self._connect()) as connection:
            connection.executemany(
                "INSERT INTO fence (owner_id, kind, entity_id, version) VALUES (?, ?, ?, ?) "
                "ON CONFLICT DO UPDATE SET version = excluded.version",
                rows,
            )

    def published_versions(self) -> dict[Row, int]:
        """See `RowFence.published_versions`."""
        with closing(self._connect()) as connection:
            return {row[:3]: row[4] for row in connection.execute("SELECT * FROM fence")}

    def try_to_raise(self, row: Row) -> bool:
        """See `RowFence.try_to_raise`."""
        with closing(self._connect(timeout=0)) as connection:
            try:
                connection.execute(
                    "UPDATE fence SET version = version + 1 WHERE owner_id = ? AND kind = ? "
                    "AND entity_id = ?",
                    row,
                )
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                    raise
                return False
        return True

    def close(self) -> None:
        """Nothing is kept open."""

    def _connect(self, timeout: float = 30) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=timeout, isolation_level=None)


class PostgresFence:
    """In a table of the schema that the vectors are in, locked row by row."""

    def __init__(self, url: str, schema: str) -> None:
        self._url = url
        self._table = sql.Identifier(schema, "fence")
        with self._connect() as connection:
            connection.execute(
                self._ready(
                    "CREATE TABLE IF NOT EXISTS {} (owner_id text, kind text, entity_id text, "
                    "version bigint, published bigint DEFAULT 0, "
                    "PRIMARY KEY (owner_id, kind, entity_id))"
                )
            )

    def hold(self, connection: object, expected: Sequence[Expected]) -> frozenset[str]:
        """See `Fence.hold`."""
        assert isinstance(connection, psycopg.Connection)
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        rows = connection.execute(
            self._ready(
                "SELECT owner_id, kind, entity_id, version FROM {} WHERE owner_id = ANY(%s) "
                "ORDER BY 1, 2, 3 FOR UPDATE"
            ),
            [sorted({row.owner_id for row in expected})],
        )
        return _unexpected(expected, {row[:3]: row[3] for row in rows})

    def published(self, connection: object, expected: Sequence[Expected]) -> None:
        """See `Fence.published`."""
        assert isinstance(connection, psycopg.Connection)
        connection.cursor().executemany(
            self._ready(
                "UPDATE {} SET published = greatest(published, %(version)s) WHERE owner_id = "
                "%(owner_id)s AND kind = %(kind)s AND entity_id = %(entity_id)s"
            ),
            [row._asdict() for row in expected],
        )

    def put(self, rows: Sequence[Expected]) -> None:
        """See `RowFence.put`."""
        with self._connect() as connection:
            connection.cursor().executemany(
                self._ready(
                    "INSERT INTO {} AS row (owner_id, kind, entity_id, version) "
                    "VALUES (%s, %s, %s, %s) "
                    "ON CONFLICT (owner_id, kind, entity_id) DO UPDATE SET "
                    "version = excluded.version"
                ),
                rows,
            )

    def published_versions(self) -> dict[Row, int]:
        """See `RowFence.published_versions`."""
        with self._connect() as connection:
            rows = connection.execute(self._ready("SELECT * FROM {}")).fetchall()
        return {row[:3]: row[4] for row in rows}

    def try_to_raise(self, row: Row) -> bool:
        """See `RowFence.try_to_raise`."""
        with self._connect() as connection:
            connection.execute("SET LOCAL lock_timeout = '100ms'")
            try:
                connection.execute(
                    self._ready(
                        "UPDATE {} SET version = version + 1 WHERE owner_id = %s AND kind = %s "
                        "AND entity_id = %s"
                    ),
                    row,
                )
            except psycopg.errors.LockNotAvailable:
                connection.rollback()
                return False
        return True

    def close(self) -> None:
        """Nothing is kept open."""

    def _connect(self) -> psycopg.Connection[TupleRow]:
        return psycopg.connect(self._url)

    def _ready(self, statement: str) -> bytes:
        return statement.format(self._table.as_string(None)).encode()


class MemoryFence:
    """In this process, for the store in memory."""

    def __init__(self) -> None:
        self._versions: dict[Row, int] = {}
        self._published: dict[Row, int] = {}
        self._held: set[str] = set()

    def hold(self, connection: object, expected: Sequence[Expected]) -> frozenset[str]:
        """See `Fence.hold`."""
        assert isinstance(connection, MemoryTransaction)
        self._held.update(row.owner_id for row in expected)
        connection.on_end(self._held.clear)
        return _unexpected(expected, self._versions)

    def published(self, connection: object, expected: Sequence[Expected]) -> None:
        """See `Fence.published`."""
        assert isinstance(connection, MemoryTransaction)
        for row in expected:
            self._published[row[:3]] = max(row.version, self._published[row[:3]])

    def put(self, rows: Sequence[Expected]) -> None:
        """See `RowFence.put`."""
        for row in rows:
            self._versions[row[:3]] = row.version
            self._published.setdefault(row[:3], 0)

    def published_versions(self) -> dict[Row, int]:
        """See `RowFence.published_versions`."""
        return dict(self._published)

    def try_to_raise(self, row: Row) -> bool:
        """See `RowFence.try_to_raise`."""
        if row[0] in self._held:
            return False
        self._versions[row] += 1
        return True

    def close(self) -> None:
        """There is nothing to give back."""
