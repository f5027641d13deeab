"""The contract's part on asking who is dirty without taking anybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from undrift.state import Failure, Parking, State
from undrift.testing._state_fixtures import (
    KIND,
    SCOPE,
    OpenState,
    StateFixtures,
    acknowledge,
    claimed,
    note_of,
    observe,
    row,
)

Wait = Callable[[float], None]

MANY = 1_000


def dirty(state: State, *, page: int = MANY) -> list[str]:
    """Everybody who is dirty, asked for page by page."""
    return [owner for owners in _pages(state, page) for owner in owners]


def _pages(state: State, limit: int) -> Iterator[list[str]]:
    after: str | None = None
    while page := list(state.dirty_owners(limit, after)):
        assert len(page) <= limit
        yield page
        after = page[-1]


class DirtyOwnersContract(StateFixtures):
    """Who is to be synced, for whoever only looks."""

    def test_dirty_are_those_whom_a_claim_gives_out(self, state: State, wait: Wait) -> None:
        """For each reason there is, each owner once, by code point; the others are not."""
        for owner in ("passed", "parked", "clean"):
            observe(state, owner, row("a"))
        state.mark_everyone()
        acknowledge(state, "parked", "clean")
        state.park([Parking("parked", KIND, "a", 1, "too long", 100)])
        state.suspect(["doubted"], 100)
        acknowledge(state, "doubted")
        state.mark(["marked", "failed", "Ä", "Z"])
        state.fail([Failure("failed", "no", 100)], "w1")
        wait(110)
        state.mark(["passed"])
        expected = ["Z", "doubted", "failed", "marked", "parked", "passed", "Ä"]
        assert dirty(state) == expected
        assert state.summary().dirty == len(expected)
        assert sorted(claimed(state)) == expected

    def test_pages_of_the_dirty_leave_nobody_out(self, state: State) -> None:
        """Nor is anybody in two of them."""
        owners = [f"o{number:02}" for number in range(25)]
        state.mark(owners[::2])
        state.mark_everyone()
        state.mark(owners)
        assert list(state.dirty_owners(10)) == owners[:10]
        assert list(state.dirty_owners(10, "o22")) == ["o23", "o24"]
        assert list(state.dirty_owners(10, "o24")) == []
        for page in (1, 7, 25, 26):
            assert dirty(state, page=page) == owners

    def test_an_owner_who_is_leased_is_dirty_all_the_same(self, state: State) -> None:
        """Whoever syncs it has not done so yet."""
        state.mark(["1", "2"])
        state.lease(["1"], "w1", 60)
        assert claimed(state, holder="w2") == ["2"]
        assert dirty(state) == ["1", "2"]
        acknowledge(state, "1")
        assert dirty(state) == ["2"]

    def test_a_failed_owner_is_dirty_before_it_is_tried_again(self, state: State) -> None:
        """Waiting makes nobody clean."""
        observe(state, "round", row("a"))
        state.mark(["mark"])
        state.mark_everyone()
        failures = [Failure(owner, "no", 1_000) for owner in ("round", "mark")]
        state.fail(failures, "w1")
        assert claimed(state) == []
        assert dirty(state) == ["mark", "round"]

    def test_a_doubt_or_a_parking_makes_dirty_when_its_time_has_come(
        self, state: State, wait: Wait
    ) -> None:
        """Before that there is nothing to be looked at."""
        observe(state, "parked", row("a"))
        state.suspect(["doubted"], 100)
        acknowledge(state, "parked", "doubted")
        state.park([Parking("parked", KIND, "a", 1, "too long", 100)])
        assert dirty(state) == []
        wait(110)
        assert dirty(state) == ["doubted", "parked"]

    def test_everybody_is_dirty_when_a_claim_would_mark_them_once_more(
        self, state: State, wait: Wait
    ) -> None:
        """Whoever only asks does not mark them."""
        observe(state, "1", row("a"))
        state.mark_everyone(again_after_seconds=100)
        acknowledge(state, "1")
        assert dirty(state) == []
        wait(110)
        assert dirty(state) == ["1"]
        assert state.standing().round == 1
        assert claimed(state) == ["1"]
        assert state.standing().round == 2

    def test_asking_who_is_dirty_changes_nothing(self, state: State, wait: Wait) -> None:
        """No lease, no generation, no order among them."""
        state.suspect(["doubted"], 10)
        state.mark(["second"])
        wait(20)
        state.mark(["first"], priority=1)
        before = [note_of(state, owner) for owner in ("first", "second", "doubted")]
        summary = state.summary()
        assert dirty(state) == dirty(state) == ["doubted", "first", "second"]
        assert [note_of(state, owner) for owner in ("first", "second", "doubted")] == before
        assert state.summary().dirty == summary.dirty
        assert claimed(state)[0] == "first"

    def test_another_scopes_dirty_are_not_told(self, state: State, open_state: OpenState) -> None:
        """They are another store's."""
        other = open_state(f"other {SCOPE}")
        other.create()
        other.mark(["1"])
        state.mark(["2"])
        assert dirty(state) == ["2"]
        assert dirty(other) == ["1"]

    # --- settled

    def test_an_owner_whose_every_version_was_read_back_is_settled(self, state: State) -> None:
        """With as many live entities as there are; one that is known to have none, too."""
        observe(state, "1", row("a"), row("b"), row("gone", is_deleted=True))
        acknowledge(state, "2")
        assert state.settled_owners(["1", "2", "3"]) == {"2": 0}
        acknowledge(state, "1", published=[(KIND, "a", 1), (KIND, "b", 1), (KIND, "gone", 1)])
        assert state.settled_owners(["3", "2", "1"]) == {"1": 2, "2": 0}
        assert state.settled_owners([]) == {}

    def test_a_version_that_was_not_read_back_unsettles_its_owner(self, state: State) -> None:
        """A worker may hold a plan for it that is still to be published."""
        observe(state, "1", row("a"))
        acknowledge(state, "1", published=[(KIND, "a", 1)])
        assert state.settled_owners(["1"]) == {"1": 1}
        observe(state, "1", row("a", version=2))
        assert state.settled_owners(["1"]) == {}
        acknowledge(state, "1", published=[(KIND, "a", 2)])
        assert state.settled_owners(["1"]) == {"1": 1}

    def test_whoever_is_to_be_looked_at_is_not_settled(self, state: State, wait: Wait) -> None:
        """For each reason there is; and whoever is leased, until the lease has run out."""
        names = ["marked", "failed", "doubted", "parked", "leased"]
        for owner in names:
            observe(state, owner, row("a"))
            acknowledge(state, owner, published=[(KIND, "a", 1)])
        assert state.settled_owners(names) == dict.fromkeys(names, 1)
        state.mark(["marked"])
        state.fail([Failure("failed", "no", 100)], "w1")
        state.suspect(["doubted"], 100)
        state.park([Parking("parked", KIND, "a", 1, "too long", 100)])
        state.lease(["leased"], "w1", 60)
        assert state.settled_owners(names) == {}
        wait(70)
        assert state.settled_owners(names) == {"leased": 1}
        state.mark_everyone()
        assert state.settled_owners(names) == {}

    def test_nobody_is_settled_when_everybody_is_to_be_looked_at_again(
        self, state: State, wait: Wait
    ) -> None:
        """A claim would mark them; who asks does not wait for it."""
        observe(state, "1", row("a"))
        state.mark_everyone(again_after_seconds=100)
        acknowledge(state, "1", published=[(KIND, "a", 1)])
        assert state.settled_owners(["1"]) == {"1": 1}
        wait(110)
        assert state.settled_owners(["1"]) == {}
