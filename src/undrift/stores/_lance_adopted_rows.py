"""Rows that another program wrote into LanceDB: what their columns mean.

The table stays as it is, column for column: a program that opens it by its schema would be refused
if there were one more. So the stamps lie in a table beside, and each counts only as long as the row
has the vector and the text that it was put to.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from undrift.adoption import UNSTATED_MODEL, Field, StoreFields
from undrift.errors import ConfigError
from undrift.fingerprint import canonical_json
from undrift.model import Stamp
from undrift.ports import Record, Vectors
from undrift.stores import _lance_layout as layout
from undrift.stores._adopted import as_number, hash_of, id_at, put_at, value_at

Row = Mapping[str, object]


class Found(NamedTuple):
    """A row of the other program's.

    Attributes:
        row: all of it but the vector.
        vector: None where it is gone.
    """

    row: Row
    vector: Vectors | None


class Known(NamedTuple):
    """What lies beside the table about one of its rows.

    Attributes:
        stamp: what was said of it last; of a tombstone, what it names.
        seen: a digest of the vector and the text that the stamp was put to.
    """

    stamp: Stamp
    seen: str
    is_tombstone: bool


class _Place(NamedTuple):
    """Where a value lies, and of which type it is."""

    path: tuple[str, ...]
    type: pa.DataType

    @property
    def name(self) -> str:
        """Its name in a condition."""
        return ".".join(f"`{key}`" for key in self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedRows:
    """What the rows of one table mean.

    Attributes:
        id: the column that tells records apart.
        vector: the column of vectors.
    """

    schema: pa.Schema
    fields: StoreFields
    namespace: str
    id: str
    vector: str
    owner: _Place
    entity_id: _Place

    @property
    def dimension(self) -> int:
        """Components of a vector."""
        return int(self.schema.field(self.vector).type.list_size)

    # --- conditions

    def of_owners(self, owners: Sequence[str]) -> str:
        """Where a row is of one of *owners*; empty where none of them can have one."""
        return _is_any(self.owner, owners)

    def under(self, ids: Sequence[str]) -> str:
        """Where a row lies under one of *ids*."""
        return layout.any_of(f"`{self.id}`", ids)

    # --- reading

    @property
    def named(self) -> list[str]:
        """The columns that a stamp is made of, the vector's among them."""
        fields = self.fields
        places = (fields.owner, fields.kind, fields.entity_id, fields.text, fields.model)
        roots = [field.path[0] for field in places if field is not None and field.path]
        fixed = [path.partition(".")[0] for path in fields.fixed]
        return list(dict.fromkeys((self.id, self.vector, *roots, *fixed)))

    def read(self, batch: pa.RecordBatch) -> Iterator[Found]:
        """The rows of *batch*, which has at least the columns that are `named`."""
        column = batch.column(self.vector)
        # What is null has no components there.
        flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        vectors = iter(flat.reshape(-1, self.dimension))
        has_vector = column.is_valid().to_pylist()
        plain = batch.drop_columns([self.vector]).to_pylist()
        for row, has_one in zip(plain, has_vector, strict=True):
            vector = next(vectors) if has_one else None
            if row[self.id] is not None:
                yield Found(row, vector)

    def id_of(self, found: Found) -> str:
        """The record's own id."""
        return str(found.row[self.id])

    def entity(self, found: Found) -> tuple[str, str, str]:
        """Owner, kind and id, of which an empty one is not named."""
        kind, row = self.fields.kind, found.row
        named = id_at(row, kind.path) if kind.value is None else kind.value
        return id_at(row, self.owner.path), named, id_at(row, self.entity_id.path)

    def counts(self, known: Known | None, found: Found) -> bool:
        """Whether what lies beside is still about this very row."""
        return (
            known is not None
            and not known.is_tombstone
            and known.stamp[2:5] == self.entity(found)
            and known.seen == self.seen(found.vector, self.text_of(found))
        )

    def is_managed(self, found: Found, known: Known | None) -> bool:
        """Whether it names an owner, a kind and an entity, and no other namespace stamped it."""
        fixed = self.fields.fixed.items()
        return (
            all(self.entity(found))
            and all(_text(value_at(found.row, path.split("."))) == value for path, value in fixed)
            and (
                known is None
                or known.stamp.namespace == self.namespace
                or not self.counts(known, found)
            )
        )

    def stamp_of(self, found: Found, known: Known | None) -> Stamp:
        """Its stamp; where it has none, what its columns say, without a fingerprint."""
        if known is not None and self.counts(known, found):
            stamp = known.stamp
        else:
            stamp = Stamp(
                self.id_of(found),
                self.namespace if self.is_managed(found, known) else "",
                *self.entity(found),
                fingerprint="",
                text_hash=hash_of(self.text_of(found)),
                model=self._model(found.row),
                version=0,
            )
        return stamp if found.vector is not None else stamp._replace(model="")

    def text_of(self, found: Found) -> str | None:
        """The text that was embedded, where the table holds it."""
        text = None if self.fields.text is None else value_at(found.row, self.fields.text.path)
        return text if isinstance(text, str) else None

    def metadata_of(self, found: Found) -> str:
        """What else the other program keeps there."""
        kept = {n: v for n, v in found.row.items() if n != self.id and _is_plain(v)}
        return canonical_json(kept)

    # --- writing

    def seen(self, vector: Vectors | None, text: str | None) -> str:
        """A digest of what a stamp is put to."""
        digest = blake2b(b"" if vector is None else vector.tobytes(), digest_size=16)
        digest.update(b"" if text is None else b"+" + text.encode())
        return digest.hexdigest()

    def row_of(self, record: Record, like: Found | None) -> Row:
        """The row that *record* becomes, but for its vector.

        Args:
            like: the row that stood for its entity, whose other columns it takes over.
        """
        stamp = record.stamp
        row: dict[str, object] = {} if like is None else {**like.row}
        for name, value in json.loads(record.metadata_json).items():
            path = (*self.owner.path[:-1], name)
            if _takes(_type_at(self.schema, path), value):
                put_at(row, path, value)
        for name, value in self.fields.fixed.items():
            fixed = name.split(".")
            put_at(row, fixed, _as(_type_at(self.schema, fixed), value))
        put_at(row, self.owner.path, _as(self.owner.type, stamp.owner_id))
        put_at(row, self.entity_id.path, _as(self.entity_id.type, stamp.entity_id))
        for field, said in (
            (self.fields.kind, stamp.kind),
            (self.fields.model, stamp.model),
            (self.fields.text, record.text),
        ):
            if field is not None and field.path:
                put_at(row, field.path, said)
        row[self.id] = stamp.vector_id
        return row

    def _model(self, row: Row) -> str:
        model = self.fields.model
        if model is None:
            return UNSTATED_MODEL
        return model.value if model.value is not None else id_at(row, model.path) or UNSTATED_MODEL


def adopted_rows(
    schema: pa.Schema, fields: StoreFields, *, namespace: str, location: str
) -> AdoptedRows:
    """What the rows of a table of *schema* mean.

    Raises:
        ConfigError: it is not as *fields* says.
    """
    finder = _Finder(schema, location)
    for name, field in (("kind", fields.kind), ("text", fields.text), ("model", fields.model)):
        if field is not None and field.path:
            finder.place(name, field.path)
    for path in fields.fixed:
        finder.place(f"fixed.{path}", path.split("."))
    return AdoptedRows(
        schema=schema,
        fields=fields,
        namespace=namespace,
        id=finder.id(fields.id),
        vector=finder.vector(fields.vector),
        owner=finder.place("owner", fields.owner.path),
        entity_id=finder.place("entity_id", fields.entity_id.path),
    )


class _Finder:
    """Finds what the fields name in one table."""

    def __init__(self, schema: pa.Schema, location: str) -> None:
        self._schema = schema
        self._location = location

    def place(self, name: str, path: Sequence[str]) -> _Place:
        """A column of text or integers, or a field of one within a struct."""
        found = _type_at(self._schema, path)
        if found is None:
            there = ", ".join(_paths(self._schema))
            raise self._misnamed(name, f"there is no {'.'.join(path)}; there are {there}")
        if not _is_text(found) and not pa.types.is_integer(found):
            raise self._misnamed(name, f"{'.'.join(path)} is {found}, neither text nor an integer")
        return _Place(tuple(path), found)

    def id(self, field: Field | None) -> str:
        """The column of the records' own ids."""
        path = ("id",) if field is None else field.path
        found = _type_at(self._schema, path)
        if len(path) > 1 or found is None or not _is_text(found):
            there = ", ".join(_paths(self._schema))
            raise self._misnamed("id", f"no column {'.'.join(path)} of text; there are {there}")
        return path[0]

    def vector(self, field: Field | None) -> str:
        """The column of the vectors."""
        found = vector_columns(self._schema)
        named = [*found] if field is None else [name for name in found if (name,) == field.path]
        if len(named) != 1:
            names = ", ".join(found) or "none"
            raise self._misnamed("vector", f"its columns of float32 vectors are {names}")
        return named[0]

    def _misnamed(self, name: str, why: str) -> ConfigError:
        return ConfigError(
            "The collection is not as [store.fields] says",
            why=f"{self._location}: {why}.",
            fix=f"correct {name} in [store.fields] of undrift.toml; `undrift init` proposes one",
        )


def vector_columns(schema: pa.Schema) -> dict[str, int]:
    """The columns of vectors that can be compared, with their components."""
    return {
        field.name: int(field.type.list_size)
        for field in schema
        if pa.types.is_fixed_size_list(field.type) and field.type.value_type == pa.float32()
    }


def _type_at(schema: pa.Schema, path: Sequence[str]) -> pa.DataType | None:
    if path[0] not in schema.names:
        return None
    found = schema.field(path[0]).type
    for key in path[1:]:
        if not pa.types.is_struct(found) or found.get_field_index(key) < 0:
            return None
        found = found.field(key).type
    return found


def _paths(schema: pa.Schema) -> Iterator[str]:
    for field in schema:
        if pa.types.is_struct(field.type):
            yield from (f"{field.name}.{inner}" for inner in _paths(pa.schema(list(field.type))))
        else:
            yield field.name


def _is_any(place: _Place, ids: Sequence[str]) -> str:
    if _is_text(place.type):
        return layout.any_of(place.name, ids)
    numbers = [id_ for id_ in ids if as_number(id_) is not None]
    return f"{place.name} IN ({','.join(numbers)})" if numbers else ""


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _as(kind: pa.DataType | None, value: str) -> object:
    """An id as the column holds it; the source's owner 7 is the number 7 there."""
    is_number = kind is not None and pa.types.is_integer(kind) and as_number(value) is not None
    return int(value) if is_number else value


def _takes(kind: pa.DataType | None, value: object) -> bool:
    if kind is None or value is None:
        return False
    if pa.types.is_integer(kind):
        return isinstance(value, int) and not isinstance(value, bool)
    if pa.types.is_floating(kind):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if pa.types.is_boolean(kind):
        return isinstance(value, bool)
    return _is_text(kind) and isinstance(value, str)


def _is_plain(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    return value is None or isinstance(value, str | int | float)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else ""
