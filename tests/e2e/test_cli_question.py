"""The question before everybody is synced: what it tells, when it is asked, and what a no does."""

from __future__ import annotations

import json
import re
import signal

import pytest

from support.cli import Shell, experiences
from support.terminals import before_a_terminal, on_a_terminal

QUESTION = "Nothing is written yet. Go on? [y/N] "


@pytest.fixture
def fleet(shell: Shell) -> Shell:
    """Three users in sync, of whom one changes, one goes and one comes."""
    for owner in (1, 2, 3):
        shell.put(owner, experiences(f"exp_{owner}", "exp_9"))
    assert shell.undrift("sync", "--all").code == 0
    shell.put(2, experiences("exp_2", "exp_8"))
    shell.drop(3)
    shell.put(4, experiences("exp_4"))
    return shell


def drift(shell: Shell) -> tuple[int, dict[str, int]]:
    """The exit code of a check, and its sums."""
    ran = shell.undrift("check", "--all", "--output", "json")
    found = ran.document["summary"]
    return ran.code, {name: value for name, value in found.items() if name != "duration_seconds"}


def test_sync_of_everybody_tells_what_it_does_and_asks(fleet: Shell) -> None:
    """The numbers are the dry run's; yes does it."""
    planned = fleet.undrift("sync", "--all", "--dry-run", "--output", "json")
    cost = planned.document["summary"]["cost"]
    code, screen = on_a_terminal(fleet, "sync", "--all", typed="y\n")
    assert "What this sync does, by a look at all 4 users:\x1b[0m\n  - Users to sync: 3\n" in screen
    assert f"  - Texts to embed: {cost['texts']} (about {cost['tokens']} tokens)\n" in screen
    assert f"  - Vectors to write: {cost['writes']}\n" in screen
    assert f"  - Vectors to delete: {cost['deletes']} of 6\n{QUESTION}" in screen
    assert (cost["writes"], cost["deletes"]) == (2, 3)
    assert code == 0
    assert drift(fleet)[0] == 0


@pytest.mark.parametrize("typed", ["n\n", "\n", "yes please\n", "\x04"])
def test_anything_but_yes_writes_nothing(fleet: Shell, typed: str) -> None:
    """Nor does the end of what is typed."""
    before = drift(fleet)
    code, screen = on_a_terminal(fleet, "sync", "--all", typed=typed)
    assert code == 2
    assert "Error: Nothing was done" in screen
    assert "Summary" not in screen
    assert drift(fleet) == before


def test_no_leaves_no_trace_of_a_first_sync(shell: Shell) -> None:
    """Neither store nor state are created before the answer."""
    shell.put(1, experiences("exp_1"))
    before = sorted(shell.folder.rglob("*"))
    code, screen = on_a_terminal(shell, "sync", "--all", typed="n\n")
    assert (code, "  - Vectors to write: 1\n" in screen) == (2, True)
    assert sorted(shell.folder.rglob("*")) == before


def test_interruption_of_the_question_writes_nothing(fleet: Shell) -> None:
    """Ctrl-C is no answer."""
    before = drift(fleet)
    with before_a_terminal(fleet, "sync", "--all") as screen:
        screen.until(QUESTION)
        screen.process.send_signal(signal.SIGINT)
        code, shown = screen.end()
    assert code == 130
    assert "the question was not answered, and nothing was done" in shown
    assert "progress is kept" not in shown
    assert "Summary" not in shown
    assert drift(fleet) == before


def test_answer_that_is_no_text_is_no(fleet: Shell) -> None:
    """Not a bug of ours, where Python is as strict as in a locale with a country."""
    fleet.variables["PYTHONIOENCODING"] = "utf-8:strict"
    with before_a_terminal(fleet, "sync", "--all") as screen:
        screen.until(QUESTION)
        screen.type_bytes(b"\xff\xfe\n")
        code, shown = screen.end()
    assert code == 2
    assert "Error: Nothing was done" in shown


def test_impossible_budget_is_refused_before_the_question(fleet: Shell) -> None:
    """Nobody looks at a fleet, and nobody answers, for a command that cannot run."""
    code, screen = on_a_terminal(fleet, "sync", "--all", "--max-embeddings", "-5", typed="y\n")
    assert code == 2
    assert "-5 is not an embedding budget" in screen
    assert "[y/N]" not in screen


def test_nothing_to_do_is_no_question(shell: Shell) -> None:
    """A fleet in sync ends as it does everywhere."""
    shell.put(1, experiences("exp_1"))
    assert shell.undrift("sync", "--all").code == 0
    code, screen = on_a_terminal(shell, "sync", "--all")
    assert "[y/N]" not in screen
    assert "  - Users in sync already: 1\n" in screen
    assert code == 0


@pytest.mark.parametrize(
    "arguments", [("--all", "--yes"), ("--user-id", "2"), ("--all", "--dry-run")]
)
def test_whoever_has_decided_is_not_asked(fleet: Shell, arguments: tuple[str, ...]) -> None:
    """By --yes, or by naming users; a dry run writes nothing anyway."""
    code, screen = on_a_terminal(fleet, "sync", *arguments)
    assert "[y/N]" not in screen
    assert "What this sync does" not in screen
    assert code == (1 if "--dry-run" in arguments else 0)


def test_terminal_that_nobody_types_at_is_not_asked(fleet: Shell) -> None:
    """Cron under a pty has an error stream that looks like a person."""
    with before_a_terminal(fleet, "sync", "--all", reads_it=False) as screen:
        code, shown = screen.end()
    assert "[y/N]" not in shown
    assert code == 0
    assert drift(fleet)[0] == 0


def test_answer_in_json_is_asked_for_on_standard_error(fleet: Shell) -> None:
    """The document is whole, and there is nothing else where it is written."""
    with before_a_terminal(fleet, "sync", "--all", "--output", "json", answer="out.json") as screen:
        screen.type("y\n")
        code, shown = screen.end()
    assert QUESTION in shown
    assert code == 0
    document = json.loads((fleet.folder / "out.json").read_text())
    assert len(document["owners"]) == 3


def test_flags_of_the_origin_ask_nothing(fleet: Shell) -> None:
    """Its script did not, and it has no flag to say yes."""
    with before_a_terminal(fleet, "--sync", "--all", command="db-sync-vector") as screen:
        code, shown = screen.end()
    assert "[y/N]" not in shown
    assert code == 0
    assert drift(fleet)[0] == 0


def test_bar_knows_how_many_users_there_are(shell: Shell) -> None:
    """Of everybody, and of the part that is checked."""
    for owner in range(1, 13):
        shell.put(owner, experiences("exp_1"))
    assert shell.undrift("sync", "--all").code == 0
    _, everybody = on_a_terminal(shell, "check", "--all", "--rate", "6")
    assert "/12 users, " in everybody
    _, part = on_a_terminal(shell, "check", "--all", "--shard", "1/3", "--rate", "4")
    assert "/about 4 users, " in part


def test_bar_of_a_run_that_is_taken_up_begins_where_the_last_one_ended(shell: Shell) -> None:
    """The users whom that one was done with are done."""
    for owner in range(1, 25):
        shell.put(owner, experiences("exp_1"))
    assert shell.undrift("sync", "--all").code == 0
    shell.put(1, experiences("exp_2"))
    with before_a_terminal(shell, "check", "--all", "--rate", "4") as screen:
        screen.until("4/24 users")
        screen.process.send_signal(signal.SIGINT)
        code, _ = screen.end()
    assert code == 130
    _, shown = on_a_terminal(shell, "check", "--all", "--rate", "4", "--resume")
    assert "Users checked: 24\n" in shown
    since = shown.partition("Going on with the check that began")[2]
    counted = [int(done) for done in re.findall(r"(\d+)/24 users", since)]
    assert counted[-1] == 24
    assert min(counted) >= 4


def test_forced_sync_of_everybody_tells_what_it_costs(fleet: Shell) -> None:
    """Everybody is synced then, in sync or not."""
    code, screen = on_a_terminal(fleet, "sync", "--all", "--force", typed="y\n")
    assert "  - Users to sync: 4\n  - Texts to embed: 5 (" in screen
    assert "will be embedded anew. Go on? [y/N] " in screen
    assert code == 0
