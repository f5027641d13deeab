"""The workers of a simulation: programs in simulated processes that die and begin again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from typing import NamedTuple, Protocol

from undrift.changes import ChangeStatus, MarkEveryone, MarkOwners, Peeked
from undrift.errors import ConfigError, UndriftError
from undrift.model import Outcome
from undrift.testing.simulation.oracle import describe_error
from undrift.testing.simulation.process import Process
from undrift.testing.simulation.scheduler import Crashed
from undrift.testing.simulation.world import World

CLAIMED_OWNERS = 2
_POLL_SECONDS = (0.1, 1.0, 5.0, 30.0)
_LONGEST_POLL_SECONDS = 600.0


class Report(NamedTuple):
    """What a sync says of an owner."""

    owner_id: str
    outcome: Outcome
    is_verified: bool
    error: UndriftError | None = None


class Writer(Protocol):
    """What a worker's program does with its ports."""

    def enter(self, *, adopts: bool) -> None:
        """Begin, as a process does at its start.

        Args:
            adopts: take the store over from whatever state it belonged to.
        """

    def sync(self, owners: Sequence[str]) -> Iterator[Report]:
        """Sync *owners*, whom a person has named."""

    def watch(self, feed: SimulatedFeed, ends: Callable[[], bool]) -> None:
        """Sync whoever is dirty until it *ends*."""


WriterFactory = Callable[[Process], Writer]


class SimulatedFeed:
    """The triggers' marks, as one process takes them."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._source = process.world.source
        self._waits = 0

    def pending(self) -> ChangeStatus:
        """Every trigger is where it is to be."""
        marks = len(self._source.marks)
        return ChangeStatus(
            location="simulated:", tables=("note", "part"), is_installed=True, marks=marks
        )

    def drain(self, limit: int, mark: MarkOwners, mark_everyone: MarkEveryone) -> int:
        """Read marks, have them remembered, then delete exactly those."""
        call = self._process.call
        marks = call("source", "marks.read", lambda: dict(list(self._source.marks.items())[:limit]))
        if marks:
            self._waits = 0
            mark(sorted(set(marks.values())))
            call("source", "marks.delete", lambda: self._delete(marks), writes=True)
        return len(marks)

    def peek(self, limit: int, after: str | None = None) -> Peeked:
        """Whom the marks name."""
        marks = self._process.call("source", "marks.peek", lambda: set(self._source.marks.values()))
        behind = sorted(owner for owner in marks if after is None or owner > after)
        page = behind[:limit]
        return Peeked(page, False, page[-1] if len(behind) > limit else None)

    def _delete(self, marks: dict[int, str]) -> None:
        for number in marks:
            self._source.marks.pop(number, None)

    def wait(self, seconds: float) -> None:
        """A pause; the longer the less there is to do, once everything is calm."""
        world = self._process.world
        if world.is_calm:
            seconds = min(_LONGEST_POLL_SECONDS, 2.0 ** min(self._waits, 20))
            self._waits += 1
        world.scheduler.sleep(seconds)

    def close(self) -> None:
        """There is nothing to give back."""


class Worker:
    """A program that is started again whenever it dies.

    Args:
        is_person: names owners now and then; otherwise it watches.
        ends: whether the simulation is over for it.
    """

    def __init__(
        self,
        world: World,
        name: str,
        writer: WriterFactory,
        *,
        is_person: bool,
        ends: Callable[[], bool],
    ) -> None:
        self._world = world
        self._name = name
        self._writer = writer
        self._is_person = is_person
        self._ends = ends
        self._numbers = count(1)
        self._adopts = False

    def run(self) -> None:
        """Live and die until the end."""
        scheduler, world = self._world.scheduler, self._world
        wait = 0.0
        while not self._ends():
            scheduler.restart()
            process = Process(world, f"{self._name}.{next(self._numbers)}")
            world.living.add(process.name)
            world.tell(f"{process.name} begins")
            try:
                scheduler.sleep(wait)
                self._live(process)
            except Crashed:
                world.tell(f"{process.name} has died")
            except ConfigError as exc:
                world.tell(f"{process.name} stops: {exc.what}")
                # Sooner or later somebody runs `undrift state adopt`; a program never does.
                self._adopts = world.is_calm or world.chance(0.3)
            except UndriftError as exc:
                world.tell(f"{process.name} fails: {exc.what}")
            world.living.discard(process.name)
            wait = world.random.choice(_POLL_SECONDS)

    def _live(self, process: Process) -> None:
        writer = self._writer(process)
        adopts, self._adopts = self._adopts, False
        writer.enter(adopts=adopts)
        if not self._is_person:
            writer.watch(SimulatedFeed(process), self._ends)
            return
        world, random = self._world, self._world.random
        while not self._ends():
            several = random.choice((1, len(world.owners)))
            sync(process, writer, random.sample(world.owners, several))
            world.scheduler.sleep(random.choice(_POLL_SECONDS))


def make_rounds(
    process: Process, writer: Writer, feed: SimulatedFeed, ends: Callable[[], bool]
) -> None:
    """Watch as simply as can be: ask who is dirty, and sync."""
    while not ends():
        feed.drain(100, process.state.mark, process.state.mark_everyone)
        seconds = process.world.lease_seconds
        dirty = process.state.claim_dirty(process.name, CLAIMED_OWNERS, seconds)
        if dirty:
            sync(process, writer, [owner.owner_id for owner in dirty])
        else:
            feed.wait(process.world.random.choice(_POLL_SECONDS))


def sync(process: Process, writer: Writer, owners: Sequence[str]) -> list[Outcome]:
    """One sync of *owners*, judged."""
    world = process.world
    session = process.begin(owners)
    session.is_person = True
    outcomes = []
    world.tell(f"syncs {', '.join(owners)}")
    for owner_id, outcome, is_verified, error in writer.sync(owners):
        world.tell(f"{owner_id} is {outcome}{describe_error(error)}")
        world.oracle.reported(session, owner_id, outcome, is_verified=is_verified)
        outcomes.append(outcome)
    return outcomes
