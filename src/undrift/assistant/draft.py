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
from undrift.fingerprint import is_storable_id
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
    """

    entity_id: str
    fields: Fields
    view: Mapping[str, object]
    is_object: bool


class Draft:
    """One owner's document, open for a change.

    Raises:
        InvalidDocument: the document cannot be read as entities as it is.
    """

    def __init__(self, owner_id: str, raw: str, renderer: Renderer) -> None:
        self.owner_id = owner_id
        self._renderer = renderer
        self._paths = PathTree(renderer.mapping.entities)
        self.document = _lossless(owner_id, raw)
        self._plain = _plain(owner_id, raw)

    def entries(self, kind: str) -> list[Entry]:
        """The entities of *kind*, in the document's order."""
        identified = self._elements(self._renderer.identify(self._content(self._plain)), kind)
        ours, again = (
            self._elements(self._content(self.document).elements(), kind) for _ in range(2)
        )
        # An element made of a plain value is made anew by every walk.
        return [
            Entry(named.entity_id, _fields_of(own), named.view or {}, own.fields is same.fields)
            for named, own, same in zip(identified, ours, again, strict=True)
        ]

    def finished(self, kind: str, fields: Fields) -> tuple[str, str, Wanted]:
        """The changed document, and who the entity with these very *fields* is in it.

        Returns:
            The document as JSON, the entity's id, and everything the document now renders to.

        Raises:
            InvalidDocument: the change made the document unreadable, such as by an id given twice.
        """
        try:
            raw = orjson.dumps(self.document).decode()
        except TypeError as exc:
            raise InvalidDocument(
                self.owner_id,
                why="it holds half a surrogate pair, or is nested too deeply, and cannot be "
                "written back as it is.",
                fix="correct the document in the source",
            ) from exc
        changed = Draft(self.owner_id, raw, self._renderer)
        wanted = self._renderer.render(self._content(changed._plain))
        ours = self._elements(self._content(self.document).elements(), kind)
        (place,) = (number for number, own in enumerate(ours) if own.fields is fields)
        return raw, changed.entries(kind)[place].entity_id, wanted

    def _content(self, document: Mapping[str, object]) -> GivenProfile:
        return GivenProfile(self.owner_id, document, self._paths)

    def _elements(self, by_spec: Sequence[Sequence[Element]], kind: str) -> list[Element]:
        specs = self._renderer.mapping.entities
        return [
            element
            for spec, same in zip(specs, by_spec, strict=True)
            if spec.kind == kind
            for element in same
        ]


def _fields_of(element: Element) -> Fields:
    assert isinstance(element.fields, dict)
    return element.fields


def unwritable(value: object) -> str | None:
    """Why *value* cannot go into a document, or None: it must be JSON that every database takes."""
    try:
        json.dumps(value, allow_nan=False)
        orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return "it holds something that is no JSON"
    return None if _is_storable(value) else "it holds a NUL character"


def _is_storable(value: object) -> bool:
    if isinstance(value, str):
        return is_storable_id(value)
    if isinstance(value, dict):
        return all(map(_is_storable, (*value, *value.values())))
    return all(map(_is_storable, value)) if isinstance(value, list | tuple) else True


def _lossless(owner_id: str, raw: str) -> Fields:
    """*raw* decoded so that it can be written again with every number spelled as it was."""
    return _object(owner_id, raw, _LOSSLESS)


def _plain(owner_id: str, raw: str) -> Fields:
    return _object(owner_id, raw, _PLAIN)


def _object(owner_id: str, raw: str, decoder: json.JSONDecoder) -> Fields:
    try:
        document = decoder.decode(raw)
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


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_PLAIN = json.JSONDecoder(parse_constant=_refuse_constant)
_LOSSLESS = json.JSONDecoder(
    parse_float=orjson.Fragment, parse_int=_integer, parse_constant=_refuse_constant
)
