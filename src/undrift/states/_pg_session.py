"""One call of a state in PostgreSQL: its connection, its tables and its scope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString, NamedTuple

from psycopg import Connection
from psycopg.rows import TupleRow

from undrift.states._pg_statements import Statements


class Session(NamedTuple):
    """What every statement of a call shares; ``%(scope)s`` is given to each.

    Lists travel as one array for each column, binary (%b): in PostgreSQL's text format psycopg
    escapes them string by string, at three times the CPU.
    """

    connection: Connection[TupleRow]
    statements: Statements
    scope: str

    def rows(self, statement: LiteralString, **parameters: object) -> Sequence[TupleRow]:
        """All rows of a query."""
        query = self.statements.ready(statement)
        given = {"scope": self.scope, **parameters}
        return self.connection.execute(query, given, binary=True).fetchall()

    def row(self, statement: LiteralString, **parameters: object) -> TupleRow | None:
        """The first row of a query."""
        query = self.statements.ready(statement)
        given = {"scope": self.scope, **parameters}
        return self.connection.execute(query, given, binary=True).fetchone()

    def run(self, statement: LiteralString, **parameters: object) -> int:
        """Run a statement, and say how many rows it changed."""
        query = self.statements.ready(statement)
        return self.connection.execute(query, {"scope": self.scope, **parameters}).rowcount
