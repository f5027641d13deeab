"""The check of whoever was changed since the last sync, by what the source's triggers tell.

Two lists hold them: marks that nobody has taken yet, in the source, and owners who are to be
synced, in the state. A mark is taken when the state knows of it, and not before. So for every
stretch of owners the marks are read first, and the state after them: an owner who changes over in
between is on both lists, never on none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from heapq import merge
from itertools import groupby, islice

from undrift.changes import ChangeFeed, Peeked
from undrift.errors import ConfigError
from undrift.events import CheckStarted, EverybodyMarked, Listener, TriggersAmiss
from undrift.fleet import PageFailures
from undrift.model import Read, SyncStatus
from undrift.scan.engine import Engine
from undrift.scan.feed import PAGE_OWNERS, named
from undrift.scan.run import Scan
from undrift.state import State

LISTED_OWNERS = 50_000
"""Owners asked for at once: a list is read whole for every stretch of it."""


class ChangedScan:
    """One check of whoever was changed since the last sync.

    Args:
        engine: checks the pages, in full.
        everybody: the check of everybody, where a mark says that anybody may have been changed.
        listed_owners: asked for at once.
    """

    def __init__(
        self,
        engine: Engine,
        feed: ChangeFeed,
        state: State,
        *,
        everybody: Callable[[], Scan],
        listener: Listener,
        listed_owners: int = LISTED_OWNERS,
    ) -> None:
        self._engine = engine
        self._feed = feed
        self._state = state
        self._everybody = everybody
        self._listener = listener
        self._listed_owners = listed_owners

    def statuses(self) -> Iterator[SyncStatus]:
        """Check them; takes no mark, and nobody's lease.

        Order:
            By owner, by code point; of everybody, as `Scan.statuses` says.

        Raises:
            ConfigError: there are no triggers, or no state yet, so that nothing tells who was
                changed.
            UnknownStateError: marks or state could not be read to the end, or page after page of
                the owners failed; what was yielded stands, the rest is unknown.
        """
        with closing(self._engine):
            self._require_told()
            marked = self._feed.peek(self._listed_owners)
            if not marked.is_everybody:
                started = CheckStarted(read=Read.CHANGED, outcomes={}, began_seconds=None)
                self._listener(started)
                yield from self._pages(marked)
                return
        self._listener(EverybodyMarked())
        yield from self._everybody().statuses()

    def _require_told(self) -> None:
        """See that somebody tells who was changed, and say what is amiss with that."""
        changes = self._feed.pending()
        if not changes.is_installed:
            raise ConfigError(
                "Nothing tells who was changed",
                why=f"{changes.location} has no triggers of undrift's, and without them a check of "
                "the changed users would see nobody.",
                fix="run `undrift triggers install`, or check everybody with `undrift check --all`",
            )
        if not self._state.exists():
            raise ConfigError(
                "Nothing was synced yet",
                why=f"there is no state at {self._state.location}, so nobody knows who was changed "
                "since.",
                fix="run `undrift sync --all` once, or check everybody with `undrift check --all`",
            )
        amiss = (*changes.problems, *changes.refused)
        if amiss:
            self._listener(TriggersAmiss(amiss))

    def _pages(self, marked: Peeked) -> Iterator[SyncStatus]:
        failures = PageFailures()
        for _, result in self._engine.check(named(_paged(self._owners(marked)))):
            statuses = [replace(status, read=Read.CHANGED) for status in result.statuses()]
            yield from statuses
            failures.saw([status.error for status in statuses])
            if failures.error is not None:
                raise failures.error

    def _owners(self, marked: Peeked) -> Iterator[str]:
        """The owners of both lists, each once."""
        after: str | None = None
        while True:
            dirty = self._dirty(after, marked.next_after)
            for owner, _ in groupby(merge(marked.owners, dirty)):
                yield owner
            after = marked.next_after
            if after is None:
                return
            marked = self._feed.peek(self._listed_owners, after)

    def _dirty(self, after: str | None, last: str | None) -> Iterator[str]:
        """Dirty owners behind *after*, up to *last*; None for the end."""
        while page := self._state.dirty_owners(self._listed_owners, after):
            for owner in page:
                if last is not None and owner > last:
                    return
                yield owner
            after = page[-1]


def no_change_capture() -> ConfigError:
    """The source is one that nothing can tell of."""
    return ConfigError(
        "Nothing tells who was changed",
        why="this source can have no triggers: it is an object of your own without them.",
        fix="check everybody with check_all(), or use a source of undrift's, by its URL",
    )


def _paged(owners: Iterator[str]) -> Iterator[list[str]]:
    while page := list(islice(owners, PAGE_OWNERS)):
        yield page
