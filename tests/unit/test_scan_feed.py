"""Which owners come next, at which pace, and until when."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest

from undrift.errors import ConfigError
from undrift.scan.feed import PAGE_OWNERS, Growth, Pace, Page, Position, next_time


class Clock:
    """A clock that sleep moves."""

    def __init__(self) -> None:
        self.at = 1_000.0

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


def pages(count: int, owners: int) -> Iterator[Page]:
    """So many pages of so many owners."""
    for number in range(count):
        yield Page([f"{number}/{owner}" for owner in range(owners)], Position(False, str(number)))


def test_position_survives_being_written_down() -> None:
    """Whatever the owner is called."""
    for position in (Position(), Position(True, None), Position(False, 'a "b"\n\N{SNOWMAN}')):
        assert Position.parse(str(position)) == position


def test_pace_keeps_its_rate_over_the_whole_run() -> None:
    """Time that was spent in looking counts."""
    clock = Clock()
    pace = Pace(owners_per_second=10, now=clock.now, sleep=clock.sleep)
    began = clock.at
    for _ in pace.of(pages(5, 10)):
        clock.at += 0.5
    assert clock.at - began == pytest.approx(4.5)


def test_pace_without_a_rate_waits_for_nothing() -> None:
    """And takes whole pages."""
    clock = Clock()
    pace = Pace(now=clock.now, sleep=clock.sleep)
    assert len(list(pace.of(pages(5, 10)))) == 5
    assert (clock.at, pace.page_owners, pace.is_over) == (1_000.0, PAGE_OWNERS, False)


def test_slow_run_reads_no_more_than_a_second_needs() -> None:
    """A page of thousands would come in one burst and be followed by silence."""
    assert Pace(owners_per_second=25).page_owners == 25
    assert Pace(owners_per_second=0.1).page_owners == 1
    assert Pace(owners_per_second=1e6).page_owners == PAGE_OWNERS


def test_run_ends_before_the_page_that_would_begin_too_late() -> None:
    """What is begun is finished; nothing is begun behind the time, and it says so."""
    clock = Clock()
    pace = Pace(until=1_002.5, now=clock.now, sleep=clock.sleep)
    seen = 0
    for _ in pace.of(pages(10, 1)):
        seen += 1
        clock.at += 1
    assert (seen, pace.is_over) == (3, True)


def test_run_does_not_sleep_past_its_end() -> None:
    """The next page is due in an hour, the end is now."""
    clock = Clock()
    pace = Pace(owners_per_second=0.001, until=1_010, now=clock.now, sleep=clock.sleep)
    assert len(list(pace.of(pages(3, 1)))) == 1
    assert clock.at == pytest.approx(1_010)


# --- until a time of day ------------------------------------------------------------------------

BERLIN = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("06:00", datetime(2026, 3, 2, 6, tzinfo=BERLIN)),
        ("23:30", datetime(2026, 3, 1, 23, 30, tzinfo=BERLIN)),
        ("22:00", datetime(2026, 3, 2, 22, tzinfo=BERLIN)),
        (" 0:05 ", datetime(2026, 3, 2, 0, 5, tzinfo=BERLIN)),
    ],
    ids=["tomorrow", "later today", "the very minute is tomorrow's", "after midnight"],
)
def test_time_of_day_is_the_next_one(text: str, expected: datetime) -> None:
    """At 22:00, in the zone of the machine."""
    now = datetime(2026, 3, 1, 22, tzinfo=BERLIN)
    assert next_time(text, now=now) == expected.timestamp()


@pytest.mark.parametrize("text", ["6", "24:00", "06:60", "6am", "", "06:00:00"])
def test_time_that_is_none_is_refused(text: str) -> None:
    """With how it is written."""
    with pytest.raises(ConfigError, match="is no time of day"):
        next_time(text)


def test_pages_grow_while_next_to_nobody_is_rendered() -> None:
    """Whoever is rendered is better spread over many pages, so that all processes have some."""
    size = Growth(10_000)
    assert size() == 0
    size.saw(2_000, rendered=200)
    assert size() == 10_000
    size.saw(10_000, rendered=1_001)
    assert size() == 0


def test_pages_of_a_store_without_a_wish_never_grow() -> None:
    """They are as the source lists them."""
    size = Growth()
    size.saw(2_000, rendered=0)
    assert size() == 0
