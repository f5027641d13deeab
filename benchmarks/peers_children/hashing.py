"""undrift's hashing embedder without undrift, for environments that do not have it.

The same algorithm at the same cost, vector for vector; see `undrift.embedders.hashing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers_children.job import DIMENSION, Paid

_CHUNK_TEXTS = 256


def _word_bytes() -> bytes:
    table = bytearray(range(256))
    for code in range(128):
        sign = chr(code)
        table[code] = ord(sign.lower()) if sign.isalnum() else ord(" ")
    return bytes(table)


_WORD_BYTES = _word_bytes()


class Hashing(Paid):
    """Counts words into hashed, signed buckets, and the texts it is given."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed *texts*: ``(len(texts), DIMENSION)``, unit length."""
        self.texts += len(texts)
        vectors = np.empty((len(texts), DIMENSION), dtype=np.float32)
        for start in range(0, len(texts), _CHUNK_TEXTS):
            stop = start + _CHUNK_TEXTS
            vectors[start:stop] = _embed_chunk(texts[start:stop])
        return vectors


def _embed_chunk(texts: Sequence[str]) -> NDArray[np.float32]:
    encoded = [text.encode() for text in texts]
    words = [text.translate(_WORD_BYTES).split() for text in encoded]
    lengths = [len(of_one_text) for of_one_text in words]
    hashes = np.fromiter(map(crc32, chain.from_iterable(words)), dtype=np.int64, count=sum(lengths))
    rows = np.repeat(np.arange(len(texts)), lengths)
    sums = np.bincount(
        rows * DIMENSION + hashes % DIMENSION,
        weights=1.0 - 2.0 * (hashes >> 31),
        minlength=len(texts) * DIMENSION,
    ).reshape(len(texts), DIMENSION)
    norms = np.sqrt(np.einsum("ij,ij->i", sums, sums))
    for row in np.flatnonzero(norms == 0):
        sums[row, crc32(encoded[row]) % DIMENSION] = 1.0
        norms[row] = 1.0
    unit: NDArray[np.float32] = (sums / norms[:, np.newaxis]).astype(np.float32)
    return unit
