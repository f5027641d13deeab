"""What is lost when the line breaks, the store throws or the process dies: nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.assistant import PROJECT, add_project, stored, with_project
from support.commit_proxy import Lost, commit_line
from support.layouts import ENGINEER
from support.sides import World, drift_of
from support.wrappers import SteppedStore
from undrift import TransientError, UnknownStateError
from undrift.assistant import ToolDone

TESTS = Path(__file__).resolve().parents[1]
SECRET = "SECRET-PROFILE-TEXT"

# --- a commit without an answer -----------------------------------------------------------------


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_after_a_commit_without_an_answer_the_profile_is_asked_what_became_of_it(
    postgres: World, lost: Lost
) -> None:
    """Saved is answered as saved; not saved, as worth another try."""
    postgres.bring_in_sync({"1": ENGINEER})
    with commit_line(postgres.source_url) as line:
        sides = postgres.open(source_url=line.url)
        add_project(sides, {})  # nothing but a first connection
        line.lost = lost
        if lost == "answer":
            done = add_project(sides)
            assert isinstance(done, ToolDone)
            assert done.vector == "written"
        else:
            with pytest.raises(TransientError, match="nothing was written"):
                add_project(sides)
        assert line.broke.is_set()
        assert stored(postgres) == (with_project() if lost == "answer" else ENGINEER)
        sides.close()


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_where_nobody_can_be_asked_it_is_not_known_and_the_same_call_again_is_safe(
    postgres: World, lost: Lost
) -> None:
    """Neither success nor failure is claimed, and with its own id the project is not doubled."""
    postgres.bring_in_sync({"1": ENGINEER})
    with commit_line(postgres.source_url) as line:
        sides = postgres.open(source_url=line.url)
        add_project(sides, {})
        line.lost, line.stays_down = lost, True
        with pytest.raises(UnknownStateError, match="not known") as raised:
            add_project(sides)
        assert "nothing was written" not in str(raised.value)
        line.is_down = False
        done = add_project(sides)
        assert isinstance(done, ToolDone)
        assert done.vector == "written"
        assert stored(postgres) == with_project()
        sides.close()


# --- a vector that cannot be written --------------------------------------------------------------


def test_whatever_the_store_throws_a_saved_project_is_answered_as_saved(world: World) -> None:
    """Who hears an exception saves it again."""
    world.bring_in_sync({"1": ENGINEER})

    def break_down(step: str) -> None:
        if step.startswith("store.publish"):
            raise RuntimeError(SECRET)

    sides = world.open(store=lambda inner: SteppedStore(inner, break_down))
    done = add_project(sides)
    assert isinstance(done, ToolDone)
    assert done.vector == "pending"
    assert SECRET not in str(done.error) + done.message
    assert stored(world) == with_project()
    assert drift_of(world.sides.check("1")) == {"missing": {done.key}}


def test_what_the_guard_keeps_aside_is_no_matter_of_the_new_project(world: World) -> None:
    """Thirty deletes wait for a person; the project's own vector is there."""
    skills = [f"Skill {number}" for number in range(30)]
    world.bring_in_sync({"1": ENGINEER | {"skills": skills}})
    world.put("1", ENGINEER | {"skills": []})
    done = add_project(world.sides)
    assert isinstance(done, ToolDone)
    assert (done.vector, done.error) == ("written", None)
    assert done.key in world.keys("1")
    assert len(drift_of(world.sides.check("1"))["stale"]) == 30


# --- dead processes -------------------------------------------------------------------------------


def call_and_die(world: World, die_at: str, *, owner: str = "1") -> int:
    """Call the tool in another process; return how that ended."""
    job = {
        "source": world.source_url,
        "store": world.store_url,
        "die_at": die_at,
        "owner": owner,
        "arguments": {"experience_id": "exp_2", "project": PROJECT},
    }
    return subprocess.run(
        [sys.executable, "-m", "support.assistant_child", json.dumps(job)],
        cwd=TESTS,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        check=False,
        timeout=120,
        stdout=subprocess.DEVNULL,
    ).returncode


@pytest.mark.parametrize(
    ("die_at", "is_saved", "is_found"),
    [
        ("edit.changed", False, False),
        ("edit.committed", True, False),
        ("sync.embedded", True, False),
        ("store.publish.written", True, False),
        ("store.publish.committed", True, True),
        ("sync.published", True, True),
    ],
)
def test_a_kill_at_any_step_loses_nothing_and_the_same_call_again_finishes(
    world: World, die_at: str, is_saved: bool, is_found: bool
) -> None:
    """The next check says exactly what is missing, and nothing is doubled."""
    world.bring_in_sync({"1": ENGINEER})

    assert call_and_die(world, die_at) == -signal.SIGKILL

    assert stored(world) == (with_project() if is_saved else ENGINEER)
    missing = {"missing": {"project:p_new"}} if is_saved and not is_found else {}
    assert drift_of(world.sides.check("1")) == missing
    done = add_project(world.sides)
    assert isinstance(done, ToolDone)
    assert (done.id, done.vector) == ("p_new", "written")
    assert stored(world) == with_project()
    world.assert_store_holds({"1": with_project()})


def test_control_without_an_id_of_its_own_the_same_call_again_doubles(sqlite: World) -> None:
    """Which is why the tools answer an unknown outcome as unknown, and not as failed."""
    sqlite.bring_in_sync({"1": ENGINEER})
    for _ in range(2):
        assert isinstance(add_project(sqlite.sides, {"title": "Rose window"}), ToolDone)
    assert len(stored(sqlite)["experiences"][1]["projects"]) == 2


def test_two_processes_at_once_lose_nothing(world: World) -> None:
    """Each adds its own; the row's lock orders them."""
    world.bring_in_sync({"1": ENGINEER})
    children = []
    for number in range(4):
        job = {
            "source": world.source_url,
            "store": world.store_url,
            "die_at": "",
            "owner": "1",
            "arguments": {
                "experience_id": "exp_2",
                "project": {"id": f"p_{number + 10}", "title": f"Project {number}"},
            },
        }
        command = [sys.executable, "-m", "support.assistant_child", json.dumps(job)]
        children.append(subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True))
    answers = [child.communicate(timeout=120)[0] for child in children]
    assert [json.loads(answer)[0] for answer in answers] == ["ToolDone"] * 4
    found = {project["id"] for project in stored(world)["experiences"][1]["projects"]}
    assert found == {f"p_{number + 10}" for number in range(4)}
    assert world.sides.sync("1").is_in_sync
