"""A worker's process: its ports to the world. Every call is a step, and may fail or be the last."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar, cast
from zlib import crc32

import numpy as np

from undrift.errors import (
    EmbeddingFailed,
    SourceUnavailable,
    StateUnavailable,
    StoreUnavailable,
    UnknownStateError,
)
from undrift.model import Outcome, Stamp
from undrift.ports import Deletion, Purpose, Record, SourceInfo, StoreClass, Vectors
from undrift.state import (
    Acknowledgement,
    Claim,
    DirtyOwner,
    Expected,
    Fence,
    FencedState,
    Parking,
    Tombstone,
)
from undrift.testing.memory_state import MemoryFence
from undrift.testing.simulation.oracle import Sender, Session
from undrift.testing.simulation.source import SimulatedContent
from undrift.testing.simulation.store import Request, StoreReader
from undrift.testing.simulation.world import World

T = TypeVar("T")

MODEL = "simulated/1:4:l2"

_UNAVAILABLE: Mapping[str, type[UnknownStateError]] = {
    "source": SourceUnavailable,
    "store": StoreUnavailable,
    "state": StateUnavailable,
}


class Process:
    """What one run of a worker's program has in its hands.

    Attributes:
        session: the sync that is going on.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.session = Session(name, frozenset(), 0)
        self.source = SourcePort(self)
        self.store = StorePort(self)
        self.state = cast(FencedState, StatePort(self))
        self.embedder = EmbedderPort(self)

    def begin(self, owners: Iterable[str]) -> Session:
        """A sync of *owners* begins."""
        self.session = Session(self.name, frozenset(owners), self.world.scheduler.steps)
        return self.session

    def call(self, side: str, what: str, effect: Callable[[], T], *, writes: bool = False) -> T:
        """One call to *side*: others first, then its effect, then perhaps no answer."""
        world = self.world
        world.scheduler.step()
        if world.scheduler.now < world.down_until[side]:
            raise self.unavailable(side)
        lost = world.chance(world.weather.lost)
        if lost and (not writes or world.random.random() < 0.5):
            world.tell(f"{what}: fails")
            raise self.unavailable(side)
        result = effect()
        if world.trace is not None:
            world.tell(f"{what}: {_short(result)}")
        if lost:
            world.tell("  its answer is lost")
            raise self.unavailable(side)
        if writes:
            self.may_die()
        return result

    def may_die(self) -> None:
        """Die right behind an effect, before anybody knows of it."""
        task = self.world.scheduler.current
        if task is not None and self.world.chance(self.world.weather.crash):
            task.is_doomed = True
            self.world.tell("  dies before it gets the answer")
            self.world.scheduler.crash_if_doomed()

    @staticmethod
    def unavailable(side: str) -> UnknownStateError:
        """What an adapter makes of a broken connection."""
        return _UNAVAILABLE[side]("Simulated outage", why=f"the {side} is down.", fix="wait")


class SourcePort:
    """The source as a process reads it."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._source = process.world.source

    def describe(self) -> SourceInfo:
        """Where it is."""
        return self._process.call("source", "source.describe", self._source.describe)

    def owner_pages(self, page_owners: int, after: str | None = None) -> Iterator[Sequence[str]]:
        """Every owner."""
        while page := self._page(page_owners, after):
            yield page
            after = page[-1]

    def _page(self, page_owners: int, after: str | None) -> Sequence[str]:
        pages = self._source.owner_pages
        return self._process.call(
            "source", "source.page", lambda: next(pages(page_owners, after), [])
        )

    def present(self, owners: Sequence[str]) -> frozenset[str]:
        """Which of *owners* are there."""
        return self._process.call("source", "source.present", lambda: self._source.present(owners))

    def read(self, owners: Sequence[str]) -> Iterator[SimulatedContent]:
        """One snapshot; it may break off in the middle."""
        process, world = self._process, self._process.world
        contents = process.call("source", "source.read", lambda: list(self._source.read(owners)))
        step = world.scheduler.steps
        for content in contents:
            if world.chance(world.weather.lost):
                world.tell("  the read breaks off")
                raise process.unavailable("source")
            yield content
        process.session.reads.update(dict.fromkeys(owners, step))

    def close(self) -> None:
        """There is nothing to give back."""


class StorePort(StoreReader):
    """The store as a process uses it; a `TransactionalStore`."""

    def __init__(self, process: Process) -> None:
        super().__init__(process.world.store)
        self._process = process
        self._world = process.world

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """The stamps of *owners*, all from one moment; the enumeration may break off."""
        process, world = self._process, self._world
        found = process.call("store", "store.stamps", lambda: self.stamps_of(owners))
        step = world.scheduler.steps
        for stamp in found:
            if world.chance(world.weather.lost / 4):
                world.tell("  the enumeration breaks off")
                raise process.unavailable("store")
            yield stamp
        process.session.looks.update(dict.fromkeys(owners, step))

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """The tombstones of *owners*."""
        call = self._process.call
        return iter(call("store", "store.tombstones", lambda: self.tombstones_of(owners)))

    def claim(self) -> Claim | None:
        """Whose the store is."""
        return self._process.call("store", "store.claim", lambda: self.store.claimed)

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim it by compare and set."""

        def put() -> bool:
            if self.store.claimed != replacing:
                return False
            self.store.claimed = claim
            return True

        return self._process.call("store", "store.put_claim", put, writes=True)

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Send writes and deletes."""
        self._send("store.publish", [*writes, *deletes])

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Send tombstones."""
        self._send("store.bury", list(tombstones))

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones."""
        self._process.call(
            "store", "store.collect", lambda: self.store.collect(tombstones), writes=True
        )

    def state_address(self) -> tuple[str, str]:
        """Beside the records."""
        return "simulated:", self.namespace

    def publish_fenced(
        self,
        writes: Sequence[Record],
        deletes: Sequence[Deletion],
        expected: Sequence[Expected],
        fence: Fence,
    ) -> frozenset[str]:
        """Send writes and deletes with the state's fence around them."""
        return self._send("store.publish_fenced", [*writes, *deletes], expected, fence)

    def _send(
        self,
        what: str,
        changes: Sequence[Record | Deletion | Tombstone],
        expected: Sequence[Expected] = (),
        fence: Fence | None = None,
    ) -> frozenset[str]:
        process, world, session = self._process, self._world, self._process.session
        sender = Sender(session, dict(session.reads), dict(session.looks))
        if self.store.store_class is StoreClass.NEITHER:
            # All that such a store's adapter can do is to look before it sends.
            changes = process.call(
                "store", "store.look", lambda: [c for c in changes if not self.store.refuses(c)]
            )
        request = Request(sender=sender, changes=changes, expected=expected, fence=fence)
        parts = self._parts(request)

        def land() -> frozenset[str]:
            if world.chance(world.weather.late):
                self._go_astray(what, parts)
            return frozenset().union(*[self.store.land(part) for part in parts])

        left_out = process.call("store", f"{what} [{request}]", land, writes=True)
        if not left_out and world.chance(world.weather.late / 2) and world.store_class != "T":
            world.tell("  and it lands once more, later")
            for part in parts:
                world.send_late(part)
        return left_out

    def _parts(self, request: Request) -> list[Request]:
        """What lands at once; without transactions each change alone, but deletes after writes."""
        if self.store.store_class is not StoreClass.NEITHER:
            return [request]
        changes = list(request.changes)
        self._world.random.shuffle(changes)
        changes.sort(key=lambda change: isinstance(change, Deletion))
        return [Request(sender=request.sender, changes=[change]) for change in changes]

    def _go_astray(self, what: str, parts: Sequence[Request]) -> None:
        """Time out: some parts land now, some later, some never."""
        world = self._world
        world.tell(f"{what}: no answer in time")
        for part in parts:
            if len(parts) > 1 and world.random.random() < 0.4:
                self.store.land(part)
            else:
                world.send_late(part)
        raise self._process.unavailable("store")


class StatePort:
    """The state as a process uses it: every method of the real one, each a step."""

    _READS = frozenset(
        {
            *("exists", "standing", "note", "parked", "buried", "summary", "ddl"),
            *("dirty_owners", "stale_owners"),
        }
    )

    def __init__(self, process: Process) -> None:
        self._process = process

    @property
    def fence(self) -> MemoryFence:
        """Asked by the store within its own calls."""
        return self._process.world.state.fence

    @property
    def location(self) -> str:
        """Its address."""
        return "simulated:"

    def close(self) -> None:
        """There is nothing to give back."""

    def __getattr__(self, name: str) -> Callable[..., object]:
        method = getattr(self._process.world.state, name)
        writes = name not in self._READS

        def effect(*args: object, **options: object) -> object:
            result = method(*args, **options)
            self._hear(name, args, result)
            return result

        def call(*args: object, **options: object) -> object:
            return self._process.call(
                "state",
                f"state.{name}{_arguments(args)}" if self._process.world.trace else name,
                lambda: effect(*args, **options),
                writes=writes,
            )

        return call

    def _hear(self, name: str, args: tuple[object, ...], result: object) -> None:
        """Owners who are claimed begin a sync; one who is acknowledged is said to be in sync."""
        process = self._process
        if name == "claim_dirty":
            owners = [each.owner_id for each in cast(Sequence[DirtyOwner], result)]
            if owners:
                process.begin(owners)
        elif name == "spend_deletes":
            managed = sum(process.world.state.summary().usage.managed.values())
            process.world.oracle.managed = max(process.world.oracle.managed, managed)
        elif name == "park":
            process.session.parked.update(
                each.owner_id for each in cast(Sequence[Parking], args[0])
            )
        elif name == "acknowledge":
            parked = {record.owner_id for record in process.world.state.parked(100)}
            parked |= process.session.parked
            for done in cast(Sequence[Acknowledgement], args[0]):
                if done.generation is not None and done.owner_id not in parked:
                    process.world.oracle.reported(
                        process.session, done.owner_id, Outcome.IN_SYNC, is_verified=True
                    )


class EmbedderPort:
    """An embedder that fails now and then.

    Attributes:
        embedded: texts that were paid for.
    """

    model = MODEL
    dimension = 4

    def __init__(self, process: Process) -> None:
        self._process = process
        self.embedded = 0

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """A vector that depends on each text, sometimes one that is none."""
        world = self._process.world
        world.scheduler.step()
        self.embedded += len(texts)
        if world.chance(world.weather.lost / 2):
            world.tell("the embedder fails")
            raise EmbeddingFailed("Simulated failure", why="the embedder is down.", fix="wait")
        rows = np.array([[crc32(t.encode()) % 97 + 1, 1, 1, 1] for t in texts], dtype=np.float32)
        if texts and world.chance(world.weather.lost / 4):
            world.tell("the embedder gives a vector that cannot be used")
            rows[world.random.randrange(len(texts))] = np.nan
        return rows

    def count_truncated(self, texts: Sequence[str]) -> int:
        """None is too long."""
        return 0


def _short(result: object) -> str:
    if isinstance(result, list) and result and isinstance(result[0], Stamp):
        return ", ".join(f"{s.owner_id}/{s.key} v{s.version} {s.fingerprint[:4]}" for s in result)
    return str(result)[:300]


def _arguments(args: tuple[object, ...]) -> str:
    return f"({', '.join(str(arg) for arg in args)[:300]})"
