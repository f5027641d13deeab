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


def everybody(
    sides: Sides,
    part: Part = EVERYBODY,
    *,
    start: Position = BEGINNING,
    page_owners: int = PAGE_OWNERS,
    enough: Callable[[], int] = lambda: 0,
) -> Iterator[Page]:
    """Pages of *part* of all owners: the source's, then those that only the store has.

    Args:
        page_owners: owners that are listed at once.
        enough: how many of the source's a page is to have now, if that is more.

    Raises:
        UnknownStateError: a page of owners could not be listed.
    """
    if not start.is_second_side:
        yield from _source_pages(sides, part, start.after, page_owners, enough)
        start = Position(is_second_side=True)
    after = start.after
    while sides.store_exists:
        # Hardly any of them is to be checked, so more are listed at once.
        listed = sides.store.owners(after, _STORE_PAGES * page_owners)
        if not listed:
            return
        asked = part.of(listed)
        present = sides.source.present(asked) if asked else frozenset()
        missing = [owner for owner in asked if owner not in present]
        after = listed[-1]
        pages = [missing[i : i + page_owners] for i in range(0, len(missing), page_owners)] or [[]]
        for number, page in enumerate(pages, 1):
            end = after if number == len(pages) else page[-1]
            yield Page(page, Position(True, end))


def _source_pages(
    sides: Sides,
    part: Part,
    after: str | None,
    page_owners: int,
    enough: Callable[[], int],
) -> Iterator[Page]:
    """The source's owners; of a small part, several stretches make one page."""
    gathered: list[str] = []
    at_least = 0.0 if part.is_everybody else page_owners / 2
    end = Position(False, after)
    for listed in sides.source.owner_pages(page_owners, after):
        gathered.extend(part.of(listed))
        end = Position(False, listed[-1])
        if len(gathered) >= max(at_least, enough()):
            yield Page(gathered, end)
            gathered = []
    yield Page(gathered, Position(True, None))


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
        """*pages* at this pace, up to the time."""
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
