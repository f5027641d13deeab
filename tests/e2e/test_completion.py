"""``undrift completion``: the scripts, as shells run them."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(sys.executable).parent
COMMANDS = {"check", "sync", "search", "index", "demo", "completion"}

# What readline does: the words of the line, of which the last is to be completed.
BASH = """
source <(undrift completion bash)
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
{function} undrift
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose home is *folder*."""
    return subprocess.run(
        command,
        cwd=folder,
        env={
            **os.environ,
            "HOME": str(folder),
            "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}",
            **variables,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )


def in_shell(name: str) -> str:
    """The shell *name*, or skip."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def completed_in_bash(folder: Path, *words: str) -> list[str]:
    """What bash offers for the last of *words*."""
    # The function is the one that the script has registered for the program.
    function = "$(complete -p undrift | sed 's/.*-F \\([^ ]*\\).*/\\1/')"
    script = BASH.format(words=" ".join(map(shlex.quote, words)), function=function)
    ran = run(folder, in_shell("bash"), "--norc", "-c", script)
    assert (ran.returncode, ran.stderr) == (0, "")
    return ran.stdout.split()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["undrift", "che"], ["check"]),
        (["undrift", "index", ""], ["build", "drop", "status"]),
        (["undrift", "index", "build", "--ef"], ["--ef-construction"]),
        (["undrift", "check", "--output", ""], ["json", "jsonl", "text"]),
        (["undrift", "check", "--output", "=", "js"], ["json", "jsonl"]),
        (["undrift", "check", "--output", "="], ["json", "jsonl", "text"]),
        (["undrift", "search", "'two words'", "--ki"], ["--kind"]),
        (["undrift", "completion", ""], ["bash", "fish", "zsh"]),
        (["undrift", "nonsense", "--x"], []),
    ],
    ids=" ".join,
)
def test_bash_completes(tmp_path: Path, words: list[str], expected: list[str]) -> None:
    """Commands, options and values, also behind an = that bash takes for a word."""
    assert sorted(completed_in_bash(tmp_path, *words)) == expected


def test_bash_completes_every_command(tmp_path: Path) -> None:
    """At the beginning."""
    assert set(completed_in_bash(tmp_path, "undrift", "")) >= COMMANDS


def test_fish_completes(tmp_path: Path) -> None:
    """With what each is for."""
    script = "undrift completion fish | source; complete -C 'undrift che'"
    ran = run(tmp_path, in_shell("fish"), "--no-config", "-c", script)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("check\tCompare both sides")


def test_zsh_takes_the_script(tmp_path: Path) -> None:
    """From a pipe, and as a file of its fpath."""
    shell = in_shell("zsh")
    script = (
        "autoload -Uz compinit; compinit -u -D; "
        "source <(undrift completion zsh); print ${_comps[undrift]}"
    )
    ran = run(tmp_path, shell, "-f", "-c", script)
    assert (ran.stdout, ran.stderr) == ("_undrift_completion\n", "")
    (tmp_path / "_undrift").write_text(run(tmp_path, "undrift", "completion", "zsh").stdout)
    script = "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; print ${_comps[undrift]}"
    ran = run(tmp_path, shell, "-f", "-c", script)
    assert (ran.stdout, ran.stderr) == ("_undrift\n", "")


@pytest.mark.parametrize(
    ("question", "variables", "expected"),
    [
        ("complete_zsh", {"_TYPER_COMPLETE_ARGS": "undrift che"}, '"check":"Compare'),
        (
            "complete_fish",
            {"_TYPER_COMPLETE_ARGS": "undrift che", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
            "check\tCompare",
        ),
    ],
)
def test_the_program_answers_what_the_scripts_ask(
    tmp_path: Path, question: str, variables: dict[str, str], expected: str
) -> None:
    """Where the shell itself is not installed, this is what is left to test."""
    ran = run(tmp_path, "undrift", _UNDRIFT_COMPLETE=question, **variables)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert expected in ran.stdout
    shell = question.removeprefix("complete_")
    assert f"_UNDRIFT_COMPLETE={question}" in run(tmp_path, "undrift", "completion", shell).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_nothing_is_installed_that_nobody_asked_for(tmp_path: Path, shell: str) -> None:
    """The script goes to stdout, and no file of the shell's is written."""
    ran = run(tmp_path, "undrift", "completion", shell, SHELL=f"/bin/{shell}")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "undrift" in ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_shell_is_wrong_usage(tmp_path: Path) -> None:
    """In three parts."""
    ran = run(tmp_path, "undrift", "completion", "cmd")
    assert ran.returncode == 2
    assert "Why: " in ran.stderr
    assert "Fix: " in ran.stderr


def test_completing_loads_no_driver_and_no_renderer(tmp_path: Path) -> None:
    """A person waits for it at every press of a key."""
    code = (
        "import atexit, sys\n"
        "from undrift.cli.app import main\n"
        "heavy = {'jinja2', 'numpy', 'psycopg', 'rich', 'sqlalchemy', 'undrift.api'}\n"
        "atexit.register(lambda: print('LOADED', sorted(heavy & set(sys.modules))))\n"
        "main()"
    )
    ran = run(
        tmp_path, sys.executable, "-c", code,
        _UNDRIFT_COMPLETE="complete_bash", COMP_WORDS="undrift\nche", COMP_CWORD="1",
    )  # fmt: skip
    assert ran.stdout.splitlines() == ["check", "LOADED []"]
