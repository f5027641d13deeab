"""Another process that writes to a store, and can be killed while it does.

`StoreProcess` is the test's end. The other end forks a child for each job: importing a driver takes
half a second, forking a process that has done so a hundredth.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from types import TracebackType
from typing import Any, NamedTuple, Self

from undrift.ports import Deletion, Record, VectorStore
from undrift.state import Expected, Fence, TransactionalStore
from undrift.testing.builders import DIMENSION, deletion, expected, record
from undrift.testing.faults import kill_at

OpenStore = Callable[..., VectorStore]


class Ended(NamedTuple):
    """How a job ended.

    Attributes:
        acknowledged: the last version whose publish returned; 0 if none did.
        signal: what killed it, or None.
        exit_code: 0 when it did all it was told to.
    """

    acknowledged: int
    signal: int | None
    exit_code: int


def opener_named(name: str) -> OpenStore:
    """The function that ``module:function`` names."""
    opener: OpenStore = _function_named(name)
    return opener


def fence_at(name: str, location: str) -> Fence:
    """What the function that ``module:function`` names opens at *location*."""
    fence: Fence = _function_named(name)(location)
    return fence


def _function_named(name: str) -> Any:  # noqa: ANN401 - only its caller knows
    module, _, function = name.partition(":")
    return getattr(import_module(module), function)


def versioned(count: int, version: int, *, owner_id: str = "1") -> list[Record]:
    """Writes of the same *count* entities whose text and vector tell the version."""
    return [
        record(
            f"r{number}", owner_id=owner_id, text=f"{number}, version {version}", version=version
        )
        for number in range(count)
    ]


class FencedBatch(NamedTuple):
    """The arguments of a fenced publish, but for the fence."""

    writes: Sequence[Record]
    deletes: Sequence[Deletion]
    expected: Sequence[Expected]


def fenced_batch(count: int, version: int, *, owner_id: str = "1") -> FencedBatch:
    """`versioned` writes, and the delete of an entity ``gone`` that was written at version 1."""
    writes = versioned(count, version, owner_id=owner_id)
    gone = record("gone", owner_id=owner_id)
    rows = [*(expected(write) for write in writes), expected(gone, version=version)]
    return FencedBatch(writes, [deletion(gone)], rows)


class StoreProcess:
    """A process with one store job at a time, as a context manager.

    Args:
        opener: ``module:function``, called there with the location and ``namespace=``.
    """

    def __init__(self, opener: str) -> None:
        self._opener = opener
        self._acknowledged = 0
        self._job_process = 0
        self._process = subprocess.Popen(  # noqa: S603 - this very module
            [sys.executable, "-m", __name__],
            # The opener may live beside the tests. Threads of numpy's own would not survive a fork.
            env=os.environ
            | {
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        """Return the process, which is running."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process, and a job that still runs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        if self._job_process:
            self.kill()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def prepare_create(self, location: str) -> None:
        """Open the store at *location*; `go` will create it."""
        self._prepare({"location": location, "versions": None})

    def prepare_publish(
        self,
        location: str,
        versions: range,
        *,
        records: int = 50,
        backwards: bool = False,
        die_at: str | None = None,
        fence: str | None = None,
    ) -> None:
        """Open the store at *location*; `go` will publish `versioned` records.

        Args:
            versions: one publish for each, in this order.
            backwards: hand over the records in reverse order.
            die_at: the failpoint to be killed at, on its first occurrence.
            fence: ``module:function`` that opens the fence at a location; then every publish is a
                fenced one of a `fenced_batch`.
        """
        self._prepare(
            {
                "location": location,
                "versions": [versions.start, versions.stop, versions.step],
                "records": records,
                "backwards": backwards,
                "die_at": die_at,
                "fence": fence,
            }
        )

    def go(self) -> None:
        """Let the prepared job do its work."""
        self._send("go")

    def wait_for_acknowledgement(self) -> int:
        """Wait until one more publish has returned, and say which version it was of."""
        message = self._receive()
        if "ended" in message:
            self._job_process = 0
        self._acknowledged = message["acknowledged"]
        return self._acknowledged

    def kill(self) -> Ended:
        """Kill the job with SIGKILL, wherever it is."""
        with suppress(ProcessLookupError):  # it may just have ended
            os.kill(self._job_process, signal.SIGKILL)
        return self.wait()

    def wait(self) -> Ended:
        """Wait until the job has ended; what it acknowledged before counts."""
        while "ended" not in (message := self._receive()):
            self._acknowledged = message["acknowledged"]
        self._job_process = 0
        return Ended(self._acknowledged, **message["ended"])

    def _prepare(self, job: Mapping[str, object]) -> None:
        if self._job_process:  # a test that failed left it running
            self.kill()
        self._acknowledged = 0
        self._send({"opener": self._opener, **job})
        self._job_process = self._receive()["ready"]

    def _send(self, message: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def _receive(self) -> Any:  # noqa: ANN401 - it is JSON
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process with the store has ended; its traceback is above"
        return json.loads(line)


# --- the other end


def _main() -> None:
    while line := _read_line():
        job_process = os.fork()
        if job_process == 0:
            _run(json.loads(line))
        _, status = os.waitpid(job_process, 0)
        killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
        exit_code = os.WEXITSTATUS(status) if killed is None else -1
        _tell({"ended": {"signal": killed, "exit_code": exit_code}})


def _run(job: Mapping[str, Any]) -> None:
    """Do *job* in this forked child, and leave it."""
    exit_code = 1
    try:
        store = opener_named(job["opener"])(job["location"], namespace="default")
        _tell({"ready": os.getpid()})
        if _read_line():
            _work(store, job)
        store.close()
        exit_code = 0
    except BaseException:  # noqa: BLE001 - the fork must not run on into the parent's loop
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(exit_code)


def _work(store: VectorStore, job: Mapping[str, Any]) -> None:
    if job["versions"] is None:
        store.create(DIMENSION)
        return
    if job["die_at"]:
        kill_at(job["die_at"])
    for version in range(*job["versions"]):
        writes = versioned(job["records"], version)
        if job["fence"]:
            assert isinstance(store, TransactionalStore)
            fence = fence_at(job["fence"], job["location"])
            store.publish_fenced(*fenced_batch(job["records"], version), fence)
        else:
            store.publish(writes[::-1] if job["backwards"] else writes, [])
        _tell({"acknowledged": version})


def _read_line() -> str:
    """The next line of stdin and not a byte more: a fork and its parent read from one pipe."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return ""
        line += byte
    return line.decode()


def _tell(message: Mapping[str, object]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    _main()
