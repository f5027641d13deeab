"""Clocks, and who one is: what a simulation replaces."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from uuid import uuid4

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


def is_gone(holder: str) -> bool:
    """Whether *holder* certainly runs no more: a process of this host that is not there.

    In doubt it is there. A wrong answer costs a text embedded twice, nothing else.
    """
    host, _, rest = holder.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    try:
        os.kill(int(rest), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
