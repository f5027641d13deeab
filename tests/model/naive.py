"""How a vector store is usually kept up to date, as small a model as that of the protocol.

No versions and no state: a worker reads the source, compares, and writes what it read. The ways to
make that safe that come to mind first are here too: a lease, and a lease that is checked again
right before the write.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from model.world import ABSENT

FREE = -1


class NaiveRules(NamedTuple):
    """What a naive sync does.

    Attributes:
        clears_first: the record is deleted, then written.
        leases: one worker at a time, as long as its lease lasts.
        checks_lease: a worker that has lost its lease does not write.
    """

    clears_first: bool = False
    leases: bool = False
    checks_lease: bool = False


class NaiveWorker(NamedTuple):
    """A worker, by the last step it has passed, with the generation and the content it noted."""

    at: str = ""
    generation: int = 0
    read: int = ABSENT


class NaiveWorld(NamedTuple):
    """Everything: contents in source and store, unacknowledged marks, writes that are under way.

    Attributes:
        lease: whose turn it is.
    """

    content: int = 1
    generation: int = 1
    store: int = ABSENT
    workers: tuple[NaiveWorker, ...] = (NaiveWorker(), NaiveWorker())
    letters: tuple[int, ...] = ()
    lease: int = FREE
    changes: int = 0
    faults: int = 0

    def __str__(self) -> str:
        """Only the values."""
        return f"{tuple(self)}"

    def with_worker(self, place: int, worker: NaiveWorker) -> NaiveWorld:
        """As this, with another worker in that place."""
        before, after = self.workers[:place], self.workers[place + 1 :]
        return self._replace(workers=(*before, worker, *after))


Labelled = Iterator[tuple[str, NaiveWorld]]


class NaiveSync:
    """A `Model` of *rules*.

    Args:
        changes: of the source.
        faults: writes that land late.
        only_new: the source is never without content.
    """

    def __init__(
        self, rules: NaiveRules, *, changes: int = 2, faults: int = 1, only_new: bool = False
    ) -> None:
        self._rules = rules
        self._changes = changes
        self._faults = faults
        self._only_new = only_new

    def initial(self) -> NaiveWorld:
        """A new entity."""
        return NaiveWorld()

    def is_at_rest(self, state: NaiveWorld) -> bool:
        """Whether nothing is dirty and nothing is under way."""
        is_idle = not any(worker.at for worker in state.workers)
        return is_idle and not state.letters and not state.generation

    def wrong_with(self, state: NaiveWorld) -> str:
        """I4: at rest the store equals the source."""
        if self.is_at_rest(state) and state.store != state.content:
            return "at rest, and the store does not hold what the source does"
        return ""

    def wrong_between(self, before: NaiveWorld, step: str, after: NaiveWorld) -> str:
        """I1: what is published stays searchable."""
        if self._only_new and before.store != ABSENT == after.store:
            return f"{step} leaves a gap"
        return ""

    def steps(self, state: NaiveWorld) -> Labelled:
        """Whatever can happen next."""
        if state.changes < self._changes:
            new = state.changes + 2
            contents = {new} if self._only_new else {ABSENT, 1, new} - {state.content}
            for content in sorted(contents):
                yield (
                    "changed",
                    state._replace(
                        content=content,
                        generation=state.generation + 1,
                        changes=state.changes + 1,
                    ),
                )
        for letter in state.letters:
            rest = list(state.letters)
            rest.remove(letter)
            yield "landed late", state._replace(letters=tuple(rest), store=letter)
        if state.lease != FREE:
            yield "lease ran out", state._replace(lease=FREE)
        for place, worker in enumerate(state.workers):
            yield from self._work(state, place, worker)

    def _work(self, world: NaiveWorld, place: int, worker: NaiveWorker) -> Labelled:
        idle = world.with_worker(place, NaiveWorker())
        if worker.at == "":
            if world.generation and not (self._rules.leases and world.lease != FREE):
                noted = world.with_worker(place, NaiveWorker("noted", world.generation))
                yield "noted", noted._replace(lease=place if self._rules.leases else FREE)
            return
        yield "crashed", idle
        if worker.at == "noted":
            read = worker._replace(at="read", read=world.content)
            yield "read", world.with_worker(place, read)
        elif worker.at == "read":
            at = "verified" if world.store == worker.read else "looked"
            yield "looked", world.with_worker(place, worker._replace(at=at))
        elif worker.at == "looked" and self._rules.clears_first:
            cleared = world.with_worker(place, worker._replace(at="cleared"))
            yield "cleared", cleared._replace(store=ABSENT)
        elif worker.at in ("looked", "cleared"):
            yield from self._published(world, place, worker)
        elif worker.at == "published":
            is_there = world.store == worker.read
            verified = world.with_worker(place, worker._replace(at="verified"))
            yield "verified", verified if is_there else idle
        elif worker.at == "verified":
            yield "acknowledged", _acknowledged(idle, worker.generation)

    def _published(self, world: NaiveWorld, place: int, worker: NaiveWorker) -> Labelled:
        idle = world.with_worker(place, NaiveWorker())
        if self._rules.checks_lease and world.lease != place:
            yield "published", idle
            return
        published = world.with_worker(place, worker._replace(at="published"))
        yield "published", published._replace(store=worker.read)
        if world.faults < self._faults:
            letters = tuple(sorted((*world.letters, worker.read)))
            yield "unanswered", idle._replace(letters=letters, faults=world.faults + 1)


def _acknowledged(world: NaiveWorld, noted: int) -> NaiveWorld:
    """Generations are counted from the acknowledged one."""
    workers = tuple(
        worker._replace(generation=max(0, worker.generation - noted)) for worker in world.workers
    )
    return world._replace(generation=max(0, world.generation - noted), workers=workers)
