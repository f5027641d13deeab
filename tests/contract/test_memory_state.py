"""The state in memory keeps the promises of a real one; simulations rest on that."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from uuid import uuid4

import pytest

from support import memory_states
from undrift.testing.state_contract import StateContract


class TestMemoryState(StateContract):
    opener = "support.memory_states:open_memory_state"
    one_process = "it is in the memory of one process"

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls) -> Callable[[], str]:
        return lambda: f"memory:{uuid4()}"

    def let_pass(self, location: str, seconds: float) -> None:
        memory_states.let_pass(location, seconds)

    def transaction(self, location: str) -> AbstractContextManager[object]:
        return memory_states.transaction(location)
