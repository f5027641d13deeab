"""The commands ``undrift triggers install``, ``remove`` and ``status``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from undrift.changes import LOCK_SECONDS, ChangeStatus
from undrift.cli import exit_codes, options
from undrift.cli.examples import epilog
from undrift.cli.render_json import SCHEMA_VERSION, Object
from undrift.cli.report import Output
from undrift.cli.run import View, run_answer
from undrift.cli.streams import Color, Line, Tone

if TYPE_CHECKING:
    from undrift.api import Undrift

COMMAND = "triggers"

CODES = (
    "Exit codes: 0 every change is captured; 1 triggers are missing, disabled or outdated; 2 usage "
    "or configuration; 3 could not look."
)

app = typer.Typer(
    name=COMMAND,
    help="Put triggers into the source that say whom to sync.",
    rich_markup_mode=None,
    no_args_is_help=False,
    epilog=epilog(
        "undrift triggers install --sql  # what it would run",
        "undrift triggers status",
    ),
)

PrintSql = Annotated[
    bool, typer.Option("--sql", envvar="UNDRIFT_SQL", help="Print the statements, run nothing.")
]
LockTimeout = Annotated[
    float,
    typer.Option(
        "--lock-timeout",
        metavar="SECONDS",
        min=0.001,
        envvar="UNDRIFT_LOCK_TIMEOUT",
        help="How long to wait for a table; the application's writes to it wait behind.",
    ),
]


@app.command(
    short_help="Put the triggers in, or mend what is amiss.",
    epilog=epilog(
        "undrift triggers install",
        "undrift triggers install --sql  # for a DBA; run nothing",
        "undrift triggers install --lock-timeout 10",
        note=CODES,
    ),
)
def install(
    notify: Annotated[
        bool,
        typer.Option(
            "--notify",
            envvar="UNDRIFT_NOTIFY",
            help="Let every change wake the workers. Commits that changed something then queue up "
            "for a moment, one behind the other.",
        ),
    ] = False,
    print_sql: PrintSql = False,
    lock_timeout: LockTimeout = LOCK_SECONDS,
    output: options.Format = Output.TEXT,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Put the triggers in, or mend what is missing, disabled or outdated.

    They append the ids of users whose rows a statement touched to a table of undrift's. What was
    not seen until then is answered by looking at everybody once.
    """
    view = View(output=output, color=color, is_verbose=verbose, config=config)
    if print_sql:
        return _print_sql(view, lambda sides: sides.triggers.ddl(notify=notify))
    return _answer(
        view,
        lambda sides: sides.triggers.install(notify=notify, lock_timeout_seconds=lock_timeout),
    )


@app.command(
    epilog=epilog(
        "undrift triggers remove",
        "undrift triggers remove --sql  # for a DBA; run nothing",
    )
)
def remove(
    print_sql: PrintSql = False,
    lock_timeout: LockTimeout = LOCK_SECONDS,
    output: options.Format = Output.TEXT,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Take the triggers out again, and the marks with them. Nothing stays behind."""
    view = View(output=output, color=color, is_verbose=verbose, config=config)
    if print_sql:
        return _print_sql(view, lambda sides: sides.triggers.removal_ddl())

    def removed(sides: Undrift) -> ChangeStatus:
        sides.triggers.remove(lock_timeout_seconds=lock_timeout)
        return sides.triggers.status()

    return run_answer(
        view,
        COMMAND,
        lambda sides, terminal: removed(sides),
        lines=lambda found: [
            Line(f"✅ Change capture of {found.location} is removed, marks included", Tone.GOOD)
        ],
        document=status_document,
    )


@app.command(
    epilog=epilog(
        "undrift triggers status  # are they there, and what can they not see",
        "undrift triggers status --output json",
        note=CODES,
    )
)
def status(
    output: options.Format = Output.TEXT,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Say whether every change is captured. Writes nothing."""
    view = View(output=output, color=color, is_verbose=verbose, config=config)
    return _answer(view, lambda sides: sides.triggers.status())


def _answer(view: View, work: Callable[[Undrift], ChangeStatus]) -> int:
    return run_answer(
        view,
        COMMAND,
        lambda sides, terminal: work(sides),
        lines=status_lines,
        document=status_document,
        exit_code=lambda found: exit_codes.IN_SYNC if found.is_fine else exit_codes.DRIFT,
    )


def _print_sql(view: View, statements: Callable[[Undrift], Sequence[str]]) -> int:
    return run_answer(
        view,
        COMMAND,
        lambda sides, terminal: statements(sides),
        lines=lambda found: [Line(line) for each in found for line in f"{each};".splitlines()],
        document=lambda found: {**_head(), "sql": list(found)},
    )


# --- what a person reads ----------------------------------------------------------------------


def status_lines(status: ChangeStatus) -> list[Line]:
    """What there is of change capture."""
    return [
        Line(f"🔍 Change capture of {status.location}:", Tone.HEADING),
        Line(f"  - State: {_state(status)}", _TONES[_state(status)]),
        *_findings(status),
    ]


def _findings(status: ChangeStatus) -> Iterator[Line]:
    if status.tables:
        yield Line(f"  - Tables: {', '.join(status.tables)}")
    for problem in status.problems:
        yield Line(f"  - Problem: {problem}", Tone.BAD)
    if status.is_installed:
        yield Line(f"  - Marks: {status.marks}{_age(status)}")
        yield Line(f"  - Wakes workers: {'yes' if status.is_notified else 'no, they look'}")
    for refused in status.refused:
        yield Line(f"  - Not captured: {refused}", Tone.WARNING)
    if status.is_installed:
        for unseen in status.unseen:
            yield Line(f"  - Cannot see: {unseen}")
    if status.problems or not status.is_installed:
        yield Line("  - Note: `undrift triggers install` puts in what is missing")
    if status.is_unwatched:
        yield Line(f"  - Note: {_UNWATCHED}", Tone.WARNING)


def _age(status: ChangeStatus) -> str:
    if status.oldest_seconds is None:
        return ""
    return f", the oldest {status.oldest_seconds:.0f} s old"


_UNWATCHED = (
    "marks have been lying there for more than a day; start `undrift watch`, or take the triggers "
    "out by `undrift triggers remove`"
)
_TONES = {"installed": Tone.GOOD, "incomplete": Tone.BAD, "not installed": Tone.PLAIN}


def _state(status: ChangeStatus) -> str:
    if not status.is_installed:
        return "not installed"
    return "installed" if status.is_fine else "incomplete"


# --- what a program reads ---------------------------------------------------------------------


def status_document(status: ChangeStatus) -> Object:
    """The answer of all three commands."""
    document: Object = {
        **_head(),
        "state": _state(status).replace(" ", "_"),
        "location": status.location,
        "tables": list(status.tables),
        "not_captured": list(status.refused),
        "problems": list(status.problems),
        "cannot_see": list(status.unseen),
        "wakes_workers": status.is_notified,
        "marks": status.marks,
    }
    if status.oldest_seconds is not None:
        document["oldest_mark_seconds"] = round(status.oldest_seconds, 3)
    if status.is_unwatched:
        document["notes"] = [_UNWATCHED]
    return document


def _head() -> Object:
    return {"schema_version": SCHEMA_VERSION, "command": COMMAND}
