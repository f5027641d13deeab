"""A complete state in memory, with a clock that its user moves."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from uuid import uuid4

from undrift.state import (
    Acknowledgement,
    EntityRow,
    Expected,
    Failure,
    Note,
    Observation,
    OwnerNote,
    ParkedRecord,
    Parking,
    Standing,
    VersionRaise,
)
from undrift.testing._memory_fleet import MemoryFleet
from undrift.testing._memory_queue import MemoryQueue
from undrift.testing._memory_rows import DAY_SECONDS, EntityRecord, Lease, OwnerRecord, Tables


class StateCopy:
    """What a state remembered at some moment; only good for `MemoryState.restore`."""

    __slots__ = ("tables",)

    def __init__(self, tables: Tables | None) -> None:
        self.tables = tables


class MemoryFence:
    """The fence of a `MemoryState`; the connection is one of `MemoryState.transaction`, or any.

    Every call of the state is one moment, so that a store in memory that asks within one moment of
    its own needs no transaction.
    """

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    def hold(self, connection: object, expected: Sequence[Expected]) -> frozenset[str]:
        """The owners of whom a row is not as expected."""
        return self._state.unexpected(expected)

    def published(self, connection: object, expected: Sequence[Expected]) -> None:
        """Set ``published_version`` of the rows."""
        self._state.set_published(expected)

    def observe(
        self,
        connection: object,
        observations: Sequence[Observation],
        expected: Sequence[Expected],
    ) -> frozenset[str]:
        """Accept observations; the owners of whom one is refused, or a row is not as expected."""
        return self._state.observe_publishing(observations, expected)


class MemoryState(MemoryQueue):
    """A `FencedState` in memory, for tests and simulations.

    Args:
        clock: seconds; may jump either way, as a server's clock does.
        new_id: makes the state's id when it is created.

    Safety:
        May be used from several threads. Nothing survives the process, but `copy` and `restore`
        do to it what backups do to a real one.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        new_id: Callable[[], str] = lambda: str(uuid4()),
    ) -> None:
        super().__init__(clock)
        self._new_id = new_id
        self._fence = MemoryFence(self)
        self._memory = MemoryFleet(self._at_once)

    # --- what no port has: copies, and a transaction to share

    def copy(self) -> StateCopy:
        """What is remembered now, as a backup takes it."""
        with self._lock:
            return StateCopy(self._tables.copy() if self._tables is not None else None)

    def restore(self, copy: StateCopy) -> None:
        """Remember again what *copy* holds, and nothing else."""
        with self._lock:
            self._tables = copy.tables.copy() if copy.tables is not None else None

    def lose(self) -> None:
        """Forget everything, so that it must be created anew."""
        self.restore(StateCopy(None))

    @property
    def is_awaiting(self) -> bool:
        """Whether somebody becomes dirty by the clock alone: who is suspect, or everybody."""
        with self._lock:
            tables = self._open
            return tables.again_at is not None or any(
                owner.suspect_until is not None for owner in tables.owners.values()
            )

    @contextmanager
    def transaction(self) -> Iterator[object]:
        """A connection for the fence: nobody else gets in, and an exception undoes everything."""
        with self._lock:
            before = self.copy()
            try:
                yield self
            except BaseException:
                self.restore(before)
                raise

    @property
    def fence(self) -> MemoryFence:
        """What a store is to do within a publish."""
        return self._fence

    @property
    def memory(self) -> MemoryFleet:
        """What is remembered of whole fleets."""
        return self._memory

    @contextmanager
    def _at_once(self) -> Iterator[tuple[Tables, float]]:
        """What is remembered, and the time; nobody else gets in."""
        with self._lock:
            yield self._open, self._clock()

    def unexpected(self, expected: Sequence[Expected]) -> frozenset[str]:
        """The owners of whom a row is not as expected, or gone."""
        with self._lock:
            return frozenset(
                wanted.owner_id
                for wanted in expected
                if (entity := self._entity(wanted.owner_id, wanted.kind, wanted.entity_id)) is None
                or entity.row.version != wanted.version
            )

    def set_published(self, expected: Sequence[Expected]) -> None:
        """Set ``published_version`` of rows that still have the version."""
        with self._lock:
            for owner_id, kind, entity_id, version in expected:
                entity = self._entity(owner_id, kind, entity_id)
                if entity is not None and entity.row.version == version:
                    entity.row = entity.row._replace(published_version=version)

    # --- being there

    @property
    def location(self) -> str:
        """Its address."""
        return "memory:"

    def exists(self) -> bool:
        """Whether it has been created."""
        return self._tables is not None

    def ddl(self) -> Sequence[str]:
        """Nothing is run to create it."""
        return ()

    def create(self) -> None:
        """Create it unless it is there."""
        with self._lock:
            if self._tables is None:
                self._tables = Tables(Standing(self._new_id(), 0, "", 0))

    def standing(self) -> Standing:
        """Which state this is."""
        with self._lock:
            return self._open.standing

    def enter(self, config: str, *, above_epoch: int = 0) -> Standing:
        """Begin to write under *config*, unless it is superseded."""
        with self._lock:
            tables = self._open
            if config in tables.configs and config != tables.standing.config:
                return tables.standing
            return self._make_current(config, above_epoch, is_round_begun=False)

    def adopt(self, config: str, *, above_epoch: int = 0) -> Standing:
        """Begin to write under *config*, superseded or not, and mark everybody."""
        with self._lock:
            return self._make_current(config, above_epoch, is_round_begun=True)

    def _make_current(self, config: str, above_epoch: int, *, is_round_begun: bool) -> Standing:
        tables = self._open
        before = tables.standing
        if is_round_begun or (before.config and config != before.config):
            tables.begin_round(self._clock())
        tables.configs.add(config)
        epoch = max(before.epoch, above_epoch) + 1
        tables.standing = tables.standing._replace(config=config, epoch=epoch)
        return tables.standing

    # --- leases

    def lease(
        self, owners: Sequence[str], holder: str, seconds: float, *, over: Sequence[str] = ()
    ) -> Mapping[str, str]:
        """Lease those of *owners* that are to be had."""
        with self._lock:
            now = self._clock()
            leases = self._open.leases
            others: dict[str, str] = {}
            for owner_id in owners:
                other = self._open.holder(owner_id, now)
                if other in ("", holder, *over):
                    leases[owner_id] = Lease(holder, now + seconds)
                else:
                    others[owner_id] = other
            return others

    def renew(self, owners: Sequence[str], holder: str, seconds: float) -> None:
        """Prolong leases that *holder* still has."""
        with self._lock:
            now = self._clock()
            for owner_id in owners:
                if self._open.holder(owner_id, now) == holder:
                    self._open.leases[owner_id] = Lease(holder, now + seconds)

    def release(self, owners: Sequence[str], holder: str) -> None:
        """Give up leases that *holder* has."""
        with self._lock:
            for owner_id in owners:
                self._open.release(owner_id, holder)

    # --- the protocol's steps

    def note(self, owners: Sequence[str]) -> Note:
        """What is remembered of *owners*."""
        with self._lock:
            now = self._clock()
            notes = {owner_id: self._note_of(owner_id, now) for owner_id in owners}
            return Note(standing=self._open.standing, owners=notes)

    def _note_of(self, owner_id: str, now: float) -> OwnerNote:
        owner = self._open.owners.get(owner_id)
        if owner is None:
            return OwnerNote(owner_id=owner_id)
        return OwnerNote(
            owner_id=owner_id,
            generation=owner.generation,
            synced_generation=owner.synced_generation,
            observation=owner.observation,
            floor=owner.floor,
            entities={identity: entity.shown(now) for identity, entity in owner.entities.items()},
        )

    def observe(self, observations: Sequence[Observation]) -> frozenset[str]:
        """Accept those observations before which no other was accepted."""
        with self._lock:
            now = self._clock()
            accepted = set()
            for observation in observations:
                known = self._open.owners.get(observation.owner_id)
                if (known.observation if known is not None else 0) != observation.noted:
                    continue
                accepted.add(observation.owner_id)
                owner = self._open.known(observation.owner_id)
                owner.observation += 1
                for row in observation.rows:
                    self._put(owner, row, now)
            return frozenset(accepted)

    def observe_publishing(
        self, observations: Sequence[Observation], expected: Sequence[Expected]
    ) -> frozenset[str]:
        """As `observe`, with what of it is published at once.

        Returns:
            The owners who are left out.
        """
        with self._lock:
            accepted = self.observe(observations)
            observed = {observation.owner_id for observation in observations}
            self.set_published([row for row in expected if row.owner_id in accepted])
            others = [row for row in expected if row.owner_id not in observed]
            return frozenset(observed - accepted) | self.unexpected(others)

    def raise_versions(self, raises: Sequence[VersionRaise]) -> frozenset[str]:
        """Replace the rows of owners whose rows are all as observed."""
        with self._lock:
            now = self._clock()
            raised = set()
            for wish in raises:
                owner = self._open.known(wish.owner_id)
                if not _are_as_observed(owner, wish):
                    continue
                raised.add(wish.owner_id)
                # An observation that was noted before would lower the version again.
                owner.observation += bool(wish.raised)
                for row in wish.raised:
                    self._put(owner, row, now)
            return frozenset(raised)

    def _put(self, owner: OwnerRecord, row: EntityRow, now: float) -> None:
        """Make *row* the entity's, at what was published before."""
        before = owner.entities.get(row.identity)
        published = before.row.published_version if before is not None else 0
        deleted_at = now if row.is_deleted else None
        if before is not None and row.is_deleted and before.deleted_at is not None:
            deleted_at = before.deleted_at if before.row.version == row.version else now
        clean = row._replace(published_version=published, parked_reason="", is_parked=False)
        owner.entities[row.identity] = EntityRecord(clean, deleted_at)

    def suspect(self, owners: Sequence[str], seconds: float) -> None:
        """Remember that writes may still land for so long."""
        with self._lock:
            until = self._clock() + seconds
            for owner_id in owners:
                owner = self._open.known(owner_id)
                owner.suspect_until = max(until, owner.suspect_until or until)

    def acknowledge(self, acknowledgements: Sequence[Acknowledgement], holder: str) -> None:
        """End syncs that succeeded."""
        with self._lock:
            now = self._clock()
            for done in acknowledgements:
                owner = self._open.known(done.owner_id)
                for kind, entity_id, version in done.published:
                    entity = owner.entities.get((kind, entity_id))
                    if entity is not None and entity.row.version == version:
                        entity.row = entity.row._replace(published_version=version)
                        entity.unpark()
                if done.generation is not None:
                    self._acknowledge_owner(owner, done.generation, done.round, now)
                self._open.release(done.owner_id, holder)

    def _acknowledge_owner(
        self, owner: OwnerRecord, generation: int, round_: int, now: float
    ) -> None:
        # Noted before this state was restored, they may be beyond what it knows of.
        known_generation = min(generation, owner.generation)
        known_round = min(round_, self._open.standing.round)
        owner.synced_generation = max(owner.synced_generation, known_generation)
        owner.synced_round = max(owner.synced_round, known_round)
        owner.dirty_since = now if owner.is_marked(self._open.standing.round) else None
        owner.verified_at = now
        owner.attempts, owner.next_attempt_at, owner.last_error = 0, 0.0, ""
        owner.priority = 0

    def fail(self, failures: Sequence[Failure], holder: str) -> None:
        """End syncs that did not succeed."""
        with self._lock:
            now = self._clock()
            for failure in failures:
                owner = self._open.known(failure.owner_id)
                owner.attempts += 1
                owner.next_attempt_at = now + failure.delay_seconds
                owner.last_error, owner.failed_at = failure.error, now
                self._open.release(failure.owner_id, holder)

    def park(self, parkings: Sequence[Parking]) -> None:
        """Remember records that cannot be made."""
        with self._lock:
            now = self._clock()
            for parking in parkings:
                entity = self._entity(parking.owner_id, parking.kind, parking.entity_id)
                if entity is None or entity.row.version != parking.version:
                    continue
                delay = min(parking.delay_seconds * 2**entity.attempts, DAY_SECONDS)
                entity.parked_reason = parking.reason
                entity.attempts += 1
                entity.retry_at = now + delay

    def unpark(self, owners: Sequence[str] | None) -> int:
        """Let parked records be tried again at once."""
        with self._lock:
            now = self._clock()
            found = 0
            for owner in self._known(self._open.owners if owners is None else owners):
                parked = [entity for entity in owner.entities.values() if entity.is_parked]
                for entity in parked:
                    entity.retry_at = now
                found += len(parked)
                if parked:
                    self._open.mark(owner, now)
                    owner.next_attempt_at = 0.0
            return found

    def parked(self, limit: int) -> Sequence[ParkedRecord]:
        """Parked records, by owner, kind and id."""
        with self._lock:
            now = self._clock()
            found = sorted(
                ParkedRecord(
                    owner_id,
                    *entity.row.identity,
                    entity.parked_reason,
                    entity.attempts,
                    max(0.0, entity.retry_at - now),
                )
                for owner_id, owner in self._open.owners.items()
                for entity in owner.entities.values()
                if entity.is_parked
            )
            return found[:limit]

    def close(self) -> None:
        """There is nothing to give back."""


def _are_as_observed(owner: OwnerRecord, wish: VersionRaise) -> bool:
    """Whether every row is as the worker observed it, and what it did not observe is not there."""
    observed = {row.identity: row for row in wish.observed}
    for identity in {*observed, *(row.identity for row in wish.raised)}:
        expected, entity = observed.get(identity), owner.entities.get(identity)
        if expected is None or entity is None:
            if expected is not None or entity is not None:
                return False
        elif not entity.row.is_as(expected):
            return False
    return True
