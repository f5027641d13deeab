"""An embedder that waits for a failing server, and somebody who stops waiting for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.embedding_server import EmbeddingProxy, Fault, embedder_at
from undrift.embedders.openai import OpenAIEmbedder
from undrift.errors import EmbeddingFailed
from undrift.heal import InterruptibleEmbedder, PatientEmbedder

TEXTS = ["Built the billing service", "Taught physics", "Cooked in Naples", "Sold houses"]
ASKED_TO_WAIT_LONG = Fault(status=503, headers={"Retry-After": "50"})


class Interest:
    """Somebody who waits for an answer until they have been asked so many times."""

    def __init__(self, ends_after: int) -> None:
        self._left = ends_after
        self.asked = 0

    def is_over(self) -> bool:
        """Whether they have gone."""
        self.asked += 1
        self._left -= 1
        return self._left < 0


@pytest.fixture
def embedder(embedding_proxy: EmbeddingProxy) -> Iterator[OpenAIEmbedder]:
    """Two texts a request, and the one that is sent twice."""
    found = embedder_at(embedding_proxy.url, batch_texts=3, max_attempts=3)
    yield found
    found.close()


def test_a_wait_ends_when_nobody_waits_for_it_any_more(
    embedder: OpenAIEmbedder, embedding_proxy: EmbeddingProxy
) -> None:
    """The server asks for 50 s; a process that ends would live for as long."""
    embedding_proxy.always(ASKED_TO_WAIT_LONG)
    interest = Interest(ends_after=5)
    with pytest.raises(EmbeddingFailed, match="cut off"):
        InterruptibleEmbedder(embedder, interest.is_over).embed(TEXTS)
    assert embedding_proxy.asked == [3]
    assert interest.asked == 6


def test_no_request_is_sent_that_nobody_waits_for(
    embedder: OpenAIEmbedder, embedding_proxy: EmbeddingProxy
) -> None:
    """A batch is many requests where the server refuses a text, or takes few at once."""
    before_the_batch_and_each_request = 2
    interest = Interest(ends_after=before_the_batch_and_each_request)
    with pytest.raises(EmbeddingFailed, match="cut off"):
        InterruptibleEmbedder(embedder, interest.is_over).embed(TEXTS)
    assert embedding_proxy.asked == [3]


@pytest.mark.usefixtures("without_waits")
def test_control_without_an_end_of_interest_every_attempt_is_made(
    embedder: OpenAIEmbedder, embedding_proxy: EmbeddingProxy
) -> None:
    """And what was cut off before leaves no trace in the embedder that it shares."""
    embedding_proxy.next(ASKED_TO_WAIT_LONG)
    with pytest.raises(EmbeddingFailed, match="cut off"):
        InterruptibleEmbedder(embedder, Interest(ends_after=2).is_over).embed(TEXTS)
    embedding_proxy.requests.clear()

    embedding_proxy.next(ASKED_TO_WAIT_LONG, ASKED_TO_WAIT_LONG)
    patient = InterruptibleEmbedder(embedder, lambda: False)
    assert patient.embed(TEXTS).shape == (4, embedder.dimension)
    embedding_proxy.next(ASKED_TO_WAIT_LONG, ASKED_TO_WAIT_LONG)
    assert embedder.embed(TEXTS).shape == (4, embedder.dimension)
    assert embedding_proxy.asked == [3, 3, 3, 3] * 2


def test_it_is_the_same_model_by_the_same_connections(embedder: OpenAIEmbedder) -> None:
    """What a heal writes must not look like another model's."""
    assert isinstance(embedder, PatientEmbedder)
    impatient = embedder.impatient(lambda: None)
    assert (impatient.model, impatient.dimension) == (embedder.model, embedder.dimension)
    assert impatient._endpoint is embedder._endpoint
