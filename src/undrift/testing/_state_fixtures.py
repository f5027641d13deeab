"""What a state's tests fill in, and the fixtures that all of the contract's parts share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Protocol

import pytest

from undrift.state import (
    Acknowledgement,
    EntityRow,
    FencedState,
    Observation,
    OwnerNote,
    State,
)

KIND = "experience"
MODEL = "local/m@1:8"
SCOPE = "default@here"
LEASE_SECONDS = 60.0
DAY_SECONDS = 86_400.0


class OpenState(Protocol):
    """Opens the state at the test's location once more."""

    def __call__(self, scope: str = SCOPE) -> State: ...


class StateFixtures(ABC):
    """The hooks of a state's own tests, and the fixtures made from them.

    Besides the methods below, the subclass defines one fixture of class scope:

        ``new_location``: a function that returns the address of a place where no state is yet,
        a different one with every call.

    Attributes:
        opener: what opens a state at an address, here and in other processes, as
            ``module:function``; it is called with the address and ``scope=``.
        one_process: why the state cannot be used from several processes; empty if it can.
    """

    opener = "undrift.states:open_state"
    one_process = ""

    @abstractmethod
    def let_pass(self, location: str, seconds: float) -> None:
        """Make so much time pass for the state at *location*, whoever has opened it."""

    @abstractmethod
    def transaction(self, location: str) -> AbstractContextManager[object]:
        """One transaction on a connection of its own, as the store beside the state begins it.

        Its value is what the fence gets. It commits at the end, and an exception undoes it.
        """

    @classmethod
    def make_state(cls, location: str, scope: str = SCOPE) -> State:
        """Open the state at *location*, which may have been opened before."""
        return state_opener(cls.opener)(location, scope=scope)

    @pytest.fixture
    def location(self, new_location: Callable[[], str]) -> str:
        """An address where no state is yet."""
        return new_location()

    @pytest.fixture
    def open_state(self, location: str) -> Iterator[OpenState]:
        """A function that opens the state at the test's location, and it is closed afterwards."""
        opened: list[State] = []

        def open_(scope: str = SCOPE) -> State:
            opened.append(self.make_state(location, scope))
            return opened[-1]

        yield open_
        for state in opened:
            state.close()

    @pytest.fixture
    def state(self, open_state: OpenState) -> State:
        """A state that is created and empty."""
        state = open_state()
        state.create()
        return state

    @pytest.fixture
    def wait(self, location: str) -> Callable[[float], None]:
        """A function that makes time pass for the test's state."""
        return lambda seconds: self.let_pass(location, seconds)

    @pytest.fixture
    def fenced(self, state: State) -> FencedState:
        """The state, if it can share a transaction with a store."""
        if not isinstance(state, FencedState):
            pytest.skip("the state shares no transaction with a store")
        return state

    def need_processes(self) -> None:
        """Skip the test where the state belongs to one process."""
        if self.one_process:
            pytest.skip(self.one_process)


def state_opener(name: str) -> Callable[..., State]:
    """The function that ``module:function`` names."""
    module, _, function = name.partition(":")
    opener: Callable[..., State] = getattr(import_module(module), function)
    return opener


def row(
    entity_id: str,
    version: int = 1,
    *,
    kind: str = KIND,
    is_deleted: bool = False,
    fingerprint: str | None = None,
) -> EntityRow:
    """What is observed of one entity; its fingerprint tells the version."""
    if is_deleted:
        return EntityRow(kind, entity_id, version, "", "", is_deleted=True)
    content = f"{entity_id}, version {version}" if fingerprint is None else fingerprint
    return EntityRow(kind, entity_id, version, content, MODEL, is_deleted=False)


def observe(state: State, owner_id: str, *rows: EntityRow) -> None:
    """Note *owner_id* and have *rows* accepted."""
    noted = note_of(state, owner_id).observation
    accepted = state.observe([Observation(owner_id=owner_id, noted=noted, rows=rows)])
    assert accepted == {owner_id}


def note_of(state: State, owner_id: str) -> OwnerNote:
    """What is remembered of one owner."""
    return state.note([owner_id]).owners[owner_id]


def rows_of(state: State, owner_id: str) -> dict[str, int]:
    """The versions that are remembered of an owner's entities, by id."""
    return {row.entity_id: row.version for row in note_of(state, owner_id).entities.values()}


def row_of(state: State, owner_id: str, entity_id: str, *, kind: str = KIND) -> EntityRow:
    """What is remembered of one entity."""
    return note_of(state, owner_id).entities[kind, entity_id]


def acknowledge(
    state: State,
    *owners: str,
    holder: str = "w1",
    published: Sequence[tuple[str, str, int]] = (),
) -> None:
    """End a sync of each of *owners* that noted what is remembered now."""
    note = state.note(owners)
    state.acknowledge(
        [
            Acknowledgement(
                owner_id=owner,
                generation=note.owners[owner].generation,
                round=note.standing.round,
                published=published,
            )
            for owner in owners
        ],
        holder,
    )


def claimed(state: State, limit: int = 100, *, holder: str = "w1") -> list[str]:
    """The owners that *holder* gets to sync, in their order."""
    dirty = state.claim_dirty(holder, limit, LEASE_SECONDS)
    assert len(dirty) <= limit
    return [owner.owner_id for owner in dirty]


def is_dirty(state: State) -> bool:
    """Whether anybody is to be synced; leases nobody."""
    return state.summary().dirty > 0
