"""The command ``undrift doctor``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from undrift.cli import exit_codes, options, render_json
from undrift.cli.report import Output
from undrift.cli.run import View, run_without_sides
from undrift.cli.streams import Color, Line, Terminal, Tone

if TYPE_CHECKING:
    from undrift.doctor import Examination
    from undrift.findings import Finding

COMMAND = "doctor"
EXAMPLES = (
    "undrift doctor  # what is found, and what is missing",
    "undrift doctor --read-only  # for a role that only checks and searches",
    "undrift doctor --output json  # for a program",
)
CODES = (
    "Exit codes: 0 a sync could run, with --read-only a check; 2 something must be mended first; "
    "3 something could not be looked at."
)

_TITLES = {
    "configuration": "Configuration",
    "source": "Source",
    "store": "Store",
    "state": "State",
    "embedder": "Embedder",
}
_SIGNS = {"ok": "✅", "warning": "⚠️", "problem": "❌", "unknown": "❓"}
_TONES = {
    "ok": Tone.PLAIN,
    "warning": Tone.WARNING,
    "problem": Tone.BAD,
    "unknown": Tone.WARNING,
}


def doctor(
    read_only: Annotated[
        bool,
        typer.Option(
            "--read-only",
            envvar="UNDRIFT_READ_ONLY",
            help="Judge as a role that only checks and searches.",
        ),
    ] = False,
    online: Annotated[
        bool,
        typer.Option(
            "--online",
            envvar="UNDRIFT_ONLINE",
            help="Also ask an embedder that is a service for one embedding.",
        ),
    ] = False,
    output: options.Format = Output.TEXT,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Look at the whole setup, change nothing, and name the command that mends what is amiss.

    What a sync does to the store is tried in a transaction that is rolled back.
    """
    view = View(output=output, color=color, is_verbose=verbose, config=config)

    def answer(terminal: Terminal) -> int:
        from undrift.doctor import examine

        examination = examine(view.config, online=online, read_only=read_only)
        if view.output is Output.TEXT:
            terminal.say(_text(examination))
        else:
            for document in _documents(examination, view.output):
                dumped = render_json.dumped(document, encoding=terminal.out.encoding)
                terminal.say_text(f"{dumped}\n")
        return _code(examination)

    return run_without_sides(view, COMMAND, answer)


def _code(examination: Examination) -> int:
    from undrift.findings import Status

    if examination.count(Status.UNKNOWN):
        return exit_codes.UNKNOWN
    return exit_codes.USAGE if examination.count(Status.PROBLEM) else exit_codes.IN_SYNC


def _text(examination: Examination) -> Iterator[Line]:
    group = ""
    for finding in examination.findings:
        if finding.group != group:
            group = finding.group
            yield Line(f"{_TITLES[group]}:", Tone.HEADING)
        yield from _finding(finding)
    yield Line("📊 Summary:", Tone.HEADING)
    yield Line(f"  - Check could run: {_yes(examination.could_check)}")
    yield Line(f"  - Sync could run: {_yes(examination.could_sync)}")
    for name, count in _counts(examination).items():
        yield Line(f"  - {name.capitalize()}: {count}")


def _finding(finding: Finding) -> Iterator[Line]:
    status = finding.status.value
    yield Line(f"{_SIGNS[status]} {status}: {finding.summary}", _TONES[status])
    if finding.fix is not None:
        yield Line(f"   Fix: {finding.fix}")


def _documents(examination: Examination, output: Output) -> Iterator[render_json.Object]:
    head: render_json.Object = {
        "schema_version": render_json.SCHEMA_VERSION,
        "command": COMMAND,
    }
    checks = [_check(finding) for finding in examination.findings]
    summary = {
        "could_check": examination.could_check,
        "could_sync": examination.could_sync,
        **_counts(examination),
    }
    if output is Output.JSON:
        yield {**head, "checks": checks, "summary": summary}
    else:
        yield from checks
        yield {**head, "summary": summary}


def _check(finding: Finding) -> render_json.Object:
    found: render_json.Object = {
        "name": finding.name,
        "status": finding.status.value,
        "summary": finding.summary,
    }
    if finding.fix is not None:
        found["fix"] = finding.fix
    return found


def _counts(examination: Examination) -> dict[str, int]:
    from undrift.findings import Status

    return {
        "problems": examination.count(Status.PROBLEM),
        "unknown": examination.count(Status.UNKNOWN),
        "warnings": examination.count(Status.WARNING),
    }


def _yes(claim: bool) -> str:
    return "true" if claim else "false"
