"""Whom a state in PostgreSQL gives out: leases, marks, rounds, doubts, failures, the scrub.

Owners are locked by code point: ``INSERT … SELECT … ORDER BY … ON CONFLICT`` does so in the order
of its rows, and ``SELECT … ORDER BY … FOR UPDATE`` in the order of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import LiteralString

from undrift.state import Acknowledgement, DirtyOwner, Failure, ScrubTurn
from undrift.states._pg_session import Session
from undrift.states._values import by_owner, one_line, ordered

# A lease that is somebody else's is written as it was, so that the answer says whose it is now.
_LEASE: LiteralString = """
INSERT INTO {owner_state} AS owner (scope, owner_id, lease_holder, lease_until)
SELECT %(scope)s, owner_id, %(holder)s, now() + make_interval(secs => %(seconds)s)
FROM unnest(%(owners)b::text[]) AS wanted (owner_id) ORDER BY owner_id COLLATE "C"
ON CONFLICT (scope, owner_id) DO UPDATE SET (lease_holder, lease_until) = (
    SELECT CASE WHEN is_free THEN excluded.lease_holder ELSE owner.lease_holder END,
           CASE WHEN is_free THEN excluded.lease_until ELSE owner.lease_until END
    FROM (SELECT owner.lease_until <= now() OR owner.lease_holder = excluded.lease_holder
                 OR owner.lease_holder = ANY(%(over)s::text[]) AS is_free) AS question)
RETURNING owner_id, lease_holder"""
_RENEW: LiteralString = """
WITH held AS (
    SELECT owner_id FROM {owner_state}
    WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[])
      AND lease_holder = %(holder)s AND lease_until > now()
    ORDER BY owner_id FOR UPDATE
)
UPDATE {owner_state} AS owner SET lease_until = now() + make_interval(secs => %(seconds)s)
FROM held WHERE owner.scope = %(scope)s AND owner.owner_id = held.owner_id"""
_RELEASE: LiteralString = """
WITH held AS (
    SELECT owner_id, is_known FROM {owner_state}
    WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[])
      AND lease_holder = %(holder)s
    ORDER BY owner_id FOR UPDATE
), gone AS (
    DELETE FROM {owner_state} AS owner USING held
    WHERE owner.scope = %(scope)s AND owner.owner_id = held.owner_id AND NOT held.is_known
)
UPDATE {owner_state} AS owner SET lease_holder = '', lease_until = '-infinity'
FROM held WHERE owner.scope = %(scope)s AND owner.owner_id = held.owner_id AND held.is_known"""

_MARK: LiteralString = """
INSERT INTO {owner_state} AS owner (
    scope, owner_id, is_known, generation, priority, dirty_since)
SELECT %(scope)s, owner_id, true, 1, %(priority)s, now()
FROM unnest(%(owners)b::text[]) AS marked (owner_id) ORDER BY owner_id COLLATE "C"
ON CONFLICT (scope, owner_id) DO UPDATE SET
    is_known = true,
    generation = owner.generation + 1 + (owner.suspect_until <= now() IS TRUE)::int,
    suspect_until = CASE WHEN owner.suspect_until > now() THEN owner.suspect_until END,
    priority = CASE WHEN owner.dirty_since IS NULL THEN excluded.priority
                    ELSE greatest(owner.priority, excluded.priority) END,
    dirty_since = coalesce(owner.dirty_since, excluded.dirty_since)"""
_LET_TRY: LiteralString = """
UPDATE {owner_state} SET next_attempt_at = '-infinity'
WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[])"""
_BEGIN_ROUND: LiteralString = """
UPDATE {state_standing} SET round = round + 1, round_at = now() WHERE scope = %(scope)s"""
_BEGIN_ROUND_TWICE: LiteralString = """
UPDATE {state_standing} SET
    round = round + 1, round_at = now(), again_at = now() + make_interval(secs => %(seconds)s)
WHERE scope = %(scope)s AND (again_at > now()) IS NOT TRUE"""

_ACKNOWLEDGE: LiteralString = """
INSERT INTO {owner_state} AS owner (
    scope, owner_id, is_known, generation, synced_generation, round, verified_at)
SELECT %(scope)s, owner_id, true, generation, generation, round, now()
FROM unnest(%(owners)b::text[], %(generations)b::bigint[], %(rounds)b::bigint[])
    AS done (owner_id, generation, round)
ORDER BY owner_id COLLATE "C"
ON CONFLICT (scope, owner_id) DO UPDATE SET
    is_known = true,
    generation = greatest(owner.generation, excluded.generation),
    synced_generation = greatest(owner.synced_generation, excluded.generation),
    suspect_until = CASE WHEN owner.suspect_until <= now()
                              AND excluded.generation > owner.generation THEN NULL
                         ELSE owner.suspect_until END,
    round = greatest(owner.round, excluded.round),
    verified_at = excluded.verified_at,
    priority = 0, attempts = 0, last_error = '', last_error_at = NULL,
    next_attempt_at = '-infinity',
    dirty_since = CASE WHEN greatest(owner.generation, excluded.generation)
                            > greatest(owner.synced_generation, excluded.generation)
                       THEN now() END,
    {give_up_lease}"""
_FAIL: LiteralString = """
INSERT INTO {owner_state} AS owner (
    scope, owner_id, is_known, attempts, next_attempt_at, last_error, last_error_at)
SELECT %(scope)s, owner_id, true, 1, now() + make_interval(secs => seconds), error, now()
FROM unnest(%(owners)b::text[], %(errors)b::text[], %(seconds)b::float8[])
    AS failed (owner_id, error, seconds)
ORDER BY owner_id COLLATE "C"
ON CONFLICT (scope, owner_id) DO UPDATE SET
    is_known = true, attempts = owner.attempts + 1,
    next_attempt_at = excluded.next_attempt_at,
    last_error = excluded.last_error, last_error_at = excluded.last_error_at,
    {give_up_lease}"""
_SUSPECT: LiteralString = """
INSERT INTO {owner_state} AS owner (scope, owner_id, is_known, suspect_until)
SELECT %(scope)s, owner_id, true, now() + make_interval(secs => %(seconds)s)
FROM unnest(%(owners)b::text[]) AS suspected (owner_id) ORDER BY owner_id COLLATE "C"
ON CONFLICT (scope, owner_id) DO UPDATE SET
    is_known = true,
    generation = owner.generation + (owner.suspect_until <= now() IS TRUE)::int,
    dirty_since = CASE WHEN owner.suspect_until <= now()
                       THEN coalesce(owner.dirty_since, owner.suspect_until)
                       ELSE owner.dirty_since END,
    suspect_until = greatest(owner.suspect_until, excluded.suspect_until)"""

# Each list of the dirty is in its own order, and read no further than is asked for; owners whose
# last sync failed are in a list of their own, by when they are due, lest everybody pass over them.
# A row that somebody else has just taken is skipped, one that changed meanwhile is looked at anew.
_CLAIM: LiteralString = """
WITH again AS (
    UPDATE {state_standing} SET round = round + 1, round_at = now(), again_at = NULL
    WHERE scope = %(scope)s AND again_at <= now() RETURNING round, round_at
), standing AS (
    SELECT round, round_at FROM again
    UNION ALL
    SELECT round, round_at FROM {state_standing}
    WHERE scope = %(scope)s AND NOT EXISTS (SELECT FROM again)
), marked AS (
    SELECT owner_id, priority, dirty_since AS since FROM {owner_state} AS owner
    WHERE {free} AND dirty_since IS NOT NULL AND next_attempt_at = '-infinity'
    ORDER BY priority DESC, dirty_since LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), passed AS (
    SELECT owner_id, priority, (SELECT round_at FROM standing) AS since FROM {owner_state} AS owner
    WHERE {free} AND is_known AND round < (SELECT round FROM standing)
      AND next_attempt_at = '-infinity'
    ORDER BY round LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), failed AS (
    SELECT owner_id, priority, least(dirty_since, CASE
        WHEN round < (SELECT round FROM standing) THEN (SELECT round_at FROM standing) END) AS since
    FROM {owner_state} AS owner
    WHERE {free} AND next_attempt_at > '-infinity' AND next_attempt_at <= now()
      AND (dirty_since IS NOT NULL OR round < (SELECT round FROM standing))
    ORDER BY next_attempt_at LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), doubted AS (
    SELECT owner_id, priority, suspect_until AS since FROM {owner_state} AS owner
    WHERE {free} AND suspect_until <= now() AND next_attempt_at <= now()
    ORDER BY suspect_until LIMIT %(limit)s FOR UPDATE SKIP LOCKED
), parked AS (
    SELECT owner.owner_id, owner.priority, due.since FROM (
        SELECT owner_id, min(parked_until) AS since FROM {entity_state}
        WHERE scope = %(scope)s AND parked_until <= now() GROUP BY owner_id
    ) AS due JOIN {owner_state} AS owner ON owner.owner_id = due.owner_id
    WHERE {free} AND next_attempt_at <= now()
    ORDER BY due.since LIMIT %(limit)s FOR UPDATE OF owner SKIP LOCKED
), first AS (
    SELECT owner_id, min(since) AS since FROM (
        SELECT * FROM marked UNION ALL SELECT * FROM passed UNION ALL SELECT * FROM failed
        UNION ALL SELECT * FROM doubted UNION ALL SELECT * FROM parked
    ) AS lists
    GROUP BY owner_id ORDER BY max(priority) DESC, min(since), owner_id LIMIT %(limit)s
)
UPDATE {owner_state} AS owner SET
    lease_holder = %(holder)s, lease_until = now() + make_interval(secs => %(seconds)s),
    generation = owner.generation + (owner.suspect_until <= now() IS TRUE)::int,
    dirty_since = CASE WHEN owner.suspect_until <= now()
                       THEN coalesce(owner.dirty_since, owner.suspect_until)
                       ELSE owner.dirty_since END,
    suspect_until = CASE WHEN owner.suspect_until > now() THEN owner.suspect_until END
FROM first WHERE owner.scope = %(scope)s AND owner.owner_id = first.owner_id
RETURNING owner.owner_id, owner.priority, owner.attempts,
          greatest(0, extract(epoch FROM now() - first.since))::float8"""

# The planner must not read everybody because it takes many for passed over. So the round is a
# parameter, which it compares with its statistics; and where those are old, it is asked first
# whether there is anybody at all.
_CURRENT_ROUND: LiteralString = """
SELECT round + (again_at <= now() IS TRUE)::int FROM {state_standing} WHERE scope = %(scope)s"""
_DIRTY: LiteralString = """
SELECT owner_id FROM (
    SELECT owner_id FROM {owner_state} WHERE scope = %(scope)s
       AND dirty_since IS NOT NULL AND next_attempt_at = '-infinity'
    UNION ALL
    SELECT owner_id FROM {owner_state} WHERE scope = %(scope)s
       AND is_known AND round < %(round)s AND next_attempt_at = '-infinity'
       AND (SELECT round FROM {owner_state} WHERE scope = %(scope)s
            AND is_known AND next_attempt_at = '-infinity' ORDER BY round LIMIT 1) < %(round)s
    UNION ALL
    SELECT owner_id FROM {owner_state} WHERE scope = %(scope)s
       AND next_attempt_at > '-infinity' AND (dirty_since IS NOT NULL OR round < %(round)s)
    UNION ALL
    SELECT owner_id FROM {owner_state} WHERE scope = %(scope)s AND suspect_until <= now()
    UNION ALL
    SELECT owner_id FROM {entity_state} WHERE scope = %(scope)s AND parked_until <= now()
) AS lists
WHERE %(after)s::text IS NULL OR owner_id > %(after)s::text
GROUP BY owner_id ORDER BY owner_id LIMIT %(limit)s"""

_SETTLED: LiteralString = """
SELECT owner.owner_id, count(entity.owner_id) FILTER (WHERE NOT entity.deleted)
FROM {owner_state} AS owner
LEFT JOIN {entity_state} AS entity
  ON entity.scope = %(scope)s AND entity.owner_id = owner.owner_id
WHERE owner.scope = %(scope)s AND owner.owner_id = ANY(%(owners)b::text[])
  AND {free} AND verified_at IS NOT NULL AND dirty_since IS NULL AND suspect_until IS NULL
  AND next_attempt_at = '-infinity' AND round >= (
    SELECT round + (again_at <= now() IS TRUE)::int FROM {state_standing}
    WHERE scope = %(scope)s)
GROUP BY owner.owner_id
HAVING bool_and(published_version >= version AND parked_until IS NULL) IS NOT FALSE"""
_FRESH: LiteralString = """
SELECT owner_id FROM {owner_state}
WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[])
  AND verified_at >= now() - make_interval(secs => %(seconds)s)"""

_TAKE_SCRUB: LiteralString = """
UPDATE {state_standing} SET
    scrub_holder = %(holder)s, scrub_until = now() + make_interval(secs => %(seconds)s)
WHERE scope = %(scope)s AND (scrub_holder = %(holder)s OR scrub_until <= now())
RETURNING scrub_after, scrub_is_second,
          CASE WHEN scrub_began_at IS NULL THEN 'infinity'
               ELSE greatest(0, extract(epoch FROM now() - scrub_began_at)) END::float8"""
_SCRUBBED: LiteralString = """
UPDATE {state_standing} SET
    scrub_after = %(after)s, scrub_is_second = %(is_second_side)s,
    scrub_began_at = CASE WHEN %(is_new)s THEN now() ELSE coalesce(scrub_began_at, now()) END
WHERE scope = %(scope)s AND scrub_holder = %(holder)s"""


# --- leases


def lease(
    session: Session, owners: Sequence[str], holder: str, seconds: float, over: Sequence[str]
) -> Mapping[str, str]:
    """Lease what is to be had, and say who has the others."""
    rows = session.rows(
        _LEASE, owners=ordered(owners), holder=holder, seconds=seconds, over=list(over)
    )
    return {owner_id: other for owner_id, other in rows if other != holder}


def renew(session: Session, owners: Sequence[str], holder: str, seconds: float) -> None:
    """Prolong what *holder* still has."""
    session.run(_RENEW, owners=ordered(owners), holder=holder, seconds=seconds)


def release(session: Session, owners: Iterable[str], holder: str) -> None:
    """Give up what *holder* has, and forget owners of whom nothing else is known."""
    session.run(_RELEASE, owners=ordered(owners), holder=holder)


# --- marks and rounds


def mark(session: Session, owners: Iterable[str], priority: int) -> None:
    """Raise generations."""
    session.run(_MARK, owners=ordered(owners), priority=priority)


def let_try(session: Session, owners: Iterable[str]) -> None:
    """Wait no longer for another try; the owners are locked."""
    session.run(_LET_TRY, owners=ordered(owners))


def mark_everyone(session: Session, again_after_seconds: float | None) -> None:
    """Raise the round, and say when to do so again."""
    if again_after_seconds is None:
        session.run(_BEGIN_ROUND)
    else:
        session.run(_BEGIN_ROUND_TWICE, seconds=again_after_seconds)


# --- ends of syncs


def acknowledge(session: Session, done: Sequence[Acknowledgement], holder: str) -> None:
    """Remember what was answered for, and give up the leases; locks the owners."""
    last = by_owner((each.owner_id, each) for each in done if each.generation is not None)
    if last:
        session.run(
            _ACKNOWLEDGE,
            owners=[each.owner_id for each in last],
            generations=[each.generation for each in last],
            rounds=[each.round for each in last],
            holder=holder,
        )


def fail(session: Session, failures: Sequence[Failure], holder: str) -> None:
    """Remember what happened, wait, and give up the leases."""
    last = by_owner((failure.owner_id, failure) for failure in failures)
    if last:
        session.run(
            _FAIL,
            owners=[each.owner_id for each in last],
            errors=[one_line(each) for each in last],
            seconds=[float(each.delay_seconds) for each in last],
            holder=holder,
        )


def suspect(session: Session, owners: Sequence[str], seconds: float) -> None:
    """Remember until when writes may land."""
    session.run(_SUSPECT, owners=ordered(owners), seconds=seconds)


# --- claims


def claim(session: Session, holder: str, limit: int, seconds: float) -> list[DirtyOwner]:
    """Lease dirty owners to *holder*."""
    rows = session.rows(_CLAIM, holder=holder, limit=limit, seconds=seconds)
    # What an UPDATE returns is in no order.
    found = sorted(rows, key=lambda row: (-row[1], -row[3], row[0]))
    return [DirtyOwner(owner_id, attempts, waited) for owner_id, _, attempts, waited in found]


def dirty(session: Session, limit: int, after: str | None) -> list[str]:
    """Owners who are dirty, whoever has them."""
    standing = session.row(_CURRENT_ROUND)
    round_ = 0 if standing is None else standing[0]
    rows = session.rows(_DIRTY, round=round_, limit=limit, after=after)
    return [owner_id for (owner_id,) in rows]


# --- verification


def settled(session: Session, owners: Sequence[str]) -> dict[str, int]:
    """Those of *owners* of whom nothing is left to do, with their live entities."""
    return dict(session.rows(_SETTLED, owners=ordered(owners)))


def stale(session: Session, owners: Sequence[str], seconds: float) -> list[str]:
    """Those of *owners* that were not verified within *seconds*."""
    rows = session.rows(_FRESH, owners=ordered(owners), seconds=seconds)
    fresh = {owner_id for (owner_id,) in rows}
    return [owner_id for owner_id in owners if owner_id not in fresh]


def scrub_turn(session: Session, holder: str, seconds: float) -> ScrubTurn | None:
    """Lease the scrub to *holder*, if it is to be had."""
    row = session.row(_TAKE_SCRUB, holder=holder, seconds=seconds)
    return None if row is None else ScrubTurn(*row)


def scrubbed(session: Session, holder: str, after: str | None, *, is_second_side: bool) -> None:
    """Remember how far the scrub is."""
    session.run(
        _SCRUBBED,
        holder=holder,
        after=after,
        is_second_side=is_second_side,
        is_new=after is None and not is_second_side,
    )
