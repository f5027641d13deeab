"""A sync that is killed at a failpoint while another process searches without a pause."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from support.layouts import Document, document, experience
from support.processes import Searcher, Writer
from support.sides import World
from undrift import EntityId

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


def drifted(world: World) -> Scenario:
    """An owner with every difference that a sync repairs."""
    published = _published(world)
    world.store.delete(world.vector_id(OWNER, "experience:exp_lost"))
    world.put(OWNER, AFTERWARDS)
    lost = {EntityId("experience:exp_lost")}
    always = (published - lost) & set(world.layout.entities(AFTERWARDS))
    return Scenario(world, frozenset(always), AFTERWARDS, force=False)


def forced(world: World) -> Scenario:
    """An owner in sync that is synced by force."""
    return Scenario(world, frozenset(_published(world)), PUBLISHED, force=True)


def _published(world: World) -> set[EntityId]:
    world.bring_in_sync({OWNER: PUBLISHED, NEIGHBOUR: PUBLISHED})
    return set(world.layout.entities(PUBLISHED))


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
