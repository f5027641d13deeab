"""How the story puts results into words, where nobody gives it better ones."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from undrift.demo.database import Drift
from undrift.model import EntityId, Hit, SyncReport, SyncStatus

_LINE_WIDTH = 90
_IDS_SHOWN = 3


def check_text(statuses: Sequence[SyncStatus]) -> str:
    """A check's result: a line for each owner that is not in sync, and a sum."""
    lines = [
        f"User {status.owner_id}: {status.outcome}; "
        + ", ".join(f"{drift} {listed(ids)}" for drift, ids in drift_of(status) if ids)
        for status in statuses
        if not status.is_in_sync
    ]
    in_sync = sum(status.is_in_sync for status in statuses)
    return "\n".join([*lines, f"Users checked: {len(statuses)}, in sync: {in_sync}"])


def sync_text(reports: Sequence[SyncReport]) -> str:
    """A sync's result: a line for each owner that is not in sync, and a sum."""
    lines = [f"User {r.owner_id}: {r.outcome}" for r in reports if not r.is_in_sync]
    repaired = sum(report.is_in_sync and not report.skipped for report in reports)
    return "\n".join([*lines, f"Users synced: {len(reports)}, repaired and verified: {repaired}"])


def drift_of(status: SyncStatus) -> Sequence[tuple[Drift, Sequence[EntityId]]]:
    """The ids of *status*, by the kind of drift."""
    return (
        (Drift.MISSING, status.missing_ids),
        (Drift.STALE, status.stale_ids),
        (Drift.CHANGED, status.changed_ids),
        (Drift.WRONG_MODEL, status.wrong_model_ids),
        (Drift.DUPLICATE, status.duplicate_ids),
    )


def listed(ids: Iterable[str]) -> str:
    """The first of *ids*, and how many more there are."""
    ordered = sorted(ids)
    rest = len(ordered) - _IDS_SHOWN
    shown = ", ".join(ordered[:_IDS_SHOWN])
    return f"{shown} and {rest} more" if rest > 0 else shown


def hit_line(hit: Hit) -> str:
    """One hit: score, name and the beginning of its text."""
    note = " (outdated vector)" if hit.changed else ""
    line = f"{hit.score:.2f}{note} {hit.key} {hit.text}"
    return textwrap.shorten(line, _LINE_WIDTH, placeholder="…")
