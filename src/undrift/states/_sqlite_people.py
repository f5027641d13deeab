"""What a state in SQLite tells people, counts for safety, and follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from undrift.errors import UndriftError
from undrift.state import (
    AllowDeletes,
    DeleteUsage,
    SeenWorker,
    Standing,
    StateSummary,
    WorkerReport,
)
from undrift.states._meaning import NOT_CREATED
from undrift.states._sqlite_session import Session
from undrift.states._values import BUDGET_SECONDS, DAY_SECONDS, entered

_STANDING = """
SELECT state_id, epoch, config, round FROM undrift_state_standing WHERE scope = :scope"""
_WAS_CURRENT = "SELECT 1 FROM undrift_state_config WHERE scope = :scope AND config = :config"
_ADD_CONFIG = """
INSERT INTO undrift_state_config (scope, config, epoch) VALUES (:scope, :config, :epoch)
ON CONFLICT (scope, config) DO UPDATE SET epoch = excluded.epoch"""
_ENTER = """
UPDATE undrift_state_standing SET
    config = :config, epoch = :epoch, round = :round,
    round_at = CASE WHEN round < :round THEN :now ELSE round_at END
WHERE scope = :scope"""

_SPENT = """
SELECT kind, sum(records) FROM undrift_state_delete
WHERE scope = :scope AND minute_at > :now - :day - :minute GROUP BY kind"""
_MANAGED = """
SELECT kind, sum(records) FROM (
    SELECT kind, live AS records FROM undrift_kind_state WHERE scope = :scope
    UNION ALL
    SELECT kind, 1 FROM undrift_entity_state INDEXED BY undrift_entity_state_deleted
    WHERE scope = :scope AND deleted = 1
      AND (deleted_at > :now - :day OR published_version < version)
) GROUP BY kind HAVING sum(records) > 0"""
_SPEND = """
INSERT INTO undrift_state_delete (scope, kind, minute_at, records)
VALUES (:scope, :kind, :minute_at, :records)
ON CONFLICT (scope, kind, minute_at) DO UPDATE SET records = records + excluded.records"""
_DROP_SPENT = """
DELETE FROM undrift_state_delete WHERE scope = :scope AND minute_at <= :now - :day - :minute"""
_REFUSED = "UPDATE undrift_state_standing SET refused_at = :at WHERE scope = :scope"
_WAITS = "SELECT refused_at > :now - :day FROM undrift_state_standing WHERE scope = :scope"

_REPORT = """
INSERT INTO undrift_state_worker (
    scope, worker_id, owners, failures, embedded, written, deleted, started_at, seen_at)
VALUES (:scope, :worker_id, :owners, :failures, :embedded, :written, :deleted, :now, :now)
ON CONFLICT (scope, worker_id) DO UPDATE SET
    owners = excluded.owners, failures = excluded.failures, embedded = excluded.embedded,
    written = excluded.written, deleted = excluded.deleted, seen_at = excluded.seen_at"""
_DROP_WORKERS = "DELETE FROM undrift_state_worker WHERE scope = :scope AND seen_at < :now - :day"
_LEFT = "DELETE FROM undrift_state_worker WHERE scope = :scope AND worker_id = :worker_id"
_WORKERS = """
SELECT worker_id, owners, failures, embedded, written, deleted,
       max(0.0, :now - started_at), max(0.0, :now - seen_at)
FROM undrift_state_worker WHERE scope = :scope AND seen_at >= :now - :day ORDER BY worker_id"""

_OWNERS = """
WITH parked AS (
    SELECT owner_id, min(parked_until) AS due
    FROM undrift_entity_state INDEXED BY undrift_entity_state_parked
    WHERE scope = :scope AND parked_until <= :now GROUP BY owner_id
), seen AS (
    SELECT owner.*, min(
        coalesce(dirty_since, 9e99),
        CASE WHEN round < :round THEN :round_at ELSE 9e99 END,
        CASE WHEN suspect_until <= :now THEN suspect_until ELSE 9e99 END,
        coalesce(parked.due, 9e99)) AS waits_since
    FROM undrift_owner_state AS owner LEFT JOIN parked ON parked.owner_id = owner.owner_id
    WHERE owner.scope = :scope AND is_known = 1
)
SELECT count(*), coalesce(sum(waits_since < 9e99), 0),
       :now - min(CASE WHEN waits_since < 9e99 THEN waits_since END),
       coalesce(sum(attempts > 0), 0), coalesce(sum(verified_at IS NULL), 0),
       :now - min(CASE WHEN live > 0 THEN verified_at END)
FROM seen"""
_ROUND_AT = "SELECT round_at FROM undrift_state_standing WHERE scope = :scope"
_LAST_ERROR = """
SELECT last_error FROM undrift_owner_state WHERE scope = :scope AND attempts > 0
ORDER BY last_error_at DESC LIMIT 1"""
_ENTITIES = """
SELECT coalesce(sum(deleted = 0), 0),
       coalesce(sum(deleted = 0 AND published_version = version), 0),
       coalesce(sum(parked_until IS NOT NULL), 0)
FROM undrift_entity_state WHERE scope = :scope"""


# --- which state it is


def standing(session: Session, location: str) -> Standing:
    """Which state this is.

    Raises:
        ConfigError: it has not been created.
    """
    row = session.row(_STANDING)
    if row is None:
        raise missing(location)
    return Standing(*row)


def missing(location: str) -> UndriftError:
    """There are tables, but this scope's state is not in them."""
    return NOT_CREATED.error(location, "it holds no state for this store")


def enter(
    session: Session, before: Standing, config: str, above_epoch: int, *, is_adopted: bool
) -> Standing:
    """Begin to write under *config*, unless it is superseded."""
    was_current = session.row(_WAS_CURRENT, config=config) is not None
    after = entered(before, config, above_epoch, was_current=was_current, is_adopted=is_adopted)
    if after != before:
        session.run(_ADD_CONFIG, config=config, epoch=after.epoch)
        session.run(_ENTER, config=config, epoch=after.epoch, round=after.round)
    return after


# --- the delete budget


def spend(session: Session, planned: Mapping[str, int], allow: AllowDeletes) -> str | None:
    """Count *planned*, if *allow* lets them pass."""
    reason = allow(usage(session))
    session.run(_REFUSED, at=None if reason is None else session.now)
    if reason is None:
        session.run(_DROP_SPENT, day=DAY_SECONDS, minute=BUDGET_SECONDS)
        minute_at = session.now // BUDGET_SECONDS * BUDGET_SECONDS
        session.run_each(
            _SPEND,
            (
                {"kind": kind, "minute_at": minute_at, "records": records}
                for kind, records in planned.items()
                if records
            ),
        )
    return reason


def usage(session: Session) -> DeleteUsage:
    """What was deleted within a day, and what there was to delete."""
    spent = session.rows(_SPENT, day=DAY_SECONDS, minute=BUDGET_SECONDS)
    managed = session.rows(_MANAGED, day=DAY_SECONDS)
    return DeleteUsage(spent=dict(spent), managed=dict(managed))


# --- workers


def report(session: Session, worker: WorkerReport) -> None:
    """Remember that a worker is alive, and forget those that have long been gone."""
    session.run(_REPORT, **asdict(worker))
    session.run(_DROP_WORKERS, day=DAY_SECONDS)


def left(session: Session, worker_id: str) -> None:
    """Forget a worker."""
    session.run(_LEFT, worker_id=worker_id)


def _workers(session: Session) -> list[SeenWorker]:
    found = []
    for worker_id, *counts, started, seen in session.rows(_WORKERS, day=DAY_SECONDS):
        numbers = dict(
            zip(("owners", "failures", "embedded", "written", "deleted"), counts, strict=True)
        )
        worker = WorkerReport(worker_id=worker_id, **numbers)
        found.append(SeenWorker(worker, started, seen))
    return found


# --- the summary


def summary(session: Session, current: Standing) -> StateSummary:
    """The state in numbers; the session is a transaction, so it is one moment."""
    ((round_at,),) = session.rows(_ROUND_AT)
    ((owners, dirty, oldest, failing, never, unverified),) = session.rows(
        _OWNERS, round=current.round, round_at=round_at
    )
    ((entities, published, parked),) = session.rows(_ENTITIES)
    ((is_waiting,),) = session.rows(_WAITS, day=DAY_SECONDS)
    last_error = session.row(_LAST_ERROR)
    return StateSummary(
        standing=current,
        owners=owners,
        dirty=dirty,
        oldest_dirty_seconds=None if oldest is None else max(0.0, oldest),
        failing=failing,
        last_error=last_error[0] if last_error else "",
        entities=entities,
        published=published,
        parked=parked,
        unverified_seconds=None if never or unverified is None else max(0.0, unverified),
        never_verified=never,
        usage=usage(session),
        deletes_waiting=bool(is_waiting),
        workers=_workers(session),
    )
