"""Where a Redis store is, and what its indexes and keys are called there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from urllib.parse import parse_qsl, quote, unquote_to_bytes

from undrift.errors import ConfigError

DEFAULT_INDEX = "undrift"
DEFAULT_PORT = 6379

_TLS_PARAMETERS = (
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)
_INDEX_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_MALFORMED_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What a store's indexes and keys are called.

    All keys share what stands in braces, so that a server that distributes keys keeps them together
    and one script may touch them.

    Attributes:
        vectors: the index that is searched.
        identities: the index that says which records there are.
    """

    vectors: str

    @property
    def identities(self) -> str:
        """The index that says which records there are; no damaged vector takes one out of it."""
        return f"{self.vectors}:owners"

    @property
    def prefix(self) -> str:
        """What every record's key begins with; the vector_id follows."""
        return f"{{{self.vectors}}}:v:"

    @property
    def transaction(self) -> str:
        """A key that lives within a transaction only."""
        return f"{{{self.vectors}}}:publish"

    def claim(self, namespace: str) -> str:
        """The key of a namespace's claim."""
        return f"{{{self.vectors}}}:claim:{namespace}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a Redis store is.

    Attributes:
        user: who logs in; None for the server's default user.
        tls: redis-py's settings for an encrypted connection; None for a plain one.
        location: for people, without the password.
    """

    host: str
    port: int
    user: str | None
    password: str | None = field(repr=False)
    tls: Mapping[str, str | bool] | None
    names: Names
    location: str


def parse_address(url: str) -> Address:
    """Read ``redis[s]://[user:password@]host[:port]/0[?index=name&ssl_…]``; ``valkey[s]`` is alike.

    Raises:
        ConfigError: the URL is malformed. The message shows nothing of it that may be secret.
    """
    scheme, _, rest = url.partition("://")
    is_encrypted = scheme.lower() in ("rediss", "valkeys")
    base, _, query = rest.partition("?")
    authority, _, database = base.partition("/")
    login, at, place = authority.rpartition("@")
    # A password with an unescaped @, /, ? or # would be taken for a host or a database, and shown.
    if "@" in login + database + query or "#" in rest or _MALFORMED_ESCAPE.search(rest):
        raise _malformed()
    user, _, password = login.partition(":")
    host, port = _host_and_port(place)
    if database.rstrip("/") not in ("", "0"):
        raise ConfigError(
            "The vector store cannot be in that database of the server",
            why=f"the URL names the database {database.rstrip('/')!a}, and search indexes exist in "
            "database 0 only.",
            fix="write /0 in VECTOR_URL, and another ?index= to keep stores apart",
        )
    parameters = _parameters(query, is_encrypted=is_encrypted)
    names = Names(vectors=_index_name(parameters.pop("index", DEFAULT_INDEX)))
    scheme = "rediss" if is_encrypted else "redis"
    shown = f"{quote(_unescaped(user), safe='')}{':***' if password else ''}@" if at else ""
    bracketed = f"[{host}]" if ":" in host else host
    return Address(
        host=host,
        port=port,
        user=_unescaped(user) or None,
        password=_unescaped(password) or None,
        tls=_tls(parameters) if is_encrypted else None,
        names=names,
        location=f"{scheme}://{shown}{bracketed}:{port}/0?index={names.vectors}",
    )


def _host_and_port(place: str) -> tuple[str, int]:
    if place.startswith("["):
        host, bracket, port = place[1:].partition("]")
        port = port.removeprefix(":") if bracket and port[:1] in ("", ":") else "?"
    else:
        host, _, port = place.partition(":")
    host = _unescaped(host)
    if port and not (port.isascii() and port.isdecimal() and int(port) < 65_536):
        raise _malformed()
    if not host or not host.isprintable() or " " in host:
        raise _malformed()
    return host, int(port or DEFAULT_PORT)


def _parameters(query: str, *, is_encrypted: bool) -> dict[str, str]:
    allowed = ("index", *(_TLS_PARAMETERS if is_encrypted else ()))
    found = dict(parse_qsl(query, keep_blank_values=True))
    for name in found:
        if name not in allowed:
            nearest = get_close_matches(name, allowed, n=1)
            hint = f"did you mean {nearest[0]}? " if nearest else ""
            only_encrypted = " with rediss:// only" if name in _TLS_PARAMETERS else ""
            raise ConfigError(
                "The vector store's URL has an unknown parameter",
                why=f"{name!a} is not known{only_encrypted}; {hint}there are: "
                f"{', '.join(allowed)}.",
                fix="correct VECTOR_URL, for example redis://host:6379/0?index=undrift",
            )
    return found


def _index_name(name: str) -> str:
    if not _INDEX_NAME.fullmatch(name):
        raise ConfigError(
            "The vector store's index cannot be named like that",
            why=f"?index={name[:100]!a} is not made of 1 to 100 letters, digits and _ . : -.",
            fix=f"write for example ?index={DEFAULT_INDEX}",
        )
    return name


def _tls(parameters: Mapping[str, str]) -> dict[str, str | bool]:
    """The settings as redis-py takes them; a certificate is required unless they say otherwise."""
    given: dict[str, str | bool] = {**parameters}
    if "ssl_check_hostname" in given:
        given["ssl_check_hostname"] = parameters["ssl_check_hostname"].lower() in ("true", "1")
    required = given.setdefault("ssl_cert_reqs", "required")
    if required not in ("required", "optional", "none"):
        raise ConfigError(
            "The vector store's certificate cannot be checked like that",
            why=f"?ssl_cert_reqs={required!a} is none of required, optional and none.",
            fix="write ?ssl_cert_reqs=required in VECTOR_URL, or leave it out, which means the "
            "same",
        )
    if required == "none":
        given.setdefault("ssl_check_hostname", False)
    return given


def _unescaped(part: str) -> str:
    try:
        return unquote_to_bytes(part).decode()
    except UnicodeDecodeError:
        raise _malformed() from None


def _malformed() -> ConfigError:
    return ConfigError(
        "The vector store's URL is malformed",
        why="it is not of the form redis://user:password@host:port/0?index=… (it is not shown, as "
        "it may hold a password).",
        fix="correct VECTOR_URL; in a user name or password write @ as %40, / as %2F, ? as %3F, "
        "# as %23, : as %3A and % as %25",
    )
