"""A small discrete-event simulation of `undrift watch` under load.

What is simulated is the order of things in `undrift.watch`: every worker takes the dirty users that
wait longest, at most a hundred, embeds for all of them in one request, publishes them together,
verifies, acknowledges, and at once takes the next; who finds nobody looks again after the poll.
Time is a number; chance is a seed. Everything that costs time besides the embedding is a line of a
fixed part and a part of each user, with a spread around it, and comes from a calibration.

Left out: that workers, the database and whoever changes the source share processors and disks;
users who are touched again while they wait (which would be one sync, so this counts too many);
failures, leases that run out, and the scrub.
"""

from __future__ import annotations

import math
import random
import statistics
from collections import deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple


class Line(NamedTuple):
    """Seconds that grow with the users of a batch."""

    fixed: float
    each: float

    def seconds(self, owners: int) -> float:
        """Of a batch of so many."""
        return self.fixed + self.each * owners


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a batch costs besides the embedding, in seconds.

    Attributes:
        before: from taking the users to the request for their vectors: leases, reading, planning.
        publish: from the answer to the commit of the vectors.
        after: from there until the next users are taken: verification, acknowledgement.
        spread: what batches took, in parts of what the lines say; each batch draws one. Few are
            slow, and they are what makes the longest waits.
    """

    before: Line
    publish: Line
    after: Line
    spread: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How an embedding service answers.

    Attributes:
        call_seconds: for every request it takes.
        text_seconds: for every text in it.
        texts_per_second: beyond which it answers 429; None for no limit.
    """

    call_seconds: float
    text_seconds: float
    texts_per_second: float | None = None

    def seconds(self, texts: int) -> float:
        """How long it thinks about a request that it takes."""
        return self.call_seconds + self.text_seconds * texts


def texts_sent(owners: int) -> int:
    """The texts of a request: one for each user, and where there are several, one of them twice."""
    return owners + (owners > 1)


class Limit:
    """A service's rate limit: who has just been served waits for as long as that should have taken.

    The simulation and the service of the measured run both ask this one.
    """

    def __init__(self, texts_per_second: float | None) -> None:
        self._rate = texts_per_second
        self._free_at = -math.inf

    def wait(self, now: float, texts: int) -> float:
        """Seconds, in whole milliseconds, after which to ask again; 0 if the request is taken."""
        if self._rate is None:
            return 0.0
        left = self._free_at - now
        if left > 0:
            return math.ceil(left * 1000) / 1000
        self._free_at = now + texts / self._rate
        return 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Changes that are committed at random times, each of another user.

    Attributes:
        rate: changes a second on average (a Poisson process).
        seconds: how long they go on.
        seed: the same one gives the same times.
    """

    rate: float
    seconds: float
    seed: int = 1

    def arrivals(self) -> tuple[float, ...]:
        """When each is committed, in seconds, ascending."""
        chance = random.Random(self.seed)
        found: list[float] = []
        now = chance.expovariate(self.rate)
        while now < self.seconds:
            found.append(now)
            now += chance.expovariate(self.rate)
        return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The workers of one watch, as `undrift.watch.WatchOptions` has them."""

    workers: int
    batch_owners: int = 100
    poll_seconds: float = 0.05


class Change(NamedTuple):
    """One change: when it was committed, and when its vector was; in seconds."""

    committed: float
    fresh: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a run comes to, simulated or measured.

    Attributes:
        throughput: changes that became fresh while changes arrived, a second.
        p50_ms: half of all changes were fresh within this time; p99_ms: of a hundred, ninety-nine.
        backlog_mean: changes that were not fresh yet, on average while changes arrived.
        backlog_end: when the last had arrived.
    """

    throughput: float
    p50_ms: float
    p99_ms: float
    backlog_mean: float
    backlog_end: int


def figures(changes: Sequence[Change], seconds: float) -> Figures:
    """Of *changes* that arrived within *seconds*."""
    cuts = statistics.quantiles(
        [change.fresh - change.committed for change in changes], n=100, method="inclusive"
    )
    waited = sum(min(change.fresh, seconds) - change.committed for change in changes)
    done = sum(change.fresh <= seconds for change in changes)
    return Figures(
        throughput=round(done / seconds, 1),
        p50_ms=round(1000 * cuts[49], 1),
        p99_ms=round(1000 * cuts[98], 1),
        backlog_mean=round(waited / seconds, 1),
        backlog_end=len(changes) - done,
    )


def simulate(load: Load, crew: Crew, pace: Pace, costs: Costs) -> list[Change]:
    """Every change of *load*, in the order in which they became fresh.

    It goes on until all are.
    """
    chance = random.Random(f"{load.seed} watch")
    limit = Limit(pace.texts_per_second)
    watch = _Watch(arrivals=load.arrivals(), limit=limit, chance=chance)
    events = []
    for number in range(crew.workers):
        worker = _worker(watch, crew, pace, costs)
        next(worker)
        # Nobody begins in the same moment as somebody else, nor as the first change.
        events.append((chance.random() * crew.poll_seconds, number, worker))
    heapify(events)
    while events:
        now, number, worker = heappop(events)
        try:
            heappush(events, (now + worker.send(now), number, worker))
        except StopIteration:
            continue
    return watch.changes


@dataclass(slots=True, kw_only=True)
class _Watch:
    """What the workers share."""

    arrivals: Sequence[float]
    limit: Limit
    chance: random.Random
    changes: list[Change] = field(default_factory=list)
    _arrived: int = 0
    _dirty: deque[float] = field(default_factory=deque)

    def take(self, now: float, most: int) -> list[float]:
        """The changes that wait longest."""
        while self._arrived < len(self.arrivals) and self.arrivals[self._arrived] <= now:
            self._dirty.append(self.arrivals[self._arrived])
            self._arrived += 1
        return [self._dirty.popleft() for _ in range(min(most, len(self._dirty)))]

    def looks(self, now: float, poll_seconds: float) -> int:
        """After how many more looks there is somebody again; 0 if there never is."""
        if self._arrived == len(self.arrivals):
            return 0
        return math.ceil((self.arrivals[self._arrived] - now) / poll_seconds)


Worker = Generator[float, float, None]
"""Gives how long it is busy, and is told the time when that is over."""


def _worker(watch: _Watch, crew: Crew, pace: Pace, costs: Costs) -> Worker:
    now = yield 0.0
    while True:
        batch = watch.take(now, crew.batch_owners)
        if not batch:
            looks = watch.looks(now, crew.poll_seconds)
            if not looks:
                return
            now = yield looks * crew.poll_seconds
            continue
        owners, texts = len(batch), texts_sent(len(batch))
        times = watch.chance.choice(costs.spread)
        now = yield times * costs.before.seconds(owners)
        while wait := watch.limit.wait(now, texts):
            now = yield wait
        now = yield pace.seconds(texts)
        now = yield times * costs.publish.seconds(owners)
        watch.changes.extend(Change(committed, now) for committed in batch)
        now = yield times * costs.after.seconds(owners)
