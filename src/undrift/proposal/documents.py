"""A mapping for a table that holds one JSON document per owner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from undrift.mapping import KIND_DEFAULTS, DocumentTable, default_entities
from undrift.proposal import naming
from undrift.proposal.model import Proposal, ProposedEntity
from undrift.proposal.texts import default_entity, explicit_entity, fits_defaults, sort_fields
from undrift.sources.inspection import FoundTable, Type
from undrift.survey import ROOT, Look, Place, Survey, survey
from undrift.templates import variables

MAX_ENTITIES = 20
_ORIGIN = DocumentTable()
_MOSTLY = 0.8
"""So many of the values of a text column must be JSON objects for it to hold documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A column that holds documents.

    Attributes:
        has_owner_name: the owner column is called like one, or points at one's table.
        is_one_per_owner: no owner has two rows, as far as the sample shows.
    """

    table: FoundTable
    owner: str
    document: str
    found: Survey
    has_owner_name: bool
    is_one_per_owner: bool

    @property
    def is_likely(self) -> bool:
        """Whether it is meant even where tables hold a row for each entity.

        Settings and preferences have no lists, and what describes a row stands beside it.
        """
        return self.is_origin or (self.is_one_per_owner and self.rank[1] > 0)

    @property
    def is_origin(self) -> bool:
        """Whether it is what undrift reads without any configuration."""
        layout = (self.table.name, self.owner, self.document)
        return layout == (_ORIGIN.table, _ORIGIN.owner, _ORIGIN.document)

    @property
    def rank(self) -> tuple[bool, int, bool, int]:
        """How likely it is meant; the greatest is."""
        elements = sum(_is_entity(place) for place in self.found.lists())
        return self.is_origin, elements, self.has_owner_name, self.found.documents


def document_candidates(table: FoundTable, rows: Sequence[dict[str, object]]) -> list[Candidate]:
    """The columns of *table* that hold documents.

    Args:
        rows: a sample, JSON decoded.
    """
    named = naming.owner_in(table.column_names, table.references)
    owner = named or (table.primary_key[0] if len(table.primary_key) == 1 else None)
    if owner is None:
        return []
    owners = [row.get(owner) for row in rows]
    is_one_per_owner = table.primary_key == (owner,) or len(set(map(str, owners))) == len(owners)
    found = []
    for column in table.columns:
        if column.name == owner or column.type not in (Type.JSON, Type.TEXT, Type.OTHER):
            continue
        values = [row[column.name] for row in rows if row.get(column.name) is not None]
        seen = survey(values)
        is_origin = (table.name, owner, column.name) == (
            _ORIGIN.table,
            _ORIGIN.owner,
            _ORIGIN.document,
        )
        is_declared = column.type is Type.JSON and not values
        if is_origin or is_declared or (values and seen.documents >= _MOSTLY * len(values)):
            found.append(
                Candidate(
                    table=table,
                    owner=owner,
                    document=column.name,
                    found=seen,
                    has_owner_name=named is not None,
                    is_one_per_owner=is_one_per_owner,
                )
            )
    return found


def propose_documents(candidate: Candidate) -> Proposal:
    """The entities of the documents that were sampled."""
    found = candidate.found
    entities = _origin_entities(found) if _is_like_origin(candidate) else []
    known = {entity.path for entity in entities}
    entities.extend(_entities_of_lists(found, known, {entity.kind for entity in entities}))
    notes = list(_notes(found))
    if not entities and found.documents:
        root = found.places[ROOT]
        parts = sort_fields(root, ())
        if parts.short or parts.long:
            kind = naming.kind_of(candidate.table.name.rpartition(".")[2])
            seen = f"one for each of {found.documents} documents"
            entities.append(explicit_entity(kind, root, parts, seen))
    if not entities:
        entities = _origin_entities(found)
        notes.append(
            "no document shows what could be found in it; these are the kinds of a career profile"
        )
    if len(entities) > MAX_ENTITIES:
        left_out = ", ".join(entity.place for entity in entities[MAX_ENTITIES:])
        notes.append(f"there are more lists, which were left out: {left_out}")
    return Proposal(
        documents=DocumentTable(
            table=candidate.table.name, owner=candidate.owner, document=candidate.document
        ),
        entities=tuple(entities[:MAX_ENTITIES]),
        chosen=_reason(candidate),
        notes=tuple(notes),
    )


def _reason(candidate: Candidate) -> str:
    found = candidate.found
    sampled = f"{found.documents} documents were sampled" if found.documents else "it is empty"
    named = "is undrift's usual layout" if candidate.is_origin else "holds a document per owner"
    owner = "" if candidate.has_owner_name else "; no column is called like an owner, so the "
    owner += "" if candidate.has_owner_name else "primary key is taken for it"
    return (
        f"{candidate.table.name}({candidate.owner}, {candidate.document}) {named}; {sampled}{owner}"
    )


def _is_like_origin(candidate: Candidate) -> bool:
    """Whether what is not there yet may still come under the usual names."""
    if not candidate.is_origin:
        return False
    return not candidate.found.documents or "experiences[*]" in candidate.found.places


def _origin_entities(found: Survey) -> list[ProposedEntity]:
    entities = []
    for spec in default_entities():
        place = found.places.get(spec.path or "")
        if place is None or not place.elements:
            entities.append(
                ProposedEntity(kind=spec.kind, path=spec.path, seen="none in the sample")
            )
        elif fits_defaults(spec.kind, place):
            parts = sort_fields(place, _lists_below(found, place))
            entities.append(default_entity(spec.kind, place, parts, _seen(place)))
    return entities


def _entities_of_lists(
    found: Survey, known: set[str | None], kinds: set[str]
) -> list[ProposedEntity]:
    """An entity for every list of objects that is not *known* yet."""
    entities = []
    for place in found.lists():
        if place.path in known or not _is_entity(place) or _is_read_by_its_parent(found, place):
            continue
        kind = naming.kind_of(place.name)
        parent = found.places.get(place.parent)
        if place.path.endswith("projects[*].updates[*]"):
            kind = "project_update"
        parts = sort_fields(place, _lists_below(found, place))
        if fits_defaults(kind, place):
            entities.append(default_entity(kind, place, parts, _seen(place)))
        elif parts.short or parts.long:
            kind = _free(kind, place, kinds)
            title = _title_of(parent) if parent is not None and parent.path != ROOT else None
            entities.append(explicit_entity(kind, place, parts, _seen(place), parent_title=title))
        else:
            continue
        kinds.add(entities[-1].kind)
    return entities


def _is_entity(place: Place) -> bool:
    """Whether its elements are something to be found."""
    if place.scalars * 2 >= place.elements:
        return place.path == "skills[*]" and place.scalars > 0
    return any(field.look.is_text for field in place.fields.values())


def _is_read_by_its_parent(found: Survey, place: Place) -> bool:
    """Whether the list's names are in the text of what encloses it, such as technologies."""
    parent = found.places.get(place.parent)
    kind = naming.kind_of(parent.name) if parent is not None else ""
    if parent is None or kind not in KIND_DEFAULTS or not fits_defaults(kind, parent):
        return False
    field = parent.fields.get(place.name)
    is_list_of_names = field is not None and field.look is Look.NAMES
    return is_list_of_names and place.name in variables(KIND_DEFAULTS[kind].text, where=kind)


def _lists_below(found: Survey, place: Place) -> set[str]:
    """The fields of *place* whose elements are entities of their own."""
    return {
        below.name
        for below in found.lists()
        if below.path.startswith(f"{place.path}.")
        and _is_entity(below)
        and not _is_read_by_its_parent(found, below)
    }


def _title_of(parent: Place) -> str | None:
    short = sort_fields(parent, ()).short
    title = short[0].name if short else None
    return title if title is not None and naming.is_readable(title) else None


def _free(kind: str, place: Place, taken: set[str]) -> str:
    """A kind that is nobody else's: ids of one kind must not meet."""
    if kind in KIND_DEFAULTS or kind in taken:
        above = place.parent.removesuffix("[*]").rpartition(".")[2]
        kind = f"{naming.kind_of(above)}_{kind}" if above != ROOT else f"{kind}_entry"
    free, number = kind, 2
    while free in taken or free in KIND_DEFAULTS:
        free, number = f"{kind}_{number}", number + 1
    return free


def _seen(place: Place) -> str:
    return f"{place.elements} in {place.documents} of the sampled documents"


def _notes(found: Survey) -> list[str]:
    notes = []
    if found.unreadable:
        notes.append(
            f"{found.unreadable} of the sampled documents hold no JSON object; their owners are "
            "unknown until that is corrected"
        )
    for place in found.lists():
        if place.unlike and place.documents and _is_entity(place):
            notes.append(
                f"{place.path} is something else than a list in {place.unlike} of the sampled "
                "documents; their owners are unknown until that is corrected"
            )
        elif place.parent == ROOT and not _is_entity(place) and _holds_words(place):
            notes.append(f"{place.path} is a list of words, and was left out")
    if found.unaddressable:
        notes.append("a name with a dot or a bracket cannot be part of a path, and was left out")
    return notes


def _holds_words(place: Place) -> bool:
    value = place.fields.get("value")
    return value is not None and value.look.is_text


def without_sample(table: FoundTable) -> Proposal:
    """The usual kinds, for a table of the usual names that cannot be sampled."""
    empty = Candidate(
        table=table,
        owner=_ORIGIN.owner,
        document=_ORIGIN.document,
        found=Survey(),
        has_owner_name=True,
        is_one_per_owner=True,
    )
    proposal = propose_documents(empty)
    return replace(
        proposal,
        chosen=f"{table.name}({_ORIGIN.owner}, {_ORIGIN.document}) is undrift's usual layout; it "
        f"was not sampled, as {table.why_not}",
        notes=(*proposal.notes, "run `undrift doctor`, which says how to let this role read it"),
    )


def is_usual(table: FoundTable) -> bool:
    """Whether *table* is what undrift reads without any configuration."""
    names = table.column_names
    return table.name == _ORIGIN.table and {_ORIGIN.owner, _ORIGIN.document} <= set(names)
