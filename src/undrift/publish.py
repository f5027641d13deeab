"""Turning plans into store calls: which records go together, and in which order.

Within an owner writes come before deletes, always (I1). An owner whose records fit one transaction
is never split; small owners share one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from undrift.errors import StoreUnavailable, UndriftError, WriteFailed
from undrift.events import BatchDeleted, BatchWritten, Listener
from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.plan import Plan
from undrift.ports import Deletion, Record, Vectors, VectorStore

T = TypeVar("T")

BATCH_RECORDS = 5_000
"""Records per store call: the size from which bulk loading no longer gets faster."""


@dataclass(slots=True)
class Publication:
    """One owner's part of a publish, ready to be sent.

    Attributes:
        unembedded: writes left out because no vector could be had for their text.
        error: why the store did not take it.
    """

    owner_id: str
    writes: list[Record] = field(default_factory=list)
    deletes: list[Deletion] = field(default_factory=list)
    unembedded: int = 0
    error: UndriftError | None = None

    @property
    def size(self) -> int:
        """Records it touches."""
        return len(self.writes) + len(self.deletes)


def publication_of(
    plan: Plan, vectors: Mapping[str, Vectors], *, with_deletes: bool
) -> Publication:
    """The store calls for *plan*.

    Args:
        vectors: by text_hash; a write whose vector is not there is left out, and with it every
            deletion: what would be gone may be what the missing write was to take the place of.
        with_deletes: False keeps every deletion aside.
    """
    publication = Publication(plan.owner_id)
    for write in plan.writes:
        if write.evicts and publication.unembedded:
            publication.unembedded += 1
            continue  # these come last: what it would replace may be among the missing
        embedding = vectors.get(write.stamp.text_hash) if write.needs_embedding else None
        if write.needs_embedding and embedding is None:
            publication.unembedded += 1
            continue
        text = write.entity.text[:MAX_EMBEDDED_CHARACTERS]
        record = Record(write.stamp, text, write.entity.metadata_json, embedding)
        publication.writes.append(record)
    if with_deletes and not publication.unembedded:
        publication.deletes.extend(plan.deletes)
    return publication


def publish(store: VectorStore, publications: Iterable[Publication], listener: Listener) -> None:
    """Send *publications*; one that fails carries its error, the others go on.

    Safety:
        A refused group is sent again owner by owner, so that one owner's bad record stops nobody
        else. A call without a definite answer is not repeated here: the read-back tells what
        became of it.
    """
    for group in _groups(publications):
        if len(group) == 1 and group[0].size > BATCH_RECORDS:
            _publish_large(store, group[0], listener)
            continue
        error = _send(store, group, listener)
        if isinstance(error, WriteFailed) and len(group) > 1:
            for publication in group:
                publication.error = _send(store, [publication], listener)
        else:
            for publication in group:
                publication.error = error


def _groups(publications: Iterable[Publication]) -> Iterator[list[Publication]]:
    group: list[Publication] = []
    records = 0
    for publication in publications:
        if not publication.size:
            continue
        if group and records + publication.size > BATCH_RECORDS:
            yield group
            group, records = [], 0
        group.append(publication)
        records += publication.size
    if group:
        yield group


def _send(
    store: VectorStore, group: Sequence[Publication], listener: Listener
) -> UndriftError | None:
    writes = [record for publication in group for record in publication.writes]
    deletes = [deletion for publication in group for deletion in publication.deletes]
    try:
        store.publish(writes, deletes)
    except (WriteFailed, StoreUnavailable) as exc:
        return exc
    for publication in group:
        owner, written, deleted = (
            publication.owner_id,
            len(publication.writes),
            len(publication.deletes),
        )
        if written:
            listener(BatchWritten(owner, 1, written, written))
        if deleted:
            listener(BatchDeleted(owner, 1, deleted, deleted))
    return None


def _publish_large(store: VectorStore, publication: Publication, listener: Listener) -> None:
    owner = publication.owner_id
    done = 0
    try:
        for number, batch in enumerate(_slices(publication.writes), start=1):
            store.publish(batch, [])
            done += len(batch)
            listener(BatchWritten(owner, number, len(batch), done))
        done = 0
        for number, gone in enumerate(_slices(publication.deletes), start=1):
            store.publish([], gone)
            done += len(gone)
            listener(BatchDeleted(owner, number, len(gone), done))
    except (WriteFailed, StoreUnavailable) as exc:
        publication.error = exc


def _slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH_RECORDS):
        yield items[start : start + BATCH_RECORDS]
