"""A vector store in memory behind a network: what is sent may land now, later, twice or never."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from undrift.model import Stamp
from undrift.ports import (
    Capabilities,
    Deletion,
    Match,
    Record,
    StoreClass,
    StoreInfo,
    Vectors,
)
from undrift.state import Claim, Expected, Fence, Tombstone

NAMESPACE = "default"


class Stored(NamedTuple):
    """What lies under one vector_id; a tombstone has no vector and is found by nothing."""

    stamp: Stamp
    text: str
    metadata_json: str
    is_tombstone: bool


class Watcher(Protocol):
    """Hears of every change."""

    def changed(
        self, sender: object, vector_id: str, before: Stored | None, after: Stored | None
    ) -> None:
        """*sender* made *after* of *before*; None is nothing."""


Change = Record | Deletion | Tombstone


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A call on its way.

    Attributes:
        sender: whoever sent it, for the watcher.
        expected: with a fence, what the state must still say.
    """

    sender: object
    changes: Sequence[Change]
    expected: Sequence[Expected] = ()
    fence: Fence | None = None

    def __str__(self) -> str:
        return ", ".join(_described(change) for change in self.changes)


class SimulatedStore:
    """The store itself. Its clients are in `undrift.testing.simulation.ports`.

    In class N a request lands as it is, whatever is stored; its client looked before it sent.

    Attributes:
        records: by vector_id, tombstones too.
        in_flight: requests whose senders wait no longer.
    """

    def __init__(self, store_class: StoreClass, watcher: Watcher) -> None:
        self.store_class = store_class
        self._watcher = watcher
        self.records: dict[str, Stored] = {}
        self.in_flight: list[Request] = []
        self.claimed: Claim | None = None

    @property
    def live(self) -> Iterator[Stored]:
        """Every record that a search can find."""
        return (s for s in self.records.values() if not s.is_tombstone and s.stamp.model)

    def land(self, request: Request) -> frozenset[str]:
        """Apply *request*; the owners that the fence left out."""
        fence = request.fence
        left_out = fence.hold(None, request.expected) if fence is not None else frozenset()
        for change in request.changes:
            if _owner_of(change) not in left_out:
                self._apply(request.sender, change)
        if fence is not None:
            fence.published(None, [e for e in request.expected if e.owner_id not in left_out])
        return left_out

    def refuses(self, change: Change) -> bool:
        """Whether what is stored now keeps *change* out."""
        stored = self.records.get(_vector_id_of(change))
        if isinstance(change, Deletion):
            return (
                stored is None
                or stored.is_tombstone
                or (stored.stamp.owner_id, stored.stamp.version)
                != (change.owner_id, change.version)
            )
        version = change.version if isinstance(change, Tombstone) else change.stamp.version
        return (stored is not None and stored.stamp.version >= version) or self._lacks_vector(
            change, stored
        )

    def _lacks_vector(self, change: Change, stored: Stored | None) -> bool:
        """Whether *change* is to keep a vector that is not there."""
        if not isinstance(change, Record) or change.embedding is not None:
            return False
        kept = stored.stamp if stored is not None and not stored.is_tombstone else None
        return kept is None or (kept.text_hash, kept.model) != (
            change.stamp.text_hash,
            change.stamp.model,
        )

    def _apply(self, sender: object, change: Change) -> None:
        vector_id = _vector_id_of(change)
        before = self.records.get(vector_id)
        if self.store_class is StoreClass.NEITHER:
            if self._lacks_vector(change, before):
                return
        elif self.refuses(change):
            return
        self.put(sender, vector_id, _stored(change))

    def put(self, sender: object, vector_id: str, after: Stored | None) -> None:
        """Make *after* what lies under *vector_id*."""
        before = self.records.get(vector_id)
        if after is None:
            self.records.pop(vector_id, None)
        else:
            self.records[vector_id] = after
        if before != after:
            self._watcher.changed(sender, vector_id, before, after)

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones of just these versions."""
        for stone in tombstones:
            stored = self.records.get(stone.vector_id)
            if stored is not None and stored.is_tombstone and stored.stamp.version == stone.version:
                del self.records[stone.vector_id]


def _described(change: Change) -> str:
    if isinstance(change, Deletion):
        return f"delete {change.vector_id[:4]} v{change.version}"
    if isinstance(change, Tombstone):
        return f"bury {change.kind}:{change.entity_id} v{change.version}"
    stamp, how = change.stamp, "write" if change.embedding is not None else "restamp"
    return f"{how} {stamp.kind}:{stamp.entity_id} v{stamp.version} {stamp.fingerprint[:4]}"


def _vector_id_of(change: Change) -> str:
    return change.stamp.vector_id if isinstance(change, Record) else change.vector_id


def _owner_of(change: Change) -> str:
    return change.stamp.owner_id if isinstance(change, Record) else change.owner_id


def _stored(change: Change) -> Stored | None:
    if isinstance(change, Deletion):
        return None
    if isinstance(change, Record):
        return Stored(change.stamp, change.text, change.metadata_json, is_tombstone=False)
    stamp = Stamp(
        change.vector_id,
        NAMESPACE,
        change.owner_id,
        change.kind,
        change.entity_id,
        fingerprint="",
        text_hash="",
        model="",
        version=change.version,
    )
    return Stored(stamp, "", "{}", is_tombstone=True)


class StoreReader:
    """The reading half of a client: what the store says at this very moment."""

    def __init__(self, store: SimulatedStore) -> None:
        self.store = store

    @property
    def namespace(self) -> str:
        """The only one."""
        return NAMESPACE

    @property
    def capabilities(self) -> Capabilities:
        """What the class promises."""
        is_fenced = self.store.store_class is not StoreClass.NEITHER
        return Capabilities(
            store_class=self.store.store_class,
            atomic_records=1_000_000 if is_fenced else 0,
            why_not={} if is_fenced else {"atomic_records": "it is the worst of stores"},
        )

    def describe(self) -> StoreInfo:
        """It is always there."""
        return StoreInfo(
            location="simulated:", exists=True, dimension=None, change_dimension="nothing"
        )

    def ddl(self, dimension: int) -> Sequence[str]:
        """Nothing is run."""
        return ()

    def create(self, dimension: int) -> None:
        """It is always there."""

    def stamps_of(self, owners: Sequence[str]) -> list[Stamp]:
        """The stamps of *owners*."""
        asked = set(owners)
        return [
            s.stamp
            for s in self.store.records.values()
            if s.stamp.owner_id in asked and not s.is_tombstone
        ]

    def tombstones_of(self, owners: Sequence[str]) -> list[Tombstone]:
        """The tombstones of *owners*."""
        asked = set(owners)
        return [
            Tombstone(s.vector_id, s.owner_id, s.kind, s.entity_id, s.version)
            for s, _, _, is_tombstone in self.store.records.values()
            if s.owner_id in asked and is_tombstone
        ]

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """The stamps under *vector_ids*."""
        found = (self.store.records.get(vector_id) for vector_id in vector_ids)
        return iter([s.stamp for s in found if s is not None and not s.is_tombstone])

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """There are none."""
        return {}

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """Owners of records."""
        found = {s.stamp.owner_id for s in self.store.records.values() if not s.is_tombstone}
        return sorted(owner for owner in found if after is None or owner > after)[:limit]

    def search(
        self,
        owner_id: str,
        vector: Vectors,
        *,
        model: str,
        kinds: Sequence[str] | None,
        limit: int,
    ) -> Sequence[Match]:
        """All of the owner's records; which are nearest is nothing to a simulation."""
        found = [s for s in self.store.live if s.stamp.owner_id == owner_id]
        return [Match(s.stamp, 1.0, s.text, s.metadata_json) for s in found[:limit]]

    def close(self) -> None:
        """There is nothing to give back."""
