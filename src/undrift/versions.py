"""Which version each write carries. Pure: what is remembered and what was found in, decisions out.

A version orders the writes of one record as the source's snapshots are ordered. It rises when the
source shows something else than was observed last, and above whatever the store is found to hold;
nothing else gives order here, no clock and no sequence.

Source:
    Checked exhaustively for one entity in ``tests/model``, with the variants that fail.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from undrift.diff import OwnerDiff
from undrift.errors import WriteFailed
from undrift.fingerprint import vector_id
from undrift.model import Stamp, Wanted
from undrift.plan import Plan, PlannedWrite, own_vector_ids, plan_owner
from undrift.ports import MAX_VERSION, Deletion
from undrift.state import EntityRow, Expected, Identity, OwnerNote, Tombstone, VersionRaise

Rows = Mapping[Identity, EntityRow]


def observed_rows(
    note: OwnerNote, wanted: Wanted | None, *, model: str, kinds: Collection[str]
) -> tuple[EntityRow, ...]:
    """The rows that a complete snapshot of the source changes: new, changed, gone, other model.

    Args:
        wanted: what the snapshot showed; None if it does not have the owner.
        kinds: the configured kinds; nothing is said about entities of others.

    Raises:
        WriteFailed: a version has reached its end.
    """
    entities = wanted.entities if wanted is not None else {}
    rows = []
    for (kind, entity_id), entity in entities.items():
        row = note.entities.get((kind, entity_id))
        if row is None:
            _require_room(note.owner_id, (kind, entity_id), note.floor + 1)
            rows.append(
                EntityRow(kind, entity_id, note.floor + 1, entity.fingerprint, model, False)
            )
        elif row.is_deleted or (row.fingerprint, row.model) != (entity.fingerprint, model):
            rows.append(_successor(note.owner_id, row, entity.fingerprint, model))
    for identity, row in note.entities.items():
        if identity not in entities and not row.is_deleted and row.kind in kinds:
            rows.append(_successor(note.owner_id, row))
    return tuple(rows)


def with_rows(rows: Rows, changed: Sequence[EntityRow]) -> dict[Identity, EntityRow]:
    """*rows* with the *changed* ones in their place."""
    return {**rows, **{row[:2]: row for row in changed}}


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderedPlan:
    """A plan whose writes carry versions, with what has to be remembered before it is sent.

    Attributes:
        tombstones: what is left of deleted records, in stores that keep any.
        expected: for each delete, by its vector_id, the row that justifies it.
        raised: rows whose version has to rise first; None if none has to.
        parked: planned writes that are left out, since their records cannot be made.
        is_overtaken: somebody else observed something newer; there is nothing to do but look again.
    """

    plan: Plan
    tombstones: tuple[Tombstone, ...] = ()
    expected: Mapping[str, Expected] = field(default_factory=dict)
    raised: VersionRaise | None = None
    parked: tuple[EntityRow, ...] = ()
    is_overtaken: bool = False

    @property
    def is_empty_for_store(self) -> bool:
        """Whether there is nothing to send, nor anything that could not be."""
        return not (
            self.plan.writes
            or self.plan.deletes
            or self.tombstones
            or self.parked
            or self.is_overtaken
        )


class _Raises:
    """Collects the rows that have to rise."""

    def __init__(self, owner_id: str, rows: Rows) -> None:
        self._owner_id = owner_id
        self._rows = rows
        self.raised: dict[Identity, EntityRow] = {}

    def at_least(self, row: EntityRow, version: int) -> EntityRow:
        """*row* as it is now, raised to *version* if it is lower."""
        identity = row[:2]
        row = self.raised.get(identity, row)
        is_known = identity in self._rows or identity in self.raised
        if row.version >= version and is_known:
            return row
        _require_room(self._owner_id, identity, version)
        self.raised[identity] = row._replace(version=version)
        return self.raised[identity]

    def result(self) -> VersionRaise | None:
        """The compare-and-set to be made."""
        if not self.raised:
            return None
        observed = [self._rows[identity] for identity in self.raised if identity in self._rows]
        return VersionRaise(
            owner_id=self._owner_id, observed=observed, raised=list(self.raised.values())
        )


def order_plan(
    diff: OwnerDiff,
    rows: Rows,
    tombstones: Mapping[str, Tombstone],
    *,
    namespace: str,
    model: str,
    keeps_tombstones: bool,
    force: bool = False,
    retry_parked: bool = False,
    occupied: Mapping[str, int] | None = None,
    is_adopted: bool = False,
) -> OrderedPlan:
    """The repair of *diff*, its versions taken from *rows* and above all that the store holds.

    Args:
        rows: what was observed together with ``diff.wanted``.
        tombstones: those of the owner, by vector_id.
        keeps_tombstones: False where the store shares its transactions with the state: there
            nothing late gets through, so that deletes leave nothing behind.
        force: rewrite and re-embed everything.
        retry_parked: try again what could not be made before.
        occupied: see `plan_owner`.
        is_adopted: records may lie where another program put them.

    Raises:
        WriteFailed: a version has reached its end.
    """
    raises = _Raises(diff.owner_id, rows)
    own = {stamp.vector_id: stamp for stamp in (*diff.kept.values(), *diff.duplicates)}
    also: set[Identity] = set()
    vector_ids: dict[Identity, str] = {}
    if diff.wanted is not None:
        vector_ids = own_vector_ids(diff.owner_id, diff.wanted.entities, namespace)
        for identity, under in vector_ids.items():
            row = rows[identity]
            stored = own.get(under)
            if stored is None and is_adopted:
                stored = _stamped_elsewhere(diff.kept.get(identity), row)
            if stored is not None and stored.version > row.version and _agrees(stored, row):
                raises.at_least(row, stored.version)  # a newer record of the same content
            elif keeps_tombstones and (stored is None or stored.version < row.version):
                also.add(identity)
    under_tombstones = {id_: tombstone.version for id_, tombstone in tombstones.items()}
    plan = plan_owner(
        diff,
        namespace=namespace,
        model=model,
        force=force,
        occupied={**under_tombstones, **(occupied or {})},
        also=also,
        stays=_staying(diff, rows, model, keeps_tombstones=keeps_tombstones) if is_adopted else (),
        vector_ids=vector_ids,
    )
    writes, parked = _with_versions(plan, rows, raises, retry_parked=retry_parked or force)
    deletes, buried, expected = _deletes(
        diff, plan, raises, rows, namespace=namespace, keeps_tombstones=keeps_tombstones
    )
    if keeps_tombstones:
        buried += _lacking_tombstones(diff, rows, tombstones, buried, raises, namespace)
    return OrderedPlan(
        plan=Plan(plan.owner_id, writes, deletes),
        tombstones=tuple(buried),
        expected=expected,
        raised=raises.result(),
        parked=parked,
    )


def _stamped_elsewhere(kept: Stamp | None, row: EntityRow) -> Stamp | None:
    """The record under a foreign vector_id that stands for *row* as it is."""
    return kept if kept is not None and _agrees(kept, row) else None


def _staying(diff: OwnerDiff, rows: Rows, model: str, *, keeps_tombstones: bool) -> set[Identity]:
    """Entities whose record is written where another program put it.

    Where nothing late gets through, all of them. Else late writes of an entity go to its own
    vector_id, and only a newer record that lies there keeps them out, unless there can be none:
    this is the first version that was ever observed, and only a stamp is to be added.
    """
    entities = diff.wanted.entities if diff.wanted is not None else {}
    if not keeps_tombstones:
        return set(entities)
    return {
        identity
        for identity, entity in entities.items()
        if rows[identity].version == 1
        and (kept := diff.kept.get(identity)) is not None
        and (kept.text_hash, kept.model) == (entity.text_hash, model)
    }


def _with_versions(
    plan: Plan, rows: Rows, raises: _Raises, *, retry_parked: bool
) -> tuple[tuple[PlannedWrite, ...], tuple[EntityRow, ...]]:
    """The writes of *plan* with their rows' versions, and the rows that are parked."""
    writes, parked = [], []
    for write in plan.writes:
        identity = (write.stamp.kind, write.stamp.entity_id)
        row = rows[identity]
        if row.is_parked and write.needs_embedding and not retry_parked:
            parked.append(row)
            continue
        # The plan's version is above all that was found in the store; ours is one that counts.
        version = raises.at_least(row, write.stamp.version).version
        if version != write.stamp.version:
            write = write._replace(stamp=write.stamp._replace(version=version))
        writes.append(write)
    if parked:
        writes = [write for write in writes if not write.evicts]
    return tuple(writes), tuple(parked)


def _deletes(
    diff: OwnerDiff,
    plan: Plan,
    raises: _Raises,
    rows: Rows,
    *,
    namespace: str,
    keeps_tombstones: bool,
) -> tuple[tuple[Deletion, ...], list[Tombstone], dict[str, Expected]]:
    found = {stamp.vector_id: stamp for stamp in diff.deletes}
    for deletion in plan.deletes:  # all of them first: an entity may have several records
        _row_of_deleted(found[deletion.vector_id], rows, raises)
    deletes: list[Deletion] = []
    buried: list[Tombstone] = []
    expected: dict[str, Expected] = {}
    for deletion in plan.deletes:
        stamp = found[deletion.vector_id]
        row = _row_of_deleted(stamp, rows, raises)
        expected[deletion.vector_id] = Expected(diff.owner_id, *row.identity, row.version)
        own = vector_id(namespace, stamp.owner_id, stamp.kind, stamp.entity_id)
        if keeps_tombstones and row.is_deleted and own == stamp.vector_id:
            buried.append(Tombstone(own, stamp.owner_id, *row.identity, row.version))
        else:
            deletes.append(deletion)
    return tuple(deletes), buried, expected


def _row_of_deleted(stamp: Stamp, rows: Rows, raises: _Raises) -> EntityRow:
    """The row that justifies a delete of the record with *stamp*, above the record's version."""
    identity = (stamp.kind, stamp.entity_id)
    row = raises.raised.get(identity) or rows.get(identity)
    if row is None:
        row = EntityRow(*identity, 0, "", "", True)
    return raises.at_least(row, stamp.version + 1) if row.is_deleted else row


def _lacking_tombstones(
    diff: OwnerDiff,
    rows: Rows,
    tombstones: Mapping[str, Tombstone],
    buried: Sequence[Tombstone],
    raises: _Raises,
    namespace: str,
) -> list[Tombstone]:
    """Tombstones of deleted entities that the store does not hold, or holds older ones of.

    Until they are collected they keep out writes that are still on their way.
    """
    known = {stone.vector_id for stone in buried}
    lacking = []
    for identity, row in rows.items():
        own = vector_id(namespace, diff.owner_id, *identity)
        if not row.is_deleted or own in known:
            continue
        stone = tombstones.get(own)
        row = raises.raised.get(identity, row)
        if stone is not None and stone.version > row.version:
            raises.at_least(row, stone.version)
        elif stone is None or stone.version < row.version:
            lacking.append(Tombstone(own, diff.owner_id, *identity, row.version))
    entities = diff.wanted.entities if diff.wanted is not None else {}
    for stone in tombstones.values():
        identity = (stone.kind, stone.entity_id)
        if identity not in rows and identity not in entities:
            # Remembered again, so that it is collected one day.
            raises.at_least(EntityRow(*identity, 0, "", "", True), stone.version)
    return lacking


def _agrees(stored: Stamp, row: EntityRow) -> bool:
    return (stored.fingerprint, stored.model) == (row.fingerprint, row.model)


def _successor(owner_id: str, row: EntityRow, fingerprint: str = "", model: str = "") -> EntityRow:
    """The row's next version; without a fingerprint, of a deleted entity."""
    _require_room(owner_id, row.identity, row.version + 1)
    return EntityRow(
        row.kind,
        row.entity_id,
        row.version + 1,
        fingerprint,
        model,
        not fingerprint,
        row.published_version,
    )


def _require_room(owner_id: str, identity: Identity, version: int) -> None:
    if version >= MAX_VERSION:
        raise WriteFailed(
            f"A vector of user {owner_id} cannot be written",
            why=f"the version of {':'.join(identity)} has reached 2**52, which only a change made "
            "by hand does.",
            fix="set the record's version in the vector store to 0 and sync again",
        )
