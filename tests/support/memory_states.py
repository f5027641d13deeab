"""States in memory at addresses, as the contract opens them."""

from __future__ import annotations

from contextlib import AbstractContextManager

from undrift.testing.memory_state import MemoryState

_SHIFTED: dict[str, float] = {}
_OPENED: dict[str, dict[str, MemoryState]] = {}


def open_memory_state(location: str, *, scope: str) -> MemoryState:
    """The state of *scope* at *location*; opening it again gives the same."""
    states = _OPENED.setdefault(location, {})
    if scope not in states:
        states[scope] = MemoryState(lambda: 1e9 + _SHIFTED.get(location, 0.0))
    return states[scope]


def let_pass(location: str, seconds: float) -> None:
    """Move the clock of every state at *location*."""
    _SHIFTED[location] = _SHIFTED.get(location, 0.0) + seconds


def transaction(location: str) -> AbstractContextManager[object]:
    """A transaction of the first state that was opened at *location*."""
    return next(iter(_OPENED[location].values())).transaction()
