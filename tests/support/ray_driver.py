"""A process that checks everybody for a test, on Ray or by itself, and can be held in mid-run.

Every page that is begun is noted in a file, wherever it is checked; from a certain number on the
pages wait there until another file appears. `Driver` is the test's end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from support.closing import Closing
from support.sides import CountingEmbedder
from undrift import Undrift, connections
from undrift.engines import cluster
from undrift.engines.on_ray import RayEngine
from undrift.errors import UndriftError
from undrift.events import CheckStarted, SyncEvent
from undrift.model import Outcome
from undrift.scan import feed
from undrift.scan.engine import Engine, LocalEngine, Opener
from undrift.scan.options import CheckOptions
from undrift.scan.page import PageCheck, PageResult, Rendering, nobody_asks
from undrift.scan.progress import Checkpoints

PAGE_OWNERS = 10
WAIT_SECONDS = 120.0

TESTS = Path(__file__).resolve().parents[1]


# --- what is noted --------------------------------------------------------------------------------


class Begun(NamedTuple):
    """A page that was begun: by which process, and with which owner it starts."""

    pid: int
    owner: str


class Notes:
    """The pages that were begun, and the hold.

    Args:
        hold_after: pages that are begun before those behind them wait; None for no hold.
    """

    def __init__(self, folder: str, hold_after: int | None = None) -> None:
        self._file = Path(folder, "begun")
        self._released = Path(folder, "released")
        self._hold_after = hold_after

    def begin(self, owner: str) -> None:
        """Note a page, and wait if it is to be held."""
        with self._file.open("a") as file:  # one short line arrives whole
            file.write(f"{os.getpid()} {owner}\n")
        if self._hold_after is not None and len(self.begun()) > self._hold_after:
            wait_until(self._released.exists)

    def begun(self) -> list[Begun]:
        """Every page so far."""
        if not self._file.exists():
            return []
        lines = [line.split() for line in self._file.read_text().splitlines()]
        return [Begun(int(pid), owner) for pid, owner in lines]

    def release(self) -> None:
        """Let every page that is held go on."""
        self._released.touch()


def repeated(begun: Sequence[Begun]) -> int:
    """Pages that were begun more than once, each time but the first."""
    return sum(times - 1 for times in Counter(page.owner for page in begun).values())


def wait_until(is_so: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
    """Wait for *is_so*, and fail if it does not come."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


# --- the test's end -------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a driver is to do.

    Attributes:
        address: of the Ray cluster; None checks in threads of the process.
        notes: a folder for `Notes`.
    """

    source: str
    store: str
    notes: str
    address: str | None = None
    max_retries: int = 5
    silence_seconds: float = 20.0
    shard: str | None = None
    resume: bool = False
    hold_after: int | None = None


class Found(NamedTuple):
    """What a driver said.

    Attributes:
        error: the class of what ended it, and empty where nothing did.
        owners: how many were seen, those of the run that was taken up included.
        differing: whoever is not in sync, with the entities that differ.
    """

    error: str
    owners: int
    differing: Mapping[str, Sequence[str]]


class Driver(Closing):
    """A process at work on *run*."""

    def __init__(self, run: Run, variables: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.ray_driver", json.dumps(asdict(run))],
            cwd=TESTS,
            env=os.environ | dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        """``kill -9``."""
        self._process.kill()
        self._process.wait(WAIT_SECONDS)

    def found(self) -> Found:
        """Wait for the end."""
        out, _ = self._process.communicate(timeout=WAIT_SECONDS)
        assert self._process.returncode == 0
        return Found(*json.loads(out))

    def close(self) -> None:
        """End it, however far it is."""
        self._process.kill()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait(WAIT_SECONDS)


# --- the driver -----------------------------------------------------------------------------------


class Noted(PageCheck):
    """A check of pages that notes each one."""

    def __init__(self, inner: PageCheck, notes: Notes) -> None:
        self._inner = inner
        self._notes = notes

    def __call__(self, owners: Sequence[str], rendering: Rendering = nobody_asks) -> PageResult:
        if owners:
            self._notes.begin(owners[0])
        return self._inner(owners, rendering)


@dataclass(frozen=True)
class NotedOpener:
    """An opener of checks that note each page."""

    inner: Opener
    notes: Notes

    @property
    def here_only(self) -> Sequence[str]:
        """The inner one's."""
        return self.inner.here_only

    def __call__(self) -> PageCheck:
        """Open them."""
        return Noted(self.inner(), self.notes)


def main() -> None:
    """Check everybody as the argument says, and print what was found."""
    run = Run(**json.loads(sys.argv[1]))
    feed.PAGE_OWNERS = PAGE_OWNERS
    # Behind every page, so that what is repeated is what was under way and no more.
    vars(connections)["Checkpoints"] = partial(Checkpoints, every_seconds=0)
    cluster.SILENCE_SECONDS = run.silence_seconds
    error, owners, differing = "", 0, {}

    def listen(event: SyncEvent) -> None:
        nonlocal owners
        if isinstance(event, CheckStarted):
            # Those who differ are told again.
            owners += event.outcomes.get(Outcome.IN_SYNC, 0)

    options = CheckOptions(
        shard=run.shard,
        resume=run.resume,
        saves_progress=True,
        engine=partial(engine, run),
        listener=listen,
    )
    with Undrift(source=run.source, store=run.store, embedder=CountingEmbedder()) as sides:
        try:
            for status in sides.check_all(options):
                owners += 1
                if not status.in_sync:
                    ids = (*status.missing_ids, *status.stale_ids, *status.changed_ids)
                    differing[status.owner_id] = [f"{status.outcome}", *map(str, ids)]
        except UndriftError as exc:
            error = type(exc).__name__
    print(json.dumps([error, owners, differing]))


def engine(run: Run, check: PageCheck, open_check: Opener | None) -> Engine:
    """What checks the pages of *run*."""
    notes = Notes(run.notes, run.hold_after)
    if run.address is None:
        return LocalEngine(Noted(check, notes))
    assert open_check is not None
    return RayEngine(
        NotedOpener(open_check, notes), address=run.address, max_retries=run.max_retries
    )


if __name__ == "__main__":
    from support import ray_driver  # under its name, by which the nodes find what it sends them

    ray_driver.main()
