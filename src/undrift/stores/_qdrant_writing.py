"""What the Qdrant stores write: records, deletes, tombstones, each on a condition.

The conditions are evaluated by Qdrant in the order of its log, so that what arrives late finds what
came before it, whoever sent it. A conditional upsert inserts a point that does not exist whatever
its condition says: only a tombstone keeps an older write out.

There are no transactions. What a call consists of is sent in parts, in one order for everybody.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, TypeVar

from undrift.errors import StoreUnavailable, WriteFailed
from undrift.ports import Deletion, Record
from undrift.state import Tombstone
from undrift.stores._qdrant_conditions import (
    AtLeast,
    Condition,
    Equals,
    HasId,
    HasVector,
    Lacks,
    Not,
    either,
    every,
)
from undrift.stores._qdrant_layout import unit
from undrift.stores._qdrant_payload import (
    DELETED,
    ENTITY_ID,
    KIND,
    MODEL,
    NAMESPACE,
    OWNER,
    TEXT_HASH,
    TOMBSTONE_FIELDS,
    VERSION,
    grave_of,
    payload_of,
)
from undrift.stores._qdrant_points import Change, FoundPoint, NewPoint, Points

T = TypeVar("T")

PART_POINTS = 1_000
"""Points in one call; larger parts were not faster."""

# A server takes 32 MB in one request unless it is told otherwise.
_PART_BYTES = 12_000_000
_COMPONENT_BYTES = 22  # of a decimal that names a 32-bit float exactly, with its comma
_CHARACTER_BYTES = 4
_STAMP_BYTES = 1_000

_PART_RESTAMPS = 200
_PART_DELETES = 500

A_TOMBSTONE = Equals(DELETED, 1)


class _Put(NamedTuple):
    """A point to be put where what stands there is older.

    Attributes:
        entity: the owner, kind and id that its vector_id stands for.
    """

    point: NewPoint
    version: int
    entity: tuple[str, str, str]
    size: int


class Writing:
    """The writes of one namespace.

    Args:
        keep_text: False stores neither texts nor metadata.
    """

    def __init__(self, points: Points, namespace: str, *, keep_text: bool) -> None:
        self._points = points
        self._namespace = namespace
        self._keep_text = keep_text
        self._is_ours = Equals(NAMESPACE, namespace)

    def write(self, records: Sequence[Record]) -> None:
        """Write *records* where the stored version is older or absent."""
        self._put([self._put_of(record) for record in records if record.embedding is not None])
        restamps = [record for record in records if record.embedding is None]
        for start in range(0, len(restamps), _PART_RESTAMPS):
            part = restamps[start : start + _PART_RESTAMPS]
            with one_part(is_first=not start and len(restamps) == len(records)):
                self._points.change([self._restamp(record) for record in part])

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put *tombstones* where the stored version is older or absent."""
        self._put(
            [
                _Put(
                    NewPoint(stone.vector_id, {}, grave_of(stone, self._namespace)),
                    stone.version,
                    stone[1:4],
                    _STAMP_BYTES,
                )
                for stone in tombstones
            ]
        )

    def delete(self, deletions: Sequence[Deletion], *, is_first: bool) -> None:
        """Delete records that still have the version that is named."""
        self._delete(deletions, Not(A_TOMBSTONE), is_first=is_first)

    def collect(self, deletions: Sequence[Deletion]) -> None:
        """Delete tombstones that still have the version that is named."""
        self._delete(deletions, A_TOMBSTONE, is_first=True)

    # --- puts

    def _put_of(self, record: Record) -> _Put:
        assert record.embedding is not None
        payload = payload_of(record, keep_text=self._keep_text)
        return _Put(
            NewPoint(record.stamp.vector_id, {"": unit(record.embedding)}, payload),
            record.stamp.version,
            record.stamp[2:5],
            bytes_of(record),
        )

    def _put(self, puts: Sequence[_Put]) -> None:
        for number, part in enumerate(in_parts(puts, lambda put: put.size)):
            with one_part(is_first=number == 0):
                where = every(self._is_ours, either([_older(part), *self._makes_way(part)]))
                self._points.upsert([put.point for put in part], where)

    def _makes_way(self, part: Sequence[_Put]) -> Iterator[Condition]:
        """The tombstones under the points' ids that keep nothing out, whatever their version.

        A vector_id follows from owner, kind and id: a tombstone under it that names others is
        damaged, and shows up with nobody whom it concerns. It is looked for before, and makes way
        only if it is still the same when the write arrives.
        """
        ids = [put.point.vector_id for put in part]
        where = every(HasId(ids), self._is_ours, A_TOMBSTONE)
        entities = {put.point.vector_id: put.entity for put in part}
        page = self._points.page(where, TOMBSTONE_FIELDS, None, len(part))
        for stone in page.points:
            named = tuple(stone.payload.get(field) for field in (OWNER, KIND, ENTITY_ID))
            if named != entities[stone.vector_id]:
                yield _still(stone)

    def _restamp(self, record: Record) -> Change:
        """The vector stays, so the point must be the one that the vector was made for."""
        stamp = record.stamp
        where = every(
            HasId([stamp.vector_id]),
            self._is_ours,
            Not(AtLeast(VERSION, stamp.version)),
            Equals(TEXT_HASH, stamp.text_hash),
            Equals(MODEL, stamp.model),
            HasVector(""),
            Not(A_TOMBSTONE),
        )
        return Change(payload_of(record, keep_text=self._keep_text), where)

    # --- deletes

    def _delete(
        self, deletions: Sequence[Deletion], of_these: Condition, *, is_first: bool
    ) -> None:
        for start in range(0, len(deletions), _PART_DELETES):
            alike: Mapping[tuple[str, int], list[str]] = defaultdict(list)
            for deletion in deletions[start : start + _PART_DELETES]:
                alike[deletion.owner_id, deletion.version].append(deletion.vector_id)
            unchanged = (
                every(HasId(ids), Equals(OWNER, owner_id), _has_version(version))
                for (owner_id, version), ids in alike.items()
            )
            with one_part(is_first=is_first and not start):
                self._points.delete(every(self._is_ours, of_these, either(unchanged)))


@contextmanager
def one_part(*, is_first: bool) -> Iterator[None]:
    """Where a part is refused behind one that was written, nothing is definite any more."""
    try:
        yield
    except WriteFailed as error:
        if is_first:
            raise
        raise StoreUnavailable(
            "The vector store refused a part of a batch",
            why=f"{error.why} What was sent before it is written.",
            fix=error.fix,
        ) from error


def _older(part: Sequence[_Put]) -> Condition:
    """Whether the stored version is older than the one that is sent; a lacking one is.

    One condition for each version, not for each point: most parts know one or two of them.
    """
    by_version: Mapping[int, list[str]] = defaultdict(list)
    for put in part:
        by_version[put.version].append(put.point.vector_id)
    if len(by_version) == 1:
        return Not(AtLeast(VERSION, part[0].version))
    return either(
        every(HasId(ids), Not(AtLeast(VERSION, version))) for version, ids in by_version.items()
    )


def _still(stone: FoundPoint) -> Condition:
    """That a tombstone is the one that was read."""
    unchanged = (_is(field, stone.payload.get(field)) for field in (OWNER, KIND, VERSION))
    return every(HasId([stone.vector_id]), A_TOMBSTONE, *unchanged)


def _is(field: str, value: object) -> Condition:
    return Equals(field, value) if isinstance(value, str | int) else Lacks(field)


def _has_version(version: int) -> Condition:
    """That a point has *version*; a lacking one reads as 0."""
    exactly = Equals(VERSION, version)
    return exactly if version else either([exactly, Lacks(VERSION)])


def bytes_of(record: Record) -> int:
    """About how many bytes *record* takes in a request; rather more than too few."""
    components = 0 if record.embedding is None else len(record.embedding)
    characters = len(record.text) + 2 * len(record.metadata_json)
    return _STAMP_BYTES + _COMPONENT_BYTES * components + _CHARACTER_BYTES * characters


def in_parts(items: Sequence[T], size_of: Callable[[T], int]) -> Iterator[Sequence[T]]:
    """*items* in parts that one request can hold."""
    part: list[T] = []
    total = 0
    for item in items:
        size = size_of(item)
        if part and (len(part) == PART_POINTS or total + size > _PART_BYTES):
            yield part
            part, total = [], 0
        part.append(item)
        total += size
    if part:
        yield part
