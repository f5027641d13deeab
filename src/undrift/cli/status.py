"""The command ``undrift status``: who waits, what cannot be done, who is at work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from undrift.cli import exit_codes, options
from undrift.cli.ages import duration, moment, rounded
from undrift.cli.render_json import SCHEMA_VERSION, Object
from undrift.cli.report import Output
from undrift.cli.run import View, run_answer
from undrift.cli.streams import Color, Line, Tone

if TYPE_CHECKING:
    from undrift.changes import ChangeStatus
    from undrift.service import SyncState
    from undrift.state import ParkedRecord, SeenWorker, StateSummary

COMMAND = "status"
EXAMPLES = (
    "undrift status  # who waits, who is at work, what needs a person",
    "undrift status --output json  # for a monitor",
    "undrift status --parked 1000  # more of what cannot be embedded",
)
CODES = (
    "Exit codes: 0 nobody waits for more than a day, and nothing is parked or failing; 1 a person "
    "should look; 2 usage or configuration; 3 could not look."
)


def status(
    parked: Annotated[
        int,
        typer.Option(
            "--parked",
            metavar="N",
            min=0,
            envvar="UNDRIFT_PARKED",
            help="List at most so many of the records that cannot be made.",
        ),
    ] = 20,
    output: options.Format = Output.TEXT,
    exit_zero: options.ExitZero = False,
    verbose: options.Verbose = False,
    config: options.Config = None,
    color: options.Colors = Color.AUTO,
) -> int:
    """Say who waits to be synced, what cannot be, and who is at work. Writes nothing.

    It tells what is remembered, and compares nothing: whether both sides agree is said by check.
    """
    view = View(output=output, color=color, is_verbose=verbose, config=config)

    def code(state: SyncState) -> int:
        is_quiet = exit_zero or not needs_attention(state)
        return exit_codes.IN_SYNC if is_quiet else exit_codes.DRIFT

    return run_answer(
        view,
        COMMAND,
        lambda sides, terminal: sides.status(max_parked=parked),
        lines=lambda state: list(status_lines(state)),
        document=status_document,
        exit_code=code,
    )


def needs_attention(state: SyncState) -> bool:
    """Whether a person should look."""
    summary = state.summary
    return summary is None or bool(summary.failing or summary.parked or state.warnings)


# --- what a person reads ----------------------------------------------------------------------


def status_lines(state: SyncState) -> Iterator[Line]:
    """What is remembered of everybody."""
    yield Line(f"📊 Sync state {state.location}:", Tone.HEADING)
    if state.summary is None:
        yield Line("  - Not created yet; `undrift sync --all` creates it", Tone.WARNING)
    else:
        yield from _summary_lines(state.summary)
        yield from _parked_lines(state.summary, state.parked)
    if state.changes is not None:
        yield from _change_lines(state.changes)
    if state.summary is not None:
        yield from map(_worker_line, state.summary.workers)
    for warning in state.warnings:
        yield Line(f"⚠️ Warning: {warning}", Tone.WARNING)


def _summary_lines(summary: StateSummary) -> Iterator[Line]:
    oldest = summary.oldest_dirty_seconds
    longest = "" if oldest is None else f", the longest for {duration(oldest)}"
    yield Line(f"  - Users: {summary.owners}")
    yield Line(f"  - Users waiting: {summary.dirty}{longest}")
    yield Line(f"  - Users failing: {summary.failing}", Tone.BAD if summary.failing else Tone.PLAIN)
    if summary.failing:
        yield Line(f"  - Last error: {summary.last_error}")
    yield Line(f"  - Entities published: {summary.published} of {summary.entities}")
    if summary.unverified_seconds is not None:
        yield Line(
            f"  - Unverified since: {moment(-summary.unverified_seconds)} "
            f"({duration(summary.unverified_seconds)})"
        )
    if summary.never_verified:
        yield Line(f"  - Users never verified: {summary.never_verified}")
    spent, managed = sum(summary.usage.spent.values()), sum(summary.usage.managed.values())
    waits = "; more are waiting" if summary.deletes_waiting else ""
    yield Line(f"  - Deleted by programs within 24 h: {spent} of {managed}{waits}")


def _parked_lines(summary: StateSummary, parked: Sequence[ParkedRecord]) -> Iterator[Line]:
    yield Line(f"  - Records parked: {summary.parked}", Tone.BAD if summary.parked else Tone.PLAIN)
    for each in parked:
        tries = "once" if each.attempts == 1 else f"{each.attempts} times"
        again = "due" if each.retry_in_seconds <= 0 else f"in {duration(each.retry_in_seconds)}"
        yield Line(
            f"    {each.kind}:{each.entity_id} of user {each.owner_id}: {each.reason} (tried "
            f"{tries}, the next try is {again})"
        )
    if summary.parked > len(parked):
        yield Line(f"    … and {summary.parked - len(parked)} more")


def _change_lines(changes: ChangeStatus) -> Iterator[Line]:
    if not changes.is_installed:
        yield Line("  - Triggers: none; changes are found when everybody is looked at")
        return
    fault = f", {len(changes.problems)} problems" if changes.problems else ""
    age = changes.oldest_seconds
    oldest = "" if age is None else f", the oldest {duration(age)} old"
    yield Line(f"  - Triggers: on {', '.join(changes.tables) or 'no table'}{fault}")
    yield Line(f"  - Marks not taken: {changes.marks}{oldest}")


def _worker_line(worker: SeenWorker) -> Line:
    report = worker.report
    return Line(
        f"  - Worker {report.worker_id}: {report.owners} users ({_rate(worker):.1f}/s), "
        f"{report.failures} failed, {report.embedded} texts embedded, {report.written} written, "
        f"{report.deleted} deleted; seen {duration(worker.seen_seconds)} ago"
    )


def _rate(worker: SeenWorker) -> float:
    """Owners a second, from its beginning until it was last heard of."""
    return worker.report.owners / max(worker.started_seconds - worker.seen_seconds, 1.0)


# --- what a program reads ---------------------------------------------------------------------


def status_document(state: SyncState) -> Object:
    """The answer."""
    document: Object = {
        "schema_version": SCHEMA_VERSION,
        "command": COMMAND,
        "location": state.location,
        "needs_attention": needs_attention(state),
        "warnings": list(state.warnings),
    }
    if state.summary is not None:
        document.update(_summary_object(state.summary))
        document["parked_records"] = list(map(_parked_object, state.parked))
        document["workers"] = list(map(_worker_object, state.summary.workers))
    if state.changes is not None:
        document["changes"] = _changes_object(state.changes)
    return document


def _summary_object(summary: StateSummary) -> Object:
    unverified = summary.unverified_seconds
    return {
        "owners": summary.owners,
        "dirty": summary.dirty,
        "oldest_dirty_seconds": rounded(summary.oldest_dirty_seconds),
        "failing": summary.failing,
        "last_error": summary.last_error or None,
        "entities": summary.entities,
        "published": summary.published,
        "never_verified": summary.never_verified,
        "unverified_seconds": rounded(unverified),
        "unverified_since": None if unverified is None else moment(-unverified),
        "deletes": {
            "spent": dict(summary.usage.spent),
            "managed": dict(summary.usage.managed),
            "are_waiting": summary.deletes_waiting,
        },
        "parked": summary.parked,
    }


def _parked_object(record: ParkedRecord) -> Object:
    return {
        "owner_id": record.owner_id,
        "id": f"{record.kind}:{record.entity_id}",
        "reason": record.reason,
        "attempts": record.attempts,
        "retry_in_seconds": rounded(record.retry_in_seconds),
        "retry_at": moment(record.retry_in_seconds),
    }


def _worker_object(worker: SeenWorker) -> Object:
    report = worker.report
    return {
        "worker_id": report.worker_id,
        "owners": report.owners,
        "failures": report.failures,
        "embedded": report.embedded,
        "written": report.written,
        "deleted": report.deleted,
        "owners_per_second": round(_rate(worker), 3),
        "started_at": moment(-worker.started_seconds),
        "seen_at": moment(-worker.seen_seconds),
    }


def _changes_object(changes: ChangeStatus) -> Object:
    return {
        "is_installed": changes.is_installed,
        "problems": list(changes.problems),
        "marks": changes.marks,
        "oldest_mark_seconds": rounded(changes.oldest_seconds),
    }
