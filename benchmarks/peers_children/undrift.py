"""undrift: `check_all` and `sync_all`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from benchmarks.peers_children.job import Job, Paid, Prepared, Report, serve
from undrift import Undrift
from undrift.embedders.hashing import HashingEmbedder
from undrift.errors import OwnerNotFound
from undrift.ports import Purpose, Vectors


class Counting(HashingEmbedder, Paid):
    """The hashing embedder, and how many texts it was given."""

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed and count."""
        self.texts += len(texts)
        return super().embed(texts, purpose)


def prepare(job: Job) -> Prepared:
    """Connect to both sides."""
    embedder = Counting()
    sides = Undrift(source=job.url, store=job.url, embedder=embedder)
    with suppress(OwnerNotFound):  # nobody has this id: it is for the connections
        sides.check(0)
    work = {"run": lambda: _sync(sides), "check": lambda: _check(sides)}
    return Prepared(work[job.do], embedder, sides.close)


def _check(sides: Undrift) -> Report:
    told: Counter[str] = Counter()
    for status in sides.check_all():
        told["out of sync"] += not status.is_in_sync
        told["missing"] += len(status.missing_ids)
        told["stale"] += len(status.stale_ids)
        told["changed"] += len(status.changed_ids)
    return told


def _sync(sides: Undrift) -> Report:
    told: Counter[str] = Counter()
    for report in sides.sync_all():
        told["out of sync"] += not report.is_in_sync
        told["written"] += report.written
        told["deleted"] += report.deleted
    return told


if __name__ == "__main__":
    serve(prepare)
