"""A mapping for tables with one row per entity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count

from undrift.mapping import KIND_DEFAULTS
from undrift.proposal import naming
from undrift.proposal.model import Proposal, ProposedEntity
from undrift.proposal.naming import TemplateNames
from undrift.proposal.texts import (
    NO_ID,
    default_entity,
    explicit_entity,
    fits_defaults,
    sort_fields,
    unread_by,
)
from undrift.sources.inspection import FoundTable, Type
from undrift.survey import Place, survey_rows

_SAID_IN_WORDS = (Type.TEXT, Type.JSON, Type.OTHER)


def propose_entity(
    table: FoundTable, rows: Sequence[dict[str, object]], taken: set[str]
) -> ProposedEntity | None:
    """The entity whose rows *table* holds; None if it holds none.

    Args:
        rows: a sample, JSON decoded.
        taken: kinds that other tables have already.
    """
    owner = naming.owner_in(table.column_names, table.references)
    if owner is None or naming.is_machinery(table.name):
        return None
    place = _place(table, rows, owner)
    parts = sort_fields(place, ())
    if not parts.short and not parts.long:
        return None
    seen = f"{len(rows)} rows sampled" if rows else "no rows yet"
    kind = naming.kind_of(table.name.rpartition(".")[2])
    kind = next(free for free in _numbered(kind) if free not in taken)
    default = KIND_DEFAULTS.get(kind)
    is_told = default is not None and not unread_by(default, [*parts.short, *parts.long])
    if is_told and fits_defaults(kind, place):
        entity = default_entity(kind, place, parts, seen)
    else:
        entity = explicit_entity(kind, place, parts, seen)
    names = TemplateNames(table.column_names)
    identifier, key = _identity(table, owner, names, entity)
    aliases = {**(entity.aliases or {}), **names.aliases} if entity.aliases is not None else None
    if names.aliases and aliases is None:
        aliases = {**KIND_DEFAULTS[kind].aliases, **names.aliases}
    return replace(
        entity,
        path=None,
        table=table.name,
        owner=owner,
        id=identifier,
        key=key,
        aliases=aliases,
        where=_without_deleted(table.column_names),
    )


def propose_rows(entities: Sequence[ProposedEntity]) -> Proposal:
    """A mapping of one table for each kind."""
    count = len(entities)
    return Proposal(
        documents=None,
        entities=tuple(entities),
        chosen=f"{count} {'table has' if count == 1 else 'tables have'} an owner column and a row "
        "for each entity",
    )


def _without_deleted(columns: Sequence[str]) -> str:
    """The condition by which applications usually leave out what they only marked as deleted."""
    for name in columns:
        if name in ("deleted_at", "removed_at", "archived_at"):
            return f"{name} IS NULL"
        if name in ("is_deleted", "deleted", "is_archived", "archived"):
            return f"NOT {name}"
    return ""


def _place(table: FoundTable, rows: Sequence[dict[str, object]], owner: str) -> Place:
    """The rows as elements, with what their columns declare where there are no rows."""
    told = [
        column.name
        for column in table.columns
        if (column.type in _SAID_IN_WORDS or naming.is_reference(column.name))
        if column.name != owner and column.name not in table.references
    ]
    times = [column.name for column in table.columns if column.type is Type.TIME]
    if rows:
        place = survey_rows({name: row[name] for name in told} for row in rows)
        if times:
            dated = survey_rows({name: row[name] for name in times} for row in rows)
            place.fields.update({n: f for n, f in dated.fields.items() if not f.look.is_text})
        return place
    place = survey_rows(
        {name: "Word" * (30 if name.lower() in naming.LONG_NAMES else 1)}
        for name in told
        if table.column(name) is not None
    )
    place.elements = 0
    return place


def _identity(
    table: FoundTable, owner: str, names: TemplateNames, entity: ProposedEntity
) -> tuple[str | None, tuple[str, ...] | None]:
    """The id's column, and the key of rows that have no such column."""
    if not table.primary_key:
        return entity.id, entity.key  # what the sample shows
    key = [name for name in table.primary_key if name != owner] or [owner]
    if len(key) == 1:
        return (None if key[0] == "id" else names.name(key[0])), None
    return NO_ID, tuple(names.name(name) for name in key)


def _numbered(kind: str) -> Iterator[str]:
    yield kind
    for number in count(2):
        yield f"{kind}_{number}"
