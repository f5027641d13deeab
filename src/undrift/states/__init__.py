"""States, chosen by the scheme of their address."""

from __future__ import annotations

from difflib import get_close_matches
from urllib.parse import unquote

from undrift.errors import ConfigError
from undrift.state import FencedState

_SCHEMES = ("postgresql", "sqlite")
_SPELLINGS = {"postgres": "postgresql"}


def open_state(url: str, *, scope: str, schema: str | None = None) -> FencedState:
    """The state at *url*. Nothing is connected to, and nothing created, before its first call.

    Args:
        url: ``sqlite:///file.db`` (``sqlite:////`` for an absolute path, ``?mode=ro`` to only
            read, ``%3F`` for a question mark), or ``postgresql://…[?schema=undrift&…]``.
        scope: whose state, of those in one place: it keeps the stores apart.
        schema: where the tables are in PostgreSQL, unless the URL says so.

    Raises:
        ConfigError: no adapter for the scheme, a malformed URL, or a missing driver.
    """
    scheme, separator, rest = url.partition("://")
    # SQLAlchemy's spelling names a driver as well, which says nothing about the state.
    name = scheme.lower().partition("+")[0]
    name = _SPELLINGS.get(name, name)
    if separator and name == "sqlite":
        return _open_sqlite(rest, scope)
    if separator and name == "postgresql":
        return _open_postgres(url, scope, schema)
    raise _unknown_scheme(name if separator else "")


def _open_sqlite(rest: str, scope: str) -> FencedState:
    from undrift.states.sqlite import SqliteState

    path, _, query = rest.partition("?")
    if not path.startswith("/") or path in ("/", "/:memory:") or query not in ("", "mode=ro"):
        raise ConfigError(
            "The state's URL is malformed",
            why=f"sqlite://{rest} is not of the form sqlite:///file.db or sqlite:////folder/f.db "
            "(?mode=ro may follow); a database in memory would be lost with the process.",
            fix="correct state.url",
        )
    return SqliteState(unquote(path[1:]), scope=scope, read_only=query == "mode=ro")


def _open_postgres(url: str, scope: str, schema: str | None) -> FencedState:
    try:
        from undrift.states.postgres import PostgresState
    except ImportError as error:  # psycopg raises a nameless one when it finds no libpq
        if error.name is not None and error.name.partition(".")[0] != "psycopg":
            raise
        raise ConfigError(
            "The driver for PostgreSQL is not installed",
            why=f"psycopg cannot be imported ({error}).",
            fix="pip install 'undrift[postgres]'",
        ) from error
    return PostgresState(url, scope=scope, schema=schema)


def _unknown_scheme(scheme: str) -> ConfigError:
    nearest = get_close_matches(scheme, (*_SCHEMES, *_SPELLINGS), n=1)
    hint = f"did you mean {nearest[0]}://? " if nearest else ""
    known = ", ".join(f"{known}://" for known in _SCHEMES)
    return ConfigError(
        "No state for this URL",
        # The rest of the URL is not shown, as it may hold a password.
        why=f"the scheme {scheme!r} is not known; {hint}there are: {known}.",
        fix="correct state.url, for example sqlite:///state.db or postgresql://user@host/db",
    )
