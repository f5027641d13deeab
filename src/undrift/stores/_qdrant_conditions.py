"""Conditions on points, in the few words that undrift needs.

Both roads to Qdrant, the HTTP client and the engine in this process, translate them into classes of
their own; what they mean is written here once.

An empty list of alternatives means "everything" to Qdrant, and "nothing" to whoever wrote the list.
So `Either` and `OneOf` refuse to be empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Equals:
    """A field is exactly this."""

    field: str
    value: str | int


@dataclass(frozen=True, slots=True)
class OneOf:
    """A field is one of these."""

    field: str
    values: list[str] | list[int]

    def __post_init__(self) -> None:
        assert self.values, "an empty list of values would let everything pass"


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A field is a number, and not below this one."""

    field: str
    number: int


@dataclass(frozen=True, slots=True)
class Lacks:
    """A field is not there, null, or an empty list."""

    field: str


@dataclass(frozen=True, slots=True)
class HasId:
    """The point's own id is one of these."""

    vector_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class HasVector:
    """The point has a vector of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class Not:
    """The condition does not hold."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class Every:
    """All of the conditions hold."""

    conditions: Sequence[Condition]


@dataclass(frozen=True, slots=True)
class Either:
    """At least one of the conditions holds."""

    conditions: Sequence[Condition]

    def __post_init__(self) -> None:
        assert self.conditions, "no alternative at all would let everything pass"


Condition: TypeAlias = Equals | OneOf | AtLeast | Lacks | HasId | HasVector | Not | Every | Either


def every(*conditions: Condition) -> Every:
    """All of *conditions*, those of an `Every` among them taken apart."""
    flat: list[Condition] = []
    for condition in conditions:
        flat.extend(condition.conditions if isinstance(condition, Every) else [condition])
    return Every(flat)


def either(conditions: Iterable[Condition]) -> Condition:
    """At least one of *conditions*."""
    alternatives = list(conditions)
    return alternatives[0] if len(alternatives) == 1 else Either(alternatives)
