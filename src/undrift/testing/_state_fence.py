"""The contract's part on the fence: what a state does within a transaction of the store."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from threading import Barrier, Thread

import pytest

from undrift.state import (
    EntityRow,
    Expected,
    FencedState,
    Observation,
    VersionRaise,
    WithObservations,
)
from undrift.testing._state_fixtures import (
    KIND,
    OpenState,
    StateFixtures,
    note_of,
    observe,
    row,
    row_of,
    rows_of,
)

# How long a call is watched that must not come back. Too short a time only misses a fault.
_BLOCKED_SECONDS = 0.3


class _Undone(Exception):
    """Ends a transaction without committing it."""


def is_blocked(call: Future[object]) -> bool:
    """Whether *call* does not come back."""
    try:
        call.result(timeout=_BLOCKED_SECONDS)
    except NotDone:
        return True
    return False


def expected(owner_id: str, *rows: tuple[str, int]) -> list[Expected]:
    """The owner's rows are expected to have these versions."""
    return [Expected(owner_id, KIND, entity_id, version) for entity_id, version in rows]


class FenceContract(StateFixtures):
    """Nothing that was decided on before a newer observation is ever published."""

    def test_owners_whose_rows_are_as_expected_are_not_named(
        self, fenced: FencedState, location: str
    ) -> None:
        """The others are, each once: a row is newer, older, or gone."""
        observe(fenced, "ok", row("a"), row("b", 2))
        observe(fenced, "newer", row("a", 2), row("b", 2))
        observe(fenced, "older", row("a", 1))
        wanted = [
            *expected("ok", ("a", 1), ("b", 2)),
            *expected("newer", ("a", 1), ("b", 1)),
            *expected("older", ("a", 2)),
            *expected("gone", ("a", 1)),
        ]
        with self.transaction(location) as connection:
            assert fenced.fence.hold(connection, wanted) == {"newer", "older", "gone"}
            assert fenced.fence.hold(connection, []) == frozenset()
            fenced.fence.published(connection, [])

    def test_what_was_published_is_remembered_with_the_transaction(
        self, fenced: FencedState, location: str
    ) -> None:
        """Rows of another version are left alone."""
        observe(fenced, "1", row("a", 3), row("b", 2), row("c", 5, is_deleted=True))
        with self.transaction(location) as connection:
            wanted = expected("1", ("a", 3), ("c", 5))
            assert fenced.fence.hold(connection, wanted) == frozenset()
            fenced.fence.published(connection, [*wanted, *expected("1", ("b", 1))])
        published = {row.entity_id: row.published_version for row in entities(fenced)}
        assert published == {"a": 3, "b": 0, "c": 5}

    def test_a_transaction_that_fails_publishes_nothing(
        self, fenced: FencedState, location: str
    ) -> None:
        """The store's writes are undone with it."""
        observe(fenced, "1", row("a"))

        def publish() -> None:
            with self.transaction(location) as connection:
                fenced.fence.hold(connection, expected("1", ("a", 1)))
                fenced.fence.published(connection, expected("1", ("a", 1)))
                raise _Undone

        with pytest.raises(_Undone):
            publish()
        assert row_of(fenced, "1", "a").published_version == 0

    def test_a_first_observation_is_published_where_it_is_accepted(
        self, fenced: FencedState, location: str
    ) -> None:
        """What was not expected is remembered, and not published; other owners are held."""
        observe(fenced, "old", row("a"))
        observe(fenced, "newer", row("a", 2))
        first = Observation(owner_id="new", noted=0, rows=[row("a"), row("b")])
        wanted = [
            *expected("new", ("a", 1)),
            *expected("old", ("a", 1)),
            *expected("newer", ("a", 1)),
        ]
        with self.transaction(location) as connection:
            fence = WithObservations(fenced.fence, [first])
            assert fence.hold(connection, wanted) == {"newer"}
            fence.published(connection, [each for each in wanted if each.owner_id != "newer"])
        found = note_of(fenced, "new")
        published = {row.entity_id: row.published_version for row in found.entities.values()}
        assert (found.observation, published) == (1, {"a": 1, "b": 0})
        assert rows_of(fenced, "new") == {"a": 1, "b": 1}
        assert row_of(fenced, "old", "a").published_version == 1
        assert row_of(fenced, "newer", "a").published_version == 0
        assert fenced.summary().entities == 4

    def test_a_first_observation_that_comes_too_late_leaves_its_owner_out(
        self, fenced: FencedState, location: str
    ) -> None:
        """Whoever was quicker stays remembered, be it that there is nothing."""
        observe(fenced, "1", row("a", 5))
        observe(fenced, "2")
        late = [Observation(owner_id=owner, noted=0, rows=[row("a")]) for owner in ("1", "2")]
        wanted = [*expected("1", ("a", 1)), *expected("2", ("a", 1))]
        with self.transaction(location) as connection:
            assert WithObservations(fenced.fence, late).hold(connection, wanted) == {"1", "2"}
        assert rows_of(fenced, "1") == {"a": 5}
        assert row_of(fenced, "1", "a").published_version == 0
        assert rows_of(fenced, "2") == {}

    def test_an_observation_is_undone_with_its_transaction(
        self, fenced: FencedState, location: str
    ) -> None:
        """As if nobody had looked."""
        first = Observation(owner_id="1", noted=0, rows=[row("a")])

        def publish() -> None:
            with self.transaction(location) as connection:
                WithObservations(fenced.fence, [first]).hold(connection, expected("1", ("a", 1)))
                raise _Undone

        with pytest.raises(_Undone):
            publish()
        assert (note_of(fenced, "1").observation, rows_of(fenced, "1")) == (0, {})

    def test_of_two_first_observations_at_once_one_is_accepted(
        self, fenced: FencedState, open_state: OpenState, location: str
    ) -> None:
        """The second waits for the first, and is refused."""
        other = open_state()
        assert isinstance(other, FencedState)

        def publish(state: FencedState, entity_id: str) -> object:
            first = Observation(owner_id="1", noted=0, rows=[row(entity_id)])
            with self.transaction(location) as connection:
                fence = WithObservations(state.fence, [first])
                return fence.hold(connection, expected("1", (entity_id, 1)))

        with ThreadPoolExecutor(1) as threads:
            with self.transaction(location) as connection:
                first = Observation(owner_id="1", noted=0, rows=[row("a")])
                fence = WithObservations(fenced.fence, [first])
                assert fence.hold(connection, expected("1", ("a", 1))) == frozenset()
                call = threads.submit(publish, other, "b")
                assert is_blocked(call)
            answer = call.result(timeout=60)
        assert answer == {"1"}
        assert rows_of(fenced, "1") == {"a": 1}

    @pytest.mark.parametrize("change", ["observe", "raise", "hold"])
    def test_nobody_changes_a_row_while_its_owner_is_held(
        self, fenced: FencedState, open_state: OpenState, location: str, change: str
    ) -> None:
        """They wait, and what was held is published before."""
        observe(fenced, "1", row("a"))
        other = open_state()
        assert isinstance(other, FencedState)
        noted = note_of(other, "1").observation

        def hold() -> object:
            with self.transaction(location) as connection:
                return other.fence.hold(connection, expected("1", ("a", 1)))

        changes: dict[str, Callable[[], object]] = {
            "observe": lambda: other.observe(
                [Observation(owner_id="1", noted=noted, rows=[row("a", 2)])]
            ),
            "raise": lambda: other.raise_versions(
                [VersionRaise(owner_id="1", observed=[row("a")], raised=[row("a", 2)])]
            ),
            "hold": hold,
        }
        with ThreadPoolExecutor(1) as threads:
            with self.transaction(location) as connection:
                assert fenced.fence.hold(connection, expected("1", ("a", 1))) == frozenset()
                call = threads.submit(changes[change])
                assert is_blocked(call)
                fenced.fence.published(connection, expected("1", ("a", 1)))
            answer = call.result(timeout=60)
        assert answer == (frozenset() if change == "hold" else {"1"})
        assert row_of(fenced, "1", "a").published_version == 1

    def test_a_publish_that_waited_for_an_observation_sees_it(
        self, fenced: FencedState, open_state: OpenState, location: str
    ) -> None:
        """What was decided on before is not published then, whoever comes first."""
        other = open_state()
        barrier = Barrier(2)

        def publish(version: int) -> None:
            barrier.wait(60)
            with self.transaction(location) as connection:
                if not fenced.fence.hold(connection, expected("1", ("a", version))):
                    fenced.fence.published(connection, expected("1", ("a", version)))

        for version in range(1, 90, 3):
            observe(other, "1", row("a", version))
            thread = Thread(target=publish, args=[version])
            thread.start()
            barrier.wait(60)
            observe(other, "1", row("a", version + 1))
            observe(other, "1", row("a", version + 2))
            thread.join(60)
            found = row_of(other, "1", "a")
            assert found.version == version + 2
            assert found.published_version <= version

    def test_holders_of_crossing_owners_wait_for_each_other_and_never_deadlock(
        self, fenced: FencedState, open_state: OpenState, location: str
    ) -> None:
        """Everybody locks in one order, whatever order they ask in."""
        owners = [f"o{number}" for number in range(20)]
        for owner in owners:
            observe(fenced, owner, row("a"))
        barrier = Barrier(4)

        def publish(backwards: bool) -> int:
            mine = list(reversed(owners)) if backwards else owners
            wanted = [Expected(owner, KIND, "a", 1) for owner in mine]
            barrier.wait(60)
            for _ in range(25):
                with self.transaction(location) as connection:
                    assert fenced.fence.hold(connection, wanted) == frozenset()
                    fenced.fence.published(connection, wanted)
            return 25

        def mark() -> int:
            barrier.wait(60)
            for number in range(25):
                fenced.mark(owners if number % 2 else owners[::-1])
            return 25

        with ThreadPoolExecutor(4) as threads:
            calls = [threads.submit(publish, number % 2 == 0) for number in range(3)]
            calls.append(threads.submit(mark))
            assert [call.result(timeout=120) for call in calls] == [25] * 4
        assert rows_of(fenced, "o0") == {"a": 1}


def entities(state: FencedState) -> list[EntityRow]:
    """The rows of owner 1."""
    return list(note_of(state, "1").entities.values())
