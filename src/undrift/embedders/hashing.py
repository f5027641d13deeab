"""An embedder that counts words. Fast, needs nothing installed, and is **not semantic**."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from zlib import crc32

import numpy as np

from undrift.errors import ConfigError
from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.ports import Purpose, Vectors

DEFAULT_DIMENSION = 384
MAX_DIMENSION = 16_000
"""What the narrowest store takes (pgvector's ``vector`` type)."""

_CHUNK_TEXTS = 256  # its sums (256 x 384 doubles) stay in the cache; 4,096 measured a third slower


def _word_bytes() -> bytes:
    """A `bytes.translate` table: ASCII letters in lower case, other ASCII signs as spaces.

    Bytes beyond ASCII stay as they are, so that every other script is made of words too. Unicode's
    own idea of letters and case changes with the Python version, and equal text must have equal
    vectors.
    """
    table = bytearray(range(256))
    for code in range(128):
        sign = chr(code)
        table[code] = ord(sign.lower()) if sign.isalnum() else ord(" ")
    return bytes(table)


_WORD_BYTES = _word_bytes()


class HashingEmbedder:
    """Counts words into hashed, signed buckets. NOT SEMANTIC: for trials, tests and benchmarks.

    It finds texts that share words with the query, and nothing else: "car" and "automobile" are
    as far apart as any two words. Whoever runs it is told so (`notice`).

    Each word adds +1 or -1, by one bit of its CRC-32, to the component that the CRC-32 names; the
    sums are L2-normalised. Sums of integers are exact in any order, so the vectors are the same
    bit by bit on every machine and in every batch.

    Safety:
        Without state; any number of threads may call it.

    Source:
        Weinberger et al., "Feature Hashing for Large Scale Multitask Learning", ICML 2009.
    """

    def __init__(self, dimension: int = DEFAULT_DIMENSION) -> None:
        if not 1 <= dimension <= MAX_DIMENSION:
            raise ConfigError(
                f"Vectors cannot have {dimension} components",
                why=f"the hashing embedder makes 1 to {MAX_DIMENSION}.",
                fix=f"name the embedder hashing:{DEFAULT_DIMENSION}",
            )
        self._dimension = dimension

    @property
    def model(self) -> str:
        """The embedding's identity."""
        return f"hashing/bow-v1:{self._dimension}:l2"

    @property
    def dimension(self) -> int:
        """Components per vector."""
        return self._dimension

    @property
    def notice(self) -> str:
        """What a person must know before trusting a search over these vectors."""
        return (
            "The hashing embedder is not semantic: it matches words, not meaning. Use it to try "
            "undrift or to test, and `local` to search."
        )

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed *texts*; a text without any word gets a unit vector of its own.

        Args:
            texts: each is read as far as its first 20,000 characters.
            purpose: makes no difference.

        Shape:
            ``(len(texts), dimension)`` float32, unit length, one row per text, in order.
        """
        vectors = np.empty((len(texts), self._dimension), dtype=np.float32)
        for start in range(0, len(texts), _CHUNK_TEXTS):
            stop = start + _CHUNK_TEXTS
            vectors[start:stop] = self._embed_chunk(texts[start:stop])
        return vectors

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of *texts* go on behind what is read."""
        return sum(len(text) > MAX_EMBEDDED_CHARACTERS for text in texts)

    def _embed_chunk(self, texts: Sequence[str]) -> Vectors:
        # A lone surrogate (an argument of a shell in another encoding) has no UTF-8: "?" instead.
        encoded = [text[:MAX_EMBEDDED_CHARACTERS].encode("utf-8", "replace") for text in texts]
        words = [text.translate(_WORD_BYTES).split() for text in encoded]
        lengths = [len(of_one_text) for of_one_text in words]
        hashes = np.fromiter(
            map(crc32, chain.from_iterable(words)), dtype=np.int64, count=sum(lengths)
        )
        rows = np.repeat(np.arange(len(texts)), lengths)
        sums = np.bincount(
            rows * self._dimension + hashes % self._dimension,
            weights=1.0 - 2.0 * (hashes >> 31),
            minlength=len(texts) * self._dimension,
        ).reshape(len(texts), self._dimension)
        norms = np.sqrt(np.einsum("ij,ij->i", sums, sums))
        for row in np.flatnonzero(norms == 0):
            # No words, or words that cancel out. A zero vector could never be found again.
            sums[row, crc32(encoded[row]) % self._dimension] = 1.0
            norms[row] = 1.0
        unit: Vectors = (sums / norms[:, np.newaxis]).astype(np.float32)
        return unit
