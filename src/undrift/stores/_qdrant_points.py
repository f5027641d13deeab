"""What undrift asks of Qdrant: points that are written on a condition, and read by one.

Two implementations: `undrift.stores._qdrant_http` over the network, `undrift.stores._qdrant_engine`
with Qdrant's engine in this process. All that makes them a vector store is in
`undrift.stores._qdrant_store`, once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from undrift.errors import ConfigError
from undrift.ports import Vectors
from undrift.stores._meaning import NOT_CREATED, Meaning
from undrift.stores._qdrant_conditions import Condition

Payload = Mapping[str, object]
Fields = Sequence[str] | None
"""Which fields of a payload are read, as paths; None for all of them."""

_UUID = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_NUMBER = re.compile("0|[1-9][0-9]{0,19}")
_PLAIN = re.compile(r"[A-Za-z0-9_\-]+")
_LARGEST_NUMBER = 2**64 - 1


class NotThere(ConfigError):
    """The collection does not exist."""


MISSING = Meaning(NotThere, NOT_CREATED.what, NOT_CREATED.fix)


class Index(NamedTuple):
    """An index on a field of the payload.

    Attributes:
        kind: its type, as Qdrant calls it.
        is_tenant: the field says whose a point is; Qdrant keeps what belongs together together.
    """

    kind: str
    is_tenant: bool = False


class NewPoint(NamedTuple):
    """A point as it is to be; without a vector, no search finds it.

    Attributes:
        vectors: by name; a collection's only vector mostly has the empty one.
    """

    vector_id: str
    vectors: Mapping[str, Vectors]
    payload: Payload


class FoundPoint(NamedTuple):
    """A point as it was read, with as much of it as was asked for."""

    vector_id: str
    payload: Payload
    score: float = 0.0
    vector: Vectors | None = None


class Change(NamedTuple):
    """A change of payloads; vectors stay.

    Attributes:
        into: the object that the payload is merged into, as a path; empty for the point's whole
            payload, None to replace that.
    """

    payload: Payload
    where: Condition
    into: str | None = None


class FoundVector(NamedTuple):
    """One of the vectors that a collection's points may have.

    Attributes:
        distance: its metric, as Qdrant calls it.
    """

    dimension: int
    distance: str


class Page(NamedTuple):
    """Some of the points that were asked for, by id.

    Attributes:
        next_id: where the next page begins; None behind the last one.
    """

    points: Sequence[FoundPoint]
    next_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCollection:
    """A collection as it is found.

    Attributes:
        vectors: by name.
        indexes: field → its index' type, as Qdrant calls it.
        is_strict: conditions may only name fields that have an index.
    """

    vectors: Mapping[str, FoundVector]
    indexes: Mapping[str, str]
    is_strict: bool = False


class Points(Protocol):
    """One collection.

    Every call raises undrift's errors only: `NotThere` where the collection does not exist,
    `WriteFailed` where a write was refused as such, `StoreUnavailable` where there is no definite
    answer.

    Safety:
        May be used from several threads. A write is applied when its call returns; of writes that
        meet, each sees what the one before left.
    """

    @property
    def location(self) -> str:
        """The collection's address without a key."""

    def find(self) -> FoundCollection | None:
        """The collection as it is; None if it certainly does not exist. Creates nothing."""

    def is_empty(self) -> bool:
        """Whether the collection has no point at all."""

    def ddl(self, dimension: int) -> Sequence[str]:
        """What `create` does, for people."""

    def create(self, dimension: int) -> None:
        """Create what is missing. Idempotent, and safe when two do it at once."""

    def create_indexes(self, indexes: Mapping[str, Index]) -> None:
        """Create *indexes* on the fields that they are named by. Idempotent."""

    def upsert(self, points: Sequence[NewPoint], where: Condition) -> None:
        """Replace the points that hold *where*, whole; insert those that do not exist."""

    def change(self, changes: Sequence[Change]) -> None:
        """Change the payload of points that exist, one change after the other."""

    def delete(self, where: Condition) -> None:
        """Delete the points that hold *where*."""

    def settle(self) -> None:
        """Return when all that was written survives a loss of power."""

    def page(
        self,
        where: Condition | None,
        fields: Fields,
        first_id: str | None,
        limit: int,
        *,
        vector: str | None = None,
    ) -> Page:
        """At most *limit* points that hold *where*, ascending by id, from *first_id* on.

        Args:
            vector: the name of the one that is wanted too; None for none.
        """

    def payloads(
        self, where: Condition, fields: Sequence[str], first_id: str | None, limit: int
    ) -> tuple[Sequence[Payload], str | None]:
        """As `page`, without the points' own ids; and where the next page begins."""

    def retrieve(self, vector_ids: Sequence[str], fields: Fields) -> Sequence[FoundPoint]:
        """Those of *vector_ids* that exist."""

    def nearest(
        self,
        vector: Vectors,
        where: Condition,
        fields: Fields,
        limit: int,
        *,
        using: str = "",
    ) -> Sequence[FoundPoint]:
        """The points that hold *where* and are nearest to *vector*, compared one by one.

        Args:
            using: the name of the vectors to compare it with.

        Raises:
            DimensionMismatch: the collection's vectors have another dimension.
        """

    def facet(self, field: str, where: Condition, limit: int) -> Mapping[str, int]:
        """Count the points that hold *where* by the values of *field*, which has an index.

        Order:
            Most frequent first; as many as *limit* means that there may be more.
        """

    def close(self) -> None:
        """Give back what is open. Safe to call twice."""


def is_point_id(vector_id: str) -> bool:
    """Whether Qdrant can hold a point under *vector_id*: a UUID, or a number of 64 bits."""
    if _UUID.fullmatch(vector_id):
        return True
    return bool(_NUMBER.fullmatch(vector_id)) and int(vector_id) <= _LARGEST_NUMBER


def point_id(vector_id: str) -> str | int:
    """*vector_id* as Qdrant spells it."""
    return int(vector_id) if vector_id.isdigit() else vector_id


def vector_named(name: str, found: object) -> Vectors | None:
    """The vector of that name among what a point was read with; None if it has none."""
    if isinstance(found, dict):
        found = found.get(name)
    return np.array(found, dtype=np.float32) if isinstance(found, list) else None


def json_path(path: Sequence[str]) -> str:
    """*path* as Qdrant spells it: names that hold more than letters are quoted."""
    return ".".join(key if _PLAIN.fullmatch(key) else f'"{key}"' for key in path)
