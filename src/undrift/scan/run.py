"""A check of everybody, from the first page to the last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field

from undrift.errors import ConfigError, StateUnavailable, UnknownStateError
from undrift.events import CheckPaused, CheckStarted, Listener, ignore
from undrift.failpoints import reach
from undrift.fleet import PageFailures
from undrift.look import Sides
from undrift.model import Read, SyncStatus
from undrift.scan.engine import Engine
from undrift.scan.feed import BEGINNING, Feed, Pace, Page, Position, growth, owner_sum
from undrift.scan.page import PageCheck, PageResult
from undrift.scan.progress import Checkpoints, Resumed
from undrift.scan.slices import EVERYBODY, Part

_PEEKED = 100
"""Owners by whom a run tells whether most are remembered."""


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
        run = _Run(self._sides, self._check, self._options)
        failures, done = PageFailures(), Counter(resumed.outcomes)
        try:
            for pages in run.sides(resumed.position):
                for page, result in self._engine.check(pace.of(pages)):
                    statuses = list(result.statuses())
                    reach("scan.page_checked")
                    yield from statuses
                    run.saw(page, result, statuses)
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


class _Run:
    """What comes next, by what was found so far."""

    def __init__(self, sides: Sides, check: PageCheck, options: ScanOptions) -> None:
        self._sides = sides
        self._check = check
        self._pace = options.pace
        self._growth = growth(sides.store, options.pace)
        self._feed = Feed(
            sides, options.part, page_owners=options.pace.page_owners, enough=self._growth
        )
        self._met = 0
        self._stored: int | None = None

    def sides(self, start: Position) -> Iterator[Iterator[Page]]:
        """The source's owners, and then, unless these were all that it has, the store's others."""
        if not start.is_second_side:
            self._begin_large(start.after)
            pages = self._feed.of_source(start.after)
            yield self._and_who_is_stored(pages) if start == BEGINNING else pages
            if self._pace.is_over or self._met == self._stored:
                return
            start = Position(is_second_side=True)
        yield self._feed.of_store_only(start.after)

    def saw(self, page: Page, result: PageResult, statuses: Iterable[SyncStatus]) -> None:
        """A page was checked."""
        self._growth.saw(len(page.owners), result.rendered)
        self._met += owner_sum(one.owner_id for one in statuses if any(one.store.values()))

    def _begin_large(self, after: str | None) -> None:
        if self._growth.most:
            with suppress(UnknownStateError):  # the first page says why
                first = next(self._sides.source.owner_pages(_PEEKED, after), ())
                if self._check.remembers_most(first):
                    self._growth.begin_large()

    def _and_who_is_stored(self, pages: Iterator[Page]) -> Iterator[Page]:
        """*pages*; and while the last of them are checked, the store's owners are listed.

        Where they add up to those who were met, the source need not be asked for each of them.
        """
        yield from pages
        self._stored = self._feed.sum_of_store()
