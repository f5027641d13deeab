"""The options: each has its variable, and the help says so."""

from __future__ import annotations

import re

import pytest
import typer

from undrift.cli.app import app

COMMANDS = ("check", "sync", "search", "demo")


def help_of(command: str) -> str:
    context = typer.main.get_command(app)
    found = context.commands[command]  # type: ignore[attr-defined]
    text: str = found.get_help(found.context_class(found, info_name=command))
    return text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_long_option_names_its_variable(command: str) -> None:
    """``--max-delete`` is ``UNDRIFT_MAX_DELETE``."""
    found = typer.main.get_command(app).commands[command]  # type: ignore[attr-defined]
    text = " ".join(help_of(command).split())
    for parameter in found.params:
        if parameter.param_type_name != "option" or parameter.name == "help":
            continue
        first = next(name for name in parameter.opts if name.startswith("--"))
        variable = f"UNDRIFT_{first.removeprefix('--').replace('-', '_').upper()}"
        assert f"env var: {variable}" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_ascii(command: str) -> None:
    """Every terminal can show it."""
    assert help_of(command).isascii()


def test_flags_have_no_opposite() -> None:
    """No --no-force: what is not asked for is off."""
    flags = {found for name in COMMANDS for found in re.findall(r"--no-[a-z-]+", help_of(name))}
    assert flags <= {"--no-memo", "--no-adopt"}, "of these there is no opposite to be had"
