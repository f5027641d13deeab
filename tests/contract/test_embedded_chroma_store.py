"""Chroma's engine in a folder keeps the contract, as far as one process can show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chromadb.api.client import Client
from chromadb.config import Settings

from support.chroma_server import collection_of, forget_vectors
from undrift.ports import Vectors, VectorStore
from undrift.testing.builders import DIMENSION, vectors
from undrift.testing.store_contract import ClaimableStoreContract


class TestEmbeddedChromaStore(ClaimableStoreContract):
    opened: list[VectorStore]

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
        folder, numbers = tmp_path_factory.mktemp("chroma"), count(1)
        cls.opened = []
        yield lambda: f"chroma+file:///{folder}/{next(numbers)}/store?sole_process=yes"
        for store in cls.opened:
            store.close()

    @classmethod
    def make_store(cls, location: str, namespace: str = "default") -> VectorStore:
        cls.opened.append(super().make_store(location, namespace))
        return cls.opened[-1]

    def damage(self, location: str, vector_id: str, field: str, value: object) -> None:
        with client_of(location) as client:
            for name in ("store", "store.undrift"):
                collection: Any = client.get_collection(name)
                collection.update(ids=[vector_id], metadatas=[{field: value}])

    def insert_foreign(self, location: str, vector_id: str, owner_id: str) -> None:
        with client_of(location) as client:
            client.get_collection("store").add(
                ids=[vector_id],
                embeddings=vectors(1, dimension=DIMENSION),
                metadatas=[{"owner_id": owner_id}],
            )

    def lose_vector(self, location: str, vector_id: str) -> None:
        with client_of(location) as client:
            collection_id = str(client.get_collection("store").id)
        for store in self.opened:
            store.close()  # each opens the folder again when it is asked next
        forget_vectors(folder_of(location), collection_id, [vector_id])

    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        with client_of(location) as client:
            found = client.get_collection("store").get(ids=[vector_id], include=["embeddings"])
        stored: Vectors = np.asarray(found["embeddings"], dtype=np.float32)[0]
        return stored


def folder_of(location: str) -> Path:
    """The folder of the address of a store."""
    assert collection_of(location) == "store"
    return Path(location.removeprefix("chroma+file:///").rpartition("/")[0])


@contextmanager
def client_of(location: str) -> Iterator[Client]:
    """Chroma's own client, which shares the engine that this process has open."""
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        anonymized_telemetry=False,
        is_persistent=True,
        persist_directory=str(folder_of(location)),
    )
    client = Client(settings=settings)
    try:
        yield client
    finally:
        client.close()
