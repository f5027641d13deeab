"""Where a LanceDB store is: a folder of this machine, or a place in object storage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from undrift.errors import ConfigError

DEFAULT_TABLE = "vectors"
CLAIMS_SUFFIX = "_claims"

FORMS = "lancedb:///folder?table=vectors or lancedb+s3://bucket/folder?table=vectors"

# LanceDB's own rule; names of dots alone would be folders.
_TABLE = re.compile(r"(?!\.+$)[A-Za-z0-9_.-]+")

_OBJECT_STORES = ("s3", "gs", "az")

# LanceDB's own are 5 and 30 s, and a write to object storage may take longer than that.
_TIMEOUTS = {"connect_timeout": "10s", "timeout": "120s"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the tables are.

    Attributes:
        uri: the database, as LanceDB spells it.
        folder: the same, on this machine; None in object storage.
        table: that of the records.
        location: for people.
        options: of the storage. Credentials are none of them: those come from the environment.
    """

    uri: str
    folder: Path | None
    table: str
    location: str
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def claims(self) -> str:
        """The table of claims beside that of the records."""
        return self.table + CLAIMS_SUFFIX

    def folder_of(self, table: str) -> Path | None:
        """Where a table's files are, on this machine."""
        return None if self.folder is None else self.folder / f"{table}.lance"


def parse(url: str) -> Address:
    """Read ``lancedb:///folder[?table=…]`` or ``lancedb+s3://bucket/folder[?table=…]``.

    Four slashes begin an absolute path, as in SQLite's URLs. ``lancedb+gs://`` and
    ``lancedb+az://`` are object storage too.

    Raises:
        ConfigError: the URL is malformed. The message shows nothing of it that may be secret.
    """
    scheme, _, rest = url.partition("://")
    storage = scheme.lower().partition("+")[2]
    place, _, query = rest.partition("?")
    table = _table(query)
    if not storage:
        return _folder(place, table)
    if storage not in _OBJECT_STORES:
        known = ", ".join(f"lancedb+{name}://" for name in _OBJECT_STORES)
        raise _malformed(
            f"the storage {storage!r} is not known; besides lancedb:/// there are {known}"
        )
    parts = urlsplit(f"{storage}://{place}")
    if "@" in parts.netloc:
        raise _malformed(
            "it holds a key, and credentials of object storage come from the environment "
            "(such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        )
    if not parts.netloc:
        raise _malformed("it names no bucket")
    uri = f"{storage}://{parts.netloc}{unquote(parts.path).rstrip('/')}"
    location = f"lancedb+{uri}?table={table}"
    return Address(uri=uri, folder=None, table=table, location=location, options=_TIMEOUTS)


def _folder(place: str, table: str) -> Address:
    path = unquote(place[1:])
    if not place.startswith("/") or not path.strip("/"):
        raise _malformed("it names no folder")
    # What begins with a scheme of its own would be no folder to LanceDB, and a tilde another one.
    folder = Path(path).absolute()
    location = f"lancedb:///{folder}?table={table}"
    return Address(uri=str(folder), folder=folder, table=table, location=location)


def _table(query: str) -> str:
    parameters = parse_qsl(query, keep_blank_values=True)
    unknown = [name for name, _ in parameters if name != "table"]
    if unknown or len(parameters) > 1:
        raise _malformed("behind the question mark only table=… may stand, once")
    table = parameters[0][1] if parameters else DEFAULT_TABLE
    if not _TABLE.fullmatch(table):
        raise _malformed(
            f"{table!r} is no name of a table: letters, digits, underscores, hyphens and periods "
            "make one"
        )
    return table


def _malformed(why: str) -> ConfigError:
    return ConfigError(
        "The vector store's URL is malformed", why=f"{why}.", fix=f"write VECTOR_URL as {FORMS}"
    )
