"""The SQLite file that holds a state, and the connections to it.

It may be the vectors' file or the application's: nothing in it is touched but the state's tables,
and the journal mode, without which every reader would hold up the application's commits.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from undrift.errors import ConfigError
from undrift.mounts import NETWORK_FILESYSTEMS, filesystem_of
from undrift.pooling import Pool
from undrift.states._meaning import NOT_CREATED
from undrift.states._sqlite_errors import is_busy, mapped_errors

BUSY_SECONDS = 30.0
"""How long a call waits for another process's write."""

_WAL_ATTEMPTS = 10


class Connection(sqlite3.Connection):
    """A connection that knows which file it opened; the path may come to mean another one."""

    file_id: tuple[int, int] = (0, 0)


class SqliteFile:
    """Where the state is, opened only when it is there.

    Args:
        path: the file; a relative one is below the working directory.
        read_only: open it with ``mode=ro``.
    """

    def __init__(self, path: str | os.PathLike[str], *, read_only: bool) -> None:
        self._path = Path(path).absolute()
        self._read_only = read_only
        self._pool = Pool(self._open, Connection.close, self._opened_this_file)

    @property
    def location(self) -> str:
        """The file as a URL."""
        return f"sqlite:///{self._path}"

    def exists(self) -> bool:
        """Whether the file is there; only its certain absence is a no.

        Raises:
            ConfigError: it cannot be told, or what is there is no file, or not safe to use.
        """
        self._refuse_network_filesystem()
        try:
            mode = self._path.stat().st_mode
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unusable(str(error.strerror)) from error
        if not stat.S_ISREG(mode):
            raise self._unusable("it is not a file")
        return True

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection in autocommit mode, errors mapped."""
        with mapped_errors(self.location), self._pool.connection() as connection:
            yield connection

    @contextmanager
    def creation(self) -> Iterator[Connection]:
        """One transaction in the file, which is created if it is not there, and set to WAL."""
        self._refuse_network_filesystem()
        if self._read_only:
            raise self._unusable("it is to be opened with mode=ro, so it cannot be created")
        try:
            self._path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise self._unusable(f"its folder cannot be made ({error.strerror})") from error
        with mapped_errors(self.location), closing(self._connect("rwc")) as connection:
            _switch_to_wal(connection)
            with transaction(connection, "IMMEDIATE"):
                yield connection

    def close(self) -> None:
        """Close every idle connection."""
        self._pool.close()

    def _open(self) -> Connection:
        self._refuse_network_filesystem()
        try:
            file_id = _file_id(self._path)
        except FileNotFoundError as error:
            raise NOT_CREATED.error(self.location, "there is no such file") from error
        except OSError as error:
            raise self._unusable(str(error.strerror)) from error
        connection = self._connect("ro" if self._read_only else "rw")
        connection.file_id = file_id
        return connection

    def _opened_this_file(self, connection: Connection) -> bool:
        try:
            return connection.file_id == _file_id(self._path)
        except OSError:
            return False

    def _connect(self, mode: Literal["ro", "rw", "rwc"]) -> Connection:
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode={mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,  # transactions are begun where the code says so
            check_same_thread=False,  # the pool lends it to one thread at a time
            factory=Connection,
        )
        try:
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _unusable(self, why: str) -> ConfigError:
        return ConfigError(
            "The state's file cannot be used",
            why=f"{self.location}: {why}.",
            fix="correct the state's URL, or the rights on the file and its folder",
        )

    def _refuse_network_filesystem(self) -> None:
        filesystem = filesystem_of(self._path)
        if filesystem in NETWORK_FILESYSTEMS:
            raise ConfigError(
                "The state is on a network filesystem",
                why=f"{self.location} is on {filesystem}, where SQLite's locks do not hold between "
                "machines: two of them would destroy the file.",
                fix="set the state's URL to a file on a local disk, or to a server "
                "(postgresql://…)",
            )


@contextmanager
def transaction(connection: Connection, kind: Literal["DEFERRED", "IMMEDIATE"]) -> Iterator[None]:
    """One transaction. An exception ends it as well: its connection is closed, never lent again."""
    connection.execute(f"BEGIN {kind}")
    yield
    connection.execute("COMMIT")


def _switch_to_wal(connection: Connection) -> None:
    """Set WAL, which unlike a transaction does not wait while another process does the same."""
    for _ in range(_WAL_ATTEMPTS):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
        with transaction(connection, "IMMEDIATE"):
            pass  # waits until the other is done
    connection.execute("PRAGMA journal_mode = WAL")


def _file_id(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
