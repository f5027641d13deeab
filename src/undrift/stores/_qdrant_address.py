"""Where a Qdrant server is, and how its collection is called."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from undrift.errors import ConfigError

DEFAULT_PORT = 6333

_KEY_FROM = "env:"
_FORM = "qdrant+https://:KEY@host:6333/collection, or with ?api_key=env:NAME for the key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A collection of a server's.

    Attributes:
        server: the server's URL; a path before the collection is a prefix of a proxy's.
        key: the API key; empty if there is none.
        location: for people, without the key.
        url: as it was given, without the key.
    """

    server: str
    collection: str
    key: str = field(repr=False)
    location: str
    url: str


def parse_address(url: str) -> Address:
    """Read ``qdrant+http(s)://[:KEY@]host[:port]/[prefix/]collection[?api_key=env:NAME]``.

    Raises:
        ConfigError: the URL is malformed, or names a key that is not there. The message shows
            nothing of it that may be secret.
    """
    try:
        parsed = urlsplit(url)
        host, port = parsed.hostname, parsed.port
    except ValueError:
        raise _malformed() from None  # it would show what stands where a port should, or a key
    *prefix, collection = parsed.path.split("/")[1:] or [""]
    is_cut = parsed.fragment or "@" in parsed.path + parsed.query  # by a / or # in the key
    if is_cut or not host or unquote(collection) in ("", ".", ".."):
        raise _malformed()
    host = f"[{host}]" if ":" in host else host
    scheme = parsed.scheme.lower().partition("+")[2]
    place = "/".join([f"{host}:{port or DEFAULT_PORT}", *prefix])
    key = _key(parsed.username, parsed.password, parsed.query)
    hidden = ":***@" if key else ""
    return Address(
        server=f"{scheme}://{place}",
        collection=unquote(collection),
        key=key,
        location=f"qdrant+{scheme}://{hidden}{place}/{collection}",
        url=f"qdrant+{scheme}://{place}/{collection}"
        + (f"?{parsed.query}" if parsed.query else ""),
    )


def _key(username: str | None, password: str | None, query: str) -> str:
    """The key, wherever the URL has it."""
    parameters = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(parameters.keys() - {"api_key"}):
        raise ConfigError(
            "The vector store's URL is malformed",
            why=f"it has a parameter that is not known: {', '.join(unknown)}.",
            fix=f"write VECTOR_URL as {_FORM}",
        )
    named = parameters.get("api_key")
    if named is None:
        return unquote(password or username or "")
    if not named.startswith(_KEY_FROM):
        raise ConfigError(
            "The vector store's key must not stand in the URL's parameters",
            why="?api_key= is not followed by env: and the name of a variable (it is not shown, as "
            "it may be the key).",
            fix="export the key under a name, such as QDRANT_API_KEY, and write "
            "?api_key=env:QDRANT_API_KEY",
        )
    name = named.removeprefix(_KEY_FROM)
    key = os.environ.get(name, "")
    if not key:
        raise ConfigError(
            "The vector store's key is missing",
            why=f"?api_key=env:{name} names a variable that is not set.",
            fix=f"export {name}, or take ?api_key= out of VECTOR_URL",
        )
    return key


def _malformed() -> ConfigError:
    return ConfigError(
        "The vector store's URL is malformed",
        why=f"it is not of the form {_FORM} (it is not shown, as it may hold a key).",
        fix="correct VECTOR_URL; in a key write @ as %40, / as %2F, : as %3A, ? as %3F, # as %23 "
        "and % as %25",
    )
