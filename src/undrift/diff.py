"""How one owner's two sides differ. Pure: no I/O, no clock, no order of its inputs matters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from undrift.adoption import UNSTATED_MODEL, Adoption
from undrift.fingerprint import vector_id
from undrift.model import Entity, EntityId, Outcome, Stamp, SyncStatus, Wanted

T = TypeVar("T")


class Pair(NamedTuple):
    """An entity and the record that stands for it."""

    entity: Entity
    stamp: Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerDiff:
    """Everything in which an owner's source and store differ.

    Attributes:
        wanted: the source's side; None if the source does not have the owner.
        kept: the record that stands for each entity, stale ones included.
        missing: entities without a record, or whose record has lost its vector.
        stale: records without an entity.
        changed: pairs whose fingerprints differ.
        wrong_model: pairs whose record was embedded by another model; they may be changed too.
        duplicates: records besides the kept one, by the entity that is kept.
        parts: records besides the kept one, of entities that another program stored in parts.
        unknown: pairs whose record another program wrote, and nothing says of what content or of
            which model it is.
        unstamped: pairs whose record another program wrote from the very text, by the current
            model; it only lacks a stamp, which is no difference.
        store_counts: managed records by kind.
        foreign_kinds: records of kinds that are not configured; unmanaged.
    """

    owner_id: str
    wanted: Wanted | None
    kept: Mapping[tuple[str, str], Stamp]
    missing: tuple[Entity, ...] = ()
    stale: tuple[Stamp, ...] = ()
    changed: tuple[Pair, ...] = ()
    wrong_model: tuple[Pair, ...] = ()
    duplicates: tuple[Stamp, ...] = ()
    parts: tuple[Stamp, ...] = ()
    unknown: tuple[Pair, ...] = ()
    unstamped: tuple[Pair, ...] = ()
    store_counts: Mapping[str, int]
    foreign_kinds: int = 0

    @property
    def has_drifted(self) -> bool:
        """Whether the two sides were seen to differ."""
        return bool(
            self.missing or self.stale or self.changed or self.wrong_model or self.duplicates
        )

    @property
    def is_clean(self) -> bool:
        """Whether the two sides were seen to agree."""
        return not (self.has_drifted or self.unknown)

    @property
    def is_complete(self) -> bool:
        """Whether a repair has nothing left to write: they agree, and every record says so."""
        return self.is_clean and not self.unstamped

    @property
    def deletes(self) -> tuple[Stamp, ...]:
        """Records that a repair removes."""
        return self.stale + self.duplicates

    @property
    def is_unknown_to_both(self) -> bool:
        """Whether neither side has this owner; unmanaged records are no side."""
        return self.wanted is None and not self.kept


def diff_owner(
    owner_id: str,
    wanted: Wanted | None,
    stamps: Sequence[Stamp],
    *,
    model: str,
    kinds: Collection[str],
    adoption: Adoption | None = None,
) -> OwnerDiff:
    """Compare what the source wants with what the store has.

    Args:
        wanted: None if a complete read of the source does not show the owner.
        stamps: every stamp of the owner in the namespace.
        model: the identity that current embeddings carry.
        kinds: the configured kinds; records of other kinds are unmanaged.
        adoption: set where records may be another program's, without a fingerprint.
    """
    if wanted is not None:
        agreed = _agreement(owner_id, wanted, stamps, model)
        if agreed is not None:
            return agreed
    listed: dict[str, Stamp] = {}
    for stamp in stamps:
        # A record that is written during an enumeration may be listed twice; it is one record.
        other = listed.setdefault(stamp.vector_id, stamp)
        if other.version < stamp.version:
            listed[stamp.vector_id] = stamp
    kept: dict[tuple[str, str], Stamp] = {}
    crowds: dict[tuple[str, str], list[Stamp]] = {}
    foreign_kinds = 0
    for stamp in listed.values():
        if stamp.kind not in kinds:
            foreign_kinds += 1
            continue
        identity = (stamp.kind, stamp.entity_id)
        other = kept.setdefault(identity, stamp)
        if other is not stamp:
            crowds.setdefault(identity, [other]).append(stamp)
    entities = wanted.entities if wanted is not None else {}
    if adoption is None:
        superfluous, parts = _settle_crowds(kept, crowds), list[Stamp]()
    else:
        superfluous, parts = _settle_adopted(kept, crowds, entities, adoption)
    in_parts = {(part.kind, part.entity_id) for part in parts}
    found = _compared(entities, kept, model, adoption, in_parts)
    stale = [stamp for identity, stamp in kept.items() if identity not in entities]
    duplicates = [s for s in superfluous if (s.kind, s.entity_id) in entities]
    stale.extend(s for s in superfluous if (s.kind, s.entity_id) not in entities)
    managed = (*kept.values(), *superfluous, *parts)
    counts = Counter([stamp.kind for stamp in managed if stamp.model])
    return OwnerDiff(
        owner_id=owner_id,
        wanted=wanted,
        kept=kept,
        missing=tuple(found.missing),
        stale=tuple(stale),
        changed=tuple(found.changed),
        wrong_model=tuple(found.wrong_model),
        duplicates=tuple(duplicates),
        parts=tuple(parts),
        unknown=tuple(found.unknown),
        unstamped=tuple(found.unstamped),
        store_counts=dict(counts),
        foreign_kinds=foreign_kinds,
    )


@dataclass(slots=True)
class _Compared:
    """How the entities' records differ; see `OwnerDiff`."""

    missing: list[Entity] = field(default_factory=list)
    changed: list[Pair] = field(default_factory=list)
    wrong_model: list[Pair] = field(default_factory=list)
    unknown: list[Pair] = field(default_factory=list)
    unstamped: list[Pair] = field(default_factory=list)


def _compared(
    entities: Mapping[tuple[str, str], Entity],
    kept: Mapping[tuple[str, str], Stamp],
    model: str,
    adoption: Adoption | None,
    in_parts: Collection[tuple[str, str]],
) -> _Compared:
    found = _Compared()
    for identity, entity in entities.items():
        record = kept.get(identity)
        if record is None or not record.model:
            found.missing.append(entity)  # what has lost its vector cannot be found either
        elif adoption is not None and not record.fingerprint:
            _judge_unstamped(found, Pair(entity, record), model, is_whole=identity not in in_parts)
        else:
            if record.fingerprint != entity.fingerprint:
                found.changed.append(Pair(entity, record))
            if record.model != model:
                found.wrong_model.append(Pair(entity, record))
    return found


def _judge_unstamped(found: _Compared, pair: Pair, model: str, *, is_whole: bool) -> None:
    """What can be said of a record that another program wrote, by its text and model alone.

    Args:
        is_whole: it is the entity's only one; what parts were made from cannot be told.
    """
    entity, record = pair
    is_other = record.model not in (model, UNSTATED_MODEL)
    if is_other:
        found.wrong_model.append(pair)
    if not is_whole:
        found.unknown.append(pair)
    elif record.text_hash and record.text_hash != entity.text_hash:
        found.changed.append(pair)
    elif not is_other:
        is_known = record.text_hash and record.model == model
        (found.unstamped if is_known else found.unknown).append(pair)


def _agreement(
    owner_id: str, wanted: Wanted, stamps: Sequence[Stamp], model: str
) -> OwnerDiff | None:
    """The clean diff of an owner whose sides agree, else None.

    Nearly every owner of a fleet agrees, and seeing that takes a third of the time of finding out
    how it does not.
    """
    entities = wanted.entities
    if len(stamps) != len(entities):
        return None
    kept = {(stamp.kind, stamp.entity_id): stamp for stamp in stamps}
    if len(kept) != len(entities):
        return None
    for identity, entity in entities.items():
        stamp = kept.get(identity)
        if stamp is None or stamp.fingerprint != entity.fingerprint or stamp.model != model:
            return None
    counts = wanted.counts if not wanted.without_text else Counter([kind for kind, _ in kept])
    return OwnerDiff(owner_id=owner_id, wanted=wanted, kept=kept, store_counts=dict(counts))


def _settle_crowds(
    kept: dict[tuple[str, str], Stamp], crowds: Mapping[tuple[str, str], list[Stamp]]
) -> list[Stamp]:
    """Keep one record for each entity and return the others.

    The one under the entity's own vector_id is kept, since every write goes there; without it the
    newest.
    """
    superfluous: list[Stamp] = []
    for identity, crowd in crowds.items():
        first = crowd[0]
        own = vector_id(first.namespace, first.owner_id, first.kind, first.entity_id)
        best = max(
            crowd, key=lambda stamp: (stamp.vector_id == own, stamp.version, stamp.vector_id)
        )
        kept[identity] = best
        superfluous.extend(stamp for stamp in crowd if stamp is not best)
    return superfluous


def _settle_adopted(
    kept: dict[tuple[str, str], Stamp],
    crowds: Mapping[tuple[str, str], list[Stamp]],
    entities: Mapping[tuple[str, str], Entity],
    adoption: Adoption,
) -> tuple[list[Stamp], list[Stamp]]:
    """As `_settle_crowds`, where several records of another program may be parts of one entity.

    A record that undrift wrote stands for the whole entity; then the parts are superfluous.

    Returns:
        The superfluous records, and those besides the kept one that are parts.
    """
    superfluous: list[Stamp] = []
    parts: list[Stamp] = []
    for identity, crowd in crowds.items():
        first, entity = crowd[0], entities.get(identity)
        own = vector_id(first.namespace, first.owner_id, first.kind, first.entity_id)
        text_hash = entity.text_hash if entity is not None else None
        ranks = {
            (s.vector_id == own, bool(s.fingerprint), s.text_hash == text_hash, s.version, s): s
            for s in crowd
        }
        best = ranks[max(ranks)]
        kept[identity] = best
        is_in_parts = adoption.has_parts and entity is not None and not best.fingerprint
        others = parts if is_in_parts else superfluous
        others.extend(stamp for stamp in crowd if stamp is not best)
    return superfluous, parts


def standing(first: OwnerDiff, second: OwnerDiff) -> OwnerDiff:
    """What stands in both looks: the same entity wanted, the same record found.

    A difference that is not in both was in motion: the source or the store changed in between.
    Counts are the second look's.
    """
    return OwnerDiff(
        owner_id=second.owner_id,
        wanted=second.wanted,
        kept=second.kept,
        missing=_both(first.missing, second.missing),
        stale=_both(first.stale, second.stale),
        changed=_both(first.changed, second.changed),
        wrong_model=_both(first.wrong_model, second.wrong_model),
        duplicates=_both(first.duplicates, second.duplicates),
        parts=second.parts,
        unknown=_both(first.unknown, second.unknown),
        unstamped=second.unstamped,
        store_counts=second.store_counts,
        foreign_kinds=second.foreign_kinds,
    )


def _both(first: Sequence[T], second: Sequence[T]) -> tuple[T, ...]:
    seen = set(first)
    return tuple(item for item in second if item in seen)


def status_of(diff: OwnerDiff, *, unmanaged: int, notes: tuple[str, ...] = ()) -> SyncStatus:
    """The status that *diff* amounts to.

    Args:
        unmanaged: records of the owner outside the namespace.
    """
    if diff.is_unknown_to_both:
        outcome = Outcome.NOT_FOUND
    elif diff.has_drifted:
        outcome = Outcome.DRIFT
    else:
        outcome = Outcome.UNKNOWN if diff.unknown else Outcome.IN_SYNC
    wanted = diff.wanted
    return SyncStatus(
        owner_id=diff.owner_id,
        outcome=outcome,
        source=dict(wanted.counts) if wanted is not None else {},
        store=diff.store_counts,
        missing_ids=_ids(diff.missing),
        stale_ids=_ids(diff.stale),
        changed_ids=_ids(pair.entity for pair in diff.changed),
        wrong_model_ids=_ids(pair.entity for pair in diff.wrong_model),
        duplicate_ids=_ids(diff.duplicates),
        unknown_ids=_ids(pair.entity for pair in diff.unknown),
        unstamped=len(diff.unstamped),
        orphan_owner=wanted is None and bool(diff.stale),
        without_text=wanted.without_text if wanted is not None else 0,
        unmanaged=unmanaged + diff.foreign_kinds,
        notes=notes,
    )


def _ids(items: Iterable[Entity | Stamp]) -> tuple[EntityId, ...]:
    return tuple(sorted({item.key for item in items}))
