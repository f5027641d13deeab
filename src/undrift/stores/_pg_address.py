"""PostgreSQL URLs as people write them, and as they may be shown.

A password with an unescaped ``@``, ``/`` or ``?`` makes libpq read a part of it as the host or the
database, and then print it. Such a URL is refused here before libpq has anything to say about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict

from undrift.errors import ConfigError

DEFAULT_SCHEMA = "undrift"
DEFAULT_TABLE = "vectors"

# PostgreSQL cuts names at 63 bytes, and the index's is nine longer than the table's.
_NAME_BYTES = 54


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The table that holds the vectors."""

    schema: str = DEFAULT_SCHEMA
    name: str = DEFAULT_TABLE

    @property
    def names(self) -> tuple[str, str]:
        """Schema and table, unquoted."""
        return self.schema, self.name

    @property
    def identifier(self) -> sql.Identifier:
        """Its name in a statement."""
        return sql.Identifier(*self.names)

    @property
    def index_name(self) -> str:
        """The name of the index on owners."""
        return f"{self.name}_by_owner"

    @property
    def search_index_name(self) -> str:
        """The name of the optional index on vectors."""
        return f"{self.name}_hnsw"

    @property
    def lost_index_name(self) -> str:
        """The name of the index on records that have lost their vectors."""
        return f"{self.name}_lost"

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a pgvector store is.

    Attributes:
        conninfo: for libpq, with the password.
        role: who connects, as far as the address or the environment tells.
        database: the database's name.
        location: for people, without the password.
        is_approximate: searches of large owners may ask the index on vectors.
    """

    conninfo: str
    table: Table
    role: str
    database: str
    location: str
    is_approximate: bool = False


def parse_address(url: str) -> Address:
    """Read ``postgresql://…[?table=schema.table&search=exact|approximate&…]``; the rest is libpq's.

    ``postgres://`` and SQLAlchemy's ``postgresql+driver://`` mean the same.

    Raises:
        ConfigError: the URL is malformed. The message shows nothing of it that may be secret.
    """
    _, _, rest = url.partition("://")
    credentials, at, place = rest.partition("@")
    if not at or "/" in credentials:  # libpq's rule; a ? belongs to a password that it stands in
        credentials, at, place = "", "", rest
    base, _, query = place.partition("?")
    parameters = [part for part in query.split("&") if part]
    tables = [part.removeprefix("table=") for part in parameters if part.startswith("table=")]
    searches = [part.removeprefix("search=") for part in parameters if part.startswith("search=")]
    others = "&".join(part for part in parameters if not part.startswith(("table=", "search=")))
    conninfo = f"postgresql://{credentials}{at}{base}" + (f"?{others}" if others else "")
    table = _table(unquote(tables[-1])) if tables else Table()
    is_approximate = bool(searches) and _is_approximate(searches[-1])
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    except (psycopg.ProgrammingError, UnicodeDecodeError):
        raise _malformed() from None  # their messages quote the URL
    if not _is_plausible(parts):
        raise _malformed()
    role = parts.get("user") or default_option("user")
    return Address(
        conninfo=conninfo,
        table=table,
        role=role,
        database=parts.get("dbname") or default_option("dbname") or role,
        location=_location(parts, table) + ("&search=approximate" if is_approximate else ""),
        is_approximate=is_approximate,
    )


def _table(name: str) -> Table:
    schema, dot, table = name.rpartition(".")
    names = (schema if dot else DEFAULT_SCHEMA, table)
    if not all(names) or "." in schema or max(len(part.encode()) for part in names) > _NAME_BYTES:
        raise ConfigError(
            "The vector store's table cannot be named like that",
            why=f"?table={name} is not of the form schema.table with names of at most "
            f"{_NAME_BYTES} bytes.",
            fix=f"write for example ?table={DEFAULT_SCHEMA}.{DEFAULT_TABLE}",
        )
    return Table(schema=names[0], name=names[1])


def _is_approximate(search: str) -> bool:
    if search not in ("exact", "approximate"):
        raise ConfigError(
            "The vector store cannot be searched like that",
            why=f"?search={search} is neither exact nor approximate.",
            fix="write ?search=approximate in VECTOR_URL, or leave it out to search exactly",
        )
    return search == "approximate"


def _is_plausible(parts: dict[str, str]) -> bool:
    ports = parts.get("port", "").split(",")
    return all(port == "" or port.isdecimal() for port in ports) and not any(
        "@" in parts.get(name, "") for name in ("host", "dbname")
    )


def _malformed() -> ConfigError:
    return ConfigError(
        "The vector store's URL is malformed",
        why="it is not of the form postgresql://user:password@host:port/database?table=… (it is "
        "not shown, as it may hold a password).",
        fix="correct VECTOR_URL; in a user name or password write @ as %40, / as %2F, ? as %3F, "
        ": as %3A and % as %25",
    )


def _location(parts: dict[str, str], table: Table) -> str:
    password = ":***" if "password" in parts else ""
    user = f"{quote(parts['user'], safe='')}{password}@" if "user" in parts else ""
    port = f":{parts['port']}" if "port" in parts else ""
    database = quote(parts.get("dbname", ""), safe="")
    host = parts.get("host", "")
    query = f"?table={table}"
    if host.startswith("/"):  # a folder of sockets has its place in the query
        query, host = f"?host={host}&table={table}", ""
    return f"postgresql://{user}{host}{port}/{database}{query}"


def default_option(name: str) -> str:
    """What libpq takes for a part that is not given: from the environment, or its own."""
    for option in pq.Conninfo.get_defaults():
        if option.keyword.decode() == name and option.val:
            return option.val.decode()
    return ""
