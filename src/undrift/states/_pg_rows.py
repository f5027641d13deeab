"""What a state in PostgreSQL remembers of entities: noted, observed, raised, published, parked.

An entity's row changes only under the lock of its owner's, and owners are locked by code point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import LiteralString

from undrift.state import (
    Acknowledgement,
    Buried,
    EntityRow,
    Expected,
    Identity,
    Note,
    Observation,
    ParkedRecord,
    Parking,
    Standing,
    VersionRaise,
)
from undrift.states._pg_session import Session
from undrift.states._values import (
    DAY_SECONDS,
    by_owner,
    distinct_rows,
    is_raisable,
    note_from,
    ordered,
)

# One statement, so one snapshot, without a transaction: what differs in kind has the same columns.
# A doubt whose time has come counts as a mark: only a sync that notes it from then on answers.
_NOTE: LiteralString = """
SELECT 0 AS part, state_id AS owner_id, config AS kind, '' AS entity_id, epoch AS version,
       round AS second, 0::bigint AS third, 0::bigint AS fourth, '' AS fingerprint, '' AS model,
       false AS deleted, '' AS parked_reason, false AS is_parked
FROM {state_standing} WHERE scope = %(scope)s
UNION ALL
SELECT 1, owner_id, '', '', generation + (suspect_until <= now() IS TRUE)::int, synced_generation,
       observation, floor, '', '', false, '', false
FROM {owner_state} WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[])
UNION ALL
SELECT 2, owner_id, kind, entity_id, version, published_version, 0, 0, fingerprint, model, deleted,
       parked_reason, parked_until > now() IS TRUE
FROM {entity_state} WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[])"""

# A row that is not there was never noted: it is made only where nothing was noted either.
_ACCEPT: LiteralString = """
INSERT INTO {owner_state} AS owner (scope, owner_id, is_known, observation)
SELECT %(scope)s, new.owner_id, true, new.noted + 1
FROM unnest(%(owners)b::text[], %(noted)b::bigint[]) AS new (owner_id, noted)
WHERE new.noted = 0 OR new.owner_id IN (
    SELECT owner_id FROM {owner_state}
    WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[]))
ORDER BY new.owner_id COLLATE "C"
ON CONFLICT (scope, owner_id) DO UPDATE SET is_known = true, observation = excluded.observation
WHERE owner.observation = excluded.observation - 1
RETURNING owner_id"""
_LOCK_OR_MAKE: LiteralString = """
INSERT INTO {owner_state} AS owner (scope, owner_id)
SELECT %(scope)s, new.owner_id
FROM unnest(%(owners)b::text[], %(is_new)b::boolean[]) AS new (owner_id, is_new)
WHERE new.is_new OR new.owner_id IN (
    SELECT owner_id FROM {owner_state}
    WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[]))
ORDER BY new.owner_id COLLATE "C"
ON CONFLICT (scope, owner_id) DO UPDATE SET is_known = owner.is_known"""
_RAISED: LiteralString = """
UPDATE {owner_state} SET is_known = true, observation = observation + 1
WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[])"""
_ENTITIES: LiteralString = """
SELECT owner_id, kind, entity_id, version, fingerprint, model, deleted
FROM {entity_state} WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[])"""

# Its owners are locked by a statement before it, so that its snapshot shows what they hold.
_PUT: LiteralString = """
WITH new AS (
    SELECT * FROM unnest(
        %(owner_id)b::text[], %(kind)b::text[], %(entity_id)b::text[], %(version)b::bigint[],
        %(fingerprint)b::text[], %(model)b::text[], %(deleted)b::boolean[],
        %(published)b::bigint[])
        AS new (owner_id, kind, entity_id, version, fingerprint, model, deleted, published)
), was_live AS (
    SELECT owner_id, kind FROM new JOIN (
        SELECT owner_id, kind, entity_id FROM {entity_state}
        WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[]) AND NOT deleted
    ) AS live USING (owner_id, kind, entity_id)
), put AS (
    INSERT INTO {entity_state} AS entity (
        scope, owner_id, kind, entity_id, version, fingerprint, model, deleted, deleted_at,
        published_version)
    SELECT %(scope)s, owner_id, kind, entity_id, version, fingerprint, model, deleted,
           CASE WHEN deleted THEN now() END, published
    FROM new
    ON CONFLICT (scope, owner_id, kind, entity_id) DO UPDATE SET
        version = excluded.version, fingerprint = excluded.fingerprint, model = excluded.model,
        deleted = excluded.deleted, deleted_at = excluded.deleted_at,
        published_version = greatest(entity.published_version, excluded.published_version),
        parked_reason = '', parked_attempts = 0, parked_until = NULL
), more AS (
    SELECT owner_id, kind, sum(step)::bigint AS step FROM (
        SELECT owner_id, kind, 1 AS step FROM new WHERE NOT deleted
        UNION ALL
        SELECT owner_id, kind, -1 FROM was_live
    ) AS steps GROUP BY owner_id, kind
), counted AS (
    UPDATE {owner_state} AS owner SET live = owner.live + of_owner.step
    FROM (SELECT owner_id, sum(step)::bigint AS step FROM more GROUP BY owner_id) AS of_owner
    WHERE owner.scope = %(scope)s AND owner.owner_id = ANY(%(owners)b::text[])
      AND owner.owner_id = of_owner.owner_id AND of_owner.step <> 0
)
INSERT INTO {kind_state} AS kind_state (scope, kind, slot, live)
SELECT %(scope)s, kind, pg_backend_pid() %% 64, sum(step)
FROM more GROUP BY kind HAVING sum(step) <> 0 ORDER BY kind COLLATE "C"
ON CONFLICT (scope, kind, slot) DO UPDATE SET live = kind_state.live + excluded.live"""

_HOLD: LiteralString = """
SELECT FROM {owner_state}
WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[])
ORDER BY owner_id FOR UPDATE"""
_UNEXPECTED: LiteralString = """
SELECT DISTINCT given.owner_id FROM {given} LEFT JOIN {entity_state} AS entity ON {same}
WHERE entity.version IS DISTINCT FROM given.version"""
_PUBLISHED: LiteralString = """
UPDATE {entity_state} AS entity SET published_version = entity.version
FROM {given} WHERE {same} AND entity.version = given.version"""
_READ_BACK: LiteralString = """
UPDATE {entity_state} AS entity SET
    published_version = entity.version, parked_reason = '', parked_attempts = 0,
    parked_until = NULL
FROM {given} WHERE {same} AND entity.version = given.version"""
_FORGET: LiteralString = """
WITH gone AS (
    DELETE FROM {entity_state} AS entity
    USING {given} WHERE {same} AND entity.deleted AND entity.version = given.version
    RETURNING entity.owner_id, entity.version
)
UPDATE {owner_state} AS owner SET floor = greatest(owner.floor, highest.version)
FROM (SELECT owner_id, max(version) AS version FROM gone GROUP BY owner_id) AS highest
WHERE owner.scope = %(scope)s AND owner.owner_id = highest.owner_id"""

_PARK: LiteralString = """
UPDATE {entity_state} AS entity SET
    parked_reason = given.reason, parked_attempts = parked_attempts + 1,
    parked_until = now() + make_interval(
        secs => least(%(day)s, given.delay_seconds * 2.0 ^ least(parked_attempts, 30)))
FROM unnest(
    %(owner_id)b::text[], %(kind)b::text[], %(entity_id)b::text[], %(version)b::bigint[],
    %(reason)b::text[], %(delay_seconds)b::float8[])
    AS given (owner_id, kind, entity_id, version, reason, delay_seconds)
WHERE {same} AND entity.version = given.version"""
_PARKED_OWNERS: LiteralString = """
SELECT owner_id, count(*) FROM {entity_state}
WHERE scope = %(scope)s AND parked_until IS NOT NULL
  AND (%(all)s OR owner_id = ANY(%(owners)s::text[]))
GROUP BY owner_id"""
_UNPARK: LiteralString = """
UPDATE {entity_state} SET parked_until = least(parked_until, now())
WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[]) AND parked_until IS NOT NULL"""
_PARKED: LiteralString = """
SELECT owner_id, kind, entity_id, parked_reason, parked_attempts,
       greatest(0, extract(epoch FROM parked_until - now()))::float8
FROM {entity_state} WHERE scope = %(scope)s AND parked_until IS NOT NULL
ORDER BY owner_id, kind, entity_id LIMIT %(limit)s"""
_BURIED: LiteralString = """
SELECT owner_id, kind, entity_id, version FROM {entity_state}
WHERE scope = %(scope)s AND deleted AND deleted_at < now() - make_interval(secs => %(seconds)s)
ORDER BY deleted_at LIMIT %(limit)s"""


def note(session: Session, owners: Sequence[str]) -> Note | None:
    """What is remembered of *owners*; None if there is no such state."""
    standing: Standing | None = None
    known: list[tuple[str, int, int, int, int]] = []
    entities: list[tuple[str, EntityRow]] = []
    found = session.rows(_NOTE, owners=ordered(owners))
    for part, owner_id, kind, entity_id, version, second, third, fourth, *rest in found:
        if part == 2:
            fingerprint, model, is_deleted, reason, is_parked = rest
            row = EntityRow(
                kind, entity_id, version, fingerprint, model, is_deleted, second, reason, is_parked
            )
            entities.append((owner_id, row))
        elif part == 1:
            known.append((owner_id, version, second, third, fourth))
        else:
            standing = Standing(owner_id, version, kind, second)
    return None if standing is None else note_from(standing, owners, known, entities)


def observe(
    session: Session,
    observations: Iterable[Observation],
    *,
    published: Set[Expected] = frozenset(),
) -> frozenset[str]:
    """Accept those before which no other was accepted; within a transaction.

    Args:
        published: rows that are published in the same transaction.
    """
    written = by_owner((each.owner_id, each) for each in observations)
    found = session.rows(
        _ACCEPT,
        owners=[each.owner_id for each in written],
        noted=[each.noted for each in written],
    )
    accepted = frozenset(owner_id for (owner_id,) in found)
    rows = {each.owner_id: each.rows for each in written if each.owner_id in accepted}
    _put(session, rows, published)
    return accepted


def raise_versions(session: Session, raises: Iterable[VersionRaise]) -> frozenset[str]:
    """Raise the rows of owners whose rows are all as observed; within a transaction."""
    wishes = by_owner((wish.owner_id, wish) for wish in raises)
    owners = [wish.owner_id for wish in wishes]
    is_new = [not wish.observed and bool(wish.raised) for wish in wishes]
    session.run(_LOCK_OR_MAKE, owners=owners, is_new=is_new)
    current: dict[str, dict[Identity, EntityRow]] = {}
    for owner_id, *columns in session.rows(_ENTITIES, owners=owners):
        row = EntityRow(*columns)
        current.setdefault(owner_id, {})[row.identity] = row
    possible = [wish for wish in wishes if is_raisable(wish, current.get(wish.owner_id, {}))]
    raised = {wish.owner_id: wish.raised for wish in possible if wish.raised}
    if raised:
        session.run(_RAISED, owners=list(raised))
        _put(session, raised)
    return frozenset(wish.owner_id for wish in possible)


def read_back(session: Session, acknowledgements: Iterable[Acknowledgement]) -> None:
    """Remember which versions the store was found to hold; the owners are locked."""
    given = [
        Expected(done.owner_id, kind, entity_id, version)
        for done in acknowledgements
        for kind, entity_id, version in done.published
    ]
    if given:
        session.run(_READ_BACK, **_columns(given))


def hold(session: Session, owners: Iterable[str]) -> None:
    """Lock *owners* until the transaction ends, by code point."""
    session.run(_HOLD, owners=ordered(owners))


def unexpected(session: Session, expected: Sequence[Expected]) -> frozenset[str]:
    """The owners of whom a row has another version, or is gone."""
    return frozenset(owner_id for (owner_id,) in session.rows(_UNEXPECTED, **_columns(expected)))


def published(session: Session, expected: Sequence[Expected]) -> None:
    """Remember which versions were just written or deleted; the owners are locked."""
    session.run(_PUBLISHED, **_columns(expected))


def park(session: Session, parkings: Sequence[Parking]) -> None:
    """Remember records that cannot be made; within a transaction."""
    hold(session, (parking.owner_id for parking in parkings))
    latest = {parking[:3]: parking for parking in parkings}
    session.run(_PARK, day=DAY_SECONDS, **_columns(list(latest.values())))


def parked_owners(session: Session, owners: Sequence[str] | None) -> dict[str, int]:
    """How many parked records each of *owners*, or of all, has."""
    asked = ordered(owners or ())
    return dict(session.rows(_PARKED_OWNERS, all=owners is None, owners=asked))


def unpark(session: Session, owners: Iterable[str]) -> None:
    """Make parked records due; the owners are locked."""
    session.run(_UNPARK, owners=list(owners))


def parked(session: Session, limit: int) -> list[ParkedRecord]:
    """Parked records, in order."""
    return [ParkedRecord(*row) for row in session.rows(_PARKED, limit=limit)]


def buried(session: Session, older_than_seconds: float, limit: int) -> list[Buried]:
    """Rows of entities that have been deleted for longer."""
    rows = session.rows(_BURIED, seconds=older_than_seconds, limit=limit)
    return [Buried(*row) for row in rows]


def forget(session: Session, rows: Sequence[Buried]) -> None:
    """Remove rows that are still deleted and of that version; within a transaction."""
    hold(session, (row.owner_id for row in rows))
    session.run(_FORGET, **_columns(rows))


def _put(
    session: Session,
    written: Mapping[str, Sequence[EntityRow]],
    published: Set[Expected] = frozenset(),
) -> None:
    rows = [(owner, row) for owner, given in written.items() for row in distinct_rows(given)]
    if not rows:
        return
    session.run(
        _PUT,
        owners=list(written),
        owner_id=[owner_id for owner_id, _ in rows],
        kind=[row.kind for _, row in rows],
        entity_id=[row.entity_id for _, row in rows],
        version=[row.version for _, row in rows],
        fingerprint=[row.fingerprint for _, row in rows],
        model=[row.model for _, row in rows],
        deleted=[row.is_deleted for _, row in rows],
        published=[
            row.version if (owner_id, *row[:3]) in published else 0 for owner_id, row in rows
        ],
    )


def _columns(given: Sequence[Expected] | Sequence[Buried] | Sequence[Parking]) -> dict[str, object]:
    """*given* column by column, by its fields' names."""
    return {
        name: list(column)
        for name, column in zip(given[0]._fields, zip(*given, strict=True), strict=True)
    }
