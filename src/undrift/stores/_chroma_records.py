"""How undrift's own records lie in Chroma: a stamp's parts are metadata, the text is the document.

Metadata are flat: strings, integers, floats and booleans. What an entity has as metadata is one
string of JSON among them, so that it comes back as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from undrift.model import Stamp
from undrift.ports import Match, Record, Vectors
from undrift.state import Tombstone
from undrift.stores._chroma_api import Collection, Metadata, Put, Row, Where
from undrift.stores._chroma_codec import Standing
from undrift.stores._records import STAMP_COLUMNS, stamp_of

FIELDS = STAMP_COLUMNS[1:]
"""A stamp's parts but for the vector_id, which is the record's id."""

OWNER, NAMESPACE, MODEL, KIND, METADATA = "owner_id", "namespace", "model", "kind", "metadata"

_EMPTY = "{}"


@dataclass(frozen=True, slots=True)
class OwnRecords:
    """The `Codec` of what undrift itself has written."""

    namespace: str

    @property
    def needs_documents(self) -> bool:
        """A stamp says it all."""
        return False

    def of_owners(self, owners: Sequence[str]) -> Where:
        """Lets the records of *owners* pass."""
        return any_of(OWNER, owners)

    def of_managed(self) -> Where:
        """Lets the records of the namespace pass."""
        return {NAMESPACE: self.namespace}

    def of_unmanaged(self) -> Where:
        """Lets all others pass."""
        return {NAMESPACE: {"$ne": self.namespace}}

    def of_searched(self, model: str, kinds: Sequence[str] | None) -> Sequence[Where]:
        """Let the records of the namespace, *model* and *kinds* pass."""
        filters: list[Where] = [self.of_managed(), {MODEL: model}]
        if kinds is not None:
            # Not by $in, which in the first servers of 1.0 looked at every field.
            each: list[Where] = [{KIND: kind} for kind in kinds]
            filters.append({"$or": each} if len(each) > 1 else each[0])
        return filters

    def owner_of(self, row: Row) -> str:
        """Whose record it is."""
        return text_in(row.metadata, OWNER)

    def is_managed(self, row: Row) -> bool:
        """Whether it is of the namespace."""
        return text_in(row.metadata, NAMESPACE) == self.namespace

    def stamp_of(self, row: Row) -> Stamp:
        """Its stamp; a part that is lacking or of another type is empty."""
        texts = (text_in(row.metadata, name) for name in FIELDS[:-1])
        return stamp_of((row.id, *texts, version_in(row.metadata)))

    def match_of(self, row: Row, score: float) -> Match:
        """What a search found."""
        metadata_json = text_in(row.metadata, METADATA) or _EMPTY
        return Match(self.stamp_of(row), score, row.document, metadata_json)

    def standing_of(self, row: Row) -> Standing:
        """What it means to a write under its id."""
        return standing_in(row.metadata)

    def is_meant(self, record: Record, row: Row) -> bool:
        """Whether the stamp names the same text and model."""
        return self.stamp_of(row)[6:8] == record.stamp[6:8]

    def puts_of(
        self, records: Sequence[Record], there: Mapping[str, Row], collection: Collection
    ) -> list[Put]:
        """*records* as they are stored."""
        return [_put_of(record) for record in records]

    def restamps_of(self, records: Sequence[Record], there: Mapping[str, Row]) -> list[Put]:
        """*records* without vectors."""
        return [_put_of(record) for record in records]


def _put_of(record: Record) -> Put:
    """*record* as it is stored. A field without a value is taken away from what is there."""
    stamp = record.stamp
    metadata: dict[str, object] = dict(zip(FIELDS, stamp[1:], strict=True))
    metadata[METADATA] = None if record.metadata_json == _EMPTY else record.metadata_json
    return Put(stamp.vector_id, metadata, record.text, sendable(record.embedding))


def sendable(embedding: Vectors | None) -> Vectors | None:
    """*embedding* as it goes on its way."""
    return None if embedding is None else np.ascontiguousarray(embedding, dtype=np.float32)


def standing_in(metadata: Mapping[str, object]) -> Standing:
    """What a record of undrift's own, or a tombstone, means to a write under its id."""
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


def any_of(field: str, values: Iterable[str | int]) -> Where:
    """Lets the records pass whose *field* is one of *values*, of which there must be one."""
    several = list(values)
    return {field: several[0]} if len(several) == 1 else {field: {"$in": several}}
