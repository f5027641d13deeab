"""What every SQL store does with a batch before its driver sees it.

The rules are checked here, once, because drivers disagree: SQLite stores a NUL that PostgreSQL
refuses, and takes a vector of NaN that pgvector refuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from functools import partial
from itertools import chain
from typing import NamedTuple, TypeVar

import numpy as np

from undrift.errors import WriteFailed
from undrift.fingerprint import is_storable_id
from undrift.model import EntityId, Stamp
from undrift.ports import MAX_VERSION, Deletion, Record
from undrift.state import Expected, Fence, Tombstone

STAMP_COLUMNS = Stamp._fields
"""A stamp's fields are its columns, in this order."""

# What a field reads as that somebody else's record leaves empty.
_EMPTY_STAMP = Stamp("", "", "", "", "", "", "", "", 0)

# Records that are looked at in one piece: it fits the caches, and is small however long the texts.
_CHECKED_TOGETHER = 256

T = TypeVar("T")

# `Stamp._make` without its Python frame, which is a third of what reading a stamp costs.
_stamp: Callable[[Iterable[object]], Stamp] = partial(tuple.__new__, Stamp)


class Batch(NamedTuple):
    """Writes and deletes that go into one transaction, in this order."""

    writes: Sequence[Record]
    deletes: Sequence[Deletion]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send."""
        return not self.writes and not self.deletes

    def without(self, owners: Set[str]) -> Batch:
        """What of it concerns none of *owners*."""
        if not owners:
            return self
        return Batch(
            [record for record in self.writes if record.stamp.owner_id not in owners],
            [deletion for deletion in self.deletes if deletion.owner_id not in owners],
        )


class Fenced(NamedTuple):
    """What a state is to be asked and told within a transaction."""

    expected: Sequence[Expected]
    fence: Fence

    def hold(self, connection: object) -> frozenset[str]:
        """The owners to be left out."""
        return self.fence.hold(connection, self.expected)

    def published(self, connection: object, left_out: Set[str]) -> None:
        """Tell of the others."""
        others = [row for row in self.expected if row.owner_id not in left_out]
        self.fence.published(connection, others)


def batch_of(writes: Iterable[Record], namespace: str, *, keep_text: bool) -> list[Record]:
    """The records to send: one for each vector_id, the one with the highest version.

    Args:
        keep_text: False leaves out texts and metadata.

    Order:
        Ascending by vector_id, so that two publishers lock the rows they share in one order.

    Raises:
        WriteFailed: no store can hold one of them; nothing may be written then.
    """
    records = list(writes)
    with np.errstate(over="ignore"):  # a sum that overflows is found by its value
        if not _are_storable(records, namespace):
            _refuse_one_of(records, namespace)
    batch: dict[str, Record] = {}
    for record in records:
        vector_id = record.stamp.vector_id
        rival = batch.get(vector_id)
        if rival is None or rival.stamp.version < record.stamp.version:
            batch[vector_id] = record
    ordered = [batch[vector_id] for vector_id in sorted(batch)]
    if keep_text:
        return ordered
    return [record._replace(text="", metadata_json="{}") for record in ordered]


def deletions_of(deletes: Iterable[Deletion]) -> list[Deletion]:
    """The deletes that can match anything, ascending by vector_id."""
    return sorted(
        (deletion for deletion in deletes if is_storable_id(deletion.owner_id)),
        key=lambda deletion: deletion.vector_id,
    )


def tombstones_of(tombstones: Iterable[Tombstone]) -> list[Tombstone]:
    """The tombstones to put: one for each vector_id, the one with the highest version.

    Order:
        Ascending by vector_id, as writes.

    Raises:
        WriteFailed: no store can hold one of them; nothing may be written then.
    """
    batch: dict[str, Tombstone] = {}
    for stone in tombstones:
        _refuse_ids_and_version(stone[:-1], stone.version, partial(_grave, stone))
        rival = batch.get(stone.vector_id)
        if rival is None or rival.version < stone.version:
            batch[stone.vector_id] = stone
    return [batch[vector_id] for vector_id in sorted(batch)]


def collectable(tombstones: Iterable[Tombstone]) -> list[Deletion]:
    """*tombstones* as what is to be removed, as far as they can be anywhere."""
    return deletions_of(
        Deletion(stone.owner_id, stone.vector_id, stone.version) for stone in tombstones
    )


def storable(ids: Iterable[str]) -> list[str]:
    """Those of *ids* that a store can hold; the others have no records, which is no error."""
    return [id_ for id_ in ids if is_storable_id(id_)]


def stamp_of(row: Sequence[object]) -> Stamp:
    """The stamp of a row of `STAMP_COLUMNS`."""
    if None in row:
        row = [
            empty if value is None else value
            for value, empty in zip(row, _EMPTY_STAMP, strict=True)
        ]
    return _stamp(row)


def _are_storable(records: Sequence[Record], namespace: str) -> bool:
    """Whether a store can hold all of *records*, asked of many at once; see `_refuse_one_of`."""
    embeddings = [record.embedding for record in records if record.embedding is not None]
    if len({(embedding.shape, embedding.dtype) for embedding in embeddings}) > 1:
        return False
    stamps = [record.stamp for record in records]
    if not all(s.namespace == namespace and 0 <= s.version < MAX_VERSION for s in stamps):
        return False
    return all(
        is_storable_id("".join(chain.from_iterable((*r.stamp[:-1], *r[1:3]) for r in part)))
        for part in _parts(records)
    ) and all(map(_are_directions, _parts(embeddings)))


def _are_directions(embeddings: Sequence[np.ndarray]) -> bool:
    """Whether *embeddings*, of one dimension, have a length that a cosine can be made of."""
    rows = np.array(embeddings)
    if rows.ndim != 2:
        return False
    squares = np.einsum("ij,ij->i", rows, rows)
    return bool(((squares > 0.0) & (squares < math.inf)).all())


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _CHECKED_TOGETHER):
        yield items[start : start + _CHECKED_TOGETHER]


def _refuse_one_of(records: Iterable[Record], namespace: str) -> None:
    dimension: int | None = None
    for record in records:
        _refuse_unstorable(record, namespace)
        if record.embedding is not None:
            dimension = _checked_dimension(record, record.embedding, dimension)


def _refuse_unstorable(record: Record, namespace: str) -> None:
    stamp = record.stamp
    if stamp.namespace != namespace:
        raise WriteFailed(
            "The store refused a batch",
            why=f"{_name(record)} is of namespace {stamp.namespace!a}, the store's is "
            f"{namespace!a}; nothing was written.",
            fix="open a store with that namespace",
        )
    texts = (*stamp[:-1], record.text, record.metadata_json)
    _refuse_ids_and_version(texts, stamp.version, partial(_name, record))


def _refuse_ids_and_version(texts: Iterable[str], version: int, name: Callable[[], str]) -> None:
    if not is_storable_id("".join(texts)):
        raise WriteFailed(
            "The store refused a batch",
            why=f"{name()} holds a NUL or a lone surrogate, which no database stores as text; "
            "nothing was written.",
            fix="correct that id in the source",
        )
    if not 0 <= version < MAX_VERSION:
        raise WriteFailed(
            "The store refused a batch",
            why=f"{name()} has the version {version}, which not every store counts exactly; "
            "nothing was written.",
            fix="keep versions below 2**52",
        )


def _checked_dimension(record: Record, embedding: np.ndarray, dimension: int | None) -> int:
    length = len(embedding)
    if embedding.ndim != 1 or length != (dimension or length):
        raise WriteFailed(
            "The store refused a batch",
            why=f"the vector of {_name(record)} has the shape {embedding.shape}, others of the "
            f"batch have {dimension} components; nothing was written.",
            fix="embed all records of a batch with one model",
        )
    # Overflow and underflow of this sum make a cosine meaningless just as NaN and zero do.
    square = float(np.dot(embedding, embedding))
    if not 0.0 < square < math.inf:
        raise WriteFailed(
            "The store refused a batch",
            why=f"the vector of {_name(record)} is not finite or has no length, so that no search "
            "would find it; nothing was written.",
            fix="check the embedder: its vectors must be finite and not zero",
        )
    return length


def _name(record: Record) -> str:
    # In ASCII: the id may be just what cannot be printed.
    return f"{record.stamp.key!a} of user {record.stamp.owner_id!a}"


def _grave(stone: Tombstone) -> str:
    return f"the tombstone of {EntityId.of(stone.kind, stone.entity_id)!a} of {stone.owner_id!a}"
