"""A Milvus server for every test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.milvus_server import MilvusServer, missing

_SERVER = pytest.StashKey[MilvusServer]()


@pytest.fixture(scope="session")
def milvus_server(pytestconfig: pytest.Config) -> Iterator[MilvusServer]:
    """A Milvus server for all tests of this process. A test may stop it: the next finds it running.

    Every test has collections of its own, named by `MilvusServer.new_location`. Without a server
    the test is skipped: it is large, runs on Linux alone, and `make milvus` installs it.
    """
    if reason := missing():
        pytest.skip(reason)
    with MilvusServer() as server:
        pytestconfig.stash[_SERVER] = server
        yield server


@pytest.fixture(autouse=True)
def _milvus_is_left_running(pytestconfig: pytest.Config) -> Iterator[None]:
    yield
    if _SERVER in pytestconfig.stash:
        pytestconfig.stash[_SERVER].start()
