"""A real Chroma server for the tests, out of the wheel `chromadb`.

What `chroma run` runs is a program in Rust inside that wheel. It is started here without the Python
package around it, whose import takes longer than the server's own start.

However the tests end, the server ends too: a shell waits at the other end of a pipe that only this
process holds, and then kills the server and removes its folder.
"""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from support.closing import Closing
from support.ports import PORTS, KeptPort, free_port

START_SECONDS = 60.0
STOP_SECONDS = 30.0

_PROGRAM = "import sys, chromadb_rust_bindings as chroma; chroma.cli(['chroma', *sys.argv[1:]])"
_COLLECTIONS = "/api/v2/tenants/default_tenant/databases/default_database/collections"

# Waits until the pipe is closed, then makes sure that nothing is left of the server in folder $1.
_GUARD = """
cat >/dev/null
if pid=$(cat "$1/pid" 2>/dev/null); then kill -KILL "$pid" 2>/dev/null; fi
rm -rf "$1"
"""


_running: dict[int, ChromaServer] = {}


class ChromaServer(Closing):
    """One Chroma server, running from construction until `close`; on disk, as in production."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="undrift-chroma-"))
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "undrift-chroma-guard", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,
        )
        assert self._guard.stdin is not None
        os.register_at_fork(after_in_child=self._guard.stdin.close)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._http = httpx.Client(timeout=60.0)
        self.port = 0
        self._kept_port = KeptPort()
        try:
            self._start_on_a_free_port()
        except BaseException:
            self.close()
            raise
        _running[self.port] = self

    @property
    def url(self) -> str:
        """Its address as a browser would have it."""
        return f"http://127.0.0.1:{self.port}"

    def new_location(self) -> str:
        """The address of a store that is not there yet."""
        return f"chroma+http://127.0.0.1:{self.port}/store-{next(self._numbers)}"

    # --- outages

    def start(self) -> None:
        """Start the server and wait until it answers; nothing happens if it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        options = ["--host", "127.0.0.1", "--port", str(self.port)]
        self._kept_port.release()
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*_program(), "run", *options, "--path", self.folder / "data"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={"ANONYMIZED_TELEMETRY": "False", "HOME": str(self.folder)},
                start_new_session=True,
            )
        (self.folder / "pid").write_text(str(self._process.pid))
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self._http.get(f"{self.url}/api/v2/heartbeat").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.02)
        self.kill()
        raise RuntimeError(f"Chroma did not start:\n{(self.folder / 'log').read_text()[-2_000:]}")

    def kill(self) -> None:
        """End it with SIGKILL; nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_SECONDS)
            self._kept_port.keep(self.port)

    def pause(self) -> None:
        """Let it hang: connections are taken, and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it answer again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop it for good and remove its folder. May be called again."""
        self.kill()
        self._kept_port.release()
        _running.pop(self.port, None)
        self._http.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait(STOP_SECONDS)

    # --- behind undrift's back

    def ask(self, path: str, **request: object) -> Any:  # noqa: ANN401 - it is JSON
        """Send *request* to a path below the collections', and return the answer."""
        answer = self._http.post(f"{self.url}{_COLLECTIONS}{path}", json=request)
        assert answer.is_success, answer.text
        return answer.json()

    def collection(self, name: str) -> str | None:
        """The id of the collection called *name*, as a path; None if there is none."""
        answer = self._http.get(f"{self.url}{_COLLECTIONS}/{name}")
        return f"/{answer.json()['id']}" if answer.is_success else None

    def create_collection(self, name: str, **settings: object) -> str:
        """Create one, and return its id as a path."""
        return f"/{self.ask('', name=name, **settings)['id']}"

    def copy_collection(self, name: str, to: str) -> None:
        """Make another with the same configuration and records."""
        described = self._http.get(f"{self.url}{_COLLECTIONS}/{name}").json()
        kept = {key: described[key] for key in ("metadata", "configuration_json")}
        kept["configuration"] = {"hnsw": {"space": kept.pop("configuration_json")["hnsw"]["space"]}}
        copy = self.create_collection(to, **kept)
        found = self.ask(
            f"{self.collection(name)}/get", include=["metadatas", "documents", "embeddings"]
        )
        parts = ("ids", "metadatas", "documents", "embeddings")
        self.ask(f"{copy}/add", **{part: found[part] for part in parts})

    def delete_collection(self, name: str) -> None:
        """Delete one with all that is in it."""
        answer = self._http.delete(f"{self.url}{_COLLECTIONS}/{name}")
        assert answer.is_success, answer.text

    def lose_vectors(self, collection: str, ids: Sequence[str]) -> None:
        """Let the index forget *ids*, as after a copy of half of the files.

        What is not in the index's own files yet comes out of the log when the server starts.
        """
        path = self.collection(collection)
        assert path is not None
        self.kill()
        forget_vectors(self.folder / "data", path.removeprefix("/"), ids)
        self.start()

    def _start_on_a_free_port(self) -> None:
        for _ in range(5):
            self.port = free_port()
            try:
                return self.start()
            except RuntimeError as error:
                if "in use" not in str(error):
                    raise
        raise RuntimeError(f"no free port for Chroma in {PORTS}")


def forget_vectors(data: Path, collection_id: str, ids: Sequence[str]) -> None:
    """Let a Chroma that does not run forget the vectors of *ids*, and nothing else of them.

    A vector is in the log, until the index has been saved, and then in the index's own files.
    """
    with closing(sqlite3.connect(data / "chroma.sqlite3")) as connection, connection:
        ((segment,),) = connection.execute(
            "SELECT id FROM segments WHERE collection = ? AND scope = 'VECTOR'", (collection_id,)
        )
        for id_ in ids:
            cursor = connection.execute(
                "DELETE FROM embeddings_queue WHERE id = ? AND topic LIKE ?",
                (id_, f"%/{collection_id}"),
            )
            assert _forget_saved(data / segment / "index_metadata.pickle", id_) or cursor.rowcount


def _forget_saved(index: Path, id_: str) -> bool:
    if not index.exists():
        return False
    saved = pickle.loads(index.read_bytes())
    label = saved["id_to_label"].pop(id_, None)
    if label is None:
        return False
    del saved["label_to_id"][label]
    index.write_bytes(pickle.dumps(saved, protocol=3))
    return True


def server_at(location: str) -> ChromaServer:
    """The server of this process that has the store at *location*."""
    return _running[urlsplit(location).port or 0]


def collection_of(location: str) -> str:
    """The name of the collection at *location*."""
    return location.rpartition("/")[2].partition("?")[0]


def _program() -> list[str]:
    """`chroma`: the wheel's, or one of another version that the developer names."""
    named = os.environ.get("UNDRIFT_TEST_CHROMA")
    return [named] if named else [sys.executable, "-c", _PROGRAM]
