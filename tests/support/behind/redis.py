"""A Redis store as its driver reaches it, past undrift."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection

from redis import Redis

from support.behind import Row
from support.closing import Closing
from support.sides import NAMESPACE, Identity, identity_of

_COLUMNS = (
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


def record_key(location: str, vector_id: str) -> str:
    """The key of a record in the store at *location*."""
    return f"{_prefix(location)}{vector_id}"


class BehindRedis(Closing):
    """The store's hashes.

    Args:
        url: the store's.
        kinds: the configured ones; a record of another kind is not managed.
    """

    def __init__(self, url: str, kinds: Collection[str]) -> None:
        self._kinds = kinds
        self._prefix = _prefix(url)
        self._index = url.partition("?index=")[2] or "undrift"
        self._client = Redis.from_url(url.partition("?")[0], protocol=3)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @property
    def exists(self) -> bool:
        """Whether the index that is searched has been created."""
        names: Collection[bytes] = self._client.execute_command("FT._LIST")  # type: ignore[no-untyped-call]
        return self._index.encode() in names

    def records(self) -> dict[str, Row]:
        """Every record, managed or not, with its vector, by vector_id."""
        keys = list(self._client.scan_iter(match=f"{self._prefix}*", count=1_000))
        return {key[len(self._prefix) :].decode(): self._row(key) for key in keys}

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
        key = self._existing(vector_id)
        for column, value in changes.items():
            if value is None:
                self._client.hdel(key, column)
            else:
                stored = value if isinstance(value, bytes | int) else str(value)
                self._client.hset(key, column, stored)

    def delete(self, vector_id: str) -> None:
        """Delete one record."""
        assert self._client.delete(self._existing(vector_id)) == 1

    def lose_vector(self, vector_id: str) -> None:
        """Take the vector from one record."""
        assert self._client.hdel(self._existing(vector_id), "embedding") == 1

    def move(self, vector_id: str, to: str | None = None) -> str:
        """Put one record under another vector_id, by default a new one, and return that."""
        new_id = to or str(uuid.uuid5(uuid.UUID(vector_id), "moved"))
        self._client.rename(self._existing(vector_id), self._prefix + new_id)
        return new_id

    def copy(self, vector_id: str, **changes: object) -> str:
        """Copy one record, vector included, with *changes* under a new vector_id; return that."""
        new_id = str(uuid.uuid5(uuid.UUID(vector_id), json.dumps(changes, sort_keys=True)))
        assert self._client.copy(self._existing(vector_id), self._prefix + new_id)
        self.set(new_id, **changes)
        return new_id

    def _existing(self, vector_id: str) -> str:
        key = self._prefix + vector_id
        assert self._client.exists(key)
        return key

    def _row(self, key: bytes) -> Row:
        stored: dict[bytes, bytes] = self._client.hgetall(key)  # type: ignore[assignment]
        row: dict[str, object] = {name: _text(stored.get(name.encode())) for name in _COLUMNS}
        row["vector_id"] = key[len(self._prefix) :].decode()
        row["version"] = int(stored.get(b"version", 0))
        row["deleted"] = int(stored.get(b"deleted", 0))
        row["embedding"] = stored.get(b"embedding")
        return row


def _prefix(url: str) -> str:
    return f"{{{url.partition('?index=')[2] or 'undrift'}}}:v:"


def _text(stored: bytes | None) -> str | None:
    return None if stored is None else stored.decode()
