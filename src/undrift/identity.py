"""Who an element is: its view for templates, and its id, given or minted.

An element without an id gets one from its natural key. Its place in an array is never part of it:
sorting a list in the source must not look like a change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from undrift import fingerprint as hashes
from undrift.errors import InvalidDocument
from undrift.mapping import EntitySpec
from undrift.ports import Element
from undrift.templates import compile_value, is_template, variables

MAX_ID_BYTES = 1_000
MAX_OWNER_BYTES = 500
# Together with kind and model they must fit an index row: PostgreSQL's limit is 2,704 bytes.

View = dict[str, object]
_Lookup = Callable[[View], object]


class Identifier:
    """Gives the elements of one entity spec their views and ids.

    Args:
        entities: all specs, to tell an element's own fields from the entities below it.
    """

    def __init__(self, spec: EntitySpec, entities: Sequence[EntitySpec]) -> None:
        self._kind = spec.kind
        self._aliases = tuple(spec.aliases.items())
        self._given = _lookup(spec, spec.id)
        self._key = tuple(_lookup(spec, part) for part in spec.key)
        self._fields_of_children = _fields_of_children(spec, entities)

    def assign(self, owner_id: str, elements: Sequence[Element]) -> None:
        """Set ``view`` and ``entity_id`` of *elements*; their parents must have theirs already.

        Raises:
            InvalidDocument: an id cannot be used.
        """
        minted: dict[str, list[tuple[Element, tuple[str, ...]]]] = {}
        for element in elements:
            view = self._view(element)
            given = self._given(view)
            if given is not None and given != "":
                element.entity_id = _given_id(owner_id, self._kind, given)
            else:
                key = tuple(_key_part(lookup(view)) for lookup in self._key)
                element.entity_id = hashes.mint_id(key)
                minted.setdefault(element.entity_id, []).append((element, key))
        for same_key in minted.values():
            if len(same_key) > 1:
                self._tell_apart(same_key)
        for element in elements:
            if element.view is not None and element.view.get("id") in (None, ""):
                element.view["id"] = element.entity_id

    def _view(self, element: Element) -> View:
        """The fields that are not null, aliases resolved, with the enclosing element's view."""
        view = {name: value for name, value in element.fields.items() if value is not None}
        for name, aliases in self._aliases:
            value = view.get(name)
            if value and type(value) is str:
                continue
            if value is None or value == "":
                value = next((view[a] for a in aliases if view.get(a) not in (None, "")), value)
            if isinstance(value, dict):
                value = value.get("name")
            if value is not None:
                view[name] = value
        if element.parent is not None:
            view["parent"] = view_of(element.parent)
        element.view = view
        return view

    def _tell_apart(self, same_key: Sequence[tuple[Element, tuple[str, ...]]]) -> None:
        """Give elements of one natural key ids of their own, unless their content is equal too.

        All of them gain the content digest: letting the first keep the plain id would make the
        array's order part of the identity.
        """
        contents = [self._own_content(element) for element, _ in same_key]
        if len(set(contents)) == 1:
            return
        for (element, key), content in zip(same_key, contents, strict=True):
            element.entity_id = hashes.mint_id(key, content)

    def _own_content(self, element: Element) -> str:
        """A digest of the element's own fields; the entities below it do not belong to it."""
        below = self._fields_of_children
        own = {name: value for name, value in element.fields.items() if name not in below}
        return hashes.content_digest((hashes.canonical_json(own),)).hex()


def view_of(element: Element) -> View:
    """What ``parent`` is to the elements inside *element*."""
    if element.view is None:
        # An enclosing element that is no entity itself: its fields as they are.
        element.view = {name: v for name, v in element.fields.items() if v is not None}
        if element.parent is not None:
            element.view["parent"] = view_of(element.parent)
    return element.view


def dotted(name: str) -> _Lookup:
    """A lookup of *name* in a view; ``parent.title`` reaches into nested objects."""
    steps = name.split(".")
    if len(steps) == 1:
        return lambda view: view.get(name)

    def look(view: View) -> object:
        value: object = view
        for step in steps:
            if not isinstance(value, dict):
                return None
            value = value.get(step)
        return value

    return look


def require_storable(owner_id: str, what: str, value: str, limit: int) -> None:
    """Refuse an id that some store could not hold as it is.

    Raises:
        InvalidDocument: it holds what no store takes, or is too long.
    """
    if not hashes.is_storable_id(value):
        raise InvalidDocument(
            hashes.storable_text(owner_id),
            why=f"the {what} {value!r} holds a NUL or half a surrogate pair, which no store takes.",
            fix="correct the id in the source; ids are never altered",
        )
    if len(value) * 4 > limit and len(value.encode()) > limit:
        raise InvalidDocument(
            owner_id[:80],
            why=f"the {what} is longer than {limit} bytes.",
            fix="use a shorter id, or a template such as id = '{{ … | truncate }}'",
        )


def _given_id(owner_id: str, kind: str, given: object) -> str:
    if type(given) is str and len(given) < MAX_ID_BYTES and given.isascii() and "\0" not in given:
        return given  # nearly all ids
    if isinstance(given, bool | float | list | dict):
        raise InvalidDocument(
            owner_id,
            why=f"the id of one {kind} is a {type(given).__name__}, not a string or an integer.",
            fix="give it a string id, or none, so that its natural key is used",
        )
    value = str(given)
    require_storable(owner_id, f"id of one {kind}", value, MAX_ID_BYTES)
    return value


def _key_part(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else hashes.canonical_json(value)


def _lookup(spec: EntitySpec, value: str) -> _Lookup:
    """A lookup of an id or a part of a key, which may be a field or a template."""
    if not is_template(value):
        return dotted(value)
    variables(value, where=f"an id or key of kind {spec.kind}")  # refuses a malformed one
    template = compile_value(value)
    return lambda view: template(view).strip()


def _fields_of_children(spec: EntitySpec, entities: Sequence[EntitySpec]) -> frozenset[str]:
    if not spec.path:
        return frozenset()
    prefix = f"{spec.path}."
    paths = [other.path or "" for other in entities]
    below = [path[len(prefix) :] for path in paths if path.startswith(prefix)]
    return frozenset(path.split(".")[0].removesuffix("[*]") for path in below)
