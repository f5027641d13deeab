"""The contract's part on the delete budget, housekeeping, and what people are told."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from undrift.state import Buried, DeleteUsage, Parking, State, WorkerReport
from undrift.testing._state_fixtures import (
    DAY_SECONDS,
    KIND,
    StateFixtures,
    acknowledge,
    note_of,
    observe,
    row,
    rows_of,
)

Wait = Callable[[float], None]


def usage_of(state: State) -> DeleteUsage:
    """What a spender would be told."""
    told: list[DeleteUsage] = []
    state.spend_deletes({}, lambda usage: told.append(usage))
    return told[0]


class SafetyContract(StateFixtures):
    """Deletes are counted by all together; what is over is forgotten."""

    # --- the delete budget

    def test_deletes_that_pass_are_counted_by_kind(self, state: State) -> None:
        """Those that do not are not."""
        assert state.spend_deletes({"a": 2, "b": 1}, lambda usage: None) is None
        assert state.spend_deletes({"a": 50}, lambda usage: "too many") == "too many"
        assert state.spend_deletes({"a": 3, "c": 0}, lambda usage: None) is None
        spent = {kind: count for kind, count in usage_of(state).spent.items() if count}
        assert spent == {"a": 5, "b": 1}

    def test_the_budget_is_told_without_what_is_planned(self, state: State) -> None:
        """And asked once."""
        told: list[DeleteUsage] = []
        state.spend_deletes({"a": 2}, lambda usage: told.append(usage))
        state.spend_deletes({"a": 2}, lambda usage: told.append(usage))
        assert [dict(usage.spent).get("a", 0) for usage in told] == [0, 2]

    def test_deletes_are_forgotten_after_a_day(self, state: State, wait: Wait) -> None:
        """Not all at once: each a day after it was made."""
        state.spend_deletes({"a": 2}, lambda usage: None)
        wait(DAY_SECONDS / 2)
        state.spend_deletes({"a": 3}, lambda usage: None)
        wait(DAY_SECONDS / 2 - 300)
        assert usage_of(state).spent == {"a": 5}
        wait(600)
        assert usage_of(state).spent == {"a": 3}
        wait(DAY_SECONDS)
        assert not usage_of(state).spent

    def test_managed_are_the_live_entities_and_those_deleted_meanwhile(
        self, state: State, wait: Wait
    ) -> None:
        """Otherwise every delete would make the next one look larger."""
        observe(state, "1", row("a"), row("b"), row("c"), row("s", kind="skill"))
        observe(state, "2", row("a"), row("never", is_deleted=True, kind="project"))
        assert usage_of(state).managed == {KIND: 4, "skill": 1, "project": 1}
        observe(
            state, "1", row("a", 2, is_deleted=True), row("s", 2, is_deleted=True, kind="skill")
        )
        assert usage_of(state).managed == {KIND: 4, "skill": 1, "project": 1}
        observe(state, "1", row("a", 3), row("d"))
        assert usage_of(state).managed[KIND] == 5

    def test_a_deleted_entity_counts_for_a_day_and_until_its_delete_is_published(
        self, state: State, wait: Wait
    ) -> None:
        """Deletes that wait are still to be made."""
        observe(state, "1", row("a"), row("b"), row("c"))
        observe(state, "1", row("a", 2, is_deleted=True), row("b", 2, is_deleted=True))
        acknowledge(state, "1", published=[(KIND, "a", 2)])
        assert usage_of(state).managed == {KIND: 3}
        wait(DAY_SECONDS + 300)
        assert usage_of(state).managed == {KIND: 2}

    def test_it_is_told_whether_deletes_wait(self, state: State, wait: Wait) -> None:
        """Until some pass, or nobody has asked for a day."""
        assert not state.summary().deletes_waiting
        state.spend_deletes({"a": 2}, lambda usage: "no")
        assert state.summary().deletes_waiting
        state.spend_deletes({"a": 2}, lambda usage: None)
        assert not state.summary().deletes_waiting
        state.spend_deletes({"a": 2}, lambda usage: "no")
        wait(DAY_SECONDS + 300)
        assert not state.summary().deletes_waiting

    def test_a_policy_that_fails_spends_nothing(self, state: State) -> None:
        """Its error comes through, and others can go on."""

        def fail(usage: DeleteUsage) -> str | None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            state.spend_deletes({"a": 2}, fail)
        assert not usage_of(state).spent

    # --- what is over

    def test_rows_of_deleted_entities_are_buried_after_the_time(
        self, state: State, wait: Wait
    ) -> None:
        """A version that was raised since begins it anew."""
        observe(state, "1", row("a", 3, is_deleted=True), row("b"))
        wait(100)
        observe(state, "1", row("b", 2, is_deleted=True))
        observe(state, "2", row("c", 1, is_deleted=True))
        assert state.buried(50, 10) == [Buried("1", KIND, "a", 3)]
        assert state.buried(150, 10) == []
        wait(60)
        assert len(state.buried(50, 10)) == 3
        assert len(state.buried(50, 2)) == 2

    def test_only_rows_that_are_still_deleted_at_that_version_are_forgotten(
        self, state: State
    ) -> None:
        """An entity may have come back meanwhile."""
        observe(state, "1", row("back", 2), row("again", 4, is_deleted=True))
        observe(state, "1", row("gone", 2, is_deleted=True), row("live", 1))
        state.forget(
            [
                Buried("1", KIND, "back", 1),
                Buried("1", KIND, "back", 2),
                Buried("1", KIND, "again", 2),
                Buried("1", KIND, "gone", 2),
                Buried("1", KIND, "live", 1),
                Buried("9", KIND, "unknown", 1),
            ]
        )
        assert rows_of(state, "1") == {"back": 2, "again": 4, "live": 1}
        assert note_of(state, "1").floor == 2

    def test_what_is_forgotten_leaves_its_version_behind(self, state: State) -> None:
        """The highest of them; an entity that comes back must be newer than all that is late."""
        observe(state, "1", row("a", 7, is_deleted=True), row("b", 3, is_deleted=True), row("c", 9))
        for entity_id, version in (("a", 7), ("b", 3)):
            state.forget([Buried("1", KIND, entity_id, version)])
            assert note_of(state, "1").floor == 7
        assert note_of(state, "2").floor == 0

    # --- workers

    def test_workers_are_told_with_their_ages(self, state: State, wait: Wait) -> None:
        """The last report counts, the first one says since when."""
        state.report_worker(WorkerReport(worker_id="w1", owners=1))
        wait(50)
        last = WorkerReport(worker_id="w1", owners=9, failures=1, embedded=5, written=4, deleted=3)
        state.report_worker(last)
        wait(10)
        (seen,) = state.summary().workers
        assert seen.report == last
        assert seen.started_seconds == pytest.approx(60, abs=5)
        assert seen.seen_seconds == pytest.approx(10, abs=5)

    def test_workers_that_left_or_were_not_seen_for_a_day_are_not_told(
        self, state: State, wait: Wait
    ) -> None:
        """One that was killed cannot say so."""
        for worker in ("w1", "w2", "w3"):
            state.report_worker(WorkerReport(worker_id=worker))
        state.worker_left("w1")
        state.worker_left("unknown")
        wait(DAY_SECONDS - 300)
        state.report_worker(WorkerReport(worker_id="w3"))
        assert {seen.report.worker_id for seen in state.summary().workers} == {"w2", "w3"}
        wait(600)
        assert {seen.report.worker_id for seen in state.summary().workers} == {"w3"}

    # --- the summary

    def test_an_empty_state_has_nothing_to_tell(self, state: State) -> None:
        """And no ages."""
        summary = state.summary()
        assert summary.standing == state.standing()
        assert (summary.owners, summary.dirty, summary.failing, summary.parked) == (0, 0, 0, 0)
        assert (summary.entities, summary.published, summary.never_verified) == (0, 0, 0)
        assert (summary.oldest_dirty_seconds, summary.unverified_seconds) == (None, None)
        assert summary.last_error == ""
        assert summary.workers in ([], ())

    def test_the_summary_counts(self, state: State, wait: Wait) -> None:
        """Live entities; published ones only at the version of their row."""
        observe(state, "1", row("a"), row("b"), row("c"), row("d", is_deleted=True))
        acknowledge(state, "1", published=[(KIND, "a", 1), (KIND, "b", 1), (KIND, "d", 1)])
        observe(state, "1", row("b", 2))
        state.park([Parking("1", KIND, "c", 1, "no", 100)])
        state.mark(["2"])
        wait(20)
        state.mark(["1"])
        wait(20)
        summary = state.summary()
        assert (summary.owners, summary.dirty, summary.entities) == (2, 2, 3)
        assert (summary.published, summary.parked) == (1, 1)
        assert summary.oldest_dirty_seconds == pytest.approx(40, abs=5)
        assert (summary.never_verified, summary.unverified_seconds) == (1, None)

    def test_the_oldest_verification_is_told_once_everybody_has_one(
        self, state: State, wait: Wait
    ) -> None:
        """Owners of whom nothing is left are nobody's to verify any more."""
        observe(state, "1", row("a"))
        observe(state, "2", row("a"))
        observe(state, "gone", row("a", is_deleted=True))
        acknowledge(state, "gone")
        wait(50)
        acknowledge(state, "1")
        assert state.summary().unverified_seconds is None
        wait(50)
        acknowledge(state, "2")
        assert state.summary().unverified_seconds == pytest.approx(50, abs=5)
        assert state.summary().never_verified == 0
