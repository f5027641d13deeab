"""What a search of the Chroma store compares, read so that nothing is missed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from undrift.stores._chroma_api import (
    PAGE_RECORDS,
    Collection,
    Row,
    embeddings_of,
    pages_of,
    parts_of,
)
from undrift.stores._chroma_codec import Codec
from undrift.stores._nearest import FLOAT


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which of an owner's records a search compares."""

    codec: Codec
    owner_id: str
    model: str
    kinds: Sequence[str] | None

    def candidates(self, records: Collection) -> list[str]:
        """Their ids.

        Told apart here where the owner has a page of records at most; each filter makes Chroma go
        through the whole collection, and reading the fields of 20,000 records takes longer still.
        """
        of_owner = self.codec.of_owners([self.owner_id])
        documents = self.codec.needs_documents
        page = records.rows(where=of_owner, limit=PAGE_RECORDS, with_documents=documents)
        if len(page) < PAGE_RECORDS:
            return [row.id for row in page if self.holds(row)]
        filters = self.codec.of_searched(self.model, self.kinds)
        if filters is not None:
            return records.ids({"$and": [of_owner, *filters]})
        pages = pages_of(records, of_owner, with_documents=documents)
        return [row.id for page in pages for row in page if self.holds(row)]

    def holds(self, row: Row) -> bool:
        """Whether *row* is one of them."""
        if not self.codec.is_managed(row) or self.codec.owner_of(row) != self.owner_id:
            return False
        stamp = self.codec.stamp_of(row)
        return stamp.model == self.model and (self.kinds is None or stamp.kind in self.kinds)


def vectors_of(records: Collection, ids: Sequence[str]) -> Iterator[Sequence[tuple[str, bytes]]]:
    """The vectors under *ids*, as many at a time as a call reads."""
    for part in parts_of(ids):
        yield [
            (vector_id, np.asarray(vector, FLOAT).tobytes())
            for vector_id, vector in embeddings_of(records, part)
        ]
