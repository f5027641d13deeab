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
        together: how many writes at the end replace one another's records, and so go in one call.
        error: why the store did not take it.
    """

    owner_id: str
    writes: list[Record] = field(default_factory=list)
    deletes: list[Deletion] = field(default_factory=list)
    together: int = 0
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
    is_complete = all(w.stamp.text_hash in vectors for w in plan.writes if w.needs_embedding)
    for write in plan.writes:
        embedding = vectors.get(write.stamp.text_hash) if write.needs_embedding else None
        if (write.needs_embedding and embedding is None) or (write.evicts and not is_complete):
            continue  # what an evicting write would replace may be the record of a missing one
        text = write.entity.text[:MAX_EMBEDDED_CHARACTERS]
        publication.writes.append(Record(write.stamp, text, write.entity.metadata_json, embedding))
        publication.together += write.evicts
    if with_deletes and is_complete:
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
        for number, batch in enumerate(_write_batches(publication), start=1):
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


def _write_batches(publication: Publication) -> Iterator[Sequence[Record]]:
    """Writes in batches; what replaces one another's records is never torn apart."""
    alone = len(publication.writes) - publication.together
    yield from _slices(publication.writes[:alone])
    if publication.together:
        yield publication.writes[alone:]


def _slices(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH_RECORDS):
        yield items[start : start + BATCH_RECORDS]
