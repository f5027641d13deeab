"""A server that speaks Qdrant's API, for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.qdrant_server import QdrantServer

_SERVER = pytest.StashKey[QdrantServer]()


@pytest.fixture(scope="session")
def qdrant_server(pytestconfig: pytest.Config) -> Iterator[QdrantServer]:
    """A server for all tests of this process. A test may stop it: the next one finds it running.

    Every test has collections of its own.
    """
    with QdrantServer() as server:
        pytestconfig.stash[_SERVER] = server
        yield server


@pytest.fixture(autouse=True)
def _qdrant_is_left_running(pytestconfig: pytest.Config) -> Iterator[None]:
    yield
    if _SERVER in pytestconfig.stash:
        pytestconfig.stash[_SERVER].start()
