"""The pgvector store keeps its contract where it stores vectors as halves, with an index or not."""

from __future__ import annotations

import numpy as np
import pytest
from psycopg import sql

from contract import test_index_pgvector_store as indexed
from contract import test_pgvector_store as plain
from undrift.errors import WriteFailed
from undrift.ports import Vectors, VectorStore
from undrift.testing._store_fixtures import cosine, enumerated, stamps_of
from undrift.testing.builders import DIMENSION, MODEL, deletion, record, records, vectors
from undrift.testing.store_contract import (
    ClaimableStoreContract,
    StoreFixtures,
    TransactionalStoreContract,
)

LARGEST_HALF = 65_504.0


def filled(value: float) -> Vectors:
    """A vector of *value* throughout."""
    return np.repeat(np.float32(value), DIMENSION)


def with_one(value: float) -> Vectors:
    """A vector of length one, but for one component."""
    vector: Vectors = vectors(1)[0].copy()
    vector[3] = value
    return vector


class HalvedFixtures(plain.PgvectorFixtures):
    """The column is a halfvec, and what is compared is rounded."""

    opener = "support.halved:open_halved"

    def as_stored(self, vectors: Vectors) -> Vectors:
        halves: Vectors = vectors.astype(np.float16).astype(np.float32)
        return halves

    def stored_vector(self, location: str, vector_id: str) -> Vectors:
        query = sql.SQL("SELECT halfvec_send(embedding) FROM {table} WHERE vector_id = %s")
        ((stored,),) = self._execute(location, query, [vector_id])
        return np.frombuffer(stored[4:], dtype=">f2").astype(np.float32)


class HalvedContract(StoreFixtures):
    """What halves add to the promises of every store."""

    def test_a_vector_is_stored_as_the_nearest_halves(
        self, store: VectorStore, location: str
    ) -> None:
        """Signed zeros, the largest and the smallest half, and what lies between two of them."""
        awkward = np.zeros(DIMENSION, dtype=np.float32)
        awkward[:7] = [1 / 3, -0.0, LARGEST_HALF, -LARGEST_HALF, 2**-24, np.nextafter(1, 2), -0.1]
        written = record(embedding=awkward)
        store.publish([written], [])
        stored = self.stored_vector(location, written.stamp.vector_id)
        assert stored.tobytes() == awkward.astype(np.float16).astype(np.float32).tobytes()
        assert store.capabilities.why_not["exact_vectors"]

    @pytest.mark.parametrize(
        ("bad", "why"),
        [
            (with_one(65_520.0), "beyond 65504"),
            (with_one(-1e18), "beyond 65504"),
            (filled(1e-9), "rounds? its components away"),
            (filled(4e-8), "rounds? its components away"),
            (vectors(1)[0] * np.float32(1e-6), "rounds? its components away"),
        ],
        ids=["too large", "far too large", "to zero", "to twice as long", "to another direction"],
    )
    def test_a_vector_that_halves_cannot_hold_is_refused_with_its_batch(
        self, store: VectorStore, bad: Vectors, why: str
    ) -> None:
        """It would be found by no search, or by the wrong ones; the reason names the record."""
        standing = record("standing")
        store.publish([standing], [])
        batch = [record("good"), record("bad", embedding=bad), record("good too")]
        with pytest.raises(WriteFailed, match=why) as caught:
            store.publish(batch, [deletion(standing)])
        assert "experience:bad" in caught.value.why
        assert "length 1" in caught.value.fix
        assert enumerated(store, "1") == stamps_of([standing])

    @pytest.mark.parametrize("length", [1e-12, 1e-3, 1.0, 1e9])
    def test_a_query_of_any_length_finds_the_same(self, store: VectorStore, length: float) -> None:
        """A cosine knows no length, and no half would hold some of these."""
        written = records(50)
        store.publish(written, [])
        query = vectors(1, seed=7)[0]
        found = store.search("1", query * np.float32(length), model=MODEL, kinds=None, limit=50)
        assert found == store.search("1", query, model=MODEL, kinds=None, limit=50)
        assert len(found) == 50

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 60_000.0])
    def test_what_is_stored_points_where_it_did(
        self, store: VectorStore, location: str, scale: float
    ) -> None:
        """Whatever is not refused."""
        embedding = vectors(1, seed=3)[0] * np.float32(scale)
        written = record(embedding=embedding)
        store.publish([written], [])
        stored = self.stored_vector(location, written.stamp.vector_id)
        assert cosine(stored, embedding) > 1 - 1e-5


class TestHalfvec(HalvedFixtures, HalvedContract, TransactionalStoreContract):
    """Without an index on the vectors."""


class TestHalfvecWithAnIndex(HalvedFixtures, indexed.IndexedFixtures, ClaimableStoreContract):
    """Exact, as without."""

    opener = "support.halved:open_halved_and_indexed"


class TestHalfvecThatAsksItsIndex(HalvedFixtures, indexed.AskingContract):
    """All that is promised of a search but exactness."""

    opener = "support.halved:open_halved_and_approximate"
