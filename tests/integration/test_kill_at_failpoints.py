"""kill -9 at every step of a sync, while another process searches without a pause.

Whatever is in the source before and after, and was published, is in every search: before the crash,
at it, and after it (I1); and the next sync finishes the work (I6). The control, which clears before
it imports, is killed at the same steps and does show the gap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

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
from support.sides import World
from undrift.failpoints import FAILPOINTS


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


@pytest.fixture(params=["drifted", "forced"])
def scenario(request: pytest.FixtureRequest, new_world: Callable[..., World]) -> Scenario:
    """An owner with every difference a sync repairs, and one in sync that is synced by force."""
    world = new_world()
    return forced(world) if request.param == "forced" else drifted(world)


@pytest.mark.parametrize("failpoint", sorted(FAILPOINTS))
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


@pytest.mark.parametrize(
    ("failpoint", "occurrence"),
    [
        ("store.publish.committed", 1),  # the owner is cleared
        ("sync.embedded", 1),
        ("store.publish.written", 2),  # the import is not committed
    ],
)
def test_control_clear_then_import_shows_the_gap_at_the_same_failpoints(
    scenario: Scenario, failpoint: str, occurrence: int, writer: Writer, searcher: Searcher
) -> None:
    """The same measurement finds every entity gone behind a writer that clears first."""
    absent = killed_while_searched(
        scenario, writer, searcher, failpoint, occurrence=occurrence, clear_then_import=True
    )
    left = searcher.look()
    searcher.stop()

    assert absent == scenario.always
    assert left.hits == frozenset()
