"""A vector store in memory whose writes are delayed, dropped, doubled, reordered or torn.

    store = FaultyStore(StoreClass.NEITHER, Faults(seed=7, chances={Fault.LATE: 0.2}))
    store.create(16)
    ...                 # StoreUnavailable now and then
    store.in_flight     # what may still land
    store.deliver()     # lands all of it, in an order that the seed decides

The class says when it is decided whether a write applies. In T and C that is as it lands. A store
of class N cannot do that: there it is decided as the call is made, and what lands later replaces
whatever it finds.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import NamedTuple, Self

from undrift.errors import StoreUnavailable, WriteFailed
from undrift.failpoints import install, reach
from undrift.ports import Capabilities, Deletion, Record, StoreClass
from undrift.state import Claim, Expected, Fence, Tombstone
from undrift.stores._records import (
    Batch,
    Fenced,
    batch_of,
    collectable,
    deletions_of,
    tombstones_of,
)
from undrift.testing._memory_store import (
    Batches,
    Changes,
    Memory,
    MemoryReads,
    Snapshot,
    Stored,
)

__all__ = ["Fault", "Faults", "FaultyStore", "Memory", "MemoryTransaction", "Snapshot", "Stored"]

_ATOMIC_RECORDS = 1_000_000
_NOBODY: frozenset[str] = frozenset()


class Fault(StrEnum):
    """What becomes of one writing call."""

    DELAYED = "delayed"  # returns, and lands later
    DROPPED = "dropped"  # returns, and never lands
    DUPLICATED = "duplicated"  # lands and returns, and lands once more later
    UNANSWERED = "unanswered"  # lands, and raises StoreUnavailable
    LATE = "late"  # raises StoreUnavailable, and lands later
    LOST = "lost"  # raises StoreUnavailable, and never lands
    PARTIAL = "partial"  # class N: raises StoreUnavailable; parts land, now, later or never


_ANSWERED = frozenset({Fault.DELAYED, Fault.DROPPED, Fault.DUPLICATED})
_LANDS_NOW = frozenset({Fault.DUPLICATED, Fault.UNANSWERED})
_LANDS_LATER = frozenset({Fault.DELAYED, Fault.DUPLICATED, Fault.LATE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Which calls go wrong, and how.

    Attributes:
        seed: decides everything that is left to chance.
        script: for the first writing calls, one each; None lets one pass.
        chances: afterwards, the probability of each fault; their sum is at most 1.
        unreadable: the probability that a read raises StoreUnavailable.
        reorders: `FaultyStore.deliver` lands in any order; otherwise in the order of the calls.
    """

    seed: int = 0
    script: Sequence[Fault | None] = ()
    chances: Mapping[Fault, float] = field(default_factory=dict)
    unreadable: float = 0.0
    reorders: bool = True


class Request(NamedTuple):
    """A call, or a part of one, that has not landed.

    Attributes:
        call: the method's name.
        vector_ids: what it would change; none for a claim.
        land: lands it.
    """

    call: str
    vector_ids: tuple[str, ...]
    land: Callable[[], object]


class MemoryTransaction:
    """What a fence gets in place of a driver's connection."""

    def __init__(self) -> None:
        self._actions: list[Callable[[], None]] = []

    def on_end(self, action: Callable[[], None]) -> None:
        """Do *action* when the transaction is over, whichever way."""
        self._actions.append(action)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        for action in self._actions:
            action()


class FaultyStore(MemoryReads):
    """A `ClaimableStore` in memory; of class T it is a `TransactionalStore`.

    Args:
        memory: what it shares with other openers; by default it has its own.

    Safety:
        One process. Threads may share it, but only one thread gives the same run again.
    """

    def __new__(cls, store_class: StoreClass, *_: object, **__: object) -> FaultyStore:
        """Make it a transactional one where the class says so."""
        is_transactional = store_class is StoreClass.TRANSACTIONAL
        return super().__new__(_FencedFaultyStore if is_transactional else cls)

    def __init__(
        self,
        store_class: StoreClass,
        faults: Faults | None = None,
        *,
        namespace: str = "default",
        memory: Memory | None = None,
        location: str = "memory://store",
    ) -> None:
        self.memory = memory or Memory()
        super().__init__(self.memory, location=location, namespace=namespace, look=self._read)
        self._class = store_class
        self._faults = faults or Faults()
        self._script = iter(self._faults.script)
        self._chance = random.Random(self._faults.seed)  # noqa: S311 - repeatable is what it is to be
        self._batches = Batches(self.memory, namespace)
        self._in_flight: list[Request] = []

    @property
    def capabilities(self) -> Capabilities:
        """What the class promises, for one process."""
        why_not = {"many_processes": "it lives in this process's memory"}
        if self._class is not StoreClass.TRANSACTIONAL:
            why_not["store_class"] = f"it plays a store of class {self._class}"
        if not self._is_atomic:
            why_not["atomic_records"] = "a store of class N has no transactions"
        return Capabilities(
            store_class=self._class,
            atomic_records=_ATOMIC_RECORDS if self._is_atomic else 0,
            many_processes=False,
            why_not=why_not,
        )

    # --- what is on its way

    @property
    def in_flight(self) -> Sequence[Request]:
        """What may still land, in the order of the calls."""
        return tuple(self._in_flight)

    def deliver(self, count: int | None = None) -> int:
        """Land what is in flight, at most *count* requests of it; how many that were."""
        landed = 0
        while self._in_flight and landed != count:
            at = self._chance.randrange(len(self._in_flight)) if self._faults.reorders else 0
            request = self._in_flight.pop(at)
            hook = install(None)  # whoever sent it passes no failpoint any more
            try:
                request.land()
            finally:
                install(hook)
            landed += 1
        return landed

    def lose_in_flight(self) -> None:
        """Forget what is in flight: it never lands."""
        self._in_flight.clear()

    # --- writing

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Write, then delete; a batch of class N is no transaction."""
        batch = self._batch(writes, deletes)
        if batch.is_empty:
            return
        if self._is_atomic:
            land = partial(self._transact, batch, None)
            self._send(Request("publish", _ids_of(batch), land), self._next_fault())
            return
        reach("store.publish.begun")
        with self.memory.lock:  # two threads of one process take turns, two processes would not
            changes = self._batches.written(batch.writes)
            self._send_changes("publish", self._batches.deleted(batch.deletes, changes))
        for step in ("written", "deleted", "committed"):
            reach(f"store.publish.{step}")

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones where what is stored is older."""
        stones = tombstones_of(tombstones)
        self._change("bury", [s.vector_id for s in stones], partial(self._batches.buried, stones))

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones that are still there with that version."""
        gone = collectable(tombstones)
        self._change("collect", [g.vector_id for g in gone], partial(self._batches.collected, gone))

    # --- whose store this is

    def claim(self) -> Claim | None:
        """The namespace's claim."""
        self._read()
        return self.memory.claims.get(self._namespace)

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*.

        It always is compared and set where it lands, and answers only if it landed.
        """

        def land() -> bool:
            with self.memory.lock:
                is_still = self.memory.claims.get(self._namespace) == replacing
                if is_still:
                    self.memory.claims[self._namespace] = claim
                return is_still

        self._require_created()
        fault = self._next_fault()
        if fault is None or fault in _ANSWERED:
            return land()
        if fault is Fault.UNANSWERED:
            land()
        elif fault is Fault.LATE:
            self._in_flight.append(Request("put_claim", (), land))
        raise self._unavailable("put_claim")

    # --- inside

    @property
    def _is_atomic(self) -> bool:
        return self._class is not StoreClass.NEITHER

    def _batch(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> Batch:
        batch = Batch(batch_of(writes, self._namespace, keep_text=True), deletions_of(deletes))
        found = self.memory.dimension
        for record in batch.writes:
            if record.embedding is not None and found not in (None, len(record.embedding)):
                raise WriteFailed(
                    "The store refused a batch",
                    why=f"its vectors have {len(record.embedding)} components, those of "
                    f"{self._location} have {found}; nothing was written.",
                    fix="embed with one model",
                )
        return batch

    def _transact(self, batch: Batch, fenced: Fenced | None) -> frozenset[str]:
        """Write *batch* in one transaction; the owners that were left out."""
        left_out = _NOBODY
        with self.memory.lock, MemoryTransaction() as transaction:
            reach("store.publish.begun")
            if fenced is not None:
                left_out = fenced.hold(transaction)
                reach("store.publish.held")
            part = batch.without(left_out)
            changes = self._batches.written(part.writes)
            reach("store.publish.written")
            changes = self._batches.deleted(part.deletes, changes)
            reach("store.publish.deleted")
            if fenced is not None:
                fenced.published(transaction, left_out)  # nothing behind it can fail
            self.memory.apply(changes)
        reach("store.publish.committed")
        return left_out

    def _change(self, call: str, vector_ids: Sequence[str], decide: Callable[[], Changes]) -> None:
        if not vector_ids:
            return
        if not self._is_atomic:
            with self.memory.lock:
                self._send_changes(call, decide())
            return

        def land() -> None:
            with self.memory.lock:
                self.memory.apply(decide())

        self._send(Request(call, tuple(vector_ids), land), self._next_fault())

    def _send_changes(self, call: str, changes: Changes) -> None:
        """Send what was decided already, record by record where the call is torn."""

        def request(vector_ids: Sequence[str]) -> Request:
            part = {vector_id: changes[vector_id] for vector_id in vector_ids}
            return Request(call, tuple(vector_ids), partial(self.memory.apply, part))

        fault = self._next_fault()
        if fault is not Fault.PARTIAL:
            self._send(request(list(changes)), fault)
            return
        self._require_created()
        for vector_id in changes:
            match self._chance.choice(("now", "later", "never")):
                case "now":
                    request([vector_id]).land()
                case "later":
                    self._in_flight.append(request([vector_id]))
        raise self._unavailable(call)

    def _send(self, request: Request, fault: Fault | None) -> object:
        """Let *request* meet its fate, and return what landing it returned."""
        self._require_created()
        answer = request.land() if fault is None or fault in _LANDS_NOW else None
        if fault in _LANDS_LATER:
            self._in_flight.append(request)
        if fault is not None and fault not in _ANSWERED:
            raise self._unavailable(request.call)
        return answer

    def _next_fault(self) -> Fault | None:
        """What becomes of this call; what only class N can do passes in the others."""
        fault = next(self._script, self._drawn())
        return None if fault is Fault.PARTIAL and self._is_atomic else fault

    def _drawn(self) -> Fault | None:
        draw = self._chance.random()
        for fault, probability in self._faults.chances.items():
            draw -= probability
            if draw < 0:
                return fault
        return None

    def _read(self) -> None:
        if self._faults.unreadable and self._chance.random() < self._faults.unreadable:
            raise self._unavailable("a read")

    def _unavailable(self, call: str) -> StoreUnavailable:
        return StoreUnavailable(
            "The vector store did not answer",
            why=f"{self._location}: {call} was to fail.",
            fix="run again",
        )


class _FencedFaultyStore(FaultyStore):
    """Of class T: a publish is one transaction with the state, whenever it lands."""

    def state_address(self) -> tuple[str, str]:
        """There is none that could be opened, but it tells two of them apart."""
        return self._location, self._namespace

    def publish_fenced(
        self,
        writes: Sequence[Record],
        deletes: Sequence[Deletion],
        expected: Sequence[Expected],
        fence: Fence,
    ) -> frozenset[str]:
        """As `publish`, with *fence*, which gets a `MemoryTransaction`."""
        batch = self._batch(writes, deletes)
        if batch.is_empty and not expected:
            return _NOBODY
        land = partial(self._transact, batch, Fenced(expected, fence))
        answer = self._send(Request("publish_fenced", _ids_of(batch), land), self._next_fault())
        return answer if isinstance(answer, frozenset) else _NOBODY


def _ids_of(batch: Batch) -> tuple[str, ...]:
    writes = (record.stamp.vector_id for record in batch.writes)
    return (*writes, *(gone.vector_id for gone in batch.deletes))
