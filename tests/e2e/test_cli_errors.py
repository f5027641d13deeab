"""Every error says what, why and how to mend it, and exits with its own code.

Bad input has modules of its own, listed in `test_bad_input`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import psycopg
import pytest

from support.bad_input import assert_refused
from support.cli import Ran, Shell, experiences, origin_drift
from undrift.api import Undrift

FULL = Path("/dev/full")


# --- usage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "what", "why"),
    [
        (("check", "--owners-from=gone"), "The list of users cannot be read", "gone"),
        (("check", "--owners-from=-"), "The list of users names nobody", "standard input"),
        (("check", "--all", "--output=xml"), "Unusable value for --output", "'xml'"),
        (("check", "--user-id"), "Option '--user-id' requires an argument", "undrift check"),
        (("check", "--all", "extra"), "Got unexpected extra argument(s) (extra)", "undrift check"),
        (("sync", "--all", "--max-delete=many"), "--max-delete many is not a limit", "percentage"),
        (("sync", "--all", "--max-embeddings=x"), "Unusable value for --max-embeddings", "integer"),
        (("search", "x", "--user-id=1", "--user-id=2"), "A search takes one user", "several"),
        (("search", "--user-id=1"), "Missing argument 'query'", "undrift search"),
        (
            ("check", "--all", "--config=no.toml"),
            "The configuration file does not exist",
            "no.toml",
        ),
    ],
)
def test_wrong_usage(shell: Shell, arguments: tuple[str, ...], what: str, why: str) -> None:
    """Exit 2 in three parts, with the nearest name where there is one."""
    assert_refused(shell.undrift(*arguments), 2, what, why=why)


def test_search_of_everybody_is_not_offered(shell: Shell) -> None:
    """The environment's --all does not reach it either."""
    assert shell.undrift("search", "words", UNDRIFT_ALL="1").code == 2
    assert shell.undrift("check", UNDRIFT_ALL="maybe").error[0] == (
        "UNDRIFT_ALL is neither true nor false"
    )


def test_list_of_users_that_is_not_text(shell: Shell) -> None:
    """Named, with the place."""
    (shell.folder / "owners").write_bytes(b"1\n\xff\n")
    ran = shell.undrift("check", "--owners-from", "owners")
    assert_refused(ran, 2, "The list of users is not text", why="at byte 2")


# --- stops --------------------------------------------------------------------------------------


def test_emptied_source_is_a_safety_stop(any_shell: Shell) -> None:
    """Exit 4, nothing deleted; naming a limit lets it pass."""
    any_shell.put(1, experiences("exp_1"))
    any_shell.undrift("sync", "--all")
    any_shell.drop(1)
    ran = any_shell.undrift("sync", "--all")
    assert ran.code == 4
    what, why, fix = ran.error
    assert what == "Nothing was deleted"
    assert "the source lists no owner" in why
    assert "--max-delete" in fix
    assert "⚠️ Vector database sync not finished for user 1\n" in ran.out
    assert "  - Users out of sync: 1\n" in ran.out
    allowed = any_shell.undrift("sync", "--all", "--max-delete", "100%")
    assert allowed.code == 0


def test_delete_limit_for_a_named_user(shell: Shell) -> None:
    """What it lets pass is done; beyond it exit 4, with everything written and nothing deleted."""
    origin_drift(shell)
    stopped = shell.undrift("sync", "--user-id=123", "--max-delete=2")
    assert stopped.code == 4
    assert stopped.error[1].startswith("3 of 6 records would be deleted, and --max-delete allows 2")
    assert stopped.out == dedent(
        """\
        🔄 Starting vector database sync for user 123...
        📥 Importing fresh profile data for user 123...
        ✅ Wrote batch 1: 1 vectors (total: 1)
        ⚠️ Vector database sync not finished for user 123
          - Vectors written: 1
          - Nothing was deleted

        📊 Summary:
          - Users synced: 0
          - Users failed: 0
          - Users out of sync: 1
        """
    )
    allowed = shell.undrift("sync", "--user-id=123", "--max-delete=3")
    assert allowed.out.count("🔄 Starting vector database sync") == 1
    assert "✅ Deleted batch 1: 3 vectors (total: 3)\n" in allowed.out
    assert allowed.code == 0


def test_exit_zero_hides_drift_and_nothing_else(shell: Shell) -> None:
    """A pipeline may tolerate drift, not ignorance."""
    shell.put(1, experiences("exp_1"))
    assert shell.undrift("check", "--all", "--exit-zero").code == 0
    shell.put(2, "{nope")
    assert shell.undrift("check", "--all", "--exit-zero").code == 3
    assert shell.undrift("check", "--user-id=9", "--exit-zero").code == 2


def test_spent_embedding_budget_keeps_progress(any_shell: Shell) -> None:
    """Exit 5, and the same command goes on from there."""
    for owner in (1, 2):
        any_shell.put(owner, experiences(f"exp_{owner}a", f"exp_{owner}b"))
    codes, embedded = [], []
    for _ in range(3):
        ran = any_shell.undrift("sync", "--all", "--max-embeddings=2", "--output=json")
        codes.append(ran.code)
        embedded.append(ran.document["summary"]["embedded"])
    assert (codes[0], codes[-1]) == (5, 0)
    assert sum(embedded) == 4
    first = any_shell.undrift("sync", "--all", "--force", "--max-embeddings=1")
    assert first.error[0] == "The embedding budget is spent"
    assert "--max-embeddings" in first.error[2]


def test_errors_beyond_twenty_are_a_number(shell: Shell) -> None:
    """A broken import of a thousand documents does not bury the summary."""
    for owner in range(1, 24):
        shell.put(owner, "{nope")
    ran = shell.undrift("check", "--all")
    assert ran.code == 3
    assert len(ran.errors) == 20
    assert ran.err.endswith("\n… and 3 more errors\n")


# --- whatever else happens ----------------------------------------------------------------------


def test_bug_is_one_clear_error_and_no_traceback(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit 3: nothing is known. The exception's message may quote a profile: -v says where only."""
    shell.put(1, experiences("exp_1"))

    def broken(*_: object, **__: object) -> None:
        raise ValueError("text of a profile")

    monkeypatch.setattr(Undrift, "check_owners", broken)
    ran = shell.undrift("check", "--user-id=1")
    assert_refused(ran, 3, "undrift failed unexpectedly", why="ValueError at test_cli_errors.py")
    assert "text of a profile" not in ran.err
    verbose = shell.undrift("check", "--user-id=1", "-v")
    assert "test_cli_errors.py" in verbose.err
    assert "ValueError" in verbose.err.splitlines()
    assert "text of a profile" not in verbose.err
    as_json = shell.undrift("check", "--user-id=1", "--output=json")
    assert as_json.document["error"]["type"] == "Bug"


def test_reader_that_goes_away_ends_the_run_quietly(shell: Shell) -> None:
    """As with any other program before ``| head``."""
    for owner in (1, 2):
        shell.put(owner, experiences("exp_1"))
    reading, writing = os.pipe()
    os.close(reading)
    process = shell.start("undrift", "check", "--user-id=1", "--user-id=2", stdout=writing)
    os.close(writing)
    with process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 141
    assert "Traceback" not in err
    assert "Error" not in err


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
def test_answer_that_cannot_be_written_is_an_error(shell: Shell) -> None:
    """A full disk must not look like a clean check."""
    shell.put(1, experiences("exp_1"))
    shell.undrift("sync", "--all")
    with FULL.open("w") as full:
        process = shell.start("undrift", "check", "--all", stdout=full.fileno())
    with process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "Error: The answer could not be written" in err


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_signal_ends_a_query_under_way(
    postgres_shell: Shell, number: signal.Signals, code: int
) -> None:
    """While the source is locked by somebody: the wait ends at once, the summary comes still."""
    postgres_shell.put(1, experiences("exp_1"))
    url = postgres_shell.variables["DATABASE_URL"]
    with psycopg.connect(url) as blocking, psycopg.connect(url, autocommit=True) as watching:
        blocking.execute("LOCK TABLE profiles IN ACCESS EXCLUSIVE MODE")
        process = postgres_shell.start("undrift", "check", "--user-id=1", "--output=jsonl")
        waiting = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        while watching.execute(waiting).fetchone() == (0,):
            assert process.poll() is None
        process.send_signal(number)
        with process:
            out, err = process.communicate(timeout=60)
        ended = Ran(process.returncode, out, err)
        assert watching.execute(waiting).fetchone() == (0,)
    assert ended.code == code
    assert ended.lines[-1]["error"]["what"] == f"Interrupted by {number.name}"
    assert "Traceback" not in err


# --- help ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["sync", "--help"], ["--version"]])
def test_help_loads_no_driver_no_renderer_and_no_numbers(arguments: list[str]) -> None:
    """What --help loads is what every typing error waits for, too."""
    code = (
        "import sys\n"
        "from undrift.cli.app import main\n"
        f"main({arguments})\n"
        "heavy = {'jinja2', 'numpy', 'psycopg', 'rich', 'sqlalchemy', 'undrift.api'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_no_command_prints_the_help_and_is_no_success(shell: Shell) -> None:
    """A script whose command is an empty variable must not pass."""
    ran = shell.undrift()
    assert ran.code == 2
    assert "Commands:" in ran.err
    assert ran.out == ""


def test_version(shell: Shell) -> None:
    """One line on stdout."""
    ran = shell.undrift("--version")
    assert (ran.code, ran.out) == (0, "undrift 0.1.0\n")
