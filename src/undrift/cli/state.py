"""The commands ``undrift state show`` and ``undrift state adopt``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from undrift.cli import exit_codes, options, render_text
from undrift.cli.commands import require_yes
from undrift.cli.examples import epilog
from undrift.cli.render_json import SCHEMA_VERSION, Object, error_object
from undrift.cli.report import Output
from undrift.cli.run import View, run_answer
from undrift.cli.streams import Color, Line, Terminal, Tone
from undrift.events import SyncEvent

if TYPE_CHECKING:
    from undrift.api import Undrift
    from undrift.service import StateInfo

COMMAND = "state"
CODES = (
    "Exit codes: 0 this configuration may write; 2 it may not, or usage or configuration; 3 could "
    "not look."
)
_PROMISES = {
    "T": "state and vectors change in one transaction, so that no late write gets through",
    "C": "every write is conditional on its version, and deletes leave tombstones, so that no late "
    "write gets through",
    "N": "the store cannot refuse a late write: what may have landed is looked at again until it "
    "certainly has",
}

app = typer.Typer(
    name=COMMAND,
    help="Look at undrift's own state, or take the vectors over.",
    rich_markup_mode=None,
    no_args_is_help=False,
    epilog=epilog(
        "undrift state show",
        "undrift state adopt --yes",
        note=CODES,
    ),
)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is shown.

    Attributes:
        is_adopted: the store has just been taken over.
    """

    info: StateInfo
    is_adopted: bool = False


@app.command(
    epilog=epilog(
        "undrift state show  # where it is, and whether this configuration may write",
        "undrift state show --output json",
        note=CODES,
    )
)
def show(
    output: options.Format = Output.TEXT,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Say where the state is, whose the vectors are, and who may write. Writes nothing."""
    view = View(output=output, color=color, is_verbose=verbose, config=config)
    return _answer(view, lambda sides, terminal: _Answer(sides.state_info()))


@app.command(
    short_help="Take the vectors over for this state and source.",
    epilog=epilog(
        "undrift state adopt  # asks first",
        "undrift state adopt --yes --output json",
        note=CODES,
    ),
)
def adopt(
    yes: options.Yes = False,
    output: options.Format = Output.TEXT,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Take the vectors over for this state, this source and this configuration.

    For when the state that they belong to is lost, the source has moved, or an earlier
    configuration is to count again. Whoever wrote them until now stops. Everybody is then looked
    at again by the next syncs.
    """
    view = View(output=output, color=color, is_verbose=verbose, config=config)

    def work(sides: Undrift, terminal: Terminal) -> _Answer:
        before = sides.state_info()
        if not yes:
            require_yes(terminal, _question(before))

        def tell(event: SyncEvent) -> None:
            terminal.tell(render_text.notice_lines(event))

        sides.adopt_state(listener=tell)
        return _Answer(sides.state_info(), is_adopted=True)

    return _answer(view, work)


def _answer(view: View, work: Callable[[Undrift, Terminal], _Answer]) -> int:
    def code(answer: _Answer) -> int:
        return exit_codes.IN_SYNC if answer.info.refusal is None else exit_codes.USAGE

    return run_answer(
        view,
        COMMAND,
        work,
        lines=lambda answer: list(state_lines(answer)),
        document=state_document,
        exit_code=code,
    )


def _question(before: StateInfo) -> str:
    if before.refusal is None:
        return "This configuration may write already; everybody would only be looked at again."
    return f"{before.refusal.what}: {before.refusal.why} Whoever writes it now will have to stop."


# --- what a person reads ----------------------------------------------------------------------


def state_lines(answer: _Answer) -> Iterator[Line]:
    """Where the state is, whose the vectors are, and who may write."""
    info = answer.info
    if answer.is_adopted:
        yield Line("✅ The vectors belong to this state, source and configuration now", Tone.GOOD)
        yield Line("   Everybody is looked at again by the next syncs")
    yield Line(f"🔍 State {info.location}:", Tone.HEADING)
    if info.standing is None:
        yield Line("  - Not created yet; the first sync creates it")
    else:
        yield Line(f"  - State id: {info.standing.state_id}")
        yield Line(f"  - Epoch: {info.standing.epoch}")
        yield Line(f"  - Current configuration: {info.standing.config or 'none yet'}")
    yield Line(f"  - This configuration: {info.config}")
    if info.claim is None:
        yield Line("  - Vectors claimed by: nobody yet")
    else:
        source = f", for source {info.claim.source}" if info.claim.source else ""
        yield Line(
            f"  - Vectors claimed by: state {info.claim.state_id}, epoch {info.claim.epoch}{source}"
        )
    promise = _PROMISES[info.store_class.value]
    yield Line(f"  - Store class: {info.store_class.value}: {promise}")
    if info.refusal is None:
        yield Line("  - This configuration may write: true")
    else:
        yield Line("  - This configuration may write: false", Tone.BAD)
        yield Line(f"  - {info.refusal.what}: {info.refusal.why}")
        yield Line(f"  - Fix: {info.refusal.fix}")


# --- what a program reads ---------------------------------------------------------------------


def state_document(answer: _Answer) -> Object:
    """The answer of both commands."""
    info = answer.info
    document: Object = {
        "schema_version": SCHEMA_VERSION,
        "command": COMMAND,
        "location": info.location,
        "store_class": info.store_class.value,
        "config": info.config,
        "may_write": info.refusal is None,
        "standing": None,
        "claim": None,
    }
    if info.standing is not None:
        document["standing"] = {
            "state_id": info.standing.state_id,
            "epoch": info.standing.epoch,
            "config": info.standing.config or None,
        }
    if info.claim is not None:
        document["claim"] = {
            "state_id": info.claim.state_id,
            "epoch": info.claim.epoch,
            "source": info.claim.source or None,
        }
    if info.refusal is not None:
        document["refusal"] = error_object(info.refusal)
    if answer.is_adopted:
        document["is_adopted"] = True
    return document
