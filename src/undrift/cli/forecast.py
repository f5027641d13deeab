"""What a sync of everybody is going to do, told to the person who is asked whether it may.

A fleet in sync is looked through by its digests. One that is not, is looked at for a while; what is
told of it then is taken from that part, and says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from math import floor, log10
from typing import TYPE_CHECKING

from undrift.cli.progress import Pace, open_progress
from undrift.cli.streams import Line, Terminal, Tone
from undrift.errors import SafetyStop
from undrift.guard import DeleteGuard, DeleteLimit
from undrift.model import Cost, Outcome, SyncReport

if TYPE_CHECKING:
    from undrift.api import Undrift

LOOK_SECONDS = 20.0
"""A person waits about so long for a question."""

_UNSEEN = frozenset({Outcome.UNKNOWN, Outcome.NOT_FOUND})


@dataclass(slots=True, kw_only=True)
class Forecast:
    """What was seen of what a sync is going to do.

    Attributes:
        users: looked at; differing: to be synced; unknown: who could not be looked at.
        records: of those users in the store.
        total: users in all, where not everybody was looked at; None if nobody knows.
        is_about: whether that is an estimate.
        is_whole: everybody was looked at.
        guard: decides on the deletes as the sync's own is going to.
    """

    users: int = 0
    differing: int = 0
    unknown: int = 0
    records: int = 0
    cost: Cost = field(default_factory=Cost)
    total: int | None = None
    is_about: bool = False
    is_whole: bool = True
    guard: DeleteGuard = field(default_factory=DeleteGuard)

    def add(self, report: SyncReport) -> None:
        """Count one user."""
        self.users += 1
        self.unknown += report.outcome in _UNSEEN
        self.differing += not report.skipped and report.outcome not in _UNSEEN
        self.records += sum(report.before.store.values())
        self.cost += report.cost
        before = report.before
        self.guard.saw(before.store, in_source=not before.orphan_owner)
        self.guard.planned.update(key.kind for key in (*before.stale_ids, *before.duplicate_ids))

    @property
    def is_nothing(self) -> bool:
        """Whether there is certainly nothing to be done."""
        return self.is_whole and not self.differing and not self.unknown

    @property
    def texts(self) -> int | None:
        """Texts that are to be embedded, about; None where too little was seen to tell."""
        if not self.is_whole and self.total is None:
            return None
        return round(self.cost.texts * self._scale)

    def lines(self, *, max_embeddings: int | None = None) -> list[Line]:
        """The forecast for people.

        Args:
            max_embeddings: where the sync is to end early.
        """
        cost = self.cost
        tokens = f" (about {self._scaled(cost.tokens)} tokens)" if cost.tokens else ""
        of_all = self._about(self.records)
        lines = [
            Line(self._heading(), Tone.HEADING),
            Line(f"  - Users to sync: {self._about(self.differing)}"),
        ]
        if self.unknown:
            lines.append(Line(f"  - Users unknown: {self._about(self.unknown)}"))
        lines += [
            Line(f"  - Texts to embed: {self._about(cost.texts)}{tokens}"),
            Line(f"  - Vectors to write: {self._about(cost.writes)}"),
            Line(f"  - Vectors to delete: {self._about(cost.deletes)} of {of_all}"),
        ]
        if self.is_whole:
            lines += self._stopped()
        if max_embeddings is not None and (self.texts is None or self.texts > max_embeddings):
            lines.append(Line(f"  - Ends after {max_embeddings} texts, by --max-embeddings"))
        if not self.is_whole:
            others = "the other users, and those whom only the vector store has"
            lines.append(Line(f"  - Not looked at yet: {others}"))
        return lines

    def _stopped(self) -> Iterator[Line]:
        """Why the deletes are not going to be made, if they are not."""
        try:
            self.guard.require()
        except SafetyStop as stop:
            yield Line(f"  - Stops before the deletes: {stop.why}", Tone.WARNING)

    def _heading(self) -> str:
        if self.is_whole:
            return f"🔍 What this sync does, by a look at all {self.users} users:"
        if self.total is None:
            return f"🔍 What this sync does, by a look at the first {self.users} users:"
        of_all = f"{'about ' * self.is_about}{self.total} users"
        share = 100 * self.users / self.total
        return f"🔍 What this sync does, by a look at {self.users} of {of_all} ({share:.2g} %):"

    @property
    def _scale(self) -> float:
        return self.total / self.users if self.total is not None and self.users else 1.0

    def _about(self, count: int) -> str:
        if self.is_whole:
            return str(count)
        return f"{'at least' if self.total is None else 'about'} {self._scaled(count)}"

    def _scaled(self, count: int) -> str:
        is_seen = self.is_whole or self.total is None
        return str(count if is_seen else _two_digits(count * self._scale))


def look_ahead(
    terminal: Terminal,
    sides: Undrift,
    *,
    force: bool = False,
    max_delete: str | None = None,
    seconds: float = LOOK_SECONDS,
    clock: Callable[[], float] = time.monotonic,
) -> Forecast:
    """Look for so many seconds at what a sync of everybody is going to do; writes nothing.

    Raises:
        ConfigError, UnknownStateError: as the sync itself would.
    """
    limit = None if max_delete is None else DeleteLimit.parse(max_delete)
    guard = DeleteGuard.of(limit, is_adopted=sides.describe().is_adopted)
    forecast, ends = Forecast(guard=guard), clock() + seconds
    pace = Pace(None, count=sides.headcount)
    progress = open_progress(terminal, pace)
    try:
        with closing(_closable(sides.plan(None, force=force))) as reports:
            for report in reports:
                forecast.add(report)
                pace.user_done(is_error=report.outcome in _UNSEEN)
                if clock() >= ends:
                    forecast.is_whole = False
                    break
    finally:
        progress.close()
    if not forecast.is_whole:
        pace.ask()
        forecast.total, forecast.is_about = pace.expected, pace.is_about
    return forecast


def _closable(reports: Iterator[SyncReport]) -> Generator[SyncReport, None, None]:
    yield from reports


def _two_digits(value: float) -> int:
    """*value*, as far as it may be trusted."""
    if value < 100:
        return round(value)
    return int(round(value, 1 - floor(log10(value))))
