"""What a store's tests fill in, and the fixtures that all of the contract's parts share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import pytest

from undrift.model import Stamp
from undrift.ports import Record, StoreClass, Vectors, VectorStore
from undrift.testing.builders import DIMENSION, records
from undrift.testing.store_process import StoreProcess, opener_named


class Open(Protocol):
    """Opens the store at the test's location once more."""

    def __call__(self, namespace: str = "default") -> VectorStore: ...


class Crowd:
    """One store with many records, which no test may change.

    Attributes:
        by_owner: what was published; ``many`` has half of all, ``some`` 5 %, ``few`` 0.02 %.
    """

    SIZES = {"many": 20_500, "some": 2_050, "few": 8} | {f"other-{n:02}": 922 for n in range(20)}

    def __init__(self, location: str, store: VectorStore) -> None:
        self.location = location
        self.store = store
        self.by_owner = {
            owner_id: records(size, owner_id=owner_id, seed=seed)
            for seed, (owner_id, size) in enumerate(self.SIZES.items())
        }

    def publish(self) -> None:
        """Write all of it."""
        for written in self.by_owner.values():
            for start in range(0, len(written), 5_000):
                self.store.publish(written[start : start + 5_000], [])


class StoreFixtures(ABC):
    """The hooks of a store's own tests, and the fixtures made from them.

    Besides the methods below, the subclass defines one fixture of class scope:

        ``new_location``: a function that returns the address of a place where no store is yet,
        a different one with every call.

    Attributes:
        opener: what opens a store at an address, here and in other processes, as
            ``module:function``; it is called with the address and ``namespace=``.
        tested_with: the database and its version, for people.
    """

    opener = "undrift.stores:open_store"
    tested_with = "version unknown"

    @abstractmethod
    def damage(self, location: str, vector_id: str, field: str, value: object) -> None:
        """Set *field*, a name of `Stamp`'s, of one record to *value*, behind the store's back."""

    @abstractmethod
    def insert_foreign(self, location: str, vector_id: str, owner_id: str) -> None:
        """Insert a record that has nothing but a vector_id and an owner."""

    @abstractmethod
    def lose_vector(self, location: str, vector_id: str) -> None:
        """Take away one record's vector, behind the store's back."""

    @abstractmethod
    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        """The vector that is stored, bit for bit."""

    def as_stored(self, vectors: Vectors) -> Vectors:
        """What *vectors*, one in a row, become where the store keeps and compares them."""
        return vectors

    @classmethod
    def make_store(cls, location: str, namespace: str = "default") -> VectorStore:
        """Open the store at *location*, which may have been opened before."""
        return opener_named(cls.opener)(location, namespace=namespace)

    @pytest.fixture
    def location(self, new_location: Callable[[], str]) -> str:
        """An address where no store is yet."""
        return new_location()

    @pytest.fixture
    def open_store(self, location: str) -> Iterator[Open]:
        """A function that opens the store at the test's location, and it is closed afterwards."""
        opened: list[VectorStore] = []

        def open_(namespace: str = "default") -> VectorStore:
            opened.append(self.make_store(location, namespace))
            return opened[-1]

        yield open_
        for store in opened:
            store.close()

    @pytest.fixture
    def store(self, open_store: Open) -> VectorStore:
        """A store that is created and empty."""
        store = open_store()
        store.create(DIMENSION)
        return store

    @pytest.fixture(scope="class")
    @classmethod
    def crowd(cls, new_location: Callable[[], str]) -> Iterator[Crowd]:
        """A store with 41,000 records, shared by the tests that only read."""
        location = new_location()
        store = cls.make_store(location)
        store.create(DIMENSION)
        crowd = Crowd(location, store)
        crowd.publish()
        yield crowd
        store.close()

    @pytest.fixture(scope="class")
    @classmethod
    def processes(cls) -> Iterator[Sequence[StoreProcess]]:
        """Two other processes that can write to a store."""
        with StoreProcess(cls.opener) as one, StoreProcess(cls.opener) as other:
            yield one, other

    def need(self, store: VectorStore, promise: str) -> None:
        """Skip the test if *store* declares that it does not make *promise*."""
        if not getattr(store.capabilities, promise):
            pytest.skip(f"{promise}: {store.capabilities.why_not[promise]}")

    def need_order(self, store: VectorStore) -> None:
        """Skip the test if *store* cannot keep out what another process sends late."""
        if store.capabilities.store_class is StoreClass.NEITHER:
            pytest.skip(f"store_class N: {store.capabilities.why_not['store_class']}")

    def assert_stored(self, store: VectorStore, location: str, written: Record) -> None:
        """Compare the vector that is stored with what was written, as *store* promises it."""
        found = self.stored_vector(location, written.stamp.vector_id)
        assert found.dtype == np.float32
        assert written.embedding is not None
        if store.capabilities.exact_vectors:
            assert found.tobytes() == written.embedding.tobytes()
        else:
            assert cosine(found, written.embedding) == pytest.approx(1.0, abs=1e-3)


def cosine(one: Vectors, other: Vectors) -> float:
    """How alike two vectors are, whatever their lengths."""
    lengths = np.linalg.norm(one.astype(float)) * np.linalg.norm(other.astype(float))
    return float(one.astype(float) @ other.astype(float) / lengths)


def stamps_of(written: Sequence[Record]) -> set[Stamp]:
    """The stamps that *written* should leave in the store."""
    return {record.stamp for record in written}


def enumerated(store: VectorStore, *owners: str) -> set[Stamp]:
    """The stamps that *store* enumerates; none of them twice."""
    found = list(store.stamps(owners))
    assert len(found) == len(set(found))
    return set(found)


def similarities(
    written: Sequence[Record],
    query: Vectors,
    as_stored: Callable[[Vectors], Vectors] = lambda vectors: vectors,
) -> list[tuple[float, str]]:
    """Cosine similarity and vector_id of all that was written, best first, by brute force.

    Args:
        as_stored: what becomes of vectors, the query too, before the store compares them.
    """
    matrix = np.stack([record.embedding for record in written if record.embedding is not None])
    matrix, query = as_stored(matrix), as_stored(query[np.newaxis])[0]
    scores = (matrix @ query) / (np.linalg.norm(matrix, axis=1) * np.linalg.norm(query))
    ids = [record.stamp.vector_id for record in written]
    return sorted(zip(scores.tolist(), ids, strict=True), reverse=True)
