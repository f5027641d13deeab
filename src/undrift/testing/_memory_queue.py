"""The part of `MemoryState` that says who is to be looked at, and that people ask."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import RLock

from undrift.errors import ConfigError
from undrift.fingerprint import is_storable_id
from undrift.state import (
    AllowDeletes,
    Buried,
    DeleteUsage,
    DirtyOwner,
    ScrubTurn,
    SeenWorker,
    StateSummary,
    WorkerReport,
)
from undrift.testing._memory_rows import DAY_SECONDS, EntityRecord, Lease, OwnerRecord, Tables


class MemoryQueue:
    """Who is dirty, who verifies whom, what was deleted, in memory.

    Args:
        clock: seconds; may jump either way.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = RLock()
        self._tables: Tables | None = None

    # --- who is to be looked at

    def mark(self, owners: Sequence[str], *, priority: int = 0) -> None:
        """Raise the generation of *owners*."""
        with self._lock:
            for owner_id in filter(is_storable_id, owners):
                owner = self._open.known(owner_id)
                self._open.mark(owner, self._clock())
                owner.priority = max(owner.priority, priority)

    def mark_everyone(self, *, again_after_seconds: float | None = None) -> None:
        """Make everybody dirty, and once more later."""
        with self._lock:
            now, tables = self._clock(), self._open
            if again_after_seconds is not None:
                if tables.again_at is not None:
                    return
                tables.again_at = now + again_after_seconds
            tables.begin_round(now)

    def claim_dirty(self, holder: str, limit: int, seconds: float) -> Sequence[DirtyOwner]:
        """Lease dirty owners that are free and due."""
        with self._lock:
            now, tables = self._clock(), self._open
            if tables.again_at is not None and tables.again_at <= now:
                tables.again_at = None
                tables.begin_round(now)
            waiting = []
            for owner_id, owner in tables.owners.items():
                since = owner.dirty_from(tables.standing.round, now)
                is_free = not tables.holder(owner_id, now)
                if since is not None and is_free and owner.next_attempt_at <= now:
                    waiting.append((-owner.priority, since, owner_id))
            claimed = sorted(waiting)[:limit]
            return [
                self._claimed(owner_id, since, holder, seconds) for _, since, owner_id in claimed
            ]

    def _claimed(self, owner_id: str, since: float, holder: str, seconds: float) -> DirtyOwner:
        now, owner = self._clock(), self._open.owners[owner_id]
        self._open.leases[owner_id] = Lease(holder, now + seconds)
        if owner.suspect_until is not None and owner.suspect_until <= now:
            # From here on only a sync that begins now or later can answer for it.
            owner.suspect_until = None
            self._open.mark(owner, now)
        return DirtyOwner(owner_id, owner.attempts, max(0.0, now - since))

    def dirty_owners(self, limit: int, after: str | None = None) -> Sequence[str]:
        """Dirty owners behind *after*, by code point, whoever has them."""
        with self._lock:
            now, tables = self._clock(), self._open
            is_due_again = tables.again_at is not None and tables.again_at <= now
            round_ = tables.standing.round + is_due_again
            found = sorted(
                owner_id
                for owner_id, owner in tables.owners.items()
                if (after is None or owner_id > after) and owner.dirty_from(round_, now) is not None
            )
            return found[:limit]

    def settled_owners(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Those of *owners* of whom nothing is left to do, with their live entities."""
        with self._lock:
            now, tables = self._clock(), self._open
            is_due_again = tables.again_at is not None and tables.again_at <= now
            round_ = tables.standing.round + is_due_again
            found: dict[str, int] = {}
            for owner_id in owners:
                owner, lease = tables.owners.get(owner_id), tables.leases.get(owner_id)
                if owner is None or not owner.is_settled(round_):
                    continue
                if lease is None or lease.until <= now:
                    found[owner_id] = owner.live
            return found

    def stale_owners(self, owners: Sequence[str], seconds: float) -> Sequence[str]:
        """Those of *owners* that were not verified within *seconds*."""
        with self._lock:
            oldest = self._clock() - seconds
            known = self._open.owners
            return [
                owner_id
                for owner_id in owners
                if owner_id not in known
                or (verified_at := known[owner_id].verified_at) is None
                or verified_at < oldest
            ]

    def scrub_turn(self, holder: str, seconds: float) -> ScrubTurn | None:
        """Lease the scrub."""
        with self._lock:
            now, tables = self._clock(), self._open
            if tables.scrub_holder not in ("", holder) and tables.scrub_until > now:
                return None
            tables.scrub_holder, tables.scrub_until = holder, now + seconds
            began_at = tables.scrub_began_at
            ago = math.inf if began_at is None else max(0.0, now - began_at)
            return tables.scrub._replace(began_seconds=ago)

    def scrubbed(self, holder: str, after: str | None, *, is_second_side: bool) -> None:
        """Remember how far the scrub is."""
        with self._lock:
            tables = self._open
            if tables.scrub_holder != holder:
                return
            tables.scrub = ScrubTurn(after, is_second_side, 0.0)
            is_new_pass = after is None and not is_second_side
            if is_new_pass or tables.scrub_began_at is None:
                tables.scrub_began_at = self._clock()

    # --- safety, housekeeping, people

    def spend_deletes(self, planned: Mapping[str, int], allow: AllowDeletes) -> str | None:
        """Count deletes, if *allow* lets them pass."""
        with self._lock:
            reason, now = allow(self._usage()), self._clock()
            self._open.refused_at = None if reason is None else now
            if reason is None:
                self._open.deletes.append((now, dict(planned)))
            return reason

    def _usage(self) -> DeleteUsage:
        since = self._clock() - DAY_SECONDS
        spent: Counter[str] = Counter()
        for at, kinds in self._open.deletes:
            if at > since:
                spent.update(kinds)
        managed = Counter(
            entity.row.kind
            for owner in self._open.owners.values()
            for entity in owner.entities.values()
            if entity.deleted_at is None
            or entity.deleted_at > since
            or entity.row.published_version != entity.row.version
        )
        return DeleteUsage(spent=dict(spent), managed=dict(managed))

    def buried(self, older_than_seconds: float, limit: int) -> Sequence[Buried]:
        """Rows of entities that have been deleted for longer."""
        with self._lock:
            oldest = self._clock() - older_than_seconds
            found = sorted(
                Buried(owner_id, *entity.row.identity, entity.row.version)
                for owner_id, owner in self._open.owners.items()
                for entity in owner.entities.values()
                if entity.deleted_at is not None and entity.deleted_at < oldest
            )
            return found[:limit]

    def forget(self, rows: Sequence[Buried]) -> None:
        """Remove rows that are still deleted and of that version."""
        with self._lock:
            for owner_id, kind, entity_id, version in rows:
                entity = self._entity(owner_id, kind, entity_id)
                if entity is not None and entity.row.is_deleted and entity.row.version == version:
                    owner = self._open.owners[owner_id]
                    owner.floor = max(owner.floor, version)
                    del owner.entities[kind, entity_id]

    def report_worker(self, report: WorkerReport) -> None:
        """Say that a worker is alive."""
        with self._lock:
            now = self._clock()
            started_at, _, _ = self._open.workers.get(report.worker_id, (now, now, report))
            self._open.workers[report.worker_id] = (started_at, now, report)

    def worker_left(self, worker_id: str) -> None:
        """Say that a worker has ended."""
        with self._lock:
            self._open.workers.pop(worker_id, None)

    def summary(self) -> StateSummary:
        """The state in numbers."""
        with self._lock:
            now, tables = self._clock(), self._open
            owners = tables.owners.values()
            dirty = [
                since
                for owner in owners
                if (since := owner.dirty_from(tables.standing.round, now)) is not None
            ]
            refused_at = tables.refused_at
            failing = [owner for owner in owners if owner.attempts]
            live = [entity for _, entity in tables.live()]
            times = [tables.owners[owner_id].verified_at for owner_id, _ in tables.live()]
            never_verified = sum(owner.verified_at is None for owner in owners)
            verified = [at for at in times if at is not None] if not never_verified else []
            return StateSummary(
                standing=tables.standing,
                owners=len(owners),
                dirty=len(dirty),
                oldest_dirty_seconds=max(0.0, now - min(dirty)) if dirty else None,
                failing=len(failing),
                last_error=max(failing, key=lambda owner: owner.failed_at).last_error
                if failing
                else "",
                entities=len(live),
                published=sum(e.row.published_version == e.row.version for e in live),
                parked=sum(e.is_parked for owner in owners for e in owner.entities.values()),
                unverified_seconds=max(0.0, now - min(verified)) if verified else None,
                never_verified=never_verified,
                usage=self._usage(),
                deletes_waiting=refused_at is not None and now - refused_at <= DAY_SECONDS,
                workers=self._seen_workers(now),
            )

    def _seen_workers(self, now: float) -> list[SeenWorker]:
        return [
            SeenWorker(report, max(0.0, now - started_at), max(0.0, now - seen_at))
            for started_at, seen_at, report in self._open.workers.values()
            if now - seen_at <= DAY_SECONDS
        ]

    # --- parts

    @property
    def _open(self) -> Tables:
        if self._tables is None:
            raise ConfigError(
                "There is no state",
                why="it has not been created, or was lost.",
                fix="run `undrift sync`, which creates it",
            )
        return self._tables

    def _known(self, owners: Iterable[str]) -> Iterator[OwnerRecord]:
        known = self._open.owners
        return (known[owner_id] for owner_id in owners if owner_id in known)

    def _entity(self, owner_id: str, kind: str, entity_id: str) -> EntityRecord | None:
        owner = self._open.owners.get(owner_id)
        return owner.entities.get((kind, entity_id)) if owner is not None else None
