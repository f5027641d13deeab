"""What becomes of the numbers that a foreign embedder answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from undrift.ports import Vectors


def unit_rows(rows: NDArray[np.float64]) -> Vectors:
    """*rows* scaled to unit length, so that every metric ranks alike.

    A row of zeros, or one with numbers that are not finite, stays what it is: the core refuses it,
    and its neighbours are good.

    Shape:
        ``(n, dimension)`` float64 → the same, float32.
    """
    with np.errstate(all="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        lengths[lengths == 0] = 1.0
        unit: Vectors = (rows / lengths[:, np.newaxis]).astype(np.float32)
    return unit
