"""What puts the writes of a sync in order: the store's own versions, or a state.

`Repairer` does the same either way: look, plan, embed, publish, look again. How a look is made,
which versions the writes carry and how they are sent is the order's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from undrift.diff import OwnerDiff
from undrift.errors import UndriftError
from undrift.failpoints import reach
from undrift.look import Look, Sides
from undrift.model import Outcome
from undrift.plan import Plan, plan_owner
from undrift.ports import Record
from undrift.publish import Shipment
from undrift.state import Tombstone
from undrift.versions import OrderedPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What a plan is to be made from.

    Attributes:
        force: rewrite and re-embed everything.
        occupied: versions found under a wanted vector_id in records that claim another entity.
    """

    look: Look
    diff: OwnerDiff
    force: bool = False
    occupied: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """How an owner's repair ended, for the order to remember.

    Attributes:
        look: the last one.
        is_held: deletes are kept aside; the owner is not done.
        parked: by ``(kind, entity_id)``, why a record cannot be made.
        is_only_parked: everything else was done.
        attempts: failures in a row before this one.
        sent: what the latest publish wrote.
    """

    look: Look
    outcome: Outcome
    error: UndriftError | None = None
    is_held: bool = False
    parked: Mapping[tuple[str, str], str]
    is_only_parked: bool = False
    attempts: int = 0
    sent: Sequence[Record] = ()


class Order(Protocol):
    """See the module."""

    def begin(self, owners: Sequence[str]) -> list[str]:
        """Those of *owners* that may be worked on now; the others are somebody else's."""

    def await_some(self, owners: Sequence[str]) -> list[str]:
        """As `begin`, but wait until there is at least one."""

    def look(self, owners: Sequence[str], before: Mapping[str, Look]) -> dict[str, Look]:
        """Read both sides of *owners*, in the order that makes a sync from it safe.

        Raises:
            StateMismatch, Superseded: nothing may be written.
        """

    def look_back(self, before: Mapping[str, Look]) -> dict[str, Look]:
        """Read the store again; of the source what *before* showed still counts."""

    def look_again(self, before: Mapping[str, Look]) -> dict[str, Look]:
        """Read both sides again; what was noted for *before* counts where the source is as it was.

        Not for owners of whom others are known to have been quicker.
        """

    def is_settled(self, look: Look) -> bool:
        """Whether there is nothing to remember, to re-stamp or to bury where the sides agree."""

    def plans(self, requests: Sequence[PlanRequest]) -> dict[str, OrderedPlan | UndriftError]:
        """What to do about each owner; an error is that owner's alone.

        Where another worker was quicker a plan says so, and has nothing in it: look again.
        """

    def is_proved(self, tombstones: Sequence[Tombstone], look: Look) -> bool:
        """Whether *look* shows the *tombstones* that were sent."""

    def send(self, shipment: Shipment) -> Collection[str]:
        """Hand a batch to the store.

        Returns:
            The owners that were left out, since others were quicker, or the plan was too old.

        Raises:
            WriteFailed: the store refused the batch; nothing is written.
            UnknownStateError: no definite answer.
        """

    def working(self) -> None:
        """Say that the work goes on; called every now and then."""

    def conclude(self, conclusions: Sequence[Conclusion]) -> None:
        """Remember how the repairs of a page ended."""

    def close(self) -> None:
        """Give up what is still held."""


class StoreOrder:
    """Versions come from the store itself; for stores of one's own, without a state.

    A write carries the enumerated version plus one, a delete applies only where the version is
    still the enumerated one. So the store is enumerated before the source is read: what is deleted
    was seen before the source was read without it.
    """

    def __init__(self, sides: Sides) -> None:
        self._sides = sides

    def begin(self, owners: Sequence[str]) -> list[str]:
        """All of them; nobody else is known of."""
        return list(owners)

    def await_some(self, owners: Sequence[str]) -> list[str]:
        """All of them."""
        return list(owners)

    def look(self, owners: Sequence[str], before: Mapping[str, Look]) -> dict[str, Look]:
        """Read both sides, the store first."""
        looks = self._sides.look(owners, first="store", before=before)
        reach("sync.looked")
        return looks

    def look_back(self, before: Mapping[str, Look]) -> dict[str, Look]:
        """Read both sides; nothing less would do without a state."""
        return self.look(list(before), before)

    def look_again(self, before: Mapping[str, Look]) -> dict[str, Look]:
        """Read both sides."""
        return self.look(list(before), before)

    def is_settled(self, look: Look) -> bool:
        """Sides that agree need nothing more."""
        return True

    def plans(self, requests: Sequence[PlanRequest]) -> dict[str, OrderedPlan | UndriftError]:
        """Plans whose writes are newer than everything that was enumerated."""
        return {
            request.diff.owner_id: OrderedPlan(plan=self._plan(request)) for request in requests
        }

    def is_proved(self, tombstones: Sequence[Tombstone], look: Look) -> bool:
        """There are no tombstones to look for."""
        return True

    def send(self, shipment: Shipment) -> Collection[str]:
        """Publish it."""
        self._sides.store.publish(shipment.writes, shipment.deletes)
        return ()

    def working(self) -> None:
        """Nobody wants to know."""

    def conclude(self, conclusions: Sequence[Conclusion]) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """Nothing is held."""

    def _plan(self, request: PlanRequest) -> Plan:
        return plan_owner(
            request.diff,
            namespace=self._sides.store.namespace,
            model=self._sides.model,
            force=request.force,
            occupied=request.occupied,
            stays=staying(request.diff, self._sides),
        )


def staying(diff: OwnerDiff, sides: Sides) -> Collection[tuple[str, str]]:
    """Entities whose record may be stamped where another program put it, without a state: all."""
    if sides.store.capabilities.adoption is None or diff.wanted is None:
        return ()
    return diff.wanted.entities.keys()
