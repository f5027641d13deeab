"""``undrift watch`` as a program in the background, and its log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from support.cli import Program, Shell
from support.sides import Database

DEADLINE_SECONDS = 40.0
"""After which a test gives up; everything it waits for takes a fraction of it."""

_LOOK_SECONDS = 0.02


def until(is_true: Callable[[], bool], what: str, *, seconds: float = DEADLINE_SECONDS) -> None:
    """Wait for *is_true*; the test fails if it does not become so in time."""
    ends_at = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < ends_at, f"in {seconds:g} s not: {what}"
        time.sleep(_LOOK_SECONDS)


class Watching:
    """One ``undrift watch`` that logs JSON."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What it has logged; each line must be one JSON object."""
        whole, _, _ = self._log.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def logged(self, action: str, **fields: object) -> list[dict[str, Any]]:
        """Its lines with that action and these fields."""
        wanted = {"action": action, **fields}
        return [line for line in self.lines if wanted.items() <= line.items()]

    def await_logged(self, action: str, **fields: object) -> dict[str, Any]:
        """Wait for such a line."""

        def is_there() -> bool:
            assert self.process.poll() is None, self._log.read_text()
            return bool(self.logged(action, **fields))

        until(is_there, f"{action} {fields} in {self._log}")
        return self.logged(action, **fields)[0]

    def sum_of(self, field: str) -> int:
        """The sum over all owners that it synced."""
        return sum(line[field] for line in self.logged("watch.synced"))

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_SECONDS)


@contextmanager
def watching(
    shell: Shell, *arguments: str, name: str = "watch", variables: Mapping[str, str] | None = None
) -> Iterator[Watching]:
    """A watch that has begun; it is killed if the test does not end it."""
    log = shell.folder / f"{name}.log"
    with (
        log.open("w") as stderr,
        Program(
            [Path(sys.executable).with_name("undrift"), "watch", "--log-format=json", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd=shell.folder,
            env={**os.environ, **shell.variables, **(variables or {})},
            encoding="utf-8",
        ) as process,
    ):
        try:
            started = Watching(process, log)
            started.await_logged("watch.begin")
            yield started
        finally:
            process.kill()


def leased(shell: Shell) -> list[str]:
    """The owners that somebody has leased, by SQL."""
    database, table = state_table(shell, "owner_state")
    with closing(database):
        rows = database.rows(f"SELECT owner_id FROM {table} WHERE lease_holder <> ''")
    return [row["owner_id"] for row in rows]


def state_table(shell: Shell, name: str) -> tuple[Database, str]:
    """The database of the state beside the vectors, to be closed, and a table in it."""
    if shell.source.is_postgres:
        return Database(shell.variables["DATABASE_URL"]), f"undrift.{name}"
    store = shell.variables.get("VECTOR_URL", f"sqlite:///{shell.folder}/.undrift/undrift.db")
    return Database(store), f"undrift_{name}"
