"""Signals that end a run: the first lets it finish what is under way, the second does not.

What is under way is the work's last step, and always the answer: it is written to its end.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TypeVar

T = TypeVar("T")


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived.

    A `KeyboardInterrupt`, so that drivers cancel the query they are waiting for and nothing takes
    it for one owner's failure.

    Attributes:
        number: the signal's.
        has_begun: whether there was any work yet that it ended.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.has_begun = True

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal.Signals(self.number).name

    @property
    def exit_code(self) -> int:
        """What a shell would report, too."""
        return 128 + self.number


@contextmanager
def before_work() -> Iterator[None]:
    """What an interruption in here ends has not begun."""
    try:
        yield
    except Interrupted as signalled:
        signalled.has_begun = False
        raise


ECHO_SECONDS = 0.5
"""A signal so soon behind the first is the same one again.

`timeout` and shells send one to the process and to its group, and it then arrives twice.
"""
_ANNOUNCEMENT = b"Stopping after what is under way; once more stops at once.\n"


class Interrupts:
    """Turns the first signal into `Interrupted`; a second one ends the process at once.

    Args:
        announce: what standard error is told at the first.
        clock: seconds that only grow.

    Attributes:
        received: the first signal's number, None before there is one.

    Safety:
        An exception out of a signal handler can get lost, for instance in a destructor or while a
        module is imported. `watched` therefore looks again between any two items, and
        `raise_received` where nothing has been asked of a server yet.
    """

    def __init__(
        self,
        announce: Callable[[], bytes] = lambda: _ANNOUNCEMENT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.received: int | None = None
        self._received_at = 0.0
        self._clock = clock
        self._is_raising = False
        self._announce = announce

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Note signals while the context lasts, if this thread is the main one."""
        previous = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # nohup and the like
                    previous[number] = signal.signal(number, self._receive)
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Raise `Interrupted` for a signal that is caught before or within the context.

        Outside it a signal is only noted, so that no exception comes in the middle of an answer.
        """
        self._is_raising = True
        try:
            self.raise_received()
            yield
        finally:
            self._is_raising = False

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Raise nothing while the context lasts: who works in it asks for `received` in between."""
        before, self._is_raising = self._is_raising, False
        try:
            yield
        finally:
            self._is_raising = before

    def watched(self, items: Iterable[T]) -> Iterator[T]:
        """*items*, until a signal has arrived."""
        for item in items:
            yield item
            self.raise_received()

    def raise_received(self) -> None:
        """Raise `Interrupted` if a signal has arrived whose exception got lost."""
        if self.received is not None:
            raise Interrupted(self.received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if self._clock() - self._received_at < ECHO_SECONDS:
                return
            os._exit(128 + number)
        self.received, self._received_at = number, self._clock()
        with suppress(OSError):  # past all buffers: the signal may have come in the middle of them
            os.write(2, self._announce())
        if self._is_raising:
            raise Interrupted(number)
