"""The hashing embedder, and opening any embedder by its name."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undrift.embedders import open_embedder
from undrift.embedders.hashing import MAX_DIMENSION, HashingEmbedder
from undrift.embedders.local import LocalEmbedder
from undrift.errors import ConfigError
from undrift.ports import Embedder
from undrift.testing.embedder_contract import TEXTS, EmbedderContract

# Lone surrogates too, which `st.text()` leaves out.
any_text = st.text(st.characters(exclude_categories=()))


class TestHashingEmbedder(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return HashingEmbedder()


class TestHashingEmbedderOf64Components(EmbedderContract):
    @pytest.fixture
    def embedder(self) -> Embedder:
        return HashingEmbedder(64)


def test_vectors_are_the_same_in_every_process_and_on_every_machine() -> None:
    """Other bytes under the same model id would make every stored vector a silent stranger."""
    embedder = HashingEmbedder()
    assert embedder.model == "hashing/bow-v1:384:l2"
    vectors = embedder.embed(TEXTS).astype("<f4")
    assert (
        hashlib.sha256(vectors.tobytes()).hexdigest()
        == "e07309aba6ebe7ce394070ef7473bee9e1b62ac0b046cec615a2685781dc666d"
    )


@given(texts=st.lists(any_text), dimension=st.integers(1, 400))
def test_every_text_has_a_unit_vector(texts: list[str], dimension: int) -> None:
    """Whatever it holds: words that cancel out, no words, nothing."""
    vectors = HashingEmbedder(dimension).embed(texts)
    assert vectors.shape == (len(texts), dimension)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


@given(texts=st.lists(any_text))
def test_a_vector_does_not_depend_on_its_batch(texts: list[str]) -> None:
    """Bit by bit, also where the batch is computed in several chunks."""
    embedder = HashingEmbedder(16)
    alone = [embedder.embed([text])[0] for text in texts]
    together = embedder.embed([*texts, *["filler"] * 300, *texts])
    for row, expected in enumerate(alone):
        np.testing.assert_array_equal(together[row], expected)
        np.testing.assert_array_equal(together[row - len(texts)], expected)


def test_words_that_cancel_out_still_give_a_unit_vector() -> None:
    """With one component, two words of opposite sign sum to zero."""
    embedder = HashingEmbedder(1)
    words = ["".join(pair) for pair in zip("abcdefgh", "stuvwxyz", strict=True)]
    signs = embedder.embed(words)[:, 0]
    opposite = f"{words[int(signs.argmax())]} {words[int(signs.argmin())]}"
    assert signs.max() == 1.0
    assert signs.min() == -1.0
    assert abs(float(embedder.embed([opposite])[0, 0])) == 1.0


def test_letter_case_and_punctuation_make_no_difference() -> None:
    """A word is a word, however it stands in the sentence."""
    embedder = HashingEmbedder()
    np.testing.assert_array_equal(*embedder.embed(["SQL, Go.", "go (sql)"]))


def test_texts_without_words_are_told_apart() -> None:
    """They keep vectors of their own rather than all sharing one."""
    first, second = HashingEmbedder().embed(["?", "!!"])
    assert float(first @ second) == 0.0


def test_shared_words_bring_texts_near() -> None:
    """What it is good for: a query finds the text that has its words."""
    embedder = HashingEmbedder()
    texts = ["Built a billing pipeline in Go", "Taught physics at a school", "Ran a bakery"]
    query = embedder.embed(["billing pipeline"], "query")[0]
    assert int(np.argmax(embedder.embed(texts) @ query)) == 0


def test_it_says_that_it_is_not_semantic() -> None:
    """The command line prints the notice; the docstring is what a developer sees."""
    assert "not semantic" in HashingEmbedder().notice
    assert "NOT SEMANTIC" in (HashingEmbedder.__doc__ or "")


@pytest.mark.parametrize("dimension", [0, -1, MAX_DIMENSION + 1])
def test_a_dimension_that_no_store_can_hold_is_refused(dimension: int) -> None:
    """At once, and not by the store in the middle of a sync."""
    with pytest.raises(ConfigError, match="components"):
        HashingEmbedder(dimension)


@pytest.mark.parametrize(
    ("name", "model", "dimension"),
    [
        ("hashing", "hashing/bow-v1:384:l2", 384),
        ("hashing:64", "hashing/bow-v1:64:l2", 64),
        ("local", "local/all-MiniLM-L6-v2@8199be6f:384:l2", 384),
    ],
)
def test_an_embedder_is_opened_by_its_name(name: str, model: str, dimension: int) -> None:
    """Its identity is known without loading anything."""
    embedder = open_embedder(name)
    assert (embedder.model, embedder.dimension) == (model, dimension)
    assert isinstance(embedder, LocalEmbedder if name == "local" else HashingEmbedder)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("hash", "hashing"),
        ("hashing:", "hashing"),
        ("Hashing:64", "hashing"),
        ("lcoal", "local"),
        ("local:all-MiniLM-L6-v2", "local"),
        ("LOCAL ", "local"),
        ("cohere:embed-v4", "local"),
        ("openai:", "openai:text-embedding-3-small"),
        ("open-ai:small", "openai:text-embedding-3-small"),
        ("", "local"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name: str, nearest: str) -> None:
    """The message names what was written and what to write."""
    with pytest.raises(ConfigError) as caught:
        open_embedder(name)
    assert repr(name) in caught.value.what
    assert f"UNDRIFT_EMBEDDER={nearest}," in caught.value.fix


@pytest.mark.parametrize(
    "name", ["hashing:many", "hashing:-1", "hashing:6.4", "hashing:٣", "hashing:0"]
)
def test_a_dimension_that_is_no_number_is_refused(name: str) -> None:
    """With the line to write instead."""
    with pytest.raises(ConfigError) as caught:
        open_embedder(name)
    assert "hashing:384" in caught.value.fix
