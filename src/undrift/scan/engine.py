"""Who checks the pages: threads of this process, further processes, or other machines."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import Protocol

from undrift.errors import UndriftError
from undrift.failpoints import reach
from undrift.scan.feed import Page
from undrift.scan.page import PageCheck, PageResult
from undrift.spawned import SpawnedPool

THREADS = 2
"""While one waits for the source, another waits for the store."""

PAGES_EACH = 2
"""Pages that are under way, for each who checks them: one may take longer than the next ones."""

LISTED_AHEAD = 20
"""Pages without anybody that may wait behind those under way: what is known is soon told."""

MANY_RENDERED = 2_000
"""Owners that have to be rendered before processes are started, which take a second to begin; and
of whom `_LISTED_PER_RENDERED` times as many have to be listed, so that there is more to do then."""

_LISTED_PER_RENDERED = 3


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
    """Have *pages* checked, so many at once, and yield them in their order.

    Pages without anybody are no work: they are listed while the last of the others are checked.

    Raises:
        UndriftError: the next page could not be listed; those before it were yielded.
    """
    jobs: deque[tuple[Page, Job]] = deque()
    under_way = 0
    failure: UndriftError | None = None
    while failure is None:
        try:
            page = next(pages, None)
        except UndriftError as exc:
            page, failure = None, exc
        if page is None:
            break
        reach("scan.page_read")
        jobs.append((page, submit(page.owners) if page.owners else _nobody))
        under_way += bool(page.owners)
        most = window()
        while jobs and (
            under_way >= most or not jobs[0][0].owners or len(jobs) >= most + LISTED_AHEAD
        ):
            done, job = jobs.popleft()
            under_way -= bool(done.owners)
            yield done, job()
    while jobs:
        done, job = jobs.popleft()
        yield done, job()
    if failure is not None:
        raise failure


def _nobody() -> PageResult:
    return PageResult([], 0)


class LocalEngine:
    """Checks pages on this machine.

    Threads do while the databases have the work: comparing digests takes hardly any time here.
    Rendering is another matter, and Python renders in one thread at a time; once many owners had to
    be rendered, further processes are started, and take their share when they have begun.

    Args:
        open_check: None where the sides can be opened in this process only.
        processes: at most so many, this one among them.
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
        self._others = processes - 1 if open_check is not None else 0
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="undrift-check")
        self._pool: SpawnedPool | None = None
        self._beginning: list[Future[None]] = []
        self._starting = Lock()
        self._listed = 0
        self._rendered = 0
        self._here = _Waiting()
        self._elsewhere = _Waiting()

    def check(self, pages: Iterator[Page]) -> Iterator[tuple[Page, PageResult]]:
        """Check *pages*, several at once for everybody who does."""
        return in_order(pages, self._submit, self._window)

    def close(self) -> None:
        """End the threads and processes."""
        with self._starting:
            self._others = 0  # a page that is still under way starts none
        self._threads.shutdown(wait=True, cancel_futures=True)
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _window(self) -> int:
        return PAGES_EACH * max(THREADS, self._others + 1)

    def _submit(self, owners: Sequence[str]) -> Job:
        self._note(listed=len(owners))
        pool = self._pool
        if pool is None or not self._is_their_turn():
            return self._here.noted(
                self._threads.submit(self._check, owners, self._note_rendering)
            ).result
        try:
            elsewhere = self._elsewhere.noted(pool.submit(_check_here, owners))
        except BrokenExecutor:
            return lambda: self._instead(owners)

        def result() -> PageResult:
            try:
                return elsewhere.result()
            except BrokenExecutor:
                return self._instead(owners)

        return result

    def _is_their_turn(self) -> bool:
        """Whether a process has less to do than this one, which has the answer to tell besides."""
        if not all(future.done() for future in self._beginning):
            return False
        return self._elsewhere.count <= self._here.count * self._others

    def _note_rendering(self, owners: int) -> None:
        self._note(rendered=owners)

    def _note(self, *, listed: int = 0, rendered: int = 0) -> None:
        """Start the processes as soon as it is known that there is enough for them to do."""
        with self._starting:
            self._listed += listed
            self._rendered += rendered
            is_much = min(self._listed / _LISTED_PER_RENDERED, self._rendered) >= MANY_RENDERED
            if is_much and self._others and self._pool is None and self._open_check is not None:
                self._start(self._open_check)

    def _start(self, open_check: Callable[[], PageCheck]) -> None:
        pool = SpawnedPool(self._others, partial(_open_here, open_check))
        try:
            self._beginning = [pool.submit(_begun) for _ in range(self._others)]
        except (BrokenExecutor, OSError, RuntimeError):  # no room for a process or a thread
            self._others = 0
            pool.close()
        else:
            self._pool = pool

    def _instead(self, owners: Sequence[str]) -> PageResult:
        """Check *owners* here: a process that was killed takes its whole pool with it."""
        with self._starting:
            self._others = 0
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()
        return self._check(owners)


class _Waiting:
    """How many pages somebody still has to check. May be used from several threads."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = Lock()

    def noted(self, page: Future[PageResult]) -> Future[PageResult]:
        """*page*, which counts until it is done."""
        self._add(1)
        page.add_done_callback(lambda _: self._add(-1))
        return page

    def _add(self, pages: int) -> None:
        with self._lock:
            self.count += pages


# --- in a process of the pool ---------------------------------------------------------------------

_opened: list[PageCheck] = []


def _open_here(open_check: Callable[[], PageCheck]) -> None:
    _opened.append(open_check())


def _begun() -> None:
    """Called in a process once it has opened both sides."""


def _check_here(owners: Sequence[str]) -> PageResult:
    return _opened[0](owners)
