"""What the Chroma store asks of Chroma, whether a server answers or this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

from undrift.ports import Vectors
from undrift.stores._chroma_errors import LostVector

T = TypeVar("T")

Where = Mapping[str, object]
"""A filter as Chroma reads it."""

Metadata = Mapping[str, object]
"""A record's fields: texts, numbers and booleans. Written, they replace those of the same names;
None takes one away."""

PAGE_RECORDS = 2_000
"""Records a call reads or writes. The server takes 5,461 in a write, and 32,766 ids in a read."""


class Row(NamedTuple):
    """A record as it is stored.

    Attributes:
        metadata: without what Chroma itself keeps there.
        document: empty where it has none or was not asked for.
    """

    id: str
    metadata: Mapping[str, object]
    document: str = ""


class Put(NamedTuple):
    """A record as it is to be written.

    Attributes:
        document: None leaves the one that is there.
    """

    id: str
    metadata: Metadata
    document: str | None
    embedding: Vectors | Sequence[float] | None


class Collection(Protocol):
    """One collection, found by its name."""

    @property
    def space(self) -> str:
        """By which distance its index measures."""

    @property
    def dimension(self) -> int | None:
        """Components per vector; None before the first record."""

    def count(self) -> int:
        """How many records there are."""

    def rows(
        self,
        *,
        ids: Sequence[str] | None = None,
        where: Where | None = None,
        limit: int | None = None,
        with_documents: bool = False,
    ) -> list[Row]:
        """The records under *ids*, or those that *where* lets pass, by one consistent read."""

    def ids(self, where: Where | None) -> list[str]:
        """The ids of the records that *where* lets pass, by one consistent read."""

    def embeddings(self, ids: Sequence[str]) -> list[tuple[str, Sequence[float]]]:
        """The vectors under *ids*.

        Raises:
            LostVector: one of the records has none.
        """

    def require_vectors(self, ids: Sequence[str]) -> None:
        """Look whether the records under *ids*, which must be there, have their vectors.

        Raises:
            LostVector: one of them has none.
        """

    def add(self, put: Put) -> None:
        """Write a record, if none has its id."""

    def upsert(self, puts: Sequence[Put]) -> None:
        """Write records, whatever has their ids."""

    def update(self, puts: Sequence[Put]) -> None:
        """Change fields and documents of records that are there; their vectors stay."""

    def delete(self, ids: Sequence[str]) -> None:
        """Remove records; one that is not there is no error."""


class Chroma(Protocol):
    """A database with collections."""

    def find(self, name: str) -> Collection | None:
        """The collection called *name*; None if there certainly is none."""

    def create(self, name: str) -> None:
        """Create a collection that measures the cosine, and embeds nothing itself."""

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""


def space_of(configuration: object, metadata: object) -> str:
    """By which distance a collection's index measures, as Chroma describes the collection.

    The first servers of 1.0 took it from the metadata, and did not say so in the configuration.
    """
    described = configuration if isinstance(configuration, Mapping) else {}
    for index in (described.get("hnsw"), described.get("spann")):
        if isinstance(index, Mapping) and "space" in index:
            return str(index["space"])
    named = metadata if isinstance(metadata, Mapping) else {}
    return str(named.get("hnsw:space", "l2"))


def pages_of(
    collection: Collection, where: Where | None, *, with_documents: bool = False
) -> Iterator[list[Row]]:
    """The records that *where* lets pass, a page at a time, however many there are.

    Not by offsets: a record that somebody removes in between would move others from a page that is
    to come to one that was read, and nobody would see them.

    Args:
        where: None lets all pass.
    """
    first = collection.rows(where=where, limit=PAGE_RECORDS, with_documents=with_documents)
    if len(first) < PAGE_RECORDS:
        yield first
        return
    for part in parts_of(collection.ids(where)):
        yield collection.rows(ids=part, with_documents=with_documents)


def lost_among(collection: Collection, ids: Sequence[str]) -> set[str]:
    """Those of *ids* whose records are there and have lost their vectors.

    Chroma keeps fields and vectors apart, and applies a write to the one before the other. So what
    seems lost is looked for once more: it may be on its way, or deleted meanwhile.
    """
    lost = _without_vector(collection, ids)
    if lost:
        there = [row.id for row in collection.rows(ids=sorted(lost))]
        lost = _without_vector(collection, there)
    return lost


def embeddings_of(collection: Collection, ids: Sequence[str]) -> list[tuple[str, Sequence[float]]]:
    """The vectors under *ids*, without those that are lost."""
    try:
        return collection.embeddings(ids)
    except LostVector:
        lost = lost_among(collection, ids)
        return collection.embeddings([id_ for id_ in ids if id_ not in lost])


def _without_vector(collection: Collection, ids: Sequence[str]) -> set[str]:
    """What the index does not have of *ids*: Chroma says only whether there is any such."""
    if not ids:
        return set()
    try:
        collection.require_vectors(ids)
    except LostVector:
        if len(ids) == 1:
            return set(ids)
        half = len(ids) // 2
        return _without_vector(collection, ids[:half]) | _without_vector(collection, ids[half:])
    return set()


def parts_of(items: Sequence[T], size: int = PAGE_RECORDS) -> Iterator[Sequence[T]]:
    """*items* in parts of at most *size*."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
