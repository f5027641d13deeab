"""Checkpoints, when a signal comes where nobody waits for one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from undrift import EntityId, Outcome, SyncStatus
from undrift.errors import StateUnavailable
from undrift.memory import FleetMemory
from undrift.scan import progress
from undrift.scan.feed import Position
from undrift.scan.progress import Checkpoints
from undrift.scan.statuses import dumped
from undrift.testing.memory_state import MemoryState

NAME = "check"
FIRST, SECOND = Position(False, "2"), Position(False, "4")


def drifted(owner: str) -> SyncStatus:
    """An owner who lacks a record."""
    missing = (EntityId("experience:exp_1"),)
    return SyncStatus(owner_id=owner, outcome=Outcome.DRIFT, missing_ids=missing)


@pytest.fixture
def memory() -> FleetMemory:
    """Where checkpoints are saved."""
    state = MemoryState()
    state.create()
    return state.memory


def checkpoints_of(memory: FleetMemory) -> Checkpoints:
    """Those of a run whose first page is saved."""
    found = Checkpoints(memory, NAME, every_seconds=3_600)
    found.begin(resume=False)
    found.done(FIRST, [drifted("1"), drifted("2")])
    found.save()
    return found


def taken_up(memory: FleetMemory) -> tuple[Position, dict[Outcome, int], list[str]]:
    """What the next run takes up."""
    following = Checkpoints(memory, NAME)
    resumed = following.begin(resume=True)
    assert resumed is not None
    owners = [status.owner_id for status in following.earlier()]
    return resumed.position, dict(resumed.outcomes), owners


def test_signal_while_results_are_written_down_leaves_the_page_undone(
    memory: FleetMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its position would be saved, and half of its results be lost."""
    checkpoints = checkpoints_of(memory)

    def interrupted(status: SyncStatus) -> str:
        if status.owner_id == "4":
            raise KeyboardInterrupt
        return dumped(status)

    monkeypatch.setattr(progress, "dumped", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.done(SECOND, [drifted("3"), drifted("4")])
    checkpoints.save()
    assert taken_up(memory) == (FIRST, {Outcome.DRIFT: 2}, ["1", "2"])


def test_results_that_are_missing_are_no_owners_in_sync(memory: FleetMemory) -> None:
    """Another run takes everything up, just when this one begins to read what it took up."""
    checkpoints_of(memory)
    one, other = Checkpoints(memory, NAME), Checkpoints(memory, NAME)
    assert one.begin(resume=True) is not None
    assert other.begin(resume=True) is not None
    with pytest.raises(StateUnavailable, match="not whole") as caught:
        list(one.earlier())
    assert "--resume" in caught.value.fix
    assert [status.owner_id for status in other.earlier()] == ["1", "2"]


class Interrupted:
    """A memory in which a signal comes right before, or right behind, the moment of saving."""

    def __init__(self, inner: FleetMemory, *, is_saved: bool) -> None:
        self._inner = inner
        self._is_saved = is_saved
        self.is_armed = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def advance(self, name: str, run_id: str, position: str, results: Sequence[str]) -> bool:
        """Save, or do not; nobody hears of it."""
        if not self.is_armed:
            return self._inner.advance(name, run_id, position, results)
        if self._is_saved:
            self._inner.advance(name, run_id, position, results)
        self.is_armed = False
        raise KeyboardInterrupt


@pytest.mark.parametrize("is_saved", [True, False])
def test_signal_while_a_checkpoint_is_saved_saves_nothing_twice(
    memory: FleetMemory, is_saved: bool
) -> None:
    """Nobody knows whether it was; whichever it is, position, sums and results go together."""
    wrapped = Interrupted(memory, is_saved=is_saved)
    checkpoints = checkpoints_of(wrapped)  # type: ignore[arg-type]  # it passes the rest on
    checkpoints.done(SECOND, [drifted("3"), drifted("4")])
    wrapped.is_armed = True
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save()
    checkpoints.save()  # as a run does that ends by a signal
    expected = (
        (SECOND, {Outcome.DRIFT: 4}, ["1", "2", "3", "4"])
        if is_saved
        else (FIRST, {Outcome.DRIFT: 2}, ["1", "2"])
    )
    assert taken_up(memory) == expected
