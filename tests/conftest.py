"""What every test can ask for: a clean environment and a real PostgreSQL."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings

from support.postgres import PostgresServer

pytest_plugins = [
    "support.chroma_fixtures",
    "support.embedding_fixtures",
    "support.matrix",
    "support.milvus_fixtures",
    "support.qdrant_fixtures",
    "support.redis_fixtures",
]

_SERVER = pytest.StashKey[PostgresServer]()

# What could lead a test to somebody's real database or account, or change what a command prints.
_FOREIGN_NAMES = {"DATABASE_URL", "VECTOR_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"}
_FOREIGN_PREFIXES = ("PG", "UNDRIFT_")
_OWN_PREFIX = "UNDRIFT_TEST_"


def pytest_configure() -> None:
    """Take the developer's own settings out of the environment, before any test module loads."""
    for name in list(os.environ):
        is_foreign = name in _FOREIGN_NAMES or name.startswith(_FOREIGN_PREFIXES)
        if is_foreign and not name.startswith(_OWN_PREFIX):
            del os.environ[name]
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As a shell leaves it to what it starts in the background; the programs under test would
        # inherit it, and rightly take no notice of Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if "CI" not in os.environ:  # there hypothesis picks its own profile, which is repeatable
        settings.register_profile("here", deadline=None)
        settings.load_profile("here")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the long tests begin first, whatever the random order says."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests of this process.

    A test may stop it: the next one finds it running. What a test creates itself with
    `create_database` it drops itself; `postgres_url` and `new_postgres_url` do so on their own.
    """
    with PostgresServer() as server:
        pytestconfig.stash[_SERVER] = server
        yield server


@pytest.fixture(autouse=True)
def _postgres_is_left_running(pytestconfig: pytest.Config) -> Iterator[None]:
    yield
    if _SERVER in pytestconfig.stash:
        pytestconfig.stash[_SERVER].start()


@pytest.fixture
def new_postgres_url(postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
    """A function that creates an empty database with pgvector and returns its URL.

    Each is dropped after the test, whoever is still connected.
    """
    urls: list[str] = []

    def new_url() -> str:
        urls.append(postgres_server.create_database())
        return urls[-1]

    yield new_url
    postgres_server.start()
    for url in urls:
        postgres_server.drop_database(url)


@pytest.fixture
def postgres_url(new_postgres_url: Callable[[], str]) -> str:
    """The URL of an empty database with pgvector, this test's own, as the superuser."""
    return new_postgres_url()
