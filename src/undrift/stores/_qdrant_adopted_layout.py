"""A collection that another program filled: where its points hold what a stamp says.

The stamp is an object beside the owner's field. A program that writes its point anew replaces the
whole payload, and with it the stamp, so that nothing false is left behind. A tombstone and a claim
are points with nothing but such an object, and without a vector: no search finds them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from undrift.adoption import Field, StoreFields
from undrift.errors import ConfigError
from undrift.stores._adopted import STAMP_KEY, as_number, id_at, misfit, typed, value_at
from undrift.stores._qdrant_conditions import Condition, Equals, OneOf, either
from undrift.stores._qdrant_points import FoundCollection, Index, Payload, Points, json_path

SAMPLE_POINTS = 100

CHANGE_DIMENSION = (
    "the collection was filled with vectors of another model: set embedder.name in undrift.toml to "
    "the one that filled it"
)

_TEXTS, _NUMBERS = frozenset({"keyword", "uuid"}), frozenset({"integer"})

STAMP_INDEXES: Mapping[str, Index] = {
    "namespace": Index("keyword"),
    "owner_id": Index("keyword"),
    "model": Index("keyword"),
    "version": Index("integer"),
    "deleted": Index("integer"),
    "text_hash": Index("uuid"),
}
"""What conditions name of a stamp, and of a tombstone; as in undrift's own collections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdoptedLayout:
    """Where the points hold what.

    Attributes:
        vector: the name of the vectors that are searched.
        distance: their metric, as Qdrant calls it.
        above_stamp: the path of the object that holds the stamp; empty for the payload itself.
        owner_is_number, entity_is_number: so that what is written is a number too.
        indexes: those that the collection had when it was looked at.
        is_strict: conditions may only name fields with an index.
        is_sampled: there were points that told of which type ids are.
    """

    fields: StoreFields
    vector: str
    dimension: int
    distance: str
    above_stamp: tuple[str, ...]
    owner_is_number: bool
    entity_is_number: bool
    indexes: Mapping[str, str]
    is_strict: bool
    is_sampled: bool

    @property
    def stamp(self) -> tuple[str, ...]:
        """The path of the stamp."""
        return (*self.above_stamp, STAMP_KEY)

    def stamp_field(self, name: str) -> str:
        """A field of the stamp's, as conditions name it."""
        return json_path((*self.stamp, name))

    @property
    def owner_field(self) -> str:
        """The owner's field, as conditions name it."""
        return json_path(self.fields.owner.path)

    @property
    def was_written(self) -> bool:
        """Whether undrift has ever prepared the collection, so that a tombstone may be there."""
        return self.stamp_field("owner_id") in self.indexes

    def missing_indexes(self) -> dict[str, Index]:
        """Those that conditions need and the collection has not, by field."""
        wanted = {self.stamp_field(name): index for name, index in STAMP_INDEXES.items()}
        kind = "integer" if self.owner_is_number else "keyword"
        wanted[self.owner_field] = Index(kind)
        return {field: index for field, index in wanted.items() if field not in self.indexes}

    def read(self, *, with_text: bool = True) -> list[str]:
        """The fields that say what a point is, as paths."""
        parts = self.fields
        read = [parts.owner, parts.kind, parts.entity_id, parts.model]
        read += [parts.text] if with_text else []
        paths = [field.path for field in read if field is not None and field.path]
        paths += [path for path, _ in self.fixed()]
        return [*dict.fromkeys(map(json_path, [*paths, self.stamp]))]

    def fixed(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """What every managed point has, by path."""
        for path, value in self.fields.fixed.items():
            yield tuple(path.split(".")), value

    def of_owners(self, owners: Sequence[str]) -> Condition | None:
        """That a point is of one of *owners*; None if it cannot be.

        An index on numbers holds no texts, and the other way round. Without one, both are asked
        for.
        """
        kind = self.indexes.get(self.owner_field)
        alternatives: list[Condition] = []
        if kind not in _NUMBERS:
            alternatives.append(OneOf(self.owner_field, list(owners)))
        if kind not in _TEXTS:
            numbers = [number for number in map(as_number, owners) if number is not None]
            alternatives += [OneOf(self.owner_field, numbers)] if numbers else []
        return either(alternatives) if alternatives else None

    def is_owner(self, owner_id: str) -> Condition:
        """That a point is of *owner_id*, as its field would hold it."""
        return Equals(self.owner_field, self.owner_value(owner_id))

    def owner_value(self, owner_id: str) -> str | int:
        """*owner_id* as the collection's points hold it."""
        return typed(owner_id, is_number=self.owner_is_number)

    def entity_value(self, entity_id: str) -> str | int:
        """*entity_id* as the collection's points hold it."""
        return typed(entity_id, is_number=self.entity_is_number)


def find_adopted(points: Points, fields: StoreFields) -> AdoptedLayout:
    """What the collection is like.

    Raises:
        ConfigError: there is none, or it is not as *fields* says.
    """
    found = points.find()
    if found is None:
        raise ConfigError(
            "There is no such collection",
            why=f"[store.fields] says that another program filled {points.location}, and there is "
            "no such collection.",
            fix="correct the collection's name in VECTOR_URL, or leave [store.fields] out of "
            "undrift.toml and run `undrift sync --all`, which creates one of undrift's own",
        )
    vector = _vector(found, fields.vector, points.location)
    foreign = _sample(points)
    if any('"' in key for key in (*fields.owner.path, *fields.entity_id.path)):
        raise misfit(points.location, "names with quotation marks", "name other fields in")
    if fields.id is not None:
        raise misfit(points.location, "a point has one id, Qdrant's own", "leave id out of")
    above = fields.owner.path[:-1] if fields.stamp is None else fields.stamp.path
    return AdoptedLayout(
        fields=fields,
        vector=vector,
        dimension=found.vectors[vector].dimension,
        distance=found.vectors[vector].distance,
        above_stamp=above,
        owner_is_number=_is_number(fields.owner, foreign),
        entity_is_number=_is_number(fields.entity_id, foreign),
        indexes=found.indexes,
        is_strict=found.is_strict,
        is_sampled=bool(foreign),
    )


def require_fields(points: Points, fields: StoreFields) -> None:
    """See that some point has what names its owner and entity; an empty collection says nothing.

    Raises:
        ConfigError: none has.
    """
    sample = _sample(points)
    for name, field in (("owner", fields.owner), ("entity_id", fields.entity_id)):
        if sample and not any(id_at(payload, field.path) for payload in sample):
            there = sorted({path for payload in sample for path in paths_in(payload)})
            raise misfit(
                points.location,
                f"none of {len(sample)} points has {field} as a text or a whole number; there are "
                f"{', '.join(there) or 'no fields'}",
                f"correct {name} in",
            )


def paths_in(payload: Payload, above: str = "") -> Iterator[str]:
    """The dotted paths of a payload's fields, undrift's own left out."""
    for name, value in payload.items():
        if name == STAMP_KEY:
            continue
        if isinstance(value, Mapping):
            yield from paths_in(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def _vector(found: FoundCollection, field: Field | None, location: str) -> str:
    names = ", ".join(sorted(name or "the nameless one" for name in found.vectors)) or "none"
    if field is None:
        if len(found.vectors) == 1:
            return next(iter(found.vectors))
        raise misfit(
            location,
            f"its points' vectors are {names}, not just one",
            'name the one that is searched, as in vector = "text", in',
        )
    name = ".".join(field.path)
    if name not in found.vectors:
        raise misfit(location, f"it has no vector {name}; there are {names}", "correct vector in")
    return name


def _sample(points: Points) -> list[Payload]:
    found = points.page(None, None, None, SAMPLE_POINTS).points
    return [point.payload for point in found if not _is_undrifts(point.payload)]


def _is_number(field: Field, sample: Sequence[Payload]) -> bool:
    """Whether the first point that has the field has a number there."""
    values = (value_at(payload, field.path) for payload in sample)
    first = next((value for value in values if value is not None), None)
    return isinstance(first, int) and not isinstance(first, bool)


def _is_undrifts(payload: Payload) -> bool:
    """Whether a point is a tombstone or a claim: it has nothing but a stamp, however deep."""
    return next(paths_in(payload), None) is None
