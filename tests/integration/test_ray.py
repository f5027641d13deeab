"""A check of everybody on a Ray cluster of two nodes, and by shards: what is lost is done again."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from support.layouts import document, experience
from support.postgres import PostgresServer
from support.ray_driver import (
    PAGE_OWNERS,
    WAIT_SECONDS,
    Driver,
    Found,
    Notes,
    Run,
    repeated,
    wait_until,
)
from support.ray_nodes import RayNodes
from support.sides import World, postgres_world

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: undrift[ray]"
    ),
]

OWNERS = 400
PAGES = OWNERS // PAGE_OWNERS
WINDOW = 4  # two nodes of one core each, and for each core two pages under way


class Fleet(NamedTuple):
    """Both sides, and who was made to differ, as a `Found` says it."""

    url: str
    differing: Mapping[str, Sequence[str]]


@pytest.fixture(scope="module")
def fleet(postgres_server: PostgresServer) -> Iterator[Fleet]:
    """Forty pages of owners in one PostgreSQL, every 13th of whom has lost or kept something."""
    with ExitStack() as closing:
        url = closing.enter_context(postgres_server.database())
        world = closing.enter_context(postgres_world(url))
        world.bring_in_sync({str(n): document(experience(f"exp_{n}")) for n in range(1, OWNERS)})
        yield Fleet(url, {**planted(world), **ghost(world)})


def planted(world: World) -> dict[str, list[str]]:
    """Take vectors away, and rows' contents, by SQL."""
    missing = [str(owner) for owner in range(7, OWNERS, 26)]
    stale = [str(owner) for owner in range(20, OWNERS, 26)]
    for owner in missing:
        world.store.database.run(f"DELETE FROM {world.store.vectors} WHERE owner_id = :o", o=owner)
    world.put_all({owner: document() for owner in stale})
    return {owner: ["drift", f"experience:exp_{owner}"] for owner in (*missing, *stale)}


def ghost(world: World) -> dict[str, list[str]]:
    """Let somebody be in the store alone."""
    owner = str(OWNERS)
    world.put(owner, document(experience(f"exp_{owner}")))
    assert world.sides.sync(owner).is_in_sync
    world.remove_owners([owner])
    return {owner: ["drift", f"experience:exp_{owner}"]}


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayNodes]:
    """A cluster, of whose nodes any may be missing."""
    with RayNodes() as nodes:
        yield nodes


@pytest.fixture
def nodes(cluster: RayNodes) -> RayNodes:
    """A cluster of two nodes."""
    cluster.be_two()
    return cluster


@pytest.fixture
def start(fleet: Fleet, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """A function that starts drivers over the fleet, who note their pages in this test's folder."""
    with ExitStack() as drivers:

        def new_driver(nodes: RayNodes | None = None, **options: object) -> Driver:
            if nodes is not None:
                options["address"] = nodes.address
            run = Run(source=fleet.url, store=fleet.url, **options)  # type: ignore[arg-type]
            return drivers.enter_context(Driver(run, nodes.variables if nodes else {}))

        yield new_driver


def notes_in(tmp_path: Path, name: str) -> tuple[str, Notes]:
    """A folder for notes, and the notes in it."""
    folder = tmp_path / name
    folder.mkdir()
    return str(folder), Notes(str(folder))


def assert_exact(found: Found, fleet: Fleet) -> None:
    """All that differs was found, and everybody was seen."""
    assert found == Found("", OWNERS, fleet.differing)


def hold_on_both(nodes: RayNodes, notes: Notes) -> None:
    """Wait until both nodes have a page that is held."""

    def is_so() -> bool:
        last = {page.pid for page in notes.begun()[HELD_AFTER:]}
        second = nodes.processes_of_second()
        return bool(last & second) and bool(last - second)

    wait_until(is_so)


HELD_AFTER = PAGES // 2


def test_pages_of_a_lost_machine_are_checked_by_another(
    start: Callable[..., Driver], nodes: RayNodes, fleet: Fleet, tmp_path: Path
) -> None:
    folder, notes = notes_in(tmp_path, "run")
    driver = start(nodes, notes=folder, hold_after=HELD_AFTER)
    hold_on_both(nodes, notes)
    nodes.lose_one()
    notes.release()
    assert_exact(driver.found(), fleet)
    again = repeated(notes.begun())
    print(f"a machine was lost: {again} of {PAGES} pages were checked twice")
    assert 1 <= again <= WINDOW


def test_without_retries_a_lost_machine_ends_the_run(
    start: Callable[..., Driver], nodes: RayNodes, fleet: Fleet, tmp_path: Path
) -> None:
    folder, notes = notes_in(tmp_path, "run")
    driver = start(nodes, notes=folder, hold_after=HELD_AFTER, max_retries=0)
    hold_on_both(nodes, notes)
    nodes.lose_one()
    notes.release()
    found = driver.found()
    assert found.error == "UnknownStateError"
    assert found.differing.keys() < fleet.differing.keys()


@pytest.mark.parametrize("resumes", [True, False])
def test_what_is_repeated_after_the_driver_was_killed_is_what_was_under_way(
    start: Callable[..., Driver],
    nodes: RayNodes,
    fleet: Fleet,
    tmp_path: Path,
    resumes: bool,
) -> None:
    first, notes = notes_in(tmp_path, "first")
    driver = start(nodes, notes=first, hold_after=HELD_AFTER)
    wait_until(lambda: len(notes.begun()) > HELD_AFTER)
    driver.kill()
    second, more = notes_in(tmp_path, "second")
    # Where nothing is taken up, threads do as well: all is done anew.
    anew = start(nodes if resumes else None, notes=second, resume=resumes)
    assert_exact(anew.found(), fleet)
    again = repeated([*notes.begun(), *more.begun()])
    print(f"the driver was killed, resumed: {resumes}: {again} of {PAGES} pages were checked twice")
    assert (again <= WINDOW) == resumes


def test_a_run_whose_cluster_is_lost_says_so_and_is_taken_up_on_one_machine(
    start: Callable[..., Driver], nodes: RayNodes, fleet: Fleet, tmp_path: Path
) -> None:
    """Ray itself would end the process after a minute, with the exit code that drift has."""
    first, notes = notes_in(tmp_path, "first")
    driver = start(nodes, notes=first, hold_after=HELD_AFTER, silence_seconds=2)
    wait_until(lambda: len(notes.begun()) > HELD_AFTER)
    nodes.lose_all()
    assert driver.found().error == "UnknownStateError"
    second, more = notes_in(tmp_path, "second")
    assert_exact(start(notes=second, resume=True).found(), fleet)
    assert repeated([*notes.begun(), *more.begun()]) <= WINDOW


def test_the_command_answers_on_a_cluster_as_it_does_alone(
    nodes: RayNodes, fleet: Fleet, tmp_path: Path
) -> None:
    """Nothing of Ray's gets into the answer."""
    there = answer(fleet, tmp_path, "--engine=ray", f"--ray-address={nodes.address}", nodes=nodes)
    here = answer(fleet, tmp_path)
    assert there == here
    assert here["summary"]["checked"] == OWNERS


def answer(
    fleet: Fleet, folder: Path, *arguments: str, nodes: RayNodes | None = None
) -> dict[str, Any]:
    """What ``undrift check --all --output json`` writes, without the time it took."""
    variables = {
        "DATABASE_URL": fleet.url,
        "VECTOR_URL": fleet.url,
        "UNDRIFT_EMBEDDER": "hashing:16",
    }
    done = subprocess.run(
        [Path(sys.executable).with_name("undrift"), "check", "--all", "--output=json", *arguments],
        cwd=folder,
        env=os.environ | variables | (nodes.variables if nodes else {}),
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    del found["summary"]["duration_seconds"]
    return found


def test_shards_of_which_one_was_killed_and_resumed_find_everything(
    start: Callable[..., Driver], fleet: Fleet, tmp_path: Path
) -> None:
    folders = [notes_in(tmp_path, f"shard_{index}") for index in (1, 2, 3)]
    drivers = [
        start(notes=folder, shard=f"{index}/3", hold_after=5 if index == 2 else None)
        for index, (folder, _) in enumerate(folders, start=1)
    ]
    _, notes = folders[1]
    wait_until(lambda: len(notes.begun()) > 5)
    drivers[1].kill()
    again, more = notes_in(tmp_path, "again")
    drivers[1] = start(notes=again, shard="2/3", resume=True)
    found = [driver.found() for driver in drivers]
    differing = {owner: ids for part in found for owner, ids in part.differing.items()}
    assert_exact(Found("", sum(part.owners for part in found), differing), fleet)
    assert sum(len(part.differing) for part in found) == len(differing)
    twice = repeated([*notes.begun(), *more.begun()])
    print(f"a shard was killed and resumed: {twice} pages were checked twice")
    assert twice <= WINDOW
