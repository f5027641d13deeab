"""Vector stores, chosen by the scheme of their address."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from typing import NamedTuple, Protocol

from undrift.adoption import StoreFields
from undrift.errors import ConfigError, UnsupportedError
from undrift.ports import VectorStore


class _OpenAt(Protocol):
    """What every adapter's module has under the name ``open_at``."""

    def __call__(
        self, url: str, *, namespace: str, keep_text: bool, fields: StoreFields | None
    ) -> VectorStore: ...


class _Adapter(NamedTuple):
    """How a scheme is served.

    Attributes:
        module: below this package.
        drivers: the packages it imports.
        name: the database's, for people.
        extra: of undrift's, which installs the drivers.
        example: of an address.
        adopts: whether it manages collections of other programs.
    """

    module: str
    drivers: tuple[str, ...]
    name: str
    extra: str
    example: str
    adopts: bool = False


_ADAPTERS = {
    "sqlite": _Adapter("sqlite", (), "SQLite", "", "sqlite:///vectors.db"),
    "postgresql": _Adapter(
        "pgvector", ("psycopg",), "PostgreSQL", "postgres", "postgresql://user@host/db", adopts=True
    ),
    "qdrant+http": _Adapter(
        "qdrant",
        ("qdrant_client",),
        "Qdrant",
        "qdrant",
        "qdrant+http://host:6333/collection",
        adopts=True,
    ),
    "qdrant+https": _Adapter(
        "qdrant",
        ("qdrant_client",),
        "Qdrant",
        "qdrant",
        "qdrant+https://host:6333/collection",
        adopts=True,
    ),
    "qdrant+file": _Adapter(
        "qdrant_edge",
        ("qdrant_edge",),
        "Qdrant's engine",
        "qdrant-edge",
        "qdrant+file:///folder/collection",
        adopts=True,
    ),
    "chroma+http": _Adapter(
        "chroma", ("httpx",), "Chroma", "chroma", "chroma+http://host:8000/collection", adopts=True
    ),
    "chroma+https": _Adapter(
        "chroma", ("httpx",), "Chroma", "chroma", "chroma+https://host:8000/collection", adopts=True
    ),
    "chroma+file": _Adapter(
        "chroma_embedded",
        ("chromadb",),
        "Chroma's engine",
        "chroma-embedded",
        "chroma+file:///folder/collection?sole_process=yes",
        adopts=True,
    ),
    "lancedb": _Adapter(
        "lancedb",
        ("lancedb", "pyarrow"),
        "LanceDB",
        "lancedb",
        "lancedb:///folder?table=vectors",
        adopts=True,
    ),
    "milvus+http": _Adapter(
        "milvus",
        ("pymilvus", "grpc"),
        "Milvus",
        "milvus",
        "milvus+http://user:password@host:19530/collection",
    ),
    "milvus+https": _Adapter(
        "milvus",
        ("pymilvus", "grpc"),
        "Milvus",
        "milvus",
        "milvus+https://token@host/collection",
    ),
    "redis": _Adapter("redis", ("redis",), "Redis", "redis", "redis://host:6379/0?index=undrift"),
    "rediss": _Adapter("redis", ("redis",), "Redis", "redis", "rediss://host:6379/0?index=undrift"),
}
_SPELLINGS = {"postgres": "postgresql", "valkey": "redis", "valkeys": "rediss"}


def open_store(
    url: str,
    *,
    namespace: str = "default",
    keep_text: bool = True,
    fields: StoreFields | None = None,
) -> VectorStore:
    """The store at *url*. Nothing is connected to, and nothing created, before its first call.

    Args:
        url: ``sqlite:///file.db`` (``sqlite:////`` for an absolute path, ``?mode=ro`` to only
            read, ``%3F`` for a question mark), ``postgresql://…[?table=schema.table&…]``, or that
            of another store; docs/reference/stores.md has them all.
        namespace: whose records are managed.
        keep_text: False stores neither texts nor metadata.
        fields: where the parts of a stamp are found, in a collection that another program filled.

    Raises:
        ConfigError: no adapter for the scheme, a malformed URL, or a missing driver.
        UnsupportedError: the adapter does not manage collections of other programs.
    """
    scheme, separator = scheme_of(url), "://" in url
    adapter = _ADAPTERS.get(scheme) if separator else None
    if adapter is None:
        raise _unknown_scheme(scheme if separator else "")
    if fields is not None and not adapter.adopts:
        raise UnsupportedError(
            f"undrift does not adopt collections in {adapter.name}",
            why="[store.fields] says that another program filled it, and this adapter manages "
            "only what undrift itself has written.",
            fix="leave [store.fields] out of undrift.toml and name a new place in VECTOR_URL",
        )
    open_at: _OpenAt = _imported(adapter).open_at
    return open_at(url, namespace=namespace, keep_text=keep_text, fields=fields)


def database_of(url: str) -> str:
    """What the store at *url* is called, for people; empty where no adapter serves it."""
    adapter = _ADAPTERS.get(scheme_of(url))
    return adapter.name if adapter is not None else ""


def scheme_of(url: str) -> str:
    """The scheme of *url* as adapters are found by it, whatever its spelling."""
    scheme = url.partition("://")[0].lower()
    # SQLAlchemy's spelling names a driver as well, which says nothing about the store.
    name = scheme.partition("+")[0]
    name = _SPELLINGS.get(name, name)
    return name if name in _ADAPTERS else scheme


def module_of(url: str) -> _Module | None:
    """The adapter's module for *url*; None where there is none for its scheme.

    Raises:
        ConfigError: its driver is not installed.
    """
    adapter = _ADAPTERS.get(scheme_of(url)) if "://" in url else None
    return None if adapter is None else _imported(adapter)


def _imported(adapter: _Adapter) -> _Module:
    try:
        module: _Module = import_module(f"undrift.stores.{adapter.module}")
    except ImportError as error:  # psycopg raises a nameless one when it finds no libpq
        missing = (error.name or "").partition(".")[0]
        if missing and missing not in adapter.drivers:
            raise
        raise ConfigError(
            f"The driver for {adapter.name} is not installed",
            why=f"{adapter.drivers[0]} cannot be imported ({error}).",
            fix=f"pip install 'undrift[{adapter.extra}]'",
        ) from error
    return module


class _Module(Protocol):
    open_at: _OpenAt


def _unknown_scheme(scheme: str) -> ConfigError:
    nearest = get_close_matches(scheme, (*_ADAPTERS, *_SPELLINGS), n=1)
    hint = f"did you mean {nearest[0]}://? " if nearest else ""
    known = ", ".join(f"{known}://" for known in _ADAPTERS)
    return ConfigError(
        "No vector store for this URL",
        # The rest of the URL is not shown, as it may hold a password.
        why=f"the scheme {scheme!r} is not known; {hint}there are: {known}.",
        fix="correct VECTOR_URL, for example sqlite:///vectors.db or postgresql://user@host/db",
    )
