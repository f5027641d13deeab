"""Everything outside the workers: what changes, what breaks, and when, all by the seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from uuid import UUID

from undrift.errors import ConfigError
from undrift.fingerprint import vector_id
from undrift.ledger import RETENTION_SECONDS
from undrift.ports import StoreClass
from undrift.testing.memory_state import MemoryState, StateCopy
from undrift.testing.simulation.oracle import DAMAGE, Oracle
from undrift.testing.simulation.scheduler import Scheduler
from undrift.testing.simulation.source import KINDS, Document, Item, SimulatedSource, described
from undrift.testing.simulation.store import NAMESPACE, Request, SimulatedStore, Stored

HOUR = 3600.0
LONGEST_FLIGHT_SECONDS = 800.0
"""A request that has not landed after this time never does."""

CHAOS_STEPS = (60, 150, 400)
"""How long the bad weather may last."""

_TEXTS = ("ash", "birch", "cedar")
_TITLES = ("x", "y")


@dataclass(frozen=True, slots=True)
class Weather:
    """How likely things are, at each step or call; all drawn from the seed.

    Attributes:
        change: the source changes; crash: a process dies; stall: one hangs; outage: a side cannot
            be reached for a while.
        lost: a call fails without effect, or with one that its caller does not hear of.
        late: a request lands after its caller has given up.
        damage: what a person or a broken disk does to store, state or source.
        jump: the state's clock jumps.
        pause: nothing runs for days, so that tombstones are old enough to be collected.
        emptied: an application bug takes away what every owner has.
    """

    change: float
    crash: float
    stall: float
    outage: float
    lost: float
    late: float
    damage: float
    jump: float
    pause: float
    emptied: float

    @classmethod
    def drawn(cls, random: Random) -> Weather:
        """Calm or wild, each in its own measure; most seeds have some kinds of weather only."""

        def sometimes(most: float) -> float:
            return random.choice((0.0, 0.2, 1.0)) * most

        return cls(
            change=random.choice((0.04, 0.1, 0.25)),
            crash=sometimes(0.03),
            stall=sometimes(0.02),
            outage=sometimes(0.01),
            lost=sometimes(0.08),
            late=sometimes(0.25),
            damage=random.choice((0.0, 0.0, 0.3, 1.0)) * 0.012,
            jump=sometimes(0.01),
            pause=random.choice((0.0, 0.0, 0.0, 0.01)),
            emptied=random.choice((0.0, 0.0, 0.0, 0.005)),
        )


CALM = Weather(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class World:
    """Source, store and state, and what happens to them.

    Attributes:
        weather: calm from the moment on when everything is to come to rest.
        needs_scrub: something happened that no mark tells of.
        lease_seconds: of every worker's leases; short ones let several work on one owner.
        pace: what a step takes at most, in seconds.
        down_until: for each side, until when it cannot be reached.
        offset: of the state's clock against the simulated time.
    """

    def __init__(self, seed: int, store_class: StoreClass | None = None) -> None:
        self.random = random = Random(seed)  # noqa: S311 - repeatable is what it is to be
        classes = tuple(StoreClass)
        self.store_class = store_class or random.choice(classes)
        self.weather = Weather.drawn(random)
        self.trace: Callable[[str], None] | None = None
        self.scheduler = Scheduler(random, self.between)
        self.source = SimulatedSource()
        self.oracle = Oracle(
            self.source,
            lambda: self.scheduler.steps,
            lambda: self.scheduler.now,
            has_strict_order=self.store_class is not StoreClass.NEITHER,
        )
        self.store = SimulatedStore(self.store_class, self.oracle)
        self.offset = 0.0
        self.state = MemoryState(
            lambda: self.scheduler.now + self.offset,
            new_id=lambda: str(UUID(int=random.getrandbits(128), version=4)),
        )
        self.state.create()
        self.flying: list[tuple[float, Request]] = []
        self.down_until: dict[str, float] = {"source": 0.0, "store": 0.0, "state": 0.0}
        self.owners = [f"owner{number}" for number in range(random.choice((1, 1, 2, 3)))]
        # Few entities meet each other often; many are what the guard of the deletes is for.
        self.ids = [str(number) for number in range(random.choice((1, 2, 3, 3, 3, 3, 40)))]
        # Nothing that is written depends on leases, so that bad ones must do no harm.
        self.lease_seconds = random.choice((60.0, 60.0, 5.0, 0.3))
        self.scheduler.lingering = random.choice((0.0, 0.05, 0.15))
        self.chaos_steps = random.choice(CHAOS_STEPS)
        self.pace = random.choice((0.2, 0.2, 2.0, 10.0))
        self.needs_scrub = False
        self.is_calm = False
        self.living: set[str] = set()
        self._backups = Backups(self)
        for owner_id in self.owners:
            self.source.commit(0, {owner_id: self._document()})

    def tell(self, line: str) -> None:
        """Write *line* into the trace, if there is one."""
        if self.trace is not None:
            name = self.scheduler.current.name if self.scheduler.current is not None else "-"
            self.trace(f"{self.scheduler.steps:5} {self.scheduler.now - 1e6:9.1f}s {name:8} {line}")

    def calm_down(self) -> None:
        """Let everything come to rest: nothing changes or breaks any more."""
        self.tell("--- calm from here on")
        self.is_calm = True
        self.weather = CALM
        self.down_until = dict.fromkeys(self.down_until, 0.0)
        self.scheduler.wake_all()

    def pause(self, seconds: float) -> None:
        """Wait, once everything is calm not too often: who waits for a lease may wait for long."""
        self.scheduler.sleep(max(seconds, 5.0) if self.is_calm else seconds)

    def chance(self, probability: float) -> bool:
        """Whether something happens that is so likely; draws nothing if it cannot."""
        return probability > 0 and self.random.random() < probability

    # --- between two steps

    def between(self) -> None:
        """Let time pass, requests land and things happen."""
        scheduler, random, weather = self.scheduler, self.random, self.weather
        scheduler.now += random.random() * self.pace
        self.land_due()
        if self.is_calm:
            return
        if scheduler.steps >= self.chaos_steps:
            self.calm_down()
            return
        if self.chance(weather.change):
            self.change_source()
        task = scheduler.current
        if task is not None and not task.is_crashed:
            if self.chance(weather.crash):
                task.is_doomed = True
            if self.chance(weather.stall):
                seconds = random.choice((20.0, 100.0, 100.0, 1000.0, 4000.0))
                self.tell(f"hangs for {seconds:.0f} s")
                scheduler.stall(seconds)
        if self.chance(weather.outage):
            side = random.choice(tuple(self.down_until))
            self.down_until[side] = scheduler.now + random.choice((1.0, 5.0, 60.0))
            self.tell(f"{side} is down")
        if self.chance(weather.jump) and self.store_class is not StoreClass.NEITHER:
            self.offset += random.choice((-HOUR, HOUR))
            self.oracle.has_steady_clock = False
            self.tell(f"the state's clock jumps, now off by {self.offset:.0f} s")
        if self.chance(weather.damage):
            self._backups.strike()
        if self.chance(weather.pause):
            self.tell("nothing runs for days; who was at work is dead")
            scheduler.doom_all()
            scheduler.now += RETENTION_SECONDS + HOUR
            self.land_due()
        if self.chance(weather.emptied):
            self.tell("the application empties everything")
            nothing: Document = frozenset()
            emptied = dict.fromkeys(self.source.documents, nothing)
            self.source.commit(scheduler.steps, emptied)

    def send_late(self, request: Request) -> None:
        """Let *request* land at some later time, or never."""
        random = self.random
        if random.random() < 0.2:
            return
        seconds = random.choice((0.5, 3.0, 30.0, 200.0, LONGEST_FLIGHT_SECONDS)) * random.random()
        self.flying.append((self.scheduler.now + seconds, request))

    def land_due(self) -> None:
        """Land what is due."""
        if not self.flying:
            return
        due = [each for each in self.flying if each[0] <= self.scheduler.now]
        if not due:
            return
        self.flying = [each for each in self.flying if each[0] > self.scheduler.now]
        for _, request in sorted(due, key=lambda each: each[0]):
            self.tell(f"late: {request}")
            try:
                self.store.land(request)
            except ConfigError:
                self.tell("  aborted: the state is gone")

    # --- the source changes

    def _item(self) -> Item:
        random = self.random
        return Item(
            random.choice(KINDS),
            random.choice(self.ids),
            random.choice(_TEXTS),
            random.choice(_TITLES),
        )

    def _document(self) -> Document:
        items = (self._item() for _ in range(max(3, len(self.ids))))
        return frozenset({item.identity: item for item in items}.values())

    def change_source(self) -> None:
        """One transaction of the application: an edit, a delete, a move, another kind, an undo."""
        random = self.random
        owner_id = random.choice(self.owners)
        document = self.source.documents.get(owner_id)
        changes: dict[str, Document | None]
        kind = random.random()
        if document is None:
            changes = {owner_id: self._document()}
        elif kind < 0.06:
            changes = {owner_id: None}
        elif kind < 0.12:
            changes = {owner_id: frozenset()}
        elif kind < 0.24:
            changes = self._moved(owner_id, document)
        elif kind < 0.5:
            changes = {owner_id: self.source.previous(owner_id)}
        else:
            items = {item.identity: item for item in document}
            self._edit(items)
            changes = {owner_id: frozenset(items.values())}
        self.source.commit(self.scheduler.steps, changes)
        self.tell(f"the source changes: {_described(changes)}")

    def _edit(self, items: dict[tuple[str, str], Item]) -> None:
        random = self.random
        item = self._item()
        if items and random.random() < 0.35:
            del items[random.choice(sorted(items))]
        if random.random() < 0.15:
            # The same id under the other kind, in one transaction.
            other = item._replace(kind=KINDS[1 - KINDS.index(item.kind)])
            items.pop(other.identity, None)
        items[item.identity] = item

    def _moved(self, owner_id: str, document: Document) -> dict[str, Document | None]:
        """Some item goes to another owner."""
        other_id = self.random.choice(self.owners)
        if not document or other_id == owner_id:
            return {owner_id: self._document()}
        item = self.random.choice(sorted(document))
        others = self.source.documents.get(other_id) or frozenset()
        return {
            owner_id: document - {item},
            other_id: frozenset(i for i in others if i.identity != item.identity) | {item},
        }


class Backups:
    """Copies that were taken, and everything that nobody asked for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._store: list[tuple[dict[str, Stored], object]] = []
        self._state: list[StateCopy] = []
        self._source: list[Mapping[str, Document]] = []

    def strike(self) -> None:
        """Take a copy, restore one, wipe or tamper."""
        strikes = (
            self._take,
            self._take,
            self._wipe_store,
            self._restore_store,
            self._tamper,
            self._tamper,
            self._restore_source,
            self._lose_state,
            self._restore_state,
        )
        self._world.random.choice(strikes)()

    def _take(self) -> None:
        world = self._world
        world.tell("copies are taken")
        self._store.append((dict(world.store.records), world.store.claimed))
        self._state.append(world.state.copy())
        self._source.append(world.source.copy())

    def _wipe_store(self) -> None:
        self._world.tell("the store is wiped")
        self._replace_store({})

    def _restore_store(self) -> None:
        if self._store:
            records, _ = self._world.random.choice(self._store)
            self._world.tell("an older copy of the store is restored")
            self._replace_store(records)

    def _replace_store(self, records: Mapping[str, Stored]) -> None:
        world = self._world
        world.needs_scrub = True
        for under in sorted({*world.store.records, *records}):
            world.store.put(DAMAGE, under, records.get(under))
        world.oracle.forget_dates()

    def _tamper(self) -> None:
        """Change one record by hand: what is compared, and what is not."""
        world = self._world
        if not world.store.records:
            return
        under = world.random.choice(sorted(world.store.records))
        stored = world.store.records[under]
        stamp = stored.stamp
        world.needs_scrub = True
        match world.random.randrange(6):
            case 0:
                after = stored._replace(stamp=stamp._replace(fingerprint="tampered"))
            case 1:
                after = stored._replace(stamp=stamp._replace(version=stamp.version + 5))
            case 2:
                after = stored._replace(stamp=stamp._replace(version=0))
            case 3:
                after = stored._replace(stamp=stamp._replace(model="another"))
            case 4:
                after = stored._replace(stamp=stamp._replace(model=""))
            case _:
                self._add_duplicate(stored)
                return
        if stored.is_tombstone:
            after = stored._replace(stamp=stamp._replace(version=after.stamp.version))
        world.tell(f"{stamp.key} of {stamp.owner_id} is tampered with: {after.stamp}")
        world.store.put(DAMAGE, under, after)

    def _add_duplicate(self, stored: Stored) -> None:
        """A second record of the same entity, under a vector_id that is nobody's."""
        if stored.is_tombstone:
            return
        under = vector_id(NAMESPACE, "nobody", "note", str(self._world.random.randrange(3)))
        stamp = stored.stamp._replace(vector_id=under)
        self._world.tell(f"{stamp.key} of {stamp.owner_id} gets a duplicate")
        self._world.store.put(DAMAGE, under, stored._replace(stamp=stamp))

    def _restore_source(self) -> None:
        if self._source:
            world = self._world
            world.needs_scrub = True
            world.tell("an older copy of the source is restored")
            world.source.restore(world.scheduler.steps, world.random.choice(self._source))

    def _lose_state(self) -> None:
        self._world.tell("the state is lost")
        self._harm_order()
        self._world.state.lose()

    def _restore_state(self) -> None:
        if self._state:
            self._world.tell("an older copy of the state is restored")
            self._harm_order()
            self._world.state.restore(self._world.random.choice(self._state))

    def _harm_order(self) -> None:
        """Writes under way may be ordered above what the state will decide on next."""
        self._world.needs_scrub = True
        self._world.oracle.is_order_lost = True


def _described(changes: Mapping[str, Document | None]) -> str:
    return "; ".join(
        f"{owner_id}: [{'gone' if document is None else described(document)}]"
        for owner_id, document in changes.items()
    )
