"""The processes of a pool, as the system sees them, and what they can do in a test."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from undrift.scan.page import PageCheck, PageResult, Rendering, nobody_asks


def children_of(pid: int) -> list[int]:
    """The processes that *pid* has started, in any thread, and that live: those of its pool."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found.update(map(int, task.read_text().split()))
    return sorted(filter(is_worker, found))


def is_worker(pid: int) -> bool:
    """Whether *pid* is alive and one of a pool's processes."""
    with suppress(OSError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        return state != "Z" and b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


class Checker(PageCheck):
    """A check that finds nobody, and says as the number of the rendered who it was."""

    def __init__(self) -> None: ...

    def __call__(self, owners: Sequence[str], rendering: Rendering = nobody_asks) -> PageResult:
        """Take a moment, and say which process this is."""
        rendering(len(owners))
        time.sleep(0.005)
        return PageResult([], rendered=os.getpid())
