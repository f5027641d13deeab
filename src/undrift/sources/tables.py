"""The layout with one row per entity, each kind in a table of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INTERVAL

from undrift.changes import ChangeFeed, Triggers
from undrift.errors import InvalidDocument
from undrift.fingerprint import content_digest
from undrift.headcount import Headcount
from undrift.mapping import EntitySpec, FieldsRead
from undrift.mapping import Mapping as SourceMapping
from undrift.ports import Element, SourceInfo
from undrift.sources.changes import open_feed, open_triggers
from undrift.sources.changes.tracked import TrackedTable, merged, tracked_owner
from undrift.sources.counting import OwnerQueries, headcount
from undrift.sources.database import Database, condition, no_such_column
from undrift.sources.digesting import (
    hashed_rows,
    tables_digest,
    types_of,
    values_digest,
    which_table,
)
from undrift.sources.owners import OwnerColumn, Verbatim

_Values = list[list[tuple[object, ...]]]
"""An owner's rows by table, as the database gives them."""


class RowContent:
    """One owner's rows, by entity spec."""

    def __init__(self, owner_id: str, rows: Sequence[Sequence[Mapping[str, object]]]) -> None:
        self.owner_id = owner_id
        self._rows = rows

    @property
    def digest(self) -> bytes:
        """A hash of all rows, whatever order the database gave them in."""
        parts: list[str] = []
        try:
            for spec_rows in self._rows:
                printed = sorted(repr(tuple(row.items())) for row in spec_rows)
                parts.extend([str(len(printed)), *printed])
        except RecursionError as exc:
            raise InvalidDocument(
                self.owner_id, why="a value in it is nested too deeply.", fix="flatten it"
            ) from exc
        return content_digest(parts)

    def elements(self) -> Sequence[Sequence[Element]]:
        """One element for each row."""
        return [[Element(row) for row in spec_rows] for spec_rows in self._rows]


class _EntityTable(NamedTuple):
    """A spec's table, its owner column and the columns it reads.

    Attributes:
        which: what tells its rows' digest from that of every other table.
    """

    spec: EntitySpec
    table: sa.Table
    owner: OwnerColumn
    columns: tuple[str, ...]
    selected: tuple[sa.ColumnElement[Any], ...]
    json_columns: frozenset[str]
    which: bytes

    def select(self, owners: Sequence[str]) -> sa.Select[Any]:
        """The rows of *owners*, owner first."""
        return (
            sa.select(self.owner.listed.label("_owner"), *self.selected)
            .where(self.owner.named(owners), *condition(self.spec.where))
            .order_by(*self.owner.order)
        )

    def select_hashed(self, owners: Sequence[str]) -> sa.Select[Any]:
        """The owners among *owners*, each with the digest of its rows, by PostgreSQL."""
        types = types_of(self.table, self.columns)
        return (
            sa.select(self.owner.listed.label("_owner"), hashed_rows(self.selected, types))
            .where(self.owner.named(owners), *condition(self.spec.where))
            .group_by(*self.owner.order)
        )

    def tracked(self) -> TrackedTable:
        """What triggers have to watch of it."""
        owners = (tracked_owner(self.table.c[self.spec.owner], self.owner),)
        conditions = (self.spec.where,) if self.spec.where else ()
        return TrackedTable(self.spec.table or "", owners, self.columns, conditions)

    def owners(self) -> sa.Select[Any]:
        """Every owner once."""
        owner = self.owner.listed
        statement = sa.select(owner.label("owner")).select_from(self.table)
        return statement.where(owner.is_not(None), *condition(self.spec.where)).distinct()

    def owners_behind(self, behind: object, limit: int) -> sa.Select[Any]:
        """The first *limit* owners behind *behind*."""
        statement = self.owners()
        if behind is not None:
            statement = statement.where(self.owner.listed > self.owner.bound(behind))
        return statement.order_by(self.owner.listed).limit(limit)

    def fields(self, values: Sequence[object]) -> dict[str, object]:
        """A row's fields."""
        fields = dict(zip(self.columns, values, strict=True))
        for name in self.json_columns:
            fields[name] = _decoded(fields[name])
        return fields


class TableSource:
    """A `Source` over tables with one row per entity.

    Args:
        fields: for each entity spec the fields its templates read.
    """

    def __init__(
        self, database: Database, mapping: SourceMapping, fields: Sequence[FieldsRead]
    ) -> None:
        self._database = database
        self._mapping = mapping
        self._fields = fields
        self._described: list[_EntityTable] | None = None

    def describe(self) -> SourceInfo:
        """Connect and check that every table and column is there."""
        tables, origin = self._tables(), self._database.origin()
        return SourceInfo(
            location=self._database.location,
            layout=", ".join(f"{t.spec.table}({t.spec.owner}, …)" for t in tables),
            is_standby=origin.is_standby,
            identity=origin.identity,
        )

    def owner_pages(self, page_owners: int, after: str | None = None) -> Iterator[Sequence[str]]:
        """Yield every owner that has a row in any of the tables, in pages."""
        owners = [table.owner for table in self._tables()]
        widest = next((o for o in owners if o.may_print_alike), owners[0])
        return self._database.pages(
            widest, lambda behind: self._owners_behind(behind, page_owners), after
        )

    def headcount(self) -> Headcount | None:
        """How many owners there are, as far as that can be told quickly."""
        tables = self._tables()
        queries = OwnerQueries(
            distinct=[table.owners() for table in tables],
            columns=[table.table.c[table.spec.owner] for table in tables],
            behind=self._owners_behind,
        )
        return headcount(self._database, queries)

    def present(self, owners: Sequence[str]) -> frozenset[str]:
        """Which of *owners* have a row in any of the tables."""
        found: set[str] = set()
        with self._database.snapshot() as connection:
            for entity in self._tables():
                statement = (
                    sa.select(entity.owner.listed.label("owner"))
                    .select_from(entity.table)
                    .where(entity.owner.named(owners), *condition(entity.spec.where))
                    .distinct()
                )
                found.update(str(value) for value in connection.scalars(statement).all())
        return frozenset(found.intersection(owners))

    def read(self, owners: Sequence[str]) -> Iterator[RowContent]:
        """Yield the rows of *owners*, all tables in one snapshot."""
        with self._database.snapshot() as connection:
            values = self._values(connection, owners)
        for owner, by_table in values.items():
            yield self._content(owner, by_table)

    def digests(self, owners: Sequence[str]) -> Mapping[str, bytes]:
        """A digest of the rows of *owners*, all tables in one snapshot; PostgreSQL computes it."""
        with self._database.snapshot() as connection:
            if self._database.is_postgres:
                return self._hashed_by_server(connection, owners)
            values = self._values(connection, owners)
        return {owner: self._hashed(by_table) for owner, by_table in values.items()}

    def read_digested(self, owners: Sequence[str]) -> Iterator[tuple[RowContent, bytes]]:
        """Yield the rows of *owners*, each owner's with their digest, all from one snapshot."""
        is_postgres, digests = self._database.is_postgres, dict[str, bytes]()
        with self._database.snapshot() as connection:
            if is_postgres:
                digests = self._hashed_by_server(connection, owners)
            values = self._values(connection, owners)
        for owner, by_table in values.items():
            digest = digests[owner] if is_postgres else self._hashed(by_table)
            yield self._content(owner, by_table), digest

    def triggers(self) -> Triggers:
        """The triggers on these tables; they connect when they are first asked."""
        return open_triggers(self._database, self._tracked)

    def change_feed(self) -> ChangeFeed:
        """The marks that the triggers left; connects when it is first asked."""
        return open_feed(self._database, self._tracked)

    def close(self) -> None:
        """Close the database's connections."""
        self._database.close()

    def _owners_behind(self, behind: object, limit: int) -> sa.Select[Any]:
        """The first *limit* owners behind *behind*, of all tables."""
        pages = [table.owners_behind(behind, limit).subquery() for table in self._tables()]
        united = sa.union(*(sa.select(page.c.owner) for page in pages)).subquery()
        owner = united.c.owner
        if self._database.is_postgres:
            return sa.select(owner).order_by(owner).limit(limit)
        return sa.select(owner).order_by(sa.collate(owner, "BINARY")).limit(limit)

    def _values(self, connection: sa.Connection, owners: Sequence[str]) -> dict[str, _Values]:
        tables = self._tables()
        asked = frozenset(owners)
        values: dict[str, _Values] = {}
        for index, entity in enumerate(tables):
            for row in self._database.stream(connection, entity.select(owners)):
                owner = str(row[0])
                if owner not in asked:
                    continue  # a column's type or collation may find more
                if owner not in values:
                    values[owner] = [[] for _ in tables]
                values[owner][index].append(tuple(row[1:]))
        return values

    def _content(self, owner: str, values: _Values) -> RowContent:
        by_table = zip(self._tables(), values, strict=True)
        return RowContent(owner, [[table.fields(row) for row in rows] for table, rows in by_table])

    def _hashed(self, values: _Values) -> bytes:
        by_table = zip(self._tables(), values, strict=True)
        return tables_digest((table.which, values_digest(rows)) for table, rows in by_table if rows)

    def _hashed_by_server(
        self, connection: sa.Connection, owners: Sequence[str]
    ) -> dict[str, bytes]:
        asked = frozenset(owners)
        parts: dict[str, list[tuple[bytes, bytes]]] = {}
        for table in self._tables():
            for value, digest in connection.execute(table.select_hashed(owners)).all():
                owner = str(value)
                if owner in asked:
                    parts.setdefault(owner, []).append((table.which, digest))
        return {owner: tables_digest(found) for owner, found in parts.items()}

    def _tracked(self) -> Sequence[TrackedTable]:
        return merged(table.tracked() for table in self._tables())

    def _tables(self) -> list[_EntityTable]:
        if self._described is None:
            specs = zip(self._mapping.entities, self._fields, strict=True)
            self._described = [
                self._entity_table(index, spec, fields)
                for index, (spec, fields) in enumerate(specs)
            ]
        return self._described

    def _entity_table(self, index: int, spec: EntitySpec, fields: FieldsRead) -> _EntityTable:
        setting = f"the [[entity]] of kind = {spec.kind!r}"
        table = self._database.table(spec.table or "", spec.owner, [], setting=setting)
        known = list(table.c.keys())
        columns: dict[str, None] = {}
        for name in sorted(fields.all):
            present = [n for n in (name, *spec.aliases.get(name, ())) if n in table.c]
            if not present and name in fields.required:
                raise no_such_column(spec.table or "", name, known, setting)
            columns.update(dict.fromkeys(present))
        is_postgres = self._database.is_postgres
        json_columns = [
            n for n in columns if not is_postgres and isinstance(table.c[n].type, sa.JSON)
        ]
        return _EntityTable(
            spec,
            table,
            self._database.owner_column(table.c[spec.owner]),
            tuple(columns),
            tuple(self._selected(table.c[name]) for name in columns),
            frozenset(json_columns),
            which_table(index, tuple(columns), json_columns),
        )

    def _selected(self, column: sa.Column[Any]) -> sa.ColumnElement[Any]:
        if not self._database.is_postgres:
            # SQLite's declared types promise nothing, and converting by them may fail.
            return sa.type_coerce(column, Verbatim()).label(column.name)
        if isinstance(column.type, _TIMES):
            # As text: 'infinity' and years beyond 9999 have no place in Python's types.
            return sa.cast(column, sa.Text).label(column.name)
        return column


_TIMES = (sa.Date, sa.DateTime, sa.Time, sa.Interval, INTERVAL)


def _decoded(value: object) -> object:
    """The JSON value that a SQLite column holds; what is none stays as it is."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value
