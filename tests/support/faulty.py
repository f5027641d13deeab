"""Stores in memory at addresses, as the stores' contract opens them."""

from __future__ import annotations

from collections import defaultdict

from undrift.ports import StoreClass
from undrift.testing.faulty_store import FaultyStore, Memory

memories: defaultdict[str, Memory] = defaultdict(Memory)
"""What lies at each address."""


def open_transactional(location: str, *, namespace: str = "default") -> FaultyStore:
    """A store of class T."""
    return _open(StoreClass.TRANSACTIONAL, location, namespace)


def open_conditional(location: str, *, namespace: str = "default") -> FaultyStore:
    """A store of class C."""
    return _open(StoreClass.CONDITIONAL, location, namespace)


def open_neither(location: str, *, namespace: str = "default") -> FaultyStore:
    """A store of class N."""
    return _open(StoreClass.NEITHER, location, namespace)


def _open(store_class: StoreClass, location: str, namespace: str) -> FaultyStore:
    memory = memories[location]
    return FaultyStore(store_class, namespace=namespace, memory=memory, location=location)
