"""Who checks the pages: threads of this process, further processes, or other machines."""

from __future__ import annotations

import gc
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context, parent_process, resource_tracker
from threading import Lock, Thread
from typing import Protocol

from undrift.errors import UndriftError
from undrift.failpoints import reach
from undrift.scan.feed import Page
from undrift.scan.page import PageCheck, PageResult

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
    be rendered, processes take over.

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
        self._starter = ThreadPoolExecutor(1, "undrift-start", initializer=_without_control_c)
        self._pool: ProcessPoolExecutor | None = None
        self._rendered = 0
        self._lock = Lock()

    def check(self, pages: Iterator[Page]) -> Iterator[tuple[Page, PageResult]]:
        """Check *pages*, twice as many at once as there is somebody to do it."""
        return in_order(pages, self._submit, lambda: 2 * max(THREADS, self._processes))

    def close(self) -> None:
        """End the threads and processes."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._starter.shutdown(wait=True)
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _submit(self, owners: Sequence[str]) -> Job:
        is_much = self._rendered >= MANY_RENDERED and self._processes > 1
        if is_much and self._pool is None and self._open_check is not None:
            self._pool = _new_pool(self._open_check, self._processes)
        if self._pool is None:
            future = self._threads.submit(self._check, owners)
            future.add_done_callback(self._count)
            return future.result
        try:
            elsewhere = self._starter.submit(self._pool.submit, _check_here, owners).result()
        except BrokenExecutor:
            return lambda: self._instead(owners)

        def result() -> PageResult:
            try:
                return elsewhere.result()
            except BrokenExecutor:
                return self._instead(owners)

        return result

    def _instead(self, owners: Sequence[str]) -> PageResult:
        """Check *owners* here: a process that was killed takes its whole pool with it."""
        self._processes = 1
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
        return self._check(owners)

    def _count(self, future: Future[PageResult]) -> None:
        if not future.cancelled() and future.exception() is None:
            with self._lock:
                self._rendered += future.result().rendered


def _new_pool(open_check: Callable[[], PageCheck], processes: int) -> ProcessPoolExecutor:
    # Processes that are forked would share the connections that this one has open.
    return ProcessPoolExecutor(
        processes,
        mp_context=get_context("spawn"),
        initializer=_open_here,
        initargs=(open_check,),
    )


def _without_control_c() -> None:
    """Let processes that this thread starts take no notice of Ctrl-C, from their birth on.

    It reaches the whole group, and one that is still importing would end with a traceback. So would
    one that is half started: no signal interrupts Python in any thread but the main one.
    """
    resource_tracker.ensure_running()  # later it would let the signal through again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


# --- in a process of the pool ---------------------------------------------------------------------

_opened: list[PageCheck] = []


def _open_here(open_check: Callable[[], PageCheck]) -> None:
    # The process that has the answer decides what Ctrl-C means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, name="undrift-parent", daemon=True).start()
    try:
        _opened.append(open_check())
    except UndriftError:
        os._exit(1)  # whoever asked checks the page itself, and meets the same error if it lasts
    # It renders and does nothing else, which makes no cycles to look for.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def _check_here(owners: Sequence[str]) -> PageResult:
    return _opened[0](owners)


def _end_with_parent() -> None:
    """However the parent ends: nobody would tell this process that there is nothing more to do."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)
