"""The contract's part on leases: who works on whom."""

from __future__ import annotations

from collections.abc import Callable

from undrift.state import State
from undrift.testing._state_fixtures import StateFixtures, acknowledge, claimed, note_of


class LeaseContract(StateFixtures):
    """Leases save work; nothing that is written depends on them."""

    def test_a_free_owner_is_leased_and_another_hears_to_whom(self, state: State) -> None:
        """The others of the same call are leased all the same."""
        assert state.lease(["1", "2"], "w1", 60) == {}
        assert state.lease(["2", "3"], "w2", 60) == {"2": "w1"}
        assert state.lease(["1", "2", "3"], "w3", 60) == {"1": "w1", "2": "w1", "3": "w2"}
        assert state.lease(["1", "2"], "w1", 60) == {}

    def test_a_lease_ends_with_its_time(self, state: State, wait: Callable[[float], None]) -> None:
        """A worker that hangs or died holds up nobody for longer."""
        state.lease(["1"], "w1", 60)
        wait(30)
        assert state.lease(["1"], "w2", 60) == {"1": "w1"}
        wait(31)
        assert state.lease(["1"], "w2", 60) == {}
        assert state.lease(["1"], "w1", 60) == {"1": "w2"}

    def test_a_lease_is_taken_over_from_those_that_are_named(self, state: State) -> None:
        """Of a worker that is known to be gone."""
        state.lease(["1"], "w1", 60)
        state.lease(["2"], "w2", 60)
        assert state.lease(["1", "2"], "w3", 60, over=["w1", "w9"]) == {"2": "w2"}
        assert state.lease(["1"], "w1", 60) == {"1": "w3"}

    def test_renewing_prolongs_what_the_holder_still_has(
        self, state: State, wait: Callable[[float], None]
    ) -> None:
        """And nothing else."""
        state.lease(["1"], "w1", 60)
        state.lease(["2"], "w2", 60)
        wait(50)
        state.renew(["1", "2", "3"], "w1", 60)
        wait(50)
        assert state.lease(["1", "2", "3"], "w3", 60) == {"1": "w1"}

    def test_a_lost_lease_stays_lost(self, state: State, wait: Callable[[float], None]) -> None:
        """Whether somebody else has it by now or not."""
        state.lease(["1", "2"], "w1", 60)
        wait(61)
        state.lease(["2"], "w2", 60)
        state.renew(["1", "2"], "w1", 60)
        assert state.lease(["1", "2"], "w3", 60) == {"2": "w2"}

    def test_releasing_gives_up_the_holders_own_leases_only(self, state: State) -> None:
        """A late release does not free what another has taken over."""
        state.lease(["1"], "w1", 60)
        state.lease(["2"], "w2", 60)
        state.release(["1", "2", "unknown"], "w1")
        assert state.lease(["1", "2"], "w3", 60) == {"2": "w2"}

    def test_a_lease_alone_makes_nobody_known(self, state: State) -> None:
        """Somebody may ask for a user who does not exist."""
        state.lease(["nobody"], "w1", 60)
        assert state.summary().owners == 0
        assert note_of(state, "nobody").generation == 0
        state.mark_everyone()
        state.release(["nobody"], "w1")
        assert claimed(state) == []

    def test_what_becomes_known_under_a_lease_stays_so(self, state: State) -> None:
        """Giving the lease up forgets nothing."""
        state.lease(["1"], "w1", 60)
        state.mark(["1"])
        state.release(["1"], "w1")
        assert note_of(state, "1").generation == 1
        assert claimed(state) == ["1"]

    def test_an_acknowledgement_gives_up_the_holders_lease_only(self, state: State) -> None:
        """The other one's sync goes on."""
        state.lease(["1"], "w1", 60)
        state.lease(["2"], "w2", 60)
        acknowledge(state, "1", "2", holder="w1")
        assert state.lease(["1", "2"], "w3", 60) == {"2": "w2"}

    def test_calls_with_no_owners_do_nothing(self, state: State) -> None:
        """Pages may be empty."""
        assert state.lease([], "w1", 60) == {}
        state.renew([], "w1", 60)
        state.release([], "w1")
        state.mark([])
        state.suspect([], 60)
        state.acknowledge([], "w1")
        state.fail([], "w1")
        state.park([])
        state.forget([])
        assert state.note([]).owners == {}
        assert state.observe([]) == frozenset()
        assert state.raise_versions([]) == frozenset()
        assert state.stale_owners([], 60) == []
        assert state.unpark([]) == 0
        assert state.summary().owners == 0
