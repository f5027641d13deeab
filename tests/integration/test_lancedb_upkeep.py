"""What LanceDB leaves to its user: merging small files, and flushing what was committed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from support.behind.lancedb import folder_of, open_table
from undrift.errors import StoreUnavailable
from undrift.stores import _lance_database, _lance_upkeep, open_store
from undrift.stores.lancedb import LanceDbStore
from undrift.testing.builders import DIMENSION, record, records, tombstone

PUBLISHES = 40
FILES = 4
LOOK_EVERY = 4
MOST_FILES = FILES + 2 * LOOK_EVERY


@pytest.fixture
def location(tmp_path: Path) -> str:
    return f"lancedb:///{tmp_path / 'folder'}"


@pytest.fixture
def store(location: str, monkeypatch: pytest.MonkeyPatch) -> LanceDbStore:
    """A store that is created and empty; it merges early, and as often as it likes."""
    monkeypatch.setattr(_lance_upkeep, "FILES", FILES)
    monkeypatch.setattr(_lance_upkeep, "LOOK_EVERY", LOOK_EVERY)
    monkeypatch.setattr(_lance_upkeep, "_TIDY_SHARE", 1)
    store = open_store(location)
    assert isinstance(store, LanceDbStore)
    store.create(DIMENSION)
    return store


def publish_one_by_one(store: LanceDbStore, count: int, version: int = 1) -> list[int]:
    """Write *count* records, and say how many files there were after each."""
    files = []
    for number in range(count):
        store.publish([record(f"small-{number}", version=version)], [])
        files.append(files_of(store))
    return files


def files_of(store: LanceDbStore) -> int:
    stats = open_table(store.describe().location).stats()
    return int(stats["fragment_stats"]["num_fragments"])  # type: ignore[index]


# --- merging


def test_many_small_publishes_leave_few_files(store: LanceDbStore) -> None:
    files = publish_one_by_one(store, PUBLISHES)
    assert max(files) <= MOST_FILES
    assert len(list(store.stamps(["1"]))) == PUBLISHES


def test_without_merging_every_publish_leaves_a_file(
    store: LanceDbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control."""
    monkeypatch.setattr(_lance_upkeep, "FILES", PUBLISHES)
    assert publish_one_by_one(store, PUBLISHES)[-1] == PUBLISHES


def test_merging_takes_a_part_of_the_time_only(
    store: LanceDbStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever there is to merge: after a merge the next one waits, in proportion."""
    monkeypatch.setattr(_lance_upkeep, "_TIDY_SHARE", 10**9)
    files = publish_one_by_one(store, PUBLISHES)
    assert sum(later < earlier for earlier, later in pairwise(files)) == 1


def test_several_writers_merge_without_an_error_for_any(store: LanceDbStore, location: str) -> None:
    """One of them is last, and then there is nothing left to merge."""
    stores = [store, open_store(location)]
    for number in range(PUBLISHES):
        stores[number % 2].publish([record(f"small-{number}")], [])
    assert files_of(store) <= MOST_FILES
    assert len(list(store.stamps(["1"]))) == PUBLISHES


def test_a_merge_that_fails_fails_no_publish(
    store: LanceDbStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is left for another time, and said in the log."""
    monkeypatch.setattr(_lance_upkeep, "KEEP", timedelta.max)  # out of LanceDB's range
    with caplog.at_level("INFO", "undrift"):
        publish_one_by_one(store, PUBLISHES)
    assert any(entry.__dict__.get("action") == "store.lancedb.tidy" for entry in caplog.records)
    assert len(list(store.stamps(["1"]))) == PUBLISHES


def test_tombstones_and_their_collection_are_merged_too(store: LanceDbStore) -> None:
    stones = [tombstone(record(f"small-{number}"), version=2) for number in range(PUBLISHES)]
    for stone in stones:
        store.bury([stone])
    assert files_of(store) <= MOST_FILES
    store.collect(stones)
    assert list(store.tombstones(["1"])) == []


# --- readers elsewhere


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lance_database, "ROWS_AT_ONCE", 16)


@pytest.mark.usefixtures("small_pages")
def test_a_reader_goes_on_while_others_merge(store: LanceDbStore, location: str) -> None:
    """It reads the version that it began with, whose files are kept for a while."""
    store.publish(records(2_000), [])
    reading = open_store(location).stamps(["1"])
    seen = [next(reading)]
    files = publish_one_by_one(store, PUBLISHES)
    assert max(files) > files[-1]  # there was a merge
    seen.extend(reading)
    assert {stamp.entity_id for stamp in seen} == {f"r{number}" for number in range(2_000)}


@pytest.mark.usefixtures("small_pages")
def test_a_reader_whose_files_are_gone_says_so(store: LanceDbStore, location: str) -> None:
    """The control; and what it had read by then does not pass for everything."""
    owners = [str(number) for number in range(20)]
    for owner in owners:
        store.publish(records(250, owner_id=owner), [])
    reading = open_store(location).stamps(owners)
    next(reading)
    with pytest.warns(UserWarning, match="every version except the latest"):
        open_table(location).optimize(cleanup_older_than=timedelta(0))
    with pytest.raises(StoreUnavailable, match="damaged"):
        list(reading)
    assert len(list(store.stamps(owners))) == 5_000


# --- flushing


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The files that were flushed, by their number in the filesystem."""
    numbers: set[int] = set()
    fsync = os.fsync

    def flush(file: int) -> None:
        numbers.add(os.fstat(file).st_ino)
        fsync(file)

    monkeypatch.setattr(os, "fsync", flush)
    return numbers


def unflushed(location: str, flushed: set[int]) -> Sequence[str]:
    """What of the table would be lost with the power; an index can be built again."""
    folder = folder_of(location)
    paths = [folder, *folder.rglob("*")]
    return [
        str(path.relative_to(folder))
        for path in paths
        if "_indices" not in path.parts and path.stat().st_ino not in flushed
    ]


def test_what_is_acknowledged_is_flushed(location: str, flushed: set[int]) -> None:
    """LanceDB itself leaves that to the system, which takes its time."""
    store = open_store(location)
    store.create(DIMENSION)
    assert unflushed(location, flushed) == []
    store.publish(records(3), [])
    store.publish(records(3, version=2), [])
    assert unflushed(location, flushed) == []


def test_what_others_have_committed_just_before_is_flushed_too(
    location: str, flushed: set[int]
) -> None:
    """A version goes on top of theirs, and is worth nothing without it."""
    store, other = open_store(location), open_store(location)
    store.create(DIMENSION)
    open_table(location).add([{"vector_id": "theirs"}])
    assert unflushed(location, flushed) != []
    other.publish(records(1), [])
    assert unflushed(location, flushed) == []
