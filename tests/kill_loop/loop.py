"""Rounds of a kill loop: kill and replace workers while a writer writes, let them rest, compare."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from kill_loop.actors import Board, fork, read, watch, work_naively, write
from kill_loop.arena import Arena, Difference
from undrift.failpoints import FAILPOINTS

WORKERS = 3
DRAIN_SECONDS = 60.0
"""Within which everything must be clean once the writer rests; it takes a few leases."""

_LOOK_SECONDS = 0.01
_MAX_RANDOM_LIFE_SECONDS = 0.6
_FAILPOINT_PATIENCE_SECONDS = 5.0  # under a rare failpoint a worker is killed wherever it is
_FENCED_ONLY = frozenset({"store.publish.held"})


@dataclass(slots=True)
class Round:
    """What one round showed.

    Attributes:
        kills: by failpoint; ``random`` where it was at no named place.
        difference: between source and store at rest.
        clean_seconds: from the last write until nobody was dirty; None if that was never so.
        recovered_seconds: for each kill that left owners leased, until all of them were synced.
        broken: workers that ended by themselves, which none may.
    """

    place: str
    kills: Counter[str] = field(default_factory=Counter)
    difference: Difference | None = None
    clean_seconds: float | None = None
    recovered_seconds: list[float] = field(default_factory=list)
    broken: int = 0
    writes: int = 0
    looks: int = 0
    gaps: int = 0
    older: int = 0

    @property
    def has_diverged(self) -> bool:
        """Whether the store was not what the source is, at rest."""
        return self.clean_seconds is None or bool(self.difference)


@dataclass(slots=True)
class _Worker:
    """A worker that is to die.

    Attributes:
        failpoint: where; None for anywhere, at *dies_at* by this process's clock.
    """

    failpoint: str | None
    dies_at: float


@dataclass(slots=True)
class _Recovery:
    """Owners that a killed worker had leased, and that nobody has synced since."""

    killed_at: float
    verified_at: dict[str, object]


class KillLoop:
    """Kills and replaces the workers of one arena.

    Args:
        failpoints: an endless order of names to die at.
        is_naive: the control's workers in place of undrift's.
    """

    def __init__(
        self, arena: Arena, random: Random, failpoints: Iterator[str], *, is_naive: bool = False
    ) -> None:
        self._arena = arena
        self._random = random
        self._failpoints = failpoints
        self._is_naive = is_naive
        self._board = Board()
        self._workers: dict[int, _Worker] = {}
        self._recoveries: list[_Recovery] = []
        self._round = Round(arena.place.name)

    def run(self, kills: int) -> Round:
        """One round with so many kills, from all workers starting to all of them ended."""
        arena = self._arena
        self._board, self._round = Board(), Round(arena.place.name)
        self._recoveries.clear()
        arena.rest()
        writer = fork(partial(write, arena, self._board, self._random.getrandbits(32)))
        reader = fork(partial(read, arena, self._board))
        try:
            for _ in range(WORKERS):
                self._start()
            while self._round.kills.total() < kills:
                self._tend(goes_on=True)
            self._rest()
        finally:
            self._board.is_over = 1
            self._await_all([writer, reader])
        self._round.difference = arena.difference()
        self._round.writes, self._round.looks = self._board.writes, self._board.looks
        self._round.gaps, self._round.older = self._board.gaps, self._board.older
        return self._round

    def _await_all(self, others: Sequence[int]) -> None:
        """Wait until everybody has come to an end; a worker may still meet its failpoint."""
        for child in [*others, *self._workers]:
            _, status = os.waitpid(child, 0)
            worker = self._workers.pop(child, None)
            if worker is not None and os.WIFSIGNALED(status):
                self._round.kills[worker.failpoint or "random"] += 1
            else:
                self._round.broken += status != 0

    def _rest(self) -> None:
        """Let the writer rest, and the workers go on until nobody is dirty."""
        self._board.is_resting = 1
        while not self._board.has_rested:
            self._tend(goes_on=False)
        began = time.monotonic()
        while time.monotonic() - began < DRAIN_SECONDS:
            self._tend(goes_on=False)
            if self._is_clean():
                self._round.clean_seconds = time.monotonic() - began
                self._tend(goes_on=False)
                return

    def _is_clean(self) -> bool:
        if self._arena.marks():
            return False
        return self._is_naive or not self._arena.dirty()

    # --- workers ----------------------------------------------------------------------------------

    def _start(self, *, is_to_die: bool = True) -> None:
        failpoint = None
        dies_at = float("inf")
        now = time.monotonic()
        if is_to_die and self._random.random() < 0.7:
            failpoint = next(self._failpoints)
            dies_at = now + _FAILPOINT_PATIENCE_SECONDS
        elif is_to_die:
            dies_at = now + self._random.uniform(0.05, _MAX_RANDOM_LIFE_SECONDS)
        work = work_naively if self._is_naive else watch
        child = fork(
            partial(work, self._arena, self._board, failpoint, self._random.choice((1, 1, 2, 5)))
        )
        self._workers[child] = _Worker(failpoint, dies_at)

    def _tend(self, *, goes_on: bool) -> None:
        """Kill whose time has come, bury and replace the dead, and see who has recovered.

        Args:
            goes_on: whether new workers are to die too.
        """
        time.sleep(_LOOK_SECONDS)
        now = time.monotonic()
        for child, worker in self._workers.items():
            if now >= worker.dies_at:
                worker.failpoint, worker.dies_at = None, float("inf")
                os.kill(child, signal.SIGKILL)
        for child in list(self._workers):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                self._bury(child, status)
                self._start(is_to_die=goes_on)
        self._see_recoveries()

    def _bury(self, child: int, status: int) -> None:
        worker = self._workers.pop(child)
        if not os.WIFSIGNALED(status):
            self._round.broken += 1
            return
        self._round.kills[worker.failpoint or "random"] += 1
        leased = {} if self._is_naive else self._arena.leased_by(child)
        if leased:
            self._recoveries.append(_Recovery(time.monotonic(), leased))

    def _see_recoveries(self) -> None:
        if not self._recoveries:
            return
        verified_at = self._arena.verified_at()
        for recovery in list(self._recoveries):
            if all(verified_at.get(owner) != at for owner, at in recovery.verified_at.items()):
                seconds = time.monotonic() - recovery.killed_at
                self._round.recovered_seconds.append(seconds)
                self._recoveries.remove(recovery)


def failpoints_in_turn(random: Random, *, is_fenced: bool) -> Iterator[str]:
    """Every name that a worker there reaches, again and again, each time in another order."""
    names = sorted(FAILPOINTS if is_fenced else FAILPOINTS - _FENCED_ONLY)
    while True:
        random.shuffle(names)
        yield from names


def run_rounds(
    arenas: Sequence[Arena],
    *,
    kills: int,
    rounds: int,
    seed: int,
    is_naive: bool = False,
    tell: Callable[[Round], None] = lambda _: None,
) -> list[Round]:
    """At least so many *kills* in so many *rounds*, spread evenly over *arenas*."""
    random = Random(seed)
    loops = [
        KillLoop(
            arena,
            random,
            failpoints_in_turn(random, is_fenced=arena.place.state is None),
            is_naive=is_naive,
        )
        for arena in arenas
    ]
    per_round = -(-kills // rounds)
    ended = []
    for number in range(rounds):
        ended.append(loops[number % len(loops)].run(per_round))
        tell(ended[-1])
    return ended
