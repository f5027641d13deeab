"""What a sync, or a check of everybody, tells while it works, for whoever shows or logs it.

Events are told after the fact: the store has taken the batch, durably. Records that a newer version
kept from being written are in it all the same; only the report counts what was read back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from undrift.model import Outcome, Read


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
class TextsEmbedded:
    """A batch of texts has been embedded, and paid for; tokens are an estimate."""

    texts: int
    tokens: int


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


@dataclass(frozen=True, slots=True)
class CheckStarted:
    """A check of everybody, or of a part, begins.

    Attributes:
        read: what it reads.
        outcomes: owners that an earlier run was done with, where this one takes it up.
        began_seconds: how long ago that run began; None where none is taken up.
        is_saved: where it is, is saved as it goes, so that another run can take it up.
    """

    read: Read
    outcomes: Mapping[Outcome, int]
    began_seconds: float | None = None
    is_saved: bool = False


@dataclass(frozen=True, slots=True)
class CheckPaused:
    """The time is up, and so many owners are done; the next run goes on."""

    owners: int


@dataclass(frozen=True, slots=True)
class TriggersAmiss:
    """A check goes by the marks of the source's triggers, and those do not see every change.

    Attributes:
        problems: what is missing, or cannot be watched, a sentence each.
    """

    problems: Sequence[str]


@dataclass(frozen=True, slots=True)
class EverybodyMarked:
    """A mark says that anybody may have been changed, so the check is one of everybody."""


SyncEvent = (
    StoreCreated
    | StateCreated
    | OwnersBusy
    | RepairStarted
    | TextsEmbedded
    | BatchWritten
    | BatchDeleted
    | DeletesHeld
    | CheckStarted
    | CheckPaused
    | TriggersAmiss
    | EverybodyMarked
)
Listener = Callable[[SyncEvent], None]


def ignore(event: SyncEvent) -> None:
    """The listener that nobody asked for."""
