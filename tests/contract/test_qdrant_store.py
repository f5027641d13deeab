"""Both roads to Qdrant keep the contract of every vector store.

The engine is Qdrant's own, in this process. The HTTP calls go to a server of the tests', which
speaks Qdrant's API over that engine, since no server of Qdrant's can be installed from a package
index; `support.qdrant_server` says how faithful it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import count
from uuid import uuid4

import numpy as np
import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient, models

from support.qdrant_engine import engine_at, folder_in_memory
from support.qdrant_server import QdrantServer
from undrift.ports import Vectors
from undrift.testing.store_contract import ClaimableStoreContract


class TestQdrantEngine(ClaimableStoreContract):
    """In a folder, by the engine in this process."""

    tested_with = f"Qdrant's engine, qdrant-edge-py {version('qdrant-edge-py')}"

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls) -> Iterator[Callable[[], str]]:
        numbers = count(1)
        with folder_in_memory() as folder:
            yield lambda: f"qdrant+file:///{folder / f'c{next(numbers)}'}"

    def damage(self, location: str, vector_id: str, field: str, value: object) -> None:
        with engine_at(location) as engine:
            engine.update(edge.UpdateOperation.set_payload([vector_id], {field: value}))

    def insert_foreign(self, location: str, vector_id: str, owner_id: str) -> None:
        with engine_at(location) as engine:
            point = edge.Point(vector_id, {}, {"owner_id": owner_id})
            engine.update(edge.UpdateOperation.upsert_points([point]))

    def lose_vector(self, location: str, vector_id: str) -> None:
        with engine_at(location) as engine:
            engine.update(edge.UpdateOperation.delete_vectors([vector_id], [""]))

    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        with engine_at(location) as engine:
            (record,) = engine.retrieve([vector_id], False, True)
        return np.array(record.vector, dtype=np.float32)


class TestQdrantHttp(ClaimableStoreContract):
    """In a server, by qdrant-client."""

    tested_with = f"a stand-in for the server over the engine {version('qdrant-edge-py')}"

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, qdrant_server: QdrantServer) -> Callable[[], str]:
        return lambda: qdrant_server.url(f"c-{uuid4()}")

    def damage(self, location: str, vector_id: str, field: str, value: object) -> None:
        with client_at(location) as (client, collection):
            client.set_payload(collection, {field: value}, points=[vector_id])

    def insert_foreign(self, location: str, vector_id: str, owner_id: str) -> None:
        with client_at(location) as (client, collection):
            point = models.PointStruct(id=vector_id, vector={}, payload={"owner_id": owner_id})
            client.upsert(collection, [point])

    def lose_vector(self, location: str, vector_id: str) -> None:
        with client_at(location) as (client, collection):
            client.delete_vectors(collection, [""], points=[vector_id])

    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        with client_at(location) as (client, collection):
            (record,) = client.retrieve(collection, [vector_id], with_vectors=True)
        return np.array(record.vector, dtype=np.float32)


@contextmanager
def client_at(location: str) -> Iterator[tuple[QdrantClient, str]]:
    """Qdrant's own client, and the collection's name."""
    server, _, collection = location.removeprefix("qdrant+").rpartition("/")
    client = QdrantClient(url=server, check_compatibility=False)
    try:
        yield client, collection
    finally:
        client.close()
