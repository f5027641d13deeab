"""The calls of a state in SQLite: their connection, their scope and their moment."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from json import JSONEncoder
from typing import Any, NamedTuple

from undrift.states._sqlite_file import Connection, SqliteFile, transaction

_encode = JSONEncoder(ensure_ascii=False).encode

Row = tuple[Any, ...]


class Session(NamedTuple):
    """What every statement of a call shares: ``:scope`` and ``:now``.

    Attributes:
        now: seconds of the state's clock, read once for the whole call.
    """

    connection: Connection
    scope: str
    now: float

    def rows(self, statement: str, **parameters: object) -> list[Row]:
        """All rows of a query."""
        return self.connection.execute(statement, self._with(parameters)).fetchall()

    def row(self, statement: str, **parameters: object) -> Row | None:
        """The first row of a query."""
        row: Row | None = self.connection.execute(statement, self._with(parameters)).fetchone()
        return row

    def stream(self, statement: str, **parameters: object) -> Iterator[Row]:
        """The rows of a query as they come."""
        yield from self.connection.execute(statement, self._with(parameters))

    def run(self, statement: str, **parameters: object) -> int:
        """Run a statement, and say how many rows it changed."""
        return self.connection.execute(statement, self._with(parameters)).rowcount

    def run_each(self, statement: str, sets: Iterable[Mapping[str, object]]) -> None:
        """Run a statement with each of several sets of parameters."""
        self.connection.executemany(statement, (self._with(parameters) for parameters in sets))

    def _with(self, parameters: Mapping[str, object]) -> dict[str, object]:
        return {"scope": self.scope, "now": self.now, **parameters}


class Sessions:
    """The calls of one scope in one file, errors mapped.

    Args:
        clock: seconds; read once for each call.
    """

    def __init__(self, file: SqliteFile, scope: str, clock: Callable[[], float]) -> None:
        self._file = file
        self._scope = scope
        self._clock = clock

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One snapshot; nobody waits for it."""
        with self._file.connection() as connection, transaction(connection, "DEFERRED"):
            yield Session(connection, self._scope, self._clock())

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """The only writer until it ends."""
        with self._file.connection() as connection, transaction(connection, "IMMEDIATE"):
            yield Session(connection, self._scope, self._clock())


def id_list(ids: Sequence[str]) -> str:
    """*ids* as a parameter for ``json_each``: any number of them in one unchanging statement."""
    return _encode(list(ids))
