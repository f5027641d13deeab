"""The right to write: whose store this is, which configuration is current, who works on whom.

A `Ledger` is a state as one worker uses it. It proves before every look that the store is claimed
by this state for this source, that the state is no copy that was left behind, and that no newer
configuration has taken over; a worker of which one of these does not hold writes nothing.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Lock

from undrift import clocks
from undrift.clocks import Clock, Sleep, awake_or_not, is_gone, new_holder
from undrift.errors import ConfigError, StateMismatch, StateUnavailable, Superseded
from undrift.fingerprint import FORMAT
from undrift.mapping import Mapping as SourceMapping
from undrift.ports import StoreClass
from undrift.state import Claim, ClaimableStore, Note, ObservingFence, Standing, State

SEND_DEADLINE_SECONDS = 3600.0
"""A plan that is older is thrown away: only so can tombstones ever be collected."""

SCRUB_SECONDS = 24 * 3600.0
"""Within this time a continuous worker looks at every owner, whatever the triggers say."""

RETENTION_SECONDS = 2 * SCRUB_SECONDS + SEND_DEADLINE_SECONDS
"""How long a tombstone stays."""

LEASE_SECONDS = 60.0
_LEASE_POLL_SECONDS = 0.05
_CLAIM_ATTEMPTS = 20


def config_digest(mapping: SourceMapping, *, model: str) -> str:
    """What two releases must agree in to write the same records.

    Its parts are those that a fingerprint or a vector depends on; where the databases are is not
    among them.
    """
    described = repr((FORMAT, model, mapping))
    return hashlib.blake2b(described.encode(), digest_size=16).hexdigest()


@dataclass(slots=True, kw_only=True, weakref_slot=True)
class Ledger:
    """One worker's view of the state.

    Attributes:
        config: the digest of this worker's configuration.
        source: the source's identity; empty if it has none.
        fence: what the store does within a publish, where the state shares its transactions; None
            anywhere else.
        holder: the name its leases carry.
        is_gone: tells of another holder whether it certainly runs no more.
        chance: a number from 0 to 1, for delays that are not to coincide.

    Safety:
        May be used from several threads.
    """

    state: State
    store: ClaimableStore
    config: str
    source: str
    fence: ObservingFence | None = None
    holder: str = field(default_factory=new_holder)
    clock: Clock = awake_or_not
    sleep: Sleep = time.sleep
    is_gone: Callable[[str], bool] = is_gone
    chance: Callable[[], float] = random.random
    lease_seconds: float = LEASE_SECONDS
    _held: set[str] = field(default_factory=set)
    _standing: Standing | None = None
    _renewed_at: float = 0.0
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        clocks.begin_work(self.holder, self)

    @property
    def store_class(self) -> StoreClass:
        """How late writes are kept out, as store and state together allow it."""
        if self.fence is not None:
            return StoreClass.TRANSACTIONAL
        declared = self.store.capabilities.store_class
        return StoreClass.NEITHER if declared is StoreClass.NEITHER else StoreClass.CONDITIONAL

    @property
    def keeps_tombstones(self) -> bool:
        """Whether a delete leaves something behind that keeps late writes out."""
        return self.fence is None

    # --- whose store this is

    def enter(self) -> None:
        """Begin to write.

        Raises:
            StateMismatch: the store is claimed by another state, or for another source.
            Superseded: a newer configuration is the current one.
            UnknownStateError: store or state cannot be reached.
        """
        # The claim first: one that is above a state read later was written by a newer copy of it.
        claim = self.store.claim()
        before = self.state.standing()
        self._require_ours(claim, before)
        self._enter(claim, before)

    def adopt(self) -> Standing:
        """Take the store over, whoever had it before; everybody is looked at again."""
        for _ in range(_CLAIM_ATTEMPTS):
            claim = self.store.claim()
            standing = self.state.adopt(self.config, above_epoch=claim.epoch if claim else 0)
            ours = Claim(self.source, standing.state_id, standing.epoch)
            if self.store.put_claim(ours, replacing=claim):
                self.state.mark_everyone(again_after_seconds=SEND_DEADLINE_SECONDS)
                return standing
        raise _contended()

    def note(self, owners: Sequence[str]) -> Note:
        """What is remembered of *owners*, once it is proved that this worker may write.

        Raises:
            StateMismatch, Superseded: it may not.
            UnknownStateError: store or state cannot be reached.
        """
        claim = self.store.claim()
        note = self.state.note(owners)
        self._require_ours(claim, note.standing)
        self._require_current(note.standing)
        self._standing = note.standing
        if claim is None or claim.epoch > note.standing.epoch:
            self._enter(claim, note.standing)
        return note

    def confirm(self) -> None:
        """Prove again, behind an enumeration, that what was noted still counts.

        Another copy of the state may have taken the store over meanwhile. Then everybody is marked
        behind what was noted, so that no acknowledgement of it can hide what the copy does.

        Raises:
            As `note`.
        """
        claim, known = self.store.claim(), self._standing
        if claim is not None and known is not None and _is_covered(claim, known):
            return
        standing = self.state.standing()
        self._require_ours(claim, standing)
        self._require_current(standing)
        if claim is None or claim.epoch > standing.epoch:
            self._enter(claim, standing)

    def refusal(self, claim: Claim | None, standing: Standing) -> ConfigError | None:
        """Why this worker may not write, as *claim* and *standing* say; None if it may."""
        try:
            self._require_ours(claim, standing)
            self._require_current(standing)
        except (StateMismatch, Superseded) as refusal:
            return refusal
        return None

    def alarm(self) -> None:
        """A record was found to be ahead of the state: somebody's writes are not remembered."""
        self.state.mark_everyone(again_after_seconds=SEND_DEADLINE_SECONDS)

    def _enter(self, claim: Claim | None, before: Standing) -> None:
        above = claim.epoch if claim is not None else 0
        standing = self.state.enter(self.config, above_epoch=above)
        self._require_current(standing)
        if above > before.epoch:
            self.alarm()  # the state is older than what it did: restored, or a copy
        for _ in range(_CLAIM_ATTEMPTS):
            ours = Claim(self.source or (claim.source if claim else ""), *standing[:2])
            if claim is not None and claim.epoch >= ours.epoch and claim.state_id == ours.state_id:
                return  # another worker of the same state was quicker
            if self.store.put_claim(ours, replacing=claim):
                return
            claim = self.store.claim()
            self._require_ours(claim, standing)
        raise _contended()

    def _require_ours(self, claim: Claim | None, standing: Standing) -> None:
        if claim is None:
            return
        if claim.state_id != standing.state_id:
            raise StateMismatch(
                "The vector store belongs to another state",
                why=f"its writes are ordered by the state {claim.state_id[:8]}…, and "
                f"{self.state.location} is the state {standing.state_id[:8]}…; two of them would "
                "undo each other's work.",
                fix="use the state that belongs to it (state.url), or, if that one is lost, run "
                "`undrift state adopt`",
            )
        if claim.source and self.source and claim.source != self.source:
            raise StateMismatch(
                "The vector store was built from another source",
                why=f"it is claimed for {claim.source}, and this run reads {self.source}; what "
                "this one does not have would be deleted.",
                fix="correct DATABASE_URL, or, if the database has moved, run `undrift state "
                "adopt`",
            )

    def _require_current(self, standing: Standing) -> None:
        if standing.config not in ("", self.config):
            raise Superseded(
                "Another configuration writes this store now",
                why=f"templates, kinds, format or model of this one ({self.config[:8]}…) were "
                f"replaced by a newer one ({standing.config[:8]}…); two of them would rewrite each "
                "other's records for ever.",
                fix="run the newer release here too; to go back to this one on purpose, run "
                "`undrift state adopt`",
            )

    # --- who works on whom

    def lease(self, owners: Sequence[str]) -> list[str]:
        """Those of *owners* that this worker has now; the others are somebody else's."""
        busy = self.state.lease(owners, self.holder, self.lease_seconds)
        gone = sorted(holder for holder in set(busy.values()) if self.is_gone(holder))
        if gone:
            left = [owner for owner, holder in busy.items() if holder in gone]
            still = self.state.lease(left, self.holder, self.lease_seconds, over=gone)
            busy = {owner: h for owner, h in busy.items() if h not in gone} | dict(still)
        leased = [owner for owner in owners if owner not in busy]
        self.took(leased)
        return leased

    def took(self, owners: Iterable[str]) -> None:
        """Remember that *owners* are leased to this worker, so that they are renewed."""
        with self._lock:
            self._held.update(owners)

    def pause(self) -> None:
        """Wait a moment for somebody else to give up a lease."""
        self.sleep(_LEASE_POLL_SECONDS)

    def renew(self) -> None:
        """Prolong all leases, if a third of their time is over."""
        with self._lock:
            now = self.clock()
            if now - self._renewed_at < self.lease_seconds / 3 or not self._held:
                return
            self._renewed_at = now
            held = sorted(self._held)
        self.state.renew(held, self.holder, self.lease_seconds)

    def end(self) -> None:
        """Give up all leases, and let others take over what could not be given up."""
        clocks.end_work(self.holder)
        self.release()

    def gave_up(self, owners: Iterable[str]) -> None:
        """Remember that *owners* are not leased to this worker any more."""
        with self._lock:
            self._held.difference_update(owners)

    def release(self, owners: Iterable[str] | None = None) -> None:
        """Give up the leases on *owners*, or all."""
        with self._lock:
            held = sorted(self._held if owners is None else self._held.intersection(owners))
        if held:
            self.state.release(held, self.holder)
            self.gave_up(held)


def _is_covered(claim: Claim, standing: Standing) -> bool:
    return claim.state_id == standing.state_id and claim.epoch <= standing.epoch


def _contended() -> StateUnavailable:
    return StateUnavailable(
        "The vector store could not be claimed",
        why=f"others changed its claim {_CLAIM_ATTEMPTS} times in a row.",
        fix="see what else writes to this store, and run the same command again",
    )
