"""The text that is sent twice: which one it is, and which mix-ups it shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from undrift.embedders._twins import repeated_text, without_repeated
from undrift.embedders.hashing import HashingEmbedder
from undrift.errors import EmbeddingFailed

SIZES = range(2, 40)


def texts_of(size: int, word: str = "entry") -> list[str]:
    """So many different texts."""
    return [f"{word} number {number} of something else {number * number}" for number in range(size)]


def answer_to(texts: Sequence[str]) -> tuple[int, NDArray[np.float64]]:
    """Which text is repeated, and the right answer to all that is sent."""
    place = repeated_text(texts)
    assert place is not None
    vectors = HashingEmbedder(64).embed([*texts, texts[place]]).astype(np.float64)
    return place, vectors


def is_found(rows: NDArray[np.float64], place: int) -> bool:
    """Whether the answer is refused."""
    try:
        without_repeated(rows, place, embedder="it")
    except EmbeddingFailed:
        return True
    return False


@pytest.mark.parametrize("size", SIZES)
def test_the_right_answer_comes_out_without_the_repetition(size: int) -> None:
    """The control of all the others."""
    texts = texts_of(size)
    place, rows = answer_to(texts)
    found = without_repeated(rows, place, embedder="it")
    np.testing.assert_array_equal(found, HashingEmbedder(64).embed(texts))


@pytest.mark.parametrize("size", SIZES)
def test_every_reversal_and_every_rotation_is_found(size: int) -> None:
    """Of the whole answer, the repetition included, as a server sees it."""
    place, rows = answer_to(texts_of(size))
    assert is_found(rows[::-1], place)
    for steps in range(1, size + 1):
        assert is_found(np.roll(rows, steps, axis=0), place), steps


@pytest.mark.parametrize("size", SIZES)
def test_every_swap_with_one_of_the_two_is_found_and_no_other(size: int) -> None:
    """One repetition cannot see a swap that leaves both in their places."""
    place, rows = answer_to(texts_of(size))
    for first in range(size + 1):
        for second in range(first):
            swapped = rows.copy()
            swapped[[first, second]] = rows[[second, first]]
            moves_one = len({first, second} & {place, size}) == 1
            assert is_found(swapped, place) == moves_one, (first, second)


def test_a_server_that_always_confuses_the_same_two_places_is_found_soon() -> None:
    """Since every batch repeats another text."""
    batches = [answer_to(texts_of(10, f"batch {number}")) for number in range(60)]
    for first, second in ((0, 1), (3, 4), (8, 9)):
        order = list(range(11))
        order[first], order[second] = second, first
        assert any(is_found(rows[order], place) for place, rows in batches)


def test_the_choice_depends_on_the_batch_alone() -> None:
    """The same batch is asked in the same way again; all places but the first have their turn."""
    batches = [texts_of(5, f"batch {number}") for number in range(100)]
    places = list(map(repeated_text, batches))
    assert list(map(repeated_text, batches)) == places
    assert {*places} == {1, 3, 4}  # half a rotation brings the middle one behind the last


def test_texts_that_cannot_be_mixed_up_are_not_repeated() -> None:
    """One alone, none, or the same throughout."""
    assert [repeated_text(texts) for texts in ([], ["SQL"], ["SQL"] * 4)] == [None] * 3


def test_a_text_that_equals_the_first_is_not_chosen_where_there_is_another() -> None:
    """Reversed, it would stand in its twin's place and look right."""
    for number in range(20):
        texts = ["SQL", "SQL", f"Go {number}", "SQL", "SQL"]
        assert repeated_text(["SQL", f"Go {number}", "SQL", "SQL"]) == 1
        assert repeated_text(texts) in {1, 3, 4}  # the only other one is the middle one


@pytest.mark.parametrize("fault", [np.nan, np.inf, 0.0])
def test_a_text_without_a_usable_vector_has_none_twice(fault: float) -> None:
    """It is rejected by name, its neighbours are good; one usable vector of two is no answer."""
    place, rows = answer_to(texts_of(6))
    rows[place] = fault
    assert is_found(rows, place)
    rows[-1] = fault
    assert not is_found(rows, place)


def test_rounding_is_no_difference() -> None:
    """Servers that work with half the precision, or at another length, give the same vector."""
    place, rows = answer_to(texts_of(8))
    rows[-1] = 3.0 * rows[-1].astype(np.float16)
    assert not is_found(rows, place)
