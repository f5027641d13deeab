"""A document that is being changed, seen as the entities it holds.

What the change does not touch comes out as it went in: numbers keep their spelling, keys their
order. Ids are those that checks and searches use, minted ones included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

import orjson

from undrift.errors import InvalidDocument
from undrift.model import Wanted
from undrift.ports import Element
from undrift.render import Renderer
from undrift.sources.documents import GivenProfile
from undrift.sources.paths import PathTree

Fields = dict[str, object]


class Entry(NamedTuple):
    """One entity of a draft.

    Attributes:
        fields: the document's own object; what is changed in it is changed in the document.
        view: its fields as templates see them, aliases resolved.
        is_object: false where the document has a plain value, which has no fields to change.
        spec: the place of its entity spec in the mapping.
    """

    entity_id: str
    fields: Fields
    view: Mapping[str, object]
    is_object: bool
    spec: int


class Draft:
    """One owner's document, open for a change.

    Raises:
        InvalidDocument: the document cannot be read as entities as it is.
    """

    def __init__(self, owner_id: str, raw: str, renderer: Renderer) -> None:
        self.owner_id = owner_id
        self._raw = raw
        self._renderer = renderer
        self._paths = PathTree(renderer.mapping.entities)
        self.document = _object(owner_id, raw, _LOSSLESS)
        self._entries = self._walked()

    def entries(self, kind: str) -> list[Entry]:
        """The entities of *kind* before the change, in the document's order."""
        return [entry for entry in self._entries if self._kind(entry.spec) == kind]

    def finished(self, kind: str, fields: Fields) -> tuple[str, str, Wanted]:
        """The changed document, and who the entity with these very *fields* is in it.

        Returns:
            The document as JSON, the entity's id, and everything the document now renders to.

        Raises:
            InvalidDocument: the change made the document unreadable, such as by an id given twice.
        """
        raw = self._encoded(self.document)
        changed = self._content(_object(self.owner_id, raw, _PLAIN))
        wanted = self._renderer.render(changed)
        identified = self._identified(changed)
        ours = self._content(self.document).elements()
        for spec, elements in enumerate(ours):
            for place, own in enumerate(elements):
                if own.fields is fields and self._kind(spec) == kind:
                    return raw, identified[spec][place].entity_id, wanted
        raise InvalidDocument(
            self.owner_id,
            why=f"no path of kind {kind} reaches the place that it was put into.",
            fix="correct the paths in undrift.toml",
        )

    def require_sound(self) -> None:
        """Tell a document that was broken before the change from one that the change broke.

        Raises:
            InvalidDocument: it could not be rendered, or not be written back, as it was.
        """
        self._encoded(_object(self.owner_id, self._raw, _LOSSLESS))
        self._renderer.render(self._content(_object(self.owner_id, self._raw, _PLAIN)))

    def _walked(self) -> list[Entry]:
        content = self._content(_object(self.owner_id, self._raw, _PLAIN))
        identified = self._identified(content)
        ours, again = (self._content(self.document).elements() for _ in range(2))
        # An element made of a plain value is made anew by every walk.
        return [
            Entry(named.entity_id, _fields_of(own), named.view or {}, own.fields is same.fields, n)
            for n, elements in enumerate(zip(identified, ours, again, strict=True))
            for named, own, same in zip(*elements, strict=True)
        ]

    def _identified(self, content: GivenProfile) -> Sequence[Sequence[Element]]:
        try:
            return self._renderer.identify(content)
        except (RecursionError, ValueError) as exc:
            raise InvalidDocument(
                self.owner_id,
                why="a value in it is nested too deeply, or a number of thousands of digits.",
                fix="correct the document in the source",
            ) from exc

    def _encoded(self, document: Fields) -> str:
        try:
            return orjson.dumps(document).decode()
        except TypeError as exc:
            raise InvalidDocument(
                self.owner_id,
                why="it holds half a surrogate pair, or is nested too deeply, and cannot be "
                "written back as it is.",
                fix="correct the document in the source",
            ) from exc

    def _content(self, document: Mapping[str, object]) -> GivenProfile:
        return GivenProfile(self.owner_id, document, self._paths)

    def _kind(self, spec: int) -> str:
        return self._renderer.mapping.entities[spec].kind


def is_same(own: object, given: Fields) -> bool:
    """Whether the document's *own* value is the object that is *given*, to every number's digit."""
    if not isinstance(own, dict) or own.keys() != given.keys():
        return False
    try:
        mine, yours = (orjson.dumps(one, option=orjson.OPT_SORT_KEYS) for one in (own, given))
    except TypeError:  # half a surrogate pair, which nothing that is given can hold
        return False
    return mine == yours


def _fields_of(element: Element) -> Fields:
    assert isinstance(element.fields, dict)
    return element.fields


class _KeyTwice(ValueError):
    """An object has a key twice; written back it would have it once."""


def _object(owner_id: str, raw: str, decoder: json.JSONDecoder) -> Fields:
    try:
        document = decoder.decode(raw)
    except _KeyTwice as exc:
        raise InvalidDocument(
            owner_id,
            why="an object in it has a key twice, and writing it back would lose one of them.",
            fix="correct the document in the source",
        ) from exc
    except (ValueError, RecursionError) as exc:
        raise InvalidDocument(
            owner_id,
            why="it is not valid JSON.",
            fix="correct the document in the source",
        ) from exc
    if not isinstance(document, dict):
        raise InvalidDocument(
            owner_id,
            why="it is valid JSON, but no object.",
            fix="store an object ({} for an empty profile)",
        )
    return document


def _integer(spelled: str) -> object:
    # Beyond 18 digits orjson writes no integers; -0 would lose its sign.
    return orjson.Fragment(spelled) if len(spelled) > 18 or spelled == "-0" else int(spelled)


def _with_each_key_once(pairs: list[tuple[str, object]]) -> Fields:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _KeyTwice
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_PLAIN = json.JSONDecoder(parse_constant=_refuse_constant)
_LOSSLESS = json.JSONDecoder(
    object_pairs_hook=_with_each_key_once,
    parse_float=orjson.Fragment,
    parse_int=_integer,
    parse_constant=_refuse_constant,
)
