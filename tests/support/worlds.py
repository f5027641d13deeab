"""Owners whose two sides differ in planted ways, and a store to repair them in.

For the property tests of `diff` and `plan`: hypothesis draws a `World`, which knows what a diff of
it must find, because it was planted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from random import Random
from uuid import UUID

from hypothesis import strategies as st

from undrift.diff import OwnerDiff, diff_owner
from undrift.fingerprint import fingerprint, text_hash, vector_id
from undrift.model import Entity, Stamp, Wanted
from undrift.plan import Plan, PlannedWrite
from undrift.ports import Deletion

OWNER = "ann"
NAMESPACE = "default"
MODEL = "test/model@1:3"
OTHER_MODEL = "test/model@2:3"
NO_VECTOR = ""
"""The model of a record that has lost its vector: no search finds it."""
KINDS = ("note", "part")

Identity = tuple[str, str]


def entity(kind: str, entity_id: str, text: str = "A", title: str = "T") -> Entity:
    """An entity as rendering makes it."""
    metadata = f'{{"title":"{title}"}}'
    return Entity(
        kind,
        entity_id,
        OWNER,
        text,
        metadata,
        text_hash(text.encode()),
        fingerprint(kind, entity_id, OWNER, text.encode(), metadata),
    )


def stamp_of(
    what: Entity, *, version: int = 1, model: str = MODEL, under: str | None = None
) -> Stamp:
    """The stamp of a record of *what*, under its own vector_id or another."""
    own = vector_id(NAMESPACE, what.owner_id, what.kind, what.entity_id)
    return Stamp(
        under or own,
        NAMESPACE,
        what.owner_id,
        what.kind,
        what.entity_id,
        what.fingerprint,
        what.text_hash,
        model,
        version,
    )


def wanted_of(entities: Iterable[Entity], *, without_text: int = 0) -> Wanted:
    """The source's side."""
    by_identity = {(e.kind, e.entity_id): e for e in entities}
    counts: dict[str, int] = {}
    for kind, _ in by_identity:
        counts[kind] = counts.get(kind, 0) + 1
    return Wanted(OWNER, by_identity, counts, without_text)


def difference(wanted: Wanted | None, stamps: Iterable[Stamp]) -> OwnerDiff:
    """What `diff_owner` finds."""
    return diff_owner(OWNER, wanted, list(stamps), model=MODEL, kinds=KINDS)


@dataclass
class World:
    """One owner's two sides, and what was planted in them."""

    wanted: list[Entity] = field(default_factory=list)
    stamps: list[Stamp] = field(default_factory=list)
    missing: set[Identity] = field(default_factory=set)
    changed: set[Identity] = field(default_factory=set)
    wrong_model: set[Identity] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)
    duplicates: set[str] = field(default_factory=set)
    foreign: int = 0

    @property
    def diff(self) -> OwnerDiff:
        """The difference of the two sides."""
        return difference(wanted_of(self.wanted), self.stamps)

    def shuffled(self, random: Random) -> World:
        """The same world, each side in another order."""
        return replace(
            self,
            wanted=random.sample(self.wanted, len(self.wanted)),
            stamps=random.sample(self.stamps, len(self.stamps)),
        )


_TEXTS = st.sampled_from(["A", "B", "C"])
_TITLES = st.sampled_from(["T", "U"])
_VERSIONS = st.integers(1, 6)
_MODELS = st.sampled_from([MODEL, MODEL, OTHER_MODEL, NO_VECTOR])


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any mixture of everything that can be wrong with an owner."""
    world = World()
    numbers = iter(range(1, 1000))
    for kind in KINDS:
        for number in range(draw(st.integers(0, 4))):
            _plant(draw, world, (kind, str(number)), numbers)
    for number in range(draw(st.integers(0, 2))):
        world.stamps.append(stamp_of(entity("unconfigured", str(number))))
        world.foreign += 1
    return world


def _plant(draw: st.DrawFn, world: World, identity: Identity, numbers: Iterator[int]) -> None:
    """Draw one entity's two sides, and note what a diff must say of them."""
    content = st.builds(entity, st.just(identity[0]), st.just(identity[1]), _TEXTS, _TITLES)
    # A record may be up to date, stand under a foreign vector_id, or both, or there is none.
    own = [stamp_of(draw(content), version=draw(_VERSIONS), model=draw(_MODELS))]
    own = own if draw(st.booleans()) else []
    others = [
        stamp_of(
            draw(content),
            version=draw(_VERSIONS),
            model=draw(_MODELS),
            under=str(UUID(int=next(numbers))),
        )
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2])))
    ]
    records = own + others
    world.stamps += records
    wanted = draw(st.one_of(st.none(), content))
    if wanted is None:
        world.stale |= {record.vector_id for record in records}
        return
    world.wanted.append(wanted)
    if not records:
        world.missing.add(identity)
        return
    stands = own[0] if own else max(others, key=lambda s: (s.version, s.vector_id))
    world.duplicates |= {record.vector_id for record in records if record is not stands}
    if stands.model == NO_VECTOR:
        world.missing.add(identity)
        return
    if stands.fingerprint != wanted.fingerprint:
        world.changed.add(identity)
    if stands.model != MODEL:
        world.wrong_model.add(identity)


# --- a store in memory ------------------------------------------------------------------------


class ModelStore:
    """The rules of a conditional store, and nothing else.

    A write applies where the stored version is older or absent; one without an embedding only
    where the stored vector is that of its text and model. A delete applies where owner and version
    are still the named ones.
    """

    def __init__(self, stamps: Iterable[Stamp]) -> None:
        self.records = {stamp.vector_id: stamp for stamp in stamps}

    def write(self, write: PlannedWrite) -> None:
        """Apply one conditional write."""
        new = write.stamp
        stored = self.records.get(new.vector_id)
        if stored is not None and stored.version >= new.version:
            return
        if not write.needs_embedding and (
            stored is None or (stored.text_hash, stored.model) != (new.text_hash, new.model)
        ):
            return
        self.records[new.vector_id] = new

    def delete(self, deletion: Deletion) -> None:
        """Apply one conditional delete."""
        stored = self.records.get(deletion.vector_id)
        if stored is not None and (stored.owner_id, stored.version) == (
            deletion.owner_id,
            deletion.version,
        ):
            del self.records[deletion.vector_id]

    def apply(self, plan: Plan) -> Iterator[None]:
        """Apply *plan* step by step, in the order a publish may take; yields after each step."""
        for write in plan.writes:
            self.write(write)
            yield
        for deletion in plan.deletes:
            self.delete(deletion)
            yield

    def searchable(self) -> set[Identity]:
        """The entities that a search can find."""
        records = self.records.values()
        return {(stamp.kind, stamp.entity_id) for stamp in records if stamp.model != NO_VECTOR}
