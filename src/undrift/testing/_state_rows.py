"""The contract's part on versions: observed, raised, published, parked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from undrift.ports import MAX_VERSION
from undrift.state import (
    Acknowledgement,
    EntityRow,
    Observation,
    OwnerNote,
    Parking,
    State,
    VersionRaise,
)
from undrift.testing._state_fixtures import (
    DAY_SECONDS,
    KIND,
    StateFixtures,
    acknowledge,
    claimed,
    note_of,
    observe,
    row,
    row_of,
    rows_of,
)

SPELLINGS = [
    "exp_9",
    "é ü 日本 🎉",
    "'; DROP TABLE x --",
    '"%s%(a)s{}\\',
    "a\nb\tc",
    " ",
    "x" * 500,
]


def seen(state: State, owner_id: str, *rows: EntityRow, noted: int) -> bool:
    """Whether an observation with that note is accepted."""
    return bool(state.observe([Observation(owner_id=owner_id, noted=noted, rows=rows)]))


def raised(state: State, owner_id: str, observed: list[EntityRow], raised: list[EntityRow]) -> bool:
    """Whether the rows were as *observed* and are now *raised*."""
    wish = VersionRaise(owner_id=owner_id, observed=observed, raised=raised)
    return bool(state.raise_versions([wish]))


def parking(entity_id: str, version: int = 1, *, owner_id: str = "1") -> Parking:
    """The record of one entity cannot be made."""
    return Parking(owner_id, KIND, entity_id, version, "too long", 10.0)


class RowContract(StateFixtures):
    """What a sync decides, and what a later one finds of it."""

    # --- note and observe

    def test_an_unknown_owner_is_all_zero(self, state: State) -> None:
        """And noting it makes it no more known."""
        for _ in range(2):
            assert note_of(state, "1") == OwnerNote(owner_id="1")
        assert state.summary().owners == 0

    @pytest.mark.parametrize("spelling", SPELLINGS)
    def test_ids_come_back_as_they_were_spelled(self, state: State, spelling: str) -> None:
        """Owners, kinds and entities are anybody's text."""
        observe(state, spelling, row(spelling, kind=spelling))
        state.mark([spelling])
        assert row_of(state, spelling, spelling, kind=spelling).fingerprint
        assert claimed(state) == [spelling]

    def test_ids_that_no_database_stores_have_nothing_remembered(self, state: State) -> None:
        """A NUL or a lone surrogate: no such user can exist."""
        for unstorable in ("a\x00b", "\ud83d"):
            assert note_of(state, unstorable) == OwnerNote(owner_id=unstorable)
            assert state.lease([unstorable], "w1", 60) == {}
            state.mark([unstorable])
            assert state.stale_owners([unstorable], 60) == [unstorable]
        assert state.summary().owners == 0

    def test_an_accepted_observation_is_remembered(self, state: State) -> None:
        """As it was given, the deleted ones too."""
        rows = [row("a"), row("b", 7), row("c", 3, is_deleted=True), row("a", 2, kind="skill")]
        observe(state, "1", *rows)
        note = note_of(state, "1")
        assert note.observation == 1
        assert note.entities == {row.identity: row for row in rows}
        assert (note.generation, note.synced_generation) == (0, 0)

    def test_an_observation_is_refused_where_another_was_accepted_since_the_note(
        self, state: State
    ) -> None:
        """Its snapshot may be the older one."""
        before = note_of(state, "1").observation
        assert seen(state, "1", row("a", 1), noted=before)
        assert not seen(state, "1", row("a", 9), noted=before)
        assert not seen(state, "1", noted=before)
        assert rows_of(state, "1") == {"a": 1}
        assert seen(state, "1", row("a", 2), noted=note_of(state, "1").observation)
        assert rows_of(state, "1") == {"a": 2}

    def test_an_observation_that_was_never_noted_is_refused(self, state: State) -> None:
        """As after the state was lost, or restored."""
        assert not seen(state, "1", row("a"), noted=3)
        assert note_of(state, "1") == OwnerNote(owner_id="1")

    def test_an_observation_without_rows_keeps_out_an_older_one(self, state: State) -> None:
        """It saw that nothing had changed, later than whoever noted before it."""
        observe(state, "1", row("a"))
        before = note_of(state, "1")
        assert seen(state, "1", noted=before.observation)
        after = note_of(state, "1")
        assert after.observation > before.observation
        assert after.entities == before.entities
        assert not seen(state, "1", row("a", version=2), noted=before.observation)
        assert seen(state, "1", row("a", version=2), noted=after.observation)

    def test_observations_are_accepted_owner_by_owner(self, state: State) -> None:
        """One that is overtaken stops none of the others."""
        observe(state, "2", row("a"))
        observations = [
            Observation(owner_id="1", noted=0, rows=[row("a")]),
            Observation(owner_id="2", noted=0, rows=[row("b")]),
            Observation(owner_id="3", noted=0, rows=[row("c"), row("d")]),
            Observation(owner_id="4", noted=0),
        ]
        assert state.observe(observations) == {"1", "3", "4"}
        note = state.note(["1", "2", "3", "4"])
        assert {o: len(owner.entities) for o, owner in note.owners.items()} == {
            "1": 1,
            "2": 1,
            "3": 2,
            "4": 0,
        }

    def test_rows_that_are_not_observed_stay_as_they_were(self, state: State) -> None:
        """Only what changed is handed over."""
        observe(state, "1", row("a"), row("b"))
        observe(state, "1", row("b", 2))
        assert rows_of(state, "1") == {"a": 1, "b": 2}

    def test_a_large_page_is_remembered_and_noted_whole(self, state: State) -> None:
        """500 owners with ten entities each."""
        owners = [f"owner-{number}" for number in range(500)]
        rows = [row(f"e{number}", number + 1) for number in range(10)]
        page = [Observation(owner_id=owner, noted=0, rows=rows) for owner in reversed(owners)]
        assert state.observe(page) == set(owners)
        note = state.note([*owners, "unknown"])
        assert all(list(note.owners[owner].entities.values()) == rows for owner in owners) or all(
            set(note.owners[owner].entities.values()) == set(rows) for owner in owners
        )
        assert not note.owners["unknown"].entities

    def test_versions_up_to_the_greatest_are_kept_exactly(self, state: State) -> None:
        """They count in whole numbers, below 2**52."""
        observe(state, "1", row("a", MAX_VERSION - 1))
        assert rows_of(state, "1") == {"a": MAX_VERSION - 1}

    # --- raise

    def test_rows_that_are_as_observed_are_raised(self, state: State) -> None:
        """And those that are not there yet are made, if that is what was observed."""
        observe(state, "1", row("a"), row("b"))
        new = row("c", 8, is_deleted=True)
        assert raised(state, "1", [row("a")], [replace_version(row("a"), 40), new])
        assert rows_of(state, "1") == {"a": 40, "b": 1, "c": 8}
        assert row_of(state, "1", "a").fingerprint == row("a").fingerprint
        assert raised(state, "new", [], [row("x", 5)])
        assert rows_of(state, "new") == {"x": 5}

    @pytest.mark.parametrize(
        "observed",
        [
            row("a", 2),
            row("a", 1, fingerprint="other"),
            row("a", 1)._replace(model="other"),
            row("a", 1, is_deleted=True),
        ],
    )
    def test_nothing_is_raised_where_a_row_is_not_as_observed(
        self, state: State, observed: EntityRow
    ) -> None:
        """Somebody has observed something newer: all of the owner's rows stay."""
        observe(state, "1", row("a"), row("b"))
        raise_b = replace_version(row("b"), 9)
        assert not raised(state, "1", [observed, row("b")], [replace_version(observed, 9), raise_b])
        assert rows_of(state, "1") == {"a": 1, "b": 1}

    def test_nothing_is_raised_where_a_row_came_or_went(self, state: State) -> None:
        """An identity that was not observed must have no row, and one that was must have its."""
        observe(state, "1", row("a"))
        assert not raised(state, "1", [], [row("a", 9)])
        assert not raised(state, "1", [row("a"), row("gone")], [row("a", 9)])
        assert not raised(state, "2", [row("a")], [row("a", 9)])
        assert rows_of(state, "1") == {"a": 1}
        assert rows_of(state, "2") == {}

    def test_what_became_of_a_row_since_does_not_keep_it_from_being_raised(
        self, state: State
    ) -> None:
        """Published or parked, it was observed alike."""
        observe(state, "1", row("a"), row("b"))
        acknowledge(state, "1", published=[(KIND, "a", 1)])
        state.park([parking("b")])
        up = [replace_version(row("a"), 5), replace_version(row("b"), 6)]
        assert raised(state, "1", [row("a"), row("b")], up)
        assert row_of(state, "1", "a") == up[0]._replace(published_version=1)
        assert row_of(state, "1", "b") == up[1]  # its parking was of another version

    def test_owners_are_raised_one_by_one(self, state: State) -> None:
        """One that changed stops none of the others."""
        for owner in ("1", "2"):
            observe(state, owner, row("a"))
        observe(state, "2", row("a", 2))
        wishes = [
            VersionRaise(owner_id=owner, observed=[row("a")], raised=[row("a", 9)])
            for owner in ("1", "2")
        ]
        assert state.raise_versions(wishes) == {"1"}
        assert (rows_of(state, "1"), rows_of(state, "2")) == ({"a": 9}, {"a": 2})

    def test_an_observation_that_was_noted_before_a_raise_is_refused(self, state: State) -> None:
        """It would bring the version down again."""
        observe(state, "1", row("a"))
        noted = note_of(state, "1").observation
        assert raised(state, "1", [row("a")], [replace_version(row("a"), 40)])
        assert not seen(state, "1", row("a", 2), noted=noted)
        assert rows_of(state, "1") == {"a": 40}
        observe(state, "1", row("a", 41))

    # --- published

    def test_a_version_that_was_read_back_counts_only_while_it_is_the_rows(
        self, state: State
    ) -> None:
        """Somebody may have observed a newer one meanwhile."""
        observe(state, "1", row("a"), row("b"))
        observe(state, "1", row("b", 2))
        done = [(KIND, "a", 1), (KIND, "b", 1), (KIND, "unknown", 1)]
        state.acknowledge(
            [Acknowledgement(owner_id="1", generation=None, round=0, published=done)], "w1"
        )
        assert row_of(state, "1", "a").published_version == 1
        assert row_of(state, "1", "b").published_version == 0

    def test_what_was_published_is_not_forgotten_by_the_next_observation(
        self, state: State
    ) -> None:
        """The record is in the store until the newer one replaces it."""
        observe(state, "1", row("a"))
        acknowledge(state, "1", published=[(KIND, "a", 1)])
        observe(state, "1", row("a", 2, is_deleted=True))
        assert row_of(state, "1", "a") == row("a", 2, is_deleted=True)._replace(published_version=1)

    # --- parked

    def test_a_parked_record_waits_twice_as_long_with_every_try(
        self, state: State, wait: Callable[[float], None]
    ) -> None:
        """Up to a day."""
        observe(state, "1", row("a"))
        delay = 10.0
        for attempt in range(1, 18):
            state.park([parking("a")])
            (found,) = state.parked(10)
            assert found[:5] == ("1", KIND, "a", "too long", attempt)
            assert found.retry_in_seconds == pytest.approx(delay, abs=5)
            assert row_of(state, "1", "a").is_parked
            wait(delay + 5)
            assert not row_of(state, "1", "a").is_parked
            assert row_of(state, "1", "a").parked_reason == "too long"
            assert state.parked(10)[0].retry_in_seconds == 0
            delay = min(2 * delay, DAY_SECONDS)

    def test_a_parking_of_another_version_is_forgotten(self, state: State) -> None:
        """The newer content may well be embeddable."""
        observe(state, "1", row("a", 2))
        state.park([parking("a", 1), parking("a", 3), parking("unknown")])
        assert state.parked(10) == []
        state.park([parking("a", 2)])
        observe(state, "1", row("a", 3))
        assert state.parked(10) == []
        assert row_of(state, "1", "a") == row("a", 3)

    def test_a_record_that_was_read_back_is_parked_no_more(self, state: State) -> None:
        """However it got there."""
        observe(state, "1", row("a"), row("b"))
        state.park([parking("a"), parking("b")])
        acknowledge(state, "1", published=[(KIND, "a", 1)])
        assert [found.entity_id for found in state.parked(10)] == ["b"]

    def test_parked_records_are_told_in_order_and_not_too_many(self, state: State) -> None:
        """By owner, kind and id, by code point."""
        for owner in ("b", "a", "B"):
            observe(state, owner, row("2"), row("1"), row("3", kind="skill"))
            state.park([parking("2", owner_id=owner), parking("1", owner_id=owner)])
        found = [(each.owner_id, each.entity_id) for each in state.parked(100)]
        assert found == [("B", "1"), ("B", "2"), ("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
        assert len(state.parked(4)) == 4

    def test_parked_records_can_be_tried_again_at_once(self, state: State) -> None:
        """Their owners are marked, and nobody else."""
        for owner in ("1", "2", "3"):
            observe(state, owner, row("a"), row("b"))
        state.park([parking("a"), parking("b"), parking("a", owner_id="2")])
        assert state.unpark(["1", "3", "unknown"]) == 2
        assert not row_of(state, "1", "a").is_parked
        assert row_of(state, "2", "a").is_parked
        assert claimed(state) == ["1"]
        assert state.unpark(None) == 3
        assert note_of(state, "1").generation == 2
        assert (note_of(state, "2").generation, note_of(state, "3").generation) == (1, 0)


def replace_version(row: EntityRow, version: int) -> EntityRow:
    """*row* at another version."""
    return row._replace(version=version)
