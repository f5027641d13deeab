"""undrift itself, as a simulated process runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from undrift.ledger import Ledger, config_digest
from undrift.look import Sides
from undrift.ports import StoreClass
from undrift.sync import Synchronizer, SyncOptions
from undrift.testing.simulation.process import MODEL, Process
from undrift.testing.simulation.source import RENDERER, SIMULATED_MAPPING
from undrift.testing.simulation.worker import Report, SimulatedFeed
from undrift.watch import Watcher, WatchOptions


class Undrift:
    """`undrift watch`, and `undrift sync --user-id` by a person."""

    def __init__(self, process: Process) -> None:
        world = process.world
        self._process = process
        self._sides = Sides(
            source=process.source, store=process.store, renderer=RENDERER, model=MODEL
        )
        is_fenced = world.store_class is StoreClass.TRANSACTIONAL
        self._ledger = Ledger(
            state=process.state,
            store=process.store,
            config=config_digest(SIMULATED_MAPPING, model=MODEL),
            source="simulated",
            fence=process.state.fence if is_fenced else None,
            holder=process.name,
            clock=world.scheduler.clock,
            sleep=world.pause,
            is_gone=lambda holder: holder not in world.living,
            chance=world.random.random,
            lease_seconds=world.lease_seconds,
        )

    def enter(self, *, adopts: bool) -> None:
        """Create the state where there is none, and enter it."""
        state = self._process.state
        if not state.exists():
            state.create()
        if adopts:
            self._ledger.adopt()
        else:
            self._ledger.enter()

    def sync(self, owners: Sequence[str]) -> Iterator[Report]:
        """One run of `Synchronizer`."""
        run = Synchronizer(self._sides, self._process.embedder, SyncOptions(), ledger=self._ledger)
        for report in run.sync_owners(owners):
            yield Report(report.owner_id, report.outcome, report.verified, report.error)

    def watch(self, feed: SimulatedFeed, ends: Callable[[], bool]) -> None:
        """One worker of `undrift watch`; what it says of an owner is what it acknowledges."""
        random = self._process.world.random
        options = WatchOptions(
            batch_owners=random.choice((1, 2, 100)),
            poll_seconds=random.choice((0.05, 1.0, 30.0)),
            scrub_pause_seconds=random.choice((1.0, 60.0)),
        )
        watcher = Watcher(
            self._sides, self._process.embedder, self._ledger, feed, options, is_over=ends
        )
        watcher.run()
