"""The statements that read and write another program's table.

A record is managed where its fields name an owner, a kind and an entity, where it has what is
fixed, and where its stamp, if it has one, is of the namespace. The stamp lies in the table's own
JSON: a program that replaces the record replaces the stamp with it, and nothing false is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString

from psycopg import sql

from undrift.adoption import UNSTATED_MODEL
from undrift.stores._adopted import STAMP_KEY
from undrift.stores._pg_address import Table
from undrift.stores._pg_adopted_layout import AdoptedLayout, Column, Place, keys_literal

_STAMPS = """
SELECT {id}, %(namespace)s::text, {owner}, {kind}, {entity_id},
       coalesce({stamp} ->> 'fingerprint', ''), coalesce({stamp} ->> 'text_hash', ''),
       CASE WHEN {is_lost} THEN '' ELSE {model} END, {version},
       CASE WHEN {stamp} ->> 'fingerprint' IS NULL THEN {text} END
FROM {table} AS stored
WHERE {of_owners} AND {is_managed}"""
_BY_ID = """
SELECT {id}, CASE WHEN {is_managed} THEN %(namespace)s::text
                  ELSE coalesce({stamp} ->> 'namespace', '') END,
       coalesce({owner}, ''), coalesce({kind}, ''), coalesce({entity_id}, ''),
       coalesce({stamp} ->> 'fingerprint', ''), coalesce({stamp} ->> 'text_hash', ''),
       CASE WHEN {vector} IS NULL THEN '' ELSE {model} END, {version},
       CASE WHEN {stamp} ->> 'fingerprint' IS NULL THEN {text} END
FROM {table} AS stored
WHERE {of_ids}"""
_UNMANAGED = """
SELECT {owner}, count(*) FROM {table} AS stored
WHERE {of_owners} AND NOT {is_managed}
GROUP BY 1"""
_OWNERS = """
SELECT owner FROM (
    SELECT DISTINCT {owner} COLLATE "C" AS owner FROM {table} AS stored WHERE {is_managed}
) AS owners
WHERE %(after)s::text IS NULL OR owner > %(after)s::text COLLATE "C"
ORDER BY owner LIMIT %(limit)s"""
_SEARCH = """
SELECT {id}, %(namespace)s::text, {owner}, {kind}, {entity_id},
       coalesce({stamp} ->> 'fingerprint', ''), coalesce({stamp} ->> 'text_hash', ''), {model},
       {version}, {text}, coalesce({metadata}, '{{}}'::jsonb)::text,
       1 - ({vector} OPERATOR({schema}.<=>) %(vector)s) AS score
FROM {table} AS stored
WHERE {of_owners} AND {is_managed} AND NOT {is_lost} AND {model} = %(model)s
  AND (%(kinds)s::text[] IS NULL OR {kind} = ANY(%(kinds)s::text[]))
ORDER BY 0 + ({vector} OPERATOR({schema}.<=>) %(vector)s), 1
LIMIT %(limit)s"""
_LOCK_TEXTS = """
SELECT {id}, {text} FROM {table} AS stored
WHERE {of_ids} AND {is_managed} AND {stamp} ->> 'fingerprint' IS NULL AND NOT {is_lost}
  AND {model_of_unstamped} = %(model)s
FOR UPDATE"""
_NEW = """
    unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
           %b::text[], %b::bigint[], %b::text[], %b::text[]::jsonb[]{more})
    AS new (vector_id, namespace, owner_id, kind, entity_id, fingerprint, text_hash, model, version,
            text, metadata{column})"""
_REPLACE = """
UPDATE {table} AS stored SET {assignments}, {vector_name} = new.embedding
FROM {new_vectors}
WHERE {is_id_of_new} AND {is_managed_for_new} AND {version} < new.version"""
_RESTAMP = """
UPDATE {table} AS stored SET {stamp_column} = CASE
    WHEN {stamp} ->> 'fingerprint' IS NULL THEN {only_stamped} ELSE {stamped} END
FROM {new}
WHERE {is_id_of_new} AND {is_managed_for_new} AND {version} < new.version
  AND NOT {is_lost} AND ({stamp} ->> 'fingerprint' IS NULL
      OR {stamp} ->> 'text_hash' = new.text_hash AND {stamp} ->> 'model' = new.model)"""
_INSERT = """
INSERT INTO {table} ({columns}, {vector_name})
SELECT {values}, new.embedding
FROM {new_vectors}
WHERE NOT EXISTS (SELECT FROM {table} AS stored WHERE {is_id_of_new})
ON CONFLICT DO NOTHING"""
_DELETE = """
DELETE FROM {table} AS stored
USING unnest(%(owner_ids)b::text[], %(vector_ids)b::text[], %(versions)b::bigint[])
    AS gone (owner_id, vector_id, version)
WHERE {id_column} = gone.vector_id{id_cast} AND {owner} = gone.owner_id
  AND {version} = gone.version AND {is_managed}"""

_STORED = sql.Identifier("stored")
_VERSION = "^[0-9]{1,16}$"
_NUMBER = "^-?(0|[1-9][0-9]{0,17})$"


class AdoptedStatements:
    """The statements for one table, ready to be executed."""

    def __init__(self, table: Table, layout: AdoptedLayout, vector_schema: str) -> None:
        self._layout = layout
        self._table = sql.Identifier(*(_escaped(name) for name in table.names))
        self._parts = self._expressions(vector_schema)
        self.stamps = self._ready(_STAMPS)
        self.stamps_by_id = self._ready(_BY_ID)
        self.unmanaged = self._ready(_UNMANAGED)
        self.owners = self._ready(_OWNERS)
        self.search = self._ready(_SEARCH)
        self.lock_texts = self._ready(_LOCK_TEXTS)
        self.replace = self._ready(_REPLACE)
        self.restamp = self._ready(_RESTAMP)
        self.insert = self._ready(_INSERT)
        self.delete = self._ready(_DELETE)

    def _ready(self, statement: LiteralString) -> bytes:
        return sql.SQL(statement).format(table=self._table, **self._parts).as_bytes(None)

    def _expressions(self, vector_schema: str) -> Mapping[str, sql.Composable]:
        layout = self._layout
        stamp = self._valid_stamp()
        vector = _column_of_stored(layout.vector)
        id_cast = sql.SQL("::uuid" if layout.id.column.type == "uuid" else "::text")
        id_column = _column_of_stored(layout.id.column)
        if layout.id.column.type != "uuid":
            id_column = sql.SQL("{}::text").format(id_column)
        is_new = sql.SQL("{} = new.vector_id{}").format(id_column, id_cast)
        assigned = self._written(_STORED)
        model = self._model(stamp)
        return {
            "id": layout.id.read(_STORED),
            "id_column": id_column,
            "id_cast": id_cast,
            "owner": layout.owner.read(_STORED),
            "kind": _read(layout.kind),
            "entity_id": layout.entity_id.read(_STORED),
            "text": sql.SQL("NULL::text") if layout.text is None else layout.text.read(_STORED),
            "model": model,
            "model_of_unstamped": _model_of_unstamped(layout),
            "stamp": stamp,
            "metadata": sql.SQL("({} - {})").format(
                _within(layout.stamp, ()), sql.Literal(STAMP_KEY)
            ),
            # The version of a stamp that no longer counts is still one to rise above.
            "version": _version(_within(layout.stamp, (STAMP_KEY,))),
            "vector": vector,
            "is_lost": self._is_lost(vector, vector_schema),
            "vector_name": sql.Identifier(_escaped(layout.vector.name)),
            "schema": sql.Identifier(_escaped(vector_schema)),
            "of_owners": self._is_of_owners(),
            "of_ids": sql.SQL("{} = ANY(%(vector_ids)s{}[])").format(id_column, id_cast),
            "is_managed": self._is_managed(sql.SQL("%(namespace)s")),
            # Between look and write another program may have given the id to another entity.
            "is_managed_for_new": sql.SQL(
                "({} AND {} = new.owner_id AND {} = new.kind AND {} = new.entity_id)"
            ).format(
                self._is_managed(sql.SQL("new.namespace")),
                layout.owner.read(_STORED),
                _read(layout.kind),
                layout.entity_id.read(_STORED),
            ),
            "is_id_of_new": is_new,
            "new": sql.SQL(_NEW).format(more=sql.SQL(""), column=sql.SQL("")),
            "new_vectors": sql.SQL(_NEW).format(
                more=sql.SQL(", %b"), column=sql.SQL(", embedding")
            ),
            "assignments": sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(_escaped(name)), value)
                for name, value in assigned.items()
            ),
            "stamp_column": sql.Identifier(_escaped(layout.stamp.column.name)),
            "only_stamped": self._stamped(with_metadata=False),
            "stamped": self._stamped(with_metadata=True),
            "columns": sql.SQL(", ").join(
                sql.Identifier(_escaped(name)) for name in self._written(None)
            ),
            "values": sql.SQL(", ").join(self._written(None).values()),
        }

    def _is_lost(self, vector: sql.Composable, vector_schema: str) -> sql.Composed:
        """Whether no search finds the vector: it is gone, or of another length."""
        layout = self._layout
        if layout.dimension is None or layout.vector.size > 0:
            return sql.SQL("{} IS NULL").format(vector)
        return sql.SQL("coalesce({}.vector_dims({}) <> {}, true)").format(
            sql.Identifier(_escaped(vector_schema)), vector, sql.Literal(layout.dimension)
        )

    def _valid_stamp(self) -> sql.Composed:
        """The stamp, if the text is still the one that it was put beside; else null.

        Another program may change the text and leave the stamp.
        """
        stamp = _within(self._layout.stamp, (STAMP_KEY,))
        if self._layout.text is None:
            return stamp
        return sql.SQL("CASE WHEN {0} ->> 'seen' = md5({1}) THEN {0} END").format(
            stamp, self._layout.text.read(_STORED)
        )

    def _is_of_owners(self) -> sql.Composed:
        """Whether the owner is one that is asked for; a bare column keeps its index useful."""
        owner = self._layout.owner
        cast = "text"
        column: sql.Composable = owner.read(_STORED)
        if not owner.keys and owner.column.type in ("int2", "int4", "int8", "uuid"):
            cast = "uuid" if owner.column.type == "uuid" else "int8"
            column = _column_of_stored(owner.column)
        elif not owner.keys and owner.column.type in ("text", "varchar"):
            column = _column_of_stored(owner.column)
        return sql.SQL("{} = ANY(%(owners)s::text[]::{}[])").format(column, sql.Identifier(cast))

    def _is_managed(self, namespace: sql.Composable) -> sql.Composed:
        layout = self._layout
        named = [layout.owner, layout.entity_id]
        named += [layout.kind] if isinstance(layout.kind, Place) else []
        conditions = [sql.SQL("{} IS NOT NULL").format(place.read(_STORED)) for place in named]
        conditions += [
            sql.SQL("{} IS NOT DISTINCT FROM {}").format(place.read(_STORED), _literal(value))
            for place, value in layout.fixed
        ]
        found = _within(layout.stamp, (STAMP_KEY,))
        conditions.append(
            sql.SQL("coalesce({} ->> 'namespace', {}) = {}").format(found, namespace, namespace)
        )
        # A stamp has no place in what is no object.
        conditions.append(
            sql.SQL("coalesce(jsonb_typeof({}), 'null') IN ('object', 'null')").format(
                _within(layout.stamp, ())
            )
        )
        return sql.SQL("({})").format(sql.SQL(" AND ").join(conditions))

    def _model(self, stamp: sql.Composable) -> sql.Composed:
        return sql.SQL("coalesce({} ->> 'model', {})").format(
            stamp, _model_of_unstamped(self._layout)
        )

    def _written(self, stored: sql.Identifier | None) -> dict[str, sql.Composable]:
        """By column, what a write puts there.

        Args:
            stored: the record that is there, whose other fields stay; None for a new one.
        """
        layout = self._layout
        values: dict[str, sql.Composable] = {}
        if stored is None:
            is_uuid = layout.id.column.type == "uuid"
            values[layout.id.column.name] = sql.SQL(
                "new.vector_id::uuid" if is_uuid else "new.vector_id"
            )
        for column in {place.column.name: place.column for place in self._json_places()}.values():
            values[column.name] = self._json(column, stored)
        for place, value in self._assigned(is_new=stored is None):
            if not place.keys:
                values[place.column.name] = sql.SQL("{}::{}").format(
                    value, sql.Identifier(place.column.type)
                )
        return values

    def _json_places(self) -> list[Place]:
        assigned = self._assigned(is_new=True)
        return [*(place for place, _ in assigned if place.keys), self._layout.stamp]

    def _assigned(self, *, is_new: bool) -> list[tuple[Place, sql.Composable]]:
        """What is written where, beside stamp and metadata; what is fixed, in new records only."""
        layout = self._layout
        places: list[tuple[Place, sql.Composable]] = [
            (place, _literal(value)) for place, value in layout.fixed if is_new
        ]
        places += [
            (layout.owner, sql.SQL("new.owner_id")),
            (layout.entity_id, sql.SQL("new.entity_id")),
        ]
        optional: list[tuple[Place | str | None, sql.Composable]] = [
            (layout.kind, sql.SQL("new.kind")),
            (layout.model, sql.SQL("new.model")),
            (layout.text, sql.SQL("new.text")),
        ]
        places += [(place, value) for place, value in optional if isinstance(place, Place)]
        return places

    def _json(self, column: Column, stored: sql.Identifier | None) -> sql.Composed:
        """The column's JSON with what is written set in it; metadata beside the stamp."""
        layout = self._layout
        before: sql.Composable = sql.SQL("'{{}}'::jsonb").format()
        if stored is not None:
            before = _object(sql.SQL("{}::jsonb").format(_column_of_stored(column)))
        found: sql.Composable = before
        if layout.stamp.column == column:
            found = _merged(found, layout.stamp.keys, sql.SQL("new.metadata"))
        for place, value in self._assigned(is_new=stored is None):
            if place.column == column and place.keys:
                found = _merged(
                    found,
                    place.keys[:-1],
                    sql.SQL("jsonb_build_object({}, {})").format(
                        _literal(place.keys[-1]), _as_json(place, value)
                    ),
                )
        if layout.stamp.column == column:
            found = _merged(found, layout.stamp.keys, _new_stamp(sql.SQL("new.text")))
        return sql.SQL("({})::{}").format(found, sql.Identifier(column.type))

    def _stamped(self, *, with_metadata: bool) -> sql.Composed:
        """The JSON with a stamp in it, of a record whose text stays.

        Args:
            with_metadata: undrift wrote the record before, so that its metadata are undrift's too.
        """
        stamp = self._layout.stamp
        found = _object(sql.SQL("{}::jsonb").format(_column_of_stored(stamp.column)))
        if with_metadata:
            found = _merged(found, stamp.keys, sql.SQL("new.metadata"))
        return sql.SQL("({})::{}").format(
            _merged(found, stamp.keys, _new_stamp(self._text())),
            sql.Identifier(stamp.column.type),
        )

    def _text(self) -> sql.Composable:
        text = self._layout.text
        return sql.SQL("''") if text is None else text.read(_STORED)


def _as_json(place: Place, value: sql.Composable) -> sql.Composed:
    """*value* as the records have it there: what they hold as a number stays one."""
    if place.json_type == "number":
        return sql.SQL(
            "CASE WHEN {0} ~ {1} THEN to_jsonb(({0})::numeric) ELSE to_jsonb({0}) END"
        ).format(value, sql.Literal(_NUMBER))
    if place.json_type == "boolean":
        return sql.SQL("to_jsonb(({0})::boolean)").format(value)
    return sql.SQL("to_jsonb({})").format(value)


def _new_stamp(text: sql.Composable) -> sql.Composed:
    """The stamp beside *text*, which it counts with."""
    return sql.SQL(
        "jsonb_build_object({}, jsonb_build_object('namespace', new.namespace, 'fingerprint', "
        "new.fingerprint, 'text_hash', new.text_hash, 'model', new.model, 'version', new.version, "
        "'seen', md5({})))"
    ).format(_literal(STAMP_KEY), text)


def _merged(before: sql.Composable, keys: tuple[str, ...], more: sql.Composable) -> sql.Composed:
    """*before* with the object *more* merged into the object at *keys*, which may not be there."""
    if not keys:
        return sql.SQL("({} || {})").format(before, more)
    first, rest = keys[0], keys[1:]
    inner = _object(sql.SQL("({} -> {})").format(before, _literal(first)))
    return sql.SQL("({} || jsonb_build_object({}, {}))").format(
        before, _literal(first), _merged(inner, rest, more)
    )


def _object(value: sql.Composable) -> sql.Composed:
    """*value* if it is an object, else an empty one."""
    return sql.SQL("CASE WHEN jsonb_typeof({0}) = 'object' THEN {0} ELSE '{{}}'::jsonb END").format(
        value
    )


def _within(place: Place, keys: tuple[str, ...]) -> sql.Composed:
    column = _column_of_stored(place.column)
    return sql.SQL("({}::jsonb #> {})").format(column, keys_literal((*place.keys, *keys)))


def _version(stamp: sql.Composable) -> sql.Composed:
    """The stamp's version; 0 where somebody left something else there."""
    return sql.SQL(
        "CASE WHEN {0} ->> 'version' ~ {1} THEN ({0} ->> 'version')::int8 ELSE 0 END"
    ).format(stamp, sql.Literal(_VERSION))


def _model_of_unstamped(layout: AdoptedLayout) -> sql.Composable:
    unstated = _literal(UNSTATED_MODEL)
    if layout.model is None:
        return unstated
    if isinstance(layout.model, str):
        return _literal(layout.model)
    return sql.SQL("coalesce({}, {})").format(layout.model.read(_STORED), unstated)


def _read(place: Place | str) -> sql.Composable:
    return place.read(_STORED) if isinstance(place, Place) else _literal(place)


def _column_of_stored(column: Column) -> sql.Composed:
    return sql.SQL("{}.{}").format(_STORED, sql.Identifier(_escaped(column.name)))


def _literal(value: str) -> sql.Composed:
    return sql.SQL("{}::text").format(sql.Literal(_escaped(value)))


def _escaped(text: str) -> str:
    # psycopg reads a % as the beginning of a placeholder, quoted or not.
    return text.replace("%", "%%")
