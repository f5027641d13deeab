"""The commands ``undrift index status``, ``undrift index build`` and ``undrift index drop``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from undrift.cli import options
from undrift.cli.commands import require_yes
from undrift.cli.examples import epilog
from undrift.cli.progress import LINE_EVERY_SECONDS
from undrift.cli.render_json import SCHEMA_VERSION, Object
from undrift.cli.report import Output
from undrift.cli.run import View, run_answer
from undrift.cli.streams import Color, Line, Terminal, Tone
from undrift.search_index import (
    IndexParameters,
    IndexProgress,
    IndexState,
    IndexStatus,
    IndexType,
)

if TYPE_CHECKING:
    from undrift.api import Undrift

COMMAND = "index"

_TONES = {IndexState.VALID: Tone.GOOD, IndexState.INVALID: Tone.BAD}
_COSTS = {
    IndexType.HNSW: "An index makes every sync write much more slowly.",
    IndexType.IVFFLAT: "An index makes every sync write more slowly.",
}
_BYTES_PER_MEGABYTE = 2**20
_EVERY_SECONDS_ON_A_TERMINAL = 2.0

app = typer.Typer(
    name=COMMAND,
    help="Look at, build or drop a search index in pgvector.",
    rich_markup_mode=None,
    no_args_is_help=False,
    epilog=epilog(
        "undrift index status",
        "undrift index build --sql  # what a build would run",
    ),
)


@app.command(
    epilog=epilog(
        "undrift index status  # is there one, is it valid, is one worth it",
        "undrift index status --output json",
    )
)
def status(
    output: options.Format = Output.TEXT,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Say what index there is, and whether one is needed. Writes nothing."""
    view = View(output=output, color=color, is_verbose=verbose, config=config)
    return run_answer(
        view,
        COMMAND,
        lambda sides, terminal: sides.index_status(),
        lines=status_lines,
        document=status_document,
    )


@app.command(
    epilog=epilog(
        "undrift index build --sql  # print the statements, run nothing",
        "undrift index build --maintenance-work-mem 256MB --yes",
        "undrift index build --m 16 --ef-construction 64  # what they are without",
        "undrift index build --type ivfflat --sql  # lists by the number of records",
    )
)
def build(
    kind: Annotated[
        IndexType,
        typer.Option(
            "--type",
            envvar="UNDRIFT_TYPE",
            help="hnsw finds nearly all of the nearest and makes writes slow; ivfflat finds "
            "fewer, is built quickly, and is to be built on records that are there.",
        ),
    ] = IndexType.HNSW,
    m: Annotated[
        int | None,
        typer.Option(
            "--m",
            metavar="N",
            envvar="UNDRIFT_M",
            help="hnsw: links per vector and layer, 2 to 100; 16 without it.",
        ),
    ] = None,
    ef_construction: Annotated[
        int | None,
        typer.Option(
            "--ef-construction",
            metavar="N",
            envvar="UNDRIFT_EF_CONSTRUCTION",
            help="hnsw: candidates looked at for each vector, at least twice --m, at most 1000; "
            "64 without it.",
        ),
    ] = None,
    lists: Annotated[
        int | None,
        typer.Option(
            "--lists",
            metavar="N",
            envvar="UNDRIFT_LISTS",
            help="ivfflat: groups of vectors that lie together, 1 to 32768. Without it: one for "
            "every 1,000 records, above a million records the square root of their number.",
        ),
    ] = None,
    maintenance_work_mem: Annotated[
        str | None,
        typer.Option(
            "--maintenance-work-mem",
            metavar="SIZE",
            envvar="UNDRIFT_MAINTENANCE_WORK_MEM",
            help="Memory for the build, such as 512MB; as long as the index fits into it, the "
            "build is several times as fast. Without it: what the server has configured.",
        ),
    ] = None,
    print_sql: Annotated[
        bool,
        typer.Option("--sql", envvar="UNDRIFT_SQL", help="Print the statements, run nothing."),
    ] = False,
    yes: options.Yes = False,
    output: options.Format = Output.TEXT,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Build an HNSW or IVFFlat index while others read and write.

    It is CREATE INDEX CONCURRENTLY, and none is built twice. Searches stay exact unless VECTOR_URL
    says ?search=approximate. A build that ended early is begun anew; an index that is not undrift's
    is never touched.
    """
    view = View(output=output, color=color, is_verbose=verbose, config=config)
    parameters = IndexParameters(
        type=kind,
        m=m,
        ef_construction=ef_construction,
        lists=lists,
        maintenance_work_mem=maintenance_work_mem,
    )
    if print_sql:
        return _printed(view, lambda sides: sides.index_ddl(parameters))
    return run_answer(
        view,
        COMMAND,
        lambda sides, terminal: _built(sides, terminal, parameters, is_confirmed=yes),
        lines=status_lines,
        document=status_document,
    )


@app.command(
    epilog=epilog(
        "undrift index drop --sql  # print the statements, run nothing",
        "undrift index drop --yes",
    )
)
def drop(
    print_sql: Annotated[
        bool,
        typer.Option("--sql", envvar="UNDRIFT_SQL", help="Print the statements, run nothing."),
    ] = False,
    yes: options.Yes = False,
    output: options.Format = Output.TEXT,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Drop the index that undrift built, while others read and write.

    It is DROP INDEX CONCURRENTLY, for an unfinished one too. An index that is not undrift's is
    never touched, and no vector is lost.
    """
    view = View(output=output, color=color, is_verbose=verbose, config=config)
    if print_sql:
        return _printed(view, lambda sides: sides.drop_index_ddl())

    def dropped(sides: Undrift, terminal: Terminal) -> IndexStatus:
        if sides.drop_index_ddl() and not yes:
            require_yes(terminal, "Searches that ask the index will read all of a user's vectors.")
        return sides.drop_index()

    return run_answer(view, COMMAND, dropped, lines=status_lines, document=status_document)


def _printed(view: View, statements_of: Callable[[Undrift], Sequence[str]]) -> int:
    return run_answer(
        view,
        COMMAND,
        lambda sides, terminal: statements_of(sides),
        lines=_sql_lines,
        document=lambda statements: {**_head(), "sql": list(statements)},
    )


def _built(
    sides: Undrift, terminal: Terminal, parameters: IndexParameters, *, is_confirmed: bool
) -> IndexStatus:
    sides.index_ddl(parameters)  # a question should not come before a refusal
    if not is_confirmed:
        require_yes(terminal, _COSTS[parameters.type])
    try:
        return sides.build_index(parameters, told_to(terminal))
    except KeyboardInterrupt:
        terminal.tell(
            [Line("The index is unfinished and unused; `undrift index build` begins anew")]
        )
        raise


# --- what a person reads ----------------------------------------------------------------------


def told_to(
    terminal: Terminal, clock: Callable[[], float] = time.monotonic
) -> Callable[[IndexProgress], None]:
    """A listener that writes a line when the phase changes, and else every ten seconds."""
    every_seconds = _EVERY_SECONDS_ON_A_TERMINAL if terminal.err.isatty() else LINE_EVERY_SECONDS
    last: tuple[str, int | None, float] = ("", None, clock())

    def tell(progress: IndexProgress) -> None:
        nonlocal last
        phase, waits_for, told_at = last
        is_new = (progress.phase, progress.waits_for) != (phase, waits_for)
        if is_new or clock() - told_at >= every_seconds:
            terminal.tell([Line(f"Progress: {progress_text(progress)}")])
            last = (progress.phase, progress.waits_for, clock())

    return tell


def progress_text(progress: IndexProgress) -> str:
    """How far a build is, in one line."""
    percent = "" if progress.percent is None else f", {progress.percent:.0f} %"
    waits = f", for the transaction of process {progress.waits_for}" if progress.waits_for else ""
    return f"{progress.phase}{percent}{waits}"


def status_lines(status: IndexStatus) -> list[Line]:
    """What there is of an index."""
    return [
        Line(f"🔍 Search index of {status.location}:", Tone.HEADING),
        Line(f"  - State: {status.state}", _TONES.get(status.state, Tone.PLAIN)),
        *_index_lines(status),
        Line(
            f"  - Vectors: {status.records} of {status.owners} users, the largest has "
            f"{status.largest_owner_records}"
        ),
        *_search_lines(status),
        *(Line(f"  - Note: {note}") for note in status.notes),
    ]


def _index_lines(status: IndexStatus) -> Iterator[Line]:
    if status.name is not None:
        size = status.size_bytes / _BYTES_PER_MEGABYTE
        parameters = ", ".join(f"{name} = {value}" for name, value in _parameters(status).items())
        yield Line(
            f"  - Index: {status.name} ({status.operator_class}, {parameters}), {size:.1f} MB"
        )
    if status.progress is not None:
        yield Line(f"  - Progress: {progress_text(status.progress)}")


def _parameters(status: IndexStatus) -> dict[str, int]:
    """What the index was built with, by the server's names."""
    given = {
        "m": status.m,
        "ef_construction": status.ef_construction,
        "lists": status.lists,
    }
    return {name: value for name, value in given.items() if value is not None}


def _search_lines(status: IndexStatus) -> Iterator[Line]:
    if status.exact_search_seconds is not None:
        milliseconds = 1_000 * status.exact_search_seconds
        yield Line(f"  - Exact search of the largest user: {milliseconds:.1f} ms")
    yield Line(f"  - Searches: {'approximate for large users' if status.is_searched else 'exact'}")


def _sql_lines(statements: Sequence[str]) -> list[Line]:
    return [Line(line) for statement in statements for line in f"{statement};".splitlines()]


# --- what a program reads ---------------------------------------------------------------------


def status_document(status: IndexStatus) -> Object:
    """The answer of all three commands."""
    document: Object = {**_head(), "state": status.state.value, "location": status.location}
    if status.name is not None:
        document["index"] = _index_document(status)
    if status.progress is not None:
        document["progress"] = {
            "phase": status.progress.phase,
            "percent": status.progress.percent,
            "waits_for_process": status.progress.waits_for,
        }
    document["records"] = status.records
    document["owners"] = status.owners
    document["largest_owner_records"] = status.largest_owner_records
    if status.exact_search_seconds is not None:
        document["exact_search_seconds"] = round(status.exact_search_seconds, 6)
    document["search"] = "approximate" if status.is_searched else "exact"
    document["is_worth_it"] = status.is_worth_it
    document["notes"] = list(status.notes)
    return document


def _index_document(status: IndexStatus) -> Object:
    document: Object = {
        "name": status.name,
        "type": status.type,
        "operator_class": status.operator_class,
        **_parameters(status),
        "size_bytes": status.size_bytes,
    }
    if status.built_on_records is not None:
        document["built_on_records"] = status.built_on_records
    return document


def _head() -> Object:
    return {"schema_version": SCHEMA_VERSION, "command": COMMAND}
