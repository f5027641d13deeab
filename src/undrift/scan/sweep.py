"""One pass over a whole store, beside whatever else a check of everybody does."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from undrift.digests import RecordsDigest

Swept = Mapping[str, RecordsDigest]


class Sweep:
    """What a store holds of everybody; read once, from now on, in a thread of its own.

    Args:
        read: `SweepingStore.sweep`, given what tells it that nobody wants the answer any more.

    Safety:
        May be used from several threads, each of which waits until the pass has ended.
    """

    def __init__(self, read: Callable[[Callable[[], bool]], Swept | None]) -> None:
        self._closed = Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="undrift-sweep")
        self._swept = self._thread.submit(read, self._closed.is_set)
        self._owners: Sequence[str] | None = None

    def digests(self) -> Swept | None:
        """By owner; None where the store is not read in one pass.

        Raises:
            UnknownStateError: it could not be read to the end.
        """
        return self._swept.result()

    def owners(self, after: str | None, limit: int) -> Sequence[str] | None:
        """As `VectorStore.owners`; None where the store is not read in one pass.

        Raises:
            UnknownStateError: it could not be read to the end.
        """
        found = self.digests()
        if found is None:
            return None
        if self._owners is None:
            self._owners = sorted(owner for owner, digest in found.items() if digest.records)
        start = 0 if after is None else bisect_right(self._owners, after)
        return self._owners[start : start + limit]

    def close(self) -> None:
        """End the pass, wherever it is."""
        self._closed.set()
        self._thread.shutdown(wait=True)
