"""Worlds of a source and a store, on every backend."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.layouts import Layout
from support.sides import World, postgres_world, sqlite_world

NewWorld = Callable[..., World]


@pytest.fixture
def without_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every worker take the others for dead, so that they get in each other's way.

    Leases only save work; what is written must be right without them.
    """
    monkeypatch.setattr("undrift.clocks.is_gone", lambda holder: True)


@pytest.fixture
def new_sqlite_world(tmp_path: Path) -> Iterator[NewWorld]:
    """A function that creates a world of two SQLite files."""
    with ExitStack() as worlds:

        def new_world(layout: Layout | None = None) -> World:
            folder = tmp_path / f"world_{len(list(tmp_path.iterdir()))}"
            folder.mkdir()
            return worlds.enter_context(sqlite_world(folder, layout=layout))

        yield new_world


@pytest.fixture
def new_postgres_world(new_postgres_url: Callable[[], str]) -> Iterator[NewWorld]:
    """A function that creates a world in one PostgreSQL database."""
    with ExitStack() as worlds:

        def new_world(layout: Layout | None = None) -> World:
            return worlds.enter_context(postgres_world(new_postgres_url(), layout=layout))

        yield new_world


@pytest.fixture(params=["sqlite", "pgvector"])
def new_world(request: pytest.FixtureRequest) -> NewWorld:
    """A function that creates worlds: once SQLite twice, once PostgreSQL with pgvector."""
    name = "new_sqlite_world" if request.param == "sqlite" else "new_postgres_world"
    found: NewWorld = request.getfixturevalue(name)
    return found


@pytest.fixture
def world(new_world: NewWorld) -> World:
    """A world in the origin's layout, on each backend."""
    return new_world()


@pytest.fixture
def sqlite(new_sqlite_world: NewWorld) -> World:
    """A world of two SQLite files in the origin's layout."""
    return new_sqlite_world()


@pytest.fixture
def postgres(new_postgres_world: NewWorld) -> World:
    """A world in one PostgreSQL database, in the origin's layout."""
    return new_postgres_world()
