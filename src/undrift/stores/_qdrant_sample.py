"""A look at a collection that another program may have filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from undrift.stores._adopted import STAMP_KEY
from undrift.stores._qdrant_layout import missing_indexes
from undrift.stores._qdrant_points import Payload, Points
from undrift.stores.collections import CollectionSample, flattened

# What tells the programs apart that fill collections of Qdrant's, by names in a payload.
_WRITERS: Mapping[str, frozenset[str]] = {
    "LlamaIndex": frozenset({"_node_content", "_node_type"}),
    "LangChain": frozenset({"page_content", "metadata"}),
}


def sample_points(points: Points, url: str, limit: int) -> CollectionSample | None:
    """Some points of the collection; None where there is none, or it is undrift's own.

    Args:
        url: the collection's, without a key.
    """
    found = points.find()
    if found is None or ("" in found.vectors and not missing_indexes(found)):
        return None
    payloads = [point.payload for point in points.page(None, None, None, limit).points]
    records = [flat for payload in payloads if (flat := flattened(payload))]
    dimensions = {name: vector.dimension for name, vector in found.vectors.items()}
    is_one = len(dimensions) == 1
    return CollectionSample(
        location=points.location,
        url=url,
        writer=_writer(payloads),
        records=records,
        vectors={} if is_one else dimensions,
        dimension=next(iter(dimensions.values())) if is_one else None,
        is_stamped=any(map(_has_stamp, payloads)),
        why_not="" if dimensions else "it has no vectors but sparse ones",
    )


def _writer(payloads: Sequence[Payload]) -> str:
    names: set[str] = set().union(*payloads)
    return next((writer for writer, marks in _WRITERS.items() if marks <= names), "")


def _has_stamp(fields: Mapping[str, object]) -> bool:
    inner = (value for value in fields.values() if isinstance(value, Mapping))
    return STAMP_KEY in fields or any(map(_has_stamp, inner))
