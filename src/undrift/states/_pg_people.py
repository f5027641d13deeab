"""What a state in PostgreSQL tells people, counts for safety, and follows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import LiteralString

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
from undrift.states._pg_session import Session
from undrift.states._values import BUDGET_SECONDS, DAY_SECONDS, entered

_STANDING: LiteralString = """
SELECT state_id, epoch, config, round FROM {state_standing} WHERE scope = %(scope)s"""
_LOCK_STANDING: LiteralString = _STANDING + " FOR UPDATE"
_WAS_CURRENT: LiteralString = """
SELECT 1 FROM {state_config} WHERE scope = %(scope)s AND config = %(config)s"""
_ADD_CONFIG: LiteralString = """
INSERT INTO {state_config} (scope, config, epoch) VALUES (%(scope)s, %(config)s, %(epoch)s)
ON CONFLICT (scope, config) DO UPDATE SET epoch = excluded.epoch"""
_ENTER: LiteralString = """
UPDATE {state_standing} SET
    config = %(config)s, epoch = %(epoch)s, round = %(round)s,
    round_at = CASE WHEN round < %(round)s THEN now() ELSE round_at END
WHERE scope = %(scope)s"""

_SPENT: LiteralString = """
SELECT kind, sum(records)::bigint FROM {state_delete}
WHERE scope = %(scope)s AND minute_at > now() - make_interval(secs => %(seconds)s) GROUP BY kind"""
_MANAGED: LiteralString = """
SELECT kind, sum(records)::bigint FROM (
    SELECT kind, live AS records FROM {kind_state} WHERE scope = %(scope)s
    UNION ALL
    SELECT kind, 1 FROM {entity_state}
    WHERE scope = %(scope)s AND deleted
      AND (deleted_at > now() - make_interval(secs => %(seconds)s) OR published_version < version)
) AS parts GROUP BY kind HAVING sum(records) > 0"""
_SPEND: LiteralString = """
INSERT INTO {state_delete} AS spent (scope, kind, minute_at, records)
SELECT %(scope)s, kind, date_trunc('minute', now()), records
FROM unnest(%(kinds)b::text[], %(records)b::bigint[]) AS planned (kind, records)
ON CONFLICT (scope, kind, minute_at) DO UPDATE SET records = spent.records + excluded.records"""
_DROP_SPENT: LiteralString = """
DELETE FROM {state_delete}
WHERE scope = %(scope)s AND minute_at <= now() - make_interval(secs => %(seconds)s)"""
_REFUSED: LiteralString = """
UPDATE {state_standing} SET refused_at = CASE WHEN %(is_refused)s THEN now() END
WHERE scope = %(scope)s"""

# Others may report at the same time: what they remove is left to them.
_DROP_WORKERS: LiteralString = """
DELETE FROM {state_worker} AS worker USING (
    SELECT worker_id FROM {state_worker}
    WHERE scope = %(scope)s AND seen_at < now() - make_interval(secs => %(seconds)s)
    FOR UPDATE SKIP LOCKED
) AS old WHERE worker.scope = %(scope)s AND worker.worker_id = old.worker_id"""
_REPORT: LiteralString = """
INSERT INTO {state_worker} (
    scope, worker_id, owners, failures, embedded, written, deleted, started_at, seen_at)
VALUES (%(scope)s, %(worker_id)s, %(owners)s, %(failures)s, %(embedded)s, %(written)s,
        %(deleted)s, now(), now())
ON CONFLICT (scope, worker_id) DO UPDATE SET
    owners = excluded.owners, failures = excluded.failures, embedded = excluded.embedded,
    written = excluded.written, deleted = excluded.deleted, seen_at = excluded.seen_at"""
_LEFT: LiteralString = """
DELETE FROM {state_worker} WHERE scope = %(scope)s AND worker_id = %(worker_id)s"""
_WORKERS: LiteralString = """
SELECT worker_id, owners, failures, embedded, written, deleted,
       greatest(0, extract(epoch FROM now() - started_at))::float8,
       greatest(0, extract(epoch FROM now() - seen_at))::float8
FROM {state_worker}
WHERE scope = %(scope)s AND seen_at >= now() - make_interval(secs => %(seconds)s)
ORDER BY worker_id"""

_ONE_MOMENT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
_OWNERS: LiteralString = """
WITH due AS (
    SELECT owner_id, min(parked_until) AS since FROM {entity_state}
    WHERE scope = %(scope)s AND parked_until <= now() GROUP BY owner_id
), seen AS (
    SELECT owner.*, least(
        owner.dirty_since,
        CASE WHEN owner.round < standing.round THEN standing.round_at END,
        CASE WHEN owner.suspect_until <= now() THEN owner.suspect_until END,
        due.since) AS since
    FROM {state_standing} AS standing
    JOIN {owner_state} AS owner USING (scope)
    LEFT JOIN due USING (owner_id)
    WHERE scope = %(scope)s AND owner.is_known
)
SELECT count(*), count(since), extract(epoch FROM now() - min(since))::float8,
       count(*) FILTER (WHERE attempts > 0), count(*) FILTER (WHERE verified_at IS NULL),
       extract(epoch FROM now() - min(verified_at) FILTER (WHERE live > 0))::float8,
       coalesce((array_agg(last_error ORDER BY last_error_at DESC) FILTER (WHERE attempts > 0))[1],
                '')
FROM seen"""
_ENTITIES: LiteralString = """
SELECT count(*) FILTER (WHERE NOT deleted),
       count(*) FILTER (WHERE NOT deleted AND published_version = version), count(parked_until)
FROM {entity_state} WHERE scope = %(scope)s"""
_WAITS: LiteralString = """
SELECT refused_at > now() - make_interval(secs => %(seconds)s) IS TRUE
FROM {state_standing} WHERE scope = %(scope)s"""


# --- which state it is


def standing(session: Session, location: str, *, locked: bool = False) -> Standing:
    """Which state this is.

    Args:
        locked: nobody else can change it until the transaction ends.

    Raises:
        ConfigError: it has not been created.
    """
    row = session.row(_LOCK_STANDING if locked else _STANDING)
    if row is None:
        raise missing(location)
    return Standing(*row)


def missing(location: str) -> UndriftError:
    """There are tables, but this scope's state is not in them."""
    return NOT_CREATED.error(location, "it holds no state for this store")


def enter(
    session: Session, before: Standing, config: str, above_epoch: int, *, is_adopted: bool
) -> Standing:
    """Begin to write under *config*, unless it is superseded; the standing is locked."""
    was_current = session.row(_WAS_CURRENT, config=config) is not None
    after = entered(before, config, above_epoch, was_current=was_current, is_adopted=is_adopted)
    if after != before:
        session.run(_ADD_CONFIG, config=config, epoch=after.epoch)
        session.run(_ENTER, config=config, epoch=after.epoch, round=after.round)
    return after


# --- the delete budget


def spend(session: Session, planned: Mapping[str, int], allow: AllowDeletes) -> str | None:
    """Count *planned*, if *allow* lets them pass; the standing is locked."""
    reason = allow(usage(session))
    session.run(_REFUSED, is_refused=reason is not None)
    wanted = {kind: records for kind, records in sorted(planned.items()) if records}
    if reason is None and wanted:
        session.run(_DROP_SPENT, seconds=DAY_SECONDS + BUDGET_SECONDS)
        session.run(_SPEND, kinds=list(wanted), records=list(wanted.values()))
    return reason


def usage(session: Session) -> DeleteUsage:
    """What was deleted within a day, and what there was to delete."""
    spent = session.rows(_SPENT, seconds=DAY_SECONDS + BUDGET_SECONDS)
    return DeleteUsage(spent=dict(spent), managed=dict(session.rows(_MANAGED, seconds=DAY_SECONDS)))


# --- workers


def report(session: Session, worker: WorkerReport) -> None:
    """Remember that a worker is alive, and forget those that have long been gone."""
    session.run(_REPORT, **asdict(worker))
    session.run(_DROP_WORKERS, seconds=DAY_SECONDS)


def left(session: Session, worker_id: str) -> None:
    """Forget a worker."""
    session.run(_LEFT, worker_id=worker_id)


def _workers(session: Session) -> list[SeenWorker]:
    names = ("worker_id", "owners", "failures", "embedded", "written", "deleted")
    return [
        SeenWorker(WorkerReport(**dict(zip(names, said, strict=True))), started, seen)
        for *said, started, seen in session.rows(_WORKERS, seconds=DAY_SECONDS)
    ]


# --- the summary


def summary(session: Session, location: str) -> StateSummary:
    """The state in numbers; within a transaction, of which it makes one moment."""
    session.connection.execute(_ONE_MOMENT)
    current = standing(session, location)
    ((owners, dirty, oldest, failing, never, unverified, last_error),) = session.rows(_OWNERS)
    ((entities, published, parked),) = session.rows(_ENTITIES)
    ((is_waiting,),) = session.rows(_WAITS, seconds=DAY_SECONDS)
    return StateSummary(
        standing=current,
        owners=owners,
        dirty=dirty,
        oldest_dirty_seconds=None if oldest is None else max(0.0, oldest),
        failing=failing,
        last_error=last_error,
        entities=entities,
        published=published,
        parked=parked,
        unverified_seconds=None if never or unverified is None else max(0.0, unverified),
        never_verified=never,
        usage=usage(session),
        deletes_waiting=is_waiting,
        workers=_workers(session),
    )
