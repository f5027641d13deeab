"""The door to undrift's own memory: which version of each entity was decided on last, and by whom.

The state never says what a store holds: every sync looks there. It orders the writes, so that
nothing late or older ever replaces something newer, and it remembers which owners are to be looked
at. Losing it loses nothing but that order, and the next syncs find it again.

All methods are one short transaction each, atomic per owner. No lock and no transaction outlasts a
call, so that a worker may stop, crash or hang between any two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from undrift.ports import Deletion, Record, VectorStore

Identity = tuple[str, str]
"""An entity within its owner: ``(kind, entity_id)``."""


# --- what is remembered -------------------------------------------------------------------------


class EntityRow(NamedTuple):
    """What is remembered of one entity.

    Attributes:
        version: the version of what was observed last; grows with every change, below 2**52.
        fingerprint: of what was observed last; empty for a deleted one.
        model: the embedding that its record is to carry; empty for a deleted one.
        is_deleted: the source did not show the entity when it was observed last.
        published_version: the highest version that was read back from the store.
        parked_reason: why its record could not be made at this version; empty if nothing is known.
        is_parked: whether it is too early for another try.
    """

    kind: str
    entity_id: str
    version: int
    fingerprint: str
    model: str
    is_deleted: bool
    published_version: int = 0
    parked_reason: str = ""
    is_parked: bool = False

    @property
    def identity(self) -> Identity:
        """The entity within its owner."""
        return self.kind, self.entity_id

    def is_as(self, other: EntityRow) -> bool:
        """Whether both were observed alike; what became of it since does not count."""
        return self[:6] == other[:6]


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerNote:
    """What is remembered of one owner; all zero for one that is not known.

    Attributes:
        generation: grows with every mark; a sync acknowledges the one that it noted.
        synced_generation: the highest generation that was acknowledged.
        observation: grows with every accepted observation and every raise; an observation is
            accepted only if it is still the noted one, so that versions are ordered as the source's
            snapshots are, and none falls behind what it was raised to.
        floor: no version of an entity that was forgotten is above it; a new one begins behind it.
        entities: by identity, the deleted ones too.
    """

    owner_id: str
    generation: int = 0
    synced_generation: int = 0
    observation: int = 0
    floor: int = 0
    entities: Mapping[Identity, EntityRow] = field(default_factory=dict)


class Standing(NamedTuple):
    """Which state this is and which configuration it follows.

    Attributes:
        state_id: a UUID, made when the state was created; copies share it.
        epoch: grows whenever a writer enters; a copy that was left behind has a lower one than
            the store's claim.
        config: the digest of the current configuration; empty before the first writer.
        round: grows when everybody is to be looked at; see `State.mark_everyone`.
    """

    state_id: str
    epoch: int
    config: str
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """The answer to `State.note`: all of it from one moment."""

    standing: Standing
    owners: Mapping[str, OwnerNote]


# --- what is decided ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What a complete snapshot of the source showed of one owner, compared with a note.

    Attributes:
        noted: `OwnerNote.observation` of the note that was taken *before* the snapshot.
        rows: entities that are new, changed, gone or of another model, with their new versions.
    """

    owner_id: str
    noted: int
    rows: Sequence[EntityRow] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRaise:
    """Rows whose version must rise above what the store was found to hold.

    Attributes:
        observed: the rows exactly as this worker observed them; an identity that is in *raised*
            and not here must have no row.
        raised: what they become.
    """

    owner_id: str
    observed: Sequence[EntityRow]
    raised: Sequence[EntityRow]


class Expected(NamedTuple):
    """An entity's row must still have this version for a publish to go through."""

    owner_id: str
    kind: str
    entity_id: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledgement:
    """The end of one owner's sync.

    Attributes:
        generation: the noted one, now answered for; None where the owner is not done.
        round: the noted one, likewise.
        published: ``(kind, entity_id, version)`` that were read back; each counts only where the
            version is still the row's. Takes back a parking.
    """

    owner_id: str
    generation: int | None
    round: int
    published: Sequence[tuple[str, str, int]] = ()


class Failure(NamedTuple):
    """An owner's sync did not succeed.

    Attributes:
        error: what happened, one line for people; never a password or a profile's text.
        delay_seconds: before which `State.claim_dirty` does not give it out again.
    """

    owner_id: str
    error: str
    delay_seconds: float


class Parking(NamedTuple):
    """One entity's record cannot be made; everything else goes on.

    Attributes:
        version: the row's; a parking of another version is forgotten.
        delay_seconds: for the first time; every further parking doubles it, up to a day.
    """

    owner_id: str
    kind: str
    entity_id: str
    version: int
    reason: str
    delay_seconds: float


class ParkedRecord(NamedTuple):
    """A parked entity, for people.

    Attributes:
        retry_in_seconds: until the next try; 0 if it is due.
    """

    owner_id: str
    kind: str
    entity_id: str
    reason: str
    attempts: int
    retry_in_seconds: float


class DirtyOwner(NamedTuple):
    """An owner that is to be synced, leased to the asker.

    Attributes:
        attempts: syncs in a row that did not succeed.
        dirty_seconds: for how long it has been waiting.
    """

    owner_id: str
    attempts: int
    dirty_seconds: float


class Buried(NamedTuple):
    """A deleted entity whose row may be forgotten."""

    owner_id: str
    kind: str
    entity_id: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteUsage:
    """Deletes within the last 24 hours, and what there was to delete.

    Attributes:
        spent: records deleted by programs, by kind.
        managed: live entities by kind, with those that were deleted meanwhile, or whose delete is
            not published yet.
    """

    spent: Mapping[str, int]
    managed: Mapping[str, int]


AllowDeletes = Callable[[DeleteUsage], str | None]
"""Decides on deletes: None lets them pass, otherwise the reason why not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """What a continuous worker says of itself.

    Attributes:
        worker_id: host, process and a random part.
        owners: owners it has synced since it began; failures likewise.
    """

    worker_id: str
    owners: int = 0
    failures: int = 0
    embedded: int = 0
    written: int = 0
    deleted: int = 0


class SeenWorker(NamedTuple):
    """A worker as others see it; times are seconds ago."""

    report: WorkerReport
    started_seconds: float
    seen_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StateSummary:
    """The state in numbers, for ``undrift status``.

    Attributes:
        owners: owners that are remembered.
        dirty: of them, owners that are to be synced.
        oldest_dirty_seconds: how long the oldest of them has been waiting; None without any.
        failing: owners whose last sync did not succeed.
        last_error: the latest of their errors.
        entities: live entities; published: those of them that were read back at their version.
        parked: records that cannot be made.
        unverified_seconds: the age of the oldest verification of an owner with live entities; None
            if an owner has none yet, or there are no such owners.
        never_verified: owners that were never verified.
        deletes_waiting: whether deletes wait because the budget is spent, as the last to ask within
            a day was told.
        workers: seen within the last day.
    """

    standing: Standing
    owners: int
    dirty: int
    oldest_dirty_seconds: float | None
    failing: int
    last_error: str
    entities: int
    published: int
    parked: int
    unverified_seconds: float | None
    never_verified: int
    usage: DeleteUsage
    deletes_waiting: bool
    workers: Sequence[SeenWorker] = ()


class ScrubTurn(NamedTuple):
    """The right to go on with the scrub.

    Attributes:
        after: the owner behind whom to go on; None for the beginning.
        is_second_side: the source's owners are done, the store's own come now.
        began_seconds: how long ago this pass began, which is when the last one ended; infinite
            before the very first.
    """

    after: str | None
    is_second_side: bool
    began_seconds: float


# --- the port -----------------------------------------------------------------------------------


class State(Protocol):
    """undrift's memory, for one namespace of one store.

    Every call raises `StateUnavailable` if there is no definite answer, and `ConfigError` if the
    state cannot be used at all. Times are measured by the state's own clock, only leases, delays,
    budgets and ages depend on them, and none of those is relied on for what is written.

    Safety:
        May be used from several threads and processes.
    """

    @property
    def location(self) -> str:
        """Its address without a password."""

    # --- being there

    def exists(self) -> bool:
        """Whether it has been created; False only if it certainly has not.

        Raises:
            ConfigError: something else lies in its place, or it is of a newer undrift.
        """

    def ddl(self) -> Sequence[str]:
        """The statements that `create` runs, for people."""

    def create(self) -> None:
        """Create or migrate what is missing. Idempotent, safe in several processes at once."""

    def standing(self) -> Standing:
        """Which state this is."""

    def enter(self, config: str, *, above_epoch: int = 0) -> Standing:
        """Begin to write under the configuration with the digest *config*.

        An unseen *config* becomes the current one, and everybody is marked if there was another
        one before. A superseded one changes nothing: the answer names the current one. Otherwise
        the epoch becomes one more than it was and than *above_epoch*.
        """

    def adopt(self, config: str, *, above_epoch: int = 0) -> Standing:
        """As `enter`, but *config* becomes the current one also if it was superseded.

        Everybody is marked.
        """

    # --- leases

    def lease(
        self, owners: Sequence[str], holder: str, seconds: float, *, over: Sequence[str] = ()
    ) -> Mapping[str, str]:
        """Lease *owners* to *holder*, those that are free, expired, its own, or held by *over*.

        Leases save work; nothing that is written depends on them. A lease alone makes nobody known.

        Returns:
            For each owner that is leased to somebody else: to whom.
        """

    def renew(self, owners: Sequence[str], holder: str, seconds: float) -> None:
        """Prolong the leases that *holder* still has; those it has lost, by time too, stay lost."""

    def release(self, owners: Sequence[str], holder: str) -> None:
        """Give up the leases on *owners* that *holder* has."""

    # --- the protocol's steps

    def note(self, owners: Sequence[str]) -> Note:
        """What is remembered of *owners*, in one moment; writes nothing."""

    def observe(self, observations: Sequence[Observation]) -> frozenset[str]:
        """Accept observations, each only if no other was accepted since it was noted.

        Accepting writes the rows, clears their parking, and raises ``OwnerNote.observation``, also
        without any row: a snapshot that showed nothing new is newer all the same, and an older one
        must not be accepted behind it.

        Returns:
            The owners whose observation was accepted.
        """

    def raise_versions(self, raises: Sequence[VersionRaise]) -> frozenset[str]:
        """Replace rows by compare and set, all of an owner's or none.

        Returns:
            The owners whose rows were all as observed and are now raised.
        """

    def suspect(self, owners: Sequence[str], seconds: float) -> None:
        """Remember that writes without a definite answer may still land for so long.

        The owners become dirty again after that time, also if nobody acknowledges anything.
        """

    def acknowledge(self, acknowledgements: Sequence[Acknowledgement], holder: str) -> None:
        """End syncs that succeeded, and give up *holder*'s leases on their owners.

        ``synced_generation`` becomes the greater of itself and the acknowledged one.
        """

    def fail(self, failures: Sequence[Failure], holder: str) -> None:
        """End syncs that did not succeed, and give up *holder*'s leases on their owners."""

    def park(self, parkings: Sequence[Parking]) -> None:
        """Remember records that cannot be made, where the row's version is still the same."""

    def unpark(self, owners: Sequence[str] | None) -> int:
        """Let parked records be tried again at once, of *owners* or of all, and mark their owners.

        Returns:
            How many there were.
        """

    def parked(self, limit: int) -> Sequence[ParkedRecord]:
        """At most *limit* parked records, by owner, kind and id."""

    # --- who is to be looked at

    def mark(self, owners: Sequence[str], *, priority: int = 0) -> None:
        """Raise the generation of *owners*; those not known yet become known.

        Args:
            priority: higher ones are claimed first; the next acknowledgement takes it back.
        """

    def mark_everyone(self, *, again_after_seconds: float | None = None) -> None:
        """Raise the round: every owner that is known is dirty until it is synced.

        Args:
            again_after_seconds: do the same once more after that time, when a worker asks for
                dirty owners. While that is still to come, a call with it changes nothing.
        """

    def claim_dirty(self, holder: str, limit: int, seconds: float) -> Sequence[DirtyOwner]:
        """Lease at most *limit* owners that are dirty, due, and leased to nobody.

        Dirty are owners with a generation or a round that is not acknowledged, with a suspect
        write whose time has come, or with a parked record that is due.

        Order:
            Higher priority first, then those that have waited longest. An owner that becomes dirty
            while it is synced waits anew, so that one that never rests starves nobody.
        """

    def dirty_owners(self, limit: int, after: str | None = None) -> Sequence[str]:
        """At most *limit* dirty owners behind *after*, by code point; writes nothing.

        Those whom `claim_dirty` would give out, and also those who are leased, or whose sync failed
        and is not to be tried again yet.
        """

    def settled_owners(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Those of *owners* of whom nothing is left to do, with the number of their live entities.

        Verified at some time, neither dirty nor leased, failing nor in doubt, and every version
        that was assigned was read back. What a store holds is not known by that.
        """

    def stale_owners(self, owners: Sequence[str], seconds: float) -> Sequence[str]:
        """Those of *owners* that were not verified within *seconds*, the unknown ones included."""

    def scrub_turn(self, holder: str, seconds: float) -> ScrubTurn | None:
        """Lease the scrub to *holder*; None while another one has it."""

    def scrubbed(self, holder: str, after: str | None, *, is_second_side: bool) -> None:
        """Remember how far the scrub is; ``None, is_second_side=False`` begins a new pass."""

    # --- safety, housekeeping, people

    def spend_deletes(self, planned: Mapping[str, int], allow: AllowDeletes) -> str | None:
        """Count deletes into the last 24 hours, if *allow* lets them pass.

        Args:
            planned: records by kind.
            allow: told the usage, *planned* not yet included; called once, while nobody else
                can spend.

        Returns:
            What *allow* returned.
        """

    def buried(self, older_than_seconds: float, limit: int) -> Sequence[Buried]:
        """Rows of deleted entities that have been so for longer."""

    def forget(self, rows: Sequence[Buried]) -> None:
        """Remove rows that are still deleted and of that version, and raise `OwnerNote.floor`.

        What is still on its way for such an entity must not be newer than the entity that comes
        back under its name.
        """

    def report_worker(self, report: WorkerReport) -> None:
        """Say that a worker is alive."""

    def worker_left(self, worker_id: str) -> None:
        """Say that a worker has ended as it should."""

    def summary(self) -> StateSummary:
        """The state in numbers."""

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""


class Fence(Protocol):
    """What a state does within a transaction of the store beside it, so that nothing late passes.

    Both calls get the driver's connection, on which the store has begun a transaction.
    """

    def hold(self, connection: object, expected: Sequence[Expected]) -> frozenset[str]:
        """Lock the owners of *expected* until the transaction ends, in one order for everybody.

        Returns:
            The owners of whom a row is no longer as expected, or is gone.
        """

    def published(self, connection: object, expected: Sequence[Expected]) -> None:
        """Set ``published_version`` of rows that were just written or deleted."""


class ObservingFence(Fence, Protocol):
    """A fence that can also accept observations within the store's transaction."""

    def observe(
        self,
        connection: object,
        observations: Sequence[Observation],
        expected: Sequence[Expected],
    ) -> frozenset[str]:
        """As `hold`, but first accept *observations*, as `State.observe` does.

        Their rows that are among *expected* count as published from then on, so that
        `published` is not called for their owners.

        Returns:
            The owners whose observation is refused, with those that `hold` names of the others.
        """


@dataclass(frozen=True, slots=True)
class WithObservations:
    """A `Fence` that accepts *observations* within the publish that they are for.

    What was never observed has no row that a publish could wait for. So the first observation of
    an owner and the records that it leads to may be one transaction: a row is written once, and
    nothing is remembered of an owner whose records were not written.
    """

    fence: ObservingFence
    observations: Sequence[Observation]

    def hold(self, connection: object, expected: Sequence[Expected]) -> frozenset[str]:
        """Accept the observations; the owners of whom one is refused are among those named."""
        return self.fence.observe(connection, self.observations, expected)

    def published(self, connection: object, expected: Sequence[Expected]) -> None:
        """Tell of those that were observed before."""
        observed = {observation.owner_id for observation in self.observations}
        others = [row for row in expected if row.owner_id not in observed]
        self.fence.published(connection, others)


@runtime_checkable
class FencedState(State, Protocol):
    """A state that can share a transaction with a store in the same database."""

    @property
    def fence(self) -> ObservingFence:
        """What the store is to do within a publish."""


# --- what a store needs for it ------------------------------------------------------------------


class Claim(NamedTuple):
    """Whose store this is; kept in the store, one for each namespace.

    Attributes:
        source: the source's identity; empty if the source has none.
        state_id: the state that orders its writes.
        epoch: that state's epoch when the claim was written last.
    """

    source: str
    state_id: str
    epoch: int


class Tombstone(NamedTuple):
    """What is left of a deleted record: it keeps older writes out. No search ever finds it."""

    vector_id: str
    owner_id: str
    kind: str
    entity_id: str
    version: int


@runtime_checkable
class ClaimableStore(VectorStore, Protocol):
    """A store that knows whose it is and can keep tombstones; what class C takes."""

    def claim(self) -> Claim | None:
        """The namespace's claim; None if nobody has claimed it."""

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*.

        Returns:
            Whether it was.
        """

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """Yield every tombstone of *owners* in the namespace. `stamps` yields none of them."""

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones where the stored version is older or nothing is stored.

        Vector, text and metadata are removed. A refused one is no error; the caller reads back.

        Raises:
            WriteFailed: the store refused the batch; nothing is written.
            StoreUnavailable: no definite answer.
        """

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones that are still there with that version. Records are left alone."""


@runtime_checkable
class TransactionalStore(ClaimableStore, Protocol):
    """A store whose database can hold the state too; what class T takes."""

    def state_address(self) -> tuple[str, str]:
        """Where a state beside the vectors lives: its URL, and the scope within it.

        Raises:
            ConfigError: it cannot be written there.
        """

    def publish_fenced(
        self,
        writes: Sequence[Record],
        deletes: Sequence[Deletion],
        expected: Sequence[Expected],
        fence: Fence,
    ) -> frozenset[str]:
        """As `publish`, in one transaction with the state.

        First `Fence.hold` is asked; owners of whom it says that something is not as expected are
        left out whole. After the writes and deletes `Fence.published` is told the others.

        Returns:
            The owners that were left out.
        """
