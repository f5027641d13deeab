"""How far a long run is: a bar on a terminal, else a plain line every ten seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event, Thread
from typing import TYPE_CHECKING, Protocol

from undrift.cli.streams import Line, Terminal

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

LINE_EVERY_SECONDS = 10.0


class Progress(Protocol):
    """Told about every owner that is done."""

    def advance(self, *, is_error: bool) -> None:
        """One more owner is done."""

    def close(self) -> None:
        """The run is over."""


def open_progress(terminal: Terminal, total: int | None) -> Progress:
    """The progress of a run over *total* owners, None if nobody knows how many.

    One owner is over before anybody wonders, or has its own lines.
    """
    if total == 1:
        return Silence()
    if terminal.err.isatty():
        return Bar(terminal, total)
    return PlainLines(terminal, Pace(total))


class Silence:
    """No progress."""

    def advance(self, *, is_error: bool) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Say nothing."""


@dataclass(slots=True)
class Pace:
    """How much is done, how fast, and how long the rest takes.

    Attributes:
        total: owners in all, None if nobody knows.
        clock: seconds, from any beginning.
    """

    total: int | None
    clock: Callable[[], float] = time.monotonic
    done: int = 0
    errors: int = 0
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def line(self) -> str:
        """The pace in one line."""
        rate = self.done / max(self.clock() - self._started, 1e-9)
        total = "" if self.total is None else f"/{self.total}"
        return (
            f"Progress: {self.done}{total} users, {rate:.1f} users/s, ETA {self._eta(rate)}, "
            f"errors: {self.errors}"
        )

    def _eta(self, rate: float) -> str:
        if self.total is None or not rate:
            return "unknown"
        return str(timedelta(seconds=round((self.total - self.done) / rate)))


class PlainLines:
    """A line every ten seconds, for logs.

    Safety:
        The lines come from a thread of their own, so that a slow batch does not silence them.
    """

    def __init__(
        self, terminal: Terminal, pace: Pace, *, every_seconds: float = LINE_EVERY_SECONDS
    ) -> None:
        self._terminal = terminal
        self._pace = pace
        self._every_seconds = every_seconds
        self._is_over = Event()
        self._thread = Thread(target=self._run, name="undrift-progress", daemon=True)
        self._thread.start()

    def advance(self, *, is_error: bool) -> None:
        """Count one owner."""
        self._pace.done += 1
        self._pace.errors += is_error

    def close(self) -> None:
        """Write no more lines."""
        self._is_over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._is_over.wait(self._every_seconds):
            self._terminal.tell([Line(self._pace.line())])


class Bar:
    """A bar on the terminal, which steps aside for every line and leaves nothing behind."""

    def __init__(self, terminal: Terminal, total: int | None) -> None:
        self._terminal = terminal
        self._errors = 0
        self._progress = _rich_progress()
        self._task = self._progress.add_task("", total=total, errors=0)
        self._progress.start()
        terminal.bar = self

    def advance(self, *, is_error: bool) -> None:
        """Move on by one owner."""
        self._errors += is_error
        self._progress.update(self._task, advance=1, errors=self._errors)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away for as long as the context lasts."""
        self._progress.stop()
        try:
            yield
        finally:
            self._progress.start()

    def close(self) -> None:
        """Take the bar away for good."""
        self._terminal.bar = None
        self._progress.stop()


def _rich_progress() -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    return RichProgress(
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("users, errors: {task.fields[errors]}, ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
