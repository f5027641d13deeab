"""The layout with one row per entity, each kind in a table of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import INTERVAL

from undrift.changes import ChangeFeed, Triggers
from undrift.fingerprint import content_digest
from undrift.mapping import EntitySpec, FieldsRead
from undrift.mapping import Mapping as SourceMapping
from undrift.ports import Element, SourceInfo
from undrift.sources.changes import open_feed, open_triggers
from undrift.sources.changes.tracked import TrackedTable, merged, tracked_owner
from undrift.sources.database import Database, condition, no_such_column
from undrift.sources.owners import OwnerColumn, Verbatim


class RowContent:
    """One owner's rows, by entity spec."""

    def __init__(self, owner_id: str, rows: Sequence[Sequence[Mapping[str, object]]]) -> None:
        self.owner_id = owner_id
        self._rows = rows

    @property
    def digest(self) -> bytes:
        """A hash of all rows, whatever order the database gave them in."""
        parts: list[str] = []
        for spec_rows in self._rows:
            printed = sorted(repr(tuple(row.items())) for row in spec_rows)
            parts.extend([str(len(printed)), *printed])
        return content_digest(parts)

    def elements(self) -> Sequence[Sequence[Element]]:
        """One element for each row."""
        return [[Element(row) for row in spec_rows] for spec_rows in self._rows]


class _EntityTable(NamedTuple):
    """A spec's table, its owner column and the columns it reads."""

    spec: EntitySpec
    table: sa.Table
    owner: OwnerColumn
    columns: tuple[str, ...]
    selected: tuple[sa.ColumnElement[Any], ...]
    json_columns: frozenset[str]

    def select(self, owners: Sequence[str]) -> sa.Select[Any]:
        """The rows of *owners*, owner first."""
        return (
            sa.select(self.owner.listed.label("_owner"), *self.selected)
            .where(self.owner.named(owners), *condition(self.spec.where))
            .order_by(*self.owner.order)
        )

    def tracked(self) -> TrackedTable:
        """What triggers have to watch of it."""
        owners = (tracked_owner(self.table.c[self.spec.owner], self.owner),)
        conditions = (self.spec.where,) if self.spec.where else ()
        return TrackedTable(self.spec.table or "", owners, self.columns, conditions)

    def owners_behind(self, behind: object, limit: int) -> sa.Select[Any]:
        """The first *limit* owners behind *behind*."""
        owner = self.owner.listed
        statement = sa.select(owner.label("owner")).select_from(self.table)
        statement = statement.where(owner.is_not(None), *condition(self.spec.where))
        if behind is not None:
            statement = statement.where(owner > self.owner.bound(behind))
        return statement.distinct().order_by(owner).limit(limit)

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
        tables = self._tables()

        def page_behind(behind: object) -> sa.Select[Any]:
            pages = [table.owners_behind(behind, page_owners).subquery() for table in tables]
            united = sa.union(*(sa.select(page.c.owner) for page in pages)).subquery()
            owner = united.c.owner
            if self._database.is_postgres:
                return sa.select(owner).order_by(owner).limit(page_owners)
            binary = sa.collate(owner, "BINARY")
            return sa.select(owner).order_by(binary).limit(page_owners)

        owners = [table.owner for table in tables]
        widest = next((o for o in owners if o.may_print_alike), owners[0])
        return self._database.pages(widest, page_behind, after)

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
                found.update(str(value) for value in connection.scalars(statement))
        return frozenset(found.intersection(owners))

    def read(self, owners: Sequence[str]) -> Iterator[RowContent]:
        """Yield the rows of *owners*, all tables in one snapshot."""
        tables = self._tables()
        asked = frozenset(owners)
        rows: dict[str, list[list[Mapping[str, object]]]] = {}
        with self._database.snapshot() as connection:
            for index, entity in enumerate(tables):
                for row in self._database.stream(connection, entity.select(owners)):
                    owner = str(row[0])
                    if owner not in asked:
                        continue  # a column's type or collation may find more
                    if owner not in rows:
                        rows[owner] = [[] for _ in tables]
                    rows[owner][index].append(entity.fields(row[1:]))
        for owner, owner_rows in rows.items():
            yield RowContent(owner, owner_rows)

    def triggers(self) -> Triggers:
        """The triggers on these tables; they connect when they are first asked."""
        return open_triggers(self._database, self._tracked)

    def change_feed(self) -> ChangeFeed:
        """The marks that the triggers left; connects when it is first asked."""
        return open_feed(self._database, self._tracked)

    def close(self) -> None:
        """Close the database's connections."""
        self._database.close()

    def _tracked(self) -> Sequence[TrackedTable]:
        return merged(table.tracked() for table in self._tables())

    def _tables(self) -> list[_EntityTable]:
        if self._described is None:
            specs = zip(self._mapping.entities, self._fields, strict=True)
            self._described = [self._entity_table(spec, fields) for spec, fields in specs]
        return self._described

    def _entity_table(self, spec: EntitySpec, fields: FieldsRead) -> _EntityTable:
        setting = f"the [[entity]] of kind = {spec.kind!r}"
        table = self._database.table(spec.table or "", spec.owner, [], setting=setting)
        known = list(table.c.keys())
        columns: dict[str, None] = {}
        for name in sorted(fields.all):
            present = [n for n in (name, *spec.aliases.get(name, ())) if n in table.c]
            if not present and name in fields.required:
                raise no_such_column(spec.table or "", name, known, setting)
            columns.update(dict.fromkeys(present))
        json_columns = [n for n in columns if isinstance(table.c[n].type, sa.JSON)]
        return _EntityTable(
            spec,
            table,
            self._database.owner_column(table.c[spec.owner]),
            tuple(columns),
            tuple(self._selected(table.c[name]) for name in columns),
            frozenset() if self._database.is_postgres else frozenset(json_columns),
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
