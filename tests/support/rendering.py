"""Rendering as the core does it, from a document to what the store should hold."""

from __future__ import annotations

from collections.abc import Mapping

from undrift.mapping import DocumentTable, EntitySpec, default_entities
from undrift.mapping import Mapping as SourceMapping
from undrift.model import Entity, Wanted
from undrift.render import Renderer
from undrift.sources.documents import GivenProfile
from undrift.sources.paths import PathTree

JsonObject = Mapping[str, object]


def mapping_of(*entities: EntitySpec) -> SourceMapping:
    """The document layout with *entities*, or with the origin's if there are none."""
    return SourceMapping(documents=DocumentTable(), entities=entities or default_entities())


def rendered(document: JsonObject, *entities: EntitySpec, owner_id: str = "ann") -> Wanted:
    """What *document* renders to; without *entities* by the origin's layout."""
    mapping = mapping_of(*entities)
    paths = PathTree(mapping.entities)
    return Renderer(mapping).render(GivenProfile(owner_id, document, paths))


def entities_of(wanted: Wanted, kind: str) -> list[Entity]:
    """The entities of one kind, by id."""
    return sorted(entity for (k, _), entity in wanted.entities.items() if k == kind)


def the_entity(wanted: Wanted) -> Entity:
    """The only entity there is."""
    (entity,) = wanted.entities.values()
    return entity


def texts_of(wanted: Wanted, kind: str) -> list[str]:
    """The texts of one kind, sorted."""
    return sorted(entity.text for entity in entities_of(wanted, kind))


def note(**settings: object) -> EntitySpec:
    """A small kind of its own: ``notes[*]``, whose text is its ``text``."""
    given: dict[str, object] = {"kind": "note", "path": "notes[*]", "text": "{{ text }}"}
    return EntitySpec(**{**given, **settings})  # type: ignore[arg-type]
