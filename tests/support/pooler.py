"""What a pooler does to a session, as far as a client can see: it greets with a number of its own.

PgBouncer answers the login by itself and sends a process id that is none of the server's; which
server process runs a statement, the client learns only by asking.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from threading import Thread
from urllib.parse import urlsplit

_KEY_DATA = b"K\x00\x00\x00\x0c"
_OWN_PROCESS_ID = struct.pack(">i", 4242)


@contextmanager
def pooled(url: str) -> Iterator[str]:
    """*url* by way of something that greets with another process id than the server's."""
    parts = urlsplit(url)
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[Thread] = []

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            server = socket.create_connection((parts.hostname or "", parts.port or 0))
            for end, other, greets in ((client, server, False), (server, client, True)):
                threads.append(Thread(target=_forward, args=(end, other, greets), daemon=True))
                threads[-1].start()

    accepting = Thread(target=accept, daemon=True)
    with closing(listener):
        accepting.start()
        port = listener.getsockname()[1]
        yield url.replace(f":{parts.port}/", f":{port}/")
        listener.shutdown(socket.SHUT_RDWR)
    accepting.join()
    for thread in threads:
        thread.join()


def _forward(end: socket.socket, other: socket.socket, greets: bool) -> None:
    with closing(end):
        while True:
            try:
                chunk = end.recv(65_536)
            except OSError:
                chunk = b""
            if not chunk:
                break
            if greets and _KEY_DATA in chunk:
                before, _, behind = chunk.partition(_KEY_DATA)
                chunk, greets = before + _KEY_DATA + _OWN_PROCESS_ID + behind[4:], False
            with suppress(OSError):
                other.sendall(chunk)
        with suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)
