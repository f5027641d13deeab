"""The check of whoever was changed since the last sync: exact, and nobody's work is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from support.layouts import Document, document, experience
from support.sides import Row, World, drift_of
from undrift import Outcome, SyncStatus, Undrift
from undrift.changes import ChangeFeed, Peeked
from undrift.errors import ConfigError, StateUnavailable
from undrift.events import CheckStarted, EverybodyMarked, SyncEvent, TriggersAmiss, ignore
from undrift.heal import NO_HEALING
from undrift.model import Read
from undrift.scan.changed import ChangedScan
from undrift.scan.engine import LocalEngine
from undrift.scan.page import PageCheck
from undrift.scan.run import Scan
from undrift.sources import open_source
from undrift.state import State


def working(title: str) -> Document:
    """A document with one experience."""
    return document(experience("exp_1", title))


EVERYBODY = {str(number): working(f"Job {number}") for number in range(1, 21)}


@pytest.fixture
def watched(world: World) -> World:
    """Twenty owners in sync, and triggers whose marks are all taken and answered for."""
    world.bring_in_sync(EVERYBODY)
    world.sides.triggers.install()
    watch(world.sides)
    assert changed(world.sides) == {}
    return world


def watch(sides: Undrift) -> None:
    """Let a watch take every mark and sync whoever is dirty."""

    def is_over() -> bool:
        status = sides.status()
        assert status.summary is not None
        assert status.changes is not None
        return status.changes.marks == 0 and status.summary.dirty == 0

    sides.watch(is_over=is_over)


def changed(sides: Undrift) -> dict[str, SyncStatus]:
    """What a check of the changed finds, by owner."""
    found = list(sides.check_changed())
    assert all(status.read is Read.CHANGED for status in found)
    by_owner = {status.owner_id: status for status in found}
    assert len(by_owner) == len(found)
    return by_owner


def state_of(world: World) -> State:
    """The world's state."""
    return world.sides._connections.states.state


def feed_of(world: World) -> ChangeFeed:
    """The marks of the world's source."""
    feed = world.sides._connections.change_feed()
    assert feed is not None
    return feed


def take_marks(world: World) -> None:
    """Do what a watch does with marks: the state knows of them, then they are gone."""
    state = state_of(world)
    feed_of(world).drain(100, state.mark, state.mark_everyone)


def remembered(world: World) -> list[list[Row]]:
    """Everything that is remembered of owners, and every mark, by SQL."""
    is_postgres = world.source.is_postgres
    prefix = "undrift." if is_postgres else "undrift_"
    row = "CAST(r AS text) AS content" if is_postgres else "*"  # Python has no infinite time
    return [
        world.store.database.rows(f"SELECT {row} FROM {prefix}owner_state AS r ORDER BY owner_id"),
        world.store.database.rows(f"SELECT {row} FROM {prefix}state_standing AS r"),
        world.source.rows(f"SELECT {row} FROM {prefix}change AS r ORDER BY id"),
    ]


# --- whom it finds --------------------------------------------------------------------------------


def test_changed_owners_are_found_exactly_and_nobody_else_is_looked_at(watched: World) -> None:
    """A changed one, a new one and a deleted one; who was only touched is in sync."""
    watched.put(1, working("Another job"))
    watched.put(99, working("A first job"))
    watched.remove_owners(["2"])
    watched.put(3, working("For a moment"))
    watched.put(3, EVERYBODY["3"])
    found = changed(watched.sides)
    assert {owner: drift_of(status) for owner, status in found.items()} == {
        "1": {"changed": {"experience:exp_1"}},
        "2": {"stale": {"experience:exp_1"}},
        "3": {},
        "99": {"missing": {"experience:exp_1"}},
    }
    assert found["2"].orphan_owner
    assert found["3"].outcome is Outcome.IN_SYNC
    assert found["3"].source == found["3"].store == {"experience": 1}


def test_owners_who_are_gone_from_both_sides_are_nobody(watched: World) -> None:
    """They came and went before anybody looked."""
    watched.put(99, working("A job"))
    watched.remove_owners(["99"])
    assert changed(watched.sides) == {}


def test_a_check_of_the_changed_takes_nothing(watched: World) -> None:
    """No mark, no lease, no acknowledgement: what is to be done stays to be done."""
    for owner in (1, 2, 3):
        watched.put(owner, working("Another job"))
    state_of(watched).mark(["7"])
    before = remembered(watched)
    assert len(before) == 3
    for _ in range(2):
        assert list(changed(watched.sides)) == ["1", "2", "3", "7"]
    assert remembered(watched) == before
    assert [owner.owner_id for owner in state_of(watched).claim_dirty("w", 10, 1)] == ["7"]


def test_after_a_sync_nobody_is_changed_any_more(watched: World) -> None:
    """The watch has taken the marks, and synced their owners."""
    for owner in (1, 2, 3):
        watched.put(owner, working("Another job"))
    assert len(changed(watched.sides)) == 3
    watch(watched.sides)
    assert changed(watched.sides) == {}
    assert all(status.is_in_sync for status in watched.sides.check_all())


@pytest.mark.parametrize("is_installed_now", [False, True])
def test_sync_of_everybody_answers_for_every_mark(watched: World, is_installed_now: bool) -> None:
    """Where a timer syncs and no watch runs; owners who came and went among them."""
    if is_installed_now:  # which leaves a mark for everybody
        watched.sides.triggers.remove()
        watched.sides.triggers.install()
    watched.put(1, working("Another job"))
    watched.put(98, working("A job"))
    watched.put(99, working("A job"))
    watched.remove_owners(["2", "99"])
    assert [report.owner_id for report in watched.sides.sync_all() if report.written] == ["1", "98"]
    assert changed(watched.sides) == {}
    summary = watched.sides.status().summary
    assert summary is not None
    assert summary.dirty == 0
    assert feed_of(watched).pending().marks == 0


def test_mark_that_comes_during_a_sync_of_everybody_stays(watched: World) -> None:
    """It may be of a change behind the page that the owner was on."""
    reports = watched.sides.sync_all()
    next(reports)
    watched.put(1, working("Another job"))
    assert all(report.is_in_sync for report in reports)
    assert list(changed(watched.sides)) == ["1"]


def test_owners_whose_marks_were_taken_are_found_until_they_are_synced(watched: World) -> None:
    """Each once, on whichever list; a worker that has one leased hides nobody."""
    watched.put(1, working("Another job"))
    watched.put(2, working("Another job"))
    take_marks(watched)
    watched.put(2, working("One more job"))
    watched.put(3, working("Another job"))
    state_of(watched).lease(["1"], "somebody", 60)
    found = changed(watched.sides)
    assert list(found) == ["1", "2", "3"]
    assert all(status.outcome is Outcome.DRIFT for status in found.values())
    reports = watched.sides.sync_owners(["2"])
    assert all(report.is_in_sync for report in reports)
    assert [o for o, status in changed(watched.sides).items() if status.is_in_sync] == ["2"]


# --- when marks are taken meanwhile ---------------------------------------------------------------


class MarksTakenMeanwhile:
    """A feed beside which a watch takes all marks, before or after each look at them."""

    def __init__(self, world: World, *, before: bool) -> None:
        self._world = world
        self._inner = feed_of(world)
        self._before = before

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def peek(self, limit: int, after: str | None = None) -> Peeked:
        """Look, with the watch in between."""
        if self._before:
            take_marks(self._world)
        found = self._inner.peek(limit, after)
        if not self._before:
            take_marks(self._world)
        return found


def scan_of(
    world: World, feed: object, *, listed_owners: int, state: State | None = None
) -> list[str]:
    """Whom a scan with this feed checks."""
    connections = world.sides._connections

    def everybody() -> Scan:
        raise AssertionError("nobody marked everybody")

    scan = ChangedScan(
        LocalEngine(PageCheck(connections.sides(), None, key="")),
        feed,  # type: ignore[arg-type]  # it passes on what it does not have itself
        state or state_of(world),
        everybody=everybody,
        listener=ignore,
        listed_owners=listed_owners,
    )
    return [status.owner_id for status in scan.statuses()]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("listed_owners", [1, 2, 5, 100])
def test_marks_that_are_taken_meanwhile_hide_nobody(
    watched: World, listed_owners: int, before: bool
) -> None:
    """Whenever that happens, and however the lists are cut into pages."""
    owners = sorted(["1", "10", "11", "12", "13", "2", "20", "3", "9"])
    state_of(watched).mark(["11", "2", "9"])
    for owner in owners:
        watched.put(owner, working("Another job"))
    feed = MarksTakenMeanwhile(watched, before=before)
    assert scan_of(watched, feed, listed_owners=listed_owners) == owners


def test_lists_that_are_read_the_other_way_round_lose_an_owner(watched: World) -> None:
    """The control: an owner who changes over in between is on neither."""
    watched.put(1, working("Another job"))
    dirty = state_of(watched).dirty_owners(10)
    assert (list(dirty), *MarksTakenMeanwhile(watched, before=True).peek(10)[:2]) == ([], [], False)


def test_state_that_breaks_off_ends_the_check(watched: World) -> None:
    """What it did not tell is unknown, and not in sync."""

    class BreaksOff:
        def __getattr__(self, name: str) -> object:
            return getattr(state_of(watched), name)

        def dirty_owners(self, limit: int, after: str | None = None) -> Sequence[str]:
            raise StateUnavailable("The state hung up", why="it did.", fix="wait")

    watched.put(1, working("Another job"))
    with pytest.raises(StateUnavailable, match="hung up"):
        scan_of(watched, feed_of(watched), listed_owners=10, state=BreaksOff())  # type: ignore[arg-type]


# --- everybody ------------------------------------------------------------------------------------


def test_mark_for_everybody_makes_it_a_check_of_everybody(watched: World) -> None:
    """As TRUNCATE leaves one; what is read says so, and everything is found."""
    if watched.source.is_postgres:
        watched.source.run("TRUNCATE profiles")
    else:
        watched.source.run("INSERT INTO undrift_change (owner_id) VALUES (NULL)")
        watched.remove_owners(EVERYBODY)
    events: list[SyncEvent] = []
    found = list(watched.sides.check_changed(listener=events.append))
    assert {status.owner_id for status in found} == set(EVERYBODY)
    assert all(status.orphan_owner for status in found)
    assert Read.CHANGED not in {status.read for status in found}
    first, second = events
    assert first == EverybodyMarked()
    assert isinstance(second, CheckStarted)
    assert second.read is not Read.CHANGED


def test_mark_for_everybody_that_a_watch_has_taken_is_not_lost(watched: World) -> None:
    """Everybody who is known is to be synced from then on, and so is changed."""
    table = "undrift.change" if watched.source.is_postgres else "undrift_change"
    watched.source.run(f"INSERT INTO {table} (owner_id) VALUES (NULL)")
    take_marks(watched)
    assert set(changed(watched.sides)) == set(EVERYBODY)


# --- when nothing tells ---------------------------------------------------------------------------


def refused(checks: Iterator[SyncStatus], what: str) -> ConfigError:
    """The error that they end with, before anybody was checked."""
    with pytest.raises(ConfigError, match=what) as caught:
        next(checks)
    return caught.value


def test_without_triggers_nobody_can_say_who_was_changed(world: World) -> None:
    """Seeing nobody would look like nobody changed."""
    world.bring_in_sync({"1": EVERYBODY["1"]})
    error = refused(world.sides.check_changed(), "Nothing tells who was changed")
    assert "undrift triggers install" in error.fix


def test_without_a_sync_there_is_no_since(world: World) -> None:
    """Everybody is new."""
    world.put_all(EVERYBODY)
    world.sides.triggers.install()
    error = refused(world.sides.check_changed(), "Nothing was synced yet")
    assert "undrift sync --all" in error.fix


def test_a_source_that_can_have_no_triggers_is_refused(world: World) -> None:
    """As an object of the caller's own."""

    class Bare:
        def __init__(self) -> None:
            self._inner = open_source(
                world.source_url, world.layout.mapping, world.sides.renderer.fields
            )

        def __getattr__(self, name: str) -> object:
            if name in ("triggers", "change_feed"):
                raise AttributeError(name)
            return getattr(self._inner, name)

    world.bring_in_sync({"1": EVERYBODY["1"]})
    with Undrift(
        source=Bare(),  # type: ignore[arg-type]  # it passes on what it does not have itself
        store=world.store_url,
        embedder=world.embedder,
        mapping=world.layout.mapping,
        heal=NO_HEALING,
    ) as sides:
        error = refused(sides.check_changed(), "Nothing tells who was changed")
    assert "check_all()" in error.fix


def test_a_trigger_that_is_missing_is_told_first(watched: World) -> None:
    """What it did not see is not found; who else was changed is."""
    watched.put(1, working("Another job"))
    watched.source.run(
        "ALTER TABLE profiles DISABLE TRIGGER undrift_update"
        if watched.source.is_postgres
        else "DROP TRIGGER undrift_profiles_update"
    )
    events: list[SyncEvent] = []
    found = [status.owner_id for status in watched.sides.check_changed(listener=events.append)]
    assert found == ["1"]
    amiss, started = events
    assert isinstance(amiss, TriggersAmiss)
    assert "profiles" in amiss.problems[0]
    assert started == CheckStarted(read=Read.CHANGED, outcomes={}, began_seconds=None)
