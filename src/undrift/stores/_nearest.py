"""Exact nearest neighbours in constant memory, for stores that only keep bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from undrift.ports import Vectors

FLOAT = np.dtype("<f4")
"""How a component is stored: 32-bit IEEE 754, little-endian."""


def nearest(
    chunks: Iterable[Sequence[tuple[str, bytes]]], query: Vectors, limit: int
) -> list[tuple[str, float]]:
    """The *limit* vectors nearest to *query* by cosine, with their similarity.

    Args:
        chunks: vector_ids with their vectors' bytes, all of the query's dimension.

    Order:
        Best first; of equally near ones, by vector_id.
    """
    best: list[tuple[float, str]] = []
    for chunk in chunks:
        stored = np.frombuffer(b"".join([blob for _, blob in chunk]), dtype=FLOAT)
        similarity = _cosine(stored.reshape(len(chunk), -1), query)
        rows = _top_rows(similarity, limit)
        best += [(-float(similarity[row]), chunk[row][0]) for row in rows]
        best = sorted(best)[:limit]
    return [(vector_id, -negated) for negated, vector_id in best]


def _cosine(stored: Vectors, query: Vectors) -> Vectors:
    """The similarity of each row; minus infinity where a zero or NaN makes it meaningless."""
    # einsum, not @: BLAS starts threads, which cannot speed up what only waits for memory, and
    # whose spinning made a search of 100,000 vectors twice as slow on two busy cores.
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.einsum("ij,ij->i", stored, stored))
        similarity: Vectors = np.einsum("ij,j->i", stored, query / np.linalg.norm(query)) / norms
    similarity[~np.isfinite(similarity)] = -np.inf
    np.minimum(similarity, 1.0, out=similarity)  # rounding may exceed it
    return similarity


def _top_rows(similarity: Vectors, limit: int) -> list[int]:
    """The rows of the *limit* largest values, more where the last of them are equal."""
    least = -np.inf
    if len(similarity) > limit:
        least = np.partition(similarity, -limit)[-limit]
    rows: list[int] = np.flatnonzero((similarity >= least) & np.isfinite(similarity)).tolist()
    return rows
