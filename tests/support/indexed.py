"""A pgvector store whose table always has an index on its vectors, for the store's contract."""

from __future__ import annotations

from contextlib import suppress

from undrift.errors import TransientError
from undrift.search_index import IndexParameters, IndexType
from undrift.stores.pgvector import PgvectorStore


class IndexedStore(PgvectorStore):
    """Builds the index as soon as there is a table, so that every write goes through it."""

    type = IndexType.HNSW

    def create(self, dimension: int) -> None:
        super().create(dimension)
        with suppress(TransientError):  # another process builds it
            self.build_index(IndexParameters(type=self.type))


class ListedStore(IndexedStore):
    """The same with an ivfflat index, which at that time has nothing to learn from."""

    type = IndexType.IVFFLAT


def open_indexed(location: str, *, namespace: str = "default") -> IndexedStore:
    """The store at *location*, searched exactly."""
    return IndexedStore(location, namespace=namespace)


def open_approximate(location: str, *, namespace: str = "default") -> IndexedStore:
    """The store at *location*, whose large owners are searched by the index."""
    return IndexedStore(f"{location}&search=approximate", namespace=namespace)


def open_listed(location: str, *, namespace: str = "default") -> ListedStore:
    """The store at *location* with an ivfflat index, searched exactly."""
    return ListedStore(location, namespace=namespace)


def open_listed_and_approximate(location: str, *, namespace: str = "default") -> ListedStore:
    """The store at *location*, whose large owners are searched by its ivfflat index."""
    return ListedStore(f"{location}&search=approximate", namespace=namespace)
