"""Connections of the pgvector store: nothing of a session outlasts a transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from psycopg import Connection
from psycopg.rows import TupleRow

from undrift.pooling import Pool
from undrift.postgres import connect, is_usable
from undrift.stores._pg_address import WHOLE, Address, VectorType
from undrift.stores._pg_layout import found_vectors
from undrift.stores._pg_vectors import learn_vectors


class VectorColumn(NamedTuple):
    """The vectors' type, and the schema where pgvector is installed."""

    type: VectorType
    schema: str


class Session:
    """A connection, and what its database says of the vectors once it was asked."""

    __slots__ = ("_address", "_column", "connection")

    def __init__(self, connection: Connection[TupleRow], address: Address) -> None:
        self.connection = connection
        self._address = address
        self._column: VectorColumn | None = None

    def vectors(self) -> VectorColumn:
        """How the table stores them; from then on the connection sends vectors of that type."""
        if self._column is not None:
            return self._column
        found = found_vectors(self.connection, self._address.table)
        kind = found or self._address.vectors or WHOLE
        schema = learn_vectors(self.connection, self._address.location, kind)
        column = VectorColumn(kind, schema)
        if found is not None:  # else the table is yet to come, and somebody else may create it
            self._column = column
        return column

    def vector_schema(self) -> str:
        """The schema where pgvector is installed; the connection sends vectors as above."""
        return self.vectors().schema


class Sessions:
    """A pool of them."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._pool = Pool(self._open, _close, _is_usable)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Lend one for the block."""
        with self._pool.connection() as session:
            yield session

    def connect(self, options: str | None = None) -> Connection[TupleRow]:
        """Open a connection that is not of the pool.

        Args:
            options: libpq's; None leaves them to the address.
        """
        return connect(self._address.conninfo, options)

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._pool.close()

    def _open(self) -> Session:
        return Session(self.connect(), self._address)


def _close(session: Session) -> None:
    session.connection.close()


def _is_usable(session: Session) -> bool:
    return is_usable(session.connection)
