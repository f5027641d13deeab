"""The command ``db-sync-vector``: the flags of the script that undrift took over from."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from undrift.cli.commands import run_check, run_sync
from undrift.cli.invoke import invoke
from undrift.cli.problems import UsageError
from undrift.cli.run import View
from undrift.cli.selection import select_owners

app = typer.Typer(
    name="db-sync-vector",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``db-sync-vector`` and return its exit code.

    Args:
        arguments: None means those of this process. A bare ``--`` is left out: ``npm run
            db:sync-vector -- --check …`` is what fingers know, and nothing here needs one.
    """
    words = sys.argv[1:] if arguments is None else arguments
    return invoke(app, "db-sync-vector", [word for word in words if word != "--"])


@app.command(epilog="Exit codes are those of undrift check and undrift sync.")
def db_sync_vector(
    check: Annotated[bool, typer.Option("--check", "-c", help="Compare, write nothing.")] = False,
    sync: Annotated[bool, typer.Option("--sync", "-s", help="Repair and verify.")] = False,
    user_id: Annotated[
        list[str] | None,
        typer.Option("--userId", "--user-id", "-u", metavar="ID", help="One user."),
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", "-a", help="Every user.")] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="With --sync: rewrite what is in sync, too.")
    ] = False,
) -> int:
    """Check or sync the vector database; `undrift` can do more."""
    if check == sync:
        raise UsageError(
            "--check and --sync exclude each other" if check else "Neither --check nor --sync",
            why="one run either compares or repairs.",
            fix="give --check or --sync, as in db-sync-vector --check --userId=123",
        )
    if everybody == bool(user_id):
        raise UsageError(
            "--userId and --all exclude each other" if everybody else "Neither --userId nor --all",
            why="one run is either about one user or about everybody.",
            fix="give --userId=ID or --all, as in db-sync-vector --check --userId=123",
        )
    selection = select_owners(user_id or (), None, everybody)
    if check:
        return run_check(selection, View())
    return run_sync(selection, View(), force=force, foretells=False)
