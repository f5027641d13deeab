"""The calls of a state in PostgreSQL: their connection, their tables and their scope."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import LiteralString, NamedTuple, TypeVar

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from undrift.pooling import Pool
from undrift.postgres import connect, is_usable
from undrift.states._pg_address import Address
from undrift.states._pg_errors import PASSING, Doing, mapped_errors
from undrift.states._pg_statements import Statements

T = TypeVar("T")

# Everybody locks in one order, so this is for what a DBA's own statements may do to it.
_RETRIES = 5

_STREAM_ROWS = 100


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

    def stream(self, statement: LiteralString, **parameters: object) -> Iterator[TupleRow]:
        """The rows of a query as they come, in the memory of a few; within a transaction."""
        query = self.statements.ready(statement)
        with self.connection.cursor(name="undrift", withhold=False) as cursor:
            cursor.itersize = _STREAM_ROWS
            cursor.execute(query, {"scope": self.scope, **parameters}, binary=True)
            yield from cursor


class Sessions:
    """The calls of one scope at one address, errors mapped; each borrows a connection.

    Safety:
        May be used from several threads. What another transaction had to give way for is done
        again.
    """

    def __init__(self, address: Address, statements: Statements, scope: str) -> None:
        self._address = address
        self._statements = statements
        self._scope = scope
        self._pool = Pool(partial(connect, address.conninfo), Connection.close, is_usable)

    def once(
        self,
        doing: Doing,
        work: Callable[[Session], T],
        *,
        but: tuple[type[psycopg.Error], ...] = (),
    ) -> T:
        """Do *work*, each statement of which commits by itself.

        Args:
            but: errors of the driver that are the caller's.
        """
        return self._do(doing, work, but, together=False)

    def together(
        self,
        doing: Doing,
        work: Callable[[Session], T],
        *,
        but: tuple[type[psycopg.Error], ...] = (),
    ) -> T:
        """Do *work* in one transaction; *but*: see `once`."""
        return self._do(doing, work, but, together=True)

    def untried(self, doing: Doing, work: Callable[[Session], T]) -> T:
        """Do *work* in one transaction, and never again."""
        with mapped_errors(self._address, doing):
            return self._try(work, together=True)

    @contextmanager
    def transaction(
        self, doing: Doing, *, but: tuple[type[psycopg.Error], ...] = ()
    ) -> Iterator[Session]:
        """One transaction, open for as long as the block takes; *but*: see `once`."""
        with (
            mapped_errors(self._address, doing, but=but),
            self._pool.connection() as connection,
            connection.transaction(),
        ):
            yield Session(connection, self._statements, self._scope)

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._pool.close()

    def _do(
        self,
        doing: Doing,
        work: Callable[[Session], T],
        but: tuple[type[psycopg.Error], ...],
        *,
        together: bool,
    ) -> T:
        with mapped_errors(self._address, doing, but=but):
            for _ in range(_RETRIES):
                with suppress(*PASSING):
                    return self._try(work, together=together)
            return self._try(work, together=together)

    def _try(self, work: Callable[[Session], T], *, together: bool) -> T:
        with self._pool.connection() as connection:
            session = Session(connection, self._statements, self._scope)
            if not together:
                return work(session)
            with connection.transaction():
                return work(session)
