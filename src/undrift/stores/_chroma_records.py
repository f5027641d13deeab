"""How a record lies in Chroma: a stamp's parts are fields of its metadata, its text the document.

Fields are flat: strings, integers, floats and booleans. What an entity has as metadata is one
string of JSON among them, so that it comes back as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from undrift.model import Stamp
from undrift.ports import Match, Record
from undrift.state import Tombstone
from undrift.stores._chroma_api import Metadata, Put, Row, Where
from undrift.stores._records import STAMP_COLUMNS, stamp_of

FIELDS = STAMP_COLUMNS[1:]
"""A stamp's parts but for the vector_id, which is the record's id."""

OWNER, NAMESPACE, MODEL, KIND, METADATA = "owner_id", "namespace", "model", "kind", "metadata"

_EMPTY = "{}"


class Standing(NamedTuple):
    """What lies under a vector_id, as a record or as a tombstone.

    Attributes:
        entity: owner, kind and id.
    """

    namespace: str
    version: int
    entity: tuple[str, str, str]


def put_of(record: Record) -> Put:
    """*record* as it is stored. A field without a value is taken away from what is there."""
    stamp = record.stamp
    metadata: dict[str, str | int | float | bool | None] = dict(zip(FIELDS, stamp[1:], strict=True))
    metadata[METADATA] = None if record.metadata_json == _EMPTY else record.metadata_json
    embedding = record.embedding
    if embedding is not None:
        embedding = np.ascontiguousarray(embedding, dtype=np.float32)
    return Put(stamp.vector_id, metadata, record.text, embedding)


def stamp_of_row(row: Row) -> Stamp:
    """The stamp of *row*; a part that is lacking or of another type is empty."""
    metadata = row.metadata
    texts = (text_in(metadata, name) for name in FIELDS[:-1])
    return stamp_of((row.id, *texts, version_in(metadata)))


def match_of(row: Row, score: float) -> Match:
    """What a search found."""
    return Match(stamp_of_row(row), score, row.document, text_in(row.metadata, METADATA) or _EMPTY)


def standing_of(row: Row) -> Standing:
    """What *row* means to a write under its id."""
    metadata = row.metadata
    return Standing(text_in(metadata, NAMESPACE), version_in(metadata), entity_in(metadata))


def grave_of(stone: Tombstone, namespace: str) -> Put:
    """*stone* as it is stored.

    Chroma stores nothing without a vector, and this collection is searched by nobody. Its vectors
    have one component, spread by the id: an index of equal ones would degenerate.
    """
    metadata: Metadata = {
        NAMESPACE: namespace,
        OWNER: stone.owner_id,
        KIND: stone.kind,
        "entity_id": stone.entity_id,
        "version": stone.version,
    }
    place = int.from_bytes(stone.vector_id.encode()[-8:], "big") / 2.0**64
    return Put(stone.vector_id, metadata, None, [place])


def tombstone_of(row: Row) -> Tombstone:
    """The tombstone of *row*."""
    return Tombstone(row.id, *entity_in(row.metadata), version_in(row.metadata))


def entity_in(metadata: Mapping[str, object]) -> tuple[str, str, str]:
    """Owner, kind and id."""
    return (
        text_in(metadata, OWNER),
        text_in(metadata, KIND),
        text_in(metadata, "entity_id"),
    )


def text_in(metadata: Mapping[str, object], name: str) -> str:
    """A field, empty if it is lacking or no text."""
    value = metadata.get(name)
    return value if isinstance(value, str) else ""


def version_in(metadata: Mapping[str, object], name: str = "version") -> int:
    """A field that counts, 0 if it is lacking or no integer."""
    value = metadata.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def any_of(field: str, values: Iterable[str]) -> Where:
    """Lets the records pass whose *field* is one of *values*, of which there must be one."""
    several = list(values)
    return {field: several[0]} if len(several) == 1 else {field: {"$in": several}}
