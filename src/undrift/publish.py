"""Turning plans into store calls: which records go together, and in which order.

Within an owner writes come before deletes, always (I1). An owner whose records fit one transaction
is never split; small owners share one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from undrift.errors import UndriftError, UnknownStateError, WriteFailed
from undrift.events import BatchDeleted, BatchWritten, Listener
from undrift.mapping import MAX_EMBEDDED_CHARACTERS
from undrift.ports import Deletion, Record, Vectors
from undrift.state import Expected, Observation, Tombstone
from undrift.versions import OrderedPlan

T = TypeVar("T")

BATCH_RECORDS = 5_000
"""Records per store call: the size from which bulk loading no longer gets faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """One call's worth of writes and deletes, of one owner or several.

    Attributes:
        expected: for each delete, by its vector_id, the remembered row that justifies it.
        observations: of owners that are observed in the same transaction (class T).
        planned_at: when the oldest of it was planned, by the worker's clock.
    """

    owners: Sequence[str]
    writes: Sequence[Record] = ()
    deletes: Sequence[Deletion] = ()
    tombstones: Sequence[Tombstone] = ()
    expected: Mapping[str, Expected] = field(default_factory=dict)
    observations: Sequence[Observation] = ()
    planned_at: float = 0.0


Send = Callable[[Shipment], Collection[str]]
"""Sends a shipment; its answer are the owners that were left out, since others were quicker."""


@dataclass(slots=True)
class Publication:
    """One owner's part of a publish, ready to be sent.

    Attributes:
        tombstones: what takes the place of deleted records.
        buried: the vector_ids of those tombstones that a stored record makes way for.
        expected: see `Shipment`.
        together: how many writes at the end replace one another's records, and so go in one call.
        observation: what is to be accepted in the transaction that writes; see `Shipment`.
        was_left_out: others were quicker, and nothing of it was written.
        error: why the store did not take it.
    """

    owner_id: str
    writes: list[Record] = field(default_factory=list)
    deletes: list[Deletion] = field(default_factory=list)
    tombstones: list[Tombstone] = field(default_factory=list)
    buried: frozenset[str] = frozenset()
    expected: Mapping[str, Expected] = field(default_factory=dict)
    together: int = 0
    planned_at: float = 0.0
    observation: Observation | None = None
    was_left_out: bool = False
    error: UndriftError | None = None

    @property
    def size(self) -> int:
        """Records it touches."""
        return len(self.writes) + len(self.deletes) + len(self.tombstones)

    @property
    def gone(self) -> frozenset[str]:
        """The vector_ids of stored records that it deletes."""
        return self.buried.union(deletion.vector_id for deletion in self.deletes)

    @property
    def accepted(self) -> Sequence[Record]:
        """The writes, if the store has taken them all; nothing where that is not certain."""
        return () if self.error is not None or self.was_left_out else self.writes

    def keep_deletes(self) -> None:
        """Delete nothing after all. Tombstones where nothing is stored are no deletes."""
        self.deletes = []
        self.tombstones = [stone for stone in self.tombstones if stone.vector_id not in self.buried]
        self.buried = frozenset()

    def shipment(self) -> Shipment:
        """All of it in one call."""
        return shipment_of([self])


def publication_of(
    ordered: OrderedPlan, vectors: Mapping[str, Vectors], *, with_deletes: bool
) -> Publication:
    """The store calls for *ordered*.

    Args:
        vectors: by text_hash; a write whose vector is not there is left out, and with it every
            deletion: what would be gone may be what the missing write was to take the place of.
        with_deletes: False keeps every deletion aside.
    """
    plan = ordered.plan
    publication = Publication(plan.owner_id, expected=ordered.expected)
    is_complete = all(w.stamp.text_hash in vectors for w in plan.writes if w.needs_embedding)
    for write in plan.writes:
        embedding = vectors.get(write.stamp.text_hash) if write.needs_embedding else None
        if (write.needs_embedding and embedding is None) or (write.evicts and not is_complete):
            continue  # what an evicting write would replace may be the record of a missing one
        text = write.entity.text[:MAX_EMBEDDED_CHARACTERS]
        publication.writes.append(Record(write.stamp, text, write.entity.metadata_json, embedding))
        publication.together += write.evicts
    gone = {deletion.vector_id for deletion in plan.deletes}
    publication.buried = frozenset(ordered.expected).difference(gone)
    if is_complete:
        publication.deletes.extend(plan.deletes)
        publication.tombstones.extend(ordered.tombstones)
    if not with_deletes:
        publication.keep_deletes()
    return publication


def shipment_of(group: Sequence[Publication]) -> Shipment:
    """All of *group* in one call."""
    expected: dict[str, Expected] = {}
    for publication in group:
        expected.update(publication.expected)
    return Shipment(
        owners=[publication.owner_id for publication in group],
        writes=[record for publication in group for record in publication.writes],
        deletes=[deletion for publication in group for deletion in publication.deletes],
        tombstones=[stone for publication in group for stone in publication.tombstones],
        expected=expected,
        observations=[each.observation for each in group if each.observation is not None],
        planned_at=min(publication.planned_at for publication in group),
    )


def publish(send: Send, publications: Iterable[Publication], listener: Listener) -> None:
    """Send *publications*; one that fails carries its error, the others go on.

    Safety:
        A refused group is sent again owner by owner, so that one owner's bad record stops nobody
        else. A call without a definite answer is not repeated here: the read-back tells what
        became of it.
    """
    for group in _groups(publications):
        if len(group) == 1 and group[0].size > BATCH_RECORDS:
            _publish_large(send, group[0], listener)
            continue
        error = _send(send, group, listener)
        if isinstance(error, WriteFailed) and len(group) > 1:
            for publication in group:
                publication.error = _send(send, [publication], listener)
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


def _send(send: Send, group: Sequence[Publication], listener: Listener) -> UndriftError | None:
    try:
        left_out = send(shipment_of(group))
    except (WriteFailed, UnknownStateError) as exc:
        return exc
    for publication in group:
        publication.was_left_out = publication.owner_id in left_out
        if publication.was_left_out:
            continue
        owner, written, deleted = (
            publication.owner_id,
            len(publication.writes),
            len(publication.gone),
        )
        if written:
            listener(BatchWritten(owner, 1, written, written))
        if deleted:
            listener(BatchDeleted(owner, 1, deleted, deleted))
    return None


def _publish_large(send: Send, publication: Publication, listener: Listener) -> None:
    owner = publication.owner_id
    part = partial(
        Shipment,
        owners=[owner],
        expected=publication.expected,
        planned_at=publication.planned_at,
    )
    # What is observed with the first part is there for the others.
    observations = [publication.observation] if publication.observation is not None else []
    done = 0
    try:
        for number, batch in enumerate(_write_batches(publication), start=1):
            whole = part(writes=batch, observations=observations if number == 1 else [])
            publication.was_left_out = owner in send(whole)
            if publication.was_left_out:
                return
            done += len(batch)
            listener(BatchWritten(owner, number, len(batch), done))
        done = 0
        for number, gone in enumerate(_slices(publication.deletes), start=1):
            publication.was_left_out = owner in send(part(deletes=gone))
            if publication.was_left_out:
                return
            done += len(gone)
            listener(BatchDeleted(owner, number, len(gone), done))
        for number, stones in enumerate(_slices(publication.tombstones), start=1):
            publication.was_left_out = owner in send(part(tombstones=stones))
            if publication.was_left_out:
                return
            gone_now = sum(stone.vector_id in publication.buried for stone in stones)
            done += gone_now
            if gone_now:
                listener(BatchDeleted(owner, number, gone_now, done))
    except (WriteFailed, UnknownStateError) as exc:
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
