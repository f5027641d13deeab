"""kill -9 at every step of a sync, while another process searches without a pause.

Whatever is in the source before and after, and was published, is in every search: before the crash,
at it, and after it (I1); and the next sync finishes the work (I6). The control, which clears before
it imports, is killed at the same steps and does show the gap.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from support.layouts import Document, document, experience
from support.processes import Searcher, Writer
from support.sides import World
from undrift import EntityId
from undrift.failpoints import FAILPOINTS

OWNER, NEIGHBOUR = "1", "2"
PUBLISHED = document(
    experience("exp_kept", projects=[{"id": "p_kept", "title": "Kiln", "description": "Fires"}]),
    experience("exp_edited"),
    experience("exp_moved", end="2020-01"),
    experience("exp_lost"),
    experience("exp_gone"),
    skills=["SQL", "Grafting"],
)
AFTERWARDS = document(
    PUBLISHED["experiences"][0],
    experience("exp_edited", "Another text"),
    experience("exp_moved", end="2021-01"),
    experience("exp_lost"),
    experience("exp_new"),
    skills=["SQL", "Grafting"],
)


@dataclass(frozen=True)
class Scenario:
    """A world in which one sync is due.

    Attributes:
        always: what is live before and after, and published: every search must show it.
        source: what the source holds.
    """

    world: World
    always: frozenset[str]
    source: Document
    force: bool


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
    world.bring_in_sync({OWNER: PUBLISHED, NEIGHBOUR: PUBLISHED})
    published = set(world.layout.entities(PUBLISHED))
    if request.param == "forced":
        return Scenario(world, frozenset(published), PUBLISHED, force=True)
    world.store.delete(world.vector_id(OWNER, "experience:exp_lost"))
    world.put(OWNER, AFTERWARDS)
    lost = {EntityId("experience:exp_lost")}
    always = (published - lost) & set(world.layout.entities(AFTERWARDS))
    return Scenario(world, frozenset(always), AFTERWARDS, force=False)


def killed_while_searched(
    scenario: Scenario,
    writer: Writer,
    searcher: Searcher,
    failpoint: str,
    *,
    occurrence: int = 1,
    clear_then_import: bool = False,
) -> set[str]:
    """Kill a sync at *failpoint*; return what a search showed to be absent and must not be."""
    searcher.watch(scenario.world, OWNER)
    writer.start(
        scenario.world,
        [OWNER],
        force=scenario.force,
        pause_at=failpoint,
        occurrence=occurrence,
        clear_then_import=clear_then_import,
    )
    assert writer.wait_until_paused() == failpoint
    searcher.look()
    assert writer.kill().signal == signal.SIGKILL
    searcher.look()
    absent: set[str] = set()
    for seen in searcher.observations:
        absent |= scenario.always - seen.hits
        absent |= scenario.always - seen.stamps
    return absent


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
