"""The Chroma store keeps the contract of every vector store, on a real server."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pytest

from support.chroma_server import ChromaServer, collection_of
from undrift.ports import Vectors
from undrift.testing.builders import DIMENSION, vectors
from undrift.testing.store_contract import ClaimableStoreContract


class TestChromaStore(ClaimableStoreContract):
    tested_with = f"Chroma server {version('chromadb')}"
    server: ChromaServer

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, chroma_server: ChromaServer) -> Callable[[], str]:
        cls.server = chroma_server
        return chroma_server.new_location

    def damage(self, location: str, vector_id: str, field: str, value: object) -> None:
        # A tombstone lies in the collection beside; where there is none, an update does nothing.
        for name in (collection_of(location), f"{collection_of(location)}.undrift"):
            self.server.ask(
                f"{self._path(name)}/update", ids=[vector_id], metadatas=[{field: value}]
            )

    def insert_foreign(self, location: str, vector_id: str, owner_id: str) -> None:
        self.server.ask(
            f"{self._path(collection_of(location))}/add",
            ids=[vector_id],
            embeddings=vectors(1, dimension=DIMENSION).tolist(),
            metadatas=[{"owner_id": owner_id}],
        )

    def lose_vector(self, location: str, vector_id: str) -> None:
        self.server.lose_vectors(collection_of(location), [vector_id])

    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        path = self._path(collection_of(location))
        found = self.server.ask(f"{path}/get", ids=[vector_id], include=["embeddings"])
        return np.array(found["embeddings"][0], dtype=np.float32)

    def _path(self, name: str) -> str:
        path = self.server.collection(name)
        assert path is not None
        return path
