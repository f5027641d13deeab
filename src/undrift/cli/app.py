"""The command ``undrift``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from undrift.cli import doctor, index, init, options, state, status, triggers, watch
from undrift.cli.commands import run_check, run_plan, run_sync
from undrift.cli.completion import completion, prepare
from undrift.cli.examples import epilog
from undrift.cli.fleet import NO_TOLERANCE, EngineName, FleetChoice, Tolerance
from undrift.cli.invoke import invoke
from undrift.cli.problems import UsageError
from undrift.cli.report import Kind, Output, text_of
from undrift.cli.run import View, run_search
from undrift.cli.selection import select_owners
from undrift.cli.streams import Color, open_terminal
from undrift.guard import DeleteLimit

EXIT_CODES = (
    "Exit codes: 0 in sync, or repaired and verified; 1 drift found or left, or a write failed; "
    "2 usage or configuration; 3 unknown, could not look; 4 safety stop; 5 embedding budget spent; "
    "130, 143 interrupted, progress kept."
)

app = typer.Typer(
    name="undrift",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=epilog(
        "undrift demo --embedder hashing  # see it on sample data",
        "undrift check --all  # compare everybody, write nothing",
        "undrift sync --all  # repair what differs, and verify it",
        "undrift search --user-id 123 'payment systems'",
        note=EXIT_CODES,
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``undrift`` and return its exit code.

    Args:
        arguments: None means those of this process.
    """
    prepare()
    return invoke(app, "undrift", sys.argv[1:] if arguments is None else arguments)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from undrift import __version__

        typer.echo(f"undrift {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def undrift(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Keep a vector database true to the relational database it was built from.

    DATABASE_URL names the relational database, VECTOR_URL the vector database.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


@app.command(
    epilog=epilog(
        "undrift check --user-id 123 --diff  # one user, and what differs by name",
        "undrift check --all --output json  # for cron and CI",
        "undrift check --all --until 06:00 --rate 500  # in quiet hours",
        "undrift check --changed  # who was changed since the last sync",
        note=EXIT_CODES,
    )
)
def check(
    user_id: options.UserIds = None,
    owners_from: options.OwnersFrom = None,
    everybody: options.Everybody = False,
    changed: options.Changed = False,
    sample: options.Sample = None,
    shard: options.Shard = None,
    until: options.Until = None,
    rate: options.Rate = None,
    resume: options.Resume = False,
    no_memo: options.NoMemo = False,
    processes: options.Processes = None,
    engine: options.Engine = EngineName.LOCAL,
    ray_address: options.RayAddress = None,
    fail_above: options.FailAbove = None,
    diff: options.Diff = False,
    output: options.Format = Output.TEXT,
    exit_zero: options.ExitZero = False,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Compare both sides and say how they differ. Changes neither."""
    view = View(output=output, color=color, is_verbose=verbose, config=config, exit_zero=exit_zero)
    choice = FleetChoice(
        changed=changed,
        sample=sample,
        shard=shard,
        until=until,
        rate=rate,
        resume=resume,
        no_memo=no_memo,
        processes=processes,
        engine=engine,
        ray_address=ray_address,
    )
    return run_check(
        select_owners(user_id or (), owners_from, everybody, changed=changed),
        view,
        with_ids=diff,
        choice=choice,
        tolerance=NO_TOLERANCE if fail_above is None else Tolerance.parse(fail_above),
    )


@app.command(
    short_help="Repair what differs, and verify it.",
    epilog=epilog(
        "undrift sync --user-id 123  # one user",
        "undrift sync --all --dry-run  # what it would do and cost",
        "undrift sync --all --max-delete 10% --max-embeddings 5000",
        "undrift sync --all --processes 3",
        note=EXIT_CODES,
    ),
)
def sync(
    user_id: options.UserIds = None,
    owners_from: options.OwnersFrom = None,
    everybody: options.Everybody = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    diff: options.Diff = False,
    max_delete: options.MaxDelete = None,
    max_embeddings: options.MaxEmbeddings = None,
    retry_parked: options.RetryParked = False,
    processes: options.SyncProcesses = None,
    engine: options.Engine = EngineName.LOCAL,
    ray_address: options.RayAddress = None,
    embedders: options.Embedders = None,
    gpus_per_embedder: options.GpusPerEmbedder = None,
    yes: options.Yes = False,
    output: options.Format = Output.TEXT,
    exit_zero: options.ExitZero = False,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Repair what differs, at the cost of the difference, and verify it."""
    selection = select_owners(user_id or (), owners_from, everybody)
    if max_delete is not None:
        DeleteLimit.parse(max_delete)  # a typing error should not wait for the end of the run
    view = View(output=output, color=color, is_verbose=verbose, config=config, exit_zero=exit_zero)
    choice = FleetChoice(
        processes=processes,
        engine=engine,
        ray_address=ray_address,
        embedders=embedders,
        gpus_per_embedder=gpus_per_embedder,
    )
    if dry_run:
        return run_plan(selection, view, force=force, with_ids=diff, choice=choice)
    return run_sync(
        selection,
        view,
        force=force,
        max_delete=max_delete,
        max_embeddings=max_embeddings,
        retry_parked=retry_parked,
        is_confirmed=yes,
        with_ids=diff,
        choice=choice,
    )


@app.command(
    short_help="Find what of one user is nearest to a query.",
    epilog=epilog(
        "undrift search --user-id 123 'payment systems'",
        "undrift search --user-id 123 'data pipelines' --kind project --limit 3",
        "undrift search --user-id 123 databases --output json",
    ),
)
def search(
    query: Annotated[str, typer.Argument(help="What to look for, in words.")],
    user_id: options.UserIds = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            envvar="UNDRIFT_KIND",
            help="Only this kind, such as experience; may be repeated.",
        ),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", envvar="UNDRIFT_LIMIT", help="At most so many results.")
    ] = 10,
    output: options.Format = Output.TEXT,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Find what of one user is nearest to a query, joined to the source."""
    owners = select_owners(user_id or (), None, False, ways="one --user-id ID").owners or ()
    if len(owners) != 1:
        raise UsageError(
            "A search takes one user",
            why="it looks at one user's vectors only, and several were named.",
            fix="give one --user-id",
        )
    view = View(output=output, color=color, is_verbose=verbose, config=config)
    return run_search(
        view, lambda sides: sides.search(owners[0], query, kinds=kind or None, limit=limit)
    )


app.add_typer(index.app)
app.add_typer(triggers.app)
app.add_typer(state.app)
app.command(
    short_help="Sync whoever is touched, continuously.",
    epilog=epilog(*watch.EXAMPLES, note=watch.CODES),
)(watch.watch)
app.command(
    short_help="Say who waits to be synced, and what cannot be.",
    epilog=epilog(*status.EXAMPLES, note=status.CODES),
)(status.status)
app.command(
    short_help="Look at your database and write an undrift.toml that fits.",
    epilog=epilog(*init.EXAMPLES, note=init.CODES),
)(init.init)
app.command(
    short_help="Look at the whole setup, and say how to mend it.",
    epilog=epilog(*doctor.EXAMPLES, note=doctor.CODES),
)(doctor.doctor)
app.command(
    short_help="Print a script for completion in your shell.",
    epilog=epilog(
        "undrift completion bash  # to try it: source <(undrift completion bash)",
        "undrift completion zsh",
        "undrift completion fish",
    ),
)(completion)


@app.command(
    epilog=epilog(
        "undrift demo",
        "undrift demo --embedder hashing --folder elsewhere  # needs no model",
    )
)
def demo(
    folder: Annotated[
        Path,
        typer.Option(
            "--folder", metavar="PATH", envvar="UNDRIFT_FOLDER", help="Where the demo works."
        ),
    ] = Path("undrift-demo"),
    embedder: Annotated[
        str,
        typer.Option(
            "--embedder",
            metavar="NAME",
            envvar="UNDRIFT_EMBEDDER",
            help="With hashing nothing more needs to be installed, and nothing is understood.",
        ),
    ] = "local",
    color: options.Colors = Color.AUTO,
) -> int:
    """Show on sample data what undrift does."""
    from undrift.demo import story

    terminal = open_terminal(color)
    return story.run(
        folder,
        write=terminal.out.write,
        render_check=lambda statuses: text_of(Kind.CHECK, statuses),
        render_sync=lambda reports: text_of(Kind.SYNC, reports),
        embedder=embedder,
    )
