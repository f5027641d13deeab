"""Whom a state in SQLite gives out: leases, marks, rounds, doubts, failures, the scrub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from undrift.state import Acknowledgement, DirtyOwner, Failure, ScrubTurn
from undrift.states._sqlite_session import Session, id_list
from undrift.states._values import Waiting, by_owner, one_line, ordered

_LEASES = """
SELECT owner_id, lease_holder FROM undrift_owner_state
WHERE scope = :scope AND owner_id IN (SELECT value FROM json_each(:owners))
  AND lease_until > :now AND lease_holder <> :holder
  AND lease_holder NOT IN (SELECT value FROM json_each(:over))"""
_LEASE = """
INSERT INTO undrift_owner_state (scope, owner_id, lease_holder, lease_until)
VALUES (:scope, :owner_id, :holder, :now + :seconds)
ON CONFLICT (scope, owner_id) DO UPDATE SET
    lease_holder = excluded.lease_holder, lease_until = excluded.lease_until"""
_RENEW = """
UPDATE undrift_owner_state SET lease_until = :now + :seconds
WHERE scope = :scope AND owner_id IN (SELECT value FROM json_each(:owners))
  AND lease_holder = :holder AND lease_until > :now"""
_FORGET_LEASED = """
DELETE FROM undrift_owner_state
WHERE scope = :scope AND owner_id IN (SELECT value FROM json_each(:owners))
  AND lease_holder = :holder AND is_known = 0"""
_RELEASE = """
UPDATE undrift_owner_state SET lease_holder = '', lease_until = 0
WHERE scope = :scope AND owner_id IN (SELECT value FROM json_each(:owners))
  AND lease_holder = :holder"""

_MARK = """
INSERT INTO undrift_owner_state (scope, owner_id, is_known, generation, priority, dirty_since)
VALUES (:scope, :owner_id, 1, 1, :priority, :now)
ON CONFLICT (scope, owner_id) DO UPDATE SET
    is_known = 1,
    generation = generation + 1 + (suspect_until IS NOT NULL AND suspect_until <= :now),
    suspect_until = CASE WHEN suspect_until > :now THEN suspect_until END,
    priority = CASE WHEN dirty_since IS NULL THEN excluded.priority
                    ELSE max(priority, excluded.priority) END,
    dirty_since = coalesce(dirty_since, excluded.dirty_since)"""
_DUE_AGAIN = """
SELECT 1 FROM undrift_state_standing WHERE scope = :scope AND again_at <= :now"""
_BEGIN_ROUND = """
UPDATE undrift_state_standing SET round = round + 1, round_at = :now WHERE scope = :scope"""
_SET_AGAIN = "UPDATE undrift_state_standing SET again_at = :at WHERE scope = :scope"
_AGAIN = "SELECT again_at FROM undrift_state_standing WHERE scope = :scope"

_ACKNOWLEDGE = """
INSERT INTO undrift_owner_state (
    scope, owner_id, is_known, generation, synced_generation, round, verified_at)
VALUES (:scope, :owner_id, 1, :generation, :generation, :round, :now)
ON CONFLICT (scope, owner_id) DO UPDATE SET
    is_known = 1,
    generation = max(generation, :generation),
    synced_generation = max(synced_generation, :generation),
    suspect_until = CASE WHEN suspect_until <= :now AND :generation > generation THEN NULL
                         ELSE suspect_until END,
    round = max(round, excluded.round),
    verified_at = excluded.verified_at,
    priority = 0, attempts = 0, last_error = '', last_error_at = NULL, next_attempt_at = 0,
    dirty_since = CASE
        WHEN max(generation, :generation) > max(synced_generation, :generation) THEN :now END"""
_FAIL = """
INSERT INTO undrift_owner_state (
    scope, owner_id, is_known, attempts, next_attempt_at, last_error, last_error_at)
VALUES (:scope, :owner_id, 1, 1, :now + :delay_seconds, :error, :now)
ON CONFLICT (scope, owner_id) DO UPDATE SET
    is_known = 1, attempts = attempts + 1, next_attempt_at = excluded.next_attempt_at,
    last_error = excluded.last_error, last_error_at = excluded.last_error_at"""
_LET_TRY = """
UPDATE undrift_owner_state SET next_attempt_at = 0
WHERE scope = :scope AND owner_id IN (SELECT value FROM json_each(:owners))"""
_SUSPECT = """
INSERT INTO undrift_owner_state (scope, owner_id, is_known, suspect_until)
VALUES (:scope, :owner_id, 1, :now + :seconds)
ON CONFLICT (scope, owner_id) DO UPDATE SET
    is_known = 1,
    generation = generation + (suspect_until IS NOT NULL AND suspect_until <= :now),
    dirty_since = CASE WHEN suspect_until <= :now THEN coalesce(dirty_since, suspect_until)
                       ELSE dirty_since END,
    suspect_until = max(coalesce(suspect_until, 0), excluded.suspect_until)"""

# Each list of the dirty is in its own order, and read no further than is asked for; owners whose
# last sync failed are in a list of their own, by when they are due, lest everybody pass over them.
# SQLite would rather read a whole scope by its primary key than a small index.
_FREE = "owner.scope = :scope AND owner.lease_until <= :now"
_DIRTY = (
    f"""
SELECT owner_id, priority, :now - dirty_since, attempts FROM undrift_owner_state AS owner
WHERE {_FREE} AND dirty_since IS NOT NULL AND next_attempt_at <= 0
ORDER BY priority DESC, dirty_since LIMIT :limit""",  # noqa: S608 - a constant
    f"""
SELECT owner_id, priority, :now - :round_at, attempts FROM undrift_owner_state AS owner
WHERE {_FREE} AND is_known = 1 AND round < :round AND next_attempt_at <= 0
ORDER BY round LIMIT :limit""",  # noqa: S608 - a constant
    f"""
SELECT owner_id, priority, :now - min(
    coalesce(dirty_since, :round_at), CASE WHEN round < :round THEN :round_at ELSE dirty_since END),
    attempts
FROM undrift_owner_state AS owner
WHERE {_FREE} AND next_attempt_at > 0 AND next_attempt_at <= :now
  AND (dirty_since IS NOT NULL OR round < :round)
ORDER BY next_attempt_at LIMIT :limit""",  # noqa: S608 - a constant
    f"""
SELECT owner_id, priority, :now - suspect_until, attempts FROM undrift_owner_state AS owner
WHERE {_FREE} AND suspect_until <= :now AND next_attempt_at <= :now
ORDER BY suspect_until LIMIT :limit""",  # noqa: S608 - a constant
    f"""
SELECT owner.owner_id, priority, :now - parked_until, attempts
FROM (
    SELECT owner_id, min(parked_until) AS parked_until
    FROM undrift_entity_state INDEXED BY undrift_entity_state_parked
    WHERE scope = :scope AND parked_until <= :now GROUP BY owner_id
) AS due JOIN undrift_owner_state AS owner ON owner.owner_id = due.owner_id
WHERE {_FREE} AND next_attempt_at <= :now
ORDER BY due.parked_until LIMIT :limit""",  # noqa: S608 - a constant
)
_ROUND = "SELECT round, round_at FROM undrift_state_standing WHERE scope = :scope"
_CLAIM = """
UPDATE undrift_owner_state SET
    lease_holder = :holder, lease_until = :now + :seconds,
    generation = generation + (suspect_until IS NOT NULL AND suspect_until <= :now),
    dirty_since = CASE WHEN suspect_until <= :now THEN coalesce(dirty_since, suspect_until)
                       ELSE dirty_since END,
    suspect_until = CASE WHEN suspect_until > :now THEN suspect_until END
WHERE scope = :scope AND owner_id = :owner_id"""

_ROUND_TO_COME = """
SELECT round + (again_at IS NOT NULL AND again_at <= :now)
FROM undrift_state_standing WHERE scope = :scope"""
_DIRTY_BY_ID = """
SELECT owner_id FROM (
    SELECT owner_id FROM undrift_owner_state INDEXED BY undrift_owner_state_dirty
    WHERE scope = :scope AND dirty_since IS NOT NULL AND next_attempt_at <= 0
    UNION ALL
    SELECT owner_id FROM undrift_owner_state INDEXED BY undrift_owner_state_round
    WHERE scope = :scope AND is_known = 1 AND round < :round AND next_attempt_at <= 0
    UNION ALL
    SELECT owner_id FROM undrift_owner_state INDEXED BY undrift_owner_state_failed
    WHERE scope = :scope AND next_attempt_at > 0 AND (dirty_since IS NOT NULL OR round < :round)
    UNION ALL
    SELECT owner_id FROM undrift_owner_state INDEXED BY undrift_owner_state_suspect
    WHERE scope = :scope AND suspect_until <= :now
    UNION ALL
    SELECT owner_id FROM undrift_entity_state INDEXED BY undrift_entity_state_parked
    WHERE scope = :scope AND parked_until <= :now
)
WHERE :after IS NULL OR owner_id > :after
GROUP BY owner_id ORDER BY owner_id LIMIT :limit"""

_SETTLED = f"""
SELECT owner.owner_id, count(CASE WHEN entity.deleted = 0 THEN 1 END)
FROM undrift_owner_state AS owner
LEFT JOIN undrift_entity_state AS entity
  ON entity.scope = :scope AND entity.owner_id = owner.owner_id
WHERE owner.scope = :scope AND owner.owner_id IN (SELECT value FROM json_each(:owners))
  AND owner.lease_until <= :now AND verified_at IS NOT NULL AND dirty_since IS NULL
  AND suspect_until IS NULL AND next_attempt_at <= 0 AND round >= ({_ROUND_TO_COME})
GROUP BY owner.owner_id
HAVING min(coalesce(published_version >= version AND parked_until IS NULL, 1)) = 1"""  # noqa: S608 - a constant
_FRESH = """
SELECT owner_id FROM undrift_owner_state
WHERE scope = :scope AND owner_id IN (SELECT value FROM json_each(:owners))
  AND verified_at >= :now - :seconds"""

_TAKE_SCRUB = """
UPDATE undrift_state_standing SET
    scrub_holder = :holder, scrub_until = :now + :seconds
WHERE scope = :scope AND (scrub_holder = :holder OR scrub_until <= :now)"""
_SCRUB = """
SELECT scrub_after, scrub_is_second, coalesce(max(0.0, :now - scrub_began_at), 9e999)
FROM undrift_state_standing WHERE scope = :scope"""
_SCRUBBED = """
UPDATE undrift_state_standing SET
    scrub_after = :after, scrub_is_second = :is_second_side,
    scrub_began_at = CASE WHEN :after IS NULL AND NOT :is_second_side THEN :now
                          ELSE coalesce(scrub_began_at, :now) END
WHERE scope = :scope AND scrub_holder = :holder"""


# --- leases


def lease(
    session: Session, owners: Sequence[str], holder: str, seconds: float, over: Sequence[str]
) -> Mapping[str, str]:
    """Lease what is to be had, and say who has the others."""
    wanted = ordered(owners)
    rows = session.rows(_LEASES, owners=id_list(wanted), holder=holder, over=id_list(over))
    taken: dict[str, str] = dict(rows)
    free = ({"owner_id": owner} for owner in wanted if owner not in taken)
    session.run_each(_LEASE, ({**each, "holder": holder, "seconds": seconds} for each in free))
    return taken


def renew(session: Session, owners: Sequence[str], holder: str, seconds: float) -> None:
    """Prolong what *holder* still has."""
    session.run(_RENEW, owners=id_list(ordered(owners)), holder=holder, seconds=seconds)


def release(session: Session, owners: Iterable[str], holder: str) -> None:
    """Give up what *holder* has, and forget owners of whom nothing else is known."""
    given_up = id_list(ordered(owners))
    session.run(_FORGET_LEASED, owners=given_up, holder=holder)
    session.run(_RELEASE, owners=given_up, holder=holder)


# --- marks and rounds


def mark(session: Session, owners: Iterable[str], priority: int) -> None:
    """Raise generations."""
    session.run_each(
        _MARK, ({"owner_id": owner_id, "priority": priority} for owner_id in ordered(owners))
    )


def mark_everyone(session: Session, again_after_seconds: float | None) -> None:
    """Raise the round, and say when to do so again."""
    if again_after_seconds is not None:
        ((again_at,),) = session.rows(_AGAIN)
        if again_at is not None and again_at > session.now:
            return
        session.run(_SET_AGAIN, at=session.now + again_after_seconds)
    session.run(_BEGIN_ROUND)


# --- ends of syncs


def acknowledge(session: Session, done: Sequence[Acknowledgement], holder: str) -> None:
    """Remember what was answered for."""
    last = by_owner((each.owner_id, each) for each in done if each.generation is not None)
    session.run_each(
        _ACKNOWLEDGE,
        (
            {"owner_id": each.owner_id, "generation": each.generation, "round": each.round}
            for each in last
        ),
    )
    release(session, [each.owner_id for each in done], holder)


def fail(session: Session, failures: Sequence[Failure], holder: str) -> None:
    """Remember what happened, and wait."""
    last = by_owner((failure.owner_id, failure) for failure in failures)
    session.run_each(_FAIL, ({**each._asdict(), "error": one_line(each)} for each in last))
    release(session, [each.owner_id for each in last], holder)


def let_try(session: Session, owners: Iterable[str]) -> None:
    """Wait no longer for another try."""
    session.run(_LET_TRY, owners=id_list(list(owners)))


def suspect(session: Session, owners: Sequence[str], seconds: float) -> None:
    """Remember until when writes may land."""
    session.run_each(
        _SUSPECT, ({"owner_id": owner_id, "seconds": seconds} for owner_id in ordered(owners))
    )


# --- claims


def is_any_dirty(session: Session) -> bool:
    """Whether it is worth while to take the lock."""
    return session.row(_DUE_AGAIN) is not None or bool(_waiting(session, 1).first())


def claim(session: Session, holder: str, limit: int, seconds: float) -> list[DirtyOwner]:
    """Lease dirty owners to *holder*."""
    if session.row(_DUE_AGAIN) is not None:
        session.run(_SET_AGAIN, at=None)
        session.run(_BEGIN_ROUND)
    found = _waiting(session, limit).first()
    session.run_each(
        _CLAIM,
        ({"owner_id": owner_id, "holder": holder, "seconds": seconds} for owner_id, _, _ in found),
    )
    return [DirtyOwner(owner, attempts, max(0.0, waited)) for owner, waited, attempts in found]


def _waiting(session: Session, limit: int) -> Waiting:
    waiting = Waiting(limit)
    for round_, round_at in session.rows(_ROUND):
        for statement in _DIRTY:
            rows = session.rows(statement, limit=limit, round=round_, round_at=round_at)
            for row in rows:
                waiting.add(*row)
    return waiting


def dirty(session: Session, limit: int, after: str | None) -> list[str]:
    """Owners who are dirty, whoever has them."""
    standing = session.row(_ROUND_TO_COME)
    round_ = 0 if standing is None else standing[0]
    rows = session.rows(_DIRTY_BY_ID, round=round_, limit=limit, after=after)
    return [owner_id for (owner_id,) in rows]


# --- verification


def settled(session: Session, owners: Sequence[str]) -> dict[str, int]:
    """Those of *owners* of whom nothing is left to do, with their live entities."""
    return dict(session.rows(_SETTLED, owners=id_list(ordered(owners))))


def stale(session: Session, owners: Sequence[str], seconds: float) -> list[str]:
    """Those of *owners* that were not verified within *seconds*."""
    asked = id_list(ordered(owners))
    fresh = {owner_id for (owner_id,) in session.rows(_FRESH, owners=asked, seconds=seconds)}
    return [owner_id for owner_id in owners if owner_id not in fresh]


def scrub_turn(session: Session, holder: str, seconds: float) -> ScrubTurn | None:
    """Lease the scrub to *holder*, if it is to be had."""
    if not session.run(_TAKE_SCRUB, holder=holder, seconds=seconds):
        return None
    ((after, is_second_side, began),) = session.rows(_SCRUB)
    return ScrubTurn(after, bool(is_second_side), began)


def scrubbed(session: Session, holder: str, after: str | None, *, is_second_side: bool) -> None:
    """Remember how far the scrub is."""
    session.run(_SCRUBBED, holder=holder, after=after, is_second_side=is_second_side)
