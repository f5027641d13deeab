"""Which owners come next: page by page, from any position, at a pace, until a time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, Self

from undrift.digests import PagedStore
from undrift.errors import ConfigError
from undrift.look import Sides
from undrift.ports import VectorStore
from undrift.scan.slices import EVERYBODY, Part

PAGE_OWNERS = 2_000
"""Owners per page: enough to make the round trips' cost vanish, little enough for memory."""

_STORE_PAGES = 5
"""Pages of the store's owners that are compared with the source's at once."""

_CLOCK_FORMAT = "%H:%M"


class Position(NamedTuple):
    """How far a run over everybody has come.

    Attributes:
        is_second_side: the source's owners are done, the store's own come now.
        after: the owner behind whom to go on; None for the beginning.
    """

    is_second_side: bool = False
    after: str | None = None

    def __str__(self) -> str:
        return json.dumps([self.is_second_side, self.after])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote."""
        is_second_side, after = json.loads(text)
        return cls(bool(is_second_side), after)


BEGINNING = Position()


class Page(NamedTuple):
    """Some owners, and where the run stands when they are done.

    Attributes:
        owners: may be empty, where a stretch has nobody to look at.
    """

    owners: Sequence[str]
    end: Position


class Feed:
    """Pages of a part of all owners: the source's, and those that only the store has.

    Args:
        page_owners: owners that are listed at once.
        enough: how many of the source's a page is to have now, if that is more.

    Every iterator raises `UnknownStateError` where a page of owners cannot be listed.
    """

    def __init__(
        self,
        sides: Sides,
        part: Part = EVERYBODY,
        *,
        page_owners: int = PAGE_OWNERS,
        enough: Callable[[], int] = lambda: 0,
    ) -> None:
        self._sides = sides
        self._part = part
        self._page_owners = page_owners
        self._enough = enough

    def of_source(self, after: str | None = None) -> Iterator[Page]:
        """The source's owners behind *after*; of a small part, several stretches make one page."""
        gathered: list[str] = []
        at_least = 0.0 if self._part.is_everybody else self._page_owners / 2
        for listed in self._sides.source.owner_pages(self._page_owners, after):
            gathered.extend(self._part.of(listed))
            if len(gathered) >= max(at_least, self._enough()):
                yield Page(gathered, Position(False, listed[-1]))
                gathered = []
        yield Page(gathered, Position(True, None))

    def of_store_only(self, after: str | None = None) -> Iterator[Page]:
        """The owners that only the store has, behind *after*; most pages are of nobody."""
        source, size = self._sides.source, self._page_owners
        for listed in self._listed_by_store(after):
            asked = self._part.of(listed)
            present = source.present(asked) if asked else frozenset()
            missing = [owner for owner in asked if owner not in present]
            pages = [missing[i : i + size] for i in range(0, len(missing), size)] or [[]]
            for number, page in enumerate(pages, 1):
                end = listed[-1] if number == len(pages) else page[-1]
                yield Page(page, Position(True, end))

    def sum_of_store(self) -> int:
        """The `owner_sum` of all that the store has.

        Raises:
            UnknownStateError: they could not be listed to the end.
        """
        return sum(owner_sum(self._part.of(listed)) for listed in self._listed_by_store(None))

    def _listed_by_store(self, after: str | None) -> Iterator[Sequence[str]]:
        while self._sides.store_exists:
            # Hardly any of them is to be checked, so more are listed at once.
            listed = self._sides.store.owners(after, _STORE_PAGES * self._page_owners)
            if not listed:
                return
            yield listed
            after = listed[-1]


def owner_sum(owners: Iterable[str]) -> int:
    """A number that is the same for the same owners in any order, in this process alone.

    Of other owners it is another one, as surely as 64 bits tell them apart that nobody can choose:
    Python hashes texts with a key of the process. The sums of two groups add up to that of both.
    """
    return sum(map(hash, owners))


@dataclass(slots=True)
class Growth:
    """How many owners make a page: many while next to nobody has to be rendered.

    A page that has to be is better small, so that all who render have some of it.

    Attributes:
        most: as many as the store is best asked about at once; 0 for pages as they are listed.
    """

    most: int = 0
    _now: int = field(init=False, default=0)

    def __call__(self) -> int:
        """How many the next one is to have."""
        return self._now

    def begin_large(self) -> None:
        """Hardly anybody will have to be rendered: from the first page on."""
        self._now = self.most

    def saw(self, owners: int, rendered: int) -> None:
        """Of a page of *owners* so many had to be rendered."""
        self._now = 0 if rendered * _FEW_RENDERED > owners else self.most


_FEW_RENDERED = 10
"""One in so many."""


def growth(store: VectorStore, pace: Pace) -> Growth:
    """How the pages of a run over *store* grow; those of a slow one do not."""
    if pace.owners_per_second is not None or not isinstance(store, PagedStore):
        return Growth()
    return Growth(store.page_owners)


def named(pages: Iterable[Sequence[str]]) -> Iterator[Page]:
    """Pages of owners who were named, which no position is kept of."""
    for owners in pages:
        yield Page(owners, BEGINNING)


@dataclass(slots=True, kw_only=True)
class Pace:
    """How fast a run may go, and until when.

    Attributes:
        owners_per_second: None for as fast as it can.
        until: by ``now``; None for the end.
        is_over: whether a page was held back because the time was up.
        now: seconds since any moment.
    """

    owners_per_second: float | None = None
    until: float | None = None
    is_over: bool = False
    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    _began: float = field(init=False, default=0.0)
    _given: int = field(init=False, default=0)

    @property
    def page_owners(self) -> int:
        """Owners per page: of a slow run not more than a second's worth."""
        rate = self.owners_per_second
        return PAGE_OWNERS if rate is None else max(1, min(PAGE_OWNERS, round(rate)))

    def of(self, pages: Iterator[Page]) -> Iterator[Page]:
        """*pages* at this pace, up to the time; more of them go on as if they were the same."""
        if not self._given:
            self._began = self.now()
        for page in pages:
            self._wait()
            if self.until is not None and self.now() >= self.until:
                self.is_over = True
                return
            self._given += len(page.owners)
            yield page

    def _wait(self) -> None:
        if self.owners_per_second is None:
            return
        due = self._began + self._given / self.owners_per_second
        if self.until is not None:
            due = min(due, self.until)
        while (left := due - self.now()) > 0:
            self.sleep(min(left, 1.0))


def next_time(text: str, *, now: datetime | None = None) -> float:
    """When the clock next shows *text* here, in seconds since the epoch.

    Args:
        text: ``HH:MM``, in this machine's time zone.

    Raises:
        ConfigError: it is no time of day.
    """
    now = now or datetime.now().astimezone()
    try:
        at = datetime.strptime(text.strip(), _CLOCK_FORMAT)  # noqa: DTZ007 - the day's comes next
    except ValueError as exc:
        raise ConfigError(
            f"--until {text} is no time of day",
            why="it is written as hours and minutes, from 00:00 to 23:59.",
            fix="write it like --until 06:00",
        ) from exc
    then = now.replace(hour=at.hour, minute=at.minute, second=0, microsecond=0)
    if then <= now:
        then += timedelta(days=1)
    return then.timestamp()
