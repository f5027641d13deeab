"""The collections of a store, and how its records are read whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from undrift.state import Tombstone
from undrift.stores._chroma_api import Collection, Row, Where, pages_of, parts_of
from undrift.stores._chroma_codec import Codec
from undrift.stores._chroma_ledger import Ledger
from undrift.stores._records import storable

OWNERS_PER_CALL = 5_000
"""The server takes 32,766 values in a filter."""


class Opened(NamedTuple):
    """The two collections of a store, and how its records lie.

    Attributes:
        ledger: None where it is yet to be created.
    """

    records: Collection
    ledger: Ledger | None
    codec: Codec

    def rows(self, ids: Sequence[str]) -> list[Row]:
        """The records under *ids*, of which there is at most a page."""
        return self.records.rows(ids=ids, with_documents=self.codec.needs_documents)

    def of_owners(self, owners: Sequence[str], also: Where | None = None) -> Iterator[list[Row]]:
        """The records of *owners*, managed or not, that *also* lets pass."""
        for part in parts_of(storable(owners), OWNERS_PER_CALL):
            asked, of_owners = frozenset(part), self.codec.of_owners(part)
            where = of_owners if also is None else {"$and": [of_owners, also]}
            for page in self._pages(where):
                yield [row for row in page if self.codec.owner_of(row) in asked]

    def all_owners(self) -> Iterator[str]:
        """The owner of every managed record."""
        for page in self._pages(self.codec.of_managed()):
            for row in page:
                if self.codec.is_managed(row):
                    yield self.codec.owner_of(row)

    def newer_than(self, stones: Sequence[Tombstone]) -> set[str]:
        """Where a record lies that is newer than its tombstone, which a crash has left."""
        versions = {stone.vector_id: stone.version for stone in stones}
        found = map(self.codec.stamp_of, self.rows(list(versions))) if versions else ()
        return {stamp.vector_id for stamp in found if stamp.version > versions[stamp.vector_id]}

    def _pages(self, where: Where | None) -> Iterator[list[Row]]:
        return pages_of(self.records, where, with_documents=self.codec.needs_documents)
