"""From a command line to an exit code, wrong usage included."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import typer

from undrift.cli import exit_codes, render_json, render_text
from undrift.cli.problems import Bug, Interruption, is_complaint, usage_error
from undrift.cli.report import Kind, Output, Subject, open_reporter
from undrift.cli.streams import open_terminal
from undrift.cli.tally import Tally
from undrift.errors import UndriftError


def invoke(app: typer.Typer, name: str, arguments: Sequence[str]) -> int:
    """Run the command that *arguments* ask for.

    Args:
        name: what the program is called in its help.

    Returns:
        The exit code.
    """
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(arguments), prog_name=name, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return _refused(arguments, Interruption("SIGINT"), exit_codes.INTERRUPTED)
    except UndriftError as exc:
        return _refused(arguments, exc, exit_codes.of_error(exc))
    except Exception as exc:  # noqa: BLE001  the last resort: nobody is shown a traceback
        if is_complaint(exc):
            called = " ".join([name, *filter(None, [_command_of(arguments)])])
            return _refused(arguments, usage_error(exc, called=called), exit_codes.USAGE)
        return _refused(arguments, Bug(exc), exit_codes.UNKNOWN)
    return code if isinstance(code, int) else exit_codes.IN_SYNC


def _refused(arguments: Sequence[str], error: UndriftError, code: int) -> int:
    """Say why nothing was done, in the form that was asked for."""
    terminal = open_terminal()
    command = _command_of(arguments)
    output = requested_output(arguments, os.environ)
    if command in {Kind.CHECK, Kind.SYNC} or output is Output.TEXT:
        kind = Kind.CHECK if command == Kind.CHECK else Kind.SYNC
        open_reporter(output, terminal, Subject(kind=kind)).end(Tally(), error)
    else:
        document = render_json.error_document(command, error)
        terminal.say_text(f"{render_json.dumped(document, encoding=terminal.out.encoding)}\n")
        terminal.tell(render_text.error_lines(error))
    return code


def _command_of(arguments: Sequence[str]) -> str | None:
    """The command that comes first, if one does."""
    first = next(iter(arguments), "-")
    return None if first.startswith("-") else first


def requested_output(arguments: Sequence[str], environ: Mapping[str, str]) -> Output:
    """The ``--output`` of a command line that could not be parsed."""
    chosen = environ.get("UNDRIFT_OUTPUT", "")
    for position, word in enumerate(arguments):
        if word == "--output":
            chosen = "".join(arguments[position + 1 : position + 2])
        elif word.startswith("--output="):
            chosen = word.removeprefix("--output=")
    return Output(chosen) if chosen in {*Output} else Output.TEXT
