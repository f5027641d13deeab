"""A process that syncs for a test, and dies where the test says.

It forks a child for each job on stdin: starting Python and importing undrift takes half a second,
forking a process that has done so a hundredth. `support.processes.Writer` is the other end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from support.naive import NaiveWriter
from support.sides import NAMESPACE, ORIGIN, CountingEmbedder
from undrift import Undrift, clocks
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.stores import open_store
from undrift.testing.faults import call_at

Job = Mapping[str, Any]


def main() -> None:
    """Run jobs until stdin is closed."""
    for module in ("undrift.stores.redis", "undrift.stores.qdrant"):
        import_module(module)  # once, and not in every fork; LanceDB's threads outlive no fork
    while line := read_line():
        child = os.fork()
        if child == 0:
            run_in_child(json.loads(line))
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            tell({"signal": os.WTERMSIG(status), "outcomes": {}})
        elif status:
            sys.exit("the job failed")


def run_in_child(job: Job) -> None:
    """Run *job* and leave the process, whatever happens."""
    exit_code = 1
    try:
        if job["without_leases"]:
            clocks.is_gone = lambda holder: True
        if job["pause_at"] is not None:
            call_at(job["pause_at"], lambda: pause(job["pause_at"]), job["occurrence"])
        outcomes = clear_then_import(job) if job["clear_then_import"] else sync(job)
        tell({"signal": None, "outcomes": outcomes})
        exit_code = 0
    finally:
        if exit_code:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(exit_code)


def sync(job: Job) -> dict[str, str]:
    """Sync the job's owners with undrift."""
    with Undrift(
        source=job["source"],
        store=job["store"],
        state=job["state"],
        embedder=CountingEmbedder(),
        namespace=NAMESPACE,
    ) as sides:
        reports = sides.sync_owners(job["owners"], force=job["force"])
        return {report.owner_id: str(report.outcome) for report in reports}


def clear_then_import(job: Job) -> dict[str, str]:
    """Sync the job's owners as the naive writer does."""
    renderer = Renderer(ORIGIN)
    writer = NaiveWriter(
        open_source(job["source"], ORIGIN, renderer.fields),
        open_store(job["store"], namespace=NAMESPACE),
        renderer,
        CountingEmbedder(),
    )
    return {owner: "in_sync" if writer.sync(owner).in_sync else "drift" for owner in job["owners"]}


def pause(name: str) -> None:
    """Tell the test that failpoint *name* is reached, and do as it answers."""
    tell({"paused_at": name})
    if json.loads(read_line()) == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def read_line() -> str:
    """The next line of stdin and not a byte more: the parent and its child read from one pipe."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return ""
        line += byte
    return line.decode()


def tell(message: Mapping[str, object]) -> None:
    """Write one line to stdout, at once."""
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
