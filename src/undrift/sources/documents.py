"""The layout with one JSON document per owner, such as ``profiles(user_id, filtered_data)``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, NoReturn

import sqlalchemy as sa

from undrift.changes import ChangeFeed, Triggers
from undrift.errors import InvalidDocument
from undrift.fingerprint import content_digest
from undrift.headcount import Headcount
from undrift.mapping import DocumentTable
from undrift.mapping import Mapping as SourceMapping
from undrift.ports import DocumentEditor, Element, SourceInfo
from undrift.sources.changes import open_feed, open_triggers
from undrift.sources.changes.tracked import TrackedTable, tracked_owner
from undrift.sources.counting import OwnerQueries, headcount
from undrift.sources.database import Database, condition
from undrift.sources.digesting import (
    hashed_elsewhere,
    hashed_text,
    rows_digest,
    text_digest,
    value_digest,
)
from undrift.sources.editing import TableDocumentEditor
from undrift.sources.owners import OwnerColumn
from undrift.sources.paths import PathTree


class DocumentContent:
    """One owner's documents, parsed when their elements are asked for.

    Args:
        documents: raw values of the document column, one for each of the owner's rows.
    """

    def __init__(self, owner_id: str, documents: Sequence[object], paths: PathTree) -> None:
        self.owner_id = owner_id
        self._documents = documents
        self._paths = paths

    @property
    def digest(self) -> bytes:
        """A hash of the raw documents."""
        try:
            return content_digest(map(repr, self._documents))
        except RecursionError as exc:
            raise InvalidDocument(
                self.owner_id, why="a value in it is nested too deeply.", fix="flatten it"
            ) from exc

    def elements(self) -> Sequence[Sequence[Element]]:
        """The elements at the configured paths, of all the owner's rows."""
        found: list[list[Element]] = [[] for _ in range(self._paths.spec_count)]
        for raw in self._documents:
            self._paths.collect(self.owner_id, self._parsed(raw), found)
        return found

    def _parsed(self, raw: object) -> Mapping[str, object]:
        document = _decoded(self.owner_id, raw) if isinstance(raw, str | bytes) else raw
        if not isinstance(document, dict):
            found = "NULL" if document is None else f"a JSON {_json_type(document)}"
            raise InvalidDocument(
                self.owner_id,
                why=f"it is {found}, not an object; undrift does not take that for an empty "
                "profile.",
                fix="store an object ({} for an empty profile), or leave the row out by a where "
                "condition",
            )
        return document


class GivenProfile(DocumentContent):
    """A document that the caller hands over instead of the source's."""

    def __init__(self, owner_id: str, profile: Mapping[str, object], paths: PathTree) -> None:
        super().__init__(owner_id, [dict(profile)], paths)


class DocumentSource:
    """A `Source` over a table with one JSON document per owner (JSON, JSONB or text)."""

    def __init__(self, database: Database, mapping: SourceMapping) -> None:
        assert mapping.documents is not None
        self._database = database
        self._layout: DocumentTable = mapping.documents
        self._paths = PathTree(mapping.entities)
        self._described: tuple[sa.Table, OwnerColumn] | None = None

    def describe(self) -> SourceInfo:
        """Connect and check that the table and its columns are there."""
        self._table()
        layout, origin = self._layout, self._database.origin()
        return SourceInfo(
            location=self._database.location,
            layout=f"{layout.table}({layout.owner}, {layout.document})",
            is_standby=origin.is_standby,
            identity=origin.identity,
        )

    def owner_pages(self, page_owners: int, after: str | None = None) -> Iterator[Sequence[str]]:
        """Yield every owner in pages; rows without an owner belong to nobody and are passed."""
        _, owner = self._table()
        return self._database.pages(
            owner, lambda behind: self._owners_behind(behind, page_owners), after
        )

    def headcount(self) -> Headcount | None:
        """How many owners there are, as far as that can be told quickly."""
        table, _ = self._table()
        queries = OwnerQueries(
            distinct=[self._owners()],
            columns=[table.c[self._layout.owner]],
            behind=self._owners_behind,
        )
        return headcount(self._database, queries)

    def present(self, owners: Sequence[str]) -> frozenset[str]:
        """Which of *owners* have a row."""
        _, owner = self._table()
        statement = (
            sa.select(owner.listed.label("owner"))
            .where(owner.named(owners), *self._where())
            .distinct()
        )
        with self._database.snapshot() as connection:
            found = frozenset(str(value) for value in connection.scalars(statement).all())
        return found.intersection(owners)

    def read(self, owners: Sequence[str]) -> Iterator[DocumentContent]:
        """Yield the documents of *owners* from one snapshot."""
        for owner_id, rows in self._rows(owners, self._raw().label("document")):
            yield DocumentContent(owner_id, [row.document for row in rows], self._paths)

    def digests(self, owners: Sequence[str]) -> Mapping[str, bytes]:
        """A digest of the documents of *owners*, from one snapshot; PostgreSQL computes them."""
        _, owner = self._table()
        raw, is_postgres = self._raw(), self._database.is_postgres
        statement = sa.select(owner.listed, hashed_text(raw) if is_postgres else raw)
        statement = statement.where(owner.named(owners), *self._where())
        found: dict[str, list[bytes | None]] = {}
        with self._database.snapshot() as connection:
            for value, digest in connection.execute(statement).all():
                of_row = digest if is_postgres else value_digest(digest)
                found.setdefault(str(value), []).append(of_row)
        return {owner_id: rows_digest(found[owner_id]) for owner_id in owners if owner_id in found}

    def read_digested(self, owners: Sequence[str]) -> Iterator[tuple[DocumentContent, bytes]]:
        """Yield the documents of *owners*, each owner's with their digest, from one snapshot."""
        raw, is_postgres = self._raw(), self._database.is_postgres
        columns = [raw.label("document")]
        if is_postgres:
            columns.append(hashed_elsewhere(raw).label("digest"))
        for owner_id, rows in self._rows(owners, *columns):
            documents = [row.document for row in rows]
            if is_postgres:
                digests = [row.digest or text_digest(row.document) for row in rows]
            else:
                digests = [value_digest(document) for document in documents]
            yield DocumentContent(owner_id, documents, self._paths), rows_digest(digests)

    def editor(self) -> DocumentEditor:
        """An editor of these documents; it connects when it first edits."""
        return TableDocumentEditor(self._database, self._layout)

    def triggers(self) -> Triggers:
        """The triggers on this table; they connect when they are first asked."""
        return open_triggers(self._database, self._tracked)

    def change_feed(self) -> ChangeFeed:
        """The marks that the triggers left; connects when it is first asked."""
        return open_feed(self._database, self._tracked)

    def close(self) -> None:
        """Close the database's connections."""
        self._database.close()

    def _tracked(self) -> Sequence[TrackedTable]:
        table, owner = self._table()
        layout = self._layout
        owners = (tracked_owner(table.c[layout.owner], owner),)
        conditions = (layout.where,) if layout.where else ()
        return [TrackedTable(layout.table, owners, (layout.document,), conditions)]

    def _owners(self) -> sa.Select[Any]:
        """Every owner once."""
        table, owner = self._table()
        statement = sa.select(owner.listed.label("owner")).select_from(table)
        return statement.where(owner.listed.is_not(None), *self._where()).distinct()

    def _owners_behind(self, behind: object, limit: int) -> sa.Select[Any]:
        """The first *limit* owners behind *behind*."""
        _, owner = self._table()
        statement = self._owners()
        if behind is not None:
            statement = statement.where(owner.listed > owner.bound(behind))
        return statement.order_by(owner.listed).limit(limit)

    def _rows(
        self, owners: Sequence[str], *columns: sa.ColumnElement[Any]
    ) -> Iterator[tuple[str, list[sa.Row[Any]]]]:
        """Yield *owners*, each with its rows, from one snapshot."""
        _, owner = self._table()
        statement = (
            sa.select(owner.listed.label("owner"), *columns)
            .where(owner.named(owners), *self._where())
            .order_by(*owner.order)
        )
        asked = frozenset(owners)
        with self._database.snapshot() as connection:
            rows = self._database.stream(connection, statement)
            for owner_id, group in groupby(rows, key=_owner_of):
                if owner_id in asked:  # a column's type or collation may find more
                    yield owner_id, list(group)

    def _raw(self) -> sa.ColumnElement[Any]:
        """The document as a text, as whatever SQLite holds there."""
        table, _ = self._table()
        document = table.c[self._layout.document]
        return sa.cast(document, sa.Text) if self._database.is_postgres else _verbatim(document)

    def _table(self) -> tuple[sa.Table, OwnerColumn]:
        if self._described is None:
            self._described = self._database.document_table(self._layout)
        return self._described

    def _where(self) -> list[sa.ColumnElement[bool]]:
        return condition(self._layout.where)


def _owner_of(row: sa.Row[Any]) -> str:
    return str(row.owner)


def _verbatim(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    return sa.type_coerce(column, sa.types.NullType())


def _decoded(owner_id: str, raw: str | bytes) -> object:
    try:
        return _DECODER.decode(raw if isinstance(raw, str) else raw.decode())
    except (ValueError, RecursionError) as exc:
        position = f" at character {exc.pos}" if isinstance(exc, json.JSONDecodeError) else ""
        reason = exc.msg if isinstance(exc, json.JSONDecodeError) else "it cannot be decoded"
        raise InvalidDocument(
            owner_id,
            why=f"it is not valid JSON ({reason}{position}).",
            fix="correct the document in the source",
        ) from exc


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _json_type(value: object) -> str:
    names = {list: "list", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), type(value).__name__)
