"""How everybody is checked, as a caller asks for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from undrift.errors import ConfigError
from undrift.events import Listener, ignore
from undrift.scan.engine import Engine, LocalEngine, Opener
from undrift.scan.feed import Pace, next_time
from undrift.scan.page import PageCheck
from undrift.scan.slices import Part, Sample, Shard

MAX_PROCESSES = 256

EngineFactory = Callable[[PageCheck, Opener | None], Engine]
"""Makes an engine; the opener is None where the sides cannot be opened in another process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    """How everybody is checked.

    Attributes:
        memos: use what is remembered of what the source's content renders to. Without it
            everything is rendered anew.
        shard: ``2/8`` for the second of eight parts of all owners, which together are everybody.
        sample: ``1%`` for so many of them, the same ones every time.
        owners_per_second: None for as fast as it can.
        until: ``06:00`` to stop then, by this machine's time; the next run that resumes goes on.
        resume: go on where the last run of this kind was ended early.
        saves_progress: save where the run is, for one that resumes; ``until`` and ``resume`` do
            too.
        processes: at most so many, this one among them, render what is not remembered. More than
            one starts further Python processes, so a program that asks for it is to be written as
            one that uses `multiprocessing`: behind ``if __name__ == "__main__":``.
        engine: makes what checks the pages; None for threads and processes of this machine.
        listener: told how the run begins, and how it ends early.
    """

    memos: bool = True
    shard: str | None = None
    sample: str | None = None
    owners_per_second: float | None = None
    until: str | None = None
    resume: bool = False
    saves_progress: bool = False
    processes: int = 1
    engine: EngineFactory | None = None
    listener: Listener = ignore

    def part(self) -> Part:
        """Whom of everybody.

        Raises:
            ConfigError: a part is malformed.
        """
        return Part(
            shard=None if self.shard is None else Shard.parse(self.shard),
            sample=None if self.sample is None else Sample.parse(self.sample),
        )

    @property
    def share(self) -> float:
        """How great a part of everybody that is, about.

        Raises:
            ConfigError: a part is malformed.
        """
        part = self.part()
        shards = 1 if part.shard is None else part.shard.count
        return (100.0 if part.sample is None else part.sample.percent) / 100 / shards

    def pace(self) -> Pace:
        """How fast, and until when.

        Raises:
            ConfigError: a number or a time is none.
        """
        rate = self.owners_per_second
        if rate is not None and not 0 < rate <= 1e9:
            raise ConfigError(
                f"{rate:g} owners per second are not possible",
                why="the rate is a number above 0.",
                fix="give --rate a number such as 500, or leave it out",
            )
        until = None if self.until is None else next_time(self.until)
        return Pace(owners_per_second=rate, until=until)

    @property
    def keeps_progress(self) -> bool:
        """Whether where the run is is saved."""
        return self.saves_progress or self.resume or self.until is not None

    @property
    def run_name(self) -> str:
        """Tells runs apart that may go on side by side and must not take each other up."""
        kind = "check" if self.memos else "check without memos"
        parts = [f"part {self.shard}"] if self.shard else []
        parts += [f"sample {self.sample}"] if self.sample else []
        return " ".join([kind, *parts])

    def open_engine(self, check: PageCheck, open_check: Opener | None) -> Engine:
        """What checks the pages.

        Raises:
            ConfigError: so many processes are not possible.
        """
        if not 1 <= self.processes <= MAX_PROCESSES:
            raise ConfigError(
                f"{self.processes} processes are not possible",
                why=f"a check has 1 to {MAX_PROCESSES} of them.",
                fix="give --processes a number in that range, or leave it out",
            )
        if self.engine is not None:
            return self.engine(check, open_check)
        return LocalEngine(check, open_check, processes=self.processes)


DEFAULT_CHECK = CheckOptions()


def usable_processes() -> int:
    """As many as this process may have cores."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1
