"""Counts what a run came to, for its summary and its exit code."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from undrift.errors import UndriftError, UnknownStateError
from undrift.model import Cost, Outcome, Read, SyncReport, SyncStatus
from undrift.scan.slices import most_amiss

if TYPE_CHECKING:
    from undrift.stamping import Stamped


@dataclass(frozen=True, slots=True, kw_only=True)
class StampResult:
    """What stamping came to for one owner.

    Attributes:
        outcome: of what is left.
        status: what is left.
        stamped: records that carry a stamp now and did not before.
    """

    owner_id: str
    outcome: Outcome
    status: SyncStatus
    stamped: int
    error: UndriftError | None = None

    @classmethod
    def of(cls, done: Stamped) -> StampResult:
        """The result that the API's answer amounts to."""
        outcome = done.status.outcome
        if done.error is not None:
            is_unknown = isinstance(done.error, UnknownStateError)
            outcome = Outcome.UNKNOWN if is_unknown else Outcome.FAILED
        return cls(
            owner_id=done.owner_id,
            outcome=outcome,
            status=done.status,
            stamped=done.stamped,
            error=done.error,
        )


Result = SyncStatus | SyncReport | StampResult
"""What a run says of one owner."""

LEFT = {
    "missing": "Missing from vectors",
    "stale": "Stale in vectors",
    "changed": "Content changed",
    "wrong_model": "Wrong model",
    "duplicate": "Duplicates",
    "unknown": "Content unknown",
    "unstamped": "Not stamped yet",
}
"""What stamping leaves as it is: by its name for programs, that for people."""


@dataclass(slots=True)
class Tally:
    """The sums over a run's owners.

    Attributes:
        outcomes: owners by outcome.
        skipped: owners of a sync that were in sync already.
        embedded: texts that were paid for; truncated: those of them that were read in part.
        cost: of a dry run.
        stamped: records that got a stamp; left: entities that did not, by what they are.
        read: what was read; is_partial: the run ended before it had seen everybody, as it was told.
    """

    clock: Callable[[], float] = time.monotonic
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    skipped: int = 0
    embedded: int = 0
    truncated: int = 0
    cost: Cost = field(default_factory=Cost)
    stamped: int = 0
    left: Counter[str] = field(default_factory=Counter)
    read: Read = Read.FULL
    is_partial: bool = False
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def add(self, result: Result) -> None:
        """Count one owner's *result*."""
        self.outcomes[result.outcome] += 1
        if isinstance(result, SyncReport):
            self.skipped += result.skipped
            self.embedded += result.embedded
            self.truncated += result.truncated
            self.cost += result.cost
        if isinstance(result, StampResult):
            self.stamped += result.stamped
            self.left.update(_left(result.status))

    def take_up(self, outcomes: Mapping[Outcome, int]) -> None:
        """Count the owners whom an earlier run found in sync; who was not, is told anew."""
        self.outcomes[Outcome.IN_SYNC] += outcomes.get(Outcome.IN_SYNC, 0)

    @property
    def owners(self) -> int:
        """Owners counted."""
        return self.outcomes.total()

    @property
    def out_of_sync(self) -> int:
        """Owners whose sides were seen to differ."""
        return self.outcomes[Outcome.DRIFT] + self.outcomes[Outcome.FAILED]

    @property
    def out_of_sync_at_most(self) -> float | None:
        """The share of everybody that is out of sync at most, by a sample; None where none tells.

        A sample that was not seen to its end is none of everybody.
        """
        if self.read is not Read.SAMPLE or self.is_partial:
            return None
        # Who could not be looked at may be out of sync.
        return most_amiss(self.owners, self.owners - self.outcomes[Outcome.IN_SYNC])

    @property
    def duration_seconds(self) -> float:
        """Time since the run began."""
        return self.clock() - self._started


def _left(status: SyncStatus) -> dict[str, int]:
    return {
        "missing": len(status.missing_ids),
        "stale": len(status.stale_ids),
        "changed": len(status.changed_ids),
        "wrong_model": len(status.wrong_model_ids),
        "duplicate": len(status.duplicate_ids),
        "unknown": len(status.unknown_ids),
        "unstamped": status.unstamped,
    }
