"""Which parts of the source become entities.

A `Mapping` is the configuration's `[[entity]]` list after its defaults are filled in. The defaults
are the career assistant's layout that undrift grew from, so that it needs no configuration.
"""

from __future__ import annotations

from collections.abc import Mapping as Dict
from dataclasses import dataclass, field, replace
from typing import NamedTuple

MAX_EMBEDDED_CHARACTERS = 20_000
"""Only the beginning of a longer text is embedded; its whole is fingerprinted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntitySpec:
    """How one kind of entity is found and rendered.

    Several specs may share a kind; a kind's ids are unique per owner across all of them.

    Attributes:
        path: where in a document, such as ``experiences[*].projects[*]``; None for a table.
        table: the table with a row per entity; None for a document.
        owner: the table's owner column.
        where: an SQL condition on the table's rows; empty for all rows.
        id: the field that holds the id, or a template; an element without one gets a minted id.
        key: fields or templates that make up the natural key of an element without an id.
        text: the Jinja template of the text.
        metadata: fields kept beside the vector, dotted to reach into ``parent``.
        aliases: other names a field is read by, in order of preference. Such a field may also be
            an object with a ``name``.
    """

    kind: str
    path: str | None = None
    table: str | None = None
    owner: str = ""
    where: str = ""
    id: str = "id"
    key: tuple[str, ...] = ()
    text: str = ""
    metadata: tuple[str, ...] = ()
    aliases: Dict[str, tuple[str, ...]] = field(default_factory=dict)


class FieldsRead(NamedTuple):
    """The fields that an entity spec reads, without their aliases.

    Attributes:
        required: those that somebody asked for; a kind's defaults cope without theirs.
    """

    all: frozenset[str]
    required: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentTable:
    """The table that holds one JSON document per owner."""

    table: str = "profiles"
    owner: str = "user_id"
    document: str = "filtered_data"
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """The whole description: the document table, if there is one, and the entities."""

    documents: DocumentTable | None
    entities: tuple[EntitySpec, ...]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Configured kinds, each once, in the order they are first named."""
        return tuple(dict.fromkeys(spec.kind for spec in self.entities))


_TITLE = ("position", "name")
_PERIOD = {"start": ("startDate", "start_date"), "end": ("endDate", "end_date")}
_DESCRIPTION = {"description": ("summary",)}

_PROJECT_TEXT = (
    "{{ title }}"
    "{% if parent.title %} ({{ parent.title }}{% if parent.company %} at {{ parent.company }}"
    "{% endif %}){% endif %}"
    "{% if role %}, {{ role }}{% endif %}"
    "{% if description %}. {{ description }}{% endif %}"
    "{% if technologies %} Technologies: {{ technologies | names }}.{% endif %}"
)

_PROJECT = EntitySpec(
    kind="project",
    key=("parent.id", "title"),
    text=_PROJECT_TEXT,
    metadata=("title", "role", "parent.id"),
    aliases={"title": _TITLE, "technologies": ("keywords",), **_DESCRIPTION, **_PERIOD},
)

KIND_DEFAULTS: Dict[str, EntitySpec] = {
    "experience": EntitySpec(
        kind="experience",
        path="experiences[*]",
        key=("company", "title", "start"),
        text=(
            "{{ title }}{% if company %} at {{ company }}{% endif %}"
            "{% if start %} from {{ start }} to {{ end or 'present' }}{% endif %}"
            "{% if description %}. {{ description }}{% endif %}"
        ),
        metadata=("title", "company", "start", "end"),
        aliases={
            "title": _TITLE,
            "company": ("name", "organization"),
            **_PERIOD,
            **_DESCRIPTION,
        },
    ),
    "project": _PROJECT,
    "project_update": EntitySpec(
        kind="project_update",
        path="experiences[*].projects[*].updates[*]",
        key=("parent.id", "date", "title"),
        text=(
            "{{ title }}{% if parent.title %} ({{ parent.title }}){% endif %}"
            "{% if date %}, {{ date }}{% endif %}"
            "{% if description %}. {{ description }}{% endif %}"
            "{% if skills %} Skills: {{ skills | names }}.{% endif %}"
        ),
        metadata=("title", "date", "parent.id"),
        aliases={"title": ("name",), **_DESCRIPTION},
    ),
    "education": EntitySpec(
        kind="education",
        path="education[*]",
        key=("school", "degree", "start"),
        text=(
            "{{ degree }}{% if field %}{% if degree %} in {% endif %}{{ field }}{% endif %}"
            "{% if school %}{% if degree or field %} at {% endif %}{{ school }}{% endif %}"
            "{% if start %} from {{ start }} to {{ end or 'present' }}{% endif %}"
            "{% if description %}. {{ description }}{% endif %}"
        ),
        metadata=("school", "degree", "field", "start", "end"),
        aliases={
            "school": ("institution",),
            "degree": ("studyType",),
            "field": ("area",),
            **_PERIOD,
            **_DESCRIPTION,
        },
    ),
    "skill": EntitySpec(
        kind="skill",
        path="skills[*]",
        key=("name",),
        text=(
            "{{ name }}{% if level %} ({{ level }}){% endif %}"
            "{% if keywords %}: {{ keywords | names }}{% endif %}"
        ),
        metadata=("name", "level"),
        aliases={"name": ("value", "title")},
    ),
}
"""What an ``[[entity]]`` of one of these kinds need not say."""


def default_entities() -> tuple[EntitySpec, ...]:
    """The origin's entities: where they lie in its document, in reading order."""
    kinds = KIND_DEFAULTS
    return (
        kinds["experience"],
        replace(_PROJECT, path="experiences[*].projects[*]"),
        kinds["project_update"],
        kinds["education"],
        replace(_PROJECT, path="projects[*]"),
        kinds["skill"],
    )
