"""What every command's ``--help`` has in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import pytest
import typer

from undrift.cli.app import app
from undrift.cli.examples import HEADING, epilog, examples_in

WIDTH = 80


class Command(Protocol):
    """What typer makes of a function."""

    name: str
    params: list[Any]
    context_class: Any

    def get_help(self, context: object) -> str: ...


def commands(command: Any, *names: str) -> Iterator[tuple[str, Command]]:  # noqa: ANN401  typer's
    """Every command and group below *command*, itself included, by its full name."""
    names = (*names, command.name)
    yield " ".join(names), command
    for inner in getattr(command, "commands", {}).values():
        yield from commands(inner, *names)


COMMANDS = dict(commands(typer.main.get_command(app)))


def help_of(name: str) -> str:
    command = COMMANDS[name]
    context = command.context_class(command, info_name=name, terminal_width=WIDTH)
    return command.get_help(context)


def test_there_are_commands() -> None:
    """The tests below look at all of them."""
    assert {"undrift", "undrift check", "undrift index", "undrift index build"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_ascii_and_has_no_cut_line_in_its_list(name: str) -> None:
    """Every terminal can show it, and the list of commands says what each is for."""
    text = help_of(name)
    assert text.isascii()
    listed = text.partition("Commands:")[2].partition(HEADING)[0]
    assert "..." not in listed


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_two_to_four_examples_of_the_command(name: str) -> None:
    """Each as long as a terminal is wide, at most."""
    text = help_of(name)
    examples = examples_in(text)
    assert 2 <= len(examples) <= 4
    assert all(example.split()[: len(name.split())] == name.split() for example in examples)
    assert max(map(len, text.splitlines())) <= WIDTH


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    """In a sentence of its own."""
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "option":
            assert parameter.help
            assert parameter.help.rstrip().endswith((".", "]"))


def test_examples_are_found_as_they_were_written() -> None:
    """Without what they are for, behind any note."""
    ending = epilog("undrift a 'b # c'", "undrift d  # what for", note="Exit codes: 0.")
    assert examples_in(ending) == ["undrift a 'b # c'", "undrift d"]
    assert examples_in("No examples here.") == []
