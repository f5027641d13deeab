"""Class N: where Chroma's promise is weaker, and what undrift makes of it.

A write looks first and then writes. What comes in between, from another process, may be newer, and
is replaced. The state remembers that a write was on its way, and lets the owner be looked at again
once none can land any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.behind.chroma import BehindChroma
from support.chroma_server import ChromaServer
from support.http_line import HttpLine
from support.layouts import document, experience
from support.sides import World
from undrift import Outcome, Undrift
from undrift.heal import NO_HEALING
from undrift.ports import StoreClass
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.state import ClaimableStore
from undrift.state_order import HORIZON_SECONDS
from undrift.states.sqlite import SqliteState
from undrift.stores import open_store
from undrift.sync import SyncOptions
from undrift.testing.builders import DIMENSION, record, tombstone
from undrift.watch import Watcher, WatchOptions

OLD, LATE, NEW = (
    {"1": document(experience("exp_1", text))} for text in ("the old", "the late", "the new")
)


@pytest.fixture
def line(chroma_server: ChromaServer) -> Iterator[HttpLine]:
    """A line to the server, which can keep a request back."""
    with HttpLine(chroma_server.url) as line:
        yield line


@pytest.fixture
def location(chroma_server: ChromaServer) -> str:
    return chroma_server.new_location()


@pytest.fixture
def opened(location: str) -> Iterator[Callable[[str], ClaimableStore]]:
    """A function that opens stores, each like a process of its own."""
    with ExitStack() as stores:

        def open_at(url: str) -> ClaimableStore:
            store = open_store(url)
            assert isinstance(store, ClaimableStore)
            stores.callback(store.close)
            return store

        yield open_at


# --- the store alone


def test_an_older_write_that_was_sent_before_a_newer_one_replaces_it(
    line: HttpLine, location: str, opened: Callable[[str], ClaimableStore]
) -> None:
    """The window. The control: once the newer one is there when it looks, it is refused."""
    late, other = opened(line.through(location)), opened(location)
    other.create(DIMENSION)
    assert other.capabilities.store_class is StoreClass.NEITHER
    held = line.hold("/upsert")
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(late.publish, [record(text="older", version=1)], [])
        assert held.arrived.wait(30)
        other.publish([record(text="newer", version=2)], [])
        assert [stamp.version for stamp in other.stamps(["1"])] == [2]
        line.deliver(held)
        writing.result(30)
    assert [stamp.version for stamp in other.stamps(["1"])] == [1]

    other.publish([record(text="newer", version=2)], [])
    late.publish([record(text="older", version=1)], [])
    assert [stamp.version for stamp in other.stamps(["1"])] == [2]


def test_a_tombstone_keeps_out_what_looks_behind_it_and_not_what_looked_before(
    line: HttpLine, location: str, opened: Callable[[str], ClaimableStore]
) -> None:
    """The same window for deletes: here the record comes back beside its newer tombstone."""
    late, other = opened(line.through(location)), opened(location)
    other.create(DIMENSION)
    stone = tombstone(record(), version=2)
    held = line.hold("/upsert")
    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(late.publish, [record(version=1)], [])
        assert held.arrived.wait(30)
        other.bury([stone])
        line.deliver(held)
        writing.result(30)
    assert [stamp.version for stamp in other.stamps(["1"])] == [1]
    assert list(other.tombstones(["1"])) == [stone]

    other.bury([stone])  # as the next sync does, which finds the record
    late.publish([record(version=1)], [])
    assert list(other.stamps(["1"])) == []
    assert list(other.tombstones(["1"])) == [stone]


# --- with a state


class Clock:
    """The state's clock, which a test puts forward."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def world(location: str, tmp_path: Path) -> Iterator[World]:
    """A SQLite source and a Chroma store."""
    with World(
        f"sqlite:///{tmp_path / 'app.db'}",
        location,
        behind=BehindChroma(location, {"experience"}),
        state_url=f"sqlite:///{tmp_path / 'state.db'}",
    ) as world:
        yield world


@pytest.fixture
def worker(world: World, tmp_path: Path, clock: Clock) -> Iterator[Callable[[str], Undrift]]:
    """A function that opens a worker on a store, all on one state with the test's clock."""
    with ExitStack() as workers:

        def open_worker(store_url: str) -> Undrift:
            mapping = world.layout.mapping
            return workers.enter_context(
                Undrift(
                    source=open_source(world.source_url, mapping, Renderer(mapping).fields),
                    store=open_store(store_url),
                    state=SqliteState(tmp_path / "state.db", scope="default", clock=clock),
                    embedder=world.embedder,
                    mapping=mapping,
                    heal=NO_HEALING,
                )
            )

        yield open_worker


@pytest.mark.usefixtures("without_leases")
def test_a_late_write_is_found_and_mended_once_nothing_late_can_land_any_more(
    line: HttpLine,
    world: World,
    clock: Clock,
    worker: Callable[[str], Undrift],
) -> None:
    """Its worker got no answer, and another one has finished meanwhile; nobody knows of it."""
    late, other = worker(line.through(world.store_url)), worker(world.store_url)
    world.put_all(OLD)
    assert other.sync("1").is_in_sync

    world.put_all(LATE)
    held = line.hold("/upsert", hangs_up=True)
    assert late.sync("1").outcome is Outcome.FAILED
    assert held.arrived.is_set()
    world.assert_store_holds(OLD)

    world.put_all(NEW)
    assert other.sync("1").is_in_sync
    world.assert_store_holds(NEW)
    line.deliver(held)
    world.assert_store_holds(LATE)  # an older text in place of a newer one

    sides, ledger = other._connections.writing(SyncOptions())
    assert ledger is not None
    watcher = Watcher(sides, world.embedder, ledger, None, WatchOptions())
    clock.ahead_seconds = HORIZON_SECONDS - 60.0
    assert not ledger.state.claim_dirty(ledger.holder, 10, 1.0)  # everything was acknowledged
    world.assert_store_holds(LATE)
    clock.ahead_seconds = HORIZON_SECONDS + 1.0
    assert watcher.step() == 1
    world.assert_store_holds(NEW)
    assert other.check("1").in_sync
    ledger.end()


@pytest.mark.usefixtures("without_leases")
def test_a_late_write_is_mended_by_any_sync_that_looks(
    line: HttpLine, world: World, worker: Callable[[str], Undrift]
) -> None:
    """Nothing about the store is believed: a check says what is there, and a sync mends it."""
    late, other = worker(line.through(world.store_url)), worker(world.store_url)
    world.put_all(OLD)
    assert other.sync("1").is_in_sync
    world.put_all(LATE)
    held = line.hold("/upsert", hangs_up=True)
    assert late.sync("1").outcome is Outcome.FAILED
    world.put_all(NEW)
    assert other.sync("1").is_in_sync
    line.deliver(held)

    assert not other.check("1").in_sync
    assert other.sync("1").is_in_sync
    world.assert_store_holds(NEW)
