"""Where in a document the assistant's entries belong."""

from __future__ import annotations

from undrift.errors import InvalidDocument, UnsupportedError
from undrift.mapping import EntitySpec
from undrift.mapping import Mapping as SourceMapping
from undrift.templates import is_template

_EACH = "[*]"


class Places:
    """The lists of experiences and of their projects, as the mapping's paths name them.

    Raises:
        UnsupportedError: the mapping has no such lists.

    Attributes:
        id_fields: by kind, the field that holds an entry's id.
        below_experience: fields of an experience that hold other entities.
    """

    def __init__(self, mapping: SourceMapping) -> None:
        experience = _spec(mapping, "experience", inside="")
        path = experience.path or ""
        project = _spec(mapping, "project", inside=f"{path}.")
        self._experiences = path.removesuffix(_EACH).split(".")
        self._projects = (project.path or "").removeprefix(f"{path}.").removesuffix(_EACH)
        self.id_fields = {"experience": experience.id, "project": project.id}
        prefix = f"{path}."
        paths = [spec.path or "" for spec in mapping.entities]
        self.below_experience = frozenset(
            below.removeprefix(prefix).split(".")[0].removesuffix(_EACH)
            for below in paths
            if below.startswith(prefix)
        )

    def experiences_of(self, document: dict[str, object]) -> list[object]:
        """The list of experiences in *document*, created if there is none."""
        *objects, name = self._experiences
        for inner in objects:
            value = document.setdefault(inner, {})
            assert isinstance(value, dict)  # the draft has been read along this path
            document = value
        return _list_in(document, name)

    def projects_of(self, experience: dict[str, object], owner_id: str) -> list[object]:
        """The list of projects in *experience*, created if there is none."""
        found = _list_in(experience, self._projects)
        if not isinstance(found, list):
            raise InvalidDocument(
                owner_id,
                why=f"{self._projects!r} in one of its experiences is no list.",
                fix="correct it in the source",
            )
        return found


def _list_in(fields: dict[str, object], name: str) -> list[object]:
    found = fields.get(name)
    if found is None:
        found = fields[name] = []
    return found  # type: ignore[return-value]  # the draft has been read along this path


def _spec(mapping: SourceMapping, kind: str, *, inside: str) -> EntitySpec:
    for spec in mapping.entities:
        path = spec.path or ""
        rest = path.removeprefix(inside)
        is_list = (
            rest.endswith(_EACH) and rest.count(_EACH) == 1 and (not inside or "." not in rest)
        )
        if spec.kind == kind and path.startswith(inside) and is_list and not is_template(spec.id):
            return spec
    where = "a list inside the experiences" if inside else "a list, such as experiences[*]"
    raise UnsupportedError(
        f"The assistant finds no place for a {kind}",
        why=f"no [[entity]] of kind {kind!r} has a path that is {where}, with a plain id.",
        fix="give it one in undrift.toml, or write the document by your own means and call "
        "sync(owner)",
    )
