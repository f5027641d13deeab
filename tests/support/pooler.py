"""A real PgBouncer in transaction mode before the test's server, where one is installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
needs_pooler = pytest.mark.skipif(
    PROGRAM is None, reason="PgBouncer is not installed: Debian's package pgbouncer"
)
_START_SECONDS = 20.0


@contextmanager
def pooled(url: str, *, server_connections: int = 3) -> Iterator[str]:
    """The address of the database at *url* through a pooler.

    Every transaction gets whichever of the few server connections is free, so that nothing of a
    session's can be relied on from one to the next.
    """
    assert PROGRAM is not None
    server = sa.make_url(url)
    with tempfile.TemporaryDirectory(prefix="pooler-") as name, _free_port() as port:
        folder = Path(name)
        (folder / "users").write_text(f'"{server.username}" "{server.password}"\n')
        (folder / "pooler.ini").write_text(
            f"""[databases]
{server.database} = host={server.host} port={server.port} dbname={server.database}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = plain
auth_file = {folder / "users"}
pool_mode = transaction
default_pool_size = {server_connections}
max_client_conn = 200
ignore_startup_parameters = extra_float_digits
logfile = {folder / "log"}
"""
        )
        command = [PROGRAM, str(folder / "pooler.ini")]
        if os.geteuid() == 0:  # it refuses to run as root
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "nobody")
            command[1:1] = ["-u", "nobody"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _await(port, process)
            yield server.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)
        finally:
            process.terminate()
            process.wait(_START_SECONDS)


@contextmanager
def _free_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
    yield port


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, "the pooler has ended"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the pooler does not listen")
