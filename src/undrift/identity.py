"""Who an element is: its view for templates, and its id, given or minted.

An element without an id gets one from its natural key. Its place in an array is never part of it:
sorting a list in the source must not look like a change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from undrift import fingerprint as hashes
from undrift.errors import InvalidDocument, UndriftError
from undrift.mapping import EntitySpec
from undrift.ports import Element
from undrift.templates import compile_value, is_template, variables

MAX_ID_BYTES = 1_000
MAX_OWNER_BYTES = 500
# Together with kind and model they must fit an index row: PostgreSQL's limit is 2,704 bytes.

View = dict[str, object]
_Lookup = Callable[[View], object]


class _Minted(NamedTuple):
    """An element whose id comes from its natural key."""

    identifier: _Identifier
    element: Element
    key: tuple[str, ...]

    @property
    def content(self) -> str:
        """A digest of what makes the element itself."""
        return self.identifier.content_of(self.element)


_SameId = dict[tuple[str, str], list[_Minted]]


class Identities:
    """Gives the elements of one owner their views and ids, parents before children.

    Args:
        entities: all entity specs of the mapping.

    Raises:
        ConfigError: a template of an id or key is not valid.
    """

    def __init__(self, entities: Sequence[EntitySpec]) -> None:
        self._identifiers = [_Identifier(spec, entities) for spec in entities]
        depths = [spec.path.count(".") if spec.path else 0 for spec in entities]
        self._levels = [
            [index for index, depth in enumerate(depths) if depth == level]
            for level in sorted(set(depths))
        ]

    def assign(self, owner_id: str, elements: Sequence[Sequence[Element]]) -> None:
        """Set ``view`` and ``entity_id`` of all *elements*, given by entity spec.

        Raises:
            InvalidDocument: an id cannot be used, or a template of an id or key fails.
        """
        earlier: _SameId = {}
        for level in self._levels:
            minted: _SameId = {}
            for index in level:
                self._identifiers[index].assign(owner_id, elements[index], minted)
            for identity, same in minted.items():
                before = earlier.setdefault(identity, [])
                if len(same) + len(before) > 1:
                    _tell_apart(same, before)
                before.extend(same)


class _Identifier:
    """The views and ids of one entity spec."""

    def __init__(self, spec: EntitySpec, entities: Sequence[EntitySpec]) -> None:
        self._kind = spec.kind
        self._text = spec.text
        self._aliases = tuple(spec.aliases.items())
        self._given = _lookup(spec, spec.id)
        self._key = tuple(_lookup(spec, part) for part in spec.key)
        # The entities below an element do not belong to its content, unless its text shows them.
        shown = variables(spec.text, where=f"kind {spec.kind}")
        self._not_content = _fields_of_children(spec, entities).difference(shown)

    def assign(self, owner_id: str, elements: Sequence[Element], minted: _SameId) -> None:
        """Set ``view`` and ``entity_id`` of *elements*, and add those without an id to *minted*."""
        for element in elements:
            view = self._view(element)
            try:
                given = self._given(view)
                if given is not None and given != "":
                    entity_id = _given_id(owner_id, self._kind, given)
                else:
                    key = tuple([_key_part(lookup(view)) for lookup in self._key])
                    entity_id = hashes.mint_id(key)
                    same = minted.setdefault((self._kind, entity_id), [])
                    same.append(_Minted(self, element, key))
            except UndriftError:
                raise
            except Exception as exc:
                raise self._failed(owner_id, exc) from exc
            element.entity_id = entity_id
            if view.get("id", "") == "":
                view["id"] = entity_id

    def content_of(self, element: Element) -> str:
        """A digest of the element's own fields, and of the text they are put into."""
        own = {name: v for name, v in element.fields.items() if name not in self._not_content}
        return hashes.content_digest((self._text, hashes.canonical_json(own))).hex()

    def _view(self, element: Element) -> View:
        """The fields that are not null, aliases resolved, with the enclosing element's view."""
        view = _without_nulls(element.fields)
        for name, aliases in self._aliases:
            value = view.get(name)
            if value and type(value) is str:
                continue
            if value is None or value == "":
                for alias in aliases:
                    other = view.get(alias)
                    if other is not None and other != "":
                        value = other
                        break
                else:
                    continue
            if isinstance(value, dict):
                value = value.get("name")
            if value is None:
                view.pop(name, None)  # an object without a name is no title
            else:
                view[name] = value
        if element.parent is not None:
            view["parent"] = view_of(element.parent)
        element.view = view
        return view

    def _failed(self, owner_id: str, exc: Exception) -> InvalidDocument:
        return InvalidDocument(
            owner_id,
            why=f"the id or key of kind {self._kind} fails on it ({type(exc).__name__}).",
            fix=f"make the id and key of [[entity]] kind = {self._kind!r} cope with this content",
        )


def _tell_apart(same: Sequence[_Minted], before: Sequence[_Minted]) -> None:
    """Give elements of one natural key ids of their own, unless their content is equal too.

    All of them gain the content digest: letting the first keep the plain id would make the array's
    order part of the identity. Those *before*, nearer to the root, keep theirs: their children
    already refer to it.
    """
    contents = [minted.content for minted in same]
    if len({*contents, *(minted.content for minted in before)}) == 1:
        return
    for (_, element, key), content in zip(same, contents, strict=True):
        given = element.entity_id
        element.entity_id = hashes.mint_id(key, content)
        if element.view is not None and element.view.get("id") == given:
            element.view["id"] = element.entity_id


def view_of(element: Element) -> View:
    """What ``parent`` is to the elements inside *element*."""
    if element.view is None:
        # An enclosing element that is no entity itself: its fields as they are.
        element.view = _without_nulls(element.fields)
        if element.parent is not None:
            element.view["parent"] = view_of(element.parent)
    return element.view


def _without_nulls(fields: Mapping[str, object]) -> View:
    view = dict(fields)
    if None in view.values():
        return {name: value for name, value in view.items() if value is not None}
    return view


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
            owner_id,
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
