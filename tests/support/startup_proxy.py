"""A pooler as far as a connection's beginning goes: it ignores or refuses what libpq asks for."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

_PROTOCOL = struct.pack(">i", 196608)  # 3.0


@contextmanager
def startup_proxy(url: str, *, refuses: bool) -> Iterator[str]:
    """A proxy before the server of *url*, and the URL that leads through it.

    Args:
        refuses: it refuses a connection with the parameter ``options``; else it leaves it out.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    server = (parts.hostname, parts.port or 5432)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, server, refuses), daemon=True).start()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        place = f"{parts.netloc.rpartition('@')[0]}@{host}"
        yield urlunsplit(parts._replace(netloc=place, query="sslmode=disable&gssencmode=disable"))
        listener.shutdown(socket.SHUT_RDWR)  # or `accept` would go on waiting


def _accept(listener: socket.socket, server: tuple[str, int], refuses: bool) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, server, refuses), daemon=True).start()


def _serve(client: socket.socket, server: tuple[str, int], refuses: bool) -> None:
    with suppress(OSError), client:
        (length,) = struct.unpack(">i", _exactly(client, 4))
        body = _exactly(client, length - 4)
        if body[:4] != _PROTOCOL:  # a request to cancel
            with socket.create_connection(server) as upstream:
                upstream.sendall(struct.pack(">i", length) + body)
            return
        words = body[4:].rstrip(b"\0").split(b"\0")
        parameters = dict(zip(words[::2], words[1::2], strict=True))
        if refuses and b"options" in parameters:
            fields = b"SFATAL\0C08P01\0Munsupported startup parameter: options\0\0"
            client.sendall(b"E" + struct.pack(">i", len(fields) + 4) + fields)
            return
        parameters.pop(b"options", None)
        kept = b"".join(name + b"\0" + value + b"\0" for name, value in parameters.items()) + b"\0"
        with socket.create_connection(server) as upstream:
            upstream.sendall(struct.pack(">i", len(kept) + 8) + _PROTOCOL + kept)
            threading.Thread(target=_pump, args=(upstream, client), daemon=True).start()
            _pump(client, upstream)


def _exactly(stream: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = stream.recv(size - len(found))
        if not part:
            raise ConnectionError
        found += part
    return found


def _pump(one: socket.socket, other: socket.socket) -> None:
    with suppress(OSError):
        while part := one.recv(65_536):
            other.sendall(part)
        other.shutdown(socket.SHUT_WR)
