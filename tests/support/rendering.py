"""Rendering as the core does it, from a document to what the store should hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import pytest

from undrift.errors import InvalidDocument
from undrift.mapping import DocumentTable, EntitySpec, default_entities
from undrift.mapping import Mapping as SourceMapping
from undrift.model import Entity, Outline, Wanted
from undrift.ports import OwnerContent
from undrift.render import Renderer
from undrift.sources.documents import GivenProfile
from undrift.sources.paths import PathTree

JsonObject = Mapping[str, object]


def mapping_of(*entities: EntitySpec) -> SourceMapping:
    """The document layout with *entities*, or with the origin's if there are none."""
    return SourceMapping(documents=DocumentTable(), entities=entities or default_entities())


def rendered(document: JsonObject, *entities: EntitySpec, owner_id: str = "ann") -> Wanted:
    """What *document* renders to; without *entities* by the origin's layout.

    Its outline must say the same, also of a document that is refused.
    """
    mapping = mapping_of(*entities)
    content = GivenProfile(owner_id, document, PathTree(mapping.entities))
    renderer = Renderer(mapping)
    (outline,) = renderer.outlines([content])
    if isinstance(outline, InvalidDocument):
        with pytest.raises(InvalidDocument, match=re.escape(str(outline))):
            renderer.render(content)
        raise outline
    wanted = renderer.render(content)
    assert outline == outline_of(wanted)
    return wanted


def outline_of(wanted: Wanted) -> Outline:
    """The outline of *wanted*."""
    fingerprints = {identity: entity.fingerprint for identity, entity in wanted.entities.items()}
    return Outline(wanted.owner_id, fingerprints, wanted.counts, wanted.without_text)


def note_rendered(patch: pytest.MonkeyPatch) -> list[str]:
    """The owners that are rendered from now on, in either way."""
    owners: list[str] = []

    render, outlines = Renderer.render, Renderer.outlines

    def noted(renderer: Renderer, content: OwnerContent) -> Wanted:
        owners.append(content.owner_id)
        return render(renderer, content)

    def all_noted(
        renderer: Renderer, contents: Iterable[OwnerContent]
    ) -> Sequence[Outline | InvalidDocument]:
        asked = list(contents)
        owners.extend(content.owner_id for content in asked)
        return outlines(renderer, asked)

    patch.setattr(Renderer, "render", noted)
    patch.setattr(Renderer, "outlines", all_noted)
    return owners


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
