"""What LanceDB leaves to its user: flushing what was committed, and merging small files.

Every commit adds a file, and every read opens all of them: without merging, 500 small publishes
made an owner's stamps 11 times and a publish 4 times slower.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from math import isqrt
from pathlib import Path
from typing import NamedTuple, cast

from lancedb.table import Table, TableStatistics

from undrift.stores._lance_address import Address
from undrift.stores._lance_errors import is_drivers, mapped_errors, message_of

KEEP = timedelta(minutes=10)
"""How long a version is kept behind the newest: what reads it may take so long."""

LOOK_EVERY = 16
"""Versions between two looks at how many files there are."""

FILES = 32
"""Files of a small table that are left unmerged. Merging rewrites the table, up to a million rows
of it, and every file costs a read 0.12 ms: both together are least where the files grow with the
square root of the rows."""

_TIDY_SHARE = 5
"""Of a process's time, one part in so many at most goes into merging."""

_SLACK_NANOSECONDS = 1_000_000_000
_IN_FLIGHT_NANOSECONDS = 60_000_000_000

# What a table consists of; the files of an index can be made again from the others.
_BELOW = (".", "data", "_deletions", "_transactions", "_versions")

_logger = logging.getLogger(__name__)


class _Written(NamedTuple):
    """A file, and when it was written; the only one that is written again has a fixed name."""

    path: str
    nanoseconds: int


class Upkeep:
    """The upkeep of one store's tables, done by whoever writes to them."""

    def __init__(self, address: Address) -> None:
        self._folders = [
            folder / below
            for table in (address.table, address.claims)
            if (folder := address.folder_of(table)) is not None
            for below in _BELOW
        ]
        self._location = address.location
        # A commit goes on top of others' files, which they may not have flushed yet.
        self._flushed_until = time.time_ns() - _IN_FLIGHT_NANOSECONDS
        self._flushed: frozenset[_Written] = frozenset()
        self._next_tidy = 0.0

    def flush(self) -> None:
        """Flush everything written since the last flush, so that it survives a loss of power."""
        if os.name != "posix":  # elsewhere folders cannot be flushed
            return
        began = time.time_ns()
        flushed = self._flushed
        recent: set[_Written] = set()
        with mapped_errors(self._location):
            for folder in self._folders:
                files = set(_newer(folder, self._flushed_until))
                recent |= files
                if new := files - flushed:
                    for path in (*(file.path for file in new), str(folder)):
                        _flush_file(path)
        # Files are written once, so what was flushed needs it no more.
        self._flushed, self._flushed_until = frozenset(recent), began - _SLACK_NANOSECONDS

    def tidy(self, table: Table) -> None:
        """Merge the table's small files if there are many; a failure to do so is no error.

        Safety:
            Readers and writers go on meanwhile: what merging replaces is kept for a while, and
            where a writer was there first, nothing is merged this time.
        """
        began = time.monotonic()
        if began < self._next_tidy:
            return
        try:
            if not _is_time(table):
                return
            table.optimize(cleanup_older_than=KEEP)
        except Exception as error:
            if not is_drivers(error):
                raise
            _logger.info(
                "not merged: %s", message_of(error), extra={"action": "store.lancedb.tidy"}
            )
        ended = time.monotonic()
        self._next_tidy = ended + (ended - began) * (_TIDY_SHARE - 1)


def _is_time(table: Table) -> bool:
    # Whoever's commit makes the number a round one looks; so one of many writers does.
    if table.version % LOOK_EVERY:
        return False
    found: object = table.stats()
    # A plain mapping, though LanceDB declares a class.
    stats = found if isinstance(found, dict) else asdict(cast(TableStatistics, found))
    files: int = stats["fragment_stats"]["num_fragments"]
    return files > max(FILES, isqrt(stats["num_rows"]) // 4)


def _newer(folder: Path, since: int) -> Iterator[_Written]:
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # it has just been removed, as no longer needed
                written = entry.stat().st_mtime_ns
                if written >= since:
                    yield _Written(entry.path, written)


def _flush_file(path: str) -> None:
    with suppress(FileNotFoundError):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)
