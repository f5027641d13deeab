"""An embedding server, or a library, that gives the right vectors to the wrong texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from support.embedding_server import Answer, EmbeddingProxy, Fault, embedder_at, one_by_one
from undrift import Undrift
from undrift.embedders import as_embedder
from undrift.embedders._twins import repeated_text
from undrift.embedders.hashing import HashingEmbedder
from undrift.embedders.openai import OpenAIEmbedder
from undrift.errors import EmbeddingFailed
from undrift.model import Outcome

TEXTS = ["Built the billing service", "Taught physics", "Cooked in Naples", "Sold houses", "Nursed"]
TWIN = repeated_text(TEXTS) or 0

Order = Callable[[int], list[int]]


def reversed_order(count: int) -> list[int]:
    """The last one first."""
    return list(range(count))[::-1]


def rotated_order(count: int) -> list[int]:
    """Each vector for the text before."""
    return [*range(1, count), 0]


def swapped_order(count: int) -> list[int]:
    """Two neighbours for one another, one of them the text that is sent twice."""
    order = list(range(count))
    if count > len(TEXTS):
        order[TWIN - 1], order[TWIN] = order[TWIN], order[TWIN - 1]
    else:
        order[:2] = order[1::-1]
    return order


ORDERS = [reversed_order, rotated_order, swapped_order]


def permuted(order: Order) -> Fault:
    """An answer that says of every vector, convincingly, that it is another text's."""

    def rewrite(answer: Answer) -> None:
        vectors = [item["embedding"] for item in answer["data"]]
        for item, source in zip(answer["data"], order(len(vectors)), strict=True):
            item["embedding"] = vectors[source]

    return Fault(rewritten=rewrite)


@pytest.fixture
def embedder(embedding_proxy: EmbeddingProxy) -> Iterator[OpenAIEmbedder]:
    with closing(embedder_at(embedding_proxy.url)) as opened:
        yield opened


@pytest.mark.parametrize("order", ORDERS)
def test_a_server_that_permutes_its_answer_is_caught(
    embedder: OpenAIEmbedder, embedding_proxy: EmbeddingProxy, order: Order
) -> None:
    """The control sends no text twice, and believes wrong vectors."""
    truth = one_by_one(embedding_proxy.url, TEXTS)
    embedding_proxy.always(permuted(order))
    with pytest.raises(EmbeddingFailed, match="two different vectors") as caught:
        embedder.embed(TEXTS)
    assert not any(text in str(caught.value) for text in TEXTS)
    control = embedder._endpoint.ask(TEXTS)
    assert control.shape == truth.shape
    assert not np.allclose(control, truth, atol=1e-2)


def test_the_repeated_text_stands_at_the_end_of_every_request(
    embedder: OpenAIEmbedder, embedding_proxy: EmbeddingProxy
) -> None:
    """And counts into what a server takes at once."""
    with closing(embedder_at(embedding_proxy.url, batch_texts=4)) as small:
        vectors = small.embed(TEXTS)
    sent = [request["input"] for request in embedding_proxy.requests]
    assert [texts[:-1] for texts in sent] == [TEXTS[:3], TEXTS[3:]]
    assert sent[0][-1] in TEXTS[1:3]
    assert sent[1][-1] == TEXTS[4]
    np.testing.assert_allclose(vectors, embedder.embed(TEXTS), atol=1e-5)


def test_a_query_and_a_single_text_are_sent_once(
    embedder: OpenAIEmbedder, embedding_proxy: EmbeddingProxy
) -> None:
    """There is nothing to mix them up with."""
    embedder.embed(["SQL"])
    embedder.embed(["SQL"], "query")
    with closing(embedder_at(embedding_proxy.url, batch_texts=1)) as alone:
        alone.embed(TEXTS)
    assert embedding_proxy.asked == [1] * 7


def test_a_sync_over_a_server_that_permutes_writes_nothing_and_heals_later(
    embedding_proxy: EmbeddingProxy, tmp_path: Path
) -> None:
    """Nothing of the answer is used; what it cost counts as so many texts as there are."""
    profile = {"experiences": [{"id": str(n), "title": title} for n, title in enumerate(TEXTS)]}
    embedder = embedder_at(embedding_proxy.url)
    with Undrift(store=f"sqlite:///{tmp_path / 'vectors.db'}", embedder=embedder) as sides:
        embedding_proxy.always(permuted(reversed_order))
        failed = sides.sync(7, profile)
        assert (failed.outcome, failed.written) == (Outcome.FAILED, 0)
        assert isinstance(failed.error, EmbeddingFailed)
        embedding_proxy.always(None)
        healed = sides.sync(7, profile, max_embeddings=len(TEXTS))
        assert (healed.outcome, healed.embedded) == (Outcome.IN_SYNC, len(TEXTS))
        assert sides.check(7, profile).is_in_sync


class Library:
    """What a LangChain integration looks like, one that returns its vectors in some order."""

    model = "library"
    dimension = 64

    def __init__(self, order: Order) -> None:
        self._order = order
        self.asked: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked.append(texts)
        vectors: list[list[float]] = HashingEmbedder(64).embed(texts).tolist()
        return [vectors[source] for source in self._order(len(vectors))]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


@pytest.mark.parametrize("order", ORDERS)
def test_an_adapted_object_that_permutes_its_answer_is_caught(order: Order) -> None:
    """The control asks the object itself."""
    library = Library(order)
    with pytest.raises(EmbeddingFailed, match="library gave it two different vectors"):
        as_embedder(library).embed(TEXTS)
    truth = HashingEmbedder(64).embed(TEXTS)
    assert not np.allclose(library.embed_documents(TEXTS), truth, atol=1e-2)


def test_an_adapted_object_is_asked_for_one_text_twice_in_each_call() -> None:
    """But not for queries, each of which has a call of its own."""
    library = Library(lambda count: list(range(count)))
    embedder = as_embedder(library)
    np.testing.assert_allclose(embedder.embed(TEXTS), HashingEmbedder(64).embed(TEXTS), atol=1e-6)
    embedder.embed(TEXTS[:2], "query")
    assert library.asked == [[*TEXTS, TEXTS[TWIN]], [TEXTS[0]], [TEXTS[1]]]
