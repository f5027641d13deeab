"""A server of the tests' own that speaks Qdrant's REST API over Qdrant's engine.

No package index has a server of Qdrant's. What decides over the data here is Qdrant's own engine,
`qdrant_edge`, the code that the server runs for each shard. What the tests' server adds is the
wire: every request is read by qdrant-client's models, which are generated from Qdrant's API
description, and one with a field, a parameter or a path that is not known is refused, as is, like
in Qdrant Cloud, a condition on a field without an index. Replicas, shards and the task queue of a
real server are not there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

from support.closing import Closing
from support.ports import KeptPort, free_port, is_free
from support.qdrant_engine import MEMORY

TESTS = Path(__file__).resolve().parents[1]

_ATTEMPTS = 50


class QdrantServer(Closing):
    """One server in a process of its own, which belongs to the tests alone.

    Usable as a context manager; running from construction until `close`. URLs that it handed out
    stay valid over `stop` and `start`.

    Args:
        durable: flush every write to the disk before it is answered, as in production; for tests
            that kill the server.
        version: which one it says it is.
        key: the API key that may do anything; empty lets everybody in.
        read_key: one that may only read.
        status: what a write that waits is said to be.
        strict: conditions may only name fields with an index, as in Qdrant Cloud.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        version: str = "1.16.3",
        key: str = "",
        read_key: str = "",
        status: str = "completed",
        strict: bool = True,
    ) -> None:
        parent = None if durable or not os.access(MEMORY, os.W_OK) else MEMORY
        self.folder = Path(tempfile.mkdtemp(prefix="undrift-qdrant-", dir=parent))
        self.key = key
        self.port = 0
        self._kept_port = KeptPort()
        self._process: subprocess.Popen[str] | None = None
        self._options: dict[str, str | bool] = {
            "durable": durable,
            "version": version,
            "key": key,
            "read_key": read_key,
            "status": status,
            "strict": strict,
        }
        try:
            self._start_on_a_free_port()
        except BaseException:
            self.close()
            raise

    @property
    def http_url(self) -> str:
        """Its URL for qdrant-client."""
        return f"http://127.0.0.1:{self.port}"

    def url(self, collection: str, *, key: str | None = None) -> str:
        """The URL of *collection* for undrift, with the server's key or another."""
        secret = self.key if key is None else key
        login = f":{secret}@" if secret else ""
        return f"qdrant+http://{login}127.0.0.1:{self.port}/{collection}"

    def start(self) -> None:
        """Start it again on the same port and files; nothing happens if it runs."""
        if self._process is None or self._process.poll() is not None:
            assert self._launch(), "the port was taken while the server was down"

    def stop(self) -> None:
        """`kill -9`, as when the machine fails; what was acknowledged is on the disk."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        self._release()
        self._kept_port.keep(self.port)

    def restart(self, **options: str | bool) -> None:
        """Go on with other options, which the constructor describes."""
        self.stop()
        self._options |= options
        self.start()

    def close(self) -> None:
        """End it, and remove its files."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._release()
        self._kept_port.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start_on_a_free_port(self) -> None:
        for _ in range(_ATTEMPTS):
            self.port = free_port()
            if self._launch():
                return
        raise RuntimeError("no free port for a Qdrant server")

    def _launch(self) -> bool:
        """Start the process and wait until it answers; False if the port is taken."""
        self._kept_port.release()
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "support.qdrant_child",
                str(self.folder),
                str(self.port),
                json.dumps(self._options),
            ],
            cwd=TESTS,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() == "ready":
            return True
        self._release()
        if is_free(self.port):
            raise RuntimeError("the Qdrant server did not start; its traceback is above")
        return False

    def _release(self) -> None:
        assert self._process is not None
        self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process = None
