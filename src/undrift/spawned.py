"""Further processes of this program on this machine, for what one Python process is too slow for.

They are spawned: forked ones would share the connections that this process has open. Ctrl-C is for
the process that has the answer; these take no notice of it, and end with their parent however that
ends.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context, parent_process, resource_tracker
from threading import Thread
from typing import ParamSpec, TypeVar

from undrift.errors import UndriftError

P = ParamSpec("P")
T = TypeVar("T")


class SpawnedPool:
    """A pool of processes, which begin when there is something to do.

    Args:
        processes: at most so many.
        begin: called first in each, picklable; where it raises an `UndriftError` the pool breaks.

    Safety:
        May be used from several threads.
    """

    def __init__(self, processes: int, begin: Callable[[], None]) -> None:
        self._pool = ProcessPoolExecutor(
            processes, mp_context=get_context("spawn"), initializer=_begin, initargs=(begin,)
        )
        self._starter = ThreadPoolExecutor(1, "undrift-start", initializer=_without_control_c)

    def submit(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> Future[T]:
        """Have *function* called in a process.

        Raises:
            BrokenExecutor: a process was killed, and takes the whole pool with it; also when the
                result is asked for.
        """
        submit = self._pool.submit
        return self._starter.submit(submit, function, *arguments, **named).result()

    def close(self) -> None:
        """Finish what is under way, and end the processes. Safe to call twice."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._starter.shutdown(wait=True)


def _without_control_c() -> None:
    """Let processes that this thread starts take no notice of Ctrl-C, from their birth on.

    It reaches the whole group, and one that is still importing would end with a traceback. So would
    one that is half started: no signal interrupts Python in any thread but the main one.
    """
    resource_tracker.ensure_running()  # later it would let the signal through again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


# --- in a process of the pool ---------------------------------------------------------------------


def _begin(begin: Callable[[], None]) -> None:
    # The process that has the answer decides what Ctrl-C means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, name="undrift-parent", daemon=True).start()
    try:
        begin()
    except UndriftError:
        os._exit(1)
    # It works through pages and does nothing else, which makes no cycles to look for.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


def _end_with_parent() -> None:
    """However the parent ends: nobody would tell this process that there is nothing more to do."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(0)
