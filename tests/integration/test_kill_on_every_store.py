"""kill -9 at every step of a sync on every store of class C that processes share.

As on the SQL stores: whatever was published and stays is in every search, before the kill, at it
and after it, and the next sync finishes the work. The control, which clears first, shows the gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.every_store import SHARED, world_on
from support.killing import (
    NEIGHBOUR,
    OWNER,
    PUBLISHED,
    Scenario,
    drifted,
    forced,
    killed_while_searched,
)
from support.processes import Searcher, Writer
from undrift.failpoints import FAILPOINTS

REACHED = sorted(FAILPOINTS - {"store.publish.held"})
"""The one that is left out is passed with a state beside the vectors only."""


@pytest.fixture(scope="module")
def writer() -> Iterator[Writer]:
    """The process that is killed, again and again."""
    with Writer() as process:
        yield process


@pytest.fixture(scope="module")
def searcher() -> Iterator[Searcher]:
    """The process that searches."""
    with Searcher() as process:
        yield process


@pytest.fixture(params=SHARED)
def scenario(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scenario]:
    """An owner with every difference a sync repairs, on each store."""
    with world_on(request.param, request, tmp_path) as world:
        yield drifted(world)


@pytest.mark.parametrize("failpoint", REACHED)
def test_kill_leaves_no_gap_and_the_next_sync_finishes(
    scenario: Scenario, failpoint: str, writer: Writer, searcher: Searcher
) -> None:
    """No live entity is ever absent from a search; the next sync ends in sync."""
    world = scenario.world

    absent = killed_while_searched(scenario, writer, searcher, failpoint)
    writer.start(world, [OWNER])
    outcomes = writer.wait_for_end().outcomes
    recovered = searcher.look()
    searcher.stop()

    assert absent == set()
    assert outcomes == {OWNER: "in_sync"}
    assert recovered.hits == set(world.layout.entities(scenario.source))
    world.assert_store_holds({OWNER: scenario.source, NEIGHBOUR: PUBLISHED})


@pytest.mark.parametrize("store", SHARED)
@pytest.mark.parametrize("failpoint", ["store.publish.written", "store.publish.committed"])
def test_a_forced_sync_leaves_no_gap_either(
    store: str,
    failpoint: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    writer: Writer,
    searcher: Searcher,
) -> None:
    """Though everything is rewritten."""
    with world_on(store, request, tmp_path) as world:
        scenario = forced(world)
        assert killed_while_searched(scenario, writer, searcher, failpoint) == set()
        writer.start(world, [OWNER])
        assert writer.wait_for_end().outcomes == {OWNER: "in_sync"}
        searcher.stop()
        world.assert_store_holds({OWNER: PUBLISHED, NEIGHBOUR: PUBLISHED})


def test_control_clear_then_import_shows_the_gap(
    scenario: Scenario, writer: Writer, searcher: Searcher
) -> None:
    """The same measurement finds every entity gone behind a writer that clears first."""
    absent = killed_while_searched(
        scenario, writer, searcher, "store.publish.committed", clear_then_import=True
    )
    left = searcher.look()
    searcher.stop()

    assert absent == scenario.always
    assert left.hits == frozenset()
