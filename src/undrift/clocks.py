"""Clocks, and who one is: what a simulation replaces."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from uuid import uuid4
from weakref import WeakValueDictionary

Clock = Callable[[], float]
"""Seconds that only grow."""

Sleep = Callable[[float], None]


def awake_or_not() -> float:
    """Seconds since some moment, those that the machine slept through included.

    A plan that was made before the lid was closed must be old when it is opened again; the usual
    monotonic clock of Linux stands still in between.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def new_holder() -> str:
    """A name for whoever holds leases: host, process and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:12]}"


_at_work: WeakValueDictionary[str, object] = WeakValueDictionary()


def begin_work(holder: str, worker: object) -> None:
    """Let *holder* be at work until *worker* ends its work or is forgotten."""
    _at_work[holder] = worker


def end_work(holder: str) -> None:
    """Let *holder* be gone: it holds nothing that anybody has to wait for."""
    _at_work.pop(holder, None)


def is_gone(holder: str) -> bool:
    """Whether *holder* certainly works no more: a process of this host that is not there.

    Or one of this very process that has ended its work, and may not have been able to say so. In
    doubt it is there. A wrong answer costs a text embedded twice, nothing else.
    """
    host, _, rest = holder.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    if int(rest) == os.getpid():
        return holder not in _at_work
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
