"""How far a run is, saved as it goes, so that another one can take it up.

A checkpoint says which owners are done, how many of each outcome there were, and what exactly was
found of those who were not in sync. It lies between two pages, behind everything that it counts.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from undrift.errors import ConfigError, StateUnavailable, UnknownStateError
from undrift.failpoints import reach
from undrift.memory import FleetMemory
from undrift.memory import Progress as Saved
from undrift.model import Outcome, SyncStatus
from undrift.scan.feed import BEGINNING, Position
from undrift.scan.statuses import dumped, loaded

_log = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """What an earlier run leaves to the one that takes it up.

    Attributes:
        position: where to go on.
        outcomes: the owners that are done, by outcome.
        began_seconds: how long ago it began.
    """

    position: Position = BEGINNING
    outcomes: Mapping[Outcome, int] = field(default_factory=dict)
    began_seconds: float = 0.0


class _Done(NamedTuple):
    """What is done, as one value: no signal may find the position of a page without its results.

    Attributes:
        results: those that are not saved yet.
    """

    position: Position
    outcomes: Counter[Outcome]
    results: Sequence[str]


class Checkpoints:
    """The checkpoints of one run.

    Args:
        name: tells this run from others that may go on at the same time: what is checked, and how.
        every_seconds: 0 saves behind every page.
    """

    def __init__(
        self,
        memory: FleetMemory,
        name: str,
        *,
        every_seconds: float = CHECKPOINT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._memory = memory
        self._name = name
        self._every_seconds = every_seconds
        self._clock = clock
        self._run_id: str | None = None
        self._done = _Done(BEGINNING, Counter(), ())
        self._saved_at = clock()

    def begin(self, *, resume: bool) -> Resumed | None:
        """Begin anew, or take up the run that was saved last.

        Returns:
            What was saved; None if nothing was, or nothing is to be taken up.

        Raises:
            ConfigError: nothing can be saved here.
            StateUnavailable: there is no definite answer.
        """
        saved = self._memory.take_run(self._name) if resume else None
        if saved is None:
            begun = self._memory.begin_run(self._name, self._described())
            self._run_id = begun.run_id
            return None
        return self._take_up(saved)

    def earlier(self) -> Iterator[SyncStatus]:
        """What the run that was taken up has found of owners that were not in sync.

        Raises:
            StateUnavailable: it could not be read to the end, or is not all there.
        """
        if self._run_id is None:
            return
        counts = self._done.outcomes
        left = counts.total() - counts[Outcome.IN_SYNC]
        for result in self._memory.results(self._name, self._run_id):
            left -= 1
            yield loaded(result)
        if left:
            raise _not_whole()

    def done(self, position: Position, statuses: list[SyncStatus]) -> None:
        """A page is done; save it when it is time."""
        if self._run_id is None:
            return
        before = self._done
        outcomes = before.outcomes + Counter(status.outcome for status in statuses)
        found = [dumped(status) for status in statuses if status.outcome is not Outcome.IN_SYNC]
        self._done = _Done(position, outcomes, [*before.results, *found])
        if self._clock() - self._saved_at >= self._every_seconds:
            self.save()

    def save(self) -> None:
        """Save what is done, if it can be; the run goes on in any case."""
        if self._run_id is None:
            return
        reach("scan.saving")
        # A signal that comes in here leaves nobody who knows whether this was saved. Then nothing
        # is saved behind it: the results would be there twice.
        run_id, self._run_id = self._run_id, None
        results = self._done.results
        try:
            is_saved = self._memory.advance(self._name, run_id, self._described(), results)
        except (ConfigError, UnknownStateError) as exc:
            self._give_up(f"{exc.what}: {exc.why}")
            return
        if not is_saved:
            self._give_up("another run of the same kind was begun")
            return
        self._done = self._done._replace(results=())
        self._saved_at = self._clock()
        self._run_id = run_id
        reach("scan.saved")

    def end(self) -> None:
        """Everybody is done: nothing is left to take up."""
        if self._run_id is None:
            return
        try:
            self._memory.end_run(self._name, self._run_id)
        except (ConfigError, UnknownStateError) as exc:
            self._give_up(f"{exc.what}: {exc.why}")

    def _described(self) -> str:
        position, counts, _ = self._done
        outcomes = {outcome.value: count for outcome, count in counts.items()}
        return json.dumps({"position": str(position), "outcomes": outcomes})

    def _take_up(self, saved: Saved) -> Resumed:
        described = json.loads(saved.position)
        self._run_id = saved.run_id
        position = Position.parse(described["position"])
        counts = {Outcome(name): count for name, count in described["outcomes"].items()}
        self._done = _Done(position, Counter(counts), ())
        return Resumed(position=position, outcomes=counts, began_seconds=saved.began_seconds)

    def _give_up(self, why: str) -> None:
        self._run_id = None
        _log.warning(
            "progress is not saved any more: %s", why, extra={"action": "check.no_progress"}
        )


def _not_whole() -> StateUnavailable:
    """Results are missing: without them, owners who differ would be told to be in sync."""
    return StateUnavailable(
        "The saved progress is not whole",
        why="not all is there that was found before: another run has taken it up meanwhile, or "
        "rows of it were deleted.",
        fix="run the check again without --resume",
    )


def no_progress() -> ConfigError:
    """A run is to be taken up, and there is no place where one could have been saved."""
    return ConfigError(
        "There is no saved progress",
        why="it is kept in the state, and there is none that can be read: nothing was synced yet, "
        "or this role may not.",
        fix="run `undrift sync --all` once, or leave --resume and --until out",
    )
