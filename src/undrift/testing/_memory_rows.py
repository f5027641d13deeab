"""What `MemoryState` remembers: rows in dictionaries, and what can be asked of one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from undrift.memory import Memo
from undrift.state import EntityRow, Identity, ScrubTurn, Standing, WorkerReport

DAY_SECONDS = 24 * 3600.0
NEW_PASS = ScrubTurn(None, is_second_side=False, began_seconds=0.0)


@dataclass(slots=True)
class EntityRecord:
    """One entity; times are the state's clock.

    Attributes:
        row: as it was observed last; its parking is in the fields below.
        deleted_at: when the entity was observed to be gone; None for a live one.
        retry_at: before which a parked record is not tried again.
    """

    row: EntityRow
    deleted_at: float | None = None
    parked_reason: str = ""
    attempts: int = 0
    retry_at: float = 0.0

    def shown(self, now: float) -> EntityRow:
        """The row with its parking as it is *now*."""
        if not self.parked_reason:
            return self.row
        return self.row._replace(
            parked_reason=self.parked_reason, is_parked=self.is_parked and self.retry_at > now
        )

    @property
    def is_parked(self) -> bool:
        """Whether its record could not be made."""
        return bool(self.parked_reason)

    def unpark(self) -> None:
        """Forget that its record could not be made."""
        self.parked_reason, self.attempts, self.retry_at = "", 0, 0.0


@dataclass(slots=True)
class OwnerRecord:
    """One owner; times are the state's clock.

    Attributes:
        dirty_since: since when a mark or a round has not been acknowledged.
        suspect_until: when a write without an answer can no longer land.
    """

    generation: int = 0
    synced_generation: int = 0
    synced_round: int = 0
    observation: int = 0
    floor: int = 0
    verified_at: float | None = None
    attempts: int = 0
    next_attempt_at: float = 0.0
    last_error: str = ""
    failed_at: float = 0.0
    dirty_since: float | None = None
    priority: int = 0
    suspect_until: float | None = None
    entities: dict[Identity, EntityRecord] = field(default_factory=dict)

    def is_marked(self, round_: int) -> bool:
        """Whether a generation or a round is not acknowledged."""
        return self.generation > self.synced_generation or round_ > self.synced_round

    def dirty_from(self, round_: int, now: float) -> float | None:
        """Since when it is to be synced; None if it is not."""
        times = [
            entity.retry_at
            for entity in self.entities.values()
            if entity.is_parked and entity.retry_at <= now
        ]
        if self.is_marked(round_):
            times.append(now if self.dirty_since is None else self.dirty_since)
        if self.suspect_until is not None and self.suspect_until <= now:
            times.append(self.suspect_until)
        return min(times, default=None)

    @property
    def live(self) -> int:
        """Entities that the source is known to have."""
        return sum(not entity.row.is_deleted for entity in self.entities.values())

    def is_settled(self, round_: int) -> bool:
        """Whether nothing is left to do of it."""
        return (
            self.verified_at is not None
            and not self.is_marked(round_)
            and self.suspect_until is None
            and not self.last_error
            and all(
                entity.row.published_version >= entity.row.version and not entity.is_parked
                for entity in self.entities.values()
            )
        )

    def copy(self) -> OwnerRecord:
        """A copy that shares nothing that changes."""
        twin = copy(self)
        twin.entities = {identity: copy(entity) for identity, entity in self.entities.items()}
        return twin


class Lease(NamedTuple):
    """Who has an owner, and until when."""

    holder: str
    until: float


@dataclass(slots=True)
class RunRecord:
    """A run over the fleet, and what it has found.

    Attributes:
        began_at: by the state's clock.
    """

    run_id: str
    position: str
    began_at: float
    results: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tables:
    """Everything one state remembers.

    Attributes:
        configs: digests that were entered at any time, the current one included.
        again_at: when everybody is to be marked once more.
        deletes: when, and how many of which kind.
        refused_at: when deletes had to wait, unless others passed since.
        workers: when first seen, when last, and what they said.
        memos: by owner, with their key.
        runs: by name.
    """

    standing: Standing
    configs: set[str] = field(default_factory=set)
    owners: dict[str, OwnerRecord] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    again_at: float | None = None
    deletes: list[tuple[float, Mapping[str, int]]] = field(default_factory=list)
    refused_at: float | None = None
    workers: dict[str, tuple[float, float, WorkerReport]] = field(default_factory=dict)
    memos: dict[str, tuple[str, Memo]] = field(default_factory=dict)
    runs: dict[str, RunRecord] = field(default_factory=dict)
    scrub: ScrubTurn = NEW_PASS
    scrub_began_at: float | None = None
    scrub_holder: str = ""
    scrub_until: float = 0.0

    def copy(self) -> Tables:
        """A copy that shares nothing that changes."""
        twin = copy(self)
        twin.configs = set(self.configs)
        twin.owners = {owner_id: owner.copy() for owner_id, owner in self.owners.items()}
        twin.leases = dict(self.leases)
        twin.deletes = list(self.deletes)
        twin.workers = dict(self.workers)
        twin.memos = dict(self.memos)
        twin.runs = {
            name: replace(run, results=list(run.results)) for name, run in self.runs.items()
        }
        return twin

    def known(self, owner_id: str) -> OwnerRecord:
        """The owner's record, made if there is none yet."""
        owner = self.owners.get(owner_id)
        if owner is None:
            owner = OwnerRecord(synced_round=self.standing.round)
            self.owners[owner_id] = owner
        return owner

    def holder(self, owner_id: str, now: float) -> str:
        """Who has the owner *now*; empty for nobody."""
        lease = self.leases.get(owner_id)
        return lease.holder if lease is not None and lease.until > now else ""

    def release(self, owner_id: str, holder: str) -> None:
        """Give up the lease if *holder* has it."""
        lease = self.leases.get(owner_id)
        if lease is not None and lease.holder == holder:
            del self.leases[owner_id]

    def mark(self, owner: OwnerRecord, now: float) -> None:
        """Raise the owner's generation."""
        owner.generation += 1
        owner.dirty_since = now if owner.dirty_since is None else owner.dirty_since

    def begin_round(self, now: float) -> None:
        """Make everybody dirty."""
        self.standing = self.standing._replace(round=self.standing.round + 1)
        for owner in self.owners.values():
            owner.dirty_since = now if owner.dirty_since is None else owner.dirty_since

    def live(self) -> Iterator[tuple[str, EntityRecord]]:
        """Every entity that the source is known to have, with its owner."""
        for owner_id, owner in self.owners.items():
            for entity in owner.entities.values():
                if not entity.row.is_deleted:
                    yield owner_id, entity
