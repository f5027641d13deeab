"""A Milvus store as Milvus's own client reaches it, past undrift."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from pymilvus import MilvusClient

from support.closing import Closing
from support.sides import NAMESPACE, Identity, Row, identity_of

_TEXTS = (
    "namespace",
    "owner_id",
    "kind",
    "entity_id",
    "fingerprint",
    "text_hash",
    "model",
    "text",
    "metadata",
)
_FIELDS = ["vector_id", *_TEXTS, "version", "deleted", "embedding"]
_CLAIM = 2
_SECONDS = 60.0


class BehindMilvus(Closing):
    """The collection of a store on one of the tests' servers.

    Args:
        url: the store's.
        kinds: the configured ones; a record of another kind is not managed.
    """

    def __init__(self, url: str, kinds: Collection[str]) -> None:
        parts = urlsplit(url)
        self._kinds = kinds
        self._name = parts.path.strip("/")
        self._client: Any = MilvusClient(
            uri=f"http://{parts.hostname}:{parts.port}",
            user=parts.username or "",
            password=parts.password or "",
            timeout=_SECONDS,
        )

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @property
    def exists(self) -> bool:
        """Whether the collection has been created."""
        return bool(self._client.has_collection(self._name, timeout=_SECONDS))

    def records(self) -> dict[str, Row]:
        """Every record, managed or not, with its vector, by vector_id; tombstones too."""
        if not self.exists:
            return {}
        rows: dict[str, Row] = {}
        for found in self._found(f"deleted != {_CLAIM}"):
            vector = np.asarray(found["embedding"], dtype="<f4")
            rows[found["vector_id"]] = {
                **{name: found[name] for name in _FIELDS},
                "metadata": found["metadata"] or "{}",
                "embedding": vector.tobytes() if vector.any() else None,
            }
        return rows

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

    def put(self, vector_id: str, **values: Any) -> None:  # noqa: ANN401 - a field's
        """Write one record whole; what is not given, or None, is empty: Milvus 2.3 has no null."""
        row: dict[str, Any] = {**dict.fromkeys(_TEXTS, ""), "version": 0, "deleted": 0}
        row |= {name: value for name, value in values.items() if value is not None}
        row["vector_id"] = vector_id
        vector = row["embedding"]
        if isinstance(vector, bytes):
            vector = np.frombuffer(vector, dtype="<f4")
        row["embedding"] = np.asarray(vector, dtype=np.float32)
        self._client.upsert(self._name, [row], timeout=_SECONDS)

    def set(self, vector_id: str, **changes: Any) -> None:  # noqa: ANN401
        """Tamper with one record."""
        self.put(vector_id, **(self._record(vector_id) | changes))

    def delete(self, vector_id: str) -> None:
        """Delete one record."""
        self._client.delete(self._name, ids=[vector_id], timeout=_SECONDS)

    def lose_vector(self, vector_id: str) -> None:
        """Leave one record without a direction, as Milvus has no vector that is not there."""
        stored = self._record(vector_id)["embedding"]
        self.set(vector_id, embedding=np.zeros(len(stored), dtype=np.float32))

    def move(self, vector_id: str, to: str | None = None) -> str:
        """Put one record under another vector_id, by default a new one, and return that."""
        new_id = to or str(uuid.uuid5(uuid.UUID(vector_id), "moved"))
        self.put(new_id, **self._record(vector_id))
        self.delete(vector_id)
        return new_id

    def copy(self, vector_id: str, **changes: Any) -> str:  # noqa: ANN401
        """Copy one record, vector included, with *changes* under a new vector_id; return that."""
        new_id = str(uuid.uuid5(uuid.UUID(vector_id), json.dumps(changes, sort_keys=True)))
        self.put(new_id, **(self._record(vector_id) | changes))
        return new_id

    def _record(self, vector_id: str) -> dict[str, Any]:
        (found,) = self._found(f'vector_id in ["{vector_id}"]')
        return {name: found[name] for name in _FIELDS if name != "vector_id"}

    def _found(self, where: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._client.query(
            self._name,
            filter=where,
            output_fields=_FIELDS,
            consistency_level="Strong",
            timeout=_SECONDS,
        )
        return found
