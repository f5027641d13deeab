"""Digests of LanceDB's are exact whichever way the owners' rows are found."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, rmtree

import pytest

from support.behind.lancedb import folder_of, open_table, set_columns
from undrift.digests import DigestingStore, PagedStore, RecordsDigest, stamps_digest
from undrift.model import Stamp
from undrift.state import ClaimableStore
from undrift.stores import _lance_digests, _lance_layout, open_store
from undrift.testing.builders import MODEL, record, tombstone

KINDS = ("experience", "project")
OWNERS = [*map(str, range(1, 121)), "a", "b", "a b", "o'brien", "\N{SNOWMAN}", "\U00010000"]
DIMENSION = 16


@pytest.fixture
def location(tmp_path: Path) -> str:
    return f"lancedb:///{tmp_path / 'store'}?table=records"


@pytest.fixture
def store(location: str) -> Iterator[DigestingStore]:
    opened = open_store(location)
    assert isinstance(opened, DigestingStore)
    opened.create(DIMENSION)
    for first in range(2):  # two files, of which neither has an owner whole
        opened.publish(
            [
                record(f"e{number}", owner_id=owner, kind=(*KINDS, "skill")[number % 3])
                for place, owner in enumerate(OWNERS)
                for number in range(first, place % 7, 2)
            ],
            [],
        )
    yield opened
    opened.close()


def _digests(store: DigestingStore, owners: list[str]) -> dict[str, RecordsDigest]:
    return dict(store.digests(owners, model=MODEL, kinds=KINDS))


def _by_stamps(store: DigestingStore, owners: list[str]) -> dict[str, RecordsDigest]:
    stamps: dict[str, list[Stamp]] = {}
    for stamp in store.stamps(owners):
        stamps.setdefault(stamp.owner_id, []).append(stamp)
    found = {owner: stamps_digest(own, model=MODEL, kinds=KINDS) for owner, own in stamps.items()}
    for owner, count in store.unmanaged(owners).items():
        found[owner] = found[owner]._replace(unmanaged=found[owner].unmanaged + count)
    return found


@pytest.mark.parametrize("rows_per_owner", [0, 5, 10_000])
@pytest.mark.parametrize("ids_at_once", [7, 5_000])
def test_lists_and_stretches_of_owners_say_the_same(
    store: DigestingStore,
    location: str,
    monkeypatch: pytest.MonkeyPatch,
    rows_per_owner: int,
    ids_at_once: int,
) -> None:
    """Owners 9 and 10 are far apart as texts; none is left out or counted twice for that."""
    monkeypatch.setattr(_lance_digests, "_ROWS_PER_OWNER", rows_per_owner)
    monkeypatch.setattr(_lance_layout, "IDS_AT_ONCE", ids_at_once)
    open_table(location).add([{"vector_id": "foreign", "owner_id": "9"}])
    expected = _by_stamps(store, OWNERS)
    assert expected["9"].unmanaged
    assert _digests(store, OWNERS) == expected
    for part in (OWNERS[5:15], OWNERS[95:105], OWNERS[110:], OWNERS[::-3], ["9", "10", "9"]):
        assert _digests(store, part) == {o: expected[o] for o in part if o in expected}


@pytest.mark.parametrize("part_read", [1, 20, 1_000_000])
def test_vector_that_is_lost_is_amiss_however_often_it_was_asked_for(
    store: DigestingStore, location: str, monkeypatch: pytest.MonkeyPatch, part_read: int
) -> None:
    """Also after a version of the table in which everybody had theirs was looked through."""
    monkeypatch.setattr(_lance_digests, "_PART_READ", part_read)
    pages = [OWNERS[start : start + 20] for start in range(0, len(OWNERS), 20)]
    for _ in range(2):
        assert sum(one.amiss for page in pages for one in _digests(store, page).values()) == 0
    lost = list(store.stamps(["6", "100"]))
    for stamp in lost[::2]:
        set_columns(location, stamp.vector_id, embedding=None)
    for _ in range(2):
        found = {owner: one for page in pages for owner, one in _digests(store, page).items()}
        assert {owner for owner, one in found.items() if one.amiss} == {"6", "100"}
        assert found == _by_stamps(store, OWNERS)


def test_table_that_was_restored_is_looked_through_anew(
    store: DigestingStore, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it has the version and the number of rows of the one before."""
    monkeypatch.setattr(_lance_digests, "_PART_READ", 1_000_000)
    folder = folder_of(location)
    before = folder.with_name("before")
    stamp = next(iter(store.stamps(["6"])))
    copytree(folder, before)
    set_columns(location, stamp.vector_id, kind="skill")
    for _ in range(2):
        assert not _digests(store, ["6"])["6"].amiss
    version = open_table(location).version
    rmtree(folder)
    before.rename(folder)
    set_columns(location, stamp.vector_id, embedding=None)
    assert open_table(location).version == version
    assert _digests(store, ["6"])["6"].amiss == 1


def test_tombstones_of_everybody_are_no_lost_vectors(store: DigestingStore) -> None:
    """They have none, and are no records."""
    gone = record("e0", owner_id="8")
    assert isinstance(store, ClaimableStore)
    store.bury([tombstone(gone, version=5)])
    for _ in range(3):
        assert _digests(store, OWNERS) == _by_stamps(store, OWNERS)


def test_store_asks_for_large_pages(store: DigestingStore) -> None:
    """A check of everybody asks it what suits it."""
    assert isinstance(store, PagedStore)
    assert store.page_owners == _lance_digests.PAGE_OWNERS
