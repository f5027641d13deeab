"""What a search of the Chroma store compares, read so that nothing is missed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from undrift.stores._chroma_api import PAGE_RECORDS, Collection, Row, Where, embeddings_of, parts_of
from undrift.stores._chroma_records import KIND, MODEL, NAMESPACE, OWNER, text_in
from undrift.stores._nearest import FLOAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which of an owner's records a search compares."""

    owner_id: str
    namespace: str
    model: str
    kinds: Sequence[str] | None

    def candidates(self, records: Collection) -> list[str]:
        """Their ids.

        Told apart here where the owner has a page of records at most; each filter makes Chroma go
        through the whole collection, and reading the fields of 20,000 records takes longer still.
        """
        of_owner = {OWNER: self.owner_id}
        page = records.rows(where=of_owner, limit=PAGE_RECORDS)
        if len(page) < PAGE_RECORDS:
            return [row.id for row in page if self.holds(row)]
        filters: list[Where] = [of_owner, {NAMESPACE: self.namespace}, {MODEL: self.model}]
        if self.kinds is not None:
            # Not by $in, which in the first servers of 1.0 looked at every field.
            kinds: list[Where] = [{KIND: kind} for kind in self.kinds]
            filters.append({"$or": kinds} if len(kinds) > 1 else kinds[0])
        return records.ids({"$and": filters})

    def holds(self, row: Row) -> bool:
        """Whether *row* is one of them."""
        return (
            text_in(row.metadata, OWNER) == self.owner_id
            and text_in(row.metadata, NAMESPACE) == self.namespace
            and text_in(row.metadata, MODEL) == self.model
            and (self.kinds is None or text_in(row.metadata, KIND) in self.kinds)
        )


def vectors_of(records: Collection, ids: Sequence[str]) -> Iterator[Sequence[tuple[str, bytes]]]:
    """The vectors under *ids*, as many at a time as a call reads."""
    for part in parts_of(ids):
        yield [
            (vector_id, np.asarray(vector, FLOAT).tobytes())
            for vector_id, vector in embeddings_of(records, part)
        ]
