"""A Qdrant store's points as Qdrant's own clients reach them, past undrift."""

from __future__ import annotations

import json
import uuid
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from qdrant_client import QdrantClient, models

from support.behind import Row
from support.closing import Closing
from support.sides import NAMESPACE, Identity, identity_of

PAGE_POINTS = 1_000

_COLUMNS = (
    "namespace",
    "owner_id",
    "kind",
    "entity_id",
    "fingerprint",
    "text_hash",
    "model",
    "version",
    "text",
    "metadata",
)


class Stored(NamedTuple):
    """A point as it is stored; no vector where it has none."""

    id: str
    payload: Mapping[str, object]
    vector: list[float] | None


class BehindPoints(Closing):
    """The points of a collection.

    Args:
        kinds: the configured ones; a record of another kind is not managed.
    """

    def __init__(self, kinds: Collection[str]) -> None:
        self._kinds = kinds

    @property
    @abstractmethod
    def exists(self) -> bool:
        """Whether the collection has been created."""

    @abstractmethod
    def read(self) -> Iterator[Stored]:
        """Every point there is."""

    @abstractmethod
    def write(self, stored: Stored) -> None:
        """Put a point in the place of whatever has its id."""

    @abstractmethod
    def remove(self, point_id: str) -> None:
        """Remove a point."""

    def records(self) -> dict[str, Row]:
        """Every record, managed or not, with its vector, by vector_id; no claims."""
        rows = {stored.id: _row(stored) for stored in self.read()}
        return {vector_id: row for vector_id, row in rows.items() if row is not None}

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
        stored = self._stored(vector_id)
        self.write(_changed(stored, changes))

    def delete(self, vector_id: str) -> None:
        """Delete one record."""
        self._stored(vector_id)
        self.remove(vector_id)

    def lose_vector(self, vector_id: str) -> None:
        """Take the vector from one record."""
        self.write(self._stored(vector_id)._replace(vector=None))

    def move(self, vector_id: str, to: str | None = None) -> str:
        """Put one record under another vector_id, by default a new one, and return that."""
        new_id = to or str(uuid.uuid5(uuid.UUID(vector_id), "moved"))
        self.write(self._stored(vector_id)._replace(id=new_id))
        self.remove(vector_id)
        return new_id

    def copy(self, vector_id: str, **changes: object) -> str:
        """Copy one record, vector included, with *changes* under a new vector_id; return that."""
        new_id = str(uuid.uuid5(uuid.UUID(vector_id), json.dumps(changes, sort_keys=True)))
        self.write(_changed(self._stored(vector_id)._replace(id=new_id), changes))
        return new_id

    def _stored(self, vector_id: str) -> Stored:
        (stored,) = [stored for stored in self.read() if stored.id == vector_id]
        return stored


class BehindQdrant(BehindPoints):
    """The points of a server's collection, by qdrant-client."""

    def __init__(self, url: str, kinds: Collection[str]) -> None:
        super().__init__(kinds)
        server, _, self._collection = url.removeprefix("qdrant+").rpartition("/")
        self._client = QdrantClient(url=server, check_compatibility=False)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @property
    def exists(self) -> bool:
        """Whether the collection has been created."""
        return self._client.collection_exists(self._collection)

    def read(self) -> Iterator[Stored]:
        """Every point there is, in pages."""
        next_id: Any = None
        while True:
            records, next_id = self._client.scroll(
                self._collection, limit=PAGE_POINTS, offset=next_id, with_vectors=True
            )
            for record in records:
                yield stored_point(str(record.id), record.payload, record.vector)
            if next_id is None:
                return

    def write(self, stored: Stored) -> None:
        """Put a point in the place of whatever has its id."""
        vector: models.VectorStruct = {} if stored.vector is None else stored.vector
        point = models.PointStruct(id=stored.id, vector=vector, payload=dict(stored.payload))
        self._client.upsert(self._collection, [point])

    def remove(self, point_id: str) -> None:
        """Remove a point."""
        self._client.delete(self._collection, [point_id])


def stored_point(point_id: str, payload: Mapping[str, object] | None, vector: object) -> Stored:
    return Stored(point_id, payload or {}, vector if isinstance(vector, list) else None)


def _changed(stored: Stored, changes: Mapping[str, object]) -> Stored:
    """*stored* with *changes*; None takes a field away, `embedding` is the vector."""
    fields = {**stored.payload, **changes}
    vector = fields.pop("embedding", stored.vector)
    if isinstance(vector, bytes):
        vector = np.frombuffer(vector, dtype="<f4").tolist()
    payload = {name: value for name, value in fields.items() if value is not None}
    assert vector is None or isinstance(vector, list)
    return Stored(stored.id, payload, vector)


def _row(stored: Stored) -> Row | None:
    """A point under the names of the SQL stores' columns; None for a claim."""
    if "claim" in stored.payload:
        return None
    row: dict[str, object] = {name: stored.payload.get(name) for name in _COLUMNS}
    metadata = stored.payload.get("metadata_json", row["metadata"])
    row["metadata"] = metadata if isinstance(metadata, str | None) else json.dumps(metadata)
    row["vector_id"] = stored.id
    row["deleted"] = stored.payload.get("deleted", 0)
    row["embedding"] = (
        None if stored.vector is None else np.array(stored.vector, dtype="<f4").tobytes()
    )
    return row
