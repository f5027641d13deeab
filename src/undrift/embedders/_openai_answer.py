"""Reads the answer of an embedding server, and believes nothing about it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from undrift.errors import ConfigError, EmbeddingFailed, UndriftError


def read_answer(content: bytes, *, texts: int, dimension: int, model: str) -> NDArray[np.float64]:
    """The vectors in *content*, in the order of the texts.

    The answer is read here and not by the SDK: that one fills in what is missing and drops what it
    does not know. The ``index`` of each vector says which text it belongs to; its place in the
    answer does not.

    Shape:
        ``(texts, dimension)``; a component that is null or no number is NaN.

    Raises:
        ConfigError: every vector has the same, other dimension.
        EmbeddingFailed: which vector belongs to which text cannot be told, or one of them is none.
    """
    try:
        parsed = json.loads(content)  # of the parsers at hand the one that reads NaN
    except (ValueError, RecursionError):
        raise _unusable("is not JSON") from None  # the cause would quote the answer
    found = parsed.get("data") if isinstance(parsed, dict) else None
    if not isinstance(found, list):
        raise _unusable("holds no list of vectors")
    rows = _by_index(found, texts)
    lengths = {len(row) for row in rows}
    if lengths != {dimension}:
        raise _other_dimension(lengths, dimension, model)
    try:
        return np.array(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise _unusable("holds vectors that are not made of numbers") from None


def _by_index(found: Sequence[object], texts: int) -> list[list[object]]:
    if len(found) != texts:
        raise _unusable(f"holds {len(found)} vectors for {texts} texts")
    rows: dict[int, list[object]] = {}
    for item in found:
        if not isinstance(item, dict):
            raise _unusable("holds something that is no vector")
        index, row = item.get("index"), item.get("embedding")
        if index is None and texts == 1:
            index = 0  # some servers leave it out; with one text nothing can be mixed up
        if type(index) is not int or not 0 <= index < texts:
            raise _unusable("does not say which vector belongs to which text")
        if index in rows:
            raise _unusable(f"holds two vectors for text {index}")
        if not isinstance(row, list) or not row:
            raise _unusable("holds a vector that is no list of numbers")
        rows[index] = row
    return [rows[index] for index in range(texts)]


def _unusable(finding: str) -> EmbeddingFailed:
    return EmbeddingFailed(
        "The embedding server's answer is not usable",
        why=f"it {finding}.",
        fix="run the same command again; if that does not help, the server does not keep OpenAI's "
        "protocol, and UNDRIFT_EMBEDDER__BATCH_TEXTS=1 leaves it the least to get wrong",
    )


def _other_dimension(lengths: set[int], dimension: int, model: str) -> UndriftError:
    if len(lengths) > 1:
        return _unusable(f"mixes vectors of {', '.join(map(str, sorted(lengths)))} components")
    (found,) = lengths
    return ConfigError(
        "The embedding model makes vectors of another dimension",
        why=f"{model} gives {found} components, and {dimension} are configured or expected.",
        fix=f"set UNDRIFT_EMBEDDER__DIMENSION={found}, or dimension = {found} under [embedder]; a "
        "store that holds vectors of another dimension needs another ?table=",
    )
