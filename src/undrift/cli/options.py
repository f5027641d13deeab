"""The options that several commands share, declared once.

``UNDRIFT_USER_ID``, ``UNDRIFT_OWNERS_FROM`` and ``UNDRIFT_ALL`` are read in `selection`: what the
command line chooses replaces what the environment chooses. Help texts are ASCII, so that every
terminal can show them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undrift.cli.fleet import EngineName
from undrift.cli.report import Output
from undrift.cli.streams import Color

UserIds = Annotated[
    list[str] | None,
    typer.Option(
        "--user-id",
        "--userId",
        "--owner",
        metavar="ID",
        help="A user; may be repeated.  [env var: UNDRIFT_USER_ID, separated by commas]",
    ),
]
OwnersFrom = Annotated[
    str | None,
    typer.Option(
        "--owners-from",
        metavar="FILE|-",
        help="A list of users: one id per line, blank lines and lines with # are skipped; - reads "
        "standard input.  [env var: UNDRIFT_OWNERS_FROM]",
    ),
]
Everybody = Annotated[
    bool, typer.Option("--all", help="Every user of either side.  [env var: UNDRIFT_ALL]")
]
Diff = Annotated[
    bool,
    typer.Option(
        "--diff",
        envvar="UNDRIFT_DIFF",
        help="Name what differs: + is missing from the vectors, - stale, * in both.",
    ),
]
Format = Annotated[
    Output, typer.Option("--output", envvar="UNDRIFT_OUTPUT", help="How the answer is written.")
]
ExitZero = Annotated[
    bool,
    typer.Option("--exit-zero", envvar="UNDRIFT_EXIT_ZERO", help="Exit 0 where it would be 1."),
]
Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", envvar="UNDRIFT_VERBOSE", help="Log to standard error."),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="UNDRIFT_CONFIG",
        help="The configuration; without it ./undrift.toml, if there is one.",
    ),
]
Colors = Annotated[
    Color,
    typer.Option(
        "--color", envvar="UNDRIFT_COLOR", help="When to use colours; auto honours NO_COLOR."
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force",
        envvar="UNDRIFT_FORCE",
        help="Rewrite and embed everything anew, in sync or not. Searches go on finding it.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        envvar="UNDRIFT_DRY_RUN",
        help="Write nothing; say what would be done and what it would cost. Exits as check does.",
    ),
]
MaxDelete = Annotated[
    str | None,
    typer.Option(
        "--max-delete",
        metavar="N|P%",
        envvar="UNDRIFT_MAX_DELETE",
        help="Delete at most so many vectors, or that share of them, else stop with exit 4. With "
        "--all and without this option: half, or 20 if that is more.",
    ),
]
MaxEmbeddings = Annotated[
    int | None,
    typer.Option(
        "--max-embeddings",
        metavar="N",
        envvar="UNDRIFT_MAX_EMBEDDINGS",
        help="Embed at most so many texts, else stop with exit 5 and keep what is done.",
    ),
]
RetryParked = Annotated[
    bool,
    typer.Option(
        "--retry-parked",
        envvar="UNDRIFT_RETRY_PARKED",
        help="Also try again at once what could not be embedded before.",
    ),
]
Yes = Annotated[
    bool, typer.Option("--yes", envvar="UNDRIFT_YES", help="Answer every question with yes.")
]

# --- a check of everybody -------------------------------------------------------------------------

Changed = Annotated[
    bool,
    typer.Option(
        "--changed",
        envvar="UNDRIFT_CHANGED",
        help="Only users who were changed since their last sync, as the triggers tell.",
    ),
]
Sample = Annotated[
    str | None,
    typer.Option(
        "--sample",
        metavar="P%",
        envvar="UNDRIFT_SAMPLE",
        help="With --all: only that share of the users, the same ones every time.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        envvar="UNDRIFT_SHARD",
        help="With --all: only part I of N, from 1; all of them together are everybody.",
    ),
]
Until = Annotated[
    str | None,
    typer.Option(
        "--until",
        metavar="HH:MM",
        envvar="UNDRIFT_UNTIL",
        help="With --all: stop then, by this machine's clock; the next run with --until or "
        "--resume goes on.",
    ),
]
Rate = Annotated[
    float | None,
    typer.Option(
        "--rate",
        metavar="N",
        envvar="UNDRIFT_RATE",
        help="With --all: at most so many users a second.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        envvar="UNDRIFT_RESUME",
        help="With --all: go on where the last such run was ended early.",
    ),
]
NoMemo = Annotated[
    bool,
    typer.Option(
        "--no-memo",
        envvar="UNDRIFT_NO_MEMO",
        help="With --all: render the source anew, whatever is remembered of it.",
    ),
]
Processes = Annotated[
    int | None,
    typer.Option(
        "--processes",
        metavar="N",
        envvar="UNDRIFT_PROCESSES",
        help="With --all: render in so many processes; without it, one for each core.",
    ),
]
SyncProcesses = Annotated[
    int | None,
    typer.Option(
        "--processes",
        metavar="N",
        envvar="UNDRIFT_PROCESSES",
        help="With --all: sync in so many processes, each with an embedder of its own; "
        "without it, in one.",
    ),
]
Engine = Annotated[
    EngineName,
    typer.Option(
        "--engine",
        envvar="UNDRIFT_ENGINE",
        help="With --all: work on this machine, or on all machines of a Ray cluster.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT",
        envvar="UNDRIFT_RAY_ADDRESS",
        help="The cluster's head; without it RAY_ADDRESS, or the cluster this machine is in.",
    ),
]
Embedders = Annotated[
    int | None,
    typer.Option(
        "--embedders",
        metavar="N",
        envvar="UNDRIFT_EMBEDDERS",
        help="With --engine ray: embed in so many processes; without it, in one.",
    ),
]
GpusPerEmbedder = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-embedder",
        metavar="N",
        envvar="UNDRIFT_GPUS_PER_EMBEDDER",
        help="With --engine ray: GPUs that each of them holds, such as 1 or 0.5; without it, none.",
    ),
]
FailAbove = Annotated[
    str | None,
    typer.Option(
        "--fail-above",
        metavar="N|P%",
        envvar="UNDRIFT_FAIL_ABOVE",
        help="Exit 1 only if more users than that are out of sync.",
    ),
]
