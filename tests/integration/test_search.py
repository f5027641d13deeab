"""Search: the store finds, the source decides what is shown."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from support.layouts import document, experience, skill_key
from support.postgres import PostgresServer
from support.sides import DIMENSION, CountingEmbedder, World
from undrift import (
    ConfigError,
    EmbeddingFailed,
    InvalidDocument,
    OwnerNotFound,
    SourceUnavailable,
    StoreUnavailable,
)
from undrift.embedders.hashing import HashingEmbedder
from undrift.ports import Purpose, Vectors

QUERY = "keeps the ledger of a walled garden"
WORDS = ("ledger", "garden", "kiln", "pears", "grafts", "walled", "keeps")


def skills(numbers: Sequence[int]) -> list[str]:
    """Texts that are all at different distances from the query, more or less."""
    return [f"{WORDS[n % 7]} {WORDS[n % 5]} {WORDS[n % 3]} number {n}" for n in numbers]


def true_scores(texts: Sequence[str], limit: int) -> list[float]:
    """The best cosine similarities there are, computed without a store."""
    embedder = HashingEmbedder(DIMENSION)
    scores: list[float] = (embedder.embed(texts) @ embedder.embed([QUERY])[0]).tolist()
    return sorted(scores, reverse=True)[:limit]


# --- what the source says is shown ------------------------------------------------------------


def test_hits_are_the_nearest_there_are_best_first(world: World) -> None:
    """Scores are those of comparing the query with every text."""
    texts = skills(range(60))
    world.bring_in_sync({"1": document(skills=texts)})

    hits = world.sides.search("1", QUERY, limit=10).hits

    scores = [hit.score for hit in hits]
    np.testing.assert_allclose(scores, true_scores(texts, 10), atol=1e-6)
    assert scores == sorted(scores, reverse=True)
    assert {hit.text for hit in hits} <= set(texts)
    assert not any(hit.changed for hit in hits)


def test_entity_that_is_gone_is_never_returned_and_others_fill_its_place(world: World) -> None:
    """The 30 nearest of 60 vanish from the source: the next 10 come, and nothing is missing."""
    texts = skills(range(60))
    world.bring_in_sync({"1": document(skills=texts)})
    nearest = [hit.text for hit in world.sides.search("1", QUERY, limit=30).hits]
    left = [text for text in texts if text not in nearest]
    world.put("1", document(skills=left))

    result = world.sides.search("1", QUERY, limit=10)

    assert {hit.text for hit in result.hits} <= set(left)
    np.testing.assert_allclose([h.score for h in result.hits], true_scores(left, 10), atol=1e-6)
    assert set(result.stale_ids) == {skill_key(text) for text in nearest}


def test_control_the_store_alone_offers_what_is_gone(world: World) -> None:
    """Without the join, the search would return an entity that does not exist any more."""
    world.bring_in_sync({"1": document(skills=["ledger", "kiln"])})
    world.put("1", document(skills=["kiln"]))

    result = world.sides.search("1", "ledger", limit=1)

    assert [hit.text for hit in result.hits] == ["kiln"]
    assert result.stale_ids == (skill_key("ledger"),)


def test_changed_entity_comes_with_the_text_of_the_source(world: World) -> None:
    """Its place belongs to the old text, and it says so."""
    before = document(experience("exp_1", "Keeps a ledger"), experience("exp_2", "Fires a kiln"))
    world.bring_in_sync({"1": before})
    world.put(
        "1", document(experience("exp_1", "Keeps bees", end="2024"), before["experiences"][1])
    )

    first, second = world.sides.search("1", "ledger").hits

    assert (first.key, first.changed) == ("experience:exp_1", True)
    assert first.text == "Title of exp_1 at Acme. Keeps bees"
    assert first.metadata == {"title": "Title of exp_1", "company": "Acme", "end": "2024"}
    assert (second.key, second.changed) == ("experience:exp_2", False)


def test_text_tampered_in_the_store_is_never_shown(world: World) -> None:
    """What a hit says is the source's, whatever the record says."""
    world.bring_in_sync({"1": document(skills=["ledger"])})
    world.store.set(world.vector_id("1", skill_key("ledger")), text="Send me your password")

    (hit,) = world.sides.search("1", "ledger").hits

    assert hit.text == "ledger"


def test_entity_with_two_records_comes_once(world: World) -> None:
    """A copy takes nobody's place."""
    texts = skills(range(20))
    world.bring_in_sync({"1": document(skills=texts)})
    for (_, key), vector_id in list(world.store.identities().items())[:15]:
        world.store.copy(vector_id, entity_id=key.id)

    hits = world.sides.search("1", QUERY, limit=20).hits

    assert sorted(hit.text for hit in hits) == sorted(texts)


# --- whose records are searched ---------------------------------------------------------------


def test_search_stays_with_its_owner(world: World) -> None:
    """Two owners with the same ids: each sees its own texts, and none of the other's."""
    world.bring_in_sync(
        {
            "1": document(experience("exp_1", "Keeps a ledger"), skills=["ledger"]),
            "2": document(experience("exp_1", "Fires a kiln"), skills=["kiln"]),
        },
    )

    hits = world.sides.search("2", "ledger", limit=100).hits

    assert {hit.owner_id for hit in hits} == {"2"}
    assert {hit.text for hit in hits} == {"Title of exp_1 at Acme. Fires a kiln", "kiln"}


def test_record_stolen_from_another_owner_is_not_shown(world: World) -> None:
    """A record whose owner was changed in the store is stale there, however near it is."""
    world.bring_in_sync({"1": document(skills=["ledger"]), "2": document(skills=["kiln"])})
    world.store.set(world.vector_id("1", skill_key("ledger")), owner_id="2")

    result = world.sides.search("2", "ledger")

    assert [hit.text for hit in result.hits] == ["kiln"]
    assert world.sides.search("1", "ledger").hits == ()


@pytest.mark.parametrize("changes", [{"namespace": "other"}, {"namespace": None}])
def test_records_outside_the_namespace_are_not_searched(
    world: World, changes: dict[str, object]
) -> None:
    """They take no place and are not called stale."""
    world.bring_in_sync({"1": document(skills=["ledger", "kiln"])})
    world.store.copy(world.vector_id("1", skill_key("ledger")), entity_id="foreign", **changes)

    result = world.sides.search("1", "ledger", limit=10)

    assert [hit.text for hit in result.hits] == ["ledger", "kiln"]
    assert result.stale_ids == ()


def test_records_of_a_kind_that_is_not_configured_are_not_searched(world: World) -> None:
    """Thirty unmanaged records are nearest: they take no place and are not called stale."""
    texts = skills(range(10))
    world.bring_in_sync({"1": document(skills=["ledger", *texts])})
    ledger = world.vector_id("1", skill_key("ledger"))
    for number in range(30):
        world.store.copy(ledger, kind="hobby", entity_id=f"hobby_{number}")

    result = world.sides.search("1", "ledger", limit=10)

    assert len(result.hits) == 10
    assert result.stale_ids == ()


def test_records_of_another_model_are_not_compared(world: World) -> None:
    """Equal dimension is not equal meaning."""
    world.bring_in_sync({"1": document(skills=["ledger", "kiln"])})
    world.store.set(world.vector_id("1", skill_key("ledger")), model="test/other:16:l2")

    assert [hit.text for hit in world.sides.search("1", "ledger").hits] == ["kiln"]


# --- kinds, limits and mistakes ---------------------------------------------------------------

MIXED = document(
    experience(
        "exp_1",
        "Keeps a ledger",
        projects=[{"id": "p_1", "title": "Ledger", "description": "of the garden"}],
    ),
    skills=["ledger"],
)


@pytest.mark.parametrize(
    ("kinds", "found"),
    [
        (None, {"experience", "project", "skill"}),
        (["project"], {"project"}),
        (["project", "skill"], {"project", "skill"}),
        (["education"], set()),
    ],
)
def test_kinds_restrict_the_search(world: World, kinds: list[str] | None, found: set[str]) -> None:
    """Only the kinds that were asked for."""
    world.bring_in_sync({"1": MIXED})

    hits = world.sides.search("1", "ledger", kinds=kinds).hits

    assert {hit.key.kind for hit in hits} == found


@pytest.mark.parametrize(
    ("query", "kinds", "limit"),
    [
        ("", None, 10),
        (" \n\t", None, 10),
        ("ledger", ["projcet"], 10),
        ("ledger", None, 0),
        ("ledger", None, -1),
        ("ledger", None, 1_001),
    ],
)
def test_senseless_search_is_refused_and_told_why(
    world: World, query: str, kinds: list[str] | None, limit: int
) -> None:
    """An empty query, an unknown kind, a limit out of range."""
    world.bring_in_sync({"1": MIXED})

    with pytest.raises(ConfigError):
        world.sides.search("1", query, kinds=kinds, limit=limit)


def test_unknown_owner_is_an_error_and_an_empty_one_is_not(world: World) -> None:
    """Who has nothing finds nothing; who does not exist is told so."""
    world.bring_in_sync({"1": MIXED, "2": {}})

    assert world.sides.search("2", "ledger").hits == ()
    for nobody in ("3", "01", "one"):
        with pytest.raises(OwnerNotFound):
            world.sides.search(nobody, "ledger")


def test_owner_that_only_the_store_has_gets_no_hits(world: World) -> None:
    """All its records are stale."""
    world.bring_in_sync({"1": MIXED, "2": MIXED})
    world.remove_owners(["1"])

    result = world.sides.search("1", "ledger")

    assert result.hits == ()
    assert set(result.stale_ids) == world.layout.entities(MIXED).keys()


def test_search_before_the_first_sync_finds_nothing(world: World) -> None:
    """A store that is not there yet holds no records; it is not created by looking."""
    world.put("1", MIXED)

    assert world.sides.search("1", "ledger").hits == ()
    assert not world.store.exists


def test_unreadable_document_is_an_error(world: World) -> None:
    """Hits that cannot be joined are not returned."""
    world.bring_in_sync({"1": MIXED})
    world.source.run("UPDATE profiles SET filtered_data = NULL")

    with pytest.raises(InvalidDocument):
        world.sides.search("1", "ledger")


class ZeroForQueries(CountingEmbedder):
    """Gives queries a vector that is like nothing."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self._number = number

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed documents well, and queries badly."""
        vectors = super().embed(texts, purpose)
        return vectors if purpose == "document" else np.full_like(vectors, self._number)


@pytest.mark.parametrize("number", [0.0, np.nan, np.inf])
def test_query_without_a_usable_vector_is_an_error(world: World, number: float) -> None:
    """A vector of length zero, or of NaN, is near to nothing: there is no best hit."""
    world.bring_in_sync({"1": MIXED})
    sides = world.open(embedder=ZeroForQueries(number))

    with pytest.raises(EmbeddingFailed):
        sides.search("1", "ledger")


def test_search_with_a_source_that_is_down_is_an_error(
    postgres_server: PostgresServer, postgres: World
) -> None:
    """Never hits as they stand in the store."""
    postgres.bring_in_sync({"1": MIXED})
    assert postgres.sides.search("1", "ledger").hits

    postgres_server.stop()

    with pytest.raises((SourceUnavailable, StoreUnavailable)):
        postgres.sides.search("1", "ledger")
