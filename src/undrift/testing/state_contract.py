"""What every state promises; an adapter's tests are this class with its hooks filled in.

    class TestMyState(StateContract):
        opener = "my_package:open_my_state"     # module:function, also called in other processes

        @pytest.fixture(scope="class")
        @classmethod
        def new_location(cls) -> Callable[[], str]:
            return lambda: f"my-state://localhost/{uuid4()}"

        def let_pass(self, location, seconds): ...
        def transaction(self, location): ...

The fence's part and the memory's are skipped for a state that has none, the processes' part for one
that says in `one_process` why it belongs to a single process.
"""

from __future__ import annotations

import pytest

# Before the parts are imported: pytest explains the failed assertions of modules it knows of.
pytest.register_assert_rewrite(
    "undrift.testing._state_concurrency",
    "undrift.testing._state_dirty",
    "undrift.testing._state_fence",
    "undrift.testing._state_fixtures",
    "undrift.testing._state_leases",
    "undrift.testing._state_memory",
    "undrift.testing._state_queue",
    "undrift.testing._state_rows",
    "undrift.testing._state_safety",
    "undrift.testing._state_standing",
)

from undrift.testing._state_concurrency import ConcurrencyContract  # noqa: E402
from undrift.testing._state_dirty import DirtyOwnersContract  # noqa: E402
from undrift.testing._state_fence import FenceContract  # noqa: E402
from undrift.testing._state_fixtures import StateFixtures  # noqa: E402
from undrift.testing._state_leases import LeaseContract  # noqa: E402
from undrift.testing._state_memory import MemoryContract  # noqa: E402
from undrift.testing._state_queue import QueueContract  # noqa: E402
from undrift.testing._state_rows import RowContract  # noqa: E402
from undrift.testing._state_safety import SafetyContract  # noqa: E402
from undrift.testing._state_standing import StandingContract  # noqa: E402

__all__ = ["StateContract", "StateFixtures"]


class StateContract(
    StandingContract,
    LeaseContract,
    RowContract,
    QueueContract,
    DirtyOwnersContract,
    SafetyContract,
    FenceContract,
    ConcurrencyContract,
    MemoryContract,
):
    """The promises of `undrift.state.State`, `undrift.state.Fence` and `undrift.memory`."""
