"""The contract's part on search: the true nearest records of one owner."""

from __future__ import annotations

import json

import numpy as np
import pytest

from undrift.errors import ConfigError
from undrift.ports import VectorStore
from undrift.testing._store_fixtures import Crowd, StoreFixtures, similarities, stamps_of
from undrift.testing.builders import DIMENSION, MODEL, deletion, record, records, vectors


class SearchContract(StoreFixtures):
    """Exact, filtered by owner, model and kind."""

    @pytest.mark.parametrize("owner_id", ["few", "some", "many"])
    def test_the_true_nearest_of_an_owner_are_found(self, crowd: Crowd, owner_id: str) -> None:
        """At 0.02 %, 5 % and 50 % of all records, compared with brute force."""
        self.need(crowd.store, "exact_owner_search")
        written = crowd.by_owner[owner_id]
        for query in vectors(5, seed=77):
            expected = similarities(written, query, self.as_stored)[:10]
            found = crowd.store.search(owner_id, query, model=MODEL, kinds=None, limit=10)
            assert [match.stamp.vector_id for match in found] == [id_ for _, id_ in expected]
            np.testing.assert_allclose(
                [match.score for match in found], [score for score, _ in expected], atol=1e-5
            )
            assert {match.stamp for match in found} <= stamps_of(written)

    def test_all_records_come_where_the_limit_allows(self, crowd: Crowd) -> None:
        """Best first, and no more than the owner has."""
        query = vectors(1, seed=5)[0]
        found = crowd.store.search("few", query, model=MODEL, kinds=None, limit=1_000)
        assert {match.stamp for match in found} == stamps_of(crowd.by_owner["few"])
        scores = [match.score for match in found]
        assert scores == sorted(scores, reverse=True)
        assert crowd.store.search("few", query, model=MODEL, kinds=None, limit=0) == []

    def test_a_match_carries_what_was_written(self, store: VectorStore) -> None:
        """Text and metadata too; its own vector has similarity 1, the opposite one -1."""
        written = record("a", text="Café \N{PARTY POPPER}", metadata={"b": [1, None], "a": "é"})
        assert written.embedding is not None
        store.publish([written], [])
        (match,) = store.search("1", written.embedding, model=MODEL, kinds=None, limit=1)
        assert match.stamp == written.stamp
        assert match.text == written.text
        assert json.loads(match.metadata_json) == {"b": [1, None], "a": "é"}
        assert match.score == pytest.approx(1.0, abs=1e-6)
        (match,) = store.search("1", -3 * written.embedding, model=MODEL, kinds=None, limit=1)
        assert match.score == pytest.approx(-1.0, abs=1e-6)

    def test_only_the_given_model_and_kinds_are_found(self, store: VectorStore) -> None:
        """A vector of another model is not comparable, even of the same dimension."""
        project, skill = record("a", kind="project"), record("a", kind="skill")
        other = record("b", kind="skill", model="another")
        store.publish([project, skill, other], [])
        query = vectors(1)[0]
        for model, kinds, expected in (
            (MODEL, None, [project, skill]),
            (MODEL, ["skill"], [skill]),
            (MODEL, ["skill", "project", "unheard of"], [project, skill]),
            (MODEL, ["unheard of"], []),
            (MODEL, [], []),
            ("another", None, [other]),
            ("unheard of", None, []),
        ):
            found = store.search("1", query, model=model, kinds=kinds, limit=10)
            assert {match.stamp for match in found} == stamps_of(expected)

    def test_search_sees_every_publish_at_once(self, store: VectorStore) -> None:
        """A new record, its new version, and its deletion."""
        query = vectors(1)[0]
        for written in (record(text="old"), record(text="new", version=2)):
            store.publish([written], [])
            (match,) = store.search("1", query, model=MODEL, kinds=None, limit=10)
            assert (match.stamp, match.text) == (written.stamp, written.text)
        store.publish([], [deletion(written)])
        assert not store.search("1", query, model=MODEL, kinds=None, limit=10)

    def test_a_record_that_lost_its_vector_is_not_found(
        self, store: VectorStore, location: str
    ) -> None:
        """Nor does it disturb the others."""
        kept, lost = written = records(2)
        store.publish(written, [])
        self.lose_vector(location, lost.stamp.vector_id)
        found = store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=10)
        assert {match.stamp for match in found} == stamps_of([kept])

    def test_a_query_of_another_dimension_is_refused(self, store: VectorStore) -> None:
        """It would otherwise look as if the owner had no records."""
        store.publish(records(1), [])
        query = vectors(1, dimension=DIMENSION + 1)[0]
        with pytest.raises(ConfigError, match="dimension"):
            store.search("1", query, model=MODEL, kinds=None, limit=10)

    def test_a_query_without_a_direction_finds_nothing(self, store: VectorStore) -> None:
        """Nothing is near to the zero vector."""
        store.publish(records(3), [])
        query = np.zeros(DIMENSION, dtype=np.float32)
        assert not store.search("1", query, model=MODEL, kinds=None, limit=10)
