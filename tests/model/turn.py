"""A worker's turn in the world, and what happens to a state."""

from __future__ import annotations

from typing import NamedTuple

from model.world import ABSENT, IDLE, Memory, Row, Stored, Worker, World


class Turn(NamedTuple):
    """A worker's turn.

    Attributes:
        place: the worker's.
        number: its state's.
    """

    world: World
    place: int
    number: int

    @property
    def worker(self) -> Worker:
        """As it is in the world."""
        return self.world.workers[self.place]

    @property
    def memory(self) -> Memory:
        """Its state."""
        return self.world.memories[self.number]

    def on(self, world: World) -> Turn:
        """The same worker's, in another world."""
        return self._replace(world=world)

    def goes(self, worker: Worker) -> World:
        """The worker goes on as *worker*."""
        workers = list(self.world.workers)
        workers[self.place] = worker
        return self.world._replace(workers=tuple(workers))

    def observed(self, row: Row) -> World:
        """The worker goes on with *row*; neither the note nor the source matters any more."""
        worker = self.worker
        return self.goes(Worker("observed", worker.generation, row=row, outlived=worker.outlived))

    def decided(self, row: Row, has_to_write: bool, found: Stored) -> World:
        """The worker goes on to write *row*, or has nothing to write."""
        _, generation, *_, waits, outlived = self.worker
        if not has_to_write:
            return self.goes(Worker("verified", generation, outlived=outlived))
        raised = Worker("raised", generation, row=row, found=found, waits=waits, outlived=outlived)
        return self.goes(raised)

    def ends(self) -> World:
        """The worker has nothing in hand any more."""
        return self.goes(IDLE)

    def noted(self, *, read: int = ABSENT) -> Worker:
        """A worker that has just noted what is remembered."""
        return Worker("noted", self.memory.generation, row=self.memory.row, read=read)

    def overtaking(self) -> Turn:
        """Another observation is accepted; whoever noted before it comes too late."""
        return self.on(overtaken(self.world, self.number))

    def remembering(self, row: Row) -> Turn:
        """The state has another row."""
        memory = self.memory._replace(row=row, is_retired=False)
        return self.on(self.world.with_memory(self.number, memory))


def overtaken(world: World, number: int) -> World:
    """An observation is accepted; whoever noted before it comes too late."""
    workers = tuple(
        each._replace(is_overtaken=True)
        if each.at in ("noted", "read") and memory_of(world, place) == number
        else each
        for place, each in enumerate(world.workers)
    )
    memory = world.memories[number]._replace(is_observed=True)
    return world._replace(workers=workers).with_memory(number, memory)


def memory_of(world: World, place: int) -> int:
    """Which state the worker in that place uses."""
    return min(place, len(world.memories) - 1)


def dirty(world: World, number: int) -> World:
    memory = world.memories[number]
    return world.with_memory(number, memory._replace(generation=memory.generation + 1))


def renumbered(world: World, number: int) -> World:
    """Generations of a state without gaps between those that anybody has noted."""
    memory, places = world.memories[number], range(len(world.workers))
    own = [place for place in places if memory_of(world, place) == number]
    seen = {0, memory.generation, *(world.workers[place].generation for place in own)}
    if max(seen) == len(seen) - 1:
        return world
    ranks = {generation: rank for rank, generation in enumerate(sorted(seen))}
    workers = tuple(
        worker._replace(generation=ranks[worker.generation]) if place in own else worker
        for place, worker in enumerate(world.workers)
    )
    renumbered = memory._replace(generation=ranks[memory.generation])
    return world._replace(workers=workers).with_memory(number, renumbered)
