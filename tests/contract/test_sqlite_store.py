"""The SQLite store keeps the contract of every vector store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import count

import numpy as np
import pytest

from undrift.ports import Vectors
from undrift.testing.store_contract import TransactionalStoreContract


class TestSqliteStore(TransactionalStoreContract):
    fence_opener = "support.fences:open_fence"
    tested_with = f"SQLite {sqlite3.sqlite_version}"

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
        folder, numbers = tmp_path_factory.mktemp("stores"), count(1)
        return lambda: f"sqlite:///{folder / f'{next(numbers)}.db'}"

    def damage(self, location: str, vector_id: str, field: str, value: object) -> None:
        self._execute(
            location, f"UPDATE vectors SET {field} = ? WHERE vector_id = ?", value, vector_id
        )

    def insert_foreign(self, location: str, vector_id: str, owner_id: str) -> None:
        statement = "INSERT INTO vectors (vector_id, owner_id) VALUES (?, ?)"
        self._execute(location, statement, vector_id, owner_id)

    def lose_vector(self, location: str, vector_id: str) -> None:
        self._execute(location, "DELETE FROM embeddings WHERE vector_id = ?", vector_id)

    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        query = "SELECT embedding FROM embeddings WHERE vector_id = ?"
        ((stored,),) = self._execute(location, query, vector_id)
        return np.frombuffer(stored, dtype="<f4")

    def _execute(self, location: str, statement: str, *values: object) -> list[tuple[bytes]]:
        path = location.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path)) as connection, connection:
            return connection.execute(statement, values).fetchall()
