"""A sync of everybody in further processes of this machine; each embeds for itself.

A sync spends its time in Python and in the database, and Python does one thing at a time. So a
first sync of very many users, whose embedding is quick or somewhere else, gains from cores. A small
one does not: processes take a second to begin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pickle import PicklingError, dumps

from undrift.engines.passes import (
    Carried,
    PassesElsewhere,
    Share,
    SyncOpener,
    carried,
    unknown_page,
)
from undrift.errors import ConfigError, UndriftError, UnknownStateError, UnsupportedError
from undrift.events import Listener, SyncEvent
from undrift.guarded import Passes
from undrift.recipe import EmbedderOpening, SyncEngine, SyncOpening
from undrift.spawned import SpawnedPool
from undrift.sync import Synchronizer

MAX_PROCESSES = 1_000

MAX_RETRIES = 5
"""How often a run is given new processes in the place of some that were killed."""


def sync_in_processes(processes: int) -> SyncEngine:
    """What has everybody synced in so many processes, for `Undrift.sync_all`.

    A program that uses it stands below ``if __name__ == "__main__":``, as with everything that
    spawns processes: each of them imports the program's file first.

    Raises:
        ConfigError: there are none, or too many.
    """
    if not 1 <= processes <= MAX_PROCESSES:
        raise ConfigError(
            f"--processes {processes} is not possible",
            why=f"a sync has 1 to {MAX_PROCESSES} processes.",
            fix="correct it, or leave it out to sync in one",
        )

    def make(
        opening: SyncOpening | None, embedding: EmbedderOpening, listener: Listener
    ) -> AbstractContextManager[Passes]:
        if opening is None:
            raise _sides_of_ones_own()
        return in_processes(opening, embedding, listener, processes=processes)

    return make


@contextmanager
def in_processes(
    opening: SyncOpening, embedding: EmbedderOpening, listener: Listener, *, processes: int
) -> Iterator[Passes]:
    """Both passes in *processes*, which begin with the first page.

    Raises:
        ConfigError: the embedder is an object that cannot be sent to another process.
    """
    begin = partial(_begin_here, opening, embedding)
    try:
        dumps(begin)
    except (TypeError, AttributeError, PicklingError) as exc:
        raise _unpicklable(exc) from exc
    carriers = ProcessCarriers(begin, processes)
    try:
        most = opening.options.max_embeddings
        yield PassesElsewhere(carriers, listener, max_embeddings=most)
    finally:
        carriers.close()


class ProcessCarriers:
    """A pool of processes, and another one when one of them was killed.

    Args:
        begin: called first in each.
        processes: at most so many.
    """

    def __init__(self, begin: Callable[[], None], processes: int) -> None:
        self._begin = begin
        self._processes = processes
        self._pool: SpawnedPool | None = None
        self._retries = MAX_RETRIES

    def window(self) -> int:
        """How many pages are to be under way: one more than there is somebody to carry them."""
        return self._processes + 1

    def submit(self, share: Share) -> Callable[[], Carried]:
        """Have *share* carried; what is returned waits for the result.

        Raises:
            UndriftError: what ends the run, when the result is waited for.
        """
        pool = self._pool = self._pool or SpawnedPool(self._processes, self._begin)
        try:
            future = pool.submit(_carry_here, share)
        except BrokenExecutor as exc:
            return partial(self._again, share, pool, exc)

        def result() -> Carried:
            try:
                found = future.result()
            except BrokenExecutor as exc:
                return self._again(share, pool, exc)
            if isinstance(found, UndriftError):
                raise found
            return found

        return result

    def close(self) -> None:
        """Let everybody put down what is under way. Safe to call twice."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def _again(self, share: Share, pool: SpawnedPool, failure: BrokenExecutor) -> Carried:
        """Have *share* carried by other processes: one that is killed takes its pool with it."""
        if self._pool is pool:
            self.close()
            if not self._retries:
                raise _lost() from failure
            self._retries -= 1
        return self.submit(share)()


# --- in a process ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Process:
    """What there is to open in this process."""

    opener: SyncOpener
    embedding: EmbedderOpening

    def open(self) -> _Open:
        """Open it, for as long as the process lives."""
        events: list[SyncEvent] = []
        return _Open(self.opener(self.embedding.open(), events.append), events)


@dataclass(frozen=True, slots=True)
class _Open:
    synchronizer: Synchronizer
    events: list[SyncEvent]


_process: list[_Process] = []
_opened: list[_Open] = []


def _begin_here(opener: SyncOpener, embedding: EmbedderOpening) -> None:
    _process.append(_Process(opener, embedding))


def _carry_here(share: Share) -> Carried | UndriftError:
    try:
        if not _opened:
            _opened.append(_process[0].open())
    except UnknownStateError as exc:
        return unknown_page(share, exc)
    except UndriftError as exc:
        return exc
    return carried(_opened[0].synchronizer, _opened[0].events, share)


def _lost() -> UnknownStateError:
    return UnknownStateError(
        "The sync's processes end again and again",
        why=f"{MAX_RETRIES} times it was given new ones. They are killed where memory is short, "
        "and cannot begin where the embedder cannot be opened, or in a program of your own "
        'without if __name__ == "__main__".',
        fix="see what they print; give a smaller --processes, and run the same command again: who "
        "is done costs no embedding",
    )


def _sides_of_ones_own() -> UnsupportedError:
    return UnsupportedError(
        "Other processes cannot open both sides",
        why="a side is an object of your own, which exists in this process only.",
        fix="give source, store and state by their URLs, or sync in one process",
    )


def _unpicklable(exc: Exception) -> ConfigError:
    return ConfigError(
        "The embedder cannot be sent to other processes",
        why=f"it is an object that cannot be pickled ({type(exc).__name__}).",
        fix="give the embedder by its name, or sync in one process",
    )
