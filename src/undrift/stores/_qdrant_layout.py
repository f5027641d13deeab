"""What a collection of undrift's looks like, and telling it from somebody else's.

Every field that a condition names has an index. Without, Qdrant would look at every point of an
owner, and Qdrant Cloud refuses to: its collections are in strict mode.

The collection's metric is Cosine. With it Qdrant stores each vector scaled to length 1, so that
what is stored is not always bit for bit what was written. The other ways were rejected: Dot keeps
the bits and is no cosine, unless the vectors have length 1 anyway; to divide by a norm kept in the
payload is a formula over candidates that were chosen without it; and a second copy of each vector
doubles the space for what nobody reads. undrift scales the vectors itself, because Qdrant leaves
those alone whose squared length is below 1.2e-7, and would then call near what is far.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from undrift.errors import ConfigError
from undrift.ports import Vectors
from undrift.stores._qdrant_payload import (
    DELETED,
    KIND,
    MODEL,
    NAMESPACE,
    OWNER,
    TEXT_HASH,
    VERSION,
)
from undrift.stores._qdrant_points import FoundCollection, FoundVector, Index, Points

COSINE = "Cosine"

CHANGE_DIMENSION = "name another collection in VECTOR_URL and run `undrift sync --all`"

# What Qdrant takes for length 1 it stores as it is.
_UNIT_TOLERANCE = 1e-6


INDEXES: Mapping[str, Index] = {
    OWNER: Index("keyword", is_tenant=True),
    NAMESPACE: Index("keyword"),
    KIND: Index("keyword"),
    MODEL: Index("keyword"),
    VERSION: Index("integer"),
    DELETED: Index("integer"),
    # 128 bits in hex are a UUID to Qdrant, which costs a fifth of what as many distinct texts do.
    TEXT_HASH: Index("uuid"),
}


def index_schema(index: Index) -> dict[str, object]:
    """The index as Qdrant's API describes it."""
    schema: dict[str, object] = {"type": index.kind}
    if index.is_tenant:
        schema["is_tenant"] = True
    if index.kind == "integer":
        schema |= {"lookup": True, "range": True}
    return schema


def ddl(collection: str, dimension: int) -> Sequence[str]:
    """What is created, as calls of Qdrant's API."""
    vectors = {"vectors": {"size": dimension, "distance": COSINE}}
    create = f"PUT /collections/{collection} {json.dumps(vectors)}"
    indexes = (
        {"field_name": field, "field_schema": index_schema(index)}
        for field, index in INDEXES.items()
    )
    index_calls = (f"PUT /collections/{collection}/index {json.dumps(body)}" for body in indexes)
    return [create, *index_calls]


def find_created(points: Points) -> FoundVector | None:
    """The collection's vectors, if it is one of undrift's with all that belongs to it.

    Raises:
        ConfigError: it is somebody else's, or has another metric.
    """
    found = points.find()
    if found is None:
        return None
    location = points.location
    vector = found.vectors.get("")
    if vector is None:
        raise _another_layout(location, "it has no nameless vector")
    if vector.distance != COSINE:
        raise ConfigError(
            "The vector store has another metric",
            why=f"{location} compares vectors by {vector.distance}, undrift by {COSINE}.",
            fix="name another collection in VECTOR_URL, which `undrift sync` creates",
        )
    missing = missing_indexes(found)
    if not missing:
        return vector
    if points.is_empty():
        return None  # somebody was stopped while creating it
    raise _another_layout(location, f"it has no {_listed(missing)}")


def missing_indexes(found: FoundCollection) -> list[str]:
    """The fields that have no index, or one of another type."""
    return [field for field, index in INDEXES.items() if found.indexes.get(field) != index.kind]


def unit(vector: Vectors) -> Vectors:
    """*vector* scaled to length 1; it must have a length.

    One that has it already stays as it is, bit for bit.
    """
    wide = vector.astype(np.float64)
    squared = float(np.dot(wide, wide))
    if abs(squared - 1.0) <= _UNIT_TOLERANCE:
        return vector
    scaled: Vectors = (wide / np.sqrt(squared)).astype(np.float32)
    return scaled


def _another_layout(location: str, why: str) -> ConfigError:
    return ConfigError(
        "The vector store has another layout",
        why=f"{location} is not a collection that undrift created: {why}.",
        fix="name another collection in VECTOR_URL, which `undrift sync` creates",
    )


def _listed(fields: Sequence[str]) -> str:
    kinds = (f"{INDEXES[field].kind} index on {field}" for field in fields)
    return ", ".join(kinds)
