"""Writers that anybody would write first, on the same ports. The simulation must find them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from support.naive import NaiveWriter
from undrift.errors import EmbeddingFailed, UnknownStateError
from undrift.fingerprint import vector_id
from undrift.model import Entity, Outcome, Stamp
from undrift.ports import Deletion, Record
from undrift.state import Acknowledgement, Failure, OwnerNote
from undrift.testing.simulation.process import MODEL, Process
from undrift.testing.simulation.source import RENDERER
from undrift.testing.simulation.store import NAMESPACE
from undrift.testing.simulation.worker import Report, SimulatedFeed, make_rounds

_ROUNDS = 4
_RETRY_SECONDS = 1.0


class _Control:
    """Asks the state who is dirty, and tells it who is done; in all else it is on its own."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.holder = process.name

    def enter(self, *, adopts: bool) -> None:
        """Nothing is proved to anybody."""
        if not self.process.state.exists():
            self.process.state.create()

    def sync(self, owners: Sequence[str]) -> Iterator[Report]:
        """Sync each owner, and remember how it ended."""
        for owner_id in owners:
            note = self.process.state.note([owner_id])
            outcome = self.sync_owner(owner_id)
            self._conclude(note.owners[owner_id], note.standing.round, outcome)
            yield Report(owner_id, outcome, outcome is Outcome.IN_SYNC)

    def watch(self, feed: SimulatedFeed, ends: Callable[[], bool]) -> None:
        """Ask who is dirty, and sync."""
        make_rounds(self.process, self, feed, ends)

    def sync_owner(self, owner_id: str) -> Outcome:
        """Make the store what the source is."""
        raise NotImplementedError

    def _conclude(self, note: OwnerNote, round_: int, outcome: Outcome) -> None:
        state = self.process.state
        if outcome is Outcome.IN_SYNC:
            done = Acknowledgement(owner_id=note.owner_id, generation=note.generation, round=round_)
            state.acknowledge([done], self.holder)
        else:
            state.mark([note.owner_id])
            state.fail([Failure(note.owner_id, "again", _RETRY_SECONDS)], self.holder)


class ClearThenImport(_Control):
    """Clears the owner, imports it anew, and compares ids."""

    def sync_owner(self, owner_id: str) -> Outcome:
        """Never mind what becomes of a call."""
        process = self.process
        naive = NaiveWriter(process.source, process.store, RENDERER, process.embedder)
        try:
            status = naive.sync(owner_id)
        except (UnknownStateError, EmbeddingFailed):
            return Outcome.FAILED
        return Outcome.IN_SYNC if status.in_sync else Outcome.FAILED


class LeaseAndCheck(_Control):
    """Writes under a lease, before it deletes, and then compares everything until nothing differs.

    It does all that one can do without ordering the writes.
    """

    def sync_owner(self, owner_id: str) -> Outcome:
        """Repeat until the store was seen to be what the source was seen to be."""
        state = self.process.state
        try:
            for _ in range(_ROUNDS):
                if state.lease([owner_id], self.holder, self.process.world.lease_seconds):
                    return Outcome.FAILED
                if self._repair(owner_id):
                    return Outcome.IN_SYNC
        except (UnknownStateError, EmbeddingFailed):
            return Outcome.FAILED
        return Outcome.FAILED

    def _repair(self, owner_id: str) -> bool:
        """Write and delete what differs; whether nothing did."""
        process = self.process
        stamps = list(process.store.stamps([owner_id]))
        wanted = self._wanted(owner_id)
        held = {stamp.vector_id: stamp for stamp in stamps}
        ids = {_vector_id(entity): entity for entity in wanted}
        differing = [
            (entity, held.get(under))
            for under, entity in ids.items()
            if under not in held or held[under][5:8] != _stamp(entity, 0)[5:8]
        ]
        gone = [
            Deletion(stamp.owner_id, stamp.vector_id, stamp.version)
            for stamp in stamps
            if stamp.vector_id not in ids
        ]
        if not differing and not gone:
            return True
        vectors = process.embedder.embed([entity.text for entity, _ in differing])
        writes = [
            Record(
                _stamp(entity, stamp.version + 1 if stamp is not None else 1),
                entity.text,
                entity.metadata_json,
                vector,
            )
            for (entity, stamp), vector in zip(differing, vectors, strict=True)
        ]
        process.store.publish(writes, gone)
        return False

    def _wanted(self, owner_id: str) -> list[Entity]:
        contents = list(self.process.source.read([owner_id]))
        return [e for content in contents for e in RENDERER.render(content).entities.values()]


def _vector_id(entity: Entity) -> str:
    return vector_id(NAMESPACE, entity.owner_id, entity.kind, entity.entity_id)


def _stamp(entity: Entity, version: int) -> Stamp:
    return Stamp(
        _vector_id(entity),
        NAMESPACE,
        entity.owner_id,
        entity.kind,
        entity.entity_id,
        entity.fingerprint,
        entity.text_hash,
        MODEL,
        version,
    )
