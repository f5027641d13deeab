"""A process that checks everybody for a test, in small pages, and is struck where the test says.

Without an argument it forks a child for each job on stdin, as `support.kill_child` does; with one,
a job, it runs that itself. `Checker` is the other end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from support.kill_child import read_line, tell
from undrift.failpoints import SCAN_FAILPOINTS
from undrift.testing.faults import call_at

Job = Mapping[str, Any]

EARLY, FORGETFUL = "early", "forgetful"
"""Controls: checkpoints that are ahead of what they hold, and a run that takes up only those."""


def main() -> None:
    """Run jobs until stdin is closed, or the one that is given."""
    if len(sys.argv) > 1:
        sys.exit(checked(json.loads(sys.argv[1])))
    for module in ("undrift.cli.app", "undrift.api", "undrift.states.postgres"):
        import_module(module)  # once, and not in every fork
    while line := read_line():
        child = os.fork()
        if child == 0:
            run_in_child(json.loads(line))
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            tell({"code": -os.WTERMSIG(status)})
        else:
            tell({"code": os.WEXITSTATUS(status)})


def run_in_child(job: Job) -> None:
    """Run *job* and leave the process, whatever happens."""
    code = 99
    try:
        for number, name in ((1, "out"), (2, "err")):
            with Path(job[name]).open("wb") as file:
                os.dup2(file.fileno(), number)
        code = checked(job)
        sys.stdout.flush()
    finally:
        if code == 99:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(code)


def checked(job: Job) -> int:
    """Run the job's command, and return its exit code."""
    from undrift.cli import app
    from undrift.scan import engine, feed
    from undrift.scan.progress import Checkpoints

    os.chdir(job["folder"])
    os.environ.update(job["variables"])
    feed.PAGE_OWNERS = job["page_owners"]
    engine.MANY_RENDERED = job["many_rendered"]
    defaults = Checkpoints.__init__.__kwdefaults__
    assert defaults is not None
    assert "every_seconds" in defaults
    defaults["every_seconds"] = job["every_seconds"]
    spoil(job["control"])
    if job["at"] is not None:
        strike_at(job["at"], job["occurrence"], signal.Signals[job["signal"]])
    return app.main(job["arguments"])


def spoil(control: str | None) -> None:
    """Make of the product what the control is of."""
    from undrift.model import SyncStatus
    from undrift.scan.feed import Position
    from undrift.scan.progress import Checkpoints

    if control == FORGETFUL:
        Checkpoints.earlier = lambda self: iter(())  # type: ignore[method-assign]
    if control == EARLY:
        done, late = Checkpoints.done, list[SyncStatus]()

        def early(self: Checkpoints, position: Position, statuses: list[SyncStatus]) -> None:
            nonlocal late
            done(self, position, late)
            late = statuses

        Checkpoints.done = early  # type: ignore[method-assign]


def strike_at(place: str, occurrence: int, number: signal.Signals) -> None:
    """Send this process a signal when *place* is reached for the *occurrence*-th time."""

    def strike() -> None:
        os.kill(os.getpid(), number)

    if place in SCAN_FAILPOINTS:
        call_at(place, strike, occurrence)
        return
    from undrift.cli.report import JsonDocument
    from undrift.sources.documents import DocumentContent

    places = {"rendered": (DocumentContent, "elements"), "told": (JsonDocument, "owner")}
    owner, name = places[place]
    inner: Callable[..., Any] = getattr(owner, name)
    left = occurrence

    def struck(*arguments: Any) -> Any:  # noqa: ANN401  whatever it is of
        nonlocal left
        left -= 1
        if left == 0:
            strike()
        return inner(*arguments)

    setattr(owner, name, struck)


if __name__ == "__main__":
    main()
