"""The pgvector store keeps its contract with an index on its vectors, asked or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from contract import test_pgvector_store as plain
from support.indexed import IndexedStore
from undrift.search_index import IndexParameters, IndexState, IndexType
from undrift.stores.pgvector import PgvectorStore
from undrift.testing._store_fixtures import Crowd, similarities, stamps_of
from undrift.testing.builders import DIMENSION, MODEL, vectors
from undrift.testing.store_contract import ClaimableStoreContract, SearchContract


class IndexedFixtures(plain.PgvectorFixtures):
    """Every table has an index before it is written."""

    opener = "support.indexed:open_indexed"
    type = IndexType.HNSW

    @pytest.fixture(scope="class")
    @classmethod
    def crowd(cls, new_location: Callable[[], str]) -> Iterator[Crowd]:
        """Filled before the index is built, which takes a tenth of the time."""
        location = new_location()
        indexed = cls.make_store(location)
        assert isinstance(indexed, PgvectorStore)
        PgvectorStore.create(indexed, DIMENSION)
        crowd = Crowd(location, indexed)
        crowd.publish()
        parameters = IndexParameters(type=cls.type, maintenance_work_mem="256MB")
        assert indexed.build_index(parameters).state is IndexState.VALID
        yield crowd
        crowd.store.close()


class TestPgvectorStoreWithAnIndex(IndexedFixtures, ClaimableStoreContract):
    """Exact, as without."""


class AskingContract(IndexedFixtures, SearchContract):
    """All that is promised of a search but exactness; it writes as the one above.

    Attributes:
        least_found: of the nearest of random vectors, the share that is found at least.
    """

    least_found = 0.99

    def test_nearly_all_of_the_nearest_of_a_large_owner_are_found(self, crowd: Crowd) -> None:
        """Best first, no record twice, and their scores are the true ones."""
        assert isinstance(crowd.store, IndexedStore)
        assert crowd.store.index_status().is_searched
        written, hits = crowd.by_owner["many"], 0
        queries = vectors(20, seed=78)
        for query in queries:
            true = {id_: score for score, id_ in similarities(written, query, self.as_stored)}
            found = crowd.store.search("many", query, model=MODEL, kinds=None, limit=10)
            ids = [match.stamp.vector_id for match in found]
            assert len(set(ids)) == 10
            assert {match.stamp for match in found} <= stamps_of(written)
            scores = [match.score for match in found]
            assert scores == sorted(scores, reverse=True)
            np.testing.assert_allclose(scores, [true[id_] for id_ in ids], atol=1e-5)
            hits += len(set(ids) & set(list(true)[:10]))
        assert hits >= self.least_found * 10 * len(queries)

    @pytest.mark.parametrize("owner_id", ["few", "some"])
    def test_the_others_are_searched_exactly(self, crowd: Crowd, owner_id: str) -> None:
        """The index would miss some of theirs, and a scan is quick."""
        for query in vectors(5, seed=79):
            expected = similarities(crowd.by_owner[owner_id], query, self.as_stored)[:10]
            found = crowd.store.search(owner_id, query, model=MODEL, kinds=None, limit=10)
            assert [match.stamp.vector_id for match in found] == [id_ for _, id_ in expected]


class TestPgvectorStoreThatAsksItsIndex(AskingContract):
    """Of neighbours that know each other."""

    opener = "support.indexed:open_approximate"


class ListedFixtures(IndexedFixtures):
    """The index is one of lists."""

    opener = "support.indexed:open_listed"
    type = IndexType.IVFFLAT


class TestPgvectorStoreWithLists(ListedFixtures, ClaimableStoreContract):
    """Exact, as without, though its lists have learned nothing."""


class TestPgvectorStoreThatAsksItsLists(ListedFixtures, AskingContract):
    """Which find less where vectors lie at random, as these do; what is found is right."""

    opener = "support.indexed:open_listed_and_approximate"
    least_found = 0.5
