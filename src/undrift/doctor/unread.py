"""Which texts of the source no template reads. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

from undrift.mapping import EntitySpec
from undrift.proposal import naming
from undrift.survey import ROOT, Field, Look, Place, Survey
from undrift.templates import is_template, variables

RARE = 0.05
"""A field that fewer elements have is not worth a word."""

_OF_PARENT = re.compile(r"\b(?:parent\.)+(\w+)")


def unread_in_documents(found: Survey, entities: Sequence[EntitySpec]) -> list[str]:
    """The fields and lists with words in them that no entity reads, by their paths."""
    by_path: dict[str, list[EntitySpec]] = {}
    for spec in entities:
        by_path.setdefault((spec.path or "").removeprefix(f"{ROOT}."), []).append(spec)
    names: list[str] = []
    for path, place in found.places.items():
        specs = by_path.get(path, [])
        if path == ROOT and not specs:
            names.extend(
                field.name
                for field in place.fields.values()
                if field.look is Look.LONG_TEXT and _tells(place, field)
            )
        elif specs:
            names.extend(_unread_fields(found, place, specs, by_path))
        elif _is_unread_list(place, by_path):
            names.append(path)
    return names


def unread_in_rows(place: Place, spec: EntitySpec) -> list[str]:
    """The columns with words in them that *spec* does not read."""
    read = names_read(spec)
    return [
        f"{spec.table}.{field.name}"
        for field in place.fields.values()
        if field.name not in read and _tells(place, field)
    ]


def names_read(spec: EntitySpec) -> set[str]:
    """Every field that *spec* reads in its text, metadata, id or key, aliases included."""
    read: set[str] = set(variables(spec.text, where=f"kind {spec.kind}"))
    for value in (spec.id, *spec.key, *spec.metadata):
        if is_template(value):
            read.update(variables(value, where=f"kind {spec.kind}"))
        else:
            read.add(value.partition(".")[0])
    return read | _behind(spec, read)


def _behind(spec: EntitySpec, names: Collection[str]) -> set[str]:
    """The fields that are read where *names* are, as their aliases."""
    return {other for name in names for other in spec.aliases.get(name, ())}


def _unread_fields(
    found: Survey,
    place: Place,
    specs: Sequence[EntitySpec],
    by_path: Mapping[str, Sequence[EntitySpec]],
) -> list[str]:
    read = set().union(*(names_read(spec) for spec in specs))
    for path, below in by_path.items():
        if path.startswith(f"{place.path}."):
            names = {name for spec in below for name in _OF_PARENT.findall(spec.text)}
            read.update(names, *(_behind(spec, names) for spec in specs))
    lists = {p.name for p in found.lists() if p.parent == place.path}
    return [
        f"{place.path}.{field.name}" if place.path != ROOT else field.name
        for field in place.fields.values()
        if field.name not in read and field.name not in lists and _tells(place, field)
    ]


def _is_unread_list(place: Place, by_path: Mapping[str, Sequence[EntitySpec]]) -> bool:
    """Whether nothing reads the list at *place*, neither itself nor with what encloses it."""
    if not any(_tells(place, field) for field in place.fields.values()):
        return False
    if any(path.startswith(f"{place.path}.") for path in by_path):
        return False
    if any(place.name in names_read(spec) for spec in by_path.get(place.parent, ())):
        return False
    # A list inside an unread list is told by that.
    return place.parent == ROOT or place.parent in by_path


def _tells(place: Place, field: Field) -> bool:
    """Whether the field says something worth searching."""
    return (
        field.look.is_text
        and place.share(field.name) >= RARE
        and not naming.is_reference(field.name)
        and not naming.is_secret(field.name)
        and not naming.is_label(field.name)
    )
