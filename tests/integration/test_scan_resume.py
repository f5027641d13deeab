"""A check of everybody that is killed or interrupted anywhere, and taken up again.

What the second run says is what one says that nothing happened to: of owners before the place and
behind it. The controls show that the comparison sees what a checkpoint can do wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from dataclasses import replace
from itertools import islice
from random import Random

import pytest

from support.drift import Drift, fleet, plant_everything
from support.layouts import document, experience
from support.postgres import PostgresServer
from support.scan_child import EARLY, FORGETFUL
from support.scanning import (
    Checker,
    Fleet,
    answer,
    checked,
    content,
    forget_memos,
    memory_table,
    small_pages,
)
from support.sides import World, postgres_world, sqlite_world
from undrift import SyncStatus, Undrift
from undrift.embedders.hashing import HashingEmbedder
from undrift.errors import ConfigError, StateUnavailable
from undrift.events import CheckPaused, CheckStarted, SyncEvent
from undrift.model import Outcome
from undrift.scan.feed import Pace
from undrift.scan.options import CheckOptions
from undrift.scan.progress import Checkpoints

OWNERS = 100
SAVED = CheckOptions(saves_progress=True)
RESUMED = CheckOptions(resume=True)


@pytest.fixture(scope="module")
def checker() -> Iterator[Checker]:
    """The process that is struck, again and again."""
    with Checker() as process:
        yield process


@pytest.fixture(scope="module", params=["sqlite", "pgvector"])
def module_fleet(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: PostgresServer,
) -> Iterator[Fleet]:
    """A hundred owners, drifted in every way, on 25 pages and some that only the store has."""
    folder = tmp_path_factory.mktemp("fleet")
    if request.param == "sqlite":
        with sqlite_world(folder) as world:
            drift(world)
            yield Fleet(world, folder)
        return
    url = postgres_server.create_database()
    try:
        with postgres_world(url) as world:
            drift(world)
            yield Fleet(world, folder)
    finally:
        postgres_server.drop_database(url)


def drift(world: World) -> None:
    """Bring a fleet in sync and let it drift."""
    world.embedder.model = HashingEmbedder(16).model
    random = Random(11)
    documents = fleet(OWNERS, random)
    world.bring_in_sync(documents)
    plant_everything(Drift(world, documents, random), random)
    world.put(5000, document(experience("exp_1"), experience("exp_1", "Twice")))


@pytest.fixture
def drifted(module_fleet: Fleet) -> Fleet:
    """The fleet, of which nothing is remembered."""
    forget_memos(module_fleet.world)
    for name in ("state_result", "state_run"):
        table = memory_table(module_fleet.world, name)
        module_fleet.world.store.database.run(f"DELETE FROM {table}")
    return module_fleet


@pytest.fixture(scope="module")
def uninterrupted(module_fleet: Fleet, checker: Checker) -> dict[str, object]:
    """What a check says that nothing happens to."""
    ran = checker(module_fleet)
    assert ran.code == 3, ran.err  # somebody's document is invalid
    found = answer(ran)
    summary = found["summary"]
    assert isinstance(summary, dict)
    assert summary["out_of_sync"] > 20
    assert (summary["checked"], summary["unknown"]) == (OWNERS + 1, 1)
    return found


def saved_runs(drifted: Fleet) -> int:
    """Runs that could be taken up."""
    table = memory_table(drifted.world, "state_run")
    return len(drifted.world.store.database.rows(f"SELECT 1 FROM {table}"))


# --- struck anywhere ------------------------------------------------------------------------------

PLACES = [
    ("scan.page_read", 1),
    ("scan.page_read", 28),
    ("scan.page_checked", 12),
    ("scan.page_checked", 27),
    ("scan.saving", 1),
    ("scan.saving", 14),
    ("scan.saved", 1),
    ("scan.saved", 20),
    ("rendered", 77),
    ("told", 70),
]


@pytest.mark.parametrize("by", ["SIGKILL", "SIGINT"])
@pytest.mark.parametrize(("at", "occurrence"), PLACES)
def test_check_that_was_struck_and_resumed_says_what_an_uninterrupted_one_says(
    drifted: Fleet,
    uninterrupted: dict[str, object],
    checker: Checker,
    at: str,
    occurrence: int,
    by: str,
) -> None:
    """Nobody is missing, nobody is there twice, and the sums are right."""
    struck = checker(drifted, at=at, occurrence=occurrence, by=by)
    assert struck.code == (-9 if by == "SIGKILL" else 130), struck.err
    if by == "SIGINT":
        (*_, (what, why, fix)) = struck.errors
        assert (what, "progress is kept" in why) == ("Interrupted by SIGINT", True)
        assert "--resume" in fix
    resumed = checker(drifted, "--resume")
    assert resumed.code == 3, resumed.err
    assert answer(resumed) == uninterrupted
    assert "Going on with the check that began" in resumed.err
    assert saved_runs(drifted) == 0


@pytest.mark.parametrize("by", ["SIGKILL", "SIGINT"])
def test_check_that_is_struck_again_and_again_comes_to_its_end(
    drifted: Fleet, uninterrupted: dict[str, object], checker: Checker, by: str
) -> None:
    """Each run goes on where the one before it was; the last one says everything."""
    places = [
        "scan.page_checked",
        "scan.saved",
        "told",
        "rendered",
        "scan.saving",
        "scan.page_read",
    ]
    for number, at in enumerate(places):
        options = ["--resume"] if number else []
        told_before = 30 if at == "told" and number else 0  # those of earlier runs come first
        struck = checker(drifted, *options, at=at, occurrence=4 + told_before, by=by)
        assert struck.code == (-9 if by == "SIGKILL" else 130), struck.err
    assert answer(checker(drifted, "--resume")) == uninterrupted


@pytest.mark.parametrize("every_seconds", [0.05, 3_600])
def test_signal_saves_what_is_done_whatever_the_time_between_checkpoints(
    drifted: Fleet, uninterrupted: dict[str, object], checker: Checker, every_seconds: float
) -> None:
    """And a kill costs no more than that time's work."""
    struck = checker(
        drifted, at="scan.page_checked", occurrence=15, by="SIGINT", every_seconds=every_seconds
    )
    assert struck.code == 130
    resumed = checker(drifted, "--resume", every_seconds=every_seconds)
    assert answer(resumed) == uninterrupted
    assert " 56 users are done" in resumed.err  # 14 pages of 4
    struck = checker(drifted, at="scan.page_checked", occurrence=15, every_seconds=every_seconds)
    assert struck.code == -9
    resumed = checker(drifted, "--resume", every_seconds=every_seconds)
    assert answer(resumed) == uninterrupted
    if every_seconds == 3_600:
        assert " 0 users are done" in resumed.err


@pytest.mark.parametrize(
    ("control", "at"), [(FORGETFUL, "scan.saved"), (EARLY, "scan.saved"), (EARLY, "scan.page_read")]
)
def test_checkpoints_that_are_wrong_would_be_seen(
    drifted: Fleet, uninterrupted: dict[str, object], checker: Checker, control: str, at: str
) -> None:
    """The control: a position without its results, or one that is ahead of them."""
    struck = checker(drifted, at=at, occurrence=20, control=control)
    assert struck.code == -9
    resumed = checker(drifted, "--resume", control=control)
    assert resumed.code in (1, 3)
    assert answer(resumed) != uninterrupted


# --- whose progress it is -------------------------------------------------------------------------


@pytest.fixture
def fleet_of_40(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Forty owners on twenty pages, every fifth with drift, saved behind every page."""
    small_pages(monkeypatch, 2)
    assert Checkpoints.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(Checkpoints.__init__.__kwdefaults__, "every_seconds", 0)
    world.bring_in_sync({str(o): document(experience("exp_1", f"Job {o}")) for o in range(1, 41)})
    for owner in range(5, 41, 5):
        world.put(owner, document(experience("exp_1", "Another")))
    return world


def begun(world: World, owners: int, options: CheckOptions = SAVED) -> Iterator[SyncStatus]:
    """A check that has told of so many *owners* and is not over."""
    statuses = world.sides.check_all(options)
    assert len(list(islice(statuses, owners))) == owners
    return statuses


def stopped(statuses: Iterator[SyncStatus]) -> None:
    """End a check as a program does that needs no more of it."""
    assert isinstance(statuses, Generator)
    statuses.close()


def started(world: World, options: CheckOptions) -> tuple[CheckStarted, dict[str, SyncStatus]]:
    """How a check says that it begins, and what it finds."""
    events: list[SyncEvent] = []
    found = checked(world.sides, replace(options, listener=events.append))
    (event,) = events
    assert isinstance(event, CheckStarted)
    return event, found


def assert_whole(world: World, event: CheckStarted, found: dict[str, SyncStatus]) -> None:
    """What an earlier run has done and what this one told is everybody, and all that differs."""
    in_sync = event.outcomes.get(Outcome.IN_SYNC, 0)
    assert len(found) + in_sync == 40
    differ = {owner: s for owner, s in checked(world.sides).items() if not s.is_in_sync}
    told = {owner: s for owner, s in found.items() if not s.is_in_sync}
    assert content(told) == content(differ)
    assert len(told) == 8


def test_resumed_check_tells_again_what_differs_and_counts_the_rest(fleet_of_40: World) -> None:
    """Whoever is in sync is a number; whoever is not is in the answer, with everything."""
    stopped(begun(fleet_of_40, 20))
    event, found = started(fleet_of_40, RESUMED)
    assert event.began_seconds is not None
    assert sum(event.outcomes.values()) >= 18
    assert_whole(fleet_of_40, event, found)


def test_run_that_was_begun_later_wins_and_the_earlier_one_ends_right(
    fleet_of_40: World, caplog: pytest.LogCaptureFixture
) -> None:
    """It says that it saves no more; where the later one was is taken up."""
    earlier = begun(fleet_of_40, 6)
    later = begun(fleet_of_40, 10)
    with caplog.at_level(logging.WARNING, "undrift"):
        rest = list(earlier)
    assert "progress is not saved any more: another run" in caplog.text
    assert len(rest) == 34
    assert sum(status.outcome is Outcome.DRIFT for status in rest) == 7
    stopped(later)
    event, found = started(fleet_of_40, RESUMED)
    assert 8 <= sum(event.outcomes.values()) <= 10
    assert_whole(fleet_of_40, event, found)


def test_run_that_is_taken_up_twice_at_once_is_the_later_ones(
    fleet_of_40: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Both say everything; only one of them saves it."""
    stopped(begun(fleet_of_40, 20))
    events: list[SyncEvent] = []
    earlier = fleet_of_40.sides.check_all(replace(RESUMED, listener=events.append))
    told = list(islice(earlier, 6))
    later = begun(fleet_of_40, 8, RESUMED)
    with caplog.at_level(logging.WARNING, "undrift"):
        told.extend(earlier)
    assert "progress is not saved any more: another run" in caplog.text
    (event,) = events
    assert isinstance(event, CheckStarted)
    assert_whole(fleet_of_40, event, {status.owner_id: status for status in told})
    stopped(later)
    event, found = started(fleet_of_40, RESUMED)
    assert event.began_seconds is not None
    assert_whole(fleet_of_40, event, found)


def test_progress_of_which_a_part_is_gone_is_not_taken_up(fleet_of_40: World) -> None:
    """Whoever differs would be counted among those in sync."""
    stopped(begun(fleet_of_40, 20))
    results = memory_table(fleet_of_40, "state_result")
    assert fleet_of_40.store.database.run(f"DELETE FROM {results} WHERE number = 1") == 1
    with pytest.raises(StateUnavailable, match="The saved progress is not whole"):
        checked(fleet_of_40.sides, RESUMED)
    assert len(checked(fleet_of_40.sides, SAVED)) == 40


def test_run_that_ended_leaves_nothing_to_take_up(fleet_of_40: World) -> None:
    """The next one that would begins anew, and says so by saying nothing."""
    stopped(begun(fleet_of_40, 20))
    started(fleet_of_40, RESUMED)
    for name in ("state_run", "state_result"):
        table = memory_table(fleet_of_40, name)
        assert fleet_of_40.store.database.rows(f"SELECT 1 FROM {table}") == []
    event, found = started(fleet_of_40, RESUMED)
    assert (event.began_seconds, event.outcomes) == (None, {})
    assert len(found) == 40


def test_run_that_begins_anew_forgets_the_one_before(fleet_of_40: World) -> None:
    """Without being asked to resume."""
    stopped(begun(fleet_of_40, 20))
    stopped(begun(fleet_of_40, 4))
    event, found = started(fleet_of_40, RESUMED)
    assert sum(event.outcomes.values()) <= 4
    assert_whole(fleet_of_40, event, found)


@pytest.mark.parametrize(
    "other",
    [
        replace(RESUMED, shard="1/2"),
        replace(RESUMED, sample="50%"),
        replace(RESUMED, memos=False),
    ],
    ids=["shard", "sample", "without memos"],
)
def test_run_of_another_kind_takes_nothing_up_and_destroys_nothing(
    fleet_of_40: World, other: CheckOptions
) -> None:
    """They go on side by side."""
    stopped(begun(fleet_of_40, 20))
    event, _ = started(fleet_of_40, other)
    assert event.began_seconds is None
    stopped(begun(fleet_of_40, 2, replace(other, resume=False, saves_progress=True)))
    event, _ = started(fleet_of_40, other)
    assert event.began_seconds is not None
    event, found = started(fleet_of_40, RESUMED)
    assert event.began_seconds is not None
    assert_whole(fleet_of_40, event, found)


def test_another_model_takes_nothing_up(fleet_of_40: World) -> None:
    """By what it compares with, the owners that are done are not done."""
    stopped(begun(fleet_of_40, 20))
    with Undrift(
        source=fleet_of_40.source_url, store=fleet_of_40.store_url, embedder="hashing:16"
    ) as sides:
        found = checked(sides, RESUMED)
    assert len(found) == 40
    assert {status.outcome for status in found.values()} == {Outcome.DRIFT}


def test_owner_that_drifts_behind_the_position_waits_for_the_next_run(fleet_of_40: World) -> None:
    """A run says of each owner what was true when it looked, a resumed one too."""
    stopped(begun(fleet_of_40, 20))
    fleet_of_40.put(1, document(experience("exp_1", "Too late")))
    fleet_of_40.put(40, document(experience("exp_1", "Job 40")))
    _, found = started(fleet_of_40, RESUMED)
    assert "1" not in found
    assert found["40"].is_in_sync
    assert not started(fleet_of_40, SAVED)[1]["1"].is_in_sync


def test_run_that_pauses_when_its_time_is_up_is_taken_up_by_the_next(
    fleet_of_40: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Night after night, some owners each, until everybody was seen once."""
    clock = [0.0]

    def pace(self: CheckOptions) -> Pace:
        return Pace(until=clock[0] + 6.5, now=ticked)

    def ticked() -> float:
        clock[0] += 1
        return clock[0]

    whole = CheckOptions.pace
    monkeypatch.setattr(CheckOptions, "pace", pace)
    options = CheckOptions(until="06:00")
    told: dict[str, SyncStatus] = {}
    for night in range(1, 10):
        events: list[SyncEvent] = []
        found = checked(fleet_of_40.sides, replace(options, listener=events.append))
        assert isinstance(events[0], CheckStarted)
        assert (events[0].began_seconds is None) == (night == 1)
        told |= {owner: status for owner, status in found.items() if not status.is_in_sync}
        if not isinstance(events[-1], CheckPaused):
            break
        assert events[-1].owners <= 40  # the last page may be of nobody
    monkeypatch.setattr(CheckOptions, "pace", whole)
    assert night > 3
    first = events[0]
    assert isinstance(first, CheckStarted)
    assert_whole(fleet_of_40, first, found)
    assert len(told) == 8


def test_resuming_needs_a_place_where_something_can_have_been_saved(world: World) -> None:
    """Nothing was synced yet; a run that only would have saved goes on without."""
    world.put(1, document(experience("exp_1")))
    for options in (RESUMED, CheckOptions(until="06:00")):
        with pytest.raises(ConfigError, match="There is no saved progress") as caught:
            checked(world.sides, options)
        assert "undrift sync --all" in caught.value.fix
    assert list(checked(world.sides, SAVED)) == ["1"]
