"""How a sync goes over its pages in this process: one after another, or several at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from undrift.errors import EmbeddingBudgetSpent, UnknownStateError
from undrift.fleet import PageFailures, pages_of
from undrift.guarded import Stop
from undrift.repair import Repair, Repairer

PAGES_AHEAD = 2
"""Pages that are read while earlier ones are embedded and written; bounds a run's memory."""

PAGES_WRITTEN = 2
"""Pages that are written at once: the database works on one while the other is made ready."""

Stages = Callable[[Iterator[Sequence[str]], Repairer], Iterator[list[Repair]]]
"""Carries pages through a repairer."""


class PassesHere:
    """Both passes in this process.

    Args:
        through: how the first pass goes over its pages.
        second: makes the second pass's repairer, which may delete so many records.
    """

    def __init__(
        self,
        through: Stages,
        first: Repairer,
        second: Callable[[int], Repairer],
        budget_spent: Callable[[], EmbeddingBudgetSpent],
    ) -> None:
        self._through = through
        self._first = first
        self._second = second
        self._budget_spent = budget_spent
        self.stop: Stop | None = None

    def write(self, pages: Iterator[Sequence[str]]) -> Iterator[list[Repair]]:
        """See `Passes.write`."""
        yield from self._through(pages, self._first)
        self._end(self._first)

    def delete(self, held: Mapping[str, Repair], allowed: int) -> Iterator[list[Repair]]:
        """See `Passes.delete`."""
        repairer = self._second(allowed)
        for repairs in in_turn(pages_of(held), repairer):
            yield repairs
            self._end(repairer)
            if self.stop is not None:
                return

    def _end(self, repairer: Repairer) -> None:
        self.stop = repairer.stop or (self._budget_spent() if repairer.is_budget_spent else None)


def in_turn(pages: Iterator[Sequence[str]], repairer: Repairer) -> Iterator[list[Repair]]:
    """Do everything in this thread.

    A single owner leaves nothing to do at the same time. And its heal may outlive the main thread,
    after which Python begins no work in other threads: what was embedded would be lost.
    """
    for page in pages:
        repairs = repairer.start(page)
        repairer.run(repairs)
        yield repairs
    yield from _behind_others(repairer)


def _behind_others(repairer: Repairer) -> Iterator[list[Repair]]:
    """Sync those owners at last that somebody else was at work on; nothing is held meanwhile."""
    while repairer.busy:
        waiting, repairer.busy = repairer.busy, []
        repairer.tell_busy(len(waiting))
        for page in pages_of(waiting):
            repairs = repairer.start(page, waits=True)
            repairer.run(repairs)
            yield repairs


def pipelined(pages: Iterator[Sequence[str]], repairer: Repairer) -> Iterator[list[Repair]]:
    """Read pages ahead in one thread, embed here, publish and verify in others.

    Order:
        That of *pages*; who was busy comes last.

    Raises:
        UnknownStateError: several pages in a row could not be read.
    """
    failures = PageFailures()
    failure: UnknownStateError | None = None
    writing: deque[Future[list[Repair]]] = deque()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(PAGES_WRITTEN) as writer:
        try:
            for repairs in _read_ahead(pages, repairer, reader):
                repairer.embed(repairs)
                failures.saw([repair.error for repair in repairs])
                if len(writing) == PAGES_WRITTEN:
                    yield writing.popleft().result()
                writing.append(writer.submit(_finished, repairer, repairs))
                if repairer.is_budget_spent or failures.error is not None:
                    break
        except UnknownStateError as exc:
            failure = exc  # raised when everything that was begun has been reported
        while writing:
            yield writing.popleft().result()
    failure = failure or failures.error
    if failure is not None:
        raise failure
    if not repairer.is_budget_spent:
        yield from _behind_others(repairer)


def _read_ahead(
    pages: Iterator[Sequence[str]], repairer: Repairer, reader: ThreadPoolExecutor
) -> Iterator[list[Repair]]:
    reading: deque[Future[list[Repair]]] = deque()
    failure: UnknownStateError | None = None
    while failure is None:
        try:
            page = next(pages, None)
        except UnknownStateError as exc:
            failure = exc
            break
        if page is None:
            break
        reading.append(reader.submit(repairer.start, page))
        if len(reading) == PAGES_AHEAD:
            yield reading.popleft().result()
    while reading:
        yield reading.popleft().result()
    if failure is not None:
        raise failure


def _finished(repairer: Repairer, repairs: list[Repair]) -> list[Repair]:
    repairer.finish(repairs)
    return repairs
