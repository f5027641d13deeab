"""What every embedder promises; an adapter's tests are this class with its embedder filled in.

    class TestMyEmbedder(EmbedderContract):
        @pytest.fixture
        def embedder(self) -> Embedder:
            return MyEmbedder()

The methods ask pytest for the fixture ``embedder``, which the subclass defines. A method that an
embedder cannot keep is overridden with a skip that says why.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np

from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.ports import Embedder, Purpose, Vectors

TEXTS = (
    "Engineer at Acme from 2019-01 to present. Built the billing pipeline in Go.",
    "SQL",
    "",
    "Physics at MIT from 2010 to 2014",
    "Led the migration of forty services to PostgreSQL, with no downtime. " * 30,
    " \t\n",
    "?!",
    "Ingénieure à Zürich, 東京 и Москва, \N{PARTY POPPER}\N{FAMILY}\N{ZERO WIDTH JOINER}",
    "sql",
)
"""Long and short, in many scripts, and without any word."""


class EmbedderContract:
    """The promises of `undrift.ports.Embedder`, and those the core relies on besides."""

    def test_there_is_one_row_of_float32_for_each_text(self, embedder: Embedder) -> None:
        """Shape and type are the port's."""
        vectors = embedder.embed(TEXTS)
        assert vectors.shape == (len(TEXTS), embedder.dimension)
        assert vectors.dtype == np.float32

    def test_no_texts_give_no_rows(self, embedder: Embedder) -> None:
        """An empty batch still has the dimension."""
        assert embedder.embed([]).shape == (0, embedder.dimension)
        assert embedder.count_truncated([]) == 0

    def test_rows_stand_in_the_order_of_their_texts(self, embedder: Embedder) -> None:
        """An adapter that sorts its batches by length puts the rows back."""
        alone = np.vstack([embedder.embed([text]) for text in TEXTS])
        assert_same_direction(embedder.embed(TEXTS), alone)
        assert_same_direction(embedder.embed(TEXTS[::-1]), alone[::-1])

    def test_different_texts_have_different_vectors(self, embedder: Embedder) -> None:
        """A constant would keep every other promise."""
        first, second = embedder.embed([TEXTS[0], TEXTS[3]])
        assert float(first @ second) < 0.99

    def test_equal_texts_have_equal_vectors(self, embedder: Embedder) -> None:
        """Within a batch and from one call to the next."""
        once = embedder.embed([TEXTS[0], TEXTS[1], TEXTS[0]])
        assert_same_direction(once[:1], once[2:])
        assert_same_direction(once, embedder.embed([TEXTS[0], TEXTS[1], TEXTS[0]]))

    def test_every_vector_has_unit_length(self, embedder: Embedder) -> None:
        """Empty, blank and wordless texts too: a zero vector would never be found again."""
        np.testing.assert_allclose(np.linalg.norm(embedder.embed(TEXTS), axis=1), 1.0, atol=1e-5)

    def test_a_huge_text_is_embedded_from_its_beginning(self, embedder: Embedder) -> None:
        """What lies behind the first 20,000 characters makes no difference."""
        beginning = ("billing " * MAX_EMBEDDED_CHARACTERS)[:MAX_EMBEDDED_CHARACTERS]
        vectors = embedder.embed([beginning, beginning + " physics" * 50_000])
        assert_same_direction(vectors[:1], vectors[1:])

    def test_a_huge_text_is_counted_as_truncated_and_a_short_one_is_not(
        self, embedder: Embedder
    ) -> None:
        """The report says how many texts were not read to their end."""
        huge = "billing " * MAX_EMBEDDED_CHARACTERS
        assert embedder.count_truncated([TEXTS[0], huge, "", huge]) == 2

    def test_what_is_no_valid_unicode_is_embedded_too(self, embedder: Embedder) -> None:
        """A query may come from a terminal in another encoding: NUL and lone surrogates."""
        vectors = embedder.embed(["caf\udce9", "\x00", "\ud83d"])
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)

    def test_a_query_has_the_shape_of_a_document_and_finds_its_own_text(
        self, embedder: Embedder
    ) -> None:
        """Models with two roles may give two vectors for one text; they still belong together."""
        documents = embedder.embed(TEXTS[:4])
        query = embedder.embed([TEXTS[3]], "query")
        assert query.shape == (1, embedder.dimension)
        assert int(np.argmax(documents @ query[0])) == 3

    def test_several_threads_may_embed_at_once(self, embedder: Embedder) -> None:
        """Each gets the vectors of its own texts."""
        expected = embedder.embed(TEXTS)
        starts = [turn % len(TEXTS) for turn in range(24)]

        def embed_from(start: int) -> Vectors:
            return embedder.embed([*TEXTS[start:], *TEXTS[:start]])

        with ThreadPoolExecutor(max_workers=6) as pool:
            for start, vectors in zip(starts, pool.map(embed_from, starts), strict=True):
                assert_same_direction(vectors, np.roll(expected, -start, axis=0))

    def test_the_caller_owns_what_it_is_given(self, embedder: Embedder) -> None:
        """Neither a second call nor a careless caller changes vectors that were handed out."""
        first = embedder.embed(TEXTS[:2])
        kept = first.copy()
        embedder.embed(TEXTS[2:4])[:] = 0.0
        np.testing.assert_array_equal(first, kept)
        assert_same_direction(embedder.embed(TEXTS[:2]), kept)

    def test_it_is_the_port(self, embedder: Embedder) -> None:
        """It has the port's members, accepts each purpose, and its identity does not move."""
        assert isinstance(embedder, Embedder)
        assert embedder.model
        before = (embedder.model, embedder.dimension)
        for purpose in get_args(Purpose):
            embedder.embed(["SQL"], purpose)
        assert (embedder.model, embedder.dimension) == before


def assert_same_direction(found: Vectors, expected: Vectors) -> None:
    """The same up to rounding: servers that batch differently differ in the last bits."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
