"""What a test on real embedding servers can ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.embedding_server import EmbeddingProxy, EmbeddingServer


@pytest.fixture(scope="session")
def embedding_server() -> Iterator[EmbeddingServer]:
    """A server with OpenAI's embeddings protocol, for all tests of this process."""
    with EmbeddingServer() as server:
        yield server


@pytest.fixture
def embedding_proxy(
    embedding_server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[EmbeddingProxy]:
    """A proxy before it, which hands everything on until it is told otherwise."""
    # A developer's own proxy has no business between two programs of this machine.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with EmbeddingProxy(embedding_server) as proxy:
        yield proxy


@pytest.fixture
def without_waits() -> Iterator[None]:
    """Every retry comes at once; how long it would have waited is tested by itself."""
    import stamina

    with stamina.set_testing(True, attempts=20, cap=True):
        yield
