"""Pgvector stores that keep their vectors as halves, for the store's contract."""

from __future__ import annotations

from support.indexed import IndexedStore
from undrift.stores.pgvector import PgvectorStore

HALVED = "&vectors=halfvec"


def open_halved(location: str, *, namespace: str = "default") -> PgvectorStore:
    """The store at *location*."""
    return PgvectorStore(f"{location}{HALVED}", namespace=namespace)


def open_halved_and_indexed(location: str, *, namespace: str = "default") -> IndexedStore:
    """The store at *location*, with an HNSW index over the halves, searched exactly."""
    return IndexedStore(f"{location}{HALVED}", namespace=namespace)


def open_halved_and_approximate(location: str, *, namespace: str = "default") -> IndexedStore:
    """The store at *location*, whose large owners are searched by the index over the halves."""
    return IndexedStore(f"{location}{HALVED}&search=approximate", namespace=namespace)
