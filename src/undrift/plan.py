"""What a sync would do about a difference. Pure: a diff in, writes and deletes out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from undrift.diff import OwnerDiff
from undrift.fingerprint import VectorIds
from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.model import Cost, Entity, Stamp
from undrift.ports import Deletion

_CHARACTERS_PER_TOKEN = 4  # a usual estimate for billing; providers count with their own tokenizer


class PlannedWrite(NamedTuple):
    """One record to write.

    Attributes:
        stamp: the record's identity, hashes and new version.
        needs_embedding: False if the stored vector still belongs to the text (a metadata change).
        evicts: under its vector_id lies the only record of another live entity (somebody edited
            keys by hand). That entity is written too, in the same plan, and this write goes only
            together with all others.
    """

    entity: Entity
    stamp: Stamp
    needs_embedding: bool
    evicts: bool = False


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
    also: Collection[tuple[str, str]] = (),
    stays: Collection[tuple[str, str]] = (),
    vector_ids: Mapping[tuple[str, str], str] | None = None,
) -> Plan:
    """The repair of *diff*.

    Args:
        force: rewrite and re-embed every entity, whether it differs or not.
        also: entities to write though they do not differ, embedded only if they have to be.
        stays: entities whose record is written where another program put it; any other is written
            under its own vector_id.
        occupied: versions found under a wanted vector_id in records that claim another owner or
            entity; a write must be newer than they are.
        vector_ids: those of the wanted entities, where the caller has them already.

    Every planned write raises the version above everything known of the entity, so that it is
    never refused but for a newer one (I2).
    """
    wanted = diff.wanted.entities if diff.wanted is not None else {}
    if force:
        rewritten = dict(wanted)
    else:
        pairs = (*diff.changed, *diff.wrong_model, *diff.unknown, *diff.unstamped)
        written = [*diff.missing, *(pair.entity for pair in pairs)]
        written += [wanted[identity] for identity in sorted(also)]
        rewritten = {(entity.kind, entity.entity_id): entity for entity in written}
    if vector_ids is None:
        vector_ids = own_vector_ids(diff.owner_id, wanted, namespace)
    own = {identity: vector_ids[identity] for identity in rewritten}
    own.update({i: diff.kept[i].vector_id for i in own.keys() & set(stays) if i in diff.kept})
    evicted = _add_evicted(rewritten, own, diff, wanted, vector_ids)
    crowds = _by_entity(diff.duplicates)
    versions = _known_versions(diff, occupied or {})
    writes = []
    for identity, entity in rewritten.items():
        kept, under = diff.kept.get(identity), own[identity]
        known = versions.get(under, 0)
        for found in (*crowds.get(identity, ()), *((kept,) if kept is not None else ())):
            known = max(known, found.version)
        stamp = Stamp(
            under,
            namespace,
            entity.owner_id,
            entity.kind,
            entity.entity_id,
            entity.fingerprint,
            entity.text_hash,
            model,
            known + 1,
        )
        keeps_vector = not force and kept is not None and _fits(kept, stamp)
        writes.append(PlannedWrite(entity, stamp, not keeps_vector, under in evicted))
    writes.sort(key=lambda write: write.evicts)
    taken = {write.stamp.vector_id for write in writes}
    deletes = [
        Deletion(stamp.owner_id, stamp.vector_id, stamp.version)
        for stamp in diff.deletes
        if stamp.vector_id not in taken
    ]
    return Plan(diff.owner_id, tuple(writes), tuple(deletes))


def own_vector_ids(
    owner_id: str, identities: Iterable[tuple[str, str]], namespace: str
) -> dict[tuple[str, str], str]:
    """The vector_id that each of an owner's *identities*, ``(kind, entity_id)``, has."""
    ids = VectorIds(namespace, owner_id)
    return {identity: ids.of(*identity) for identity in identities}


def _add_evicted(
    rewritten: dict[tuple[str, str], Entity],
    own: dict[tuple[str, str], str],
    diff: OwnerDiff,
    wanted: Mapping[tuple[str, str], Entity],
    vector_ids: Mapping[tuple[str, str], str],
) -> set[str]:
    """Rewrite, under its own id, every live entity whose only record another write replaces.

    Returns:
        The vector_ids under which such records lie.
    """
    live = {
        stamp.vector_id: identity for identity, stamp in diff.kept.items() if identity in wanted
    }
    if not live:
        return set()
    evicted: set[str] = set()
    pending = list(rewritten)
    while pending:
        identity = pending.pop()
        holder = live.get(own[identity], identity)
        if holder == identity:
            continue
        evicted.add(own[identity])
        if holder not in rewritten:
            rewritten[holder] = wanted[holder]
            own[holder] = vector_ids[holder]
            pending.append(holder)
    return evicted


def _known_versions(diff: OwnerDiff, occupied: Mapping[str, int]) -> dict[str, int]:
    """The versions found under each vector_id, whatever entity the record is of."""
    versions = dict(occupied)
    for stamp in (*diff.kept.values(), *diff.duplicates):
        versions[stamp.vector_id] = max(stamp.version, versions.get(stamp.vector_id, 0))
    return versions


def _fits(kept: Stamp, new: Stamp) -> bool:
    """Whether the vector of *kept* is the one that *new* needs."""
    return (kept.vector_id, kept.text_hash, kept.model) == (
        new.vector_id,
        new.text_hash,
        new.model,
    )


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
