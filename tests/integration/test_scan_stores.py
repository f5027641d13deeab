"""A check of everybody on stores that are no SQL databases, or know of no digests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random

import pytest

from support.drift import Drift, fleet, plant_everything
from support.every_store import world_on
from support.layouts import document, experience
from support.rendering import note_rendered
from support.scanning import NO_MEMOS, assert_true, checked, content, named, small_pages, warm
from support.sides import CountingEmbedder, World, drift_of
from undrift import Outcome, Undrift
from undrift.digests import PagedStore
from undrift.heal import NO_HEALING
from undrift.model import Read
from undrift.ports import StoreClass
from undrift.scan.options import DEFAULT_CHECK
from undrift.scan.page import PageCheck, PageResult, Rendering, nobody_asks
from undrift.stores import open_store
from undrift.testing.faulty_store import Faults, FaultyStore
from undrift.testing.memory_state import MemoryState

OWNERS = 60


@contextmanager
def rendered() -> Iterator[list[str]]:
    """The owners that are rendered meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        yield note_rendered(patch)


@pytest.fixture(params=["lancedb", "qdrant engine", "qdrant"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A SQLite source over a store of another kind, with the state in a file of its own."""
    with world_on(request.param, request, tmp_path) as found:
        yield found


def test_planted_drift_is_found_exactly_behind_memos(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without using them; who agrees is not rendered."""
    small_pages(monkeypatch, 25)
    random = Random(4)
    documents = fleet(OWNERS, random)
    world.bring_in_sync(documents)
    warm(world)
    with rendered() as owners:
        assert all(status.is_in_sync for status in checked(world.sides).values())
    assert owners == []
    drift = Drift(world, documents, random)
    plant_everything(drift, random)
    for options in (DEFAULT_CHECK, DEFAULT_CHECK, NO_MEMOS):
        found = assert_true(world, options)
        by_owner = {owner: drift_of(status) for owner, status in found.items()}
        assert {owner: ids for owner, ids in by_owner.items() if ids} == drift.expected
        assert {owner for owner, status in found.items() if status.orphan_owner} == drift.orphans
        in_sync = [status for owner, status in found.items() if owner not in drift.expected]
        assert len(in_sync) > OWNERS / 3
        assert {status.outcome for status in in_sync} == {Outcome.IN_SYNC}
        read = Read.FULL if options is NO_MEMOS else Read.DIGESTS
        assert {status.read for status in in_sync} == {read}


def test_pages_grow_where_the_store_wants_it_and_nobody_is_rendered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that says nothing of it gets them as they are listed, and so does who renders."""
    small_pages(monkeypatch, 2)
    world.bring_in_sync({str(owner): document(skills=["SQL"]) for owner in range(1, 41)})
    sizes: list[int] = []
    check = PageCheck.__call__

    def noted(
        self: PageCheck, owners: Sequence[str], rendering: Rendering = nobody_asks
    ) -> PageResult:
        sizes.append(len(owners))
        return check(self, owners, rendering)

    monkeypatch.setattr(PageCheck, "__call__", noted)
    checked(world.sides, NO_MEMOS)
    assert max(sizes) == 2
    warm(world)
    sizes.clear()
    assert len(checked(world.sides)) == 40
    assert sum(sizes) == 40
    with closing(open_store(world.store_url)) as store:
        assert (max(sizes) > 2) is isinstance(store, PagedStore)


class ListsInAnyOrder:
    """A store of somebody's own, which knows of no digests and no order."""

    def __init__(self) -> None:
        self._inner = FaultyStore(StoreClass.CONDITIONAL, Faults(seed=1))

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def stamps(self, owners: Sequence[str]) -> Iterator[object]:
        """Every stamp of *owners*, the last first."""
        return reversed(list(self._inner.stamps(owners)))


@pytest.mark.parametrize("has_state", [True, False])
def test_store_of_ones_own_is_checked_exactly(sqlite: World, has_state: bool) -> None:
    """With a state that remembers it is warm; without one, everything is rendered."""
    documents = {
        str(owner): document(experience("exp_1", f"Job {owner}"), skills=["SQL"])
        for owner in range(1, 11)
    }
    sqlite.put_all(documents)
    with Undrift(
        source=sqlite.source_url,
        store=ListsInAnyOrder(),  # type: ignore[arg-type]  # it passes on what it does not have
        state=MemoryState() if has_state else None,
        embedder=CountingEmbedder(),
        mapping=sqlite.layout.mapping,
        heal=NO_HEALING,
    ) as sides:
        assert all(report.is_in_sync for report in sides.sync_all())
        checked(sides)
        with rendered() as owners:
            assert all(status.is_in_sync for status in checked(sides).values())
        assert sorted(set(owners)) == ([] if has_state else sorted(documents))
        sqlite.put(3, document(experience("exp_1", "Another"), skills=["SQL"]))
        sqlite.remove_owners(["4"])
        sqlite.put(99, document(experience("exp_1")))
        found = checked(sides)
        assert content(found) == content(named(sides, sorted({*documents, "99"})))
        assert {o for o, s in found.items() if not s.is_in_sync} == {"3", "4", "99"}
