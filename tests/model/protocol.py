"""The protocol of `undrift.state`, for one entity, two workers and everything that can go wrong.

Each step is what the code does between two failpoints, and is named after the second of them. Only
what touches something shared is a step of its own here: others cannot see what happens in between.

Not in the model: several entities, kinds and owners, and how long anything takes. Time is what may
happen: a lease never protects anything, so there are none; a deadline is a step that can be taken
only once everything that began before it has ended; "everybody" is this owner.
"""

from __future__ import annotations

from collections.abc import Iterator

from model.rules import Rules, Scenario, decided, is_proved, landed
from model.turn import Turn, dirty, memory_of, overtaken, renumbered
from model.world import (
    ABSENT,
    ALARMS,
    BURIAL,
    FOREIGN,
    IDLE,
    LOSS,
    NO_ROW,
    NOTHING,
    Letter,
    Memory,
    Row,
    Stored,
    Worker,
    World,
)

Labelled = Iterator[tuple[str, World]]


class Protocol:
    """A `Model` of *rules* under *scenario*."""

    def __init__(self, rules: Rules, scenario: Scenario) -> None:
        self._rules = rules
        self._scenario = scenario
        self._has_copy = "copied" in scenario.kinds

    # --- what the explorer asks

    def initial(self) -> World:
        """A new entity, and nothing done yet."""
        return World(1, (Memory(generation=1),))

    def is_at_rest(self, state: World) -> bool:
        """Whether nobody knows of anything that is left to do, and nothing is in flight."""
        return (
            state.workers == (IDLE, IDLE)
            and not state.letters
            and not (state.is_marked or state.is_unseen)
            and not (state.is_suspect and self._rules.awaits_horizon)
            and not any(m.generation > 0 or m.owes_alarm or m.is_foreign for m in state.memories)
        )

    def wrong_with(self, state: World) -> str:
        """I4: at rest the store equals the source."""
        if state.store.content != state.content and self.is_at_rest(state):
            return "at rest, and the store does not hold what the source does"
        return ""

    def wrong_between(self, before: World, step: str, after: World) -> str:
        """I1 and I2, where nothing but the protocol itself could break them."""
        if not self._scenario.only_new or after.store.content >= before.store.content:
            return ""
        if after.store.content == ABSENT:
            return f"{step} leaves a gap"
        return f"{step} replaces something newer"

    def steps(self, state: World) -> Labelled:
        """Whatever can happen next."""
        for step, after in self._steps(state):
            yield step, self._simplest(after)

    def _steps(self, world: World) -> Labelled:
        yield from self._source(world)
        yield from self._network(world)
        yield from self._time(world)
        if world.damages < self._scenario.damages:
            yield from self._damage(world._replace(damages=world.damages + 1))
        for place in range(len(world.workers)):
            yield from self._work(world, place)

    def _simplest(self, world: World) -> World:
        """The simplest of all worlds in which the same can happen.

        Workers of one state are alike: which of them is where makes no difference. Of generations
        only the order counts.
        """
        for number, memory in enumerate(world.memories):
            if memory.generation > 1:
                world = renumbered(world, number)
        if self._has_copy or world.workers[0] <= world.workers[1]:
            return world
        return world._replace(workers=world.workers[::-1])

    # --- the world

    def _source(self, world: World) -> Labelled:
        if world.changes < self._scenario.changes:
            new = world.changes + 2
            contents = {new} if self._scenario.only_new else {ABSENT, 1, new} - {world.content}
            for content in sorted(contents):
                after = world._replace(content=content, changes=world.changes + 1)
                yield "changed", self._marked(after)
        if world.is_marked:
            for number in range(len(world.memories)):
                yield "drained", dirty(world._replace(is_marked=False), number)

    def _marked(self, world: World) -> World:
        return world._replace(is_marked=True) if self._scenario.drains else dirty(world, 0)

    def _network(self, world: World) -> Labelled:
        for letter in world.letters:
            rest = list(world.letters)
            rest.remove(letter)
            yield "landed late", self._landed(world._replace(letters=tuple(rest)), letter)

    def _landed(self, world: World, letter: Letter) -> World:
        if letter.waits:
            memory = world.memories[letter.memory]
            if memory.is_observed and self._rules.compares_in_publish:
                return world  # left out
            remembering = memory._replace(row=letter.row, is_retired=False)
            world = overtaken(world.with_memory(letter.memory, remembering), letter.memory)
        standing = world.memories[letter.memory].row
        return world._replace(store=landed(self._rules, world.store, letter, standing))

    def _time(self, world: World) -> Labelled:
        """What comes by itself after a while."""
        for number, memory in enumerate(world.memories):
            if memory.owes_alarm and not world.has_outlived(ALARMS[number]):
                yield (
                    "deadline",
                    dirty(world.with_memory(number, memory._replace(owes_alarm=False)), number),
                )
            if memory.is_foreign:
                adopted = world.with_memory(number, memory._replace(is_foreign=False))
                yield "adopted", self._alarmed(adopted._replace(is_unseen=True), number)
            elif world.is_unseen:
                yield "scrubbed", dirty(world._replace(is_unseen=False), number)
        if world.is_suspect and not world.letters:
            yield "horizon", dirty(world._replace(is_suspect=False), 0)
        if self._scenario.collects:
            yield from self._housekeeping(world)

    def _housekeeping(self, world: World) -> Labelled:
        memory = world.memories[0]
        if memory.row.version == 0 or memory.row.content != ABSENT:
            return
        if memory.is_retired:
            floor = max(memory.floor, memory.row.version) if self._rules.numbers_on else 0
            fresh = memory._replace(row=NO_ROW, floor=floor, is_retired=False)
            yield "forgotten", world.with_memory(0, fresh)
        elif not (self._rules.awaits_deadline and world.has_outlived(BURIAL)):
            is_there = world.store == Stored(*memory.row)
            after = world._replace(store=NOTHING) if is_there else world
            yield "collected", after.with_memory(0, memory._replace(is_retired=True))

    # --- damage

    def _damage(self, world: World) -> Labelled:
        kinds, store = self._scenario.kinds, world.store
        hidden = world._replace(is_unseen=True)
        if store.version:
            if "wiped" in kinds:
                yield "wiped", hidden._replace(store=NOTHING)
            if "altered" in kinds:
                yield "altered", hidden._replace(store=store._replace(content=FOREIGN))
            if "lifted" in kinds:
                for content in {store.content, FOREIGN}:
                    yield "lifted", hidden._replace(store=Stored(store.version + 2, content))
            if "reverted" in kinds and store.version > 1:
                yield "reverted", hidden._replace(store=Stored(1, 1))
        if "lost" in kinds:
            lost = world.with_memory(0, Memory(is_foreign=True))
            yield "lost", lost.outliving(LOSS)
        if "restored" in kinds:
            yield from self._restored(world)
        if "copied" in kinds and len(world.memories) == 1:
            # On the second host the copy enters, as after any restart.
            (memory,) = world.memories
            yield "copied", world._replace(memories=(memory._replace(is_behind=True), memory))

    def _restored(self, world: World) -> Labelled:
        if world.backup is None:
            # Half the way to the damage, and none yet.
            yield "saved", world._replace(backup=world.memories[0], damages=world.damages - 1)
        elif world.backup != world.memories[0]:
            after = world.with_memory(0, world.backup).outliving(LOSS)
            yield "restored", self._alarmed(after, 0) if self._rules.knows_restored else after

    def _alarmed(self, world: World, number: int) -> World:
        """Everybody is marked, and once more after the deadline; not while that is to come."""
        memory = world.memories[number]
        if memory.owes_alarm:
            return world
        if self._rules.alarms_again:
            memory = memory._replace(owes_alarm=True)
            world = world.outliving(ALARMS[number])
        return dirty(world.with_memory(number, memory), number)

    # --- a worker's steps

    def _work(self, world: World, place: int) -> Labelled:
        worker = world.workers[place]
        turn = Turn(world, place, memory_of(world, place))
        if worker.at == "":
            yield from self._begun(turn)
            return
        yield "crashed", turn.ends()
        if worker.at == "noted":
            yield "read", self._has_read(turn, worker._replace(read=world.content))
        elif worker.at == "read first":
            yield "noted", self._has_read(turn, turn.noted(read=worker.read))
        elif worker.at == "read":
            yield from self._observed(turn, worker)
        elif worker.at == "observed":
            yield "looked", self._has_looked(turn, worker._replace(found=world.store))
        elif worker.at == "looked":
            yield "raised", self._raised(turn, worker)
        elif worker.at == "raised":
            yield from self._published(turn, worker)
        elif worker.at == "published":
            is_there = is_proved(self._rules, worker.row, world.store)
            is_ours = not self._is_left_behind(turn)
            yield (
                "verified",
                turn.decided(NO_ROW, False, NOTHING) if is_there and is_ours else turn.ends(),
            )
        elif worker.at == "verified":
            yield from self._acknowledged(turn, worker)

    def _begun(self, turn: Turn) -> Labelled:
        world, memory = turn.world, turn.memory
        if memory.is_foreign:
            return
        if memory.generation <= 0:
            if world.asks >= self._scenario.asks:
                return
            world = world._replace(asks=world.asks + 1)
        if not self._rules.notes_first:
            yield "read", turn.on(world).goes(Worker("read first", read=world.content))
            return
        if memory.is_behind:
            # Back from the past: it takes the claim again, and everybody is looked at.
            entered = tuple(m._replace(is_behind=m is not memory) for m in world.memories)
            world = self._alarmed(world._replace(memories=entered), turn.number)
        turn = turn.on(world)
        yield "noted", turn.goes(turn.noted())

    def _is_left_behind(self, turn: Turn) -> bool:
        return self._rules.checks_claim and (turn.memory.is_behind or turn.memory.is_foreign)

    def _has_read(self, turn: Turn, worker: Worker) -> World:
        turn = turn.on(turn.goes(worker._replace(at="read")))
        if worker.read == worker.row.content and not self._rules.orders_unchanged:
            return turn.observed(worker.row)
        return turn.world

    def _observed(self, turn: Turn, worker: Worker) -> Labelled:
        if self._may_wait(turn, worker):
            waiting = turn.on(turn.observed(Row(1, worker.read)))
            yield "observed", waiting.goes(waiting.worker._replace(waits=True))
        may_collide = bool(worker.outlived & LOSS)  # another state counts from anywhere
        compares = self._rules.compares_observation
        if may_collide or (compares and worker.is_overtaken):
            yield "observed", turn.ends()
        if may_collide or not (compares and worker.is_overtaken):
            base = worker.row if compares else turn.memory.row
            if worker.read == base.content:
                yield "observed", turn.overtaking().observed(base)
                return
            version = base.version + 1 if base.version else turn.memory.floor + 1
            row = Row(version, worker.read)
            turn = turn.overtaking().remembering(row)
            if row.content == ABSENT and self._scenario.collects:
                turn = turn.on(turn.world.outliving(BURIAL))
            yield "observed", turn.observed(row)

    def _may_wait(self, turn: Turn, worker: Worker) -> bool:
        """Whether there is an entity of an owner who was never observed."""
        return (
            self._rules.observes_with_publish
            and self._rules.store_class == "T"
            and worker.read != ABSENT
            and (worker.row, turn.memory.floor) == (NO_ROW, 0)
            and not turn.memory.is_observed
        )

    def _has_looked(self, turn: Turn, worker: Worker) -> World:
        if self._is_left_behind(turn):
            return turn.ends()
        if worker.waits and worker.found != NOTHING:
            return turn.ends()  # it observes anew, and does not wait
        row, has_to_write = decided(self._rules, worker.row, worker.found)
        if row != worker.row:
            return turn.goes(worker._replace(at="looked"))
        return turn.decided(row, has_to_write, self._remembered(worker.found))

    def _remembered(self, found: Stored) -> Stored:
        """What of *found* a write goes by: only physical deletes need it."""
        return found if self._rules.deletes_physically else NOTHING

    def _raised(self, turn: Turn, worker: Worker) -> World:
        row, has_to_write = decided(self._rules, worker.row, worker.found)
        is_ahead = 0 < worker.row.version < worker.found.version
        if is_ahead and self._rules.alarms_when_ahead:
            # Somebody's writes are not remembered.
            turn = turn.on(self._alarmed(turn.world, turn.number))
        if self._rules.raises_by_comparing:
            if turn.memory.row != worker.row:
                return turn.ends()
        else:
            row = row._replace(version=max(turn.memory.row.version + 1, row.version))
        turn = turn.overtaking().remembering(row)
        return turn.decided(row, has_to_write, self._remembered(worker.found))

    def _published(self, turn: Turn, worker: Worker) -> Labelled:
        world, rules = turn.world, self._rules
        letter = Letter(worker.row, worker.found, turn.number, worker.waits, worker.outlived)
        is_n = rules.store_class == "N"
        is_suspect = world.is_suspect or (is_n and rules.suspects_first)
        suspected = turn.on(world._replace(is_suspect=is_suspect))
        applied = turn.on(self._landed(suspected.world, letter))
        sent = Worker("published", worker.generation, row=worker.row, outlived=worker.outlived)
        yield "published", applied.goes(sent)
        if world.faults >= self._scenario.faults:
            return
        for now in (applied, suspected):  # it landed and lands again, or has not yet
            letters = tuple(sorted((*world.letters, letter)))
            after = now.world._replace(faults=world.faults + 1, letters=letters)
            yield "crashed while sending", turn.on(after).ends()
            if is_n and not rules.suspects_first:
                yield "unanswered", turn.on(after._replace(is_suspect=True)).ends()

    def _acknowledged(self, turn: Turn, worker: Worker) -> Labelled:
        noted = worker.generation
        if worker.outlived & LOSS:
            # What another state counted may be more than this one's, or less.
            yield "acknowledged", turn.ends()
            noted = max(0, turn.memory.generation) + (not self._rules.bounds_acknowledged) * 2
        left = turn.memory._replace(generation=turn.memory.generation - noted)
        after = turn.on(turn.world.with_memory(turn.number, left)).ends()
        # Generations are counted from the acknowledged one.
        workers = tuple(
            each._replace(generation=max(0, each.generation - noted))
            if memory_of(after, place) == turn.number
            else each
            for place, each in enumerate(after.workers)
        )
        yield "acknowledged", after._replace(workers=workers)
