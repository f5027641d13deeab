"""Catches an embedder that mixes up its vectors: one text of each batch is asked for twice.

Where the two vectors differ, vectors do not belong to the texts in whose places they stand, and
none of the batch may be used: a permuted answer looks as good as a right one, and no later check
of the store would ever find it.

What it finds: every reversal and every rotation, and any other permutation that moves one of the
two. Which text is asked for twice depends on the batch, so that a server that always confuses the
same two places is found too, some batches later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from undrift.errors import EmbeddingFailed

SAME_COSINE = 0.99
"""Two vectors of one text differ by rounding; servers that batch differently, by 1e-5."""


def repeated_text(texts: Sequence[str]) -> int | None:
    """Which of *texts* is to be asked for again behind the last; None where nothing can be mixed.

    Never the first, which a reversal would put into the place of the repeated one, nor the middle
    one, which half a rotation would.
    """
    if len(texts) < 2 or all(text == texts[0] for text in texts):
        return None
    # A text that equals the first is as good as the first.
    middle = (len(texts) - 1) / 2
    places = [place for place in range(1, len(texts)) if place != middle]
    telling = [place for place in places if texts[place] != texts[0]] or places
    digest = hashlib.blake2b(digest_size=8)
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return telling[int.from_bytes(digest.digest(), "big") % len(telling)]


def without_repeated(
    rows: NDArray[np.float64], place: int, *, embedder: str
) -> NDArray[np.float64]:
    """*rows* without the last, which is the vector of the text at *place* once more.

    Args:
        embedder: what to call it in the error.

    Shape:
        ``(n + 1, dimension)`` → ``(n, dimension)``.

    Raises:
        EmbeddingFailed: the two are not the same.
    """
    if not _are_same(rows[place], rows[-1]):
        raise EmbeddingFailed(
            "The embedder's answer cannot be trusted",
            why=f"one of {len(rows) - 1} texts was sent twice in one request, and {embedder} gave "
            "it two different vectors: it mixes up the order of its vectors, or does not give the "
            "same text the same vector. None of them is used.",
            fix="look at what stands between here and the model, such as a proxy that batches; "
            "UNDRIFT_EMBEDDER__BATCH_TEXTS=1 sends each text alone",
        )
    return rows[:-1]


def _are_same(first: NDArray[np.float64], second: NDArray[np.float64]) -> bool:
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(first), np.linalg.norm(second)
        are_usable = [bool(np.isfinite(length) and length > 0) for length in lengths]
        if not any(are_usable):
            return True  # a text without a usable vector has none twice; it is rejected by name
        if not all(are_usable):
            return False
        return bool((first / lengths[0]) @ (second / lengths[1]) > SAME_COSINE)
