"""A real Ray cluster of two nodes on this machine, for the tests; each node can be lost.

Ray listens on every interface, so the cluster asks for a token that nobody else has. However the
tests end, the nodes end too: a shell waits at the other end of a pipe that only this process holds.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from support.closing import Closing
from support.ports import free_port

START_SECONDS = 120.0
STOP_SECONDS = 30.0

TESTS = Path(__file__).resolve().parents[1]

_IS_UP = b"block forever"
_STORE_BYTES = 80_000_000

# Waits until the pipe is closed, then ends the processes that the file in folder $1 lists.
_GUARD = """
cat >/dev/null
if [ -f "$1/pids" ]; then kill -KILL $(cat "$1/pids") 2>/dev/null; fi
rm -rf "$1"
"""


class RayNodes(Closing):
    """A head and another node, with one core and one GPU each, which none of them has.

    They run from `be_two` until `close`.

    Usable as a context manager.

    Attributes:
        variables: the environment of whoever is to be let in.
    """

    def __init__(self) -> None:
        # The paths of sockets may have some hundred characters.
        self._folder = Path(tempfile.mkdtemp(prefix="ray"))
        self._guard = _start_guard(self._folder)
        self.variables = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        self._port = 0
        self._head: subprocess.Popen[bytes] | None = None
        self._other: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """The head's."""
        return f"127.0.0.1:{self._port}"

    def be_two(self) -> None:
        """Start the nodes that do not run."""
        if self._head is None:
            self._port = free_port()
            self._head = self._start("--head", f"--port={self._port}", "--include-dashboard=false")
        if self._other is None:
            self._other = self._start(f"--address={self.address}")

    def lose_one(self) -> None:
        """``kill -9`` to everything on the second node, as when its machine fails."""
        assert self._other is not None
        _kill(self._other)
        self._other = None

    def lose_all(self) -> None:
        """``kill -9`` to everything, the head first."""
        for node in (self._head, self._other):
            if node is not None:
                _kill(node)
        self._head = self._other = None

    def processes_of_second(self) -> set[int]:
        """The ids of whatever runs on the second node."""
        assert self._other is not None
        return {process.pid for process in _family(self._other.pid)}

    def close(self) -> None:
        """Stop every node and remove what they left. May be called again."""
        self.lose_all()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait(STOP_SECONDS)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self, *arguments: str) -> subprocess.Popen[bytes]:
        log = self._folder / f"log_{len(list(self._folder.iterdir()))}"
        with log.open("wb") as output:
            node = subprocess.Popen(
                [
                    Path(sys.executable).with_name("ray"),
                    "start",
                    *arguments,
                    "--block",
                    "--num-cpus=1",
                    "--num-gpus=1",  # Ray believes it, and counts
                    "--disable-usage-stats",
                    f"--object-store-memory={_STORE_BYTES}",
                    f"--temp-dir={self._folder / 't'}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._folder,
                env=os.environ | self.variables | _quick(),
                start_new_session=True,  # Ctrl-C stops the tests, and they stop the nodes
            )
        with (self._folder / "pids").open("a") as pids:
            pids.write(f"{node.pid}\n")
        deadline = time.monotonic() + START_SECONDS
        while _IS_UP not in log.read_bytes():
            if node.poll() is not None or time.monotonic() > deadline:
                _kill(node)
                raise RuntimeError(f"Ray did not start:\n{log.read_text()[-2_000:]}")
            time.sleep(0.05)
        return node


def _start_guard(folder: Path) -> subprocess.Popen[bytes]:
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "undrift-ray-guard", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    assert guard.stdin is not None
    # A forked child must not hold the pipe open when this process is killed.
    os.register_at_fork(after_in_child=guard.stdin.close)
    return guard


def _quick() -> dict[str, str]:
    """Settings by which a lost node is noticed in a second, and what the nodes are to import."""
    return {
        "PYTHONPATH": str(TESTS),
        "RAY_health_check_initial_delay_ms": "500",
        "RAY_health_check_period_ms": "300",
        "RAY_health_check_failure_threshold": "3",
    }


def _family(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _kill(node: subprocess.Popen[bytes]) -> None:
    family = _family(node.pid)
    for process in family:
        try:
            process.send_signal(signal.SIGSTOP)  # so that none of them starts another meanwhile
        except psutil.NoSuchProcess:
            continue
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    node.wait(STOP_SECONDS)
    psutil.wait_procs(family, STOP_SECONDS)
