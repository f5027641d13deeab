"""What a sync tells while it works, for whoever shows or logs it.

Events are told after the fact: the store has taken the batch, durably. Records that a newer version
kept from being written are in it all the same; only the report counts what was read back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoreCreated:
    """The store did not exist and has been created by these statements."""

    location: str
    statements: Sequence[str]


@dataclass(frozen=True, slots=True)
class StateCreated:
    """The state did not exist and has been created by these statements."""

    location: str
    statements: Sequence[str]


@dataclass(frozen=True, slots=True)
class OwnersBusy:
    """Other workers are syncing these owners; the run waits for them now, and holds nothing."""

    owners: int


@dataclass(frozen=True, slots=True)
class RepairStarted:
    """The owner differs, or is forced; its repair begins."""

    owner_id: str


@dataclass(frozen=True, slots=True)
class BatchWritten:
    """A batch of the owner's records is durable; counts are records."""

    owner_id: str
    number: int
    count: int
    total: int


@dataclass(frozen=True, slots=True)
class BatchDeleted:
    """A batch of the owner's records is gone; counts are records."""

    owner_id: str
    number: int
    count: int
    total: int


@dataclass(frozen=True, slots=True)
class DeletesHeld:
    """A fleet run has passed over every owner and now decides on the deletes it kept aside."""

    owners: int
    deletes: int
    managed: int


SyncEvent = (
    StoreCreated
    | StateCreated
    | OwnersBusy
    | RepairStarted
    | BatchWritten
    | BatchDeleted
    | DeletesHeld
)
Listener = Callable[[SyncEvent], None]


def ignore(event: SyncEvent) -> None:
    """The listener that nobody asked for."""
