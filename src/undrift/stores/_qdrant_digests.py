"""Digests of owners' records in Qdrant: one pass over their points, whoever manages them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import repeat

from undrift.digests import FINGERPRINT_CHARACTERS, NO_RECORDS, RecordsDigest, records_digest
from undrift.stores._qdrant_conditions import Condition, Equals, HasVector, Not, OneOf, every
from undrift.stores._qdrant_payload import (
    ENTITY_ID,
    FINGERPRINT,
    KIND,
    MODEL,
    NAMESPACE,
    OWNER,
    parts_of,
    text_of,
)
from undrift.stores._qdrant_points import Payload, Points
from undrift.stores._qdrant_writing import A_TOMBSTONE

_FIELDS = (OWNER, NAMESPACE, KIND, ENTITY_ID, FINGERPRINT, MODEL)
_OWNERS_PER_CALL = 2_000
_POINTS_PER_CALL = 10_000


class _Owner:
    """What there is of one owner."""

    __slots__ = ("amiss", "records", "unmanaged")

    def __init__(self) -> None:
        self.records: list[tuple[str, str, str]] = []
        self.amiss = 0
        self.unmanaged = 0

    def digest(self) -> RecordsDigest:
        if not self.records:
            return NO_RECORDS._replace(unmanaged=self.unmanaged)
        digest = records_digest(self.records)
        return RecordsDigest(len(self.records), digest, self.amiss, self.unmanaged)


def digests(
    points: Points,
    owners: Sequence[str],
    *,
    namespace: str,
    model: str,
    kinds: Collection[str],
) -> Iterator[tuple[str, RecordsDigest]]:
    """Yield what `DigestingStore.digests` returns.

    The points without a vector are asked for first, as those of the stamps are.

    Args:
        owners: that a store can hold.
    """
    ours = frozenset(kinds)
    for part in parts_of(owners, _OWNERS_PER_CALL):
        where = every(OneOf(OWNER, part), Not(A_TOMBSTONE))
        no_vector = every(where, Equals(NAMESPACE, namespace), Not(HasVector("")))
        lost = {vector_id for vector_id, _ in _with_ids(points, no_vector, ())}
        found: dict[str, _Owner] = {}
        read = _with_ids(points, where, _FIELDS) if lost else _without_ids(points, where)
        for vector_id, payload in read:
            kind = text_of(payload, KIND)
            is_ours = _holds(payload.get(NAMESPACE), namespace)
            if not is_ours or kind not in ours:
                for name in _owners_of(payload.get(OWNER), is_ours=is_ours):
                    _of(found, name).unmanaged += 1
                continue
            print_ = text_of(payload, FINGERPRINT)
            owner = _of(found, text_of(payload, OWNER))
            owner.records.append((print_, kind, text_of(payload, ENTITY_ID)))
            is_current = text_of(payload, MODEL) == model and vector_id not in lost
            owner.amiss += not is_current or len(print_) != FINGERPRINT_CHARACTERS
        for name in part:
            if name in found:
                yield name, found[name].digest()


def _with_ids(
    points: Points, where: Condition, fields: Sequence[str]
) -> Iterator[tuple[str, Payload]]:
    next_id = None
    while True:
        page = points.page(where, fields, next_id, _POINTS_PER_CALL)
        yield from ((point.vector_id, point.payload) for point in page.points)
        next_id = page.next_id
        if next_id is None:
            return


def _without_ids(points: Points, where: Condition) -> Iterator[tuple[str, Payload]]:
    next_id = None
    while True:
        payloads, next_id = points.payloads(where, _FIELDS, next_id, _POINTS_PER_CALL)
        yield from zip(repeat(""), payloads)
        if next_id is None:
            return


def _of(found: dict[str, _Owner], name: str) -> _Owner:
    owner = found.get(name)
    if owner is None:
        owner = found[name] = _Owner()
    return owner


def _holds(found: object, value: str) -> bool:
    """Whether a field is *value* to Qdrant, to which a list is each of its elements."""
    return found == value or (isinstance(found, list) and value in found)


def _owners_of(found: object, *, is_ours: bool) -> Iterable[str]:
    """Whose an unmanaged point is: of the namespace's stamps, a list of owners is nobody's."""
    if isinstance(found, str):
        return (found,)
    if is_ours or not isinstance(found, list):
        return ()
    return {name for name in found if isinstance(name, str)}
