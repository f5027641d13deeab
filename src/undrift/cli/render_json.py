"""What a program reads. Pure: results in, JSON out.

Ids are strings, durations seconds. Keys that the documented examples do not show are there only
where they have something to say: ``notes``, ``truncated``, ``cost``, ``not_found``, ….
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from undrift.cli.tally import LEFT, Result, StampResult, Tally
from undrift.errors import UndriftError
from undrift.model import Cost, Outcome, Read, SearchResult, SyncStatus

SCHEMA_VERSION = "1"

Object = dict[str, object]


def dumped(value: object, *, encoding: str = "utf-8") -> str:
    """*value* as JSON on one line: readable if *encoding* carries it, else escaped."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def head(command: str, *, read: Read = Read.FULL, dry_run: bool = False) -> Object:
    """What the documents of check and sync begin with."""
    document: Object = {"schema_version": SCHEMA_VERSION, "command": command, "read": read.value}
    if dry_run:
        document["dry_run"] = True
    return document


def owner_object(result: Result) -> Object:
    """What a run says of one owner."""
    if isinstance(result, SyncStatus):
        return _status(result, result.outcome, result.error)
    if isinstance(result, StampResult):
        left = _status(result.status, result.outcome, result.error)
        return {**left, "stamped": result.stamped}
    report = _status(result.before, result.outcome, result.error)
    report["written"] = result.written
    report["deleted"] = result.deleted
    report["embedded"] = result.embedded
    report["verified"] = result.verified
    if result.truncated:
        report["truncated"] = result.truncated
    if result.dry_run:
        report["cost"] = _cost(result.cost)
    return report


def check_summary(tally: Tally) -> Object:
    """The sums of a check."""
    summary: Object = {
        "checked": tally.owners,
        "in_sync": tally.outcomes[Outcome.IN_SYNC],
        "out_of_sync": tally.out_of_sync,
        "in_motion": tally.outcomes[Outcome.IN_MOTION],
        "unknown": tally.outcomes[Outcome.UNKNOWN],
        **_unless_zero("not_found", tally.outcomes[Outcome.NOT_FOUND]),
    }
    if tally.is_partial:
        summary["is_partial"] = True
    share = tally.out_of_sync_at_most
    if share is not None:
        summary["out_of_sync_at_most"] = round(share, 6)
    summary["duration_seconds"] = _seconds(tally)
    return summary


def stamp_summary(tally: Tally) -> Object:
    """The sums of stamping: what got a stamp, and what is left."""
    left = {name: tally.left[name] for name in LEFT if tally.left[name]}
    return {**check_summary(tally), "stamped": tally.stamped, "left": left}


def plan_summary(tally: Tally) -> Object:
    """The sums of a dry run."""
    return {**check_summary(tally), "cost": _cost(tally.cost)}


def sync_summary(tally: Tally) -> Object:
    """The sums of a sync."""
    return {
        "synced": tally.outcomes[Outcome.IN_SYNC],
        "failed": tally.outcomes[Outcome.FAILED],
        "embedded": tally.embedded,
        "in_motion": tally.outcomes[Outcome.IN_MOTION],
        "unknown": tally.outcomes[Outcome.UNKNOWN],
        **_unless_zero("out_of_sync", tally.outcomes[Outcome.DRIFT]),
        **_unless_zero("not_found", tally.outcomes[Outcome.NOT_FOUND]),
        **_unless_zero("truncated", tally.truncated),
        "duration_seconds": _seconds(tally),
    }


def search_document(result: SearchResult) -> Object:
    """The answer of a search."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": "search",
        "owner_id": result.owner_id,
        "query": result.query,
        "hits": search_objects(result),
        "stale_ids": list(result.stale_ids),
        **_notes(result),
    }


def search_summary(result: SearchResult | None, tally: Tally, error: UndriftError | None) -> Object:
    """The last line of a search."""
    line: Object = {"schema_version": SCHEMA_VERSION, "command": "search"}
    if result is not None:
        line["owner_id"] = result.owner_id
        line["query"] = result.query
        line["stale_ids"] = list(result.stale_ids)
        line.update(_notes(result))
    hits = 0 if result is None else len(result.hits)
    line["summary"] = {"hits": hits, "duration_seconds": _seconds(tally)}
    if error is not None:
        line["error"] = error_object(error)
    return line


def error_document(command: str | None, error: UndriftError) -> Object:
    """The answer of a command that could give none."""
    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "error": error_object(error),
    }


def search_objects(result: SearchResult) -> list[Object]:
    """The hits of a search, best first."""
    return [
        {
            "id": str(hit.key),
            "kind": hit.key.kind,
            "entity_id": hit.key.id,
            "score": round(hit.score, 6),
            "text": hit.text,
            "metadata": dict(hit.metadata),
            "changed": hit.changed,
        }
        for hit in result.hits
    ]


def error_object(error: UndriftError) -> Object:
    """An error's kind and its three parts."""
    return {
        "type": type(error).__name__,
        "what": error.what,
        "why": error.why,
        "fix": error.fix,
    }


def _status(status: SyncStatus, outcome: Outcome, error: UndriftError | None) -> Object:
    found: Object = {
        "owner_id": status.owner_id,
        "outcome": outcome.value,
        "source": dict(status.source),
        "store": dict(status.store),
        "missing_ids": list(status.missing_ids),
        "stale_ids": list(status.stale_ids),
        "changed_ids": list(status.changed_ids),
        "wrong_model_ids": list(status.wrong_model_ids),
        "duplicate_ids": list(status.duplicate_ids),
        "orphan_owner": status.orphan_owner,
        "without_text": status.without_text,
        "unmanaged": status.unmanaged,
        "error": None if error is None else error_object(error),
    }
    if status.unknown_ids:
        found["unknown_ids"] = list(status.unknown_ids)
    if status.unstamped:
        found["unstamped"] = status.unstamped
    return {**found, **_notes(status)}


def _notes(result: SyncStatus | SearchResult) -> Object:
    return {"notes": list(result.notes)} if result.notes else {}


def _cost(cost: Cost) -> Object:
    return {
        "texts": cost.texts,
        "tokens": cost.tokens,
        "writes": cost.writes,
        "deletes": cost.deletes,
    }


def _seconds(tally: Tally) -> float:
    return round(tally.duration_seconds, 3)


def _unless_zero(name: str, count: int) -> Mapping[str, object]:
    return {name: count} if count else {}
