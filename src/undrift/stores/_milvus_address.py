"""Where a Milvus collection is."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from undrift.errors import ConfigError

DEFAULT_PORTS = {"http": 19530, "https": 443}
DEFAULT_DATABASE = "default"
EXAMPLE = "milvus+http://user:password@host:19530/collection"

# Milvus's own rule for names of collections and databases.
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,254}")
_SCHEME = re.compile(r"milvus\+(https?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the collection is.

    Attributes:
        target: host and port.
        login: what a call carries so that the server lets it in; empty without one.
        location: for people, without the login.
    """

    target: str
    is_encrypted: bool
    login: str = field(repr=False)
    database: str
    collection: str
    location: str


def parse(url: str) -> Address:
    """Read ``milvus+http(s)://[user:password@ or token@]host[:port]/collection[?database=…]``.

    Raises:
        ConfigError: the URL is malformed. The message shows nothing of it that may be secret.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Its message may quote the part that holds the password.
        raise _malformed(f"its host or port cannot be read; write {EXAMPLE}") from None
    scheme = _SCHEME.fullmatch(parts.scheme)
    if scheme is None or not parts.hostname:
        raise _malformed(f"it names no server; write {EXAMPLE}")
    collection = _named(unquote(parts.path.strip("/")), "collection")
    database = _database(parts)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    target = f"{host}:{port or DEFAULT_PORTS[scheme[1].lower()]}"
    shown = "" if database == DEFAULT_DATABASE else f"?database={database}"
    return Address(
        target=target,
        is_encrypted=scheme[1].lower() == "https",
        login=_login(parts),
        database=database,
        collection=collection,
        location=f"{parts.scheme.lower()}://{target}/{collection}{shown}",
    )


def _database(parts: SplitResult) -> str:
    own = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(own.keys() - {"database"}):
        raise _malformed(f"the parameter {unknown[0]!r} is not known; there is database")
    return _named(own["database"], "database") if own else DEFAULT_DATABASE


def _named(name: str, what: str) -> str:
    if not _NAME.fullmatch(name):
        raise _malformed(
            f"{name!r} is no name of a {what}: those have at most 255 characters of a-z, A-Z, 0-9 "
            f"and '_', and begin with no digit; write {EXAMPLE}"
        )
    return name


def _login(parts: SplitResult) -> str:
    """A lone name before the @ is a token, as Zilliz's cloud gives one; else it is a password."""
    if parts.username is None:
        return ""
    login = unquote(parts.username)
    if parts.password is not None:
        login = f"{login}:{unquote(parts.password)}"
    return base64.b64encode(login.encode()).decode()


def _malformed(why: str) -> ConfigError:
    return ConfigError(
        "The vector store's URL is malformed", why=f"{why}.", fix="correct VECTOR_URL"
    )
