"""What a state in SQLite remembers of entities: noted, observed, raised, published, parked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence, Set

from undrift.state import (
    Acknowledgement,
    Buried,
    EntityRow,
    Expected,
    Note,
    Observation,
    ParkedRecord,
    Parking,
    Standing,
    VersionRaise,
)
from undrift.states._sqlite_session import Session, id_list
from undrift.states._values import (
    DAY_SECONDS,
    by_owner,
    distinct_rows,
    is_raisable,
    note_from,
    ordered,
)

# A doubt whose time has come counts as a mark: only a sync that notes it from then on answers.
_OWNERS = """
SELECT owner_id, generation + (suspect_until IS NOT NULL AND suspect_until <= :now),
       synced_generation, observation, floor
FROM undrift_owner_state
WHERE scope = :scope AND owner_id IN (SELECT value FROM json_each(:owners))"""
_ENTITIES = """
SELECT owner_id, kind, entity_id, version, fingerprint, model, deleted, published_version,
       parked_reason, parked_until IS NOT NULL AND parked_until > :now
FROM undrift_entity_state
WHERE scope = :scope AND owner_id IN (SELECT value FROM json_each(:owners))"""

# SQLite has none of its own.
_BOOLEANS = (EntityRow._fields.index("is_deleted"), EntityRow._fields.index("is_parked"))

_OBSERVED = """
INSERT INTO undrift_owner_state (scope, owner_id, is_known, observation)
VALUES (:scope, :owner_id, 1, 1)
ON CONFLICT (scope, owner_id) DO UPDATE SET is_known = 1, observation = observation + 1"""
_LIVE = """
SELECT owner_id, kind, entity_id FROM undrift_entity_state
WHERE scope = :scope AND owner_id IN (SELECT value FROM json_each(:owners)) AND deleted = 0"""
_PUT = """
INSERT INTO undrift_entity_state (
    scope, owner_id, kind, entity_id, version, fingerprint, model, deleted, deleted_at,
    published_version)
VALUES (:scope, :owner_id, :kind, :entity_id, :version, :fingerprint, :model, :deleted,
        CASE WHEN :deleted THEN :now END, :published)
ON CONFLICT (scope, owner_id, kind, entity_id) DO UPDATE SET
    version = excluded.version, fingerprint = excluded.fingerprint, model = excluded.model,
    deleted = excluded.deleted, deleted_at = excluded.deleted_at,
    published_version = max(published_version, excluded.published_version),
    parked_reason = '', parked_attempts = 0, parked_until = NULL"""
_ADD_LIVE = """
UPDATE undrift_owner_state SET live = live + :more WHERE scope = :scope AND owner_id = :owner_id"""
_ADD_LIVE_OF_KIND = """
INSERT INTO undrift_kind_state (scope, kind, live) VALUES (:scope, :kind, :more)
ON CONFLICT (scope, kind) DO UPDATE SET live = live + excluded.live"""

_ENTITY = "scope = :scope AND owner_id = :owner_id AND kind = :kind AND entity_id = :entity_id"
_PUBLISHED = f"""
UPDATE undrift_entity_state SET published_version = version
WHERE {_ENTITY} AND version = :version"""  # noqa: S608 - a constant
_READ_BACK = f"""
UPDATE undrift_entity_state SET
    published_version = version, parked_reason = '', parked_attempts = 0, parked_until = NULL
WHERE {_ENTITY} AND version = :version"""  # noqa: S608 - a constant
_VERSION = f"SELECT version FROM undrift_entity_state WHERE {_ENTITY}"  # noqa: S608 - a constant

_PARK = f"""
UPDATE undrift_entity_state SET
    parked_reason = :reason, parked_attempts = parked_attempts + 1,
    parked_until = :now + min(:day, :delay_seconds * (1 << min(parked_attempts, 30)))
WHERE {_ENTITY} AND version = :version"""  # noqa: S608 - a constant
# SQLite would rather read a whole scope by its primary key than a small index.
_PARKED_OWNERS = """
SELECT owner_id, count(*) FROM undrift_entity_state INDEXED BY undrift_entity_state_parked
WHERE scope = :scope AND parked_until IS NOT NULL
  AND (:owners IS NULL OR owner_id IN (SELECT value FROM json_each(:owners)))
GROUP BY owner_id"""
_UNPARK = """
UPDATE undrift_entity_state SET parked_until = min(parked_until, :now)
WHERE scope = :scope AND parked_until IS NOT NULL
  AND owner_id IN (SELECT value FROM json_each(:owners))"""
_PARKED = """
SELECT owner_id, kind, entity_id, parked_reason, parked_attempts, max(0.0, parked_until - :now)
FROM undrift_entity_state INDEXED BY undrift_entity_state_parked
WHERE scope = :scope AND parked_until IS NOT NULL
ORDER BY owner_id, kind, entity_id LIMIT :limit"""

_BURIED = """
SELECT owner_id, kind, entity_id, version FROM undrift_entity_state
WHERE scope = :scope AND deleted = 1 AND deleted_at < :before
ORDER BY deleted_at LIMIT :limit"""
_FORGET = f"""
DELETE FROM undrift_entity_state
WHERE {_ENTITY} AND deleted = 1 AND version = :version"""  # noqa: S608 - a constant
_FLOOR = f"""
UPDATE undrift_owner_state SET floor = max(floor, :version)
WHERE scope = :scope AND owner_id = :owner_id AND EXISTS (
    SELECT 1 FROM undrift_entity_state
    WHERE {_ENTITY} AND deleted = 1 AND version = :version)"""  # noqa: S608 - a constant


def note(session: Session, standing: Standing, owners: Sequence[str]) -> Note:
    """What is remembered of *owners*; the session is a transaction, so it is one moment."""
    asked = id_list(ordered(owners))
    return note_from(
        standing,
        owners,
        session.rows(_OWNERS, owners=asked),
        _entities(session, asked),
    )


def accepted(session: Session, observations: Sequence[Observation]) -> list[Observation]:
    """Those of *observations* before which no other was accepted since the note."""
    seen = by_owner((observation.owner_id, observation) for observation in observations)
    asked = id_list([observation.owner_id for observation in seen])
    standing = {row[0]: row[3] for row in session.rows(_OWNERS, owners=asked)}
    return [
        observation
        for observation in seen
        if standing.get(observation.owner_id, 0) == observation.noted
    ]


def put_observed(
    session: Session,
    observations: Sequence[Observation],
    *,
    published: Set[Expected] = frozenset(),
) -> None:
    """Write the rows of accepted observations, and count them where there are none.

    Args:
        published: rows that are published in the same transaction.
    """
    session.run_each(_OBSERVED, ({"owner_id": each.owner_id} for each in observations))
    written = {each.owner_id: distinct_rows(each.rows) for each in observations if each.rows}
    _put(session, written, published)


def raise_versions(session: Session, raises: Sequence[VersionRaise]) -> frozenset[str]:
    """Raise the rows of owners whose rows are all as observed."""
    wishes = by_owner((wish.owner_id, wish) for wish in raises)
    asked = id_list([wish.owner_id for wish in wishes])
    current: dict[str, dict[tuple[str, str], EntityRow]] = {}
    for owner_id, row in _entities(session, asked):
        current.setdefault(owner_id, {})[row.identity] = row
    possible = {
        wish.owner_id: distinct_rows(wish.raised)
        for wish in wishes
        if is_raisable(wish, current.get(wish.owner_id, {}))
    }
    written = {owner_id: rows for owner_id, rows in possible.items() if rows}
    session.run_each(_OBSERVED, ({"owner_id": owner_id} for owner_id in written))
    _put(session, written)
    return frozenset(possible)


def read_back(session: Session, acknowledgements: Sequence[Acknowledgement]) -> None:
    """Remember which versions the store was found to hold."""
    session.run_each(
        _READ_BACK,
        (
            {"owner_id": done.owner_id, "kind": kind, "entity_id": entity_id, "version": version}
            for done in acknowledgements
            for kind, entity_id, version in done.published
        ),
    )


def unexpected(session: Session, expected: Sequence[Expected]) -> frozenset[str]:
    """The owners of whom a row has another version, or is gone."""
    return frozenset(
        wanted.owner_id
        for wanted in expected
        if session.row(_VERSION, **wanted._asdict()) != (wanted.version,)
    )


def published(session: Session, expected: Sequence[Expected]) -> None:
    """Remember which versions were just written or deleted."""
    session.run_each(_PUBLISHED, (wanted._asdict() for wanted in expected))


def park(session: Session, parkings: Sequence[Parking]) -> None:
    """Remember records that cannot be made."""
    session.run_each(_PARK, ({**parking._asdict(), "day": DAY_SECONDS} for parking in parkings))


def unpark(session: Session, owners: Sequence[str] | None) -> dict[str, int]:
    """Make parked records due, and say how many each owner has."""
    asked = None if owners is None else id_list(ordered(owners))
    found = {row[0]: row[1] for row in session.rows(_PARKED_OWNERS, owners=asked)}
    session.run(_UNPARK, owners=id_list(list(found)))
    return found


def parked(session: Session, limit: int) -> list[ParkedRecord]:
    """Parked records, in order."""
    return [ParkedRecord(*row) for row in session.rows(_PARKED, limit=limit)]


def buried(session: Session, older_than_seconds: float, limit: int) -> list[Buried]:
    """Rows of entities that have been deleted for longer."""
    rows = session.rows(_BURIED, before=session.now - older_than_seconds, limit=limit)
    return [Buried(*row) for row in rows]


def forget(session: Session, rows: Sequence[Buried]) -> None:
    """Remove rows that are still deleted and of that version."""
    session.run_each(_FLOOR, (row._asdict() for row in rows))
    session.run_each(_FORGET, (row._asdict() for row in rows))


def _entities(session: Session, owners: str) -> Iterable[tuple[str, EntityRow]]:
    for owner_id, *columns in session.rows(_ENTITIES, owners=owners):
        for place in _BOOLEANS:
            columns[place] = bool(columns[place])
        yield owner_id, EntityRow(*columns)


def _put(
    session: Session,
    written: dict[str, list[EntityRow]],
    published: Set[Expected] = frozenset(),
) -> None:
    """Write rows, and keep count of the live ones."""
    live = session.rows(_LIVE, owners=id_list(list(written)))
    before = {(owner_id, kind, entity_id) for owner_id, kind, entity_id in live}
    of_owner: Counter[str] = Counter()
    of_kind: Counter[str] = Counter()
    for owner_id, rows in written.items():
        for row in rows:
            more = (not row.is_deleted) - ((owner_id, *row.identity) in before)
            of_owner[owner_id] += more
            of_kind[row.kind] += more
    session.run_each(
        _PUT,
        (
            {
                "owner_id": owner_id,
                "deleted": row.is_deleted,
                "published": row.version if (owner_id, *row[:3]) in published else 0,
                **row._asdict(),
            }
            for owner_id, rows in written.items()
            for row in rows
        ),
    )
    owners = [{"owner_id": owner_id, "more": more} for owner_id, more in of_owner.items() if more]
    kinds = [{"kind": kind, "more": more} for kind, more in of_kind.items() if more]
    session.run_each(_ADD_LIVE, owners)
    session.run_each(_ADD_LIVE_OF_KIND, kinds)
