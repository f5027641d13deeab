"""One measured piece of work on a fleet, in a process of its own; see `benchmarks.scale`.

Its job names the sides by their URLs. Both sides are connected to before the clock starts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

# What undrift imports when it is first needed: the clock starts behind it.
import undrift.sources.changes.postgres_feed
import undrift.sources.changes.sqlite_feed
import undrift.states.postgres
import undrift.states.sqlite  # noqa: F401
from benchmarks.children import Job, serve
from benchmarks.planting import differences
from undrift import Undrift
from undrift.embedders.hashing import HashingEmbedder
from undrift.engines.sync_in_processes import sync_in_processes
from undrift.errors import OwnerNotFound
from undrift.model import SyncReport, SyncStatus
from undrift.ports import Purpose, Vectors
from undrift.scan.options import CheckOptions

MOST_TOLD = 100_000
"""Differences that are listed; a run that finds more tells their number alone."""


class CountingEmbedder(HashingEmbedder):
    """The hashing embedder, counting the texts it is paid for."""

    paid = 0

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed and count."""
        self.paid += len(texts)
        return super().embed(texts, purpose)


def prepare(job: Job) -> Callable[[], Mapping[str, Any]]:
    """Import, connect, and return the work."""
    if str(job["do"]).startswith("bare "):
        return _bare(job)
    dimension, processes = job["dimension"], job.get("processes", 1)
    embedder = CountingEmbedder(dimension)
    is_spread = job.get("spread", 1) > 1
    sides = Undrift(
        source=job["source"],
        store=job["store"],
        state=job["state"],
        embedder=f"hashing:{dimension}" if is_spread else embedder,
    )
    with suppress(OwnerNotFound):
        sides.check(0)  # nobody has this id: it is asked for so that both sides are connected to
    options = CheckOptions(memos=job.get("memos", True), processes=processes)
    engine = sync_in_processes(job["spread"]) if is_spread else None
    works: dict[str, Callable[[], Mapping[str, Any]]] = {
        "check": lambda: _checked(sides.check_all(options)),
        "changed": lambda: _checked(sides.check_changed()),
        "sync": lambda: _synced(sides.sync_all(engine=engine), embedder),
    }
    return works[job["do"]]


def _bare(job: Job) -> Callable[[], Mapping[str, Any]]:
    from benchmarks import scale_bare

    if job["do"] == "bare stamps":
        return scale_bare.stamps_reader(job["store"])
    floor = scale_bare.floor_of(job["source"], job["store"])
    works: dict[str, Callable[[], Mapping[str, Any]]] = {
        "bare digests": lambda: scale_bare.digests(floor, HashingEmbedder(job["dimension"]).model),
        "bare source digests": lambda: {"owners": len(floor.source_digests())},
        "bare render": lambda: scale_bare.rendered(floor, job["first"], job["last"]),
        "bare read": lambda: scale_bare.read(floor, job["first"], job["last"]),
        "bare sync": lambda: scale_bare.synced(floor, job["last"], job["dimension"]),
    }
    return works[job["do"]]


def _checked(statuses: Iterable[SyncStatus]) -> Mapping[str, Any]:
    outcomes: Counter[str] = Counter()
    read: Counter[str] = Counter()
    found: list[tuple[str, str, str]] = []
    entities = 0
    for status in statuses:
        outcomes[status.outcome] += 1
        read[status.read] += 1
        entities += sum(status.source.values())
        if not status.is_in_sync and len(found) <= MOST_TOLD:
            found += differences(status)
    return {
        "owners": outcomes.total(),
        "entities": entities,
        "outcomes": outcomes,
        "read": read,
        "differences": found,
    }


def _synced(reports: Iterable[SyncReport], embedder: CountingEmbedder) -> Mapping[str, Any]:
    outcomes: Counter[str] = Counter()
    written = deleted = 0
    for report in reports:
        outcomes[report.outcome] += 1
        written += report.written
        deleted += report.deleted
    return {
        "owners": outcomes.total(),
        "outcomes": outcomes,
        "written": written,
        "deleted": deleted,
        "embedded": embedder.paid,
    }


if __name__ == "__main__":
    serve(prepare)
