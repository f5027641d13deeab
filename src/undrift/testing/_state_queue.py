"""The contract's part on who is to be looked at."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from undrift.state import Acknowledgement, Failure, Parking, State
from undrift.testing._state_fixtures import (
    DAY_SECONDS,
    KIND,
    LEASE_SECONDS,
    StateFixtures,
    acknowledge,
    claimed,
    is_dirty,
    note_of,
    observe,
    row,
)

Wait = Callable[[float], None]


def answer(state: State, owner_id: str, generation: int | None, round_: int = 0) -> None:
    """End a sync that noted *generation*."""
    done = Acknowledgement(owner_id=owner_id, generation=generation, round=round_)
    state.acknowledge([done], "w1")


class QueueContract(StateFixtures):
    """Marks, rounds, doubts and failures."""

    # --- marks

    def test_a_mark_makes_an_owner_dirty_until_it_is_acknowledged(self, state: State) -> None:
        """One that was not known becomes known."""
        state.mark(["1", "2", "1"])
        assert state.summary().owners == 2
        assert sorted(claimed(state)) == ["1", "2"]
        assert claimed(state, holder="w2") == []  # leased
        acknowledge(state, "1", "2")
        assert claimed(state) == []
        assert not is_dirty(state)

    def test_a_mark_during_a_sync_outlives_its_acknowledgement(self, state: State) -> None:
        """The sync may have read the source before the change."""
        state.mark(["1"])
        assert claimed(state) == ["1"]
        noted = note_of(state, "1").generation
        state.mark(["1"])
        answer(state, "1", noted)
        assert note_of(state, "1").generation > note_of(state, "1").synced_generation
        assert claimed(state) == ["1"]

    def test_a_late_acknowledgement_takes_nothing_back(self, state: State) -> None:
        """The greatest generation that was acknowledged stays so."""
        state.mark(["1"])
        state.mark(["1"])
        answer(state, "1", 2)
        answer(state, "1", 1)
        note = note_of(state, "1")
        assert (note.generation, note.synced_generation) == (2, 2)
        assert claimed(state) == []

    def test_an_acknowledgement_beyond_what_is_known_answers_for_no_later_mark(
        self, state: State
    ) -> None:
        """As by a worker that noted before the state was restored."""
        state.mark(["1"])
        answer(state, "1", 7)
        state.mark(["1"])
        assert claimed(state) == ["1"]

    def test_an_owner_that_is_not_done_stays_dirty(self, state: State) -> None:
        """Its lease is given up, though."""
        state.mark(["1"])
        assert claimed(state) == ["1"]
        answer(state, "1", None)
        assert claimed(state, holder="w2") == ["1"]

    # --- rounds

    def test_marking_everyone_makes_every_known_owner_dirty_once(self, state: State) -> None:
        """Until each is synced."""
        for owner in ("1", "2", "3"):
            observe(state, owner, row("a"))
        acknowledge(state, "1", "2", "3")
        state.mark_everyone()
        assert state.standing().round == 1
        assert state.summary().dirty == 3
        assert sorted(claimed(state)) == ["1", "2", "3"]
        acknowledge(state, "1", "2", "3")
        assert claimed(state) == []

    def test_a_round_that_begins_during_a_sync_outlives_its_acknowledgement(
        self, state: State
    ) -> None:
        """The sync noted the one before."""
        observe(state, "1", row("a"))
        state.mark_everyone()
        noted = state.standing().round
        state.mark_everyone()
        answer(state, "1", 0, noted)
        assert claimed(state) == ["1"]
        answer(state, "1", 0, noted + 1)
        assert claimed(state) == []

    def test_everyone_is_marked_once_more_after_the_time(self, state: State, wait: Wait) -> None:
        """When a worker asks, and not twice."""
        observe(state, "1", row("a"))
        state.mark_everyone(again_after_seconds=100)
        assert claimed(state) == ["1"]
        acknowledge(state, "1")
        wait(90)
        assert claimed(state) == []
        wait(20)
        assert claimed(state) == ["1"]
        assert state.standing().round == 2
        acknowledge(state, "1")
        wait(1_000)
        assert claimed(state) == []

    def test_a_second_call_while_the_repetition_is_to_come_changes_nothing(
        self, state: State, wait: Wait
    ) -> None:
        """Everybody was just marked, and will be again."""
        state.mark_everyone(again_after_seconds=100)
        state.mark_everyone(again_after_seconds=500)
        assert state.standing().round == 1
        state.mark_everyone()
        assert state.standing().round == 2
        wait(110)
        assert claimed(state) == []
        assert state.standing().round == 3
        state.mark_everyone(again_after_seconds=100)
        assert state.standing().round == 4

    # --- doubts

    def test_a_suspect_write_makes_its_owner_dirty_after_the_time(
        self, state: State, wait: Wait
    ) -> None:
        """Whatever was acknowledged before it was over."""
        observe(state, "1", row("a"))
        state.suspect(["1", "2"], 100)
        acknowledge(state, "1", "2")
        assert claimed(state) == []
        wait(110)
        assert state.summary().dirty == 2
        assert sorted(claimed(state)) == ["1", "2"]
        acknowledge(state, "1", "2")
        assert claimed(state) == []
        assert not is_dirty(state)

    def test_a_sync_that_noted_before_the_time_was_over_does_not_answer_for_a_doubt(
        self, state: State, wait: Wait
    ) -> None:
        """The write may have landed behind its read-back."""
        state.suspect(["1"], 100)
        noted = note_of(state, "1").generation
        wait(110)
        assert claimed(state) == ["1"]
        answer(state, "1", noted)
        assert claimed(state) == ["1"]

    def test_a_later_doubt_is_waited_for_too(self, state: State, wait: Wait) -> None:
        """The owner is looked at when no write can land any more."""
        state.suspect(["1"], 100)
        state.suspect(["1"], 300)
        state.suspect(["1"], 50)
        wait(250)
        if claimed(state):
            acknowledge(state, "1")
        wait(60)
        assert claimed(state) == ["1"]

    # --- failures

    def test_a_failed_owner_is_not_given_out_before_its_delay(
        self, state: State, wait: Wait
    ) -> None:
        """It stays dirty, and what happened is told."""
        state.mark(["1", "2"])
        assert sorted(claimed(state)) == ["1", "2"]
        state.fail([Failure("1", "the provider said no", 50)], "w1")
        acknowledge(state, "2")
        assert claimed(state) == []
        summary = state.summary()
        assert (summary.dirty, summary.failing) == (1, 1)
        assert summary.last_error == "the provider said no"
        wait(60)
        (owner,) = state.claim_dirty("w1", 10, LEASE_SECONDS)
        assert (owner.owner_id, owner.attempts) == ("1", 1)
        assert owner.dirty_seconds == pytest.approx(60, abs=5)

    def test_failures_in_a_row_are_counted_until_a_sync_succeeds(self, state: State) -> None:
        """A success begins anew."""
        state.mark(["1"])
        for attempts in range(3):
            (owner,) = state.claim_dirty("w1", 10, LEASE_SECONDS)
            assert owner.attempts == attempts
            state.fail([Failure("1", f"number {attempts}", 0)], "w1")
        assert state.summary().last_error == "number 2"
        acknowledge(state, "1")
        summary = state.summary()
        assert (summary.failing, summary.last_error) == (0, "")
        state.mark(["1"])
        assert state.claim_dirty("w1", 10, LEASE_SECONDS)[0].attempts == 0

    def test_a_failure_gives_up_the_holders_lease_only(self, state: State) -> None:
        """Another may have taken over."""
        state.lease(["1"], "w1", 60)
        state.lease(["2"], "w2", 60)
        state.fail([Failure("1", "no", 0), Failure("2", "no", 0)], "w1")
        assert state.lease(["1", "2"], "w3", 60) == {"2": "w2"}

    def test_the_latest_error_is_the_one_that_is_told(self, state: State, wait: Wait) -> None:
        """In one line, whatever it held."""
        state.fail([Failure("1", "old", 0)], "w1")
        wait(10)
        state.fail([Failure("2", "new\x00\ud83d", 0)], "w1")
        wait(10)
        assert state.summary().last_error.startswith("new")
        assert state.summary().failing == 2

    def test_a_parked_record_that_is_due_makes_its_owner_dirty(
        self, state: State, wait: Wait
    ) -> None:
        """Until it is parked again, or read back."""
        observe(state, "1", row("a"))
        acknowledge(state, "1")
        state.park([Parking("1", KIND, "a", 1, "too long", 100)])
        assert claimed(state) == []
        wait(110)
        assert state.summary().dirty == 1
        assert claimed(state) == ["1"]
        state.park([Parking("1", KIND, "a", 1, "too long", 100)])
        acknowledge(state, "1")
        assert claimed(state) == []
        wait(210)
        assert claimed(state) == ["1"]
        acknowledge(state, "1", published=[(KIND, "a", 1)])
        assert claimed(state) == []

    # --- claims

    def test_owners_are_claimed_once_and_at_most_as_many_as_asked_for(self, state: State) -> None:
        """No two workers get the same."""
        owners = [f"o{number:02}" for number in range(25)]
        state.mark(owners)
        found = [claimed(state, 10, holder=f"w{number}") for number in range(4)]
        assert [len(each) for each in found] == [10, 10, 5, 0]
        assert sorted(owner for each in found for owner in each) == owners

    def test_an_owner_that_is_leased_is_not_claimed(self, state: State, wait: Wait) -> None:
        """Not even by its holder, who is at it; an expired lease counts for nothing."""
        state.mark(["1"])
        state.lease(["1"], "w1", 60)
        assert claimed(state, holder="w1") == []
        assert claimed(state, holder="w2") == []
        wait(61)
        assert claimed(state, holder="w2") == ["1"]
        assert state.lease(["1"], "w1", 60) == {"1": "w2"}

    def test_higher_priority_comes_first_then_the_longest_wait(
        self, state: State, wait: Wait
    ) -> None:
        """A mark without priority takes none away."""
        for owner in ("third", "fourth", "first", "second"):
            state.mark([owner])
            wait(1)
        state.mark(["second"], priority=1)
        state.mark(["first"], priority=2)
        state.mark(["first"])
        assert claimed(state) == ["first", "second", "third", "fourth"]

    def test_an_acknowledgement_takes_the_priority_back(self, state: State, wait: Wait) -> None:
        """Also where the owner became dirty again."""
        state.mark(["1"], priority=5)
        assert claimed(state) == ["1"]
        noted = note_of(state, "1").generation
        state.mark(["2"])
        state.mark(["1"])
        wait(1)
        answer(state, "1", noted)
        assert claimed(state) == ["2", "1"]

    def test_an_owner_that_never_rests_starves_nobody(self, state: State, wait: Wait) -> None:
        """What becomes dirty during its sync waits anew."""
        state.mark(["busy"])
        wait(1)
        state.mark(["quiet"])
        assert claimed(state, 1) == ["busy"]
        noted = note_of(state, "busy").generation
        state.mark(["busy"])
        wait(1)
        answer(state, "busy", noted)
        assert claimed(state, 1) == ["quiet"]

    def test_marks_and_rounds_are_claimed_by_the_time_they_wait(
        self, state: State, wait: Wait
    ) -> None:
        """One kind of work does not starve the other."""
        observe(state, "round", row("a"))
        acknowledge(state, "round")
        state.mark(["before"])
        wait(1)
        state.mark_everyone()
        wait(1)
        state.mark(["after"])
        acknowledge(state, "after")
        state.mark(["after"])
        assert claimed(state, 1) == ["before"]
        assert claimed(state, 1) == ["round"]
        assert claimed(state, 1) == ["after"]

    # --- verification

    def test_stale_are_owners_that_were_not_verified_in_time(
        self, state: State, wait: Wait
    ) -> None:
        """The unknown ones, and those whose sync failed, included; in the order they came in."""
        observe(state, "done", row("a"))
        acknowledge(state, "done", "empty")
        state.mark(["marked"])
        state.fail([Failure("failed", "no", 0)], "w1")
        owners = ["unknown", "marked", "failed", "empty", "done"]
        assert state.stale_owners(owners, 100) == ["unknown", "marked", "failed"]
        wait(101)
        assert state.stale_owners(owners, 100) == owners
        answer(state, "done", None)
        assert "done" in state.stale_owners(owners, 100)
        acknowledge(state, "done")
        assert "done" not in state.stale_owners(owners, 100)

    def test_one_at_a_time_has_the_scrub(self, state: State, wait: Wait) -> None:
        """Its lease ends with its time; its holder may renew it."""
        turn = state.scrub_turn("w1", 60)
        assert turn == (None, False, math.inf)  # there was no pass yet, so one is due
        assert state.scrub_turn("w2", 60) is None
        assert state.scrub_turn("w1", 60) is not None
        wait(61)
        assert state.scrub_turn("w2", 60) is not None
        assert state.scrub_turn("w1", 60) is None

    def test_the_scrub_goes_on_where_it_was_left(self, state: State, wait: Wait) -> None:
        """Whoever does it, through both sides."""
        state.scrub_turn("w1", 60)
        state.scrubbed("w1", "owner-5", is_second_side=False)
        wait(100)
        turn = state.scrub_turn("w2", 60)
        assert turn is not None
        assert turn[:2] == ("owner-5", False)
        assert turn.began_seconds == pytest.approx(100, abs=5)
        state.scrubbed("w2", None, is_second_side=True)
        turn = state.scrub_turn("w2", 60)
        assert turn is not None
        assert turn[:2] == (None, True)

    def test_a_new_pass_begins_at_the_beginning(self, state: State, wait: Wait) -> None:
        """And its time with it."""
        state.scrub_turn("w1", DAY_SECONDS)
        state.scrubbed("w1", "z", is_second_side=True)
        wait(100)
        state.scrubbed("w1", None, is_second_side=False)
        wait(10)
        turn = state.scrub_turn("w1", 60)
        assert turn is not None
        assert turn[:2] == (None, False)
        assert turn.began_seconds == pytest.approx(10, abs=5)

    def test_who_has_lost_the_scrub_moves_it_no_more(self, state: State, wait: Wait) -> None:
        """It would skip what the other has not done yet, or send it back."""
        state.scrub_turn("w1", 60)
        wait(61)
        state.scrub_turn("w2", 60)
        state.scrubbed("w2", "m", is_second_side=False)
        state.scrubbed("w1", "z", is_second_side=False)
        turn = state.scrub_turn("w2", 60)
        assert turn is not None
        assert turn.after == "m"
