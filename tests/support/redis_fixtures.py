"""A Valkey server with RediSearch for all tests of this process, started when one asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from support.redis_server import RedisServer

_SERVER = pytest.StashKey[RedisServer]()
_NUMBERS = count(1)


@pytest.fixture(scope="session")
def redis_server(pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    """A server for all tests of this process.

    A test may stop it: the next one finds it running. Settings that a test changes it changes back.
    """
    with RedisServer() as server:
        pytestconfig.stash[_SERVER] = server
        yield server


@pytest.fixture(autouse=True)
def _redis_is_left_running(pytestconfig: pytest.Config) -> Iterator[None]:
    yield
    if _SERVER in pytestconfig.stash:
        pytestconfig.stash[_SERVER].start()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """An address where no store is yet, this test's own."""
    index = f"test_{next(_NUMBERS)}"
    yield f"{redis_server.url}?index={index}"
    redis_server.start()
    redis_server.remove(index)
