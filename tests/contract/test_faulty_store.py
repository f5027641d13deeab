"""The store in memory keeps the contract of its class, as long as nothing goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import pytest

from support.faulty import memories
from undrift.model import Stamp
from undrift.ports import Vectors
from undrift.testing.faulty_store import Stored
from undrift.testing.store_contract import (
    ClaimableStoreContract,
    StoreFixtures,
    TransactionalStoreContract,
)

_NUMBERS = count(1)
_EMPTY = Stamp("", "", "", "", "", "", "", "", 0)


class MemoryFixtures(StoreFixtures):
    """What the contract does to it behind its back."""

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls) -> Iterator[Callable[[], str]]:
        yield lambda: f"memory://{next(_NUMBERS)}"
        memories.clear()

    def damage(self, location: str, vector_id: str, field: str, value: object) -> None:
        row = self._row(location, vector_id)
        as_read: Any = getattr(_EMPTY, field) if value is None else value
        stamp = row.stamp._replace(**{field: as_read})
        memories[location].rows[vector_id] = row._replace(stamp=stamp)

    def insert_foreign(self, location: str, vector_id: str, owner_id: str) -> None:
        stamp = _EMPTY._replace(vector_id=vector_id, owner_id=owner_id)
        vector = np.ones(1, dtype=np.float32)
        memories[location].rows[vector_id] = Stored(stamp, "", "{}", vector)

    def lose_vector(self, location: str, vector_id: str) -> None:
        row = self._row(location, vector_id)
        memories[location].rows[vector_id] = row._replace(embedding=None)

    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        embedding = self._row(location, vector_id).embedding
        assert embedding is not None
        return embedding

    def _row(self, location: str, vector_id: str) -> Stored:
        return memories[location].rows[vector_id]


class TestStoreOfClassT(MemoryFixtures, TransactionalStoreContract):
    opener = "support.faulty:open_transactional"
    fence_opener = "support.fences:open_fence"


class TestStoreOfClassC(MemoryFixtures, ClaimableStoreContract):
    opener = "support.faulty:open_conditional"


class TestStoreOfClassN(MemoryFixtures, ClaimableStoreContract):
    opener = "support.faulty:open_neither"
