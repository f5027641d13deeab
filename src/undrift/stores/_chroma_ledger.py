"""The collection beside the records: tombstones and claims.

Kept apart because Chroma stores nothing without a vector: among the records, every search of
another program would find what was deleted, and every count would count it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import uuid4

from undrift.state import Claim, Tombstone
from undrift.stores._chroma_api import Collection, Put, Row, pages_of, parts_of
from undrift.stores._chroma_codec import Standing
from undrift.stores._chroma_records import (
    NAMESPACE,
    OWNER,
    any_of,
    grave_of,
    standing_in,
    text_in,
    tombstone_of,
    version_in,
)

_CLAIM_OF = "claim_of"

# A process would have to sleep while so many others claim to take its turn for theirs; then it is
# told that it was not the first, which is what it would be told anyway.
_KEPT_TURNS = 16


class _Turn(NamedTuple):
    """One claim of the row of claims that a namespace has had.

    Attributes:
        id: the record's.
        number: from 1; the highest is the claim that counts.
        mark: tells two processes apart that took the turn at once.
        after: the mark of the turn before.
    """

    id: str
    number: int
    mark: str
    after: str
    claim: Claim


_NONE = _Turn("", 0, "", "", Claim("", "", 0))


class Ledger:
    """Tombstones and claims of one namespace, in *collection*."""

    def __init__(self, collection: Collection, namespace: str) -> None:
        self._collection = collection
        self._namespace = namespace

    # --- tombstones

    def tombstones(self, owners: Sequence[str]) -> Iterable[Tombstone]:
        """Those of *owners*, of whom there must be one."""
        asked = set(owners)
        for page in pages_of(self._collection, any_of(OWNER, owners)):
            for row in page:
                if text_in(row.metadata, NAMESPACE) == self._namespace:
                    stone = tombstone_of(row)
                    if stone.owner_id in asked:
                        yield stone

    def standing(self, vector_ids: Sequence[str]) -> dict[str, Standing]:
        """The tombstones under *vector_ids*, of whatever namespace."""
        return {
            row.id: standing_in(row.metadata)
            for part in parts_of(vector_ids)
            for row in self._collection.rows(ids=part)
        }

    def bury(self, stones: Sequence[Tombstone]) -> None:
        """Put *stones*, whatever is there."""
        for part in parts_of(stones):
            self._collection.upsert([grave_of(stone, self._namespace) for stone in part])

    def open_graves(self, vector_ids: Sequence[str]) -> None:
        """Remove the tombstones under *vector_ids*."""
        for part in parts_of(vector_ids):
            self._collection.delete(part)

    # --- claims

    def claim(self) -> Claim | None:
        """The claim that counts."""
        last = _last(self._turns())
        return last.claim if last.number else None

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Take the next turn, if the last one is *replacing* and nobody else takes it first.

        Chroma cannot compare and set, but `add` leaves a record alone that is there already: of
        those that add the same turn one succeeds, and reading back tells each of them who.
        """
        last = _last(self._turns())
        if (last.claim if last.number else None) != replacing:
            return False
        ours = _Turn(self._id(last.number + 1), last.number + 1, uuid4().hex, last.mark, claim)
        self._collection.add(self._put(ours))
        turns = {turn.number: turn for turn in self._turns()}
        newest = max(turns)
        follower = turns.get(ours.number + 1)
        is_ours = turns.get(ours.number) == ours and (
            newest == ours.number or (follower is not None and follower.after == ours.mark)
        )
        outdated = [turn.id for number, turn in turns.items() if number <= newest - _KEPT_TURNS]
        if outdated:
            self._collection.delete(outdated)
        return is_ours

    def _turns(self) -> list[_Turn]:
        return [_turn(row) for row in self._collection.rows(where={_CLAIM_OF: self._namespace})]

    def _id(self, number: int) -> str:
        return f"claim {number} of {self._namespace}"

    def _put(self, turn: _Turn) -> Put:
        metadata: dict[str, object] = {
            _CLAIM_OF: self._namespace,
            "turn": turn.number,
            "mark": turn.mark,
            "after": turn.after,
            **turn.claim._asdict(),
        }
        return Put(turn.id, metadata, None, [1.0 + turn.number])


def _turn(row: Row) -> _Turn:
    metadata = row.metadata
    return _Turn(
        row.id,
        version_in(metadata, "turn"),
        text_in(metadata, "mark"),
        text_in(metadata, "after"),
        Claim(
            text_in(metadata, "source"),
            text_in(metadata, "state_id"),
            version_in(metadata, "epoch"),
        ),
    )


def _last(turns: Iterable[_Turn]) -> _Turn:
    return max(turns, key=lambda turn: turn.number, default=_NONE)
