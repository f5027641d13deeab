"""The words undrift speaks in: entities, stamps, drift and what a run reports.

Values only, no behaviour that touches the world. `Entity` and `Stamp` are named tuples, because a
fleet run makes one of each per vector: a frozen dataclass costs three times as much to build.
Everything made once per owner is a frozen dataclass.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from undrift.errors import UndriftError

NOT_CREATED = "store not created yet"
"""The note of a run that found no store."""


class EntityId(str):
    """An entity's name within its owner, printed and serialised as ``kind:id``.

    A plain ``str`` to everything that only prints or compares it. A kind never holds a colon, so
    the first colon separates the two parts whatever the id holds.
    """

    __slots__ = ()

    @classmethod
    def of(cls, kind: str, entity_id: str) -> EntityId:
        """Join *kind* and *entity_id*."""
        return cls(f"{kind}:{entity_id}")

    @property
    def kind(self) -> str:
        """The part before the first colon."""
        return self.partition(":")[0]

    @property
    def id(self) -> str:
        """The part after the first colon."""
        return self.partition(":")[2]


class Entity(NamedTuple):
    """One thing of the source that gets one embedding.

    Attributes:
        kind: ``experience``, ``project``, …
        entity_id: unique per owner and kind.
        owner_id: the owner as the source's row spells it.
        text: the whole rendered text; empty when nothing is to be embedded.
        metadata_json: canonical JSON object (sorted keys, no spaces), as it is stored.
        text_hash: hash of the text that is embedded; equal hashes share one embedding.
        fingerprint: hash of everything a record holds; equal fingerprints mean equal records.
    """

    kind: str
    entity_id: str
    owner_id: str
    text: str
    metadata_json: str
    text_hash: str
    fingerprint: str

    @property
    def key(self) -> EntityId:
        """The printed identity, ``kind:id``."""
        return EntityId.of(self.kind, self.entity_id)

    @property
    def metadata(self) -> dict[str, object]:
        """The metadata, decoded."""
        decoded: dict[str, object] = json.loads(self.metadata_json)
        return decoded


class Stamp(NamedTuple):
    """What a store says of one record, without its vector and its text.

    Attributes:
        vector_id: the record's primary key, a UUID in canonical spelling.
        version: grows with every write of the record, below 2**52; says order, nothing else.
        model: the identity of the embedding the record carries; empty if its vector is gone.
    """

    vector_id: str
    namespace: str
    owner_id: str
    kind: str
    entity_id: str
    fingerprint: str
    text_hash: str
    model: str
    version: int

    @property
    def key(self) -> EntityId:
        """The printed identity of the entity this record stands for, ``kind:id``."""
        return EntityId.of(self.kind, self.entity_id)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the source wants the store to hold for one owner.

    Attributes:
        entities: by ``(kind, entity_id)``; only those with a text.
        counts: entities in the source by kind, those without a text included.
        without_text: entities that render to an empty text, so that no record is wanted.
    """

    owner_id: str
    entities: Mapping[tuple[str, str], Entity]
    counts: Mapping[str, int]
    without_text: int = 0


@dataclass(frozen=True, slots=True)
class Outline:
    """What a `Wanted` says, for whom fingerprints are enough; making one takes less time.

    Attributes:
        fingerprints: by ``(kind, entity_id)``; only of entities with a text.
        counts: as in `Wanted`.
        without_text: as in `Wanted`.
    """

    owner_id: str
    fingerprints: Mapping[tuple[str, str], str]
    counts: Mapping[str, int]
    without_text: int = 0


class Outcome(StrEnum):
    """What is known of an owner after a run."""

    IN_SYNC = "in_sync"
    DRIFT = "drift"
    IN_MOTION = "in_motion"
    UNKNOWN = "unknown"
    NOT_FOUND = "not_found"
    FAILED = "failed"


class Read(StrEnum):
    """What a run read; only ``full`` and ``digests`` can say "in sync"."""

    FULL = "full"
    DIGESTS = "digests"
    CHANGED = "changed"
    SAMPLE = "sample"


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncStatus:
    """How one owner's source and store differ.

    Attributes:
        source: entities in the source, by kind.
        store: managed records in the store, by kind.
        missing_ids: in the source, not in the store.
        stale_ids: in the store, not in the source.
        changed_ids: in both, with different content.
        wrong_model_ids: in both, embedded by another model of the same dimension.
        duplicate_ids: entities with more than one record.
        unknown_ids: entities whose record another program wrote, and nothing says what it was made
            from: never in sync, and not drift.
        unstamped: records that another program wrote from the very text; a sync stamps them.
        orphan_owner: the source does not have this owner, the store does.
        without_text: entities that render to nothing, so that no vector is wanted.
        unmanaged: records of this owner that undrift neither judges nor touches.
        against: what the store was compared with, ``source``, or ``profile`` where the caller gave
            it and no difference called for a look at the source.
        error: why the outcome is ``unknown`` or ``failed``.
        notes: what a person should know besides, such as "store not created yet".

    Order:
        Every list of ids is sorted.
    """

    owner_id: str
    outcome: Outcome
    source: Mapping[str, int] = field(default_factory=dict)
    store: Mapping[str, int] = field(default_factory=dict)
    missing_ids: tuple[EntityId, ...] = ()
    stale_ids: tuple[EntityId, ...] = ()
    changed_ids: tuple[EntityId, ...] = ()
    wrong_model_ids: tuple[EntityId, ...] = ()
    duplicate_ids: tuple[EntityId, ...] = ()
    unknown_ids: tuple[EntityId, ...] = ()
    unstamped: int = 0
    orphan_owner: bool = False
    without_text: int = 0
    unmanaged: int = 0
    read: Read = Read.FULL
    against: str = "source"
    error: UndriftError | None = None
    notes: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:
        """By its values, ids as plain text: pages of these go from process to process."""
        return _received, ([list(map(str, ids)) for ids in _IDS(self)], _OTHERS(self))

    def of(self, owner_id: str) -> SyncStatus:
        """The same of another owner; `dataclasses.replace` takes five times as long."""
        made = object.__new__(SyncStatus)
        for put, value in zip(_PUTS, _VALUES(self), strict=True):
            put(made, value)
        _PUT_OWNER(made, owner_id)
        return made

    @property
    def is_in_sync(self) -> bool:
        """Whether both sides were read and agree."""
        return self.outcome is Outcome.IN_SYNC

    @property
    def in_sync(self) -> bool | None:
        """True, False, or None when undrift could not tell (unknown, in motion, not found)."""
        if self.outcome is Outcome.IN_SYNC:
            return True
        return False if self.outcome in (Outcome.DRIFT, Outcome.FAILED) else None

    @classmethod
    def unknown(cls, owner_id: str, error: UndriftError) -> SyncStatus:
        """The status of an owner that could not be looked at."""
        return cls(owner_id=owner_id, outcome=Outcome.UNKNOWN, error=error)


_NAMES = [each.name for each in fields(SyncStatus)]
_ID_NAMES = [name for name in _NAMES if name.endswith("_ids")]
_OTHER_NAMES = [name for name in _NAMES if not name.endswith("_ids")]
_IDS, _OTHERS = attrgetter(*_ID_NAMES), attrgetter(*_OTHER_NAMES)
_VALUES = attrgetter(*_NAMES)
_PUTS = [getattr(SyncStatus, name).__set__ for name in _NAMES]
_PUT_OWNER = _PUTS[_NAMES.index("owner_id")]


def _received(ids: Sequence[Sequence[str]], others: Sequence[Any]) -> SyncStatus:
    """A status that another process has sent."""
    values: dict[str, Any] = dict(zip(_OTHER_NAMES, others, strict=True))
    for name, each in zip(_ID_NAMES, ids, strict=True):
        if each:
            values[name] = tuple(map(EntityId, each))
    return SyncStatus(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a plan would do.

    Attributes:
        texts: distinct texts to embed.
        tokens: an estimate for those texts, at four characters a token.
        writes: records to write.
        deletes: records to delete.
    """

    texts: int = 0
    tokens: int = 0
    writes: int = 0
    deletes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            texts=self.texts + other.texts,
            tokens=self.tokens + other.tokens,
            writes=self.writes + other.writes,
            deletes=self.deletes + other.deletes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReport:
    """What a sync did for one owner, and what it proved.

    Attributes:
        outcome: ``in_sync`` only when both sides were read again afterwards and agree.
        before: what the look before the first write showed.
        skipped: the owner was in sync already and nothing was written.
        written: records written and read back.
        deleted: records deleted and seen to be gone.
        embedded: texts this owner's repair paid for.
        truncated: texts of which the model read only the beginning.
        verified: both sides were read again after the last write and agree.
        against: what the result was verified against, ``source`` or ``profile``.
        cost: of a dry run, the plan's cost; nothing was written.
        error: why the outcome is ``failed`` or ``unknown``.
    """

    owner_id: str
    outcome: Outcome
    before: SyncStatus
    skipped: bool = False
    written: int = 0
    deleted: int = 0
    embedded: int = 0
    truncated: int = 0
    verified: bool = False
    against: str = "source"
    dry_run: bool = False
    cost: Cost = field(default_factory=Cost)
    read: Read = Read.FULL
    error: UndriftError | None = None

    @property
    def is_in_sync(self) -> bool:
        """Whether the owner was in sync when the run ended."""
        return self.outcome is Outcome.IN_SYNC


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One search result, joined to the source.

    Attributes:
        score: cosine similarity, 1.0 is the same direction.
        text: the source's text as it is now, whatever the store holds.
        changed: the store's record is older than the source, so the score belongs to an old text.
    """

    owner_id: str
    key: EntityId
    score: float
    text: str
    metadata: Mapping[str, object]
    changed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """What a search returns.

    Attributes:
        hits: best first; never an entity that the source does not have.
        stale_ids: what the store offered and the source no longer has.
        healing: what was set off because the search met drift; None if it met none.
        notes: what a person should know besides, such as "store not created yet".
    """

    owner_id: str
    query: str
    hits: tuple[Hit, ...]
    stale_ids: tuple[EntityId, ...] = ()
    healing: Healing | None = None
    notes: tuple[str, ...] = ()

    @property
    def met_drift(self) -> bool:
        """Whether the store offered something that is gone, or older than the source."""
        return bool(self.stale_ids) or any(hit.changed for hit in self.hits)


# --- heal and resolve -------------------------------------------------------------------------


class Healing(StrEnum):
    """What became of the repair that a reader set off."""

    HEALED = "healed"
    """The owner was out of sync; it is repaired, and both sides were read again."""
    NOT_NEEDED = "not_needed"
    """Both sides were read and agree."""
    PENDING = "pending"
    """It goes on in the background."""
    COOLING_DOWN = "cooling_down"
    """The last one has only just ended, so no other was begun."""
    SWITCHED_OFF = "switched_off"
    """Nothing is repaired by itself here, as in a test environment."""
    FAILED = "failed"
    """It could not look, write or verify; the error says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heal:
    """How the repair went that a reader set off.

    Attributes:
        report: what the sync did, if one ran to its end.
        error: why it failed; while cooling down, why the last one did.
        seconds_ago: while cooling down, how long ago the last one ended.
    """

    owner_id: str
    healing: Healing
    report: SyncReport | None = None
    error: UndriftError | None = None
    seconds_ago: float | None = None

    @property
    def healed(self) -> bool | Literal["pending"]:
        """Whether this very call saw the owner repaired, or ``"pending"``."""
        if self.healing is Healing.PENDING:
            return "pending"
        return self.healing is Healing.HEALED


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The source has the entity."""

    entity: Entity


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An entity that exists, offered in place of one that does not.

    Attributes:
        key: its printed identity, ``kind:id``.
        text: the beginning of its text in the source.
    """

    key: EntityId
    text: str

    @property
    def id(self) -> str:
        """The id without the kind, as tools take it."""
        return self.key.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """The call cannot be served as it is; it can be made again, differently.

    Attributes:
        code: ``stale_reference``: there is no such entity in the source; ``ambiguous_reference``:
            there are several; ``invalid_arguments``: the arguments make no sense.
        missing_id: what was asked for, as it was asked; empty if nothing was.
        healing: what was done about the vectors that gave out the id.
        candidates: what exists instead, in the source's order, at most 20.
        message: what to tell the model or the person, in whole sentences.
        error: why healing failed, if it did.
    """

    owner_id: str
    code: Literal["stale_reference", "ambiguous_reference", "invalid_arguments"]
    missing_id: str
    message: str
    healing: Healing = Healing.NOT_NEEDED
    candidates: tuple[Candidate, ...] = ()
    error: UndriftError | None = None

    @property
    def healed(self) -> bool | Literal["pending"]:
        """Whether this very call saw the owner repaired, or ``"pending"``."""
        if self.healing is Healing.PENDING:
            return "pending"
        return self.healing is Healing.HEALED

    def as_dict(self) -> dict[str, object]:
        """The answer as JSON takes it, for a model."""
        return {
            "code": self.code,
            "missing_id": self.missing_id,
            "healed": self.healed,
            "candidates": [{"id": c.id, "text": c.text} for c in self.candidates],
            "message": self.message,
        }
