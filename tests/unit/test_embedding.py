"""Embedding what a run needs: once, checked, within the budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undrift.embedders.hashing import HashingEmbedder
from undrift.embedding import TextEmbedder, embed_query
from undrift.errors import ConfigError, EmbeddingFailed, TransientError, UndriftError
from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.ports import Embedder, Purpose, Vectors

NAN, INFINITE = float("nan"), float("inf")


class NotingEmbedder(HashingEmbedder):
    """Notes every batch it is asked for; a text such as ``bad 1e-30`` gets that many times ones."""

    def __init__(self, dimension: int = 8) -> None:
        super().__init__(dimension)
        self.batches: list[list[str]] = []
        self.purposes: list[Purpose] = []

    @property
    def texts(self) -> list[str]:
        return [text for batch in self.batches for text in batch]

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        self.batches.append(list(texts))
        self.purposes.append(purpose)
        vectors = super().embed(texts, purpose)
        for row, text in enumerate(texts):
            word, _, value = text.partition(" ")
            if word == "bad":
                vectors[row] = float(value)
        return vectors


class AnsweringEmbedder(HashingEmbedder):
    """Answers whatever it is told to."""

    def __init__(self, answer: Callable[[Sequence[str]], object], dimension: int = 8) -> None:
        super().__init__(dimension)
        self._answer = answer

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        return cast("Vectors", self._answer(texts))


class RaisingEmbedder(NotingEmbedder):
    """Raises from the batch that holds the word ``raise``, as often as it is asked."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        if "raise" in texts:
            raise self._error
        return super().embed(texts, purpose)


def named(*texts: str) -> dict[str, str]:
    """Each text under a hash of its own."""
    return {f"#{text}": text for text in texts}


# --- once -------------------------------------------------------------------------------------


def test_every_text_gets_the_vector_the_embedder_makes_of_it() -> None:
    """Through batches of any size, whatever was remembered in between."""
    texts = [f"text {number}" for number in range(7)]
    embed = TextEmbedder(HashingEmbedder(), batch_texts=3)
    embed.embed(named(*texts[3:5]))
    result = embed.embed(named(*texts))
    expected = HashingEmbedder().embed(texts)
    assert list(result.vectors) == [f"#{text}" for text in texts]
    for text, row in zip(texts, expected, strict=True):
        np.testing.assert_array_equal(result.vectors[f"#{text}"], row)


def test_a_text_is_embedded_once_in_a_run() -> None:
    """However many owners share it."""
    embedder = NotingEmbedder()
    embed = TextEmbedder(embedder)
    first = embed.embed(named("SQL", "Go"))
    second = embed.embed(named("Go", "Rust"))
    assert embedder.batches == [["SQL", "Go"], ["Rust"]]
    assert embed.embedded == 3
    assert first.newly_embedded == {"#SQL", "#Go"}
    assert second.newly_embedded == {"#Rust"}
    np.testing.assert_array_equal(first.vectors["#Go"], second.vectors["#Go"])


def test_no_texts_are_not_worth_a_call() -> None:
    """Nor is a request that is remembered whole."""
    embedder = NotingEmbedder()
    embed = TextEmbedder(embedder)
    embed.embed({})
    embed.embed(named("SQL"))
    embed.embed(named("SQL"))
    assert embedder.batches == [["SQL"]]


def test_a_request_larger_than_the_memory_is_answered_whole() -> None:
    """What is forgotten is forgotten for later requests, not for this one."""
    embedder = NotingEmbedder()
    embed = TextEmbedder(embedder, max_remembered=2, batch_texts=2)
    assert len(embed.embed(named("a", "b", "c", "d", "e")).vectors) == 5
    embed.embed(named("d", "e"))
    assert embedder.texts == ["a", "b", "c", "d", "e"]
    embed.embed(named("a"))
    assert embedder.texts[5:] == ["a"]


def test_a_remembered_text_is_not_paid_again_beside_many_new_ones() -> None:
    """The new ones would push it out of the memory before its turn."""
    embedder = NotingEmbedder()
    embed = TextEmbedder(embedder, max_remembered=2, batch_texts=1)
    embed.embed(named("old"))
    result = embed.embed(named("a", "b", "c", "old"))
    assert embedder.texts == ["old", "a", "b", "c"]
    assert set(result.vectors) == {"#a", "#b", "#c", "#old"}


def test_the_text_that_was_not_asked_for_longest_is_forgotten_first() -> None:
    """Asking for a text counts as use."""
    embedder = NotingEmbedder()
    embed = TextEmbedder(embedder, max_remembered=2)
    for text in ("a", "b", "a", "c", "a"):
        embed.embed(named(text))
    assert embedder.texts == ["a", "b", "c"]


def test_what_is_handed_out_cannot_be_changed() -> None:
    """Records of several owners share one vector."""
    result = TextEmbedder(HashingEmbedder()).embed(named("SQL"))
    with pytest.raises(ValueError, match="read-only"):
        result.vectors["#SQL"][0] = 9.0


def test_an_embedder_may_use_its_memory_again() -> None:
    """Vectors of an earlier batch do not change with the next."""
    buffer = np.zeros((1, 8), dtype=np.float32)

    def answer(texts: Sequence[str]) -> object:
        buffer[:] = len(texts[0])
        return buffer

    result = TextEmbedder(AnsweringEmbedder(answer), batch_texts=1).embed(named("a", "bb"))
    assert result.vectors["#a"][0] == 1.0
    assert result.vectors["#bb"][0] == 2.0


# --- checked ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (NAN, "not finite"),
        (INFINITE, "not finite"),
        (-INFINITE, "not finite"),
        (0.0, "length zero"),
        (1e-30, "length zero"),
        (1e30, "too long"),
    ],
)
def test_a_bad_vector_is_rejected_with_its_reason_and_the_others_are_used(
    value: float, reason: str
) -> None:
    """Most stores accept such a vector and never find it again."""
    result = TextEmbedder(NotingEmbedder()).embed(named("before", f"bad {value}", "after"))
    assert set(result.vectors) == {"#before", "#after"}
    assert list(result.rejected) == [f"#bad {value}"]
    assert reason in result.rejected[f"#bad {value}"]
    assert result.newly_embedded == {"#before", "#after", f"#bad {value}"}


def test_one_bad_component_is_enough() -> None:
    """Every number is looked at."""

    def answer(texts: Sequence[str]) -> object:
        vectors = np.ones((len(texts), 8), dtype=np.float32)
        vectors[1, 7] = NAN
        return vectors

    result = TextEmbedder(AnsweringEmbedder(answer)).embed(named("a", "b", "c"))
    assert set(result.rejected) == {"#b"}


def test_doubles_that_do_not_fit_into_float32_are_rejected() -> None:
    """1e300 becomes infinite when it is stored."""
    embed = TextEmbedder(AnsweringEmbedder(lambda texts: [[1e300] * 8 for _ in texts]))
    assert "not finite" in embed.embed(named("a")).rejected["#a"]


def test_a_rejected_text_is_not_paid_for_again() -> None:
    """The next owner of the same text gets the same reason."""
    embedder = NotingEmbedder()
    embed = TextEmbedder(embedder)
    first = embed.embed(named("bad nan"))
    second = embed.embed(named("bad nan"))
    assert first.rejected == second.rejected
    assert second.newly_embedded == frozenset()
    assert embed.embedded == 1


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(lambda texts: np.ones((len(texts) - 1, 8), np.float32), id="too few"),
        pytest.param(lambda texts: np.ones((len(texts) + 1, 8), np.float32), id="too many"),
        pytest.param(lambda texts: np.ones((len(texts), 7), np.float32), id="other dimension"),
        pytest.param(lambda texts: np.ones((len(texts), 8, 1), np.float32), id="not a table"),
        pytest.param(lambda texts: np.ones(8, np.float32), id="one vector, not a row"),
        pytest.param(lambda texts: [[1.0] * 8, [1.0]], id="ragged"),
        pytest.param(lambda texts: [["one"] * 8 for _ in texts], id="words"),
        pytest.param(lambda texts: None, id="nothing"),
    ],
)
def test_an_answer_of_another_shape_fails_the_batch(
    answer: Callable[[Sequence[str]], object],
) -> None:
    """Which vector belongs to which text cannot be told, so none is used; it has cost though."""
    embed = TextEmbedder(AnsweringEmbedder(answer), max_embeddings=10)
    with pytest.raises(EmbeddingFailed) as caught:
        embed.embed(named("a", "b"))
    assert "2 vectors of 8 components" in caught.value.why
    assert embed.remaining == 8


def test_plain_lists_of_floats_are_taken() -> None:
    """Many clients return those."""
    embed = TextEmbedder(AnsweringEmbedder(lambda texts: [[0.5] * 8 for _ in texts]))
    vector = embed.embed(named("a")).vectors["#a"]
    assert vector.dtype == np.float32
    assert vector.shape == (8,)


def test_an_embedders_own_exception_becomes_a_failure_that_quotes_nothing() -> None:
    """Its message may hold the text or a key; it stays in the cause, for a debugger."""
    error = RuntimeError("400: 'raise' is no text, key sk-123")
    with pytest.raises(EmbeddingFailed) as caught:
        TextEmbedder(RaisingEmbedder(error)).embed(named("raise"))
    assert caught.value.__cause__ is error
    assert "RuntimeError" in str(caught.value)
    assert "sk-123" not in str(caught.value)


@pytest.mark.parametrize("kind", [ConfigError, TransientError, EmbeddingFailed])
def test_undrifts_own_errors_pass_unchanged(kind: type[UndriftError]) -> None:
    """The adapter knows better than this layer what a caller can do."""
    error = kind("It is", why="because.", fix="mend it")
    with pytest.raises(kind) as caught:
        TextEmbedder(RaisingEmbedder(error)).embed(named("raise"))
    assert caught.value is error


def test_an_interrupt_is_no_failure() -> None:
    """Ctrl-C ends the run."""
    with pytest.raises(KeyboardInterrupt):
        TextEmbedder(RaisingEmbedder(KeyboardInterrupt())).embed(named("raise"))


def test_what_was_embedded_before_a_failure_is_not_paid_for_again() -> None:
    """The next try goes on where the first one stopped."""
    embedder = RaisingEmbedder(ConnectionError())
    embed = TextEmbedder(embedder, batch_texts=2)
    with pytest.raises(EmbeddingFailed):
        embed.embed(named("a", "b", "raise", "c"))
    assert embed.embedded == 2
    embed.embed(named("a", "b", "c"))
    assert embedder.texts == ["a", "b", "c"]


# --- within the budget ------------------------------------------------------------------------


def test_the_budget_is_spent_in_order_and_the_rest_is_named() -> None:
    """Nobody pays for a text too many."""
    embedder = NotingEmbedder()
    embed = TextEmbedder(embedder, max_embeddings=3, batch_texts=2)
    result = embed.embed(named("a", "b", "c", "d", "e"))
    assert embedder.texts == ["a", "b", "c"]
    assert set(result.vectors) == {"#a", "#b", "#c"}
    assert result.unpaid == {"#d", "#e"}
    assert embed.remaining == 0


def test_remembered_texts_cost_nothing() -> None:
    """A spent budget still serves what has been paid for."""
    embed = TextEmbedder(NotingEmbedder(), max_embeddings=1)
    embed.embed(named("a"))
    result = embed.embed(named("b", "a"))
    assert set(result.vectors) == {"#a"}
    assert result.unpaid == {"#b"}


def test_a_budget_of_nothing_embeds_nothing() -> None:
    """Zero is a budget, not its absence."""
    embedder = NotingEmbedder()
    embed = TextEmbedder(embedder, max_embeddings=0)
    assert embed.remaining == 0
    assert embed.embed(named("a")).unpaid == {"#a"}
    assert embedder.batches == []


def test_without_a_budget_there_is_no_remainder() -> None:
    """None, not a large number."""
    embed = TextEmbedder(NotingEmbedder())
    embed.embed(named("a"))
    assert embed.remaining is None


def test_a_negative_budget_is_refused() -> None:
    """-1 often means "unlimited", and here would have meant "nothing"."""
    with pytest.raises(ConfigError, match="budget"):
        TextEmbedder(NotingEmbedder(), max_embeddings=-1)


# --- truncated --------------------------------------------------------------------------------


def test_a_long_text_reaches_the_embedder_cut_and_is_counted() -> None:
    """Only the first 20,000 characters are embedded, whatever the embedder would take."""
    embedder = NotingEmbedder()
    embed = TextEmbedder(embedder)
    whole = "x" * MAX_EMBEDDED_CHARACTERS
    embed.embed({"whole": whole, "long": f"{whole}y"})
    assert embedder.texts == [whole, whole]
    assert embed.truncated == 1


def test_what_the_model_cuts_is_counted_once() -> None:
    """A text that is too long for both counts as one; a remembered one is not counted again."""

    class ShortSighted(NotingEmbedder):
        def count_truncated(self, texts: Sequence[str]) -> int:
            return sum(len(text) > 3 for text in texts)

    embed = TextEmbedder(ShortSighted())
    texts = {"short": "abc", "long": "abcd", "huge": "x" * (MAX_EMBEDDED_CHARACTERS + 1)}
    embed.embed(texts)
    embed.embed(texts)
    assert embed.truncated == 2


def test_a_failing_count_is_a_failure_of_the_embedder() -> None:
    """It is the embedder's code as much as `embed` is; what was embedded stays remembered."""

    class Uncountable(NotingEmbedder):
        def count_truncated(self, texts: Sequence[str]) -> int:
            raise ZeroDivisionError

    embedder = Uncountable()
    embed = TextEmbedder(embedder)
    with pytest.raises(EmbeddingFailed, match="ZeroDivisionError"):
        embed.embed(named("a"))
    assert set(embed.embed(named("a")).vectors) == {"#a"}
    assert embedder.texts == ["a"]


# --- all of it --------------------------------------------------------------------------------


@given(
    requests=st.lists(st.lists(st.sampled_from(["a", "b", "c", "bad nan", "bad 0"]), unique=True)),
    budget=st.none() | st.integers(0, 6),
    batch_texts=st.integers(1, 3),
    max_remembered=st.integers(0, 6),
)
def test_any_run_answers_every_text_once_and_keeps_to_its_budget(
    requests: list[list[str]], budget: int | None, batch_texts: int, max_remembered: int
) -> None:
    """Each text is a vector, a reason or unpaid; every text the embedder saw was counted."""
    embedder = NotingEmbedder()
    embed = TextEmbedder(
        embedder, max_embeddings=budget, batch_texts=batch_texts, max_remembered=max_remembered
    )
    for request in requests:
        seen = len(embedder.texts)
        result = embed.embed(named(*request))
        parts = [*result.vectors, *result.rejected, *result.unpaid]
        assert sorted(parts) == sorted(named(*request))
        assert all(key.startswith("#bad") for key in result.rejected)
        assert not any(key.startswith("#bad") for key in result.vectors)
        assert sorted(result.newly_embedded) == sorted(named(*embedder.texts[seen:]))
        assert not result.unpaid or embed.remaining == 0
    assert embed.embedded == len(embedder.texts)
    assert budget is None or embed.embedded <= budget
    assert all(0 < len(batch) <= batch_texts for batch in embedder.batches)


# --- queries ----------------------------------------------------------------------------------


def test_a_query_is_embedded_as_a_query() -> None:
    """Some models embed questions and documents differently."""
    embedder = NotingEmbedder()
    vector = embed_query(embedder, "SQL")
    np.testing.assert_array_equal(vector, HashingEmbedder(8).embed(["SQL"])[0])
    assert embedder.purposes == ["query"]


def test_a_query_is_cleaned_and_cut_as_documents_are() -> None:
    """So that a text finds itself."""
    embedder = NotingEmbedder()
    embed_query(embedder, "a\x00\udce9" + "x" * MAX_EMBEDDED_CHARACTERS)
    assert embedder.texts == ["a\ufffd\ufffd" + "x" * (MAX_EMBEDDED_CHARACTERS - 3)]


@pytest.mark.parametrize("value", ["nan", "0"])
def test_a_query_without_a_usable_vector_is_an_error(value: str) -> None:
    """Every distance to it would be NaN: an answer, but none to trust."""
    with pytest.raises(EmbeddingFailed, match="no usable vector"):
        embed_query(NotingEmbedder(), f"bad {value}")


@pytest.mark.parametrize(
    "embedder",
    [
        pytest.param(AnsweringEmbedder(lambda texts: np.ones((2, 8), np.float32)), id="shape"),
        pytest.param(RaisingEmbedder(ConnectionError()), id="exception"),
    ],
)
def test_a_query_fails_as_a_document_does(embedder: Embedder) -> None:
    """The same checks, the same errors."""
    with pytest.raises(EmbeddingFailed):
        embed_query(embedder, "raise")
