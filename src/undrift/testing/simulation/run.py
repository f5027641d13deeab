"""One seed, one run: chaos, calm, rest, a scrub, and the judgement at the end of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from undrift.errors import ConfigError, UndriftError
from undrift.model import Outcome
from undrift.ports import StoreClass
from undrift.testing.simulation.oracle import Violation
from undrift.testing.simulation.process import Process
from undrift.testing.simulation.scheduler import Stuck
from undrift.testing.simulation.undrift import Undrift
from undrift.testing.simulation.worker import Worker, Writer, WriterFactory, sync
from undrift.testing.simulation.world import World

_RESTING = frozenset({Outcome.IN_SYNC, Outcome.NOT_FOUND})


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """How a seed's run ended.

    Attributes:
        promise: the one that was broken, ``I1`` to ``I9``; empty if none was.
        what: how.
    """

    seed: int
    store_class: StoreClass
    steps: int
    promise: str = ""
    what: str = ""


def simulate(
    seed: int,
    *,
    writer: WriterFactory = Undrift,
    store_class: StoreClass | None = None,
    trace: Callable[[str], None] | None = None,
) -> Run:
    """Run *seed*; the same seed always runs alike.

    Args:
        writer: what the workers' programs do; undrift itself by default.
        store_class: by default the seed's choice.
        trace: is told every step.
    """
    world = World(seed, store_class)
    world.trace = world.oracle.trace = trace
    promise = what = ""
    try:
        _Simulation(world, writer).run()
    except Violation as exc:
        promise, what = exc.promise, str(exc)
    except Stuck as exc:
        promise, what = "I4", f"I4: never at rest ({_unrest(world)}): {exc}"
    except (UndriftError, AssertionError) as exc:
        promise, what = "I6", f"I6: {type(exc).__name__}: {exc}"
    return Run(
        seed=seed,
        store_class=world.store_class,
        steps=world.scheduler.steps,
        promise=promise,
        what=what,
    )


class _Simulation:
    def __init__(self, world: World, writer: WriterFactory) -> None:
        self._world = world
        self._writer = writer

    def run(self) -> None:
        self._let_work()
        world = self._world
        if not world.needs_scrub:
            self._judge_rest("at rest")
        person = self._enter("person")
        self._scrub(person)
        # A scrub may find what has to be looked at once more after the send deadline.
        self._let_work()
        self._judge_rest("after a scrub")
        self._judge_idempotence(self._enter("again"))

    def _let_work(self) -> None:
        """Run workers until nothing is left for them to do."""
        world = self._world
        watchers = [f"watch{number}" for number in range(world.random.choice((1, 2, 3)))]
        people = [f"person{number}" for number in range(world.random.choice((0, 1, 2)))]
        workers = {
            name: Worker(
                world,
                name,
                self._writer,
                is_person=name in people,
                ends=partial(self._is_over, is_person=name in people),
            ).run
            for name in watchers + people
        }
        world.scheduler.run(workers)

    def _is_over(self, *, is_person: bool) -> bool:
        """Whether everything is quiet; a person leaves when the calm begins."""
        world = self._world
        if not world.is_calm:
            return False
        if is_person:
            return True
        if world.flying or world.source.marks:
            return False
        if world.state.exists() and is_left_to_people(world):
            world.needs_scrub = True
            return True
        return is_quiet(world)

    def _enter(self, name: str) -> tuple[Process, Writer]:
        process = Process(self._world, name)
        self._world.living.add(name)
        writer = self._writer(process)
        try:
            writer.enter(adopts=False)
        except ConfigError:
            writer.enter(adopts=True)
        return process, writer

    def _everybody(self) -> list[str]:
        world = self._world
        owners = {*world.owners, *world.source.owners_ever()}
        owners.update(stored.stamp.owner_id for stored in world.store.records.values())
        return sorted(owners)

    def _scrub(self, entered: tuple[Process, Writer]) -> None:
        process, writer = entered
        outcomes = sync(process, writer, self._everybody())
        if not _RESTING.issuperset(outcomes):
            raise Violation("I6", f"a sync without any fault did not finish: {outcomes}")

    def _judge_rest(self, when: str) -> None:
        differing = self._world.oracle.differing()
        if differing:
            raise Violation("I4", f"{when} the store is not what the source is: {differing}")

    def _judge_idempotence(self, entered: tuple[Process, Writer]) -> None:
        process, _ = entered
        oracle = self._world.oracle
        before = (oracle.changes, process.embedder.embedded)
        self._scrub(entered)
        if (oracle.changes, process.embedder.embedded) != before:
            raise Violation("I5", "a second sync wrote or embedded something")


def is_quiet(world: World) -> bool:
    """Whether the state knows of nothing that is to be done, now or later."""
    if not world.state.exists():
        return False
    summary = world.state.summary()
    return not (summary.dirty or summary.parked or world.state.is_awaiting)


def is_left_to_people(world: World) -> bool:
    """Whether deletes wait, since nobody but a person can say that so much is to go."""
    are_parked_due = all(record.retry_in_seconds <= 0 for record in world.state.parked(100))
    return "deletes wait" in world.state.summary().last_error and are_parked_due


def _unrest(world: World) -> str:
    """What the state says is to be done."""
    if not world.state.exists():
        return "there is no state"
    summary = world.state.summary()
    parked = ", ".join(f"{p.kind}:{p.entity_id} of {p.owner_id}" for p in world.state.parked(9))
    return f"{summary.dirty} dirty, parked: {parked or 'none'}, last error: {summary.last_error}"
