"""The contract's part on which state it is, and which configuration it follows."""

from __future__ import annotations

from uuid import UUID

import pytest

from undrift.errors import ConfigError
from undrift.state import Standing, State
from undrift.testing._state_fixtures import (
    OpenState,
    StateFixtures,
    acknowledge,
    claimed,
    note_of,
    observe,
    row,
)


class StandingContract(StateFixtures):
    """Being there, and who may write."""

    def test_looking_for_a_state_creates_nothing(self, open_state: OpenState) -> None:
        """Only its certain absence is a no."""
        state = open_state()
        for _ in range(2):
            assert not state.exists()
            assert not open_state().exists()

    def test_a_state_that_was_not_created_says_so(self, open_state: OpenState) -> None:
        """It is no outage: somebody has to create it."""
        state = open_state()
        for ask in (state.standing, state.summary, lambda: state.note(["1"])):
            with pytest.raises(ConfigError, match="undrift sync"):
                ask()
        with pytest.raises(ConfigError):
            state.enter("c1")
        with pytest.raises(ConfigError):
            state.mark(["1"])

    def test_creating_again_changes_nothing(self, state: State, open_state: OpenState) -> None:
        """Whoever comes first makes the id."""
        state.enter("c1")
        observe(state, "1", row("a"))
        before = state.standing(), note_of(state, "1")
        state.create()
        again = open_state()
        again.create()
        assert again.exists()
        assert (again.standing(), note_of(again, "1")) == before

    def test_a_new_state_has_an_id_and_follows_no_configuration(self, state: State) -> None:
        """The id is a UUID; no writer has been there yet."""
        standing = state.standing()
        assert str(UUID(standing.state_id)) == standing.state_id
        assert standing[1:] == (0, "", 0)

    def test_scopes_of_one_place_know_nothing_of_each_other(
        self, state: State, open_state: OpenState
    ) -> None:
        """One database may hold the states of several stores."""
        other = open_state("other@here")
        assert not other.exists()
        other.create()
        assert other.standing().state_id != state.standing().state_id
        state.enter("c1")
        state.mark(["1"])
        state.lease(["1"], "w1", 60)
        observe(state, "1", row("a"))
        state.mark_everyone()
        assert other.standing()[1:] == (0, "", 0)
        assert note_of(other, "1").observation == 0
        assert claimed(other) == []
        assert other.lease(["1"], "w2", 60) == {}
        assert other.summary().owners == 0

    def test_every_entry_raises_the_epoch(self, state: State) -> None:
        """Above the store's claim, too: that is how a copy left behind is told."""
        first = state.enter("c1")
        assert (first.epoch, first.config, first.round) == (1, "c1", 0)
        assert state.enter("c1").epoch == 2
        assert state.enter("c1", above_epoch=10).epoch == 11
        assert state.enter("c1", above_epoch=3).epoch == 12
        assert state.standing() == Standing(first.state_id, 12, "c1", 0)

    def test_an_unseen_configuration_becomes_current_and_marks_everybody(
        self, state: State
    ) -> None:
        """Its records differ, so every owner has to be looked at."""
        state.enter("c1")
        observe(state, "1", row("a"))
        acknowledge(state, "1")
        assert claimed(state) == []
        assert state.enter("c2")[2:] == ("c2", 1)
        assert claimed(state) == ["1"]

    def test_the_first_configuration_marks_nobody(self, state: State) -> None:
        """There was nothing before that could differ."""
        observe(state, "1", row("a"))
        assert state.enter("c1").round == 0

    def test_a_superseded_configuration_changes_nothing(self, state: State) -> None:
        """Two releases at once would otherwise undo each other's work."""
        state.enter("c1")
        current = state.enter("c2")
        assert state.enter("c1", above_epoch=100) == current
        assert state.standing() == current
        assert state.enter("c2").epoch == current.epoch + 1

    def test_adopting_makes_a_superseded_configuration_current(self, state: State) -> None:
        """A person decides so; everybody is marked."""
        state.enter("c1")
        before = state.enter("c2")
        adopted = state.adopt("c1", above_epoch=50)
        assert adopted == Standing(before.state_id, 51, "c1", before.round + 1)
        assert state.enter("c2") == adopted  # c2 is the superseded one now
        assert state.adopt("c1").round == adopted.round + 1

    def test_closing_twice_is_no_error(self, open_state: OpenState) -> None:
        """Both halves of a program may clean up."""
        state = open_state()
        state.create()
        state.close()
        state.close()

    def test_the_location_is_told_without_a_password(self, state: State, location: str) -> None:
        """It is printed."""
        assert state.location
        password = location.partition("://")[2].partition("@")[0].partition(":")[2]
        assert not password or password not in state.location
