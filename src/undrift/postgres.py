"""PostgreSQL's addresses and connections, as a store and a state need them alike.

A password with an unescaped ``@``, ``/`` or ``?`` makes libpq read a part of it as the host or the
database, and then print it. Such a URL is refused here before libpq has anything to say about it.
"""

from __future__ import annotations

import selectors
import struct
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import cast
from urllib.parse import quote, unquote

import psycopg
from psycopg import Connection, IsolationLevel, pq
from psycopg.abc import Buffer
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg.types.array import ListBinaryDumper

CONNECT_TIMEOUT_SECONDS = 10

# number of dimensions, flags, oid of the elements, elements, lowest index
_ARRAY_HEADER = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i")
_TEXT_OID = 25
# By the oid of the integers and the booleans as psycopg sends them: the length and the value.
_NUMBERS = {
    oid: struct.Struct(layout)
    for oid, layout in ((16, "!i?"), (20, "!iq"), (21, "!ih"), (23, "!ii"))
}
_SAMPLE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresUrl:
    """A URL as people write it, taken apart.

    Attributes:
        conninfo: for libpq, with the password.
        own: the parameters that are undrift's, unquoted; the last of each name counts.
        parts: what the conninfo says, by libpq's names.
    """

    conninfo: str = field(repr=False)
    own: Mapping[str, str]
    parts: Mapping[str, str] = field(repr=False)

    @property
    def role(self) -> str:
        """Who connects, as far as the address or the environment tells."""
        return self.parts.get("user") or default_option("user")

    @property
    def database(self) -> str:
        """The database's name."""
        return self.parts.get("dbname") or default_option("dbname") or self.role

    def location(self, query: str) -> str:
        """The URL for people, without the password, and with *query* for its parameters."""
        password = ":***" if "password" in self.parts else ""
        user = f"{quote(self.parts['user'], safe='')}{password}@" if "user" in self.parts else ""
        port = f":{self.parts['port']}" if "port" in self.parts else ""
        database = quote(self.parts.get("dbname", ""), safe="")
        host = self.parts.get("host", "")
        query = f"?{query}"
        if host.startswith("/"):  # a folder of sockets has its place in the query
            query, host = f"?host={host}&{query[1:]}", ""
        return f"postgresql://{user}{host}{port}/{database}{query}"


def read_url(url: str, own: Collection[str]) -> PostgresUrl | None:
    """Take ``postgresql://…[?name=value&…]`` apart; None if it is malformed.

    ``postgres://`` and SQLAlchemy's ``postgresql+driver://`` mean the same.

    Args:
        own: names of parameters that libpq is not to see.
    """
    _, _, rest = url.partition("://")
    credentials, at, place = rest.partition("@")
    if not at or "/" in credentials:  # libpq's rule; a ? belongs to a password that it stands in
        credentials, at, place = "", "", rest
    base, _, query = place.partition("?")
    found: dict[str, str] = {}
    others: list[str] = []
    for parameter in filter(None, query.split("&")):
        name, is_given, value = parameter.partition("=")
        if is_given and name in own:
            found[name] = unquote(value)
        else:
            others.append(parameter)
    conninfo = f"postgresql://{credentials}{at}{base}" + ("?" + "&".join(others) if others else "")
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    except (psycopg.ProgrammingError, UnicodeDecodeError):
        return None  # their messages quote the URL
    if not _is_plausible(parts):
        return None
    return PostgresUrl(conninfo=conninfo, own=found, parts=parts)


def default_option(name: str) -> str:
    """What libpq takes for a part that is not given: from the environment, or its own."""
    for option in pq.Conninfo.get_defaults():
        if option.keyword.decode() == name and option.val:
            return option.val.decode()
    return ""


def connect(conninfo: str, options: str | None = None) -> Connection[TupleRow]:
    """Open a connection of which nothing outlasts a transaction, as behind a pooler.

    Args:
        options: libpq's; None leaves them to the address.
    """
    given = conninfo_to_dict(conninfo)
    connection = psycopg.connect(
        conninfo,
        autocommit=True,
        prepare_threshold=None,  # a pooler may run the next statement on another server session
        application_name=given.get("application_name", "undrift"),
        connect_timeout=given.get("connect_timeout", CONNECT_TIMEOUT_SECONDS),
        client_encoding="utf-8",
        options=given.get("options") if options is None else options,
    )
    connection.isolation_level = IsolationLevel.READ_COMMITTED
    connection.adapters.register_dumper(list, _ListDumper)
    return connection


class _ListDumper(ListBinaryDumper):
    """Lists of texts and numbers in a third of the time: a column is sent as one array.

    Source:
        ``array_recv`` in PostgreSQL's arrayfuncs.c.
    """

    def dump(self, obj: list[object]) -> Buffer | None:
        """*obj* on the wire; what is not a list of texts or of numbers as psycopg does it."""
        types = set(map(type, obj))
        if types == {str}:
            oid, elements = _TEXT_OID, _texts(cast(list[str], obj))
        elif types in ({int}, {bool}) and self.sub_dumper and self.sub_dumper.oid in _NUMBERS:
            oid = self.sub_dumper.oid
            elements = _numbers(cast(list[int], obj), _NUMBERS[oid])
        else:
            return super().dump(obj)
        return b"".join((_ARRAY_HEADER.pack(1, 0, oid, len(obj), 1), *elements))


def _texts(items: list[str]) -> Iterable[bytes]:
    """*items* on the wire, each behind its length; in UTF-8, the client's encoding."""
    if len(set(items[:_SAMPLE])) <= _SAMPLE // 4:  # such as kinds, models, and one owner's entities
        known = {item: _LENGTH.pack(len(text := item.encode())) + text for item in set(items)}
        return map(known.__getitem__, items)
    encoded = list(map(str.encode, items))
    lengths = map(_LENGTH.pack, map(len, encoded))
    return chain.from_iterable(zip(lengths, encoded, strict=True))


def _numbers(items: list[int], number: struct.Struct) -> Iterable[bytes]:
    """*items* on the wire, each behind its length."""
    return map(number.pack, repeat(number.size - _LENGTH.size), items)


def is_usable(connection: Connection[TupleRow]) -> bool:
    """Whether an idle connection is still alive; a server speaks unasked only to say goodbye."""
    if connection.closed:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(connection.fileno(), selectors.EVENT_READ)
        return not selector.select(timeout=0)


def _is_plausible(parts: Mapping[str, str]) -> bool:
    ports = parts.get("port", "").split(",")
    return all(port == "" or port.isdecimal() for port in ports) and not any(
        "@" in parts.get(name, "") for name in ("host", "dbname")
    )
