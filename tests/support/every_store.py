"""Worlds of a SQLite source and any store, so that one test speaks for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from support.behind import Behind
from support.layouts import Layout
from support.sides import ORIGIN, World

_NUMBERS = count(1)

Kinds = frozenset[str]


class StoreAt(NamedTuple):
    """An address where no store is yet, and what reaches it past undrift."""

    url: str
    behind: Callable[[Kinds], Behind]


def _qdrant(request: pytest.FixtureRequest, folder: Path) -> StoreAt:
    from support.behind.qdrant import BehindQdrant

    server = request.getfixturevalue("qdrant_server")
    url = server.url(f"every-{next(_NUMBERS)}")
    return StoreAt(url, lambda kinds: BehindQdrant(url, kinds))


def _qdrant_edge(request: pytest.FixtureRequest, folder: Path) -> StoreAt:
    from support.behind.qdrant_edge import BehindQdrantEdge

    url = f"qdrant+file:///{folder / f'every-{next(_NUMBERS)}'}"
    return StoreAt(url, lambda kinds: BehindQdrantEdge(url, kinds))


def _chroma(request: pytest.FixtureRequest, folder: Path) -> StoreAt:
    from support.behind.chroma import BehindChroma

    url = request.getfixturevalue("chroma_server").new_location()
    return StoreAt(url, lambda kinds: BehindChroma(url, kinds))


def _lancedb(request: pytest.FixtureRequest, folder: Path) -> StoreAt:
    from support.behind.lancedb import BehindLanceDb

    url = f"lancedb:///{folder / f'every-{next(_NUMBERS)}'}?table=records"
    return StoreAt(url, lambda kinds: BehindLanceDb(url, kinds))


def _redis(request: pytest.FixtureRequest, folder: Path) -> StoreAt:
    from support.behind.redis import BehindRedis

    url = f"{request.getfixturevalue('redis_server').url}?index=every_{next(_NUMBERS)}"
    return StoreAt(url, lambda kinds: BehindRedis(url, kinds))


def _milvus(request: pytest.FixtureRequest, folder: Path) -> StoreAt:
    from support.behind.milvus import BehindMilvus

    url = request.getfixturevalue("milvus_server").new_location()
    return StoreAt(url, lambda kinds: BehindMilvus(url, kinds))


STORES: Mapping[str, Callable[[pytest.FixtureRequest, Path], StoreAt]] = {
    "qdrant": _qdrant,
    "qdrant engine": _qdrant_edge,
    "chroma": _chroma,
    "lancedb": _lancedb,
    "redis": _redis,
    "milvus": _milvus,
}
"""By name, every store but the SQL ones, which have tests of their own."""

CONDITIONAL = ("qdrant", "qdrant engine", "lancedb", "redis")
"""Those of class C."""

SHARED = ("qdrant", "lancedb", "redis")
"""Those of class C that several processes may use."""


@contextmanager
def world_on(
    name: str, request: pytest.FixtureRequest, folder: Path, *, layout: Layout | None = None
) -> Iterator[World]:
    """A world whose store is the one called *name*, its state and source are files in *folder*."""
    store = STORES[name](request, folder)
    kinds = frozenset((layout.mapping if layout else ORIGIN).kinds)
    with World(
        f"sqlite:///{folder / 'app.db'}",
        store.url,
        layout=layout,
        behind=store.behind(kinds),
        state_url=f"sqlite:///{folder / 'state.db'}",
    ) as world:
        yield world
