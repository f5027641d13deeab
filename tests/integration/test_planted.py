"""Differences that are planted all over a fleet are found exactly: these, and no others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from benchmarks import planting
from benchmarks.fleet import Fleet, document, entity_names, size
from benchmarks.scale_world import PostgresWorld, SqliteWorld, World

from undrift import Undrift
from undrift.embedders.hashing import HashingEmbedder
from undrift.scan.options import CheckOptions

FLEET = Fleet(400)
PLANTED = 90


@pytest.fixture(params=["sqlite", "postgresql"])
def fleet_world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    """Both sides of a fleet; the source is filled."""
    if request.param == "sqlite":
        world: World = SqliteWorld(tmp_path)
    else:
        world = PostgresWorld(request.getfixturevalue("postgres_url"), postmaster=0)
    world.load(FLEET)
    return world


@pytest.fixture
def sides(fleet_world: World) -> Iterator[Undrift]:
    """The fleet in sync, with triggers, and a memo of everybody."""
    embedder = HashingEmbedder(8)
    with Undrift(source=fleet_world.source, store=fleet_world.store, embedder=embedder) as sides:
        assert all(report.is_in_sync for report in sides.sync_all())
        sides.triggers.install()
        assert found_by(sides) == []
        yield sides


def found_by(sides: Undrift, *, memos: bool = True) -> list[planting.Difference]:
    """Every difference that a check of everybody tells of."""
    statuses = sides.check_all(CheckOptions(memos=memos))
    return sorted(found for status in statuses for found in planting.differences(status))


@pytest.mark.parametrize("with_triggers", [True, False], ids=["triggers", "silenced"])
def test_exactly_what_was_planted_is_found_with_memos_and_without(
    fleet_world: World, sides: Undrift, with_triggers: bool
) -> None:
    """Of every kind; nothing of it depends on the source's triggers."""
    planted = planting.plan(FLEET, PLANTED, seed=3)
    with nullcontext() if with_triggers else fleet_world.silenced():
        planting.plant(fleet_world, planted)
    expected = sorted(planting.to_find(planted))
    assert len(expected) == PLANTED
    assert {one.what for one in planted} == {*planting.OF_RECORDS, *planting.OF_SOURCE}
    assert found_by(sides) == expected
    assert found_by(sides, memos=False) == expected
    fleet_world.forget_memos()
    assert found_by(sides) == expected


def test_a_sync_repairs_all_that_was_planted(fleet_world: World, sides: Undrift) -> None:
    """And nothing is left to find."""
    planting.plant(fleet_world, planting.plan(FLEET, PLANTED, seed=4))
    assert all(report.is_in_sync for report in sides.sync_all())
    assert found_by(sides) == []


def test_a_check_by_the_triggers_alone_misses_what_they_do_not_see(
    fleet_world: World, sides: Undrift
) -> None:
    """The control: what is planted is nothing that marks would tell of."""
    fleet_world.take_marks()
    with fleet_world.silenced():
        planting.plant(fleet_world, planting.plan(FLEET, PLANTED, seed=5))
    assert list(sides.check_changed()) == []


# --- the fleet itself -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [size, document, entity_names])
def test_any_user_is_made_again_alone(make: Callable[[int], object]) -> None:
    """From nothing but the number."""
    in_order = [make(owner) for owner in range(1, 50)]
    assert [make(owner) for owner in range(49, 0, -1)] == in_order[::-1]


def test_sizes_are_skewed_around_a_mean_of_ten() -> None:
    """Most users are small, and a few have hundreds."""
    sizes = [size(owner) for owner in range(1, 50_001)]
    assert sum(sizes) / len(sizes) == pytest.approx(10, rel=0.02)
    assert sum(2 <= one <= 15 for one in sizes) > 0.8 * len(sizes)
    assert max(sizes) > 200
    assert [len(entity_names(owner)) for owner in range(1, 300)] == sizes[:299]
