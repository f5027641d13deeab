"""Connections of the pgvector store: nothing of a session outlasts a transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from psycopg import Connection
from psycopg.rows import TupleRow

from undrift.pooling import Pool
from undrift.postgres import connect, is_usable
from undrift.stores._pg_address import Address
from undrift.stores._pg_vectors import learn_vectors


class Session:
    """A connection, and where its database keeps the type `vector` once it was asked.

    Args:
        location: the store's address, for errors.
    """

    __slots__ = ("_location", "_vector_schema", "connection")

    def __init__(self, connection: Connection[TupleRow], location: str) -> None:
        self.connection = connection
        self._location = location
        self._vector_schema: str | None = None

    def vector_schema(self) -> str:
        """The schema where pgvector is installed; from then on the connection sends vectors."""
        if self._vector_schema is None:
            self._vector_schema = learn_vectors(self.connection, self._location)
        return self._vector_schema


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
        return Session(self.connect(), self._address.location)


def _close(session: Session) -> None:
    session.connection.close()


def _is_usable(session: Session) -> bool:
    return is_usable(session.connection)
