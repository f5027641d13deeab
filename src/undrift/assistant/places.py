"""Where in a document the assistant's entries belong, and how its fields are spelled there."""

from __future__ import annotations

from collections.abc import Mapping

from undrift.assistant.draft import Draft, Entry, Fields
from undrift.errors import InvalidDocument, UnsupportedError
from undrift.mapping import EntitySpec
from undrift.mapping import Mapping as SourceMapping
from undrift.sources.paths import ROOT
from undrift.templates import is_template, variables

_EACH = "[*]"
_NOTHING: tuple[object, ...] = (None, "", [], {})


class Places:
    """The lists of experiences and of their projects, as the mapping's paths name them.

    Raises:
        UnsupportedError: the mapping has no list of experiences.

    Attributes:
        experience: the entity spec whose list takes new experiences.
    """

    def __init__(self, mapping: SourceMapping) -> None:
        self._specs = mapping.entities
        found = [spec for spec in self._specs if _is_list(spec, "experience", inside="")]
        if not found:
            raise _no_place("experience", "a list, such as experiences[*]")
        # Where there are several lists, the one whose entries have projects.
        self.experience = next((spec for spec in found if self._projects_in(spec)), found[0])

    @property
    def project(self) -> EntitySpec:
        """The entity spec of the projects inside an experience.

        Raises:
            UnsupportedError: the mapping has none.
        """
        found = self._projects_in(self.experience)
        if found is None:
            raise _no_place("project", "a list inside the experiences")
        return found

    def experiences_of(self, draft: Draft) -> list[object]:
        """The list of experiences in *draft*, created if there is none."""
        fields = draft.document
        *objects, name = _path(self.experience).removesuffix(_EACH).split(".")
        for inner in objects:
            if fields.get(inner) is None:
                fields[inner] = {}
            value = fields[inner]
            if not isinstance(value, dict):
                raise _misplaced(draft.owner_id, inner, "object")
            fields = value
        return _list_in(fields, name, draft.owner_id)

    def fixed_fields(self, entry: Entry) -> frozenset[str]:
        """Fields of *entry* that hold its id, or other entities, by the paths of its own list."""
        own = self._specs[entry.spec]
        prefix = f"{_path(own)}."
        below = (path for path in map(_path, self._specs) if path.startswith(prefix))
        inside = [path.removeprefix(prefix) for path in below]
        return frozenset(map(_first_field, (own.id, *inside)))

    def takes_projects(self, entry: Entry) -> bool:
        """Whether projects inside this experience are found by the mapping's paths."""
        return self._specs[entry.spec] is self.experience

    def projects_of(self, entry: Entry, owner_id: str) -> list[object]:
        """The list of projects in an experience, created if there is none."""
        prefix = f"{_path(self.experience)}."
        name = _path(self.project).removeprefix(prefix).removesuffix(_EACH)
        return _list_in(entry.fields, name, owner_id)

    def _projects_in(self, experience: EntitySpec) -> EntitySpec | None:
        inside = f"{_path(experience)}."
        found = (spec for spec in self._specs if _is_list(spec, "project", inside=inside))
        return next(found, None)


def has_text(spec: EntitySpec, fields: Mapping[str, object]) -> bool:
    """Whether *fields* hold anything of their own that the text is made of."""
    names = {*variables(spec.text, where=f"kind {spec.kind}")} - {"parent"}
    spelled = [name for field in names for name in (field, *spec.aliases.get(field, ()))]
    values = (fields.get(name) for name in spelled)
    given = (value.strip() if isinstance(value, str) else value for value in values)
    return not names or any(value not in _NOTHING for value in given)


def spelled_as_in(entry: Entry, spec: EntitySpec, changes: Fields) -> Fields:
    """*changes* under the names by which the entry has these fields already.

    A document that calls a title ``position`` keeps doing so; a ``title`` beside it would leave
    the application with the old one. An alias that stands for two fields at once is left alone.
    """
    in_use = {
        name: alias
        for name, aliases in spec.aliases.items()
        if entry.fields.get(name) in _NOTHING
        and (alias := next((a for a in aliases if entry.fields.get(a) not in _NOTHING), None))
    }
    own = list(in_use.values())
    return {
        in_use[name]
        if own.count(in_use.get(name, "")) == 1 and in_use[name] not in changes
        else name: value
        for name, value in changes.items()
    }


def _path(spec: EntitySpec) -> str:
    return (spec.path or "").removeprefix(f"{ROOT}.")


def _first_field(path: str) -> str:
    return path.split(".")[0].removesuffix(_EACH)


def _is_list(spec: EntitySpec, kind: str, *, inside: str) -> bool:
    """Whether *spec* is a plain list of *kind* whose entries have an id of their own."""
    path = _path(spec)
    rest = path.removeprefix(inside)
    return (
        spec.kind == kind
        and path.startswith(inside)
        and rest.endswith(_EACH)
        and rest.count(_EACH) == 1
        and (not inside or "." not in rest)
        and not is_template(spec.id)
        and "." not in spec.id
    )


def _list_in(fields: Fields, name: str, owner_id: str) -> list[object]:
    if fields.get(name) is None:
        fields[name] = []
    found = fields[name]
    if not isinstance(found, list):
        raise _misplaced(owner_id, name, "list")
    return found


def _misplaced(owner_id: str, name: str, expected: str) -> InvalidDocument:
    return InvalidDocument(
        owner_id, why=f"{name!r} in it is no {expected}.", fix="correct it in the source"
    )


def _no_place(kind: str, where: str) -> UnsupportedError:
    return UnsupportedError(
        f"The assistant finds no place for a {kind}",
        why=f"no [[entity]] of kind {kind!r} has a path that is {where}, with a plain id.",
        fix="give it one in undrift.toml, or write the document by your own means and call "
        "sync(owner)",
    )
