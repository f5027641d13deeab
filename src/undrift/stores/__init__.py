"""Vector stores, chosen by the scheme of their address."""

from __future__ import annotations

from difflib import get_close_matches
from urllib.parse import unquote

from undrift.errors import ConfigError
from undrift.ports import VectorStore

_SCHEMES = ("postgresql", "sqlite")
_SPELLINGS = {"postgres": "postgresql"}


def open_store(url: str, *, namespace: str = "default", keep_text: bool = True) -> VectorStore:
    """The store at *url*. Nothing is connected to, and nothing created, before its first call.

    Args:
        url: ``sqlite:///file.db`` (``sqlite:////`` for an absolute path, ``?mode=ro`` to only
            read, ``%3F`` for a question mark), or ``postgresql://…[?table=schema.table&…]``.
        namespace: whose records are managed.
        keep_text: False stores neither texts nor metadata.

    Raises:
        ConfigError: no adapter for the scheme, a malformed URL, or a missing driver.
    """
    scheme, separator, rest = url.partition("://")
    # SQLAlchemy's spelling names a driver as well, which says nothing about the store.
    name = scheme.lower().partition("+")[0]
    name = _SPELLINGS.get(name, name)
    if separator and name == "sqlite":
        return _open_sqlite(rest, namespace, keep_text)
    if separator and name == "postgresql":
        return _open_pgvector(url, namespace, keep_text)
    raise _unknown_scheme(name if separator else "")


def _open_sqlite(rest: str, namespace: str, keep_text: bool) -> VectorStore:
    from undrift.stores.sqlite import SqliteStore

    path, _, query = rest.partition("?")
    if not path.startswith("/") or path in ("/", "/:memory:") or query not in ("", "mode=ro"):
        raise ConfigError(
            "The vector store's URL is malformed",
            why=f"sqlite://{rest} is not of the form sqlite:///file.db or sqlite:////folder/f.db "
            "(?mode=ro may follow); a database in memory would be lost with the process.",
            fix="correct VECTOR_URL",
        )
    return SqliteStore(
        unquote(path[1:]), namespace=namespace, keep_text=keep_text, read_only=query == "mode=ro"
    )


def _open_pgvector(url: str, namespace: str, keep_text: bool) -> VectorStore:
    try:
        from undrift.stores.pgvector import PgvectorStore
    except ImportError as error:  # psycopg raises a nameless one when it finds no libpq
        if error.name is not None and error.name.partition(".")[0] != "psycopg":
            raise
        raise ConfigError(
            "The driver for PostgreSQL is not installed",
            why=f"psycopg cannot be imported ({error}).",
            fix="pip install 'undrift[postgres]'",
        ) from error
    return PgvectorStore(url, namespace=namespace, keep_text=keep_text)


def _unknown_scheme(scheme: str) -> ConfigError:
    nearest = get_close_matches(scheme, (*_SCHEMES, *_SPELLINGS), n=1)
    hint = f"did you mean {nearest[0]}://? " if nearest else ""
    known = ", ".join(f"{known}://" for known in _SCHEMES)
    return ConfigError(
        "No vector store for this URL",
        # The rest of the URL is not shown, as it may hold a password.
        why=f"the scheme {scheme!r} is not known; {hint}there are: {known}.",
        fix="correct VECTOR_URL, for example sqlite:///vectors.db or postgresql://user@host/db",
    )
