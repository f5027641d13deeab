"""What the protocol does, and what may be left out of it to see that it is needed."""

from __future__ import annotations

from typing import Literal, NamedTuple

from model.world import ABSENT, NOTHING, Letter, Row, Stored

STEPS = (
    "leased",
    "noted",
    "read",
    "observed",
    "looked",
    "raised",
    "planned",
    "embedded",
    "published",
    "verified",
    "acknowledged",
)
"""What a sync does, in this order."""

UNSHARED = frozenset({"leased", "planned", "embedded"})
"""Steps that touch nothing shared; each is part of the next."""


class Rules(NamedTuple):
    """The protocol, and what of it may be left out to see that it is needed.

    Attributes:
        store_class: T, transactional with the state; C, conditional writes; N, neither.
        compares_observation: an observation counts only if there was no other since the note.
        observes_with_publish: the first observation may be a part of the publish (T).
        compares_in_publish: it counts only if there was none before, as any other.
        orders_unchanged: one that showed nothing new counts as another, too.
        notes_first: the source's snapshot begins after the note.
        raises_by_comparing: a row is raised only if it is as this worker observed it.
        compares_versions: what is older in the store is written again though contents agree.
        buries: a delete leaves a tombstone (C and N).
        awaits_deadline: a tombstone is collected once no plan from before it can be sent.
        numbers_on: an entity that was forgotten begins above its former versions.
        alarms_when_ahead: a store found ahead of the state marks everybody.
        alarms_again: everybody is marked twice, the second time after the send deadline.
        checks_claim: the claim is checked at the note, at the look and at the read-back.
        bounds_acknowledged: no generation is acknowledged that the state has not reached.
        suspects_first: a write is suspect before it is sent, not when its answer is missing (N).
        awaits_horizon: at rest is what has no suspect write (N).
        knows_restored: a state from a backup is adopted, so that everybody is marked.
    """

    store_class: Literal["T", "C", "N"] = "C"
    compares_observation: bool = True
    observes_with_publish: bool = True
    compares_in_publish: bool = True
    orders_unchanged: bool = True
    notes_first: bool = True
    raises_by_comparing: bool = True
    compares_versions: bool = True
    buries: bool = True
    awaits_deadline: bool = True
    numbers_on: bool = True
    alarms_when_ahead: bool = True
    alarms_again: bool = True
    checks_claim: bool = True
    bounds_acknowledged: bool = True
    suspects_first: bool = True
    awaits_horizon: bool = True
    knows_restored: bool = True

    @property
    def deletes_physically(self) -> bool:
        """Whether a delete leaves nothing behind."""
        return self.store_class == "T" or not self.buries


class Scenario(NamedTuple):
    """How much may happen.

    Attributes:
        changes: of the source; then it rests.
        faults: crashes, and writes that land late, twice or unanswered.
        damages: of the kinds in *kinds*.
        kinds: wiped, altered, lifted, reverted (the store); lost, restored, copied (the state).
        asks: syncs of an owner that is not dirty.
        drains: a change leaves a mark, which a worker drains; otherwise it is dirty at once.
        collects: tombstones are collected, and their rows forgotten.
        only_new: the source never shows a former content again, and never none.
    """

    changes: int = 2
    faults: int = 1
    damages: int = 0
    kinds: frozenset[str] = frozenset()
    asks: int = 0
    drains: bool = False
    collects: bool = False
    only_new: bool = False


def decided(rules: Rules, row: Row, found: Stored) -> tuple[Row, bool]:
    """What a plan makes of the store beside what was observed.

    Returns:
        The row, raised above what was found where that is needed; and whether it is to be written.
    """
    if found.content != row.content:
        return row._replace(version=max(row.version, found.version + 1)), True
    if found.version > row.version:
        return row._replace(version=found.version), False  # newer, and what is wanted
    is_older = found.version < row.version
    if row.content == ABSENT:
        return row, is_older and not rules.deletes_physically and rules.compares_versions
    return row, is_older and rules.store_class != "T" and rules.compares_versions


def is_proved(rules: Rules, row: Row, stored: Stored) -> bool:
    """Whether what was read back is what was written."""
    if row.content == ABSENT and rules.deletes_physically:
        return stored.content == ABSENT
    return stored == Stored(*row)


def landed(rules: Rules, stored: Stored, letter: Letter, standing: Row) -> Stored:
    """What the store holds once *letter* has landed.

    Args:
        standing: the state's row at that moment.
    """
    row = letter.row
    if rules.store_class == "N":
        return Stored(*row)
    if rules.store_class == "T" and standing != row:
        return stored  # the fence
    if row.content == ABSENT and rules.deletes_physically:
        return NOTHING if stored.version == letter.found.version else stored
    return Stored(*row) if stored.version < row.version else stored
