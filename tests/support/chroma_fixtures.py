"""A Chroma server for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.chroma_server import ChromaServer

_SERVER = pytest.StashKey[ChromaServer]()


@pytest.fixture(scope="session")
def chroma_server(pytestconfig: pytest.Config) -> Iterator[ChromaServer]:
    """A Chroma server for all tests of this process. A test may stop it: the next finds it running.

    Every test has collections of its own, named by `ChromaServer.new_location`.
    """
    with ChromaServer() as server:
        pytestconfig.stash[_SERVER] = server
        yield server


@pytest.fixture(autouse=True)
def _chroma_is_left_running(pytestconfig: pytest.Config) -> Iterator[None]:
    yield
    if _SERVER in pytestconfig.stash:
        pytestconfig.stash[_SERVER].start()
