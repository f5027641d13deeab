"""``undrift watch``: real processes, real signals, and a source that changes meanwhile."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from support.cli import Shell, experiences
from support.embedding_server import KEY, EmbeddingProxy, Fault, Rule
from support.watching import DEADLINE_SECONDS, leased, until, watching
from undrift.cli.interrupts import ECHO_SECONDS


@pytest.fixture
def captured(any_shell: Shell) -> Shell:
    """Three users in sync, and triggers that say who is touched."""
    return with_triggers(any_shell)


def with_triggers(shell: Shell) -> Shell:
    """*shell*, with three users in sync and triggers."""
    for owner in (1, 2, 3):
        shell.put(owner, experiences(f"exp_{owner}"))
    assert shell.undrift("sync", "--all").code == 0
    assert shell.undrift("triggers", "install").code == 0
    return shell


def await_in_sync(shell: Shell) -> None:
    """Wait until a check finds both sides alike, the marks' own order aside."""
    until(lambda: shell.undrift("check", "--all").code == 0, "in sync")


# --- what it does -------------------------------------------------------------------------------


def test_a_changed_a_new_and_a_deleted_user_are_synced_soon(captured: Shell) -> None:
    """The control is the time before it was started: nothing had happened by itself."""
    captured.put(1, experiences("exp_1", "exp_9"))
    captured.drop(2)
    captured.put(4, experiences("exp_4"))
    assert captured.undrift("check", "--all").code == 1
    with watching(captured) as watch:
        assert watch.await_logged("watch.synced", owner="1")["written"] == 1
        assert watch.await_logged("watch.synced", owner="2")["deleted"] == 1
        assert watch.await_logged("watch.synced", owner="4")["embedded"] == 1
        captured.put(3, experiences("exp_5"))
        watch.await_logged("watch.synced", owner="3")
        await_in_sync(captured)
        assert watch.end() == 143


def test_without_triggers_everybody_is_found_and_store_and_state_are_created(
    any_shell: Shell,
) -> None:
    """The first look at everybody begins at once."""
    for owner in range(1, 8):
        any_shell.put(owner, experiences(f"exp_{owner}"))
    with watching(any_shell) as watch:
        for owner in range(1, 8):
            watch.await_logged("watch.synced", owner=str(owner), outcome="in_sync")
        assert len(watch.logged("create")) == 2
        assert watch.end() == 143
    assert any_shell.undrift("check", "--all").code == 0


def test_two_processes_share_the_work_and_pay_each_text_once(any_shell: Shell) -> None:
    """Whoever takes a user has it alone; both look at everybody."""
    owners = range(1, 121)
    for owner in owners:
        any_shell.put(owner, experiences(f"exp_{owner}"))
    assert any_shell.undrift("sync", "--user-id", "1").code == 0  # so that both find a store
    with (
        watching(any_shell, name="first") as first,
        watching(any_shell, "--workers=2", name="second") as second,
    ):
        await_in_sync(any_shell)
        assert first.end() == 143
        assert second.end() == 143
        assert first.sum_of("embedded") + second.sum_of("embedded") == len(owners) - 1
        assert first.sum_of("written") + second.sum_of("written") == len(owners) - 1


# --- how it ends --------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_it_with_nothing_left_behind(
    captured: Shell, number: signal.Signals, code: int
) -> None:
    """No lease, no worker that is said to be there, and a log of JSON to its last line."""
    with watching(captured, "--workers=2") as watch:
        captured.put(1, experiences("exp_1", "exp_9"))
        watch.await_logged("watch.synced", owner="1")
        workers = captured.undrift("status", "--output=json").document["workers"]
        assert len(workers) == 2
        assert watch.end(number) == code
        assert len(watch.logged("watch.end")) == 2
        assert watch.logged("watch.stopping")
        assert {"ts", "level", "message"} <= set.intersection(*map(set, watch.lines))
    assert leased(captured) == []
    assert captured.undrift("status", "--output=json").document["workers"] == []


def test_what_is_under_way_is_finished_before_it_ends(
    any_shell: Shell, embedding_proxy: EmbeddingProxy
) -> None:
    """The signal comes while the embedding server is working; its answer is not thrown away."""
    use_server(any_shell, embedding_proxy)
    any_shell.put(1, experiences("exp_1"))
    embedding_proxy.next(Fault(status=503, headers={"Retry-After": "2"}))
    with watching(any_shell) as watch:
        until(lambda: bool(embedding_proxy.requests), "asked")
        assert leased(any_shell) == ["1"]
        assert watch.end() == 143
        assert watch.logged("watch.synced", owner="1", outcome="in_sync")
    assert leased(any_shell) == []
    assert any_shell.undrift("check", "--all").code == 0


def test_a_killed_one_loses_nothing_and_the_next_goes_on(
    any_shell: Shell, embedding_proxy: EmbeddingProxy
) -> None:
    """Killed with a user in its hands: a command takes that user over at once, a watch the rest."""
    use_server(any_shell, embedding_proxy)
    captured = with_triggers(any_shell)
    embedding_proxy.when(hang_on("exp_7"))
    with watching(captured) as watch:
        until(lambda: is_at_rest(captured), "nobody waits")
        captured.put(1, experiences("exp_7"))
        until(lambda: "exp_7" in str(embedding_proxy.requests), "asked")
        assert watch.end(signal.SIGKILL) == -signal.SIGKILL
    assert leased(captured) == ["1"]
    embedding_proxy.always(None)
    captured.put(2, experiences("exp_2", "exp_8"))
    captured.drop(3)
    assert captured.undrift("sync", "--user-id", "1").code == 0
    with watching(captured, name="next") as watch:
        watch.await_logged("watch.synced", owner="2")
        watch.await_logged("watch.synced", owner="3")
        await_in_sync(captured)
        assert watch.end() == 143


def test_a_second_signal_ends_it_at_once(any_shell: Shell, embedding_proxy: EmbeddingProxy) -> None:
    """Whoever does not want to wait need not; the next run finishes."""
    use_server(any_shell, embedding_proxy)
    embedding_proxy.always(Fault(is_hanging=True))
    any_shell.put(1, experiences("exp_1"))
    with watching(any_shell) as watch:
        until(lambda: bool(embedding_proxy.requests), "asked")
        watch.process.send_signal(signal.SIGTERM)
        watch.await_logged("watch.stopping")
        time.sleep(2 * ECHO_SECONDS)  # sooner it would be taken for the first one again
        assert watch.end() == 143
        assert not watch.logged("watch.end")


# --- what it will not do ------------------------------------------------------------------------


def test_a_superseded_release_stands_down_and_the_newer_ones_texts_stay(captured: Shell) -> None:
    """Two releases with different templates; the control is that the older one did write before."""
    newer = write_config(captured, "newer.toml", "{{ title }} (newer)")
    with watching(captured) as older:
        captured.put(1, experiences("exp_9"))
        older.await_logged("watch.synced", owner="1")
        assert captured.undrift("sync", "--all", "--config", newer).code == 0
        captured.put(2, experiences("exp_8"))
        older.await_logged("watch.superseded")
        assert not older.logged("watch.synced", owner="2")
        assert captured.undrift("sync", "--all", "--config", newer).code == 0
        assert captured.undrift("check", "--all", "--config", newer).code == 0
        assert older.process.poll() is None
        with watching(captured, "--config", newer, name="newer") as watch:
            captured.put(3, experiences("exp_7"))
            assert watch.await_logged("watch.synced", owner="3")["embedded"] == 1
        assert captured.undrift("check", "--all", "--config", newer).code == 0
        assert older.end() == 143


def test_deletes_beyond_the_budget_wait_and_status_says_so(captured: Shell) -> None:
    """A bug empties every profile; writes go on, and a person who names a user may delete."""
    for owner in range(10, 50):
        captured.put(owner, experiences(f"exp_{owner}", f"also_{owner}"))
    assert captured.undrift("sync", "--all").code == 0
    with watching(captured) as watch:
        captured.source.run("UPDATE profiles SET filtered_data = '{}' WHERE user_id >= 10")
        watch.await_logged("watch.synced", outcome="drift")
        captured.put(1, experiences("exp_1", "exp_9"))
        watch.await_logged("watch.synced", owner="1", written=1)
        status = captured.undrift("status", "--output=json")
        assert watch.end() == 143
    assert status.code == 1
    assert status.document["deletes"]["are_waiting"]
    assert 0 < watch.sum_of("deleted") <= 42  # half of what there was
    assert captured.undrift("sync", "--user-id=10", "--user-id=49").code == 0


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_cannot_begin_says_why_and_exits_as_every_command(
    shell: Shell, log_format: str
) -> None:
    """2 for a configuration, 3 for a server that is not there; in the form that was asked for."""
    arguments = ("watch", f"--log-format={log_format}")
    shell.put(1, experiences("exp_1"))
    wrong = shell.program("undrift", *arguments, UNDRIFT_EMBEDDER="nonsense")
    away = shell.program(
        "undrift",
        *arguments,
        DATABASE_URL="postgresql://nobody@127.0.0.1:1/none",
        VECTOR_URL="sqlite:///vectors.db",
    )
    assert (wrong.code, away.code) == (2, 3)
    for ran in (wrong, away):
        assert "Traceback" not in ran.err
        assert not ran.out
        if log_format == "text":
            assert len(ran.errors) == 1
        else:
            assert '"action": "watch.failed"' in ran.err.splitlines()[-1]


def test_an_impossible_number_is_refused(shell: Shell) -> None:
    """Before anything is created."""
    for option in ("--workers=0", "--workers=65", "--poll=0", "--scrub-within=0", "--workers=x"):
        assert shell.undrift("watch", option).code == 2, option
    assert shell.undrift("status").code == 1


def test_text_logs_have_a_time_on_every_line_of_the_watch(shell: Shell) -> None:
    """For a journal that people read."""
    shell.put(1, experiences("exp_1"))
    seen: list[str] = []
    with shell.start("undrift", "watch", stdout=subprocess.DEVNULL) as process:
        assert process.stderr is not None
        for line in process.stderr:
            seen.append(line)
            if "user 1: in_sync" in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_SECONDS) == 143
    assert seen[0].startswith("Using source ")
    assert "; state beside the vectors; " in seen[0]
    timed = [line for line in seen if line[:2] == "20"]
    assert any(
        line.endswith("INFO user 1: in_sync written=1 deleted=0 embedded=1\n") for line in timed
    )
    assert "Traceback" not in "".join(seen)


# --- support ------------------------------------------------------------------------------------


def is_at_rest(shell: Shell) -> bool:
    """Whether every mark is taken and nobody waits."""
    document = shell.undrift("status", "--output=json").document
    return bool(document["dirty"] == document["changes"]["marks"] == 0)


def use_server(shell: Shell, proxy: EmbeddingProxy) -> None:
    """Let the commands embed with a server that can be told to fail."""
    shell.variables |= {
        "UNDRIFT_EMBEDDER": "openai:e5-small",
        "UNDRIFT_EMBEDDER__BASE_URL": proxy.url,
        "UNDRIFT_EMBEDDER__API_KEY": KEY,
        "UNDRIFT_EMBEDDER__DIMENSION": "384",
    }


def hang_on(word: str) -> Rule:
    """The rule of a server that never answers a request with *word* in it."""
    return lambda texts: Fault(is_hanging=True) if any(word in text for text in texts) else None


def write_config(shell: Shell, name: str, template: str) -> str:
    """A configuration with another text for experiences."""
    path = Path(shell.folder / name)
    path.write_text(
        '[[entity]]\nkind = "experience"\npath = "experiences[*]"\n'
        f'text = "{template}"\nmetadata = ["title"]\n'
    )
    return str(path)
