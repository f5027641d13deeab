"""What a sync would do about a difference. Pure: a diff in, writes and deletes out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from undrift.diff import OwnerDiff
from undrift.fingerprint import vector_id
from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.model import Cost, Entity, Stamp
from undrift.ports import Deletion

_CHARACTERS_PER_TOKEN = 4  # a usual estimate for billing; providers count with their own tokenizer


class PlannedWrite(NamedTuple):
    """One record to write.

    Attributes:
        stamp: the record's identity, hashes and new version.
        needs_embedding: False if the stored vector still belongs to the text (a metadata change).
    """

    entity: Entity
    stamp: Stamp
    needs_embedding: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """All writes and deletes for one owner; deletes come after the writes.

    A record that stands for an entity under a foreign vector_id is not among the deletes when the
    entity is written anew: only when the read-back shows the new one is the old one a duplicate,
    and the next round removes it (I1).
    """

    owner_id: str
    writes: tuple[PlannedWrite, ...]
    deletes: tuple[Deletion, ...]


def plan_owner(
    diff: OwnerDiff,
    *,
    namespace: str,
    model: str,
    force: bool = False,
    occupied: Mapping[str, int] | None = None,
) -> Plan:
    """The repair of *diff*.

    Args:
        force: rewrite and re-embed every entity, whether it differs or not.
        occupied: versions found under a wanted vector_id in records that claim another owner or
            entity; a write must be newer than they are.

    Every planned write raises the version above everything known of the entity, so that it is
    never refused but for a newer one (I2).
    """
    wanted = diff.wanted
    if force and wanted is not None:
        rewritten: Iterable[Entity] = wanted.entities.values()
    else:
        changed = {(p.entity.kind, p.entity.entity_id): p.entity for p in diff.changed}
        changed.update({(p.entity.kind, p.entity.entity_id): p.entity for p in diff.wrong_model})
        rewritten = [*diff.missing, *changed.values()]
    crowds = _by_entity(diff.duplicates)
    writes = [
        _write(
            entity,
            kept=diff.kept.get((entity.kind, entity.entity_id)),
            others=crowds.get((entity.kind, entity.entity_id), ()),
            namespace=namespace,
            model=model,
            force=force,
            occupied=occupied or {},
        )
        for entity in rewritten
    ]
    deletes = [Deletion(s.owner_id, s.vector_id, s.version) for s in diff.deletes]
    return Plan(diff.owner_id, tuple(writes), tuple(deletes))


def _write(
    entity: Entity,
    *,
    kept: Stamp | None,
    others: Sequence[Stamp],
    namespace: str,
    model: str,
    force: bool,
    occupied: Mapping[str, int],
) -> PlannedWrite:
    own = vector_id(namespace, entity.owner_id, entity.kind, entity.entity_id)
    known = [stamp.version for stamp in others]
    if kept is not None:
        known.append(kept.version)
    stamp = Stamp(
        own,
        namespace,
        entity.owner_id,
        entity.kind,
        entity.entity_id,
        entity.fingerprint,
        entity.text_hash,
        model,
        max([0, occupied.get(own, 0), *known]) + 1,
    )
    keeps_vector = (
        not force
        and kept is not None
        and kept.vector_id == own
        and kept.text_hash == entity.text_hash
        and kept.model == model
    )
    return PlannedWrite(entity, stamp, not keeps_vector)


def _by_entity(stamps: Iterable[Stamp]) -> dict[tuple[str, str], list[Stamp]]:
    grouped: dict[tuple[str, str], list[Stamp]] = {}
    for stamp in stamps:
        grouped.setdefault((stamp.kind, stamp.entity_id), []).append(stamp)
    return grouped


def texts_to_embed(plans: Iterable[Plan]) -> dict[str, str]:
    """The distinct texts that *plans* need embedded, by text_hash.

    Order:
        That of the plans and their writes.
    """
    return {
        write.stamp.text_hash: write.entity.text
        for plan in plans
        for write in plan.writes
        if write.needs_embedding
    }


def cost_of(plan: Plan, *, already_counted: set[str]) -> Cost:
    """What *plan* would cost.

    Args:
        already_counted: hashes of texts that earlier plans of the run pay for; this plan's are
            added to it.
    """
    texts = {h: t for h, t in texts_to_embed([plan]).items() if h not in already_counted}
    already_counted.update(texts)
    return Cost(
        texts=len(texts),
        tokens=sum(_tokens(text) for text in texts.values()),
        writes=len(plan.writes),
        deletes=len(plan.deletes),
    )


def _tokens(text: str) -> int:
    characters = min(len(text), MAX_EMBEDDED_CHARACTERS)
    return -(-characters // _CHARACTERS_PER_TOKEN)
