"""A real Milvus server for the tests, out of the wheel `milvus`, which `make milvus` unpacks.

It is the standalone server: one program with etcd, the log and the storage in it, in a folder of
its own. It asks for a password, as a server that others can reach should. Times are those of a
quick start, not of production: it looks every hundredth of a second, not every fifth, whether a
read with strong consistency may be answered, and several times a second whether a collection is
loaded.

However the tests end, the server ends too: a shell waits at the other end of a pipe that only this
process holds, and then kills the server and removes its folder.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from support.closing import Closing
from support.ports import PORTS, free_port

VERSION = "2.3.5"
START_SECONDS = 120.0
STOP_SECONDS = 30.0

USER, PASSWORD = "root", "Milvus"
"""The login that every new server has."""

_ENVIRONMENT = Path(__file__).parents[2] / ".venv-milvus"
_UNPACKED = _ENVIRONMENT / "server" / "bin"

# What differs from the wheel's own configuration; a variable names a setting without its dots.
_SETTINGS = {
    "ETCD_LOG_LEVEL": "error",
    "LOG_LEVEL": "error",
    "COMMON_SESSION_TTL": "10",  # for so long a killed server counts as running
    "COMMON_SECURITY_AUTHORIZATIONENABLED": "true",
    "PROXY_TIMETICKINTERVAL": "10",
    "QUERYCOORD_CHECKCHANNELINTERVAL": "20",
    "QUERYCOORD_DISTPULLINTERVAL": "20",
    "QUERYCOORD_LEADERVIEWUPDATEINTERVAL": "0.05",
    "QUERYCOORD_UPDATENEXTTARGETINTERVAL": "0.05",
}

_ETCD = """\
name: default
listen-client-urls: http://127.0.0.1:{client}
advertise-client-urls: http://127.0.0.1:{client}
listen-peer-urls: http://127.0.0.1:{peer}
initial-advertise-peer-urls: http://127.0.0.1:{peer}
initial-cluster: default=http://127.0.0.1:{peer}
"""

# Waits until the pipe is closed, then makes sure that nothing is left of the server in folder $1.
_GUARD = """
cat >/dev/null
if pid=$(cat "$1/pid" 2>/dev/null); then kill -KILL "$pid" 2>/dev/null; fi
rm -rf "$1"
"""


def missing() -> str:
    """Why no server can be started here; empty if one can."""
    return "" if (_UNPACKED / "milvus").exists() else "Milvus is not installed: make milvus"


class MilvusServer(Closing):
    """One Milvus server, running from construction until `close`; on disk, as in production."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="undrift-milvus-"))
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "undrift-milvus-guard", str(self.folder)],
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
        self.port = 0
        self._health_port = 0
        try:
            self._start_on_free_ports()
        except BaseException:
            self.close()
            raise

    @property
    def address(self) -> str:
        """Its address as Milvus's own client has it."""
        return f"http://127.0.0.1:{self.port}"

    def url(self, collection: str, *, login: str = f"{USER}:{PASSWORD}@") -> str:
        """The address of the store in *collection*."""
        return f"milvus+http://{login}127.0.0.1:{self.port}/{collection}"

    def new_location(self) -> str:
        """The address of a store that is not there yet."""
        return self.url(f"store_{next(self._numbers)}")

    # --- outages

    def start(self) -> None:
        """Start the server and wait until it answers; nothing happens if it runs."""
        if self._process is not None and self._process.poll() is None:
            return
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [_UNPACKED / "milvus", "run", "standalone"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=_SETTINGS
                | {
                    "DEPLOY_MODE": "STANDALONE",
                    "ETCD_CONFIG_PATH": str(self.folder / "etcd.yaml"),
                    "HOME": str(self.folder),
                    "LD_LIBRARY_PATH": str(_UNPACKED),
                    "METRICS_PORT": str(self._health_port),
                    "MILVUS_RUN_DIR": str(self.folder / "run"),
                },
                start_new_session=True,
            )
        (self.folder / "pid").write_text(str(self._process.pid))
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._is_healthy():
                return
            time.sleep(0.05)
        self.kill()
        raise RuntimeError(f"Milvus did not start:\n{(self.folder / 'log').read_text()[-2_000:]}")

    def kill(self) -> None:
        """End it with SIGKILL; nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(STOP_SECONDS)

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
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait(STOP_SECONDS)

    def _is_healthy(self) -> bool:
        try:
            with urlopen(f"http://127.0.0.1:{self._health_port}/healthz", timeout=10.0) as answer:
                return b"OK" in answer.read()
        except (URLError, ConnectionError, TimeoutError):
            return False

    def _start_on_free_ports(self) -> None:
        for _ in range(5):
            self._configure()
            try:
                return self.start()
            except RuntimeError as error:
                if "address already in use" not in str(error):
                    raise
        raise RuntimeError(f"no free ports for Milvus in {PORTS}")

    def _configure(self) -> None:
        """Write the wheel's configuration, with folders and free ports in it."""
        (package,) = _ENVIRONMENT.glob("lib/python*/site-packages/milvus/data")
        template = (package / "config.yaml.template").read_text()
        values = {
            "etcd_log_path": str(self.folder / "etcd.log"),
            "etcd_data_dir": str(self.folder / "etcd"),
            "local_storage_dir": str(self.folder / "storage"),
            "rocksmq_data_dir": str(self.folder / "rocksmq"),
            "system_log_path": "",
        }
        names = re.findall(r"{{ *(\w+_port)", template)
        taken = _free_ports(len(names) + 3)
        for name in names:
            values[name] = str(taken.pop())
        self.port = int(values["proxy_port"])
        self._health_port, client, peer = taken
        configs = self.folder / "configs"
        configs.mkdir(exist_ok=True)
        (configs / "milvus.yaml").write_text(_filled(template, values))
        shutil.copy(package / "glog.conf", configs)
        (self.folder / "etcd.yaml").write_text(_ETCD.format(client=client, peer=peer))


def _filled(template: str, values: dict[str, str]) -> str:
    """*template* with *values*, or with the defaults that it names behind a colon."""

    def value(match: re.Match[str]) -> str:
        return values.get(match[1], match[2] or "")

    return re.sub(r"{{ *(\w+)(?:\(\w+\))?(?:: *(.*?))? *}}", value, template)


def _free_ports(number: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < number:
        ports.add(free_port())
    return sorted(ports)
