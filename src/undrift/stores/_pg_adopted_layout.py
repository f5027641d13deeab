"""A table that another program filled: where its columns hold what a stamp says.

The table is looked at once: which column is the record's id, which the vector, in which JSON the
stamp has its place, and of which types all of these are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from psycopg import Connection, sql
from psycopg.rows import TupleRow

from undrift.adoption import Field, StoreFields
from undrift.errors import ConfigError, UndriftError
from undrift.stores._pg_address import Address

_JSON = ("json", "jsonb")
_TEXTS = ("text", "varchar", "bpchar")
_INTEGERS = ("int2", "int4", "int8")
_ID_TYPES = (*_TEXTS, "uuid")
_KEY_TYPES = (*_ID_TYPES, *_INTEGERS)

_SAMPLE_ROWS = 50

_FIND_TABLE = """
SELECT c.oid, c.relkind IN ('r', 'p'), row_security_active(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s"""
_FIND_COLUMNS = """
SELECT a.attname, t.typname, a.atttypmod
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum"""
_FIND_KEYS = """
SELECT i.indisprimary, a.attname
FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
WHERE i.indrelid = %s AND i.indisunique AND i.indnkeyatts = 1 AND i.indpred IS NULL"""


class Column(NamedTuple):
    """One column, with the length that its type was given."""

    name: str
    type: str
    size: int


@dataclass(frozen=True, slots=True)
class Place:
    """A column, or a value within a column of JSON.

    Attributes:
        keys: the way to the value within the JSON; empty for the column itself.
        json_type: what the JSON holds there, such as a number, so that one is written too.
    """

    column: Column
    keys: tuple[str, ...] = ()
    json_type: str = ""

    def read(self, table: sql.Composable | None = None) -> sql.Composed:
        """Its value as text, of *table* or of the only one that is asked."""
        name: sql.Composable = sql.Identifier(self.column.name.replace("%", "%%"))
        if table is not None:
            name = sql.SQL("{}.{}").format(table, name)
        if not self.keys:
            return sql.SQL("{}::text").format(name)
        return sql.SQL("({}::jsonb #>> {})").format(name, keys_literal(self.keys))


def keys_literal(keys: tuple[str, ...]) -> sql.Composed:
    """*keys* as an array in a statement that has parameters."""
    texts = sql.SQL(", ").join(sql.Literal(key.replace("%", "%%")) for key in keys)
    return sql.SQL("ARRAY[{}]::text[]").format(texts)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedLayout:
    """Where the table holds what.

    Attributes:
        stamp: the JSON object beside whose keys the stamp lies.
        kind, model: a place, or what is the same for all records; no model means unstated.
        fixed: what every managed record has there.
        dimension: components per vector; None where neither the type nor a record tells.
    """

    id: Place
    vector: Column
    stamp: Place
    owner: Place
    kind: Place | str
    entity_id: Place
    text: Place | None
    model: Place | str | None
    fixed: tuple[tuple[Place, str], ...]
    dimension: int | None


def found_layout(
    connection: Connection[TupleRow], address: Address, fields: StoreFields
) -> AdoptedLayout:
    """What the table is like.

    Raises:
        ConfigError: there is no such table, or it is not as *fields* says.
    """
    table = address.table
    found = connection.execute(_FIND_TABLE, [table.schema, table.name]).fetchone()
    if found is None:
        raise ConfigError(
            "There is no such collection",
            why=f"[store.fields] says that another program filled {address.location}, and there is "
            "no such table.",
            fix="correct ?table=schema.table in VECTOR_URL, or leave [store.fields] out of "
            "undrift.toml and run `undrift sync --all`, which creates a table of undrift's own",
        )
    oid, is_table, hides_rows = found
    if not is_table:
        raise _unfit(address, "it is not a table", "name a table in ?table=")
    if hides_rows:
        raise _unfit(
            address,
            "row-level security hides rows from this role, which would look missing",
            "let the role bypass it (ALTER ROLE … BYPASSRLS)",
        )
    columns = {row[0]: Column(*row) for row in connection.execute(_FIND_COLUMNS, [oid])}
    keys = connection.execute(_FIND_KEYS, [oid]).fetchall()
    return _Reader(connection, address, columns, keys).layout(fields)


class _Reader:
    """Finds the places of one table."""

    def __init__(
        self,
        connection: Connection[TupleRow],
        address: Address,
        columns: Mapping[str, Column],
        keys: list[TupleRow],
    ) -> None:
        self._connection = connection
        self._address = address
        self._columns = columns
        self._keys = keys
        self._fixed: tuple[tuple[Place, str], ...] = ()

    def layout(self, fields: StoreFields) -> AdoptedLayout:
        # First: another collection in the table says nothing of this one.
        self._fixed = tuple(
            (self._place(f"fixed.{path}", Field(path=tuple(path.split(".")))), value)
            for path, value in fields.fixed.items()
        )
        owner = self._place("owner", fields.owner)
        vector = self._vector(fields.vector)
        return AdoptedLayout(
            id=self._id(fields.id),
            vector=vector,
            stamp=self._stamp(fields.stamp, owner),
            owner=owner,
            kind=self._place_or_value("kind", fields.kind),
            entity_id=self._place("entity_id", fields.entity_id),
            text=None if fields.text is None else self._place("text", fields.text),
            model=None if fields.model is None else self._place_or_value("model", fields.model),
            fixed=self._fixed,
            dimension=vector.size if vector.size > 0 else self._dimension(vector),
        )

    def _place_or_value(self, name: str, field: Field) -> Place | str:
        return self._place(name, field) if field.value is None else field.value

    def _place(self, name: str, field: Field) -> Place:
        column = self._column(name, field.path[0])
        keys = field.path[1:]
        if keys and column.type not in _JSON:
            raise self._misnamed(name, f"the column {column.name} is {column.type}, not JSON")
        if not keys and column.type not in _KEY_TYPES:
            raise self._misnamed(
                name, f"the column {column.name} is {column.type}, which holds no text"
            )
        place = Place(column, keys)
        return Place(column, keys, json_type=self._json_type(place) if keys else "")

    def _json_type(self, place: Place) -> str:
        """What most of the first records that have the field hold there."""
        query = sql.SQL(
            "SELECT jsonb_typeof(v) FROM (SELECT {}::jsonb #> {} AS v FROM {} AS stored WHERE {}) "
            "AS found WHERE v IS NOT NULL AND jsonb_typeof(v) <> 'null' LIMIT %s"
        ).format(
            sql.Identifier(place.column.name),
            keys_literal(place.keys),
            self._address.table.identifier,
            self._is_of_collection(),
        )
        types = [str(row[0]) for row in self._connection.execute(query, [_SAMPLE_ROWS])]
        return max(types, key=types.count) if types else ""

    def _is_of_collection(self) -> sql.Composable:
        conditions: list[sql.Composable] = [
            sql.SQL("{} = {}").format(place.read(), sql.Literal(value.replace("%", "%%")))
            for place, value in self._fixed
        ]
        return sql.SQL(" AND ").join([*conditions, sql.SQL("true")])

    def _id(self, field: Field | None) -> Place:
        if field is not None:
            column = self._column("id", field.path[0])
            if len(field.path) > 1 or column.type not in _ID_TYPES:
                raise self._misnamed("id", f"{field} is no column of text or uuid")
            return Place(column)
        # A serial number cannot take the id of a record that undrift writes anew.
        unique = sorted(self._keys, key=lambda key: not key[0])
        fitting = [name for _, name in unique if self._columns[name].type in _ID_TYPES]
        if not fitting:
            raise self._misnamed("id", "no unique column of text or uuid tells its records apart")
        return Place(self._columns[fitting[0]])

    def _vector(self, field: Field | None) -> Column:
        if field is not None:
            column = self._column("vector", field.path[0])
            if column.type not in ("vector", "halfvec"):
                raise self._misnamed("vector", f"the column {column.name} is {column.type}")
            return column
        found = [c for c in self._columns.values() if c.type in ("vector", "halfvec")]
        if len(found) != 1:
            names = ", ".join(column.name for column in found) or "none"
            raise self._misnamed("vector", f"its columns of vectors are {names}, not just one")
        return found[0]

    def _stamp(self, field: Field | None, owner: Place) -> Place:
        if field is not None:
            column = self._column("stamp", field.path[0])
            if column.type not in _JSON:
                raise self._misnamed("stamp", f"the column {column.name} is {column.type}")
            return Place(column, field.path[1:])
        if owner.keys:
            return Place(owner.column)
        found = [column for column in self._columns.values() if column.type in _JSON]
        if len(found) != 1:
            names = ", ".join(column.name for column in found) or "none"
            raise self._misnamed("stamp", f"its columns of JSON are {names}, not just one")
        return Place(found[0])

    def _dimension(self, vector: Column) -> int | None:
        name = sql.Identifier(vector.name)
        # The type's output is the same wherever the extension is installed.
        query = sql.SQL(
            "SELECT {0}::text FROM {1} AS stored WHERE {0} IS NOT NULL AND {2} LIMIT %s"
        ).format(name, self._address.table.identifier, self._is_of_collection())
        rows = self._connection.execute(query, [_SAMPLE_ROWS]).fetchall()
        found = [str(text).count(",") + 1 for (text,) in rows]
        return max(found, key=found.count) if found else None

    def _column(self, name: str, column: str) -> Column:
        if column not in self._columns:
            there = ", ".join(self._columns)
            raise self._misnamed(name, f"it has no column {column}; there are {there}")
        return self._columns[column]

    def _misnamed(self, name: str, why: str) -> UndriftError:
        return _unfit(
            self._address,
            why,
            f"correct {name} in [store.fields] of undrift.toml; `undrift init` proposes one",
        )


def _unfit(address: Address, why: str, fix: str) -> ConfigError:
    return ConfigError(
        "The collection is not as [store.fields] says",
        why=f"{address.table} in {address.location}: {why}.",
        fix=fix,
    )
