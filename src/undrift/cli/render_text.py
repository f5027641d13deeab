"""What a person reads: results, events, sums and errors as lines. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from undrift.cli.ages import duration
from undrift.cli.streams import Line, Tone
from undrift.cli.tally import LEFT, Tally
from undrift.errors import UndriftError
from undrift.events import (
    BatchDeleted,
    BatchWritten,
    CheckPaused,
    CheckStarted,
    DeletesHeld,
    EverybodyMarked,
    OwnersBusy,
    RepairStarted,
    StateCreated,
    StoreCreated,
    SyncEvent,
    TriggersAmiss,
)
from undrift.model import (
    NOT_CREATED,
    Cost,
    EntityId,
    Hit,
    Outcome,
    Read,
    SearchResult,
    SyncReport,
    SyncStatus,
)

if TYPE_CHECKING:
    from undrift.connections import Setup

LABELS = {
    "experience": "experiences",
    "project": "projects",
    "project_update": "project updates",
    "education": "education",
    "skill": "skills",
}
"""Kinds in the plural, in the order of their lines; any other kind follows with an s."""

_SNIPPET_CHARACTERS = 200

_IN_SYNC = {
    Outcome.IN_SYNC: Line("  - In sync: true", Tone.GOOD),
    Outcome.DRIFT: Line("  - In sync: false", Tone.BAD),
    Outcome.FAILED: Line("  - In sync: false", Tone.BAD),
    Outcome.IN_MOTION: Line("  - In sync: in motion", Tone.WARNING),
    Outcome.UNKNOWN: Line("  - In sync: unknown", Tone.WARNING),
    Outcome.NOT_FOUND: Line("  - In sync: unknown", Tone.WARNING),
}

_ENDINGS = {
    Outcome.FAILED: Line("❌ Vector database sync failed for user {}", Tone.BAD),
    Outcome.DRIFT: Line("⚠️ Vector database sync not finished for user {}", Tone.BAD),
    Outcome.UNKNOWN: Line("❓ Vector database sync result unknown for user {}", Tone.WARNING),
    Outcome.IN_MOTION: Line("⏳ User {} kept changing during the sync", Tone.WARNING),
    Outcome.NOT_FOUND: Line("❌ User {} not found", Tone.BAD),
}


# --- check ------------------------------------------------------------------------------------


def check_block(status: SyncStatus, *, with_ids: bool = False) -> list[Line]:
    """How one owner's two sides compare.

    Args:
        with_ids: name every entity that differs.
    """
    heading = Line(f"🔍 Vector sync check for user {status.owner_id}:", Tone.HEADING)
    return [heading, *_comparison(status), *(ids_of(status) if with_ids else ())]


def check_summary(tally: Tally) -> list[Line]:
    """The sums of a check."""
    return [
        Line("📊 Summary:", Tone.HEADING),
        Line(f"  - Users checked: {tally.owners}"),
        Line(f"  - Users in sync: {tally.outcomes[Outcome.IN_SYNC]}"),
        Line(f"  - Users out of sync: {tally.out_of_sync}"),
        *_unless_zero("Users in motion", tally.outcomes[Outcome.IN_MOTION]),
        *_unless_zero("Users unknown", tally.outcomes[Outcome.UNKNOWN]),
        *_unless_zero("Users not found", tally.outcomes[Outcome.NOT_FOUND]),
        *_read(tally),
    ]


def _read(tally: Tally) -> Iterator[Line]:
    """What a run over everybody read, unless it was everything."""
    if tally.is_partial:
        yield Line("  - Seen: not everybody yet; the next run goes on", Tone.WARNING)
    if tally.read is not Read.FULL:
        yield Line(f"  - Read: {_READ[tally.read]}")
    share = tally.out_of_sync_at_most
    if share is not None and tally.owners:
        yield Line(
            f"  - Of all users at most {100 * share:.2g} % are out of sync, with 95 % confidence"
        )


_READ = {
    Read.DIGESTS: "digests of both sides, and in full whoever differs",
    Read.CHANGED: "users who were changed since their last sync",
    Read.SAMPLE: "a sample of all users",
}


def stamp_summary(tally: Tally) -> list[Line]:
    """The sums of stamping: what got a stamp, and what is left."""
    left = (_unless_zero(f"Left: {LEFT[name].lower()}", tally.left[name]) for name in LEFT)
    return [
        *check_summary(tally),
        Line(f"  - Records stamped: {tally.stamped}"),
        *(line for lines in left for line in lines),
    ]


def ids_of(status: SyncStatus) -> Iterator[Line]:
    """Every entity that differs: ``+`` is missing in the store, ``-`` stale, ``*`` in both."""
    yield from (Line(f"    + {key}") for key in status.missing_ids)
    yield from (Line(f"    - {key}") for key in status.stale_ids)
    both: dict[EntityId, list[str]] = {}
    for reason, keys in (
        ("changed", status.changed_ids),
        ("wrong model", status.wrong_model_ids),
        ("duplicate", status.duplicate_ids),
        ("content unknown", status.unknown_ids),
    ):
        for key in keys:
            both.setdefault(key, []).append(reason)
    yield from (Line(f"    * {key} ({', '.join(both[key])})") for key in sorted(both))


def _comparison(status: SyncStatus) -> Iterator[Line]:
    if status.outcome is Outcome.NOT_FOUND:
        yield Line("  - Not found: neither the source nor the vector store has this user", Tone.BAD)
        return
    if status.error is not None and status.outcome is Outcome.UNKNOWN:
        yield Line(f"  - Could not look: {status.error.what}")
        yield _IN_SYNC[status.outcome]
        return
    for kind in _kinds(status):
        yield Line(f"  - Profile {label(kind)}: {status.source.get(kind, 0)}")
        yield Line(f"  - Vector {label(kind)}: {status.store.get(kind, 0)}")
    yield Line(f"  - Missing from vectors: {len(status.missing_ids)}")
    yield Line(f"  - Stale in vectors: {len(status.stale_ids)}")
    yield from _unless_zero("Content changed", len(status.changed_ids))
    yield from _unless_zero("Wrong model", len(status.wrong_model_ids))
    yield from _unless_zero("Duplicates", len(status.duplicate_ids))
    yield from _unless_zero("Content unknown", len(status.unknown_ids))
    yield from _unless_zero("Not stamped yet", status.unstamped)
    yield from _unless_zero("Without text", status.without_text)
    yield from _unless_zero("Unmanaged", status.unmanaged)
    if status.orphan_owner:
        yield Line("  - Orphan owner: true")
    yield from _notes(status.notes)
    yield _IN_SYNC[status.outcome]


def _kinds(status: SyncStatus) -> list[str]:
    found = {kind for counts in (status.source, status.store) for kind, n in counts.items() if n}
    found.add("experience")
    return [*(kind for kind in LABELS if kind in found), *sorted(found - LABELS.keys())]


def label(kind: str) -> str:
    """A kind in the plural."""
    return LABELS.get(kind) or f"{kind.replace('_', ' ')}s"


# --- sync -------------------------------------------------------------------------------------


def event_lines(event: SyncEvent) -> list[Line]:
    """What a sync says of an owner while it works."""
    match event:
        case RepairStarted(owner_id):
            return [
                Line(f"🔄 Starting vector database sync for user {owner_id}...", Tone.HEADING),
                Line(f"📥 Importing fresh profile data for user {owner_id}..."),
            ]
        case BatchWritten(_, number, count, total):
            return [Line(f"✅ Wrote batch {number}: {count} vectors (total: {total})")]
        case BatchDeleted(owner_id, number, count, total):
            return [
                Line(f"🧹 Clearing vector batch {number} for user {owner_id}..."),
                Line(f"✅ Deleted batch {number}: {count} vectors (total: {total})"),
            ]
    return []


def notice_lines(event: SyncEvent) -> list[Line]:
    """What a sync says of the whole run while it works."""
    match event:
        case StoreCreated(location, statements):
            count = f" ({len(statements)} statements)" if statements else ""
            return [Line(f"Created the vector store {location}{count}")]
        case StateCreated(location, statements):
            count = f" ({len(statements)} statements)" if statements else ""
            return [Line(f"Created the state {location}{count}")]
        case OwnersBusy(owners):
            users = "1 user" if owners == 1 else f"{owners} users"
            return [Line(f"Waiting for another worker, which is syncing {users}")]
        case DeletesHeld(owners, deletes, managed):
            return [
                Line(
                    f"Everything has been seen: {deletes} of {managed} records are to be deleted, "
                    f"for {owners} users"
                )
            ]
        case CheckStarted(outcomes=outcomes, began_seconds=began_seconds) if (
            began_seconds is not None
        ):
            ago = duration(began_seconds)
            done = sum(outcomes.values())
            return [Line(f"Going on with the check that began {ago} ago; {done} users are done")]
        case CheckPaused(done):
            return [Line(f"The time is up; {done} users are done, and the next run goes on")]
        case TriggersAmiss(problems):
            said = (f"⚠️ NOTICE: changes may be missing here: {each}" for each in problems)
            return [Line(text, Tone.WARNING) for text in said]
        case EverybodyMarked():
            return [Line("Anybody may have been changed, so everybody is checked")]
    return []


def sync_ending(report: SyncReport, *, with_ids: bool = False) -> list[Line]:
    """How the sync of one owner ended.

    Args:
        with_ids: name every entity that differed before.
    """
    owner = report.owner_id
    if report.skipped:
        return [Line(f"✅ User {owner} is already in sync", Tone.GOOD)]
    ids = list(ids_of(report.before)) if with_ids else []
    if report.outcome is Outcome.IN_SYNC:
        return [
            *ids,
            Line(f"✅ Vector database sync completed for user {owner}", Tone.GOOD),
            Line("🎉 Vector database sync verification successful", Tone.GOOD),
        ]
    ending = _ENDINGS[report.outcome]
    lines = [*ids, ending._replace(text=ending.text.format(owner))]
    lines.extend(_unless_zero("Vectors written", report.written))
    lines.extend(_unless_zero("Vectors deleted", report.deleted))
    if report.error is not None and report.outcome is not Outcome.NOT_FOUND:
        lines.append(Line(f"  - {report.error.what}"))
        if report.outcome is Outcome.FAILED:
            # What stopped others too has its fix on standard error, once for all of them.
            lines.append(Line(f"  - Fix: {report.error.fix}"))
    return lines


def sync_summary(tally: Tally, *, is_everybody: bool = False) -> list[Line]:
    """The sums of a sync.

    Args:
        is_everybody: the run goes over everybody, so that those who needed nothing have no line.
    """
    return [
        Line("📊 Summary:", Tone.HEADING),
        Line(f"  - Users synced: {tally.outcomes[Outcome.IN_SYNC]}"),
        Line(f"  - Users failed: {tally.outcomes[Outcome.FAILED]}"),
        *_unless_zero("Users in sync already", tally.skipped if is_everybody else 0),
        *_unless_zero("Users out of sync", tally.outcomes[Outcome.DRIFT]),
        *_unless_zero("Users in motion", tally.outcomes[Outcome.IN_MOTION]),
        *_unless_zero("Users unknown", tally.outcomes[Outcome.UNKNOWN]),
        *_unless_zero("Users not found", tally.outcomes[Outcome.NOT_FOUND]),
        *_unless_zero("Texts longer than the model reads", tally.truncated),
    ]


def plan_block(report: SyncReport, *, with_ids: bool = False) -> list[Line]:
    """What a sync of one owner would do."""
    heading = Line(f"🔍 Vector sync plan for user {report.owner_id} (dry run):", Tone.HEADING)
    lines = [heading, *_comparison(report.before)]
    if report.error is None and report.outcome is not Outcome.NOT_FOUND:
        lines.extend(_cost(report.cost))
    return [*lines, *(ids_of(report.before) if with_ids else ())]


def plan_summary(tally: Tally) -> list[Line]:
    """The sums of a dry run."""
    return [*check_summary(tally), *_cost(tally.cost)]


def _cost(cost: Cost) -> list[Line]:
    tokens = f" (about {cost.tokens} tokens)" if cost.tokens else ""
    return [
        Line(f"  - Texts to embed: {cost.texts}{tokens}"),
        Line(f"  - Vectors to write: {cost.writes}"),
        Line(f"  - Vectors to delete: {cost.deletes}"),
    ]


# --- search -----------------------------------------------------------------------------------


def search_block(result: SearchResult) -> list[Line]:
    """The hits of a search, best first."""
    count = len(result.hits)
    found = f"{count} result{'' if count == 1 else 's'}"
    lines = [Line(f"🔍 {found} for user {result.owner_id}:", Tone.HEADING)]
    for rank, hit in enumerate(result.hits, start=1):
        lines.extend(_hit(rank, hit))
    if result.stale_ids:
        stale = ", ".join(result.stale_ids)
        lines.append(Line(f"  - Stale in vectors, left out: {stale}", Tone.WARNING))
    if result.met_drift:
        # At the prompt nothing heals by itself: a person decides.
        owner = shlex.quote(result.owner_id)
        option = f"--user-id={owner}" if owner.startswith("-") else f"--user-id {owner}"
        lines.append(Line(f"  - Repair: undrift sync {option}"))
    lines.extend(_notes(result.notes))
    return lines


def _notes(notes: Iterable[str]) -> Iterator[Line]:
    for note in notes:
        # Who comes with vectors of another program takes "0 vectors" for a loss.
        more = "; what other programs stored is not read" if note == NOT_CREATED else ""
        yield Line(f"  - Note: {note}{more}", Tone.WARNING)


def _hit(rank: int, hit: Hit) -> Sequence[Line]:
    changed = ", changed since it was embedded" if hit.changed else ""
    heading = Line(f"  {rank}. {hit.key} ({hit.score:.3f}{changed})")
    return heading, Line(f"     {snippet(hit.text)}")


def snippet(text: str) -> str:
    """The beginning of *text* on one line, as people are shown it."""
    text = " ".join(text.split())
    return text if len(text) <= _SNIPPET_CHARACTERS else f"{text[: _SNIPPET_CHARACTERS - 1]}…"


# --- standard error ---------------------------------------------------------------------------


def setup_lines(setup: Setup, *, writes: bool = False) -> list[Line]:
    """Which source, store and model a run uses; and which state, if it *writes*."""
    state = f"; state {setup.state}" if writes and setup.state else ""
    used = Line(f"Using source {setup.source}; store {setup.store}{state}; model {setup.model}")
    return [used, *(Line(f"⚠️ NOTICE: {notice}", Tone.WARNING) for notice in setup.notices)]


def error_lines(error: UndriftError) -> list[Line]:
    """An error's three parts."""
    return [
        Line(f"❌ Error: {error.what}", Tone.BAD),
        Line(f"   Why: {error.why}"),
        Line(f"   Fix: {error.fix}"),
    ]


def _unless_zero(name: str, count: int) -> Iterable[Line]:
    return [Line(f"  - {name}: {count}")] if count else []
