"""One entity of one owner, as a small model sees it: everything there is between two steps.

Contents are numbers, `ABSENT` where there is none. Generations are counted from the acknowledged
one, so that 0 is clean; whatever else only grows is bounded by how often the world may change.
"""

from __future__ import annotations

from typing import NamedTuple

ABSENT = 0
FOREIGN = 9
"""A content that no source ever had."""

# What something in flight has outlived.
BURIAL = 1  # the row was deleted since, and its tombstone may be collected once this has ended
LOSS = 2  # another state took the place of the one that was noted
ALARMS = (4, 8)  # everybody was marked in that state, to be marked once more when this has ended


class Stored(NamedTuple):
    """What the store holds under the entity's vector_id; a tombstone has no content."""

    version: int = 0
    content: int = ABSENT


NOTHING = Stored()


class Row(NamedTuple):
    """The entity's row in the state; version 0 if there is none."""

    version: int = 0
    content: int = ABSENT


NO_ROW = Row()


class Memory(NamedTuple):
    """A state, as far as it is about this owner.

    Its observations are numbered only to be compared with the noted one; here those that have it
    are told when it is no longer theirs (`Worker.is_overtaken`).

    Attributes:
        generation: marks that are not acknowledged.
        floor: no version that was forgotten was above it.
        owes_alarm: everybody is to be marked once more, after the send deadline.
        is_behind: the store's claim is above its epoch: a copy of it has entered since.
        is_foreign: the store is claimed by a state of another id.
        is_retired: the tombstone is collected, the row is to be forgotten.
        is_observed: an observation was accepted, or a row was raised.
    """

    generation: int = 0
    row: Row = NO_ROW
    floor: int = 0
    owes_alarm: bool = False
    is_behind: bool = False
    is_foreign: bool = False
    is_retired: bool = False
    is_observed: bool = False


class Worker(NamedTuple):
    """A worker with this owner in hand.

    Attributes:
        at: the last step that it has passed; empty if it has nothing in hand.
        generation: the noted one; the rest only as long as it matters.
        is_overtaken: there was another observation since the noted one.
        row: the noted one; once observed or raised, what it became.
        read: what the source showed.
        found: what the store showed.
        waits: the publish is to make the observation, of which there was none when it was noted.
        outlived: bits, see above.
    """

    at: str = ""
    generation: int = 0
    is_overtaken: bool = False
    row: Row = NO_ROW
    read: int = ABSENT
    found: Stored = NOTHING
    waits: bool = False
    outlived: int = 0


IDLE = Worker()


class Letter(NamedTuple):
    """A write on its way to the store.

    Attributes:
        found: what the store showed when it was decided on; physical deletes depend on it.
        memory: the number of the state that ordered it.
        waits: it is accepted only as the first observation.
    """

    row: Row
    found: Stored
    memory: int = 0
    waits: bool = False
    outlived: int = 0


class World(NamedTuple):
    """Everything.

    Attributes:
        content: what the source holds.
        letters: writes that nobody waits for any more.
        backup: an older copy of the state.
        is_marked: the source has changed, and no worker has drained the mark yet.
        is_unseen: there is damage that nobody looks for before the next scrub.
        is_suspect: a write may be on its way for as long as the horizon (class N).
        changes: how often the source has changed; faults and damages likewise.
        asks: syncs that began although nothing was dirty.
    """

    content: int
    memories: tuple[Memory, ...]
    store: Stored = NOTHING
    workers: tuple[Worker, ...] = (IDLE, IDLE)
    letters: tuple[Letter, ...] = ()
    backup: Memory | None = None
    is_marked: bool = False
    is_unseen: bool = False
    is_suspect: bool = False
    changes: int = 0
    faults: int = 0
    damages: int = 0
    asks: int = 0

    def __str__(self) -> str:
        """Only what is not as it was in the beginning."""
        return _told(self)

    def outliving(self, bit: int) -> World:
        """Something happens that everything in flight outlives."""
        return self._replace(
            workers=tuple(
                w._replace(outlived=w.outlived | bit) if w.at else w for w in self.workers
            ),
            letters=tuple(each._replace(outlived=each.outlived | bit) for each in self.letters),
        )

    def has_outlived(self, bit: int) -> bool:
        """Whether anything in flight did."""
        return any(each.outlived & bit for each in self.workers) or any(
            each.outlived & bit for each in self.letters
        )

    def with_memory(self, number: int, memory: Memory) -> World:
        """As this, with another memory in that place."""
        before, after = self.memories[:number], self.memories[number + 1 :]
        return self._replace(memories=(*before, memory, *after))


def _told(value: object) -> str:
    if not isinstance(value, tuple):
        return str(value)
    defaults: dict[str, object] | None = getattr(value, "_field_defaults", None)
    if defaults is None:
        return f"[{', '.join(map(_told, value))}]"
    names: tuple[str, ...] = getattr(value, "_fields", ())
    parts = zip(names, value, strict=True)
    told = (f"{name}={_told(part)}" for name, part in parts if part != defaults.get(name))
    return f"({', '.join(told)})"
