"""The LanceDB store keeps the contract of every vector store that keeps tombstones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from itertools import count

import pytest

from support.behind.lancedb import open_table, set_columns, vector_at
from support.s3_server import BUCKET, S3Server
from undrift.ports import Vectors
from undrift.testing.store_contract import ClaimableStoreContract, StoreFixtures
from undrift.testing.store_process import StoreProcess


class LanceDbFixtures(StoreFixtures):
    """What the contract does to a table behind the store's back."""

    tested_with = f"LanceDB {version('lancedb')}"

    def damage(self, location: str, vector_id: str, field: str, value: object) -> None:
        set_columns(location, vector_id, **{field: value})

    def insert_foreign(self, location: str, vector_id: str, owner_id: str) -> None:
        open_table(location).add([{"vector_id": vector_id, "owner_id": owner_id}])

    def lose_vector(self, location: str, vector_id: str) -> None:
        set_columns(location, vector_id, embedding=None)

    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        return vector_at(location, vector_id)


class TestLanceDbStore(LanceDbFixtures, ClaimableStoreContract):
    """In a folder."""

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
        folder, numbers = tmp_path_factory.mktemp("stores"), count(1)
        return lambda: f"lancedb:///{folder / str(next(numbers))}?table=records"


class TestLanceDbStoreInObjectStorage(LanceDbFixtures, ClaimableStoreContract):
    """By the protocol of S3."""

    tested_with = f"{LanceDbFixtures.tested_with} on a local server of S3's protocol"

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls) -> Iterator[Callable[[], str]]:
        numbers = count(1)
        with S3Server() as server, pytest.MonkeyPatch.context() as environment:
            for name, value in server.environment.items():
                environment.setenv(name, value)
            yield lambda: f"lancedb+s3://{BUCKET}/a folder/{next(numbers)}?table=records"

    @pytest.fixture(scope="class")
    @classmethod
    def processes(cls, new_location: Callable[[], str]) -> Iterator[Sequence[StoreProcess]]:
        """Two other processes, whose environment leads them to the server."""
        del new_location
        with StoreProcess(cls.opener) as one, StoreProcess(cls.opener) as other:
            yield one, other
