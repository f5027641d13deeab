"""Every example that a ``--help`` shows is run, on a user 123 in PostgreSQL and pgvector."""

from __future__ import annotations

import shlex
import signal

import pytest
import typer

from support.cli import Shell, experiences
from support.foreign import Foreign, fill
from undrift.cli.app import app
from undrift.cli.examples import examples_in


def declared(command: object) -> list[str]:
    """The examples of *command* and of all below it."""
    found = examples_in(getattr(command, "epilog", None) or "")
    for inner in getattr(command, "commands", {}).values():
        found.extend(declared(inner))
    return found


def is_endless(example: str) -> bool:
    """Whether it goes on until a signal comes."""
    return shlex.split(example)[1:2] == ["watch"]


def adopt(shell: Shell) -> None:
    """Let the collection be the store, of a source that holds what it was made from."""
    assert shell.undrift("init", "--collection=jobs").code == 0
    shell.variables["VECTOR_URL"] += "?table=public.langchain_pg_embedding"
    shell.source.run("DELETE FROM profiles WHERE user_id <> 123")
    shell.put(123, experiences("exp_1"))


EXAMPLES = list(dict.fromkeys(declared(typer.main.get_command(app))))


@pytest.fixture
def furnished(postgres_shell: Shell) -> Shell:
    """A user in sync, one who is not, an index, triggers, and what examples name."""
    postgres_shell.put(123, experiences("exp_1", "exp_2"))
    assert postgres_shell.undrift("sync", "--user-id", "123").code == 0
    assert postgres_shell.undrift("index", "build", "--yes").code == 0
    assert postgres_shell.undrift("triggers", "install").code == 0
    postgres_shell.put(124, experiences("exp_3"))
    (postgres_shell.folder / "users.txt").write_text("# of today\n123\n\n124\n")
    job = Foreign("r1", "Title of exp_1 at Acme", {"user_id": 123, "job": "exp_1"})
    fill(postgres_shell.variables["VECTOR_URL"], "LangChain", [job], name="jobs")
    return postgres_shell


@pytest.mark.parametrize("example", [e for e in EXAMPLES if not is_endless(e)])
def test_example_works_as_it_stands(furnished: Shell, example: str) -> None:
    """It succeeds, or finds the drift that there is."""
    program, *arguments = shlex.split(example)
    if "--stamp" in arguments:
        adopt(furnished)
    ran = furnished(program, *arguments)
    assert ran.code in ((0, 1) if "check" in arguments or "--dry-run" in arguments else (0,)), ran
    assert ran.errors == []
    assert ran.out


@pytest.mark.parametrize("example", [e for e in EXAMPLES if is_endless(e)])
def test_an_example_without_an_end_works_until_it_is_told_to_stop(
    furnished: Shell, example: str
) -> None:
    """It begins to work, and ends as it should."""
    program, *arguments = shlex.split(example)
    with furnished.start(program, *arguments) as process:
        assert process.stderr is not None
        seen = []
        for line in process.stderr:
            seen.append(line)
            if "watching" in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143, seen
    assert not any("Error" in line or "Traceback" in line for line in seen)


def test_an_example_that_does_not_work_is_noticed(furnished: Shell) -> None:
    """The control: wrong usage is not taken for an example's success."""
    ran = furnished("undrift", "check", "--user-id", "123", "--everything")
    assert ran.code == 2
    assert ran.errors
