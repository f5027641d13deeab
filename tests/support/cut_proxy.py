"""A server behind a line that breaks: a proxy on loopback that hangs up after so many bytes."""

from __future__ import annotations

import selectors
import socket
from threading import Event, Thread
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_CHUNK_BYTES = 64  # small, so that the line breaks within a message and not only between two


class CutProxy:
    """Forwards connections to the server of *url*, until it has passed on *cut_after* bytes.

    Args:
        url: an address with a port, and something behind it.
        cut_after: bytes from the server, over all connections; None never cuts. From then on
            every connection is closed at once.

    Attributes:
        url: *url* by way of this proxy.
        forwarded: bytes that came from the server so far.
    """

    def __init__(self, url: str, cut_after: int | None = None) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 0)
        self._cut_after = cut_after
        self.forwarded = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = url.replace(f":{parts.port}/", f":{port}/")
        assert self.url != url
        self._selector = selectors.DefaultSelector()
        self._other_end: dict[socket.socket, socket.socket] = {}
        self._from_server: set[socket.socket] = set()
        self._ended = Event()
        self._thread = Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        # A connection of our own wakes the thread up.
        socket.create_connection(self._listener.getsockname()).close()
        self._thread.join()
        for end in list(self._other_end):
            self._hang_up(end)
        self._selector.close()
        self._listener.close()

    def cut_after_more(self, count: int) -> None:
        """Break when the server has sent another *count* bytes, and stay down until `mend`."""
        self._cut_after = self.forwarded + count

    def mend(self) -> None:
        """Let new connections through again."""
        self._cut_after = None

    @property
    def is_cut(self) -> bool:
        """Whether the line has broken."""
        return self._cut_after is not None and self.forwarded >= self._cut_after

    def _run(self) -> None:
        while not self._ended.is_set():
            for key, _ in self._selector.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if ready is self._listener:
                    self._accept()
                elif ready in self._other_end:
                    self._forward(ready)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if self.is_cut or self._ended.is_set():
            client.close()
            return
        server = socket.create_connection(self._server)
        self._from_server.add(server)
        for end, other in ((client, server), (server, client)):
            self._other_end[end] = other
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small pieces at once
            self._selector.register(end, selectors.EVENT_READ)

    def _forward(self, end: socket.socket) -> None:
        try:
            chunk = end.recv(_CHUNK_BYTES)
            if end in self._from_server:
                self.forwarded += len(chunk)
            if chunk and not self.is_cut:
                self._other_end[end].sendall(chunk)
                return
        except OSError:
            pass  # one end has gone; so does the other
        for open_end in list(self._other_end) if self.is_cut else [end]:
            self._hang_up(open_end)

    def _hang_up(self, end: socket.socket) -> None:
        for one in (end, self._other_end.get(end)):
            if one is not None and self._other_end.pop(one, None) is not None:
                self._from_server.discard(one)
                self._selector.unregister(one)
                one.close()
