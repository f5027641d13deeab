"""Processes that check pages: killed, left behind, interrupted; the answer is whole and right."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

import pytest

from support.cli import Program, Ran
from support.drift import Drift, fleet, plant_everything
from support.scanning import (
    Fleet,
    answer,
    assert_true,
    checked,
    forget_memos,
    opened_by_url,
    small_pages,
)
from support.sides import World, postgres_world, sqlite_world
from support.spawned import children_of, is_worker
from support.watching import until
from undrift.embedders.hashing import HashingEmbedder
from undrift.errors import ConfigError
from undrift.scan import engine
from undrift.scan.options import CheckOptions
from undrift.scan.page import PageCheck
from undrift.spawned import SpawnedPool

OWNERS = 100


@pytest.fixture(params=["sqlite", "pgvector"])
def drifted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """A hundred owners, drifted in every way, of whom nothing is remembered."""
    if request.param == "sqlite":
        made = sqlite_world(tmp_path)
    else:
        made = postgres_world(request.getfixturevalue("postgres_url"))
    with made as world:
        world.embedder.model = HashingEmbedder(16).model
        random = Random(5)
        documents = fleet(OWNERS, random)
        world.bring_in_sync(documents)
        plant_everything(Drift(world, documents, random), random)
        yield Fleet(world, tmp_path)


def workers_of(process: Program) -> list[int]:
    """Both processes of its pool, once they are there; it is the third itself."""
    until(lambda: len(children_of(process.pid)) == 2, "two processes are at work")
    return children_of(process.pid)


def started(drifted: Fleet, *options: str, **struck: object) -> Program:
    """A check that renders in three processes from its first page on."""
    job = drifted.job("--processes", "3", *options, many_rendered=0, **struck)  # type: ignore[arg-type]
    return drifted.program(job)


def ended(process: Program) -> Ran:
    """How it ended."""
    out, err = process.communicate(timeout=60)
    return Ran(process.returncode, out, err)


def test_killed_worker_costs_nothing_of_the_answer(drifted: Fleet) -> None:
    """Its pages are checked by the process that asked for them."""
    with started(drifted) as process:
        expected = ended(process)
    assert expected.code == 1
    forget_memos(drifted.world)
    with started(drifted, "--rate", "40") as process:
        victim, other = workers_of(process)
        os.kill(victim, signal.SIGKILL)
        ran = ended(process)
    assert answer(ran) == answer(expected)
    assert ran.code == 1
    assert not is_worker(other)


def test_no_process_is_left_behind_by_one_that_was_killed(drifted: Fleet) -> None:
    """They end when they see that nobody asks them any more."""
    with started(drifted, "--rate", "20") as process:
        workers = workers_of(process)
        process.kill()
        process.wait(30)
        until(lambda: not any(map(is_worker, workers)), "both have ended", seconds=20)
        process.communicate(timeout=30)


def test_control_c_ends_all_processes_and_keeps_progress(drifted: Fleet) -> None:
    """The terminal sends it to every one of them; the answer is whole, and can be gone on with."""
    with started(drifted) as process:
        expected = ended(process)
    forget_memos(drifted.world)
    with started(drifted, "--rate", "20") as process:
        workers = workers_of(process)
        os.killpg(process.pid, signal.SIGINT)
        ran = ended(process)
    assert ran.code == 130
    assert "Traceback" not in ran.err, ran.err
    assert "--resume" in ran.errors[-1][2]
    assert ran.document["summary"]["checked"] < OWNERS
    assert not any(map(is_worker, workers))
    with started(drifted, "--resume") as process:
        assert answer(ended(process)) == answer(expected)


def test_process_that_cannot_open_both_sides_costs_nothing_of_the_answer(
    sqlite: World, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As where it may open fewer connections than there are processes."""
    small_pages(monkeypatch, 4)
    monkeypatch.setattr(engine, "MANY_RENDERED", 0)
    sqlite.bring_in_sync(fleet(20, Random(1)))

    def unable(check: PageCheck, _: object) -> engine.LocalEngine:
        return engine.LocalEngine(check, NoConnectionLeft(), processes=2)

    assert_true(sqlite, CheckOptions(engine=unable))
    assert capfd.readouterr().err == ""


class NoConnectionLeft:
    """Opens neither side."""

    here_only: Sequence[str] = ()

    def __call__(self) -> PageCheck:
        """Say why."""
        raise ConfigError("No connection is left", why="there are too many.", fix="wait")


def test_objects_of_the_callers_own_are_checked_in_this_process(
    sqlite: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else can open them; more processes are no error and make no difference."""
    small_pages(monkeypatch, 4)
    monkeypatch.setattr(engine, "MANY_RENDERED", 0)

    def no_pool(*_: object) -> None:
        raise AssertionError("a process was started")

    sqlite.bring_in_sync(fleet(20, Random(1)))
    with monkeypatch.context() as here:
        here.setattr(engine, "SpawnedPool", no_pool)
        assert_true(sqlite, CheckOptions(processes=4))
    with opened_by_url(sqlite) as sides:
        assert len(checked(sides, CheckOptions(processes=2, memos=False))) == 20


def test_few_that_are_to_be_rendered_start_no_process(
    sqlite: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Starting them takes longer."""
    pools: list[object] = []

    def noted(processes: int, begin: Callable[[], None]) -> SpawnedPool:
        pool = SpawnedPool(processes, begin)
        pools.append(pool)
        return pool

    monkeypatch.setattr(engine, "SpawnedPool", noted)
    small_pages(monkeypatch, 4)
    sqlite.bring_in_sync(fleet(40, Random(1)))
    with opened_by_url(sqlite) as sides:
        checked(sides, CheckOptions(processes=2))
        assert pools == []
        monkeypatch.setattr(engine, "MANY_RENDERED", 10)
        assert len(checked(sides, CheckOptions(processes=2, memos=False))) == 40
        assert len(pools) == 1
