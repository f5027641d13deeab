"""How one owner's two sides differ. Pure: no I/O, no clock, no order of its inputs matters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

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
    store_counts: Mapping[str, int]
    foreign_kinds: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether the two sides agree."""
        return not (
            self.missing or self.stale or self.changed or self.wrong_model or self.duplicates
        )

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
) -> OwnerDiff:
    """Compare what the source wants with what the store has.

    Args:
        wanted: None if a complete read of the source does not show the owner.
        stamps: every stamp of the owner in the namespace.
        model: the identity that current embeddings carry.
        kinds: the configured kinds; records of other kinds are unmanaged.
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
    superfluous = _settle_crowds(kept, crowds)

    entities = wanted.entities if wanted is not None else {}
    missing: list[Entity] = []
    changed: list[Pair] = []
    wrong_model: list[Pair] = []
    for identity, entity in entities.items():
        record = kept.get(identity)
        if record is None or not record.model:
            missing.append(entity)  # a record that has lost its vector cannot be found either
            continue
        if record.fingerprint != entity.fingerprint:
            changed.append(Pair(entity, record))
        if record.model != model:
            wrong_model.append(Pair(entity, record))
    stale = [stamp for identity, stamp in kept.items() if identity not in entities]
    duplicates = [s for s in superfluous if (s.kind, s.entity_id) in entities]
    stale.extend(s for s in superfluous if (s.kind, s.entity_id) not in entities)
    counts = Counter([stamp.kind for stamp in (*kept.values(), *superfluous) if stamp.model])
    return OwnerDiff(
        owner_id=owner_id,
        wanted=wanted,
        kept=kept,
        missing=tuple(missing),
        stale=tuple(stale),
        changed=tuple(changed),
        wrong_model=tuple(wrong_model),
        duplicates=tuple(duplicates),
        store_counts=dict(counts),
        foreign_kinds=foreign_kinds,
    )


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
    else:
        outcome = Outcome.IN_SYNC if diff.is_clean else Outcome.DRIFT
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
        orphan_owner=wanted is None and bool(diff.stale),
        without_text=wanted.without_text if wanted is not None else 0,
        unmanaged=unmanaged + diff.foreign_kinds,
        notes=notes,
    )


def _ids(items: Iterable[Entity | Stamp]) -> tuple[EntityId, ...]:
    return tuple(sorted({item.key for item in items}))
