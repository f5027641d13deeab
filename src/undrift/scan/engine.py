"""Who checks the pages: threads of this process, further processes, or other machines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Protocol

from undrift.failpoints import reach
from undrift.scan.feed import Page
from undrift.scan.page import PageCheck, PageResult
from undrift.spawned import SpawnedPool

THREADS = 2
"""While one waits for the source, another waits for the store."""

MANY_RENDERED = 4_000
"""Owners rendered by threads before processes are started, which take a second to begin."""


class Opener(Protocol):
    """Opens both sides in another process; must be picklable."""

    @property
    def here_only(self) -> Sequence[str]:
        """The sides whose addresses mean another database on another machine, for people."""

    def __call__(self) -> PageCheck:
        """Open them."""


Job = Callable[[], PageResult]
"""Waits for a page that is under way, and returns what was found."""


class Engine(Protocol):
    """Checks pages, several at once."""

    def check(self, pages: Iterator[Page]) -> Iterator[tuple[Page, PageResult]]:
        """Check *pages*, in their order.

        Raises:
            UnknownStateError: nobody could check a page at all.
        """

    def close(self) -> None:
        """Finish what is under way, and give everything back. Safe to call twice."""


def in_order(
    pages: Iterator[Page], submit: Callable[[Sequence[str]], Job], window: Callable[[], int]
) -> Iterator[tuple[Page, PageResult]]:
    """Have *pages* checked, so many at once, and yield them in their order."""
    jobs: deque[tuple[Page, Job]] = deque()
    for page in pages:
        reach("scan.page_read")
        jobs.append((page, submit(page.owners)))
        while len(jobs) >= window():
            done, job = jobs.popleft()
            yield done, job()
    while jobs:
        done, job = jobs.popleft()
        yield done, job()


class LocalEngine:
    """Checks pages on this machine.

    Threads do while the databases have the work: comparing digests takes hardly any time here.
    Rendering is another matter, and Python renders in one thread at a time; once many owners had to
    be rendered, processes are started, and take over when they have begun.

    Args:
        open_check: None where the sides can be opened in this process only.
        processes: at most so many; 1 stays in this one.
    """

    def __init__(
        self,
        check: PageCheck,
        open_check: Callable[[], PageCheck] | None = None,
        *,
        processes: int = 1,
    ) -> None:
        self._check = check
        self._open_check = open_check
        self._processes = processes if open_check is not None else 1
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="undrift-check")
        self._pool: SpawnedPool | None = None
        self._beginning: list[Future[None]] = []
        self._rendered = 0
        self._lock = Lock()

    def check(self, pages: Iterator[Page]) -> Iterator[tuple[Page, PageResult]]:
        """Check *pages*, twice as many at once as there is somebody to do it."""
        return in_order(pages, self._submit, lambda: 2 * max(THREADS, self._processes))

    def close(self) -> None:
        """End the threads and processes."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _submit(self, owners: Sequence[str]) -> Job:
        is_much = self._rendered >= MANY_RENDERED and self._processes > 1
        if is_much and self._pool is None and self._open_check is not None:
            self._start(self._open_check)
        if self._pool is None or not all(future.done() for future in self._beginning):
            future = self._threads.submit(self._check, owners)
            future.add_done_callback(self._count)
            return future.result
        try:
            elsewhere = self._pool.submit(_check_here, owners)
        except BrokenExecutor:
            return lambda: self._instead(owners)

        def result() -> PageResult:
            try:
                return elsewhere.result()
            except BrokenExecutor:
                return self._instead(owners)

        return result

    def _start(self, open_check: Callable[[], PageCheck]) -> None:
        self._pool = pool = SpawnedPool(self._processes, partial(_open_here, open_check))
        with suppress(BrokenExecutor):  # which the next page meets too
            self._beginning = [pool.submit(_begun) for _ in range(self._processes)]

    def _instead(self, owners: Sequence[str]) -> PageResult:
        """Check *owners* here: a process that was killed takes its whole pool with it."""
        self._processes = 1
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        return self._check(owners)

    def _count(self, future: Future[PageResult]) -> None:
        if not future.cancelled() and future.exception() is None:
            with self._lock:
                self._rendered += future.result().rendered


# --- in a process of the pool ---------------------------------------------------------------------

_opened: list[PageCheck] = []


def _open_here(open_check: Callable[[], PageCheck]) -> None:
    _opened.append(open_check())


def _begun() -> None:
    """Called in a process once it has opened both sides."""


def _check_here(owners: Sequence[str]) -> PageResult:
    return _opened[0](owners)
