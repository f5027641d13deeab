"""Going over every owner of both sides, and when to stop trying."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from undrift.errors import InvalidDocument, UndriftError, UnknownStateError
from undrift.look import Sides

PAGE_OWNERS = 500
"""Owners per look: enough to make the round trips' cost vanish, little enough for memory."""

MAX_FAILED_PAGES = 3
"""Pages in a row that may fail before a run gives up: one may be bad luck, three are an outage."""


def fleet_pages(sides: Sides, *, page_owners: int = PAGE_OWNERS) -> Iterator[Sequence[str]]:
    """Pages of all owners: the source's, then those that only the store has.

    Raises:
        UnknownStateError: a page of owners could not be listed.
    """
    yield from sides.source.owner_pages(page_owners)
    after: str | None = None
    while sides.store_exists:
        owners = sides.store.owners(after, page_owners)
        if not owners:
            return
        present = sides.source.present(owners)
        orphans = [owner for owner in owners if owner not in present]
        if orphans:
            yield orphans
        after = owners[-1]


def pages_of(owners: Iterable[str], *, page_owners: int = PAGE_OWNERS) -> Iterator[list[str]]:
    """*owners* in pages, each owner once, in the given order."""
    page: list[str] = []
    for owner in dict.fromkeys(owners):
        page.append(owner)
        if len(page) == page_owners:
            yield page
            page = []
    if page:
        yield page


def is_outage(error: UndriftError | None) -> bool:
    """Whether *error* is a side that could not be read, rather than one owner's content."""
    return isinstance(error, UnknownStateError) and not isinstance(error, InvalidDocument)


class PageFailures:
    """Counts pages in a row of which nothing could be read."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._last: UndriftError | None = None

    def saw(self, errors: Sequence[UndriftError | None]) -> None:
        """Count a page, given each owner's error."""
        if errors and all(is_outage(error) for error in errors):
            self._in_a_row += 1
            self._last = errors[0]
        else:
            self._in_a_row = 0

    @property
    def error(self) -> UnknownStateError | None:
        """The reason to give up, once there is one."""
        if self._in_a_row < MAX_FAILED_PAGES or self._last is None:
            return None
        error = UnknownStateError(
            f"{MAX_FAILED_PAGES} pages of owners in a row could not be read",
            why=f"the last one: {self._last.what}: {self._last.why}",
            fix=self._last.fix,
        )
        error.__cause__ = self._last
        return error
