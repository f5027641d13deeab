"""A fleet that drifted, sides that fail at a chosen step, and what may never follow from that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from typing import NamedTuple

from support.layouts import document, experience, skill_key
from support.sides import Identity, World
from support.wrappers import Before, SteppedSource, SteppedStore, nothing
from undrift import (
    EntityId,
    Outcome,
    SyncReport,
    SyncStatus,
    UndriftError,
    UnknownStateError,
)

PUBLISHED = {
    owner: document(
        experience("exp_kept", f"Kept {owner}"),
        experience("exp_edited", f"Once {owner}"),
        skills=[f"Gone {owner}"],
    )
    for owner in ("1", "2", "3", "4")
}
ORPHAN = "4"
WANTED = {
    owner: document(
        experience("exp_kept", f"Kept {owner}"),
        experience("exp_edited", f"Edited {owner}"),
        skills=[f"New {owner}"],
    )
    for owner in ("1", "2", "3")
}
LIVE = {
    Identity(owner, EntityId(key))
    for owner in WANTED
    for key in ("experience:exp_kept", "experience:exp_edited")
}
"""What is in the source before and after, and was published: it may never be absent."""

STALE = {Identity(owner, skill_key(f"Gone {owner}")) for owner in PUBLISHED} | {
    Identity(ORPHAN, EntityId(key)) for key in ("experience:exp_kept", "experience:exp_edited")
}
"""What is to be deleted, and only by a run that has seen everything."""

PAGE_OWNERS = 2  # so that three owners, and one that only the store has, fill three pages


def publish(world: World) -> None:
    """Bring *world* in sync."""
    world.bring_in_sync(PUBLISHED)


def drift_away(world: World) -> None:
    """Bring *world* in sync, then let every owner drift: missing, stale and changed."""
    publish(world)
    world.put_all(WANTED)
    world.remove_owners([ORPHAN])


class Outage:
    """Fails a side at the *at*-th step of a name, and if *lasting* at every step from then on.

    Args:
        error: what a failing step raises; None leaves that to the side itself.
        begin: called when the outage begins.

    Attributes:
        step: the name of the steps it counts.
        at: which of the steps of that name it is.
        began: whether the *at*-th step of that name was made.
    """

    def __init__(
        self,
        error: UndriftError | None,
        step: str,
        at: int = 1,
        *,
        lasting: bool = True,
        begin: Callable[[], object] = lambda: None,
    ) -> None:
        self._error = error
        self.step = step
        self.at = at
        self._lasting = lasting
        self._begin = begin
        self._numbers = count(1)  # steps come from several threads
        self.began = False

    def __call__(self, step: str) -> None:
        """Make a step, or fail."""
        is_first = step == self.step and next(self._numbers) == self.at
        is_out = is_first or (self._lasting and self.began)
        if is_first:
            self.began = True
            self._begin()
        if is_out and self._error is not None:
            raise self._error


class Fragile:
    """An `Undrift` with small pages, whose sides fail when they are told to.

    Opened once for many outages: compiling the templates costs more than a whole sync here.
    """

    def __init__(self, world: World) -> None:
        self._hooks: dict[str, Before] = {}
        self.sides = world.open(
            source=lambda inner: SteppedSource(inner, self._step, page_owners=PAGE_OWNERS),
            store=lambda inner: SteppedStore(inner, self._step, page_owners=PAGE_OWNERS),
        )

    def fail(self, side: str, outage: Outage) -> Outage:
        """Let *outage* count and fail the steps of *side*, ``source`` or ``store``."""
        self._hooks = {side: outage}
        return outage

    def outages(
        self,
        side: str,
        error: UndriftError,
        steps: Iterable[str],
        *,
        lasting: bool = True,
        begin: Callable[[], object] = lambda: None,
    ) -> Iterator[Outage]:
        """One outage after the other, at every occurrence of each of *steps*.

        The last one of each name never begins, since a run does not make so many steps of it.
        """
        for step in steps:
            for at in count(1):
                outage = Outage(error, step, at, lasting=lasting, begin=begin)
                yield self.fail(side, outage)
                if not outage.began:
                    assert at > 1, f"there is no step {step}"
                    break

    def _step(self, step: str) -> None:
        self._hooks.get(step.partition(".")[0], nothing)(step)


class Ran(NamedTuple):
    """What a run said of the owners, and how it ended."""

    outcomes: dict[str, Outcome]
    error: UnknownStateError | None

    @property
    def told(self) -> bool:
        """Whether it said that something could not be looked at, or was not proved."""
        return self.error is not None or not {Outcome.UNKNOWN, Outcome.FAILED}.isdisjoint(
            self.outcomes.values()
        )

    def owners(self, outcome: Outcome) -> set[str]:
        """The owners that ended in *outcome*."""
        return {owner for owner, found in self.outcomes.items() if found is outcome}


def ran(run: Callable[[], Iterable[SyncStatus] | Iterable[SyncReport]]) -> Ran:
    """Make a run; only "could not look" may end it early."""
    results: list[SyncStatus | SyncReport] = []
    error: UnknownStateError | None = None
    try:
        results.extend(run())
    except UnknownStateError as exc:
        error = exc
    return Ran({result.owner_id: result.outcome for result in results}, error)


def stale_in(world: World) -> set[Identity]:
    """Which stale records are still in the store."""
    return STALE & world.store.identities().keys()


def assert_only_stale_was_deleted(world: World) -> None:
    """Nothing that lives is absent."""
    assert world.store.identities().keys() >= LIVE


def truly_in_sync(world: World, owners: Iterable[str]) -> set[str]:
    """Which of *owners* have just the records that the source wants, read by SQL."""
    owners = list(owners)
    found: dict[str, set[tuple[EntityId, str]]] = {owner: set() for owner in owners}
    for row in world.store.managed().values():
        if row["owner_id"] in found:
            key = EntityId.of(row["kind"], row["entity_id"])
            found[row["owner_id"]].add((key, row["text"]))
    wanted = {
        owner: {(k, e.text) for k, e in world.layout.entities(WANTED.get(owner, {})).items()}
        for owner in owners
    }
    return {owner for owner in owners if found[owner] == wanted[owner]}


class Snapshot:
    """The rows of a world of SQLite files, to go back to."""

    def __init__(self, world: World) -> None:
        self._tables = [
            (world.source, "profiles"),
            (world.store.database, "vectors"),
            (world.store.database, "embeddings"),
        ]
        self._rows = [database.rows(f"SELECT * FROM {name}") for database, name in self._tables]

    def restore(self) -> None:
        """Bring every row back."""
        for (database, name), rows in zip(self._tables, self._rows, strict=True):
            database.run(f"DELETE FROM {name}")
            columns = ", ".join(f":{column}" for column in rows[0])
            database.run_many(f"INSERT INTO {name} VALUES ({columns})", rows)
