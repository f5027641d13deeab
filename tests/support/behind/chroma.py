"""A Chroma store as Chroma's own client reaches it, past undrift."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import chromadb
import numpy as np
from chromadb.config import Settings
from chromadb.errors import InternalError, NotFoundError

from support.chroma_server import collection_of, server_at
from support.closing import Closing
from support.sides import NAMESPACE, Identity, Row, identity_of

_FIELDS = (
    "namespace",
    "owner_id",
    "kind",
    "entity_id",
    "fingerprint",
    "text_hash",
    "model",
    "version",
)
_EVERYTHING: Any = ["metadatas", "documents", "embeddings"]


class BehindChroma(Closing):
    """The two collections of a store on one of the tests' servers.

    Args:
        url: the store's.
        kinds: the configured ones; a record of another kind is not managed.
    """

    def __init__(self, url: str, kinds: Collection[str]) -> None:
        parts = urlsplit(url)
        self._url = url
        self._kinds = kinds
        self._name = collection_of(url)
        settings = Settings(
            _env_file=None,  # type: ignore[call-arg]
            anonymized_telemetry=False,
        )
        self._client: Any = chromadb.HttpClient(
            host=parts.hostname or "", port=parts.port or 0, settings=settings
        )

    def close(self) -> None:
        """Close the connections, which Chroma's client itself leaves open."""
        for client in (self._client, self._client._admin_client):
            client._server._session.close()
        self._client.close()

    @property
    def exists(self) -> bool:
        """Whether the collection of the records has been created."""
        return self._found(self._name) is not None

    def records(self) -> dict[str, Row]:
        """Every record, managed or not, with its vector, by vector_id; tombstones too."""
        return self._rows(self._name, deleted=0) | self._rows(self._ledger, deleted=1)

    def managed(self) -> dict[str, Row]:
        """The records of the namespace and the configured kinds, no tombstones, by vector_id."""
        return {
            vector_id: row
            for vector_id, row in self.records().items()
            if row["namespace"] == NAMESPACE and row["kind"] in self._kinds and not row["deleted"]
        }

    def identities(self) -> dict[Identity, str]:
        """The vector_id of each managed record; the test fails where there are duplicates."""
        managed = self.managed()
        by_identity = {identity_of(row): vector_id for vector_id, row in managed.items()}
        assert len(by_identity) == len(managed), "an entity has more than one record"
        return by_identity

    def set(self, vector_id: str, **changes: object) -> None:
        """Tamper with one record."""
        collection, stored = self._record(vector_id)
        text = changes.pop("text", None)
        embedding = changes.pop("embedding", None)
        if text is not None or embedding is not None:
            vector = stored["embeddings"] if embedding is None else embedding
            collection.update(ids=[vector_id], embeddings=[vector], documents=[text])
        if changes:
            collection.update(ids=[vector_id], metadatas=[changes])

    def delete(self, vector_id: str) -> None:
        """Delete one record."""
        collection, _ = self._record(vector_id)
        collection.delete(ids=[vector_id])

    def lose_vector(self, vector_id: str) -> None:
        """Take the vector from one record, which takes the server down for a moment."""
        self._record(vector_id)
        server_at(self._url).lose_vectors(self._name, [vector_id])

    def move(self, vector_id: str, to: str | None = None) -> str:
        """Put one record under another vector_id, by default a new one, and return that."""
        new_id = to or str(uuid.uuid5(uuid.UUID(vector_id), "moved"))
        self._copy(vector_id, new_id)
        self.delete(vector_id)
        return new_id

    def copy(self, vector_id: str, **changes: object) -> str:
        """Copy one record, vector included, with *changes* under a new vector_id; return that."""
        new_id = str(uuid.uuid5(uuid.UUID(vector_id), json.dumps(changes, sort_keys=True)))
        self._copy(vector_id, new_id)
        self.set(new_id, **changes)
        return new_id

    @property
    def _ledger(self) -> str:
        return f"{self._name}.undrift"

    def _found(self, name: str) -> Any:  # noqa: ANN401 - the driver's
        try:
            return self._client.get_collection(name, embedding_function=None)
        except NotFoundError:
            return None

    def _rows(self, name: str, *, deleted: int) -> dict[str, Row]:
        collection = self._found(name)
        if collection is None:
            return {}
        found = collection.get(include=["metadatas", "documents"])
        vectors = _vectors(collection, found["ids"])
        rows: dict[str, Row] = {}
        for vector_id, metadata, document in zip(
            found["ids"], found["metadatas"], found["documents"], strict=True
        ):
            fields = metadata or {}
            if "claim_of" not in fields:
                rows[vector_id] = {
                    **{name: fields.get(name) for name in _FIELDS},
                    "vector_id": vector_id,
                    "deleted": deleted,
                    "text": document,
                    "metadata": fields.get("metadata", "{}"),
                    "embedding": vectors.get(vector_id),
                }
        return rows

    def _record(self, vector_id: str) -> tuple[Any, dict[str, Any]]:
        """Where a record is, and what it is."""
        for name in (self._name, self._ledger):
            collection = self._found(name)
            found = collection.get(ids=[vector_id], include=_EVERYTHING) if collection else {}
            if found.get("ids"):
                return collection, {field: found[field][0] for field in _EVERYTHING}
        raise AssertionError("there is no such record")

    def _copy(self, vector_id: str, new_id: str) -> None:
        collection, stored = self._record(vector_id)
        collection.upsert(
            ids=[new_id],
            embeddings=[stored["embeddings"]],
            metadatas=[stored["metadatas"]],
            documents=[stored["documents"]],
        )


def _vectors(collection: Any, ids: list[str]) -> dict[str, bytes]:  # noqa: ANN401
    """The vectors of *ids*, those left out that are lost, for which Chroma has but an error."""
    try:
        found = collection.get(ids=ids, include=["embeddings"]) if ids else {"ids": []}
    except InternalError:
        half = len(ids) // 2
        return _vectors(collection, ids[:half]) | _vectors(collection, ids[half:]) if half else {}
    return {
        vector_id: np.asarray(vector, dtype="<f4").tobytes()
        for vector_id, vector in zip(found["ids"], found.get("embeddings", ()), strict=True)
    }
