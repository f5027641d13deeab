"""The LanceDB store keeps the contract of every vector store that keeps tombstones."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from itertools import count

import pytest

from support.behind.lancedb import open_table, set_columns, vector_at
from undrift.ports import Vectors
from undrift.testing.store_contract import ClaimableStoreContract


class TestLanceDbStore(ClaimableStoreContract):
    tested_with = f"LanceDB {version('lancedb')}"

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
        folder, numbers = tmp_path_factory.mktemp("stores"), count(1)
        return lambda: f"lancedb:///{folder / str(next(numbers))}?table=records"

    def damage(self, location: str, vector_id: str, field: str, value: object) -> None:
        set_columns(location, vector_id, **{field: value})

    def insert_foreign(self, location: str, vector_id: str, owner_id: str) -> None:
        open_table(location).add([{"vector_id": vector_id, "owner_id": owner_id}])

    def lose_vector(self, location: str, vector_id: str) -> None:
        set_columns(location, vector_id, embedding=None)

    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        return vector_at(location, vector_id)
