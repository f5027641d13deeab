"""A check of everybody, from the first page to the last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field

from undrift.errors import ConfigError, StateUnavailable
from undrift.events import CheckPaused, CheckStarted, Listener, ignore
from undrift.failpoints import reach
from undrift.fleet import PageFailures
from undrift.look import Sides
from undrift.model import Read, SyncStatus
from undrift.scan.engine import Engine
from undrift.scan.feed import Pace, Page, everybody, growth
from undrift.scan.page import PageCheck
from undrift.scan.progress import Checkpoints, Resumed
from undrift.scan.slices import EVERYBODY, Part


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanOptions:
    """How everybody is checked.

    Attributes:
        part: whom of them.
        pace: how fast, and until when.
        listener: told how the run begins, and how it ends early.
    """

    part: Part = EVERYBODY
    pace: Pace = field(default_factory=Pace)
    listener: Listener = ignore


class Scan:
    """One check of everybody, or of a part.

    Args:
        check: what the engine does with a page; asked here for nothing but what it reads.
        checkpoints: None where nothing is to be saved.
        resume: take up what was saved last.
    """

    def __init__(
        self,
        sides: Sides,
        check: PageCheck,
        engine: Engine,
        options: ScanOptions,
        *,
        checkpoints: Checkpoints | None = None,
        resume: bool = False,
    ) -> None:
        self._sides = sides
        self._check = check
        self._engine = engine
        self._options = options
        self._checkpoints = checkpoints
        self._resume = resume

    def statuses(self) -> Iterator[SyncStatus]:
        """Check everybody.

        Order:
            What an earlier run found, of one that is taken up; the source's owners in its own
            order, then owners that only the store has.

        Raises:
            UnknownStateError: the owners could not be listed to the end, or page after page failed;
                what was yielded stands, the rest is unknown.
            ConfigError: a run is to be taken up where none can be saved.
        """
        with closing(self._engine):
            resumed = self._begin()
            self._options.listener(
                CheckStarted(
                    read=self.read,
                    outcomes=dict(resumed.outcomes) if resumed else {},
                    began_seconds=resumed.began_seconds if resumed else None,
                    is_saved=self._checkpoints is not None,
                )
            )
            if resumed is not None and self._checkpoints is not None:
                yield from self._checkpoints.earlier()
            yield from self._pages(resumed or Resumed())

    @property
    def read(self) -> Read:
        """What the run reads."""
        if self._options.part.sample is not None:
            return Read.SAMPLE
        return Read.DIGESTS if self._check.uses_memos else Read.FULL

    def _begin(self) -> Resumed | None:
        if self._checkpoints is None:
            return None
        try:
            return self._checkpoints.begin(resume=self._resume)
        except (ConfigError, StateUnavailable):
            if self._resume:
                raise
            self._checkpoints = None  # there is nobody to tell: it was not asked for
            return None

    def _pages(self, resumed: Resumed) -> Iterator[SyncStatus]:
        pace, checkpoints = self._options.pace, self._checkpoints
        size = growth(self._sides.store, pace)
        feed = everybody(
            self._sides,
            self._options.part,
            start=resumed.position,
            page_owners=pace.page_owners,
            enough=size,
        )
        failures, done = PageFailures(), Counter(resumed.outcomes)
        try:
            for page, result in self._engine.check(pace.of(feed)):
                size.saw(len(page.owners), result.rendered)
                statuses = list(result.statuses())
                reach("scan.page_checked")
                yield from statuses
                done.update(status.outcome for status in statuses)
                self._note(page, statuses)
                failures.saw([status.error for status in statuses])
                if failures.error is not None:
                    raise failures.error
        except BaseException:
            if checkpoints is not None:
                checkpoints.save()
            raise
        if checkpoints is not None:
            checkpoints.save() if pace.is_over else checkpoints.end()
        if pace.is_over:
            self._options.listener(CheckPaused(owners=done.total()))

    def _note(self, page: Page, statuses: list[SyncStatus]) -> None:
        if self._checkpoints is not None:
            self._checkpoints.done(page.end, statuses)
