"""The Milvus store keeps the contract of every vector store, on a real server."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from support.behind.milvus import BehindMilvus
from support.milvus_server import VERSION, MilvusServer
from undrift.ports import Vectors
from undrift.testing.builders import DIMENSION, vectors
from undrift.testing.store_contract import ClaimableStoreContract


class TestMilvusStore(ClaimableStoreContract):
    tested_with = f"Milvus server {VERSION}"

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, milvus_server: MilvusServer) -> Callable[[], str]:
        return milvus_server.new_location

    def damage(self, location: str, vector_id: str, field: str, value: object) -> None:
        with BehindMilvus(location, ()) as behind:
            behind.set(vector_id, **{field: value})

    def insert_foreign(self, location: str, vector_id: str, owner_id: str) -> None:
        with BehindMilvus(location, ()) as behind:
            behind.put(vector_id, owner_id=owner_id, embedding=vectors(1, dimension=DIMENSION)[0])

    def lose_vector(self, location: str, vector_id: str) -> None:
        with BehindMilvus(location, ()) as behind:
            behind.lose_vector(vector_id)

    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        with BehindMilvus(location, ()) as behind:
            return np.frombuffer(behind.records()[vector_id]["embedding"], dtype=np.float32)
