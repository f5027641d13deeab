"""The judge: hears of every change and every report, and knows what the source held at every step.

It believes nothing that a worker says. Order is told by the source's own past: each change of a
record is dated by what its sender's last complete read of the source showed.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from undrift.errors import UndriftError
from undrift.guard import HARMLESS_DELETES
from undrift.model import Outcome
from undrift.state import Identity
from undrift.testing.simulation.source import Content, SimulatedSource
from undrift.testing.simulation.store import Stored

DAY_SECONDS = 24 * 3600.0


class Violation(BaseException):
    """A promise was broken; nothing in a worker may catch it.

    Attributes:
        promise: ``I1`` to ``I9``, or ``guard``.
    """

    def __init__(self, promise: str, what: str) -> None:
        super().__init__(f"{promise}: {what}")
        self.promise = promise


@dataclass(slots=True, eq=False)
class Session:
    """One sync of some owners by one process.

    Attributes:
        began: the step at which it did.
        reads: for each owner the step of the last complete read of the source.
        looks: for each owner the step of the last complete read of the store.
        parked: owners of whom a record could not be made.
        is_person: a person has named the owners.
    """

    name: str
    owners: frozenset[str]
    began: int
    reads: dict[str, int] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    parked: set[str] = field(default_factory=set)
    is_person: bool = False


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a request, and what was known then."""

    session: Session
    reads: Mapping[str, int]
    looks: Mapping[str, int]


class Damage:
    """The sender of what nobody sent."""


DAMAGE = Damage()


class Oracle:
    """See the module.

    Args:
        step: the current step.
        now: the current time, in seconds.
        has_strict_order: whether the store promises that nothing older ever lands (I2).

    Attributes:
        changes: what workers made of the store.
        managed: the most records that the state ever said there were to delete.
        has_steady_clock: the state's clock has never jumped.
        is_order_lost: the state was lost or restored; what was sent before may be ordered above.
    """

    def __init__(
        self,
        source: SimulatedSource,
        step: Callable[[], int],
        now: Callable[[], float],
        *,
        has_strict_order: bool,
    ) -> None:
        self._source = source
        self._step = step
        self._now = now
        self._has_strict_order = has_strict_order
        self._dates: dict[str, int] = {}
        self._records: dict[str, dict[str, Stored]] = {}
        self._past: dict[str, tuple[list[int], list[Content | None]]] = {}
        self._written: dict[str, int] = {}
        self._deletes: list[float] = []
        self._renewed: Counter[tuple[str, str]] = Counter()
        self.managed = 0
        self.changes = 0
        self.is_order_lost = False
        self.has_steady_clock = True
        self.trace: Callable[[str], None] | None = None

    # --- the store changes

    def changed(
        self, sender: object, vector_id: str, before: Stored | None, after: Stored | None
    ) -> None:
        """Judge one change of one record."""
        stamp = after.stamp if after is not None else before.stamp if before is not None else None
        assert stamp is not None
        if self.trace is not None:
            self.trace(f"    {_shown(before)} -> {_shown(after)} of {stamp.owner_id}")
        self._remember(vector_id, before, after)
        if not isinstance(sender, Sender):
            self._dates.pop(vector_id, None)
            return
        owner_id, identity = stamp.owner_id, (stamp.kind, stamp.entity_id)
        if owner_id not in sender.session.owners:
            raise Violation("I7", f"{sender.session.name} touched {owner_id}, who is not its")
        self._judge_deletion(sender, owner_id, identity, before, after)
        self._judge_order(sender, owner_id, identity, vector_id, before, after)
        was_there, is_there = (
            stored is not None and not stored.is_tombstone for stored in (before, after)
        )
        if is_there and not was_there:
            self._renewed[owner_id, stamp.kind] += 1
        if was_there and not is_there:
            self._judge_guard(sender, owner_id, stamp.kind, self._written.get(vector_id, 0))
        self._written[vector_id] = self._step()
        self.changes += 1

    def _judge_deletion(
        self,
        sender: Sender,
        owner_id: str,
        identity: Identity,
        before: Stored | None,
        after: Stored | None,
    ) -> None:
        """I8: a deleted record was absent in a complete read, or there is another one for it."""
        if before is None or before.is_tombstone or (after is not None and not after.is_tombstone):
            return
        is_found = bool(before.stamp.model)
        read = sender.reads.get(owner_id)
        if read is None:
            raise Violation("I8", f"{_name(owner_id, identity)} was deleted without a look")
        shown = {(kind, id_) for kind, id_, _ in next(iter(self._at(owner_id, read)))}
        is_lost = is_found and identity not in self._identities(owner_id)
        # Without transactions the write that takes its place may be lost on the way.
        if identity in shown and is_lost and self._has_strict_order:
            raise Violation(
                "I1", f"{_name(owner_id, identity)} was deleted, and the source had it when asked"
            )

    def _judge_order(
        self,
        sender: Sender,
        owner_id: str,
        identity: Identity,
        vector_id: str,
        before: Stored | None,
        after: Stored | None,
    ) -> None:
        """I2: nothing that was read earlier replaces what was read later."""
        read = sender.reads.get(owner_id)
        if read is None:
            raise Violation("I8", f"{_name(owner_id, identity)} was written without a look")
        date = self._source.since(owner_id, identity, read)
        newest = self._dates.get(vector_id, date)
        self._dates[vector_id] = max(date, newest)
        is_same = _fingerprint(before) == _fingerprint(after)
        if date < newest and not is_same and self._has_strict_order and not self.is_order_lost:
            raise Violation(
                "I2",
                f"{_name(owner_id, identity)}: content of step {date} replaced that of {newest}",
            )

    def _judge_guard(self, sender: Sender, owner_id: str, kind: str, written: int) -> None:
        """Programs delete no more than half of everything within a day, or a few.

        A record that was written after the look is none that the program meant to delete, and one
        that the owner got another one of its kind for is an edit.
        """
        if self._renewed[owner_id, kind]:
            self._renewed[owner_id, kind] -= 1
            return
        if written > sender.looks.get(owner_id, 0):
            return
        is_bound = self._has_strict_order and self.has_steady_clock and not self.is_order_lost
        if sender.session.is_person or not is_bound:
            return
        self._deletes = [at for at in self._deletes if at > self._now() - DAY_SECONDS]
        self._deletes.append(self._now())
        allowed = max(HARMLESS_DELETES, self.managed // 2)
        if len(self._deletes) > allowed:
            raise Violation("guard", f"programs deleted {len(self._deletes)} of {allowed} allowed")

    def forget_dates(self) -> None:
        """The store was replaced; what was written before says nothing any more."""
        self._dates.clear()

    # --- a sync reports

    def reported(
        self, session: Session, owner_id: str, outcome: Outcome, *, is_verified: bool
    ) -> None:
        """Judge what a sync says of an owner."""
        if outcome in (Outcome.IN_SYNC, Outcome.DRIFT) or is_verified:
            for what, seen in (("source", session.reads), ("store", session.looks)):
                if owner_id not in seen:
                    raise Violation(
                        "I9", f"{owner_id} is {outcome}, and its {what} was not read to the end"
                    )
        if outcome is not Outcome.IN_SYNC and not is_verified:
            return
        began, ended = session.began, self._step()
        wanted = self._source.contents(owner_id, began, ended)
        if wanted.isdisjoint(self._held(owner_id, began, ended)):
            raise Violation(
                "I3", f"{owner_id} is {outcome}, and the store held nothing that the source did"
            )

    # --- at rest

    def differing(self) -> list[str]:
        """Owners whose records are not what the source holds now."""
        now = self._step()
        owners = sorted({*self._source.owners_ever(), *self._records})
        return [owner for owner in owners if self._content(owner) not in self._at(owner, now)]

    # --- parts

    def _at(self, owner_id: str, step: int) -> set[Content]:
        return self._source.contents(owner_id, step, step)

    def _remember(self, vector_id: str, before: Stored | None, after: Stored | None) -> None:
        """Keep the past of the owners that a change is about."""
        for stored in (before, after):
            if stored is not None:
                self._records.setdefault(stored.stamp.owner_id, {}).pop(vector_id, None)
        if after is not None and not after.is_tombstone:
            self._records[after.stamp.owner_id][vector_id] = after
        for owner_id in {s.stamp.owner_id for s in (before, after) if s is not None}:
            steps, contents = self._past.setdefault(owner_id, ([-1], [frozenset()]))
            steps.append(self._step())
            contents.append(self._content(owner_id))

    def _content(self, owner_id: str) -> Content | None:
        """What the store holds of the owner; None if that is nothing a source could hold."""
        records = self._records.get(owner_id, {}).values()
        held = [(r.stamp.kind, r.stamp.entity_id, r.stamp.fingerprint) for r in records]
        whole = all(r.stamp.model for r in records)
        return frozenset(held) if whole and len(set(held)) == len(held) else None

    def _held(self, owner_id: str, first: int, last: int) -> set[Content | None]:
        steps, contents = self._past.get(owner_id, ([-1], [frozenset()]))
        start = max(0, bisect_right(steps, first) - 1)
        # Several changes within one step: only what stood at its end was ever seen by anybody.
        return set(contents[start : bisect_right(steps, last)])

    def _identities(self, owner_id: str) -> set[Identity]:
        records = self._records.get(owner_id, {}).values()
        return {(r.stamp.kind, r.stamp.entity_id) for r in records if r.stamp.model}


def _fingerprint(stored: Stored | None) -> str:
    return stored.stamp.fingerprint if stored is not None else ""


def _name(owner_id: str, identity: Identity) -> str:
    return f"{':'.join(identity)} of {owner_id}"


def _shown(stored: Stored | None) -> str:
    if stored is None:
        return "nothing"
    stamp = stored.stamp
    if stored.is_tombstone:
        return f"tombstone {stamp.key} v{stamp.version}"
    return f"{stamp.key} v{stamp.version} {stamp.fingerprint[:4]}"


def describe_error(error: UndriftError | None) -> str:
    """One line for the trace."""
    return f" ({error.what}: {error.why})" if error is not None else ""
