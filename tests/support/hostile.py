"""Names that were chosen to be taken for something else, and a world whose every name is one.

Each string means itself and nothing else: not SQL, not a pattern, not a filter, not a template, not
a flag, and not the string beside it that looks, begins or sorts alike.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import sqlalchemy as sa

from support.closing import Closing
from support.sides import CountingEmbedder, Database, Identity, Row, StoreTables
from undrift import EntityId, Undrift
from undrift.mapping import DocumentTable, EntitySpec
from undrift.mapping import Mapping as SourceMapping
from undrift.ports import Source, VectorStore
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.stores import open_store

HOSTILE = (
    # SQL
    "'; DROP TABLE profiles; --",
    '" OR 1=1',
    "' OR '1'='1",
    "x' UNION SELECT * FROM vectors --",
    "1); DELETE FROM undrift.vectors; --",
    "/* */ --",
    # patterns
    "%",
    "_",
    "%%",
    "a%",
    "*",
    "?",
    ".*",
    "[a-z]",
    "\\",
    "\\%",
    "\\\\",
    # numbers and their spellings
    "1",
    "10",
    "01",
    "+1",
    "1.0",
    "1e3",
    "1000",
    "0x10",
    "16",
    "-0",
    "0",
    "NaN",
    "Infinity",
    "true",
    "NULL",
    "None",
    "null",
    # prefixes, case, spaces
    "a",
    "ab",
    "abc",
    "Bob",
    "bob",
    "BOB",
    "bob ",
    " bob",
    "bob\t",
    "bo b",
    # filters, templates, placeholders
    '{"$gt": ""}',
    '{"$ne": null}',
    "$1",
    "$$",
    ":name",
    "%s",
    "%(name)s",
    "%d%n",
    "?1",
    "@p",
    "{{ 7*7 }}",
    "{% raw %}",
    "{0}",
    "${HOME}",
    "`id`",
    # paths, addresses, lists
    "../..",
    "/etc/passwd",
    "C:\\x",
    "file:///x",
    "a,b",
    "a;b",
    "a|b",
    "a:b",
    "experience:a",
    "a\x1fb",
    "#1",
    # flags
    "-",
    "--",
    "-a",
    "--all",
    "--userId=1",
    # letters that look, sort or print alike
    "caf\u00e9",
    "cafe\u0301",
    "\u0435",  # a Cyrillic letter
    "e",
    "\ufb01",
    "fi",
    "ß",
    "ss",
    "I",
    "ı",
    "İ",
    "\u202edrawkcab",
    "אבג",
    "zero\u200bwidth",
    "zerowidth",
    "\U0001f9d1\u200d\U0001f680",
    "🧑",
    "line\nfeed",
    "carriage\rreturn",
    "line\r\nfeed",
    "\u2028",
    "\x7f",
    "x" * 255,
    "x" * 254,
    "é" * 127,
)
"""Owners and ids. No two are the same string, however much alike they look."""

HOSTILE_KINDS = ("';DROP--", "%", "_", '{"$gt"=""}', "{{7*7}}", "$1", "--all", "a", "ab")
"""Kinds: as owners, but without white space and colons, which no kind has."""

HOSTILE_NAMES = ("'; DROP TABLE profiles; --", '" OR 1=1', "%s", ":na me\\")
"""Tables and columns."""


class Names(NamedTuple):
    """What the tables and columns of a world are called."""

    table: str = HOSTILE_NAMES[0]
    owner: str = HOSTILE_NAMES[1]
    id: str = HOSTILE_NAMES[2]
    content: str = HOSTILE_NAMES[3]


class Entry(NamedTuple):
    """An entity, as the application knows it."""

    owner: str
    kind: str
    id: str
    text: str

    @property
    def identity(self) -> Identity:
        """What its record claims to stand for."""
        return Identity(self.owner, EntityId.of(self.kind, self.id))


def entries_of(owners: Sequence[str], kinds: Sequence[str]) -> list[Entry]:
    """Two entities for each owner: their ids are other owners' names, their texts their own."""
    found = []
    for number, owner in enumerate(owners):
        for step in (1, 2):
            id_ = owners[(number + step) % len(owners)]
            kind = kinds[(number + step) % len(kinds)]
            found.append(Entry(owner, kind, id_, f"text{number}of{step} {{{{ 7*7 }}}} ' OR 1=1"))
    return found


class HostileWorld(Closing):
    """A source and a store in which every owner, id, kind, table and column is hostile.

    Args:
        layout: ``documents`` or ``tables``.
        tag: appended to every value and name, so that they can be told from what a statement says.
    """

    def __init__(self, source_url: str, store_url: str, *, layout: str, tag: str = "") -> None:
        self.layout = layout
        self.names = Names(*(f"{name}{tag}" for name in Names()))
        self.kinds = tuple(f"{kind}{tag}" for kind in HOSTILE_KINDS)
        self.source_url, self.store_url = source_url, store_url
        self.mapping = self._mapping()
        self.store = StoreTables(Database(store_url), self.kinds)
        address = sa.make_url(source_url)
        if address.get_backend_name() == "postgresql":
            address = address.set(drivername="postgresql+psycopg")
        self._engine = sa.create_engine(address)
        self.embedder = CountingEmbedder()
        self._renderer = Renderer(self.mapping)
        self._opened: list[Undrift] = []
        self._tables = {table.name: table for table in self._table_objects()}
        for table in self._tables.values():
            self._execute(sa.schema.CreateTable(table))
        self.sides = self.open()

    def close(self) -> None:
        """Close every connection."""
        for sides in self._opened:
            sides.close()
        self._engine.dispose()
        self.store.database.close()

    def open(self, store: Callable[[VectorStore], VectorStore] = lambda store: store) -> Undrift:
        """An `Undrift` over these databases, closed with the world.

        Args:
            store: wraps the store.
        """
        source: Source = open_source(self.source_url, self.mapping, self._renderer.fields)
        opened = Undrift(
            source=source,
            store=store(open_store(self.store_url, namespace="default")),
            embedder=self.embedder,
            mapping=self.mapping,
        )
        self._opened.append(opened)
        return opened

    # --- the source ---------------------------------------------------------------------------

    def put(self, entries: Sequence[Entry]) -> None:
        """Make *entries* all there is in the source."""
        for table in self._tables.values():
            self._execute(sa.delete(table))
        for name, rows in self._rows(entries).items():
            if rows:
                self._execute(sa.insert(self._tables[name]), rows)

    def source_rows(self) -> list[Row]:
        """Everything the source holds."""
        found: list[Row] = []
        with self._engine.connect() as connection:
            for table in self._tables.values():
                found.extend(dict(row) for row in connection.execute(sa.select(table)).mappings())
        return sorted(found, key=repr)

    def _mapping(self) -> SourceMapping:
        names = self.names
        if self.layout == "tables":
            return SourceMapping(
                documents=None,
                entities=tuple(
                    EntitySpec(
                        kind=kind,
                        table=f"{names.table}{number}",
                        owner=names.owner,
                        id=names.id,
                        text="{{ text }}",
                        metadata=("text",),
                    )
                    for number, kind in enumerate(self.kinds)
                ),
            )
        return SourceMapping(
            documents=DocumentTable(table=names.table, owner=names.owner, document=names.content),
            entities=tuple(
                EntitySpec(
                    kind=kind,
                    path=f"k{number}[*]",
                    id="id",
                    text="{{ text }}",
                    metadata=("text",),
                )
                for number, kind in enumerate(self.kinds)
            ),
        )

    def _table_objects(self) -> Iterator[sa.Table]:
        names, metadata = self.names, sa.MetaData()
        owner = sa.Column(names.owner, sa.Text)
        if self.layout == "documents":
            yield sa.Table(names.table, metadata, owner, sa.Column(names.content, sa.Text))
            return
        for number in range(len(self.kinds)):
            yield sa.Table(
                f"{names.table}{number}",
                metadata,
                sa.Column(names.owner, sa.Text),
                sa.Column(names.id, sa.Text),
                sa.Column("text", sa.Text),
            )

    def _rows(self, entries: Sequence[Entry]) -> Mapping[str, list[dict[str, object]]]:
        names = self.names
        rows: dict[str, list[dict[str, object]]] = {}
        if self.layout == "tables":
            for entry in entries:
                table = f"{names.table}{self.kinds.index(entry.kind)}"
                row = {names.owner: entry.owner, names.id: entry.id, "text": entry.text}
                rows.setdefault(table, []).append({**row})
            return rows
        documents: dict[str, dict[str, list[dict[str, str]]]] = {}
        for entry in entries:
            lists = documents.setdefault(entry.owner, {})
            elements = lists.setdefault(f"k{self.kinds.index(entry.kind)}", [])
            elements.append({"id": entry.id, "text": entry.text})
        rows[names.table] = [
            {names.owner: owner, names.content: json.dumps(document)}
            for owner, document in documents.items()
        ]
        return rows

    def _execute(self, statement: sa.Executable, rows: Sequence[Row] | None = None) -> None:
        with self._engine.begin() as connection:
            connection.execute(statement, [dict(row) for row in rows] if rows else None)

    # --- the store ----------------------------------------------------------------------------

    def others(self, owner: str) -> dict[str, Row]:
        """Every record, vector included, that does not belong to *owner*."""
        records = self.store.records()
        return {key: row for key, row in records.items() if row["owner_id"] != owner}

    def found(self) -> dict[Identity, str]:
        """The text of every record."""
        return {
            Identity(row["owner_id"], EntityId.of(row["kind"], row["entity_id"])): row["text"]
            for row in self.store.records().values()
        }


def sqlite_hostile(folder: Path, *, layout: str, tag: str = "") -> HostileWorld:
    """A hostile world of two SQLite files."""
    folder = folder / uuid4().hex
    folder.mkdir()
    urls = f"sqlite:///{folder / 'app.db'}", f"sqlite:///{folder / 'vectors.db'}"
    return HostileWorld(*urls, layout=layout, tag=tag)
