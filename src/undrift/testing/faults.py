"""Crashes and errors at named places (see `undrift.failpoints`).

Each fault is installed by the call, and removed at the end of a ``with`` block if it is used as
one: ``kill_at("store.publish.written")`` alone is right for a child process that is meant to die.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Self

from undrift import failpoints


class Fault:
    """An installed fault; as a context manager it is removed at the end.

    Attributes:
        reached: how often its failpoint was reached so far.
    """

    def __init__(self, name: str, occurrence: int, strike: Callable[[], None]) -> None:
        self._name = failpoints.known(name)
        self._occurrence = occurrence
        self._strike = strike
        self.reached = 0
        self._previous = failpoints.install(self._hear)

    def _hear(self, name: str) -> None:
        if self._previous is not None:
            self._previous(name)
        if name == self._name:
            self.reached += 1
            if self.reached == self._occurrence:
                self._strike()

    def remove(self) -> None:
        """Put back what was installed before."""
        failpoints.install(self._previous)

    def __enter__(self) -> Self:
        """Return the fault, which is installed already."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Remove the fault."""
        self.remove()


def kill_at(name: str, occurrence: int = 1) -> Fault:
    """Kill this process with SIGKILL when *name* is reached for the *occurrence*-th time."""
    return Fault(name, occurrence, lambda: os.kill(os.getpid(), signal.SIGKILL))


def raise_at(name: str, error: BaseException, occurrence: int = 1) -> Fault:
    """Raise *error* when *name* is reached for the *occurrence*-th time."""

    def strike() -> None:
        raise error

    return Fault(name, occurrence, strike)


def call_at(name: str, action: Callable[[], None], occurrence: int = 1) -> Fault:
    """Call *action* when *name* is reached for the *occurrence*-th time.

    For what another process or the server does at just that moment.
    """
    return Fault(name, occurrence, action)
