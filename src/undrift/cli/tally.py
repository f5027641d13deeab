"""Counts what a run came to, for its summary and its exit code."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from undrift.model import Cost, Outcome, SyncReport, SyncStatus

Result = SyncStatus | SyncReport
"""What a run says of one owner."""


@dataclass(slots=True)
class Tally:
    """The sums over a run's owners.

    Attributes:
        outcomes: owners by outcome.
        skipped: owners of a sync that were in sync already.
        embedded: texts that were paid for; truncated: those of them that were read in part.
        cost: of a dry run.
    """

    clock: Callable[[], float] = time.monotonic
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    skipped: int = 0
    embedded: int = 0
    truncated: int = 0
    cost: Cost = field(default_factory=Cost)
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

    @property
    def owners(self) -> int:
        """Owners counted."""
        return self.outcomes.total()

    @property
    def out_of_sync(self) -> int:
        """Owners whose sides were seen to differ."""
        return self.outcomes[Outcome.DRIFT] + self.outcomes[Outcome.FAILED]

    @property
    def duration_seconds(self) -> float:
        """Time since the run began."""
        return self.clock() - self._started
