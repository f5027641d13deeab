"""A server behind a line that breaks at COMMIT: before it arrives, or before it is answered."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Literal
from urllib.parse import urlsplit

_COMMIT = b"COMMIT\0"
Lost = Literal["request", "answer"]


@dataclass(slots=True)
class CommitLine:
    """The line to a server.

    Attributes:
        url: the server's address by way of this line.
        lost: what the next COMMIT loses; None lets everything pass.
        is_down: whether new connections are refused.
        stays_down: whether they are, from the next loss on.
        broke: set when a COMMIT has lost something.
    """

    url: str
    lost: Lost | None = None
    is_down: bool = False
    stays_down: bool = False
    broke: Event = field(default_factory=Event)


@contextmanager
def commit_line(url: str) -> Iterator[CommitLine]:
    """A line to the server of *url* that can be told to break at the next COMMIT."""
    parts = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    line = CommitLine(url.replace(f":{parts.port}/", f":{port}/"))
    assert line.url != url
    threads: list[Thread] = []

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            if line.is_down:
                client.close()
                continue
            server = socket.create_connection((parts.hostname or "", parts.port or 0))
            for work in (_ask, _answer):
                threads.append(Thread(target=work, args=(line, client, server), daemon=True))
                threads[-1].start()

    accepting = Thread(target=accept, daemon=True)
    with closing(listener):
        accepting.start()
        yield line
        listener.shutdown(socket.SHUT_RDWR)
    accepting.join()
    for thread in threads:
        thread.join()


def _ask(line: CommitLine, client: socket.socket, server: socket.socket) -> None:
    """Forward what the client says."""
    with closing(client):
        while chunk := _received(client):
            lost = line.lost if _COMMIT in chunk else None
            if lost is not None:
                line.lost = None
                line.is_down = line.stays_down
                line.broke.set()
                # The client hears nothing more. The server does, or it finds the line closed.
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
                if lost == "request":
                    break
            with suppress(OSError):
                server.sendall(chunk)
    with suppress(OSError):
        server.shutdown(socket.SHUT_WR)


def _answer(line: CommitLine, client: socket.socket, server: socket.socket) -> None:
    """Forward what the server says."""
    with closing(server):
        while chunk := _received(server):
            with suppress(OSError):
                client.sendall(chunk)
    with suppress(OSError):
        client.shutdown(socket.SHUT_RDWR)


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(65_536)
    except OSError:
        return b""
