"""Heals among writers, forks, exits, read-only stores and hostile sources."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
import sqlalchemy as sa

import undrift
from support.embedding_server import EmbeddingProxy, Fault
from support.layouts import ENGINEER, document, experience
from support.postgres import PostgresServer
from support.processes import Writer
from support.sides import World, drift_of
from undrift import Healing, HealPolicy, SafetyStop, Undrift
from undrift.assistant import CareerAssistant, ToolRetry
from undrift.mapping import DocumentTable, default_entities
from undrift.mapping import Mapping as SourceMapping

TESTS = Path(__file__).resolve().parents[1]
EAGER = HealPolicy(wait_seconds=60, cool_down_seconds=0)
SECRET = "SECRET-PROFILE-TEXT"


@pytest.fixture(autouse=True)
def _not_testing() -> Iterator[None]:
    yield
    undrift.set_testing(False)


# --- beside others ------------------------------------------------------------------------------


@pytest.mark.usefixtures("without_leases")
@pytest.mark.parametrize("pause_at", ["sync.looked", "sync.embedded", "sync.published"])
def test_a_heal_beside_another_processes_sync_of_the_same_owner_converges(
    world: World, pause_at: str
) -> None:
    """Whoever finishes last, the store holds what the source holds now."""
    world.bring_in_sync({"1": ENGINEER, "2": ENGINEER})
    world.put("1", document(experience("exp_1", "Old news"), experience("exp_3")))
    newest = document(experience("exp_1", "News"), experience("exp_4"))
    sides = world.open(heal=EAGER)
    with Writer() as writer:
        writer.start(world, ["1"], pause_at=pause_at)
        writer.wait_until_paused()
        world.put("1", newest)
        heal = sides.heal("1")
        assert heal.healing is Healing.HEALED
        writer.go_on()
    assert sides.heal("1").healing in (Healing.NOT_NEEDED, Healing.HEALED)
    assert sides.check("1").is_in_sync
    world.assert_store_holds({"1": newest, "2": ENGINEER})


def test_heals_under_constant_writes_end_and_the_last_one_finds_rest(world: World) -> None:
    """The application writes the row without a pause; no heal raises, claims too much or hangs."""
    world.bring_in_sync({"1": ENGINEER})
    sides = world.open(heal=EAGER)
    tools = CareerAssistant(sides)
    stop = Event()

    def write() -> int:
        number = 0
        while not stop.is_set():
            number += 1
            statement = "UPDATE profiles SET filtered_data = CAST(:raw AS jsonb)"
            if not world.source.is_postgres:
                statement = statement.replace("CAST(:raw AS jsonb)", ":raw")
            raw = json.dumps(document(experience(f"exp_{number % 7}")))
            world.source.run(statement + " WHERE user_id = 1", raw=raw)
        return number

    with ThreadPoolExecutor(1) as threads:
        writing = threads.submit(write)
        try:
            for _ in range(10):
                heal = sides.heal("1")
                assert heal.healing in (Healing.HEALED, Healing.NOT_NEEDED, Healing.FAILED)
                assert (heal.error is None) == (heal.healing is not Healing.FAILED)
                answer = tools.update_experience("1", "exp_gone", {"title": "x"})
                assert isinstance(answer, ToolRetry)
        finally:
            stop.set()
        assert writing.result(60)
    assert sides.heal("1").healing in (Healing.HEALED, Healing.NOT_NEEDED)
    assert sides.check("1").is_in_sync


# --- the process ends -----------------------------------------------------------------------------


def run_child(world: World, how: str, *server: str) -> subprocess.CompletedProcess[str]:
    """Run `support.heal_child` to its end."""
    sides = [world.source_url, world.store_url]
    return subprocess.run(
        [sys.executable, "-m", "support.heal_child", how, *sides, *server],
        cwd=TESTS,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        check=False,
        timeout=100,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("how", "batches"), [("exit", 1), ("control", 4)])
def test_the_end_of_the_process_ends_its_heals(sqlite: World, how: str, batches: int) -> None:
    """After the batch in hand, not after minutes; and the next sync finishes.

    The control is a sync in a thread of its own, which embeds everything first.
    """
    sqlite.bring_in_sync({"1": {}, "2": ENGINEER})
    many = document(*(experience(f"exp_{n}", f"Text {n}") for n in range(1_000)))
    sqlite.put("1", many)

    ended = run_child(sqlite, how)

    assert ended.stdout.count("a batch of") == batches
    if how == "exit":
        assert ended.returncode == 0
        assert ended.stderr == ""
        assert sqlite.sides.sync("1").is_in_sync


@pytest.mark.parametrize(
    ("how", "is_finished"), [("exit", True), ("pipelined", False)], ids=["heal", "control"]
)
def test_a_heal_whose_last_batch_is_in_hand_when_the_process_ends_is_finished(
    world: World, how: str, is_finished: bool
) -> None:
    """What was embedded is paid for, and is written and verified though the main thread is gone.

    The control hands its work to other threads, which Python does not allow any more by then.
    """
    world.bring_in_sync({"1": {}, "2": ENGINEER})
    world.put("1", ENGINEER)

    ended = run_child(world, how)

    assert ended.stdout.endswith("the main program ends\n")
    assert ended.returncode == 0
    assert world.sides.check("1").is_in_sync is is_finished
    assert (ended.stderr == "") is is_finished


@pytest.mark.parametrize(
    ("how", "requests"), [("down", 1), ("control-down", 2)], ids=["heal", "control"]
)
def test_the_end_of_the_process_ends_the_wait_for_an_embedding_server(
    sqlite: World, embedding_proxy: EmbeddingProxy, how: str, requests: int
) -> None:
    """Nobody asks it again, and the process ends; the control waits its time and asks."""
    sqlite.bring_in_sync({"1": {}, "2": ENGINEER})
    sqlite.put("1", ENGINEER)
    embedding_proxy.always(Fault(status=503, headers={"Retry-After": "3"}))

    ended = run_child(sqlite, how, embedding_proxy.url)

    assert ended.stdout == "the main program ends\n"
    assert len(embedding_proxy.requests) == requests


def test_a_forked_process_heals_by_itself(postgres: World) -> None:
    """The heal in flight is the parent's; waiting for it in the child would be for ever."""
    postgres.bring_in_sync({"1": {}, "2": ENGINEER})
    postgres.put("1", ENGINEER)
    ended = run_child(postgres, "fork")
    assert "the child's heal: " in ended.stdout, ended.stderr
    assert "healed None" in ended.stdout or "not_needed None" in ended.stdout
    assert (ended.returncode, ended.stderr) == (0, "")
    assert postgres.sides.check("1").is_in_sync


def test_after_the_close_nothing_heals_and_the_answer_says_so(sqlite: World) -> None:
    """A program on its way out may still get a call."""
    sqlite.bring_in_sync({"1": ENGINEER})
    sqlite.put("1", document(experience("exp_9")))
    sides = sqlite.open(heal=EAGER)
    sides.close()
    answer = sides.resolve("1", "experience:exp_1")
    assert isinstance(answer, undrift.Retry)
    assert answer.healing is Healing.SWITCHED_OFF
    assert drift_of(sqlite.sides.check("1"))
    sides.close()


# --- the test environment -------------------------------------------------------------------------


def test_a_test_environment_that_is_declared_late_counts_from_then_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program opened both sides when it was imported; the test's fixture came after."""
    world.bring_in_sync({"1": ENGINEER})
    world.put("1", document(experience("exp_9")))
    before = world.store.records()
    sides = world.open(heal=EAGER)

    monkeypatch.setenv("UNDRIFT_ENV", "test")
    assert sides.heal("1").healing is Healing.SWITCHED_OFF
    assert sides.search("1", "ledgers").healing is Healing.SWITCHED_OFF
    monkeypatch.delenv("UNDRIFT_ENV")
    undrift.set_testing(True)
    assert sides.heal("1").healing is Healing.SWITCHED_OFF
    assert world.store.records() == before

    undrift.set_testing(False)
    assert sides.heal("1").healing is Healing.HEALED


# --- the guard ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stale", "kept", "others", "is_healed"),
    [
        (20, 0, 0, True),  # few enough, though they are all
        (21, 0, 0, False),
        (21, 20, 0, False),  # more than half
        (21, 21, 0, True),
        (21, 0, 30, False),  # all of their kind
        (400, 399, 500, False),
    ],
)
def test_the_guard_counts_the_owner_that_is_healed(
    sqlite: World, stale: int, kept: int, others: int, is_healed: bool
) -> None:
    """Another owner's vectors make no delete harmless."""
    gone = [f"Gone {number}" for number in range(stale)]
    stays = [f"Stays {number}" for number in range(kept)]
    jobs = [experience(f"exp_{number}") for number in range(others)]
    sqlite.bring_in_sync(
        {
            "1": document(*jobs, skills=[*gone, *stays]),
            "2": document(skills=[f"Skill {number}" for number in range(500)]),
        }
    )
    sqlite.put("1", document(*jobs, skills=stays))
    heal = sqlite.open(heal=EAGER).heal("1")
    assert (heal.healing is Healing.HEALED) == is_healed
    if not is_healed:
        assert isinstance(heal.error, SafetyStop)
        assert len(drift_of(sqlite.sides.check("1"))["stale"]) == stale


@pytest.mark.parametrize(("others", "is_healed"), [("1 = 1", True), ("user_id = 1", False)])
def test_who_else_the_source_lists_is_asked_under_the_where_condition(
    sqlite: World, others: str, is_healed: bool
) -> None:
    """Rows that are left out are nobody: where nobody is left, the source looks emptied."""
    sqlite.bring_in_sync({"1": ENGINEER, "2": ENGINEER})
    sqlite.remove_owners(["1"])
    mapping = SourceMapping(documents=DocumentTable(where=others), entities=default_entities())
    with Undrift(
        source=sqlite.source_url,
        store=sqlite.store_url,
        embedder=sqlite.embedder,
        mapping=mapping,
        heal=EAGER,
    ) as sides:
        heal = sides.heal("1")
        assert (heal.healing is Healing.HEALED) == is_healed
    assert (sqlite.keys("1") == set()) == is_healed


# --- what is told -------------------------------------------------------------------------------


def test_a_store_that_may_only_be_read_is_told_without_secrets(
    postgres: World, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The search answers, the log says that healing failed, and neither quotes anything."""
    postgres.bring_in_sync({"1": document(experience("exp_1"))})
    postgres.put("1", document(experience("exp_1", SECRET)))
    postgres_server.create_role("only_reads", "secret-of-reader")
    for grant in (
        "GRANT USAGE ON SCHEMA undrift TO only_reads",
        "GRANT SELECT ON ALL TABLES IN SCHEMA undrift TO only_reads",
        "GRANT SELECT ON profiles TO only_reads",
    ):
        postgres.source.run(grant)
    url = sa.make_url(postgres.source_url).set(username="only_reads", password="secret-of-reader")
    address = url.render_as_string(hide_password=False)
    sides = postgres.open(source_url=address, store_url=address, heal=EAGER)
    with caplog.at_level(logging.DEBUG):
        result = sides.search("1", "ledgers")
        assert (result.hits[0].changed, result.healing) == (True, Healing.PENDING)
        answer = sides.resolve("1", "experience:exp_gone")
        sides.close()
    assert isinstance(answer, undrift.Retry)
    assert (answer.healing, answer.healed) == (Healing.FAILED, False)
    assert "could not be synced" in answer.message
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any(message.startswith("healing ended, failed: ") for message in warnings)
    logged = "".join(f"{r.getMessage()} {r.__dict__}" for r in caplog.records)
    told = f"{answer.error!r} {answer.message}"
    for secret in (SECRET, "secret-of-reader"):
        assert secret not in logged + told
