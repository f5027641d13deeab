"""Where a Chroma store is: a server's collection, or one in a folder that no server has open."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from undrift.errors import ConfigError

DEFAULT_PORTS = {"http": 8000, "https": 443}
DEFAULT_TENANT = "default_tenant"
DEFAULT_DATABASE = "default_database"

LEDGER_SUFFIX = ".undrift"
"""What the name of the collection of tombstones and claims has behind that of the records."""

# Chroma's own rule, less the room for the suffix.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,500}[a-zA-Z0-9]")
_SCHEME = re.compile(r"chroma\+(https?)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the collection is.

    Attributes:
        collection: its name.
        location: for people, without the key.
    """

    tenant: str
    database: str
    collection: str
    location: str

    @property
    def ledger(self) -> str:
        """The name of the collection of tombstones and claims beside it."""
        return self.collection + LEDGER_SUFFIX


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerAddress(Address):
    """A collection of a server.

    Attributes:
        api: the address of the server's API, of whatever version.
        headers: what a request carries so that the server lets it in.
    """

    api: str
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderAddress(Address):
    """A collection in a folder, opened by this very process.

    Attributes:
        folder: which Chroma calls the persist directory.
        is_sole_process: a person has said that no other program opens the folder meanwhile.
    """

    folder: Path
    is_sole_process: bool


def parse_server(url: str) -> ServerAddress:
    """Read ``chroma+http(s)://[key@]host[:port]/collection[?tenant=…&database=…]``.

    Raises:
        ConfigError: the URL is malformed. The message shows nothing of it that may be secret.
    """
    example = "chroma+http://host:8000/collection"
    parts, port = _split(url, example)
    scheme = _SCHEME.fullmatch(parts.scheme)
    if scheme is None or not parts.hostname:
        raise _malformed(f"it names no server; write {example}")
    own = _parameters(parts, {"tenant", "database"}, example)
    collection = _collection(unquote(parts.path.strip("/")), example)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    network = f"{host}:{port or DEFAULT_PORTS[scheme[1].lower()]}"
    shown = "&".join(f"{name}={value}" for name, value in own.items())
    return ServerAddress(
        tenant=own.get("tenant", DEFAULT_TENANT),
        database=own.get("database", DEFAULT_DATABASE),
        collection=collection,
        location=f"{parts.scheme.lower()}://{network}/{collection}{'?' if shown else ''}{shown}",
        api=f"{scheme[1].lower()}://{network}/api",
        headers=_login(parts),
    )


def parse_folder(url: str) -> FolderAddress:
    """Read ``chroma+file:///folder/collection[?sole_process=yes&tenant=…&database=…]``.

    Two slashes less name a folder below the working directory, as in ``chroma+file:///`` followed
    by a relative path; an absolute one begins with a fourth slash, as in SQLite's URLs.

    Raises:
        ConfigError: the URL is malformed.
    """
    example = "chroma+file:////absolute/folder/collection?sole_process=yes"
    parts, _ = _split(url, example)
    folder, _, name = unquote(parts.path[1:]).rpartition("/")
    if parts.netloc or not parts.path.startswith("/") or not folder:
        raise _malformed(f"it names no folder with a collection behind it; write {example}")
    own = _parameters(parts, {"tenant", "database", "sole_process"}, example)
    sole = own.get("sole_process", "no")
    if sole not in ("yes", "no"):
        raise _malformed(f"?sole_process={sole} is neither yes nor no")
    path = Path(folder).absolute()
    collection = _collection(name, example)
    return FolderAddress(
        tenant=own.get("tenant", DEFAULT_TENANT),
        database=own.get("database", DEFAULT_DATABASE),
        collection=collection,
        location=f"chroma+file:///{path}/{collection}",
        folder=path,
        is_sole_process=sole == "yes",
    )


def _split(url: str, example: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError:
        # Its message may quote the part that holds the key.
        raise _malformed(f"its host or port cannot be read; write {example}") from None


def _parameters(parts: SplitResult, known: set[str], example: str) -> dict[str, str]:
    own = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(own.keys() - known):
        raise _malformed(
            f"the parameter {unknown[0]!r} is not known; there are {', '.join(sorted(known))}"
        )
    if empty := sorted(name for name, value in own.items() if not value):
        raise _malformed(f"the parameter {empty[0]!r} is empty; write {example}")
    return own


def _collection(name: str, example: str) -> str:
    if not _NAME.fullmatch(name):
        raise _malformed(
            f"{name!r} is no name of a collection: those have 3 to 502 characters of a-z, A-Z, "
            f"0-9, '.', '_' and '-', and begin and end with a letter or digit; write {example}"
        )
    if name.endswith(LEDGER_SUFFIX):
        raise _malformed(
            f"undrift keeps tombstones and claims in collections whose names end with "
            f"{LEDGER_SUFFIX!r}"
        )
    return name


def _login(parts: SplitResult) -> Mapping[str, str]:
    """A lone name before the @ is a key, as Chroma's own headers take it; else it is a password."""
    if parts.username is None:
        return {}
    user = unquote(parts.username)
    if parts.password is None:
        return {"Authorization": f"Bearer {user}", "X-Chroma-Token": user}
    login = f"{user}:{unquote(parts.password)}".encode()
    return {"Authorization": f"Basic {base64.b64encode(login).decode()}"}


def path_of(*parts: str) -> str:
    """A path below the API, its *parts* quoted."""
    return "".join(f"/{quote(part, safe='')}" for part in parts)


def _malformed(why: str) -> ConfigError:
    return ConfigError(
        "The vector store's URL is malformed", why=f"{why}.", fix="correct VECTOR_URL"
    )
