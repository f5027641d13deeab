"""Ports of 127.0.0.1 for the tests' servers."""

from __future__ import annotations

import secrets
import socket

# Below the ports that Linux and macOS hand out for outgoing connections: a client that retries
# while the server is down cannot be given the server's own port and connect to itself.
PORTS = range(20_000, 32_000)


def free_port() -> int:
    """A port that nobody listens on or has kept. Another may take it before it is used."""
    while True:
        port = secrets.choice(PORTS)  # not `random`: its seed is the tests', and workers share it
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """Whether nobody listens on *port* or has kept it, and no connection of it is still ending."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class KeptPort:
    """The port of a server that is down, for when it starts again.

    Until then connections to it are refused; let go, it might be the next server's of tests that
    run beside these, and answer.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def keep(self, port: int) -> None:
        """Take *port*, and listen to nobody; nothing happens if somebody was quicker."""
        self.release()
        kept = socket.socket()
        # As servers do: connections that have just been closed do not stand in the way.
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            kept.bind(("127.0.0.1", port))
        except OSError:
            kept.close()
        else:
            self._socket = kept

    def release(self) -> None:
        """Let go of it. Safe to call twice."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
