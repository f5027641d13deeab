"""Where a fleet lies while it is measured: in one PostgreSQL, in two SQLite files, or elsewhere."""

from __future__ import annotations

import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Protocol

import psycopg

from benchmarks.children import ROOT, cpu_of_tree
from benchmarks.fleet import Fleet, load_postgres, load_sqlite
from benchmarks.planting import Hand, Parameters, in_dialect

SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "2GB", "checkpoint_timeout": "1h"}
BLOCK_BYTES = 8_192
SESSION_SECONDS = 10.0

_OTHER_SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)

_MEMO_TABLE = {"postgresql": "undrift.state_memo", "sqlite": "undrift_state_memo"}
_MARK_TABLE = {"postgresql": "undrift.change", "sqlite": "undrift_change"}


class World(Hand, Protocol):
    """Both sides of a fleet.

    Attributes:
        name: which databases.
        source: URLs, as those below.
        state: None for beside the vectors.
    """

    name: str
    source: str
    store: str
    state: str | None

    def load(self, fleet: Fleet) -> None:
        """Make the source."""

    def settle(self) -> None:
        """Leave no upkeep of the tables to whoever comes next."""

    def forget_memos(self) -> None:
        """Empty the table of the memos."""

    def take_marks(self) -> None:
        """Remove the triggers' marks, as a watch does once it knows them."""

    def silenced(self) -> AbstractContextManager[None]:
        """A context in which the source's triggers are off."""

    def server_cpu_seconds(self) -> float:
        """What the servers have used so far; 0 without any."""

    def bytes_touched(self) -> int:
        """What the servers have read so far, from their own memory too; 0 without any."""

    def bytes_stored(self) -> int:
        """How large source, store and state are."""

    def drop_bare(self) -> None:
        """Remove what the bare load wrote."""

    def drop_vectors(self) -> None:
        """Remove the store and its state."""


class PostgresWorld:
    """Everything in one database of a server."""

    name = "postgresql"
    state: str | None = None

    def __init__(self, url: str, postmaster: int) -> None:
        self.source = self.store = url
        self._postmaster = postmaster

    def load(self, fleet: Fleet) -> None:
        """Make the source."""
        load_postgres(self.source, fleet)

    def write(self, side: str, statements: Iterable[tuple[str, Parameters]]) -> None:
        """One transaction."""
        del side  # both are in one database
        with psycopg.connect(self.source) as connection:
            for statement, parameters in statements:
                text = in_dialect(statement, "postgresql")
                if text:
                    connection.execute(re.sub(r"(?<!:):(\w+)", r"%(\1)s", text), parameters)

    def settle(self) -> None:
        """Vacuum and analyse everything."""
        self._execute("VACUUM ANALYZE")
        self._execute("CHECKPOINT")

    def forget_memos(self) -> None:
        """Empty the table of the memos."""
        self._execute(f"TRUNCATE {_MEMO_TABLE['postgresql']}")

    def take_marks(self) -> None:
        """Remove the triggers' marks."""
        self._execute(f"DELETE FROM {_MARK_TABLE['postgresql']}")

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """The table's triggers are disabled."""
        self._execute("ALTER TABLE profiles DISABLE TRIGGER USER")
        try:
            yield
        finally:
            self._execute("ALTER TABLE profiles ENABLE TRIGGER USER")

    def server_cpu_seconds(self) -> float:
        """Of all the server's processes."""
        self._await_sessions_end()
        return cpu_of_tree(self._postmaster)

    def bytes_touched(self) -> int:
        """Pages of this database that were read or found in memory; ended sessions count."""
        self._await_sessions_end()
        pages = self._one(
            "SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()"
        )
        return pages * BLOCK_BYTES

    def bytes_stored(self) -> int:
        """The whole database."""
        return self._one("SELECT pg_database_size(current_database())")

    def drop_bare(self) -> None:
        """Remove what the bare load wrote."""
        self._execute("DROP TABLE IF EXISTS public.bare_vectors")

    def drop_vectors(self) -> None:
        """Remove the store and its state."""
        self._execute("DROP SCHEMA undrift CASCADE")

    def _await_sessions_end(self) -> None:
        """Wait until what clients that have ended did is counted."""
        deadline = time.monotonic() + SESSION_SECONDS
        while self._one(_OTHER_SESSIONS) and time.monotonic() < deadline:
            time.sleep(0.01)

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self.source, autocommit=True) as connection:
            connection.execute(statement.encode())

    def _one(self, query: str) -> int:
        with psycopg.connect(self.source) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])


class SqliteWorld:
    """Source and store in two files of a folder."""

    name = "sqlite"
    state: str | None = None

    def __init__(self, folder: Path) -> None:
        self._files = {"source": folder / "app.db", "store": folder / "vectors.db"}
        self.source, self.store = (f"sqlite:///{path}" for path in self._files.values())

    def load(self, fleet: Fleet) -> None:
        """Make the source."""
        load_sqlite(str(self._files["source"]), fleet)

    def write(self, side: str, statements: Iterable[tuple[str, Parameters]]) -> None:
        """One transaction."""
        with closing(sqlite3.connect(self._files[side])) as connection, connection:
            for statement, parameters in statements:
                connection.execute(in_dialect(statement, "sqlite"), parameters)

    def settle(self) -> None:
        """Bring both logs into the files."""
        for side in self._files:
            self._execute(side, "PRAGMA wal_checkpoint(TRUNCATE)")

    def forget_memos(self) -> None:
        """Empty the table of the memos."""
        self._execute("store", f"DELETE FROM {_MEMO_TABLE['sqlite']}")

    def take_marks(self) -> None:
        """Remove the triggers' marks."""
        self._execute("source", f"DELETE FROM {_MARK_TABLE['sqlite']}")

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """The triggers are dropped meanwhile: SQLite cannot disable them."""
        with closing(sqlite3.connect(self._files["source"])) as connection:
            triggers = connection.execute(
                "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
            ).fetchall()
        for name, _ in triggers:
            self._execute("source", f'DROP TRIGGER "{name}"')
        try:
            yield
        finally:
            for _, created in triggers:
                self._execute("source", created)

    def server_cpu_seconds(self) -> float:
        """There is no server."""
        return 0.0

    def bytes_touched(self) -> int:
        """There is no server."""
        return 0

    def bytes_stored(self) -> int:
        """Both files."""
        return sum(path.stat().st_size for path in self._files.values())

    def drop_bare(self) -> None:
        """Remove what the bare load wrote."""
        for path in self._files["store"].parent.glob("vectors.db.bare*"):
            path.unlink()

    def drop_vectors(self) -> None:
        """Remove the store and its state."""
        for path in self._files["store"].parent.glob("vectors.db*"):
            path.unlink()

    def _execute(self, side: str, statement: str) -> None:
        with closing(sqlite3.connect(self._files[side])) as connection, connection:
            connection.execute(statement)


@contextmanager
def postgres_world(*, in_memory: bool) -> Iterator[PostgresWorld]:
    """A fresh server of its own."""
    sys.path.insert(0, str(ROOT / "tests"))
    from support.postgres import PostgresServer

    with (
        PostgresServer(durable=not in_memory, settings=SETTINGS) as server,
        server.database() as url,
    ):
        pid = int((server.folder / "data/postmaster.pid").read_text().split()[0])
        yield PostgresWorld(url, pid)


@contextmanager
def sqlite_world(*, in_memory: bool) -> Iterator[SqliteWorld]:
    """A fresh folder of its own."""
    memory = Path("/dev/shm")
    where = memory if in_memory and memory.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="undrift-scale-", dir=where) as folder:
        yield SqliteWorld(Path(folder))
