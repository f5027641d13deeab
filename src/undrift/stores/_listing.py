"""Pages of owners from a store that lists them all at once, or not at all in an order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from threading import Lock


class OwnerListing:
    """The owners of a store, sorted by code point and kept while somebody pages through them.

    Args:
        fetch: every owner of managed records, in any order; repetitions do no harm.

    Safety:
        May be used from several threads. A page that begins at the first owner fetches anew; one
        that goes on uses what was fetched before. Memory grows with the number of owners, some
        100 bytes each.
    """

    def __init__(self, fetch: Callable[[], Iterable[str]]) -> None:
        self._fetch = fetch
        self._owners: Sequence[str] | None = None
        self._lock = Lock()

    def page(self, after: str | None, limit: int) -> Sequence[str]:
        """At most *limit* owners behind *after*; see `VectorStore.owners`."""
        with self._lock:
            if after is None or self._owners is None:
                self._owners = sorted(set(self._fetch()))
            owners = self._owners
            start = 0 if after is None else bisect_right(owners, after)
            page = owners[start : start + limit]
            if not page:
                self._owners = None  # nobody goes on from here
            return page
