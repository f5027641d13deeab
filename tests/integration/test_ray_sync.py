"""A sync of everybody on a Ray cluster of two nodes: exact, whatever is lost on the way."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.layouts import Document, document, experience
from support.ray_driver import WAIT_SECONDS, wait_until
from support.ray_nodes import RayNodes
from support.ray_sync import (
    BROKEN,
    BUSY,
    PAGE_OWNERS,
    RETRY_AFTER_SECONDS,
    SyncDriver,
    Synced,
    SyncRun,
)
from support.sides import World

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: undrift[ray]"
    ),
]

OWNERS = 160
PAGES = OWNERS // PAGE_OWNERS
WINDOW = 4  # two nodes of one core each, and for each core two pages under way
HELD_AFTER = PAGES // 2

Start = Callable[..., SyncDriver]
NewWorld = Callable[..., World]


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
def start(postgres: World, tmp_path: Path) -> Iterator[Start]:
    """A function that starts drivers over a world, on the nodes if any are given."""
    with ExitStack() as drivers:

        def new_driver(nodes: RayNodes | None = None, **options: object) -> SyncDriver:
            folder = tmp_path / f"notes_{len(list(tmp_path.iterdir()))}"
            address = nodes.address if nodes else None
            run = SyncRun(
                source=postgres.source_url,
                notes=str(folder),
                address=address,
                **options,  # type: ignore[arg-type]
            )
            return drivers.enter_context(SyncDriver(run, nodes.variables if nodes else {}))

        yield new_driver


def everybody(owners: int = OWNERS) -> dict[str, Document]:
    """Owners of one text each, no two alike."""
    return {str(n): document(experience(f"exp_{n}", f"Text_{n}")) for n in range(1, owners + 1)}


def assert_exact(world: World, documents: Mapping[str, Document]) -> None:
    """The store holds what *documents* render to and nothing else, and a check says so."""
    world.assert_store_holds(documents)
    statuses = list(world.sides.check_all())
    assert {status.owner_id for status in statuses} == documents.keys()
    assert all(status.in_sync for status in statuses)


def repeated(*drivers: SyncDriver) -> int:
    """Texts that were embedded more than once, each time but the first."""
    texts = Counter(text for driver in drivers for text in driver.embedded())
    assert len(texts) == OWNERS  # one each, and everybody's
    return texts.total() - len(texts)


def all_in_sync(owners: int = OWNERS) -> Synced:
    """What a driver says who has nothing to tell."""
    return Synced("", {"in_sync": owners}, {}, 0)


def hold_on_both(nodes: RayNodes, driver: SyncDriver) -> None:
    """Wait until both nodes have a page whose vectors are paid and not written."""

    def is_so() -> bool:
        last = {page.pid for page in driver.pages.begun()[HELD_AFTER:]}
        second = nodes.processes_of_second()
        return bool(last & second) and bool(last - second)

    wait_until(is_so)


def test_pages_of_a_lost_machine_are_synced_by_another(
    start: Start, nodes: RayNodes, postgres: World
) -> None:
    """Whether it also has the embedder or not."""
    documents = everybody()
    postgres.put_all(documents)
    driver = start(nodes, hold_pages=HELD_AFTER)
    hold_on_both(nodes, driver)
    nodes.lose_one()
    driver.release()
    assert driver.synced() == all_in_sync()
    assert_exact(postgres, documents)
    again = repeated(driver)
    print(f"a machine was lost: {again} of {OWNERS} texts were embedded twice")
    assert 1 <= again <= WINDOW * PAGE_OWNERS


def test_without_retries_a_lost_machine_ends_the_run(
    start: Start, nodes: RayNodes, postgres: World
) -> None:
    postgres.put_all(everybody())
    driver = start(nodes, hold_pages=HELD_AFTER, retries=0)
    hold_on_both(nodes, driver)
    nodes.lose_one()
    driver.release()
    synced = driver.synced()
    assert synced.error == "UnknownStateError"
    assert synced.outcomes["in_sync"] < OWNERS


def test_a_run_whose_driver_was_killed_is_finished_by_the_next(
    start: Start, nodes: RayNodes, postgres: World
) -> None:
    documents = everybody()
    postgres.put_all(documents)
    killed = start(nodes, hold_pages=HELD_AFTER)
    hold_on_both(nodes, killed)
    killed.kill()
    anew = start(nodes)
    assert anew.synced() == all_in_sync()
    assert_exact(postgres, documents)
    again = repeated(killed, anew)
    print(f"the driver was killed: {again} of {OWNERS} texts were embedded twice")
    assert 1 <= again <= WINDOW * PAGE_OWNERS


@pytest.mark.parametrize("retries", [5, 0])
def test_texts_of_a_lost_embedder_are_embedded_by_another(
    start: Start, nodes: RayNodes, postgres: World, retries: int
) -> None:
    """Without retries, the run ends."""
    documents = everybody()
    postgres.put_all(documents)
    driver = start(nodes, hold_texts=HELD_AFTER, text_retries=retries)
    wait_until(lambda: len(driver.texts.begun()) > HELD_AFTER)
    os.kill(driver.texts.begun()[-1].pid, signal.SIGKILL)
    driver.release()
    synced = driver.synced()
    if not retries:
        assert synced.error == "UnknownStateError"
        assert synced.outcomes["in_sync"] < OWNERS
        return
    assert synced == all_in_sync()
    assert_exact(postgres, documents)
    again = repeated(driver)
    print(f"an embedder was killed: {again} of {OWNERS} texts were embedded twice")
    assert 1 <= again <= PAGE_OWNERS


def test_an_embedding_budget_holds_for_all_machines_together(
    start: Start, nodes: RayNodes, postgres: World
) -> None:
    """And is spent to the last text, though each page is given a part of it."""
    documents = everybody(60)
    postgres.put_all(documents)
    first = start(nodes, max_embeddings=37)
    spent = first.synced()
    assert spent.error == "EmbeddingBudgetSpent"
    assert spent.outcomes["in_sync"] == len(first.embedded()) == 37
    assert {error for error, _ in spent.failed.values()} == {"EmbeddingBudgetSpent"}

    rest = start(max_embeddings=23)  # on one machine
    assert rest.synced() == all_in_sync(60)
    assert_exact(postgres, documents)
    assert len({*first.embedded(), *rest.embedded()}) == 60


def test_deletes_are_counted_over_all_pages_before_the_first_is_made(
    start: Start, nodes: RayNodes, postgres: World
) -> None:
    """No page alone would have too many of them; and errors come back as they were raised."""
    documents = everybody(60)
    postgres.bring_in_sync(documents)
    gone = [str(n) for n in range(1, 41)]  # in the store alone, and found there
    postgres.remove_owners(gone)
    words = {str(n): f"Edited_{n}" for n in range(41, 61)} | {"50": BUSY, "59": BROKEN}
    postgres.put_all({o: document(experience(f"exp_{o}", word)) for o, word in words.items()})

    driver = start(nodes, embedders=2, gpus=1)
    stopped = driver.synced()

    assert stopped.error == "SafetyStop"
    assert stopped.outcomes == {"in_sync": 18, "failed": 2, "drift": 40}
    assert stopped.deleted == 0
    assert stopped.failed["50"] == ["EmbeddingFailed", RETRY_AFTER_SECONDS]
    assert stopped.failed["59"] == ["EmbeddingFailed", None]
    assert {stopped.failed[owner][0] for owner in gone} == {"SafetyStop"}
    assert {identity.owner_id for identity in postgres.store.identities()} == documents.keys()
    assert len(driver.embedded()) == 18
    assert len({pid for pid, _ in driver.gpus()}) == 2
    assert {gpus for _, gpus in driver.gpus()} == {"0"}  # each the first one of its node

    left = {owner: documents[owner] for owner in words}
    postgres.put_all(left)
    allowed = start(nodes, max_delete="40").synced()

    assert allowed == Synced("", {"in_sync": 60}, {}, 40)
    postgres.assert_store_holds(left)


def test_the_command_answers_on_a_cluster_as_it_does_alone(
    nodes: RayNodes, new_postgres_world: NewWorld, tmp_path: Path
) -> None:
    """Nothing of Ray's gets into the answer."""
    on_ray = "--engine=ray", f"--ray-address={nodes.address}"
    answers = []
    for options in (on_ray, ()):
        world = new_postgres_world()
        world.put_all(everybody(30))
        done = command(world, tmp_path, nodes, *options)
        assert done.returncode == 0, done.stderr
        world.remove_owners(["7", "8"])
        world.put("9", document())
        done = command(world, tmp_path, nodes, *options)
        assert done.returncode == 0, done.stderr
        answers.append(json.loads(done.stdout))
        del answers[-1]["summary"]["duration_seconds"]
    assert answers[0] == answers[1]
    assert [owner["deleted"] for owner in answers[0]["owners"]] == [1, 1, 1]


def test_more_gpus_than_there_are_are_refused_before_anything_is_created(
    nodes: RayNodes, postgres: World, tmp_path: Path
) -> None:
    options = "--engine=ray", f"--ray-address={nodes.address}", "--gpus-per-embedder=3"
    done = command(postgres, tmp_path, nodes, *options)
    assert done.returncode == 2
    assert "its 2 have room for 0 embedders with 3 each" in done.stderr
    assert not postgres.store.exists


def command(
    world: World, folder: Path, nodes: RayNodes, *arguments: str
) -> subprocess.CompletedProcess[str]:
    """Run ``undrift sync --all --output json``."""
    variables = {
        "DATABASE_URL": world.source_url,
        "VECTOR_URL": world.store_url,
        "UNDRIFT_EMBEDDER": "hashing:16",
    }
    return subprocess.run(
        [Path(sys.executable).with_name("undrift"), "sync", "--all", "--output=json", *arguments],
        cwd=folder,
        env=os.environ | variables | nodes.variables,
        capture_output=True,
        text=True,
        timeout=WAIT_SECONDS,
        check=False,
    )
