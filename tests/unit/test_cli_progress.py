"""How far a run is said to be: counted, estimated, or not known."""

from __future__ import annotations

from functools import partial
from threading import Event

import pytest

from undrift.cli.progress import Pace, PlainLines, open_progress
from undrift.cli.streams import Stream, Terminal, open_terminal
from undrift.errors import SourceUnavailable
from undrift.headcount import Headcount


class Clock:
    """A clock that stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def run_for(
    pace: Pace, clock: Clock, seconds: float, *, users: int, errors: int = 0, embedded: int = 0
) -> None:
    """Let so many users be done within so many seconds, evenly."""
    for number in range(users):
        clock.now += seconds / users
        pace.user_done(is_error=number < errors, embedded=embedded)


# --- users ------------------------------------------------------------------------------------


def test_pace_tells_done_rate_eta_and_errors() -> None:
    """Computed from the clock it is given."""
    clock = Clock()
    pace = Pace(200, clock=clock)
    run_for(pace, clock, 10, users=50, errors=2)
    assert pace.line() == "Progress: 50/200 users, 5.0 users/s, ETA 0:00:30, errors: 2"


def test_pace_without_a_total_does_not_guess() -> None:
    """Nobody counted everybody."""
    clock = Clock()
    pace = Pace(None, clock=clock)
    run_for(pace, clock, 10, users=20)
    pace.ask()
    assert pace.line() == "Progress: 20 users, 2.0 users/s, ETA unknown, errors: 0"


def test_pace_before_the_first_user_has_no_eta() -> None:
    """Nothing is divided by nothing."""
    assert "ETA unknown" in Pace(10, clock=lambda: 1.0).line()


def test_pace_says_whether_the_total_was_counted() -> None:
    """Of a planner's estimate nobody is to think that it is exact."""
    for is_estimate, said in ((False, "10/40 users"), (True, "10/about 40 users")):
        clock = Clock()
        pace = Pace(None, count=partial(Headcount, 40, is_estimate), clock=clock)
        pace.ask()
        run_for(pace, clock, 5, users=10)
        assert f"{said}, 2.0 users/s, ETA 0:00:15" in pace.line()


def test_total_that_was_too_low_is_told_no_more() -> None:
    """An estimate, or owners whom only the store has: there is no user 41 of 40."""
    clock = Clock()
    pace = Pace(None, count=lambda: Headcount(40, is_estimate=True), clock=clock)
    pace.ask()
    run_for(pace, clock, 41, users=41)
    assert pace.line() == "Progress: 41 users, 1.0 users/s, ETA unknown, errors: 0"


def test_nobody_is_asked_twice_and_no_outage_ends_the_progress() -> None:
    """The run meets the same outage, and says so."""
    asked = []

    def count() -> Headcount:
        asked.append(1)
        raise SourceUnavailable("The source cannot be reached", why="it is down.", fix="start it")

    pace = Pace(None, count=count)
    pace.ask()
    pace.ask()
    assert len(asked) == 1
    assert pace.expected is None


def test_known_total_needs_no_counting() -> None:
    """Whoever is listed was counted already."""
    pace = Pace(3, count=lambda: pytest.fail("somebody was asked"))
    pace.ask()
    assert pace.total == 3


def test_run_that_is_taken_up_goes_on_counting_and_times_itself_only() -> None:
    """What the earlier run tells again neither counts twice nor makes this one look fast."""
    clock = Clock()
    pace = Pace(1_000, clock=clock)
    pace.take_up(500, again=100)
    for _ in range(100):
        pace.user_done()
    assert pace.line() == "Progress: 500/1000 users, 0.0 users/s, ETA unknown, errors: 0"
    run_for(pace, clock, 50, users=100)
    assert pace.line() == "Progress: 600/1000 users, 2.0 users/s, ETA 0:03:20, errors: 0"


def test_eta_follows_the_pace_of_the_last_minute() -> None:
    """A stretch that was in sync says nothing about one that has to be embedded."""
    clock = Clock()
    pace = Pace(100_000, clock=clock)
    run_for(pace, clock, 100, users=50_000)
    run_for(pace, clock, 120, users=240)
    assert "50240/100000 users, 2.0 users/s, ETA 6:54:40" in pace.line()


# --- costs ------------------------------------------------------------------------------------


def test_costs_are_told_once_there_are_any() -> None:
    """A check, and a sync of what is in sync, pay nothing."""
    clock = Clock()
    pace = Pace(10, clock=clock)
    run_for(pace, clock, 2, users=2)
    assert pace.costs() == ""


def test_what_is_left_to_pay_is_taken_from_those_who_are_done() -> None:
    """Twelve texts each so far; what is embedded for users under way is paid for already."""
    clock = Clock()
    pace = Pace(100, clock=clock)
    pace.embedded(360, 7_200)
    run_for(pace, clock, 10, users=20, embedded=12)
    assert pace.costs() == (
        "embedded: 360 texts (about 7200 tokens), to go: about 840 texts (16800 tokens)"
    )
    assert pace.line().endswith(f"errors: 0, {pace.costs()}")


def test_nothing_is_said_of_what_is_left_where_nobody_knows() -> None:
    """Without a total, or before the first user is done."""
    clock = Clock()
    begun, endless = Pace(100, clock=clock), Pace(None, clock=clock)
    for pace in (begun, endless):
        pace.embedded(50, 400)
    run_for(endless, clock, 1, users=1, embedded=50)
    assert begun.costs() == endless.costs() == "embedded: 50 texts (about 400 tokens)"


def test_plan_knows_better_what_is_left_until_it_is_overtaken() -> None:
    """Whoever was looked at before need not be estimated; who changed since, must."""
    clock = Clock()
    pace = Pace(10, planned=60, clock=clock)
    pace.embedded(45, 450)
    run_for(pace, clock, 1, users=5, embedded=9)
    assert pace.costs().endswith("to go: about 15 texts (150 tokens)")
    pace.embedded(27, 270)
    run_for(pace, clock, 1, users=3, embedded=9)
    assert pace.costs().endswith("to go: about 18 texts (180 tokens)")


# --- where it is shown ------------------------------------------------------------------------


class Told(Stream):
    """A stream that notes what it is told."""

    def __init__(self) -> None:
        super().__init__(None)
        self.text = ""
        self.has_line = Event()

    def write(self, text: str) -> int:
        """Note *text*."""
        self.text += text
        self.has_line.set()
        return len(text)


def test_plain_lines_come_while_nothing_is_finished_and_stop_when_closed() -> None:
    """From a thread of their own."""
    told = Told()
    lines = PlainLines(Terminal(Stream(None), told), Pace(2), every_seconds=0)
    assert told.has_line.wait(60)
    lines.close()
    assert told.text.startswith("Progress: 0/2 users")
    assert not lines._thread.is_alive()


def test_users_are_counted_for_a_line_and_not_before() -> None:
    """A run that is over before the first line costs no query."""
    asked = Event()

    def count() -> Headcount:
        asked.set()
        return Headcount(7)

    told = Told()
    terminal = Terminal(Stream(None), told)
    PlainLines(terminal, Pace(None, count=count), every_seconds=60).close()
    assert not asked.is_set()
    lines = PlainLines(terminal, Pace(None, count=count), every_seconds=0)
    assert told.has_line.wait(60)
    lines.close()
    assert told.text.startswith("Progress: 0/7 users")


def test_one_user_has_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    """It is over before anybody wonders."""
    open_progress(open_terminal(), Pace(1)).close()
    assert capsys.readouterr() == ("", "")
