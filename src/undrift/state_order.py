"""The sync protocol with a state: every write is decided on under a note of the state first.

The steps, as the failpoints name them: lease the owners; **note** what is remembered; **read** the
source in a snapshot that begins after the note; **observe**, which gives a version to whatever the
snapshot shows anew, unless somebody else observed meanwhile; **look** at the store; **raise**
versions above what the store holds, by compare and set; publish; look again; acknowledge. Where
publish and state are one transaction, the first observation of an owner of whom the store has
nothing is a part of it.

Source:
    ``tests/model`` checks these steps exhaustively, with the variants that fail.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from undrift.errors import (
    StateUnavailable,
    StoreUnavailable,
    UndriftError,
    UnknownStateError,
    WriteFailed,
)
from undrift.failpoints import reach
from undrift.ledger import SEND_DEADLINE_SECONDS, Ledger
from undrift.look import NOT_THERE, Look, Sides, SourceSide
from undrift.model import Outcome, Stamp
from undrift.order import Conclusion, PlanRequest
from undrift.plan import Plan
from undrift.ports import StoreClass
from undrift.publish import Shipment
from undrift.state import (
    Acknowledgement,
    EntityRow,
    Expected,
    Failure,
    Identity,
    Note,
    Observation,
    OwnerNote,
    Parking,
    Tombstone,
    TransactionalStore,
    VersionRaise,
    WithObservations,
)
from undrift.versions import OrderedPlan, observed_rows, order_plan, with_rows

MAX_OBSERVATIONS = 10
"""How often an observation is repeated when somebody else was quicker."""

HORIZON_SECONDS = 900.0
"""After this time no write can still land in a store that keeps none out (class N)."""

PARKING_SECONDS = 60.0
_FAILURE_SECONDS = 1.0
_MAX_FAILURE_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedLook(Look):
    """A look with what was remembered when it was made.

    Attributes:
        note: taken before the source was read; its rows are as they were.
        rows: what is remembered since, or is to be with the publish: every entity that the look
            wants has one. Brought up to date when versions are raised.
        tombstones: the store's, by vector_id.
    """

    note: OwnerNote = field(default_factory=lambda: OwnerNote(owner_id=""))
    round: int = 0
    rows: dict[Identity, EntityRow] = field(default_factory=dict)
    tombstones: Mapping[str, Tombstone] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Observed:
    """One owner's side of the source, and what is remembered of it now.

    Attributes:
        postponed: what has not been accepted yet, since the publish is to do it.
    """

    side: SourceSide
    note: OwnerNote
    round: int
    rows: dict[Identity, EntityRow]
    noted_at: float
    postponed: Observation | None = None


class StateOrder:
    """The `Order` of everything that has a state.

    Args:
        ledger: entered.
        retry_parked: try again what could not be made before.
        observes_with_publish: owners that were never observed, and of whom the store has nothing,
            are observed in the transaction that writes them, where state and store share one; for
            those who publish all that is missing.

    Safety:
        As `Repairer`: different pages may be in different threads.
    """

    def __init__(
        self,
        sides: Sides,
        ledger: Ledger,
        *,
        retry_parked: bool = False,
        observes_with_publish: bool = False,
    ) -> None:
        self._sides = sides
        self._ledger = ledger
        self._retry_parked = retry_parked
        self._may_postpone = observes_with_publish and ledger.fence is not None

    # --- whose turn it is

    def begin(self, owners: Sequence[str]) -> list[str]:
        """Lease *owners*, as far as nobody else has them."""
        leased = self._ledger.lease(owners) if owners else []
        reach("sync.leased")
        return leased

    def await_some(self, owners: Sequence[str]) -> list[str]:
        """Lease *owners*, once somebody else gives one of them up or is found to be gone."""
        while not (leased := self.begin(owners)):
            self._ledger.pause()
        return leased

    def working(self) -> None:
        """Prolong the leases."""
        self._ledger.renew()

    # --- note, read, observe, look

    def look(self, owners: Sequence[str], before: Mapping[str, Look]) -> dict[str, Look]:
        """Read both sides of *owners*, and give versions to what the source shows anew."""
        try:
            observed = self._observe(owners, before, may_postpone=self._may_postpone and not before)
            reach("sync.observed")
            looks = self._with_store(observed)
            now = [owner for owner, look in looks.items() if _must_be_observed_now(look)]
            if now:
                looks |= self._with_store(self._observe(now, before))
        except UnknownStateError as exc:
            return {owner: Look(owner_id=owner, error=exc) for owner in owners}
        reach("sync.looked")
        return looks

    def look_back(self, before: Mapping[str, Look]) -> dict[str, Look]:
        """Read the store again; the source's snapshot and its versions stay what they were."""
        observed = {
            owner: _Observed(
                (look.wanted, look.digest, None), look.note, look.round, look.rows, look.noted_at
            )
            for owner, look in before.items()
            if isinstance(look, OrderedLook)
        }
        # Nothing of what is written here can make records of others more or less.
        unmanaged = {owner: look.unmanaged for owner, look in before.items()}
        try:
            return self._with_store(observed, unmanaged)
        except UnknownStateError as exc:
            return {owner: Look(owner_id=owner, error=exc) for owner in before}

    def look_again(self, before: Mapping[str, Look]) -> dict[str, Look]:
        """As `look`, but the note of *before* counts where the source shows the same content.

        Whoever was quicker meanwhile has left versions that this worker's plans collide with.
        """
        try:
            contents = self._sides.read_source(list(before), before, {})
        except UnknownStateError as exc:
            return {owner: Look(owner_id=owner, error=exc) for owner in before}
        same = {
            owner: look
            for owner, look in before.items()
            if contents.get(owner, NOT_THERE) == (look.wanted, look.digest, None)
        }
        changed = {owner: look for owner, look in before.items() if owner not in same}
        looks = self.look_back(same) if same else {}
        return looks | (self.look(list(changed), changed) if changed else {})

    def _observe(
        self, owners: Sequence[str], before: Mapping[str, Look], *, may_postpone: bool = False
    ) -> dict[str, _Observed]:
        observed: dict[str, _Observed] = {}
        waiting = list(owners)
        for _ in range(MAX_OBSERVATIONS):
            noted_at = self._ledger.clock()
            note = self._ledger.note(waiting)
            reach("sync.noted")
            contents = self._sides.read_source(waiting, before, {})
            reach("sync.read")
            found, observations = self._compared(waiting, note, contents, noted_at)
            if may_postpone:
                found, observations = _postponed(found, observations)
            accepted = self._ledger.state.observe(observations) if observations else frozenset()
            overtaken = {each.owner_id for each in observations} - accepted
            observed.update({owner: found[owner] for owner in waiting if owner not in overtaken})
            waiting = [owner for owner in waiting if owner in overtaken]
            if not waiting:
                return observed
        raise _overtaken(waiting)

    def _compared(
        self,
        owners: Sequence[str],
        note: Note,
        contents: Mapping[str, SourceSide],
        noted_at: float,
    ) -> tuple[dict[str, _Observed], list[Observation]]:
        """What is remembered of each owner once its observation is accepted, and those to make."""
        found: dict[str, _Observed] = {}
        observations = []
        for owner in owners:
            side = contents.get(owner, NOT_THERE)
            own = note.owners.get(owner, OwnerNote(owner_id=owner))
            rows: Sequence[EntityRow] = ()
            if side[2] is None:
                try:
                    rows = observed_rows(
                        own,
                        side[0],
                        model=self._sides.model,
                        kinds=self._sides.renderer.mapping.kinds,
                    )
                except WriteFailed as exc:
                    side = (None, None, _exhausted(exc))
            found[owner] = _Observed(
                side, own, note.standing.round, with_rows(own.entities, rows), noted_at
            )
            # Also where nothing differs: an older snapshot must not be accepted behind this one.
            if side[2] is None and (side[0] is not None or _is_known(own)):
                observations.append(Observation(owner_id=owner, noted=own.observation, rows=rows))
        return found, observations

    def _with_store(
        self, observed: Mapping[str, _Observed], unmanaged: Mapping[str, int] | None = None
    ) -> dict[str, Look]:
        owners = list(observed)
        if unmanaged is None:
            stamps, unmanaged = self._sides.read_store(owners)
        else:
            stamps = self._sides.read_stamps(owners)
        tombstones: dict[str, dict[str, Tombstone]] = {}
        if not self._ledger.keeps_tombstones:
            # A state that was elsewhere may have left some, which what is written must rise above.
            owners = [o for o in owners if _is_lacking(observed[o].rows, stamps.get(o, ()))]
        for stone in self._ledger.store.tombstones(owners) if owners else ():
            tombstones.setdefault(stone.owner_id, {})[stone.vector_id] = stone
        self._ledger.confirm()
        return {
            owner: OrderedLook(
                owner_id=owner,
                wanted=seen.side[0],
                digest=seen.side[1],
                error=seen.side[2],
                stamps=stamps.get(owner, ()),
                unmanaged=unmanaged.get(owner, 0),
                note=seen.note,
                round=seen.round,
                rows=seen.rows,
                tombstones=tombstones.get(owner, {}),
                observation=seen.postponed,
                noted_at=seen.noted_at,
            )
            for owner, seen in observed.items()
        }

    # --- plan and raise

    def is_settled(self, look: Look) -> bool:
        """Whether every record's version is the remembered one, and every deleted one's tombstone.

        Where nothing late gets through, an older version under the same content is none the worse.
        """
        assert isinstance(look, OrderedLook)
        if not self._ledger.keeps_tombstones:
            return not _is_ahead(look)
        stamps = {(stamp.kind, stamp.entity_id): stamp.version for stamp in look.stamps}
        stones = {
            (stone.kind, stone.entity_id): stone.version for stone in look.tombstones.values()
        }
        known = all(
            (stones if row.is_deleted else stamps).get(identity) == row.version
            for identity, row in look.rows.items()
            if row.kind in self._sides.renderer.mapping.kinds
        )
        return known and look.rows.keys() >= stones.keys()

    def plans(self, requests: Sequence[PlanRequest]) -> dict[str, OrderedPlan | UndriftError]:
        """Plans whose versions are remembered, and above all that the store was found to hold."""
        plans: dict[str, OrderedPlan | UndriftError] = {}
        for request in requests:
            try:
                plans[request.diff.owner_id] = self._plan(request)
            except WriteFailed as exc:
                plans[request.diff.owner_id] = exc
        raises = [
            plan.raised
            for plan in plans.values()
            if isinstance(plan, OrderedPlan) and plan.raised is not None
        ]
        if raises:
            self._raise(requests, raises, plans)
        reach("sync.raised")
        return plans

    def _plan(self, request: PlanRequest) -> OrderedPlan:
        look = request.look
        assert isinstance(look, OrderedLook)
        return order_plan(
            request.diff,
            look.rows,
            look.tombstones,
            namespace=self._sides.store.namespace,
            model=self._sides.model,
            keeps_tombstones=self._ledger.keeps_tombstones,
            force=request.force,
            retry_parked=self._retry_parked,
            occupied=request.occupied,
            is_adopted=self._sides.store.capabilities.adoption is not None,
        )

    def _raise(
        self,
        requests: Sequence[PlanRequest],
        raises: Sequence[VersionRaise],
        plans: dict[str, OrderedPlan | UndriftError],
    ) -> None:
        if any(_is_ahead(request.look) for request in requests):
            self._ledger.alarm()
        try:
            raised = self._ledger.state.raise_versions(raises)
        except UnknownStateError as exc:
            plans.update({each.owner_id: exc for each in raises})
            return
        looks = {request.diff.owner_id: request.look for request in requests}
        for each in raises:
            look = looks[each.owner_id]
            if each.owner_id in raised and isinstance(look, OrderedLook):
                look.rows.update({row.identity: row for row in each.raised})
            else:
                # Somebody observed something newer: look again, with nothing done.
                plans[each.owner_id] = OrderedPlan(
                    plan=Plan(each.owner_id, (), ()), is_overtaken=True
                )

    # --- send

    def send(self, shipment: Shipment) -> Collection[str]:
        """Hand a batch to the store, by the store's class.

        A plan that is older than the send deadline is dropped; the look behind it tells.
        """
        if self._ledger.clock() - shipment.planned_at > SEND_DEADLINE_SECONDS:
            return shipment.owners
        store, fence = self._ledger.store, self._ledger.fence
        if fence is not None:
            assert isinstance(store, TransactionalStore)
            observing = WithObservations(fence, shipment.observations)
            return store.publish_fenced(
                shipment.writes,
                shipment.deletes,
                list(_expected(shipment)),
                observing if shipment.observations else fence,
            )
        if self._ledger.store_class is StoreClass.NEITHER:
            self._ledger.state.suspect(shipment.owners, HORIZON_SECONDS)
            if len(self._ledger.lease(shipment.owners)) < len(shipment.owners):
                return shipment.owners  # somebody else has taken over
        if shipment.writes or shipment.deletes:
            store.publish(shipment.writes, shipment.deletes)
        if shipment.tombstones:
            store.bury(shipment.tombstones)
        return ()

    def is_proved(self, tombstones: Sequence[Tombstone], look: Look) -> bool:
        """Whether the tombstones are in the store."""
        if not isinstance(look, OrderedLook):
            return False
        found = look.tombstones
        return all(found.get(stone.vector_id) == stone for stone in tombstones)

    # --- acknowledge

    def conclude(self, conclusions: Sequence[Conclusion]) -> None:
        """Acknowledge what was proved, remember what failed, and give up the leases."""
        parkings = [parking for each in conclusions for parking in _parkings(each)]
        done, failed, held = [], [], []
        for each in conclusions:
            if each.is_held:
                held.append(each.look.owner_id)
            elif isinstance(each.look, OrderedLook) and _is_done(each):
                done.append(self._acknowledgement(each, each.look))
            else:
                failed.append(self._failure(each))
                if isinstance(each.look, OrderedLook):
                    part = self._acknowledgement(each, each.look)
                    done.extend([replace(part, generation=None)] if part.published else [])
        state, holder = self._ledger.state, self._ledger.holder
        if parkings:
            state.park(parkings)
        if done:
            state.acknowledge(done, holder)
        if failed:
            # What was not dirty is dirty now: somebody has to try again.
            state.mark([failure.owner_id for failure in failed])
            state.fail(failed, holder)
        self._ledger.release(held)
        self._ledger.gave_up(each.look.owner_id for each in conclusions)
        reach("sync.acknowledged")

    def close(self) -> None:
        """Give up all leases."""
        self._ledger.end()

    def _acknowledgement(self, end: Conclusion, look: OrderedLook) -> Acknowledgement:
        return Acknowledgement(
            owner_id=look.owner_id,
            generation=look.note.generation,
            round=look.round,
            published=list(self._published(look, self._remembered(end))),
        )

    def _remembered(self, end: Conclusion) -> Set[tuple[str, str, int]]:
        """What the fence has remembered as published when it was written."""
        if self._ledger.fence is None:
            return frozenset()
        stamps = (record.stamp for record in end.sent)
        return {(stamp.kind, stamp.entity_id, stamp.version) for stamp in stamps}

    def _published(
        self, look: OrderedLook, remembered: Set[tuple[str, str, int]]
    ) -> Iterator[tuple[str, str, int]]:
        """What the look reads back that is not remembered as published, or was parked before."""
        lacking = [
            (identity, row)
            for identity, row in look.rows.items()
            if row.parked_reason
            or (row.published_version != row.version and (*row[:2], row.version) not in remembered)
        ]
        if not lacking:
            return
        present = {(stamp.kind, stamp.entity_id): stamp for stamp in look.stamps}
        buried = {(stone.kind, stone.entity_id): stone for stone in look.tombstones.values()}
        for identity, row in lacking:
            if row.is_deleted:
                stone = buried.get(identity)
                is_there = identity not in present and (
                    not self._ledger.keeps_tombstones
                    or (stone is not None and stone.version == row.version)
                )
            else:
                is_there = _is_published(present.get(identity), row)
            if is_there:
                yield (*identity, row.version)

    def _failure(self, end: Conclusion) -> Failure:
        error = end.error
        wait = min(_MAX_FAILURE_SECONDS, _FAILURE_SECONDS * 2.0 ** min(end.attempts, 20))
        asked = getattr(error, "retry_after_seconds", None) or 0.0
        delay = max(asked, wait * (0.5 + self._ledger.chance() / 2))
        what = f"{error.what}: {error.why}" if error is not None else str(end.outcome)
        return Failure(end.look.owner_id, what, delay)


def _postponed(
    found: Mapping[str, _Observed], observations: Iterable[Observation]
) -> tuple[dict[str, _Observed], list[Observation]]:
    """*found* with those observations that a publish is to make, and the others."""
    observed, others = dict(found), []
    for each in observations:
        note = found[each.owner_id].note
        was_never_observed = not (note.observation or note.floor or note.entities)
        if was_never_observed and each.rows:
            observed[each.owner_id] = replace(found[each.owner_id], postponed=each)
        else:
            others.append(each)
    return observed, others


def _must_be_observed_now(look: Look) -> bool:
    """Whether the store has something of an owner that was not observed yet.

    Its versions may have to be raised first, and that takes rows that are there.
    """
    assert isinstance(look, OrderedLook)
    return look.observation is not None and bool(look.stamps or look.tombstones)


def _is_done(end: Conclusion) -> bool:
    """Whether nothing is left to do before the owner changes again."""
    return end.outcome in (Outcome.IN_SYNC, Outcome.NOT_FOUND) or end.is_only_parked


def _is_published(stamp: Stamp | None, row: EntityRow) -> bool:
    return stamp is not None and (stamp.version, stamp.fingerprint, stamp.model) == (
        row.version,
        row.fingerprint,
        row.model,
    )


def _is_known(note: OwnerNote) -> bool:
    return bool(note.generation or note.observation or note.entities)


def _is_lacking(rows: Mapping[Identity, EntityRow], stamps: Iterable[Stamp]) -> bool:
    """Whether no record is found of a live entity."""
    found = {(stamp.kind, stamp.entity_id) for stamp in stamps}
    return any(not row.is_deleted and identity not in found for identity, row in rows.items())


def _is_ahead(look: Look) -> bool:
    """Whether the store holds a record that is newer than anything remembered of it."""
    assert isinstance(look, OrderedLook)
    rows = look.rows

    def is_ahead(kind: str, entity_id: str, version: int) -> bool:
        row = rows.get((kind, entity_id))
        return row is not None and version > row.version

    return any(is_ahead(s.kind, s.entity_id, s.version) for s in look.stamps) or any(
        is_ahead(t.kind, t.entity_id, t.version) for t in look.tombstones.values()
    )


def _expected(shipment: Shipment) -> Iterator[Expected]:
    """The rows that justify each write and delete of *shipment*."""
    for record in shipment.writes:
        stamp = record.stamp
        yield Expected(stamp.owner_id, stamp.kind, stamp.entity_id, stamp.version)
    for deletion in shipment.deletes:
        yield shipment.expected[deletion.vector_id]


def _parkings(end: Conclusion) -> Iterator[Parking]:
    if isinstance(end.look, OrderedLook):
        for (kind, entity_id), reason in end.parked.items():
            row = end.look.rows.get((kind, entity_id))
            if row is not None:
                yield Parking(
                    end.look.owner_id, kind, entity_id, row.version, reason, PARKING_SECONDS
                )


def _overtaken(owners: Sequence[str]) -> StateUnavailable:
    return StateUnavailable(
        f"User {owners[0]} could not be observed",
        why=f"other workers observed it {MAX_OBSERVATIONS} times while this one read the source.",
        fix="run the same command again; if it persists, see how many workers sync this user",
    )


def _exhausted(cause: WriteFailed) -> UnknownStateError:
    error = StoreUnavailable(cause.what, why=cause.why, fix=cause.fix)
    error.__cause__ = cause
    return error
