"""The simulation of a watch under load agrees with what is known of queues."""

from __future__ import annotations

import statistics
from dataclasses import replace
from itertools import pairwise

import pytest
from benchmarks.load import POINTS, compared, load_table, on_paper, paper_table, predicted
from benchmarks.load_model import (
    Change,
    Costs,
    Crew,
    Figures,
    Limit,
    Line,
    Load,
    Pace,
    figures,
    simulate,
    texts_sent,
)
from benchmarks.load_run import Batch, costs_of

FREE = Line(0.0, 0.0)
NO_COSTS = Costs(before=FREE, publish=FREE, after=FREE)
COSTS = Costs(before=Line(0.02, 0.001), publish=Line(0.005, 0.0005), after=Line(0.004, 0.0005))
TENTH = Pace(call_seconds=0.1, text_seconds=0.0)
SLOW = Pace(call_seconds=0.15, text_seconds=0.01)
ONE_BY_ONE = Crew(workers=1, batch_owners=1, poll_seconds=0.000_1)
"""With `TENTH` the queue of the textbooks that serves one at a time, ten a second."""


def seconds_of(batch: int, costs: Costs, pace: Pace) -> float:
    """How long a worker is busy with a batch."""
    parts = (costs.before, costs.publish, costs.after)
    return sum(part.seconds(batch) for part in parts) + pace.seconds(texts_sent(batch))


def measured(load: Load, crew: Crew, pace: Pace, costs: Costs = NO_COSTS) -> Figures:
    return figures(simulate(load, crew, pace, costs), load.seconds)


# --- queues that are known ------------------------------------------------------------------------


@pytest.mark.parametrize("use", [0.3, 0.6, 0.8])
def test_one_at_a_time_waits_as_long_as_pollaczek_and_khinchine_say(use: float) -> None:
    """Arrivals at random, equal services: in the queue for use x service / (2 (1 - use))."""
    load = Load(rate=10 * use, seconds=20_000)
    changes = simulate(load, ONE_BY_ONE, TENTH, NO_COSTS)
    waits = [change.fresh - change.committed - 0.1 for change in changes]
    assert statistics.fmean(waits) == pytest.approx(use * 0.1 / (2 * (1 - use)), rel=0.05)


def test_below_its_capacity_a_backlog_does_not_grow_with_time() -> None:
    short, long = (
        measured(Load(rate=50, seconds=seconds), Crew(workers=1), SLOW, COSTS)
        for seconds in (200.0, 2_000.0)
    )
    assert long.backlog_mean == pytest.approx(short.backlog_mean, rel=0.1)
    assert long.p99_ms < 2 * 1000 * seconds_of(100, COSTS, SLOW)


def test_above_its_capacity_a_backlog_grows_by_what_it_cannot_do() -> None:
    capacity = 100 / seconds_of(100, COSTS, SLOW)
    for seconds in (100.0, 400.0):
        load = Load(rate=2 * capacity, seconds=seconds)
        found = measured(load, Crew(workers=1), SLOW, COSTS)
        assert found.throughput == pytest.approx(capacity, rel=0.03)
        left = len(load.arrivals()) - capacity * seconds
        assert found.backlog_end == pytest.approx(left, rel=0.05)


@pytest.mark.parametrize("workers", [2, 4, 8])
def test_workers_that_only_wait_for_the_service_do_as_much_more_as_they_are(workers: int) -> None:
    capacity = workers * 100 / seconds_of(100, COSTS, SLOW)
    load = Load(rate=1.5 * capacity, seconds=200)
    found = measured(load, Crew(workers=workers), SLOW, COSTS)
    assert found.throughput == pytest.approx(capacity, rel=0.05)


def test_a_service_that_charges_for_calls_is_relieved_by_batches() -> None:
    """The control: one user at a time falls behind where a hundred at a time do not."""
    load = Load(rate=40, seconds=100)
    together = measured(load, Crew(workers=1), TENTH)
    alone = measured(load, Crew(workers=1, batch_owners=1), TENTH)
    assert together.backlog_end < 20
    assert alone.backlog_end == pytest.approx(len(load.arrivals()) - 10 * 100, rel=0.02)


def test_whoever_finds_nobody_looks_again_after_the_poll() -> None:
    """Hardly any load and no costs: what is left is half a poll on average."""
    load = Load(rate=0.2, seconds=20_000)
    crew = Crew(workers=1, poll_seconds=0.5)
    ages = [c.fresh - c.committed for c in simulate(load, crew, TENTH, NO_COSTS)]
    assert statistics.fmean(ages) == pytest.approx(0.1 + 0.25, rel=0.03)
    assert max(ages) < 0.1 + 0.5 + 0.1 * 3


# --- rate limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_no_number_of_workers_exceeds_the_limit_of_the_service(workers: int) -> None:
    """Of a hundred and one texts one is sent twice."""
    pace = replace(SLOW, texts_per_second=40.0)
    found = measured(Load(rate=60, seconds=400), Crew(workers=workers), pace, COSTS)
    assert found.throughput <= 40.0 * 1.02
    if workers > 1:  # one alone also waits for its own answers
        assert found.throughput > 40.0 * 0.95


def test_a_limit_says_when_it_takes_the_request() -> None:
    limit = Limit(10.0)
    assert limit.wait(0.0, 5) == 0.0
    assert limit.wait(0.125, 5) == 0.375
    assert limit.wait(0.4999, 5) == 0.001
    assert limit.wait(0.5, 5) == 0.0
    assert limit.wait(0.5, 1) == 0.5


def test_without_a_limit_nobody_waits() -> None:
    limit = Limit(None)
    assert [limit.wait(0.0, 1_000) for _ in range(3)] == [0.0] * 3


# --- chance and figures ---------------------------------------------------------------------------


def test_a_seed_gives_the_same_run_and_another_seed_another() -> None:
    load = Load(rate=50, seconds=30, seed=7)
    crew = Crew(workers=2)
    once, again = (simulate(load, crew, SLOW, COSTS) for _ in range(2))
    assert once == again
    assert simulate(replace(load, seed=8), crew, SLOW, COSTS) != once


def test_arrivals_are_as_many_and_as_scattered_as_chance_has_it() -> None:
    """As many as the rate says, and the gaps' deviation is their mean."""
    arrivals = Load(rate=50, seconds=1_000).arrivals()
    gaps = [after - before for before, after in pairwise(arrivals)]
    assert len(arrivals) == pytest.approx(50_000, rel=0.02)
    assert statistics.stdev(gaps) == pytest.approx(statistics.fmean(gaps), rel=0.02)
    assert arrivals == tuple(sorted(arrivals))
    assert arrivals[-1] < 1_000


def test_every_change_becomes_fresh_once_and_not_before_the_service_can_have_answered() -> None:
    load = Load(rate=200, seconds=20)
    changes = simulate(load, Crew(workers=3), SLOW, COSTS)
    assert sorted(change.committed for change in changes) == list(load.arrivals())
    assert all(change.fresh - change.committed > SLOW.seconds(1) for change in changes)


def test_figures_count_what_was_left_when_the_last_arrived() -> None:
    changes = [Change(0.0, 1.0), Change(1.0, 2.0), Change(2.0, 12.0), Change(9.0, 11.0)]
    found = figures(changes, seconds=10.0)
    assert found.throughput == 0.2
    assert found.backlog_end == 2
    assert found.backlog_mean == pytest.approx((1 + 1 + 8 + 1) / 10)
    assert found.p50_ms == 1500.0
    assert 9_000 < found.p99_ms <= 10_000


def test_a_calibration_finds_the_costs_that_made_its_batches() -> None:
    """One slow batch among them does not bend the lines, and is remembered beside them."""
    now, batches = 0.0, []
    for number, owners in enumerate((1, 10, 100) * 3):
        asked = now + COSTS.before.seconds(owners) + (5.0 if number == 4 else 0.0)
        answered = asked + SLOW.seconds(owners)
        published = answered + COSTS.publish.seconds(owners)
        now = published + COSTS.after.seconds(owners)
        batches.append(Batch(owners, asked, answered, published, now))
    found = costs_of(batches)
    for part in ("before", "publish", "after"):
        assert getattr(found, part) == pytest.approx(getattr(COSTS, part))
    assert found.spread[:-1] == (1.0,) * 7
    assert found.spread[-1] > 50


def test_slow_batches_among_the_others_lengthen_the_longest_waits_first() -> None:
    """One batch of twenty takes ten times as long; the median hardly notices."""
    load = Load(rate=20, seconds=500)
    even, uneven = (
        measured(load, Crew(workers=1), SLOW, replace(COSTS, spread=spread))
        for spread in ((1.0,), (1.0,) * 19 + (10.0,))
    )
    assert uneven.p50_ms < 1.2 * even.p50_ms
    assert uneven.p99_ms > 1.3 * even.p99_ms


def test_an_error_is_above_zero_where_the_prediction_was_too_high() -> None:
    told = Figures(throughput=10, p50_ms=150, p99_ms=90, backlog_mean=1, backlog_end=2)
    found = Figures(throughput=10, p50_ms=100, p99_ms=100, backlog_mean=2, backlog_end=0)
    errors = compared(POINTS[0], told, found)["error"]
    assert errors == {"throughput": 0.0, "p50_ms": 0.5, "p99_ms": -0.1, "backlog_mean": -0.5}


def test_the_points_lie_on_both_sides_of_the_capacity() -> None:
    """Or the comparison would say little: some of them keep up, some fall behind."""
    found = {point.name: predicted(point, COSTS) for point in POINTS}
    behind = {
        name
        for point, (name, figure) in zip(POINTS, found.items(), strict=True)
        if figure.throughput < 0.85 * point.load.rate
    }
    assert behind == {"more than it can", "above the service's limit"}


def test_tables_have_a_line_for_each_point_and_each_crew() -> None:
    told = predicted(POINTS[0], COSTS)
    result = {"points": [compared(POINTS[0], told, told)], "on_paper": on_paper(COSTS)}
    assert load_table(result).splitlines()[2].startswith("| light load | 20, 1 | ")
    assert len(paper_table(result).splitlines()) == 2 + 4
