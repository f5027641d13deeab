"""What every measured program has in common: the job it is given, and what it prepares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks import children

DIMENSION = 384

Report = Mapping[str, int]
"""What the system itself tells of a run, in numbers."""


class Job(NamedTuple):
    """What to do.

    Attributes:
        do: ``run``, the usual run; ``repair``, what the system has for the case that its vectors
            are damaged; ``rebuild``, everything from nothing; or ``check``, where there is one.
        url: the PostgreSQL database of source and vectors.
        folder: for what the system keeps in files.
    """

    do: str
    url: str
    folder: str


class Paid:
    """Counts the texts that are embedded."""

    texts = 0


class Prepared(NamedTuple):
    """A system that is connected.

    Attributes:
        work: does the job.
        paid: counts what it embeds.
        close: lets go of everything.
    """

    work: Callable[[], Report]
    paid: Paid
    close: Callable[[], None]


def serve(prepare: Callable[[Job], Prepared]) -> None:
    """Do the job on stdin, measured, and let go of everything when that has been told."""
    ends: list[Callable[[], None]] = []

    def connect(job: Mapping[str, Any]) -> Callable[[], Mapping[str, Any]]:
        prepared = prepare(Job(**job))
        ends.append(prepared.close)

        def work() -> Mapping[str, Any]:
            report = dict(prepared.work())
            return {"embedded": prepared.paid.texts, "report": report}

        return work

    children.serve(connect)
    for end in ends:
        end()
