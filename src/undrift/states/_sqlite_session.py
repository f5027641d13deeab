"""One call of a state in SQLite: its connection, its scope and its moment."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from json import JSONEncoder
from typing import Any, NamedTuple

from undrift.states._sqlite_file import Connection

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

    def run(self, statement: str, **parameters: object) -> int:
        """Run a statement, and say how many rows it changed."""
        return self.connection.execute(statement, self._with(parameters)).rowcount

    def run_each(self, statement: str, sets: Iterable[Mapping[str, object]]) -> None:
        """Run a statement with each of several sets of parameters."""
        self.connection.executemany(statement, (self._with(parameters) for parameters in sets))

    def _with(self, parameters: Mapping[str, object]) -> dict[str, object]:
        return {"scope": self.scope, "now": self.now, **parameters}


def id_list(ids: Sequence[str]) -> str:
    """*ids* as a parameter for ``json_each``: any number of them in one unchanging statement."""
    return _encode(list(ids))
