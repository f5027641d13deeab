"""What a store in memory holds, how it is read, and what a batch would change in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from threading import RLock
from typing import NamedTuple

import numpy as np

from undrift.errors import ConfigError, DimensionMismatch
from undrift.model import Stamp
from undrift.ports import Deletion, Match, Record, StoreInfo, Vectors
from undrift.state import Claim, Tombstone

_NO_FIX = "this store lives in a test"


class Stored(NamedTuple):
    """What lies under one vector_id.

    Attributes:
        embedding: None for a tombstone, and where the vector was lost.
    """

    stamp: Stamp
    text: str
    metadata_json: str
    embedding: Vectors | None
    is_tombstone: bool = False


Changes = dict[str, Stored | None]
"""By vector_id, what is to lie there; None is nothing."""


class Snapshot(NamedTuple):
    """All that a store held at one moment, to look at or to put back."""

    rows: Mapping[str, Stored]
    claims: Mapping[str, Claim]


class Memory:
    """The data of one store, which several openers may share.

    Attributes:
        rows: by vector_id, of all namespaces.
        claims: by namespace.
        lock: held for every moment that is one to everybody else.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Stored] = {}
        self.claims: dict[str, Claim] = {}
        self.is_created = False
        self.lock = RLock()

    def snapshot(self) -> Snapshot:
        """What is stored now."""
        with self.lock:
            return Snapshot(dict(self.rows), dict(self.claims))

    def restore(self, snapshot: Snapshot) -> None:
        """Put back what *snapshot* holds, and nothing else: an old copy, or an empty one."""
        with self.lock:
            self.rows, self.claims = dict(snapshot.rows), dict(snapshot.claims)

    def apply(self, changes: Changes) -> None:
        """Make it so, whatever is there."""
        with self.lock:
            for vector_id, stored in changes.items():
                if stored is None:
                    self.rows.pop(vector_id, None)
                else:
                    self.rows[vector_id] = stored

    @property
    def dimension(self) -> int | None:
        """Components per vector; None while there is none."""
        with self.lock:
            vectors = [row.embedding for row in self.rows.values() if row.embedding is not None]
        lengths = [len(vector) for vector in vectors[:100]]
        return max(lengths, key=lengths.count) if lengths else None


class Batches:
    """What batches change in the rows of one namespace, by the rules of `VectorStore`."""

    def __init__(self, memory: Memory, namespace: str) -> None:
        self._memory = memory
        self._namespace = namespace

    def written(self, writes: Sequence[Record]) -> Changes:
        """What applies of *writes*."""
        changes: Changes = {}
        for write in writes:
            standing = self._memory.rows.get(write.stamp.vector_id)
            new = Stored(write.stamp, write.text, write.metadata_json, write.embedding)
            if write.embedding is None:
                if not self._can_keep_vector(standing, write):
                    continue
                assert standing is not None
                new = new._replace(embedding=standing.embedding)
            if self._makes_way(standing, write.stamp.version, write.stamp[2:5]):
                changes[write.stamp.vector_id] = new
        return changes

    def deleted(self, deletes: Sequence[Deletion], changes: Changes) -> Changes:
        """*changes*, and what applies of *deletes* behind them."""
        changes = dict(changes)
        for gone in deletes:
            standing = changes.get(gone.vector_id, self._memory.rows.get(gone.vector_id))
            if self._is_just(standing, gone) and standing and not standing.is_tombstone:
                changes[gone.vector_id] = None
        return changes

    def buried(self, tombstones: Sequence[Tombstone]) -> Changes:
        """What applies of *tombstones*."""
        changes: Changes = {}
        for stone in tombstones:
            standing = self._memory.rows.get(stone.vector_id)
            if self._makes_way(standing, stone.version, stone[1:4]):
                stamp = Stamp(
                    stone.vector_id, self._namespace, *stone[1:4], "", "", "", stone.version
                )
                changes[stone.vector_id] = Stored(stamp, "", "{}", None, is_tombstone=True)
        return changes

    def collected(self, tombstones: Sequence[Deletion]) -> Changes:
        """What applies of collecting *tombstones*."""
        rows = ((stone, self._memory.rows.get(stone.vector_id)) for stone in tombstones)
        return {
            stone.vector_id: None
            for stone, standing in rows
            if self._is_just(standing, stone) and standing and standing.is_tombstone
        }

    def _makes_way(
        self, standing: Stored | None, version: int, entity: tuple[str, str, str]
    ) -> bool:
        if standing is None:
            return True
        is_anothers = standing.is_tombstone and standing.stamp[2:5] != entity
        return standing.stamp.namespace == self._namespace and (
            standing.stamp.version < version or is_anothers
        )

    def _can_keep_vector(self, standing: Stored | None, write: Record) -> bool:
        return (
            standing is not None
            and standing.embedding is not None
            and standing.stamp.text_hash == write.stamp.text_hash
            and standing.stamp.model == write.stamp.model
        )

    def _is_just(self, standing: Stored | None, gone: Deletion) -> bool:
        if standing is None or standing.stamp.namespace != self._namespace:
            return False
        return (standing.stamp.owner_id, standing.stamp.version) == (gone.owner_id, gone.version)


class MemoryReads:
    """The reading half of a store in memory.

    Args:
        look: called before each read; may raise.
    """

    def __init__(
        self, memory: Memory, *, location: str, namespace: str, look: Callable[[], None]
    ) -> None:
        self._memory = memory
        self._location = location
        self._namespace = namespace
        self._look = look

    @property
    def namespace(self) -> str:
        """The namespace whose records are managed."""
        return self._namespace

    def describe(self) -> StoreInfo:
        """Say what is there."""
        self._look()
        with self._memory.lock:
            return StoreInfo(
                location=self._location,
                exists=self._memory.is_created,
                dimension=self._memory.dimension,
                change_dimension=_NO_FIX,
            )

    def ddl(self, dimension: int) -> Sequence[str]:
        """Nothing is run."""
        return ()

    def create(self, dimension: int) -> None:
        """From now on it exists."""
        self._memory.is_created = True

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """Yield every stamp of *owners* in the namespace."""
        asked = frozenset(owners)
        for row in self._rows():
            if row.stamp.owner_id in asked and row.stamp.namespace == self._namespace:
                yield row.stamp if row.embedding is not None else row.stamp._replace(model="")

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """Yield the stamps found under *vector_ids*."""
        asked = frozenset(vector_ids)
        yield from (row.stamp for row in self._rows() if row.stamp.vector_id in asked)

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """Yield every tombstone of *owners* in the namespace."""
        asked = frozenset(owners)
        for row in self._rows(tombstones=True):
            stamp = row.stamp
            if stamp.owner_id in asked and stamp.namespace == self._namespace:
                yield Tombstone(
                    stamp.vector_id, stamp.owner_id, stamp.kind, stamp.entity_id, stamp.version
                )

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* outside the namespace."""
        counts: dict[str, int] = {}
        asked = frozenset(owners)
        for row in self._rows():
            if row.stamp.owner_id in asked and row.stamp.namespace != self._namespace:
                counts[row.stamp.owner_id] = counts.get(row.stamp.owner_id, 0) + 1
        return counts

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """At most *limit* distinct owners of managed records, behind *after*."""
        found = {r.stamp.owner_id for r in self._rows() if r.stamp.namespace == self._namespace}
        return sorted(owner for owner in found if after is None or owner > after)[:limit]

    def search(
        self,
        owner_id: str,
        vector: Vectors,
        *,
        model: str,
        kinds: Sequence[str] | None,
        limit: int,
    ) -> Sequence[Match]:
        """The nearest records of *owner_id* and *model*, compared one by one."""
        candidates = [
            (row, row.embedding)
            for row in self._rows()
            if (row.stamp.owner_id, row.stamp.namespace, row.stamp.model)
            == (owner_id, self._namespace, model)
            and (kinds is None or row.stamp.kind in kinds)
            and row.embedding is not None
        ]
        found = self._memory.dimension
        if found not in (None, len(vector)):
            raise DimensionMismatch(expected=len(vector), found=found, model=model, fix=_NO_FIX)
        if not candidates or limit < 1 or not vector.any():
            return []
        stored = np.stack([embedding for _, embedding in candidates]).astype(np.float64)
        scores = stored @ vector / (np.linalg.norm(stored, axis=1) * np.linalg.norm(vector))
        matches = [
            Match(row.stamp, float(score), row.text, row.metadata_json)
            for (row, _), score in zip(candidates, scores, strict=True)
        ]
        return sorted(matches, key=lambda match: (-match.score, match.stamp.vector_id))[:limit]

    def close(self) -> None:
        """There is nothing to give back."""

    def _rows(self, *, tombstones: bool = False) -> list[Stored]:
        self._look()
        with self._memory.lock:
            self._require_created()
            rows = list(self._memory.rows.values())
        return [row for row in rows if row.is_tombstone is tombstones]

    def _require_created(self) -> None:
        if not self._memory.is_created:
            raise ConfigError(
                "The vector store has not been created",
                why=f"{self._location} is empty.",
                fix="run `undrift sync`, which creates it",
            )
