"""What a sample of documents is made of: places, their fields, and what those look like. Pure.

A place is where elements lie, such as ``experiences[*]``; ``$`` is the document itself. Only counts
and names are kept, never a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

ROOT = "$"
MAX_DEPTH = 5
MAX_PLACES = 200
"""Documents that use ids for field names have as many places as ids; these are enough to see it."""

_LONG_CHARACTERS = 60
_EXAMINED_CHARACTERS = 200

_DATE = re.compile(r"\d{4}([-/.]\d{1,2}([-/.]\d{1,2}([T ].*)?)?)?|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}")
_LINK = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://\S+|www\.\S+|\S+@\S+\.\S+")
_CODE = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9a-fA-F]{16,}")
_LETTER = re.compile(r"[^\W\d_]")
_PATH_SIGNS = re.compile(r"[.\[\]]")


class Look(StrEnum):
    """What most of a field's values look like."""

    SHORT_TEXT = "short text"
    LONG_TEXT = "long text"
    NAMES = "list of names"
    DATE = "date"
    NUMBER = "number"
    FLAG = "flag"
    LINK = "link"
    CODE = "code"
    OBJECT = "object"
    NOTHING = "nothing"

    @property
    def is_text(self) -> bool:
        """Whether it has words in it."""
        return self in (Look.SHORT_TEXT, Look.LONG_TEXT, Look.NAMES)


@dataclass(slots=True)
class Field:
    """A field of the elements at one place.

    Attributes:
        present: elements in which it is neither null nor empty.
        characters: letters and signs of all its texts.
        is_id: every value is a string or an integer, and no two of one owner are equal.
        named_objects: values that are an object with a ``name``.
    """

    name: str
    present: int = 0
    characters: int = 0
    is_id: bool = True
    named_objects: int = 0
    _looks: dict[Look, int] = field(default_factory=dict)

    @property
    def look(self) -> Look:
        """What most of its values look like; long texts are seen over the average."""
        look = max(self._looks, key=self._looks.__getitem__, default=Look.NOTHING)
        if look is Look.SHORT_TEXT and self.characters > _LONG_CHARACTERS * self._looks[look]:
            return Look.LONG_TEXT
        return look

    def add(self, value: object) -> None:
        """Count one value."""
        if value is None or value == "" or value == [] or value == {}:
            return
        self.present += 1
        look = _look_of(value)
        self._looks[look] = self._looks.get(look, 0) + 1
        if look is Look.SHORT_TEXT:
            self.characters += len(str(value))
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            self.named_objects += 1
        if isinstance(value, bool) or not isinstance(value, str | int):
            self.is_id = False


@dataclass(slots=True)
class Place:
    """Where elements lie.

    Attributes:
        path: as a mapping writes it.
        elements: how many were seen, scalars included.
        scalars: elements that are no objects; templates see them as ``value``.
        documents: documents that have the place.
        unlike: documents that hold something else where the place is.
    """

    path: str
    elements: int = 0
    scalars: int = 0
    documents: int = 0
    unlike: int = 0
    fields: dict[str, Field] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last name of the path."""
        return self.path.removesuffix("[*]").rpartition(".")[2]

    @property
    def parent(self) -> str:
        """The place that encloses it."""
        above, _, _ = self.path.rpartition("[*].")
        return f"{above}[*]" if above else ROOT

    def share(self, name: str) -> float:
        """In which part of the elements the field *name* has a value, 0 to 1."""
        found = self.fields.get(name)
        return found.present / self.elements if found and self.elements else 0.0


@dataclass(slots=True)
class Survey:
    """What was seen.

    Attributes:
        documents: documents that are objects.
        unreadable: documents that are none, or no JSON.
        unaddressable: names that no path can hold, because of a dot or a bracket.
    """

    documents: int = 0
    unreadable: int = 0
    places: dict[str, Place] = field(default_factory=dict)
    unaddressable: set[str] = field(default_factory=set)

    def add(self, document: object) -> None:
        """Look at one document; what is no object is counted, and nothing else."""
        if not isinstance(document, Mapping):
            self.unreadable += 1
            return
        self.documents += 1
        found: dict[str, list[object]] = {ROOT: [document]}
        unlike: set[str] = set()
        _collect(document, "", 0, found, unlike, self.unaddressable)
        for path, elements in found.items():
            place = self._place(path)
            if place is not None:
                place.documents += 1
                _add_elements(place, elements)
        for path in unlike & self.places.keys():
            self.places[path].unlike += 1

    def lists(self) -> list[Place]:
        """Every place but the document itself, enclosing places first."""
        places = [place for path, place in self.places.items() if path != ROOT]
        return sorted(places, key=lambda place: place.path.count("[*]"))

    def _place(self, path: str) -> Place | None:
        if path not in self.places and len(self.places) >= MAX_PLACES:
            return None
        return self.places.setdefault(path, Place(path))


def survey(documents: Iterable[object]) -> Survey:
    """What *documents* are made of."""
    found = Survey()
    for document in documents:
        found.add(document)
    return found


def survey_rows(rows: Iterable[Mapping[str, object]]) -> Place:
    """What one owner's or many owners' *rows* are made of, as one place."""
    place = Place(ROOT)
    _add_elements(place, list(rows))
    return place


def _collect(
    fields: Mapping[str, object],
    prefix: str,
    depth: int,
    found: dict[str, list[object]],
    unlike: set[str],
    unaddressable: set[str],
) -> None:
    """Put the elements of every list below *fields* under the list's path."""
    if depth >= MAX_DEPTH:
        return
    for name, value in fields.items():
        if not isinstance(value, list | Mapping):
            unlike.add(f"{prefix}{name}[*]") if value is not None else None
            continue
        if not name or _PATH_SIGNS.search(name) or "\x00" in name:
            unaddressable.add(name)
            continue
        if isinstance(value, Mapping):
            unlike.add(f"{prefix}{name}[*]")
            _collect(value, f"{prefix}{name}.", depth + 1, found, unlike, unaddressable)
            continue
        path = f"{prefix}{name}[*]"
        elements = [item for item in value if item is not None]
        if any(isinstance(item, list) for item in elements):
            unlike.add(path)
            continue
        found.setdefault(path, []).extend(elements)
        for item in elements:
            if isinstance(item, Mapping):
                _collect(item, f"{path}.", depth + 1, found, unlike, unaddressable)


def _add_elements(place: Place, elements: list[object]) -> None:
    """Count the elements that one document has at *place*."""
    values: dict[str, set[object]] = {}
    for element in elements:
        place.elements += 1
        is_object = isinstance(element, Mapping)
        place.scalars += not is_object
        fields = element if isinstance(element, Mapping) else {"value": element}
        for name, value in fields.items():
            found = place.fields.setdefault(name, Field(name))
            found.add(value)
            if isinstance(value, str | int) and value != "":
                seen = values.setdefault(name, set())
                if value in seen:
                    found.is_id = False
                seen.add(value)


def _look_of(value: object) -> Look:
    if isinstance(value, bool):
        return Look.FLAG
    if isinstance(value, list):
        return Look.NAMES if any(map(_is_name, value)) else Look.OBJECT
    if isinstance(value, Mapping):
        return Look.OBJECT
    if not isinstance(value, str):
        return Look.NUMBER
    text = value[:_EXAMINED_CHARACTERS].strip()
    for pattern, look in ((_DATE, Look.DATE), (_LINK, Look.LINK), (_CODE, Look.CODE)):
        if pattern.fullmatch(text):
            return look
    return Look.SHORT_TEXT if _LETTER.search(text) else Look.NUMBER


def _is_name(item: object) -> bool:
    """Whether the template filter ``names`` would print it."""
    name = item.get("name") if isinstance(item, Mapping) else item
    return isinstance(name, str) and _LETTER.search(name) is not None
