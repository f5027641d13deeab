"""The layout with one row per entity, each kind in a table of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from undrift.errors import ConfigError
from undrift.fingerprint import content_digest
from undrift.mapping import KIND_DEFAULTS, EntitySpec
from undrift.mapping import Mapping as SourceMapping
from undrift.ports import Element, SourceInfo
from undrift.sources.database import Database
from undrift.sources.owners import OwnerColumn


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

    def select(self, owners: Sequence[str]) -> sa.Select[Any]:
        """The rows of *owners*, owner first."""
        columns = [self.table.c[name] for name in self.columns]
        return (
            sa.select(self.owner.column.label("_owner"), *columns)
            .where(self.owner.named(owners), *self.where())
            .order_by(self.owner.column)
        )

    def where(self) -> list[sa.ColumnElement[bool]]:
        """The spec's own condition."""
        return [sa.text(f"({self.spec.where})")] if self.spec.where else []  # type: ignore[list-item]


class TableSource:
    """A `Source` over tables with one row per entity.

    Args:
        fields: for each entity spec the fields its templates read.
    """

    def __init__(
        self, database: Database, mapping: SourceMapping, fields: Sequence[frozenset[str]]
    ) -> None:
        self._database = database
        self._mapping = mapping
        self._fields = fields
        self._described: list[_EntityTable] | None = None

    def describe(self) -> SourceInfo:
        """Connect and check that every table and column is there."""
        tables = self._tables()
        return SourceInfo(
            location=self._database.location,
            layout=", ".join(f"{t.spec.table}({t.spec.owner}, …)" for t in tables),
            is_standby=self._database.is_standby(),
        )

    def owner_pages(self, page_owners: int, after: str | None = None) -> Iterator[Sequence[str]]:
        """Yield every owner that has a row in any of the tables, in pages."""
        tables = self._tables()
        behind: Any = None if after is None else next(iter(tables[0].owner.values(after)), after)
        while True:
            pages = []
            for entity in tables:
                owner = entity.owner.column
                page = (
                    sa.select(owner.label("owner"))
                    .select_from(entity.table)
                    .where(owner.is_not(None), *entity.where())
                )
                page = page if behind is None else page.where(owner > behind)
                pages.append(page.distinct().order_by(owner).limit(page_owners).subquery())
            united = sa.union(*(sa.select(page.c.owner) for page in pages)).subquery()
            statement = sa.select(united.c.owner).order_by(united.c.owner).limit(page_owners)
            with self._database.snapshot() as connection:
                found = list(connection.scalars(statement))
            if not found:
                return
            yield [str(value) for value in found]
            behind = found[-1]

    def present(self, owners: Sequence[str]) -> frozenset[str]:
        """Which of *owners* have a row in any of the tables."""
        found: set[str] = set()
        with self._database.snapshot() as connection:
            for entity in self._tables():
                column = entity.owner.column
                statement = (
                    sa.select(column.label("owner"))
                    .select_from(entity.table)
                    .where(entity.owner.named(owners), *entity.where())
                    .distinct()
                )
                found.update(str(value) for value in connection.scalars(statement))
        return frozenset(found)

    def read(self, owners: Sequence[str]) -> Iterator[RowContent]:
        """Yield the rows of *owners*, all tables in one snapshot."""
        tables = self._tables()
        rows: dict[str, list[list[Mapping[str, object]]]] = {}
        with self._database.snapshot() as connection:
            for index, entity in enumerate(tables):
                for row in self._database.stream(connection, entity.select(owners)):
                    owner = str(row[0])
                    if owner not in rows:
                        rows[owner] = [[] for _ in tables]
                    rows[owner][index].append(dict(zip(entity.columns, row[1:], strict=True)))
        for owner, owner_rows in rows.items():
            yield RowContent(owner, owner_rows)

    def close(self) -> None:
        """Close the database's connections."""
        self._database.close()

    def _tables(self) -> list[_EntityTable]:
        if self._described is None:
            specs = zip(self._mapping.entities, self._fields, strict=True)
            self._described = [self._entity_table(spec, fields) for spec, fields in specs]
        return self._described

    def _entity_table(self, spec: EntitySpec, fields: frozenset[str]) -> _EntityTable:
        setting = f"the [[entity]] of kind = {spec.kind!r}"
        table = self._database.table(spec.table or "", spec.owner, [], setting=setting)
        columns: list[str] = []
        for name in sorted(fields):
            present = [n for n in (name, *spec.aliases.get(name, ())) if n in table.c]
            if not present and _must_exist(spec, name):
                raise ConfigError(
                    f"No column {name!r} in table {spec.table!r}",
                    why=f"{setting} reads it; the columns are {', '.join(sorted(table.c.keys()))}.",
                    fix=f"correct text, metadata, id or key of {setting} in undrift.toml",
                )
            columns.extend(present)
        return _EntityTable(
            spec,
            table,
            self._database.owner_column(table.c[spec.owner]),
            tuple(dict.fromkeys(columns)),
        )


def _must_exist(spec: EntitySpec, name: str) -> bool:
    """Whether a person asked for the field; a kind's default text copes without."""
    default = KIND_DEFAULTS.get(spec.kind)
    if default is None:
        return True
    optional = {"id"} if spec.key else set()
    if spec.text == default.text and spec.metadata == default.metadata:
        return name not in optional and name == spec.id
    return name not in optional
