"""Digests of owners' records in Qdrant: one pass over their points, whoever manages them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import itemgetter

from undrift.digests import (
    FINGERPRINT_CHARACTERS,
    NO_RECORDS,
    RecordsDigest,
    items_digest,
    record_item,
)
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
from undrift.stores._qdrant_points import FoundPoint, Payload, Points
from undrift.stores._qdrant_writing import A_TOMBSTONE

_FIELDS = (OWNER, KIND, ENTITY_ID, FINGERPRINT, NAMESPACE, MODEL)
_VALUES = itemgetter(*_FIELDS)
_OWNERS_PER_CALL = 2_000
_POINTS_PER_CALL = 10_000


def digests(
    points: Points,
    owners: Sequence[str],
    *,
    namespace: str,
    model: str,
    kinds: Collection[str],
) -> Iterator[tuple[str, RecordsDigest]]:
    """Yield what `DigestingStore.digests` returns.

    Args:
        owners: that a store can hold.
    """
    for part in parts_of(owners, _OWNERS_PER_CALL):
        tally = _Tally(namespace, model, kinds)
        tally.read(points, every(OneOf(OWNER, part), Not(A_TOMBSTONE)))
        for name in part:
            if name in tally.owners:
                yield name, tally.owners[name].digest()


class _Owner:
    """What there is of one owner."""

    __slots__ = ("amiss", "items", "unmanaged")

    def __init__(self) -> None:
        self.items: list[str] = []
        self.amiss = 0
        self.unmanaged = 0

    def digest(self) -> RecordsDigest:
        """The digest of all that was noted."""
        if not self.items:
            return NO_RECORDS._replace(unmanaged=self.unmanaged)
        return RecordsDigest(len(self.items), items_digest(self.items), self.amiss, self.unmanaged)


class _Tally:
    """What was read of points, by owner.

    Attributes:
        owners: those that any of the points says it is of.
    """

    def __init__(self, namespace: str, model: str, kinds: Collection[str]) -> None:
        self.owners: dict[str, _Owner] = {}
        self._namespace = namespace
        self._model = model
        self._kinds = frozenset(kinds)
        self._current = [namespace, model]

    def read(self, points: Points, where: Condition) -> None:
        """Note the points that hold *where*.

        Those without a vector are asked for first, as those of the stamps are.
        """
        no_vector = every(where, Equals(NAMESPACE, self._namespace), Not(HasVector("")))
        lost = {point.vector_id for point in _with_ids(points, no_vector, ())}
        if lost:
            for point in _with_ids(points, where, _FIELDS):
                self._note(point.payload, is_lost=point.vector_id in lost)
        else:
            for payloads in _without_ids(points, where):
                self._note_all(payloads)

    def _note_all(self, payloads: Sequence[Payload]) -> None:
        """As `_note` for each; those that are as undrift writes them in a third of its time."""
        owners, kinds = self.owners, self._kinds
        for payload in payloads:
            try:
                name, kind, entity_id, print_, *rest = _VALUES(payload)
                owner = owners[name]
                is_plain = kind in kinds and type(entity_id) is str and type(print_) is str
            except (KeyError, TypeError):
                is_plain = False
            if not is_plain or rest != self._current or len(print_) != FINGERPRINT_CHARACTERS:
                self._note(payload)
                continue
            # `record_item`, without the call: this runs once for every entity of a fleet.
            owner.items.append(f"{print_}|{kind}:{len(entity_id)}:{entity_id}")

    def _note(self, payload: Payload, *, is_lost: bool = False) -> None:
        get = payload.get
        is_ours = _holds(get(NAMESPACE), self._namespace)
        kind = text_of(payload, KIND)
        if not is_ours or kind not in self._kinds:
            for name in _owners_of(get(OWNER), is_ours=is_ours):
                self._owner(name).unmanaged += 1
            return
        owner = self._owner(text_of(payload, OWNER))
        print_, entity_id = text_of(payload, FINGERPRINT), text_of(payload, ENTITY_ID)
        owner.items.append(record_item(print_, kind, entity_id))
        if is_lost or get(MODEL) != self._model or len(print_) != FINGERPRINT_CHARACTERS:
            owner.amiss += 1

    def _owner(self, name: str) -> _Owner:
        owner = self.owners.get(name)
        if owner is None:
            owner = self.owners[name] = _Owner()
        return owner


def _with_ids(points: Points, where: Condition, fields: Sequence[str]) -> Iterator[FoundPoint]:
    next_id = None
    while True:
        page = points.page(where, fields, next_id, _POINTS_PER_CALL)
        yield from page.points
        next_id = page.next_id
        if next_id is None:
            return


def _without_ids(points: Points, where: Condition) -> Iterator[Sequence[Payload]]:
    next_id = None
    while True:
        payloads, next_id = points.payloads(where, _FIELDS, next_id, _POINTS_PER_CALL)
        yield payloads
        if next_id is None:
            return


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
