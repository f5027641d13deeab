"""How far a long run is: a bar on a terminal, else a plain line every ten seconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from threading import Event, Thread
from typing import TYPE_CHECKING, Protocol

from undrift.cli.streams import Line, Terminal
from undrift.errors import UndriftError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from undrift.headcount import Headcount

LINE_EVERY_SECONDS = 10.0

WINDOW_SECONDS = 60.0
"""How far back one looks for how fast a run is: what is in sync goes faster than what is not."""

_COUNTING_SECONDS = 2.0  # how long a run that is over waits for its users to be counted


def cannot_count() -> Headcount | None:
    """Nobody knows how many there are, and nobody is to be asked."""
    return None


@dataclass(slots=True)
class Pace:
    """How much is done, how fast, and how long the rest takes and what it costs.

    Attributes:
        total: users in all, None if nobody knows.
        count: asked for the total when it is first to be shown, so that a short run asks nobody.
        planned: texts that were to be embedded, as somebody looked before; None where nobody has.
        clock: seconds, from any beginning.
        is_about: whether the total is an estimate.
        done: users, those of an earlier run included that was taken up.
        texts: embedded so far; tokens: about as many are in them.

    Safety:
        One thread tells of users; any may tell of texts, and read.
    """

    total: int | None
    count: Callable[[], Headcount | None] = cannot_count
    planned: int | None = None
    clock: Callable[[], float] = time.monotonic
    is_about: bool = False
    done: int = 0
    errors: int = 0
    texts: int = 0
    tokens: int = 0
    _own: int = 0
    _again: int = 0
    _paid: int = 0
    _seen: deque[tuple[float, int]] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self._seen.append((self.clock(), 0))

    # --- what happened

    def take_up(self, done: int, *, again: int) -> None:
        """An earlier run was *done* with so many users; it tells *again* of some of them."""
        self.done += done
        self._again = again

    def user_done(self, *, is_error: bool = False, embedded: int = 0) -> None:
        """One more user is done, for whom so many texts were embedded."""
        self.errors += is_error
        if self._again:
            self._again -= 1
            return
        self.done += 1
        self._own += 1
        self._paid += embedded
        now = self.clock()
        if now - self._seen[-1][0] >= 1:
            self._seen.append((now, self._own))

    def embedded(self, texts: int, tokens: int) -> None:
        """So many texts were embedded, for users who may not be done yet."""
        self.texts += texts
        self.tokens += tokens

    def ask(self) -> None:
        """Find out how many users there are, if nobody knows."""
        if self.total is not None:
            return
        count, self.count = self.count, cannot_count
        with suppress(UndriftError):  # the run meets the same, and says so
            found = count()
            if found is not None:
                self.total, self.is_about = found

    # --- what is to be told

    @property
    def expected(self) -> int | None:
        """Users in all; None if nobody knows, or more have come than there were to be."""
        return None if self.total is None or self.done > self.total else self.total

    def users(self) -> str:
        """How many users are done, how fast, how long the others take, and how many went wrong."""
        rate = self._rate()
        of_all = "" if self.expected is None else f"/{'about ' * self.is_about}{self.expected}"
        return (
            f"{self.done}{of_all} users, {rate:.1f} users/s, ETA {self._eta(rate)}, "
            f"errors: {self.errors}"
        )

    def costs(self) -> str:
        """What was paid for and what is likely to be left; empty where nothing was."""
        if not self.texts:
            return ""
        paid = f"embedded: {self.texts} texts (about {self.tokens} tokens)"
        left = self._texts_left()
        if left is None:
            return paid
        tokens = round(left * self.tokens / self.texts)
        return f"{paid}, to go: about {left} texts ({tokens} tokens)"

    def line(self) -> str:
        """The pace in one line."""
        return ", ".join(filter(None, [f"Progress: {self.users()}", self.costs()]))

    def _rate(self) -> float:
        now = self.clock()
        while len(self._seen) > 1 and now - self._seen[1][0] >= WINDOW_SECONDS:
            self._seen.popleft()
        began, before = self._seen[0]
        return (self._own - before) / max(now - began, 1e-9)

    def _eta(self, rate: float) -> str:
        if self.expected is None or not rate:
            return "unknown"
        return str(timedelta(seconds=round((self.expected - self.done) / rate)))

    def _texts_left(self) -> int | None:
        """As planned; or as if the users that are left needed as many as those that are done."""
        if self.planned is not None and self.planned >= self.texts:
            return self.planned - self.texts
        if self.expected is None or not self._own:
            return None
        to_come = (self.expected - self.done) * self._paid / self._own
        # Of those that are paid for, some are of users who are not done yet.
        return max(0, round(self._paid + to_come) - self.texts)


class Progress(Protocol):
    """Shows a pace."""

    def close(self) -> None:
        """The run is over."""


def open_progress(terminal: Terminal, pace: Pace) -> Progress:
    """Show *pace* on standard error.

    One user is over before anybody wonders, or has their own lines.
    """
    if pace.total == 1:
        return Silence()
    if terminal.err.isatty():
        return Bar(terminal, pace)
    return PlainLines(terminal, pace)


class Silence:
    """No progress."""

    def close(self) -> None:
        """Say nothing."""


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

    def close(self) -> None:
        """Write no more lines."""
        self._is_over.set()
        self._thread.join(_COUNTING_SECONDS)

    def _run(self) -> None:
        while not self._is_over.wait(self._every_seconds):
            self._pace.ask()
            if not self._is_over.is_set():
                self._terminal.tell([Line(self._pace.line())])


class Bar:
    """A bar on the terminal, which steps aside for every line and leaves nothing behind."""

    def __init__(self, terminal: Terminal, pace: Pace) -> None:
        from rich.console import Console
        from rich.live import Live

        self._terminal = terminal
        self._live = Live(
            console=Console(stderr=True),
            get_renderable=lambda: _picture(pace),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._counting = Thread(target=pace.ask, name="undrift-headcount", daemon=True)
        self._counting.start()
        try:
            self._live.start(refresh=True)
        except BaseException:  # a signal, most likely: the cursor is to come back
            self._live.stop()
            raise
        terminal.bar = self

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar away for as long as the context lasts."""
        self._live.stop()
        try:
            yield
        finally:
            self._live.start(refresh=True)

    def close(self) -> None:
        """Take the bar away for good."""
        self._terminal.bar = None
        self._live.stop()
        self._counting.join(_COUNTING_SECONDS)


_BAR_COLUMNS = 12


def _picture(pace: Pace) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    total = pace.expected
    row = Table.grid(padding=(0, 1))
    row.add_column()
    row.add_column(no_wrap=True, overflow="ellipsis")
    row.add_row(
        ProgressBar(total=total, completed=pace.done, width=_BAR_COLUMNS, pulse=total is None),
        Text(pace.users()),
    )
    costs = pace.costs()
    return Group(row, Text(costs, no_wrap=True, overflow="ellipsis")) if costs else row
