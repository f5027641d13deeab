"""A line to an HTTP server with a gate and faults on order: keys, held requests, cut answers."""

from __future__ import annotations

import http.client
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import NamedTuple
from urllib.parse import urlsplit

from support.closing import Closing

WAIT_SECONDS = 30.0

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


class Request(NamedTuple):
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


Tamper = Callable[[Request, Answer], Answer]


class Held:
    """A request that is to be kept back.

    Attributes:
        arrived: set once it is there.
    """

    def __init__(self, ending: str, *, hangs_up: bool) -> None:
        self.ending = ending
        self.hangs_up = hangs_up
        self.arrived = Event()
        self.released = Event()
        self.request: Request | None = None


class HttpLine(Closing):
    """A line to the server at *server_url*, which lets everything pass until it is told otherwise.

    Args:
        key: without this value of the header ``Authorization`` a request is answered 401.
        tamper: changes answers.
    """

    def __init__(
        self, server_url: str, *, key: str | None = None, tamper: Tamper | None = None
    ) -> None:
        parts = urlsplit(server_url)
        self._server = (parts.hostname or "", parts.port or 0)
        self._key = key
        self._tamper = tamper
        self._held: Held | None = None
        self._cut_at: int | None = None
        line = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body leave in two pieces

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

            def pass_on(self) -> None:
                line._pass_on(self)

            do_GET = do_POST = do_PUT = do_DELETE = pass_on  # noqa: N815 - as the library calls

        self._listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._listener.daemon_threads = True
        self._thread = Thread(target=self._listener.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self._listener.server_address[1])

    def through(self, location: str) -> str:
        """The same store by way of this line."""
        return location.replace(f":{self._server[1]}/", f":{self.port}/")

    def hold(self, ending: str, *, hangs_up: bool = False) -> Held:
        """Keep back the next request whose path ends with *ending*.

        Args:
            hangs_up: the client is left without an answer; else it waits for one.
        """
        self._held = Held(ending, hangs_up=hangs_up)
        return self._held

    def deliver(self, held: Held) -> None:
        """Let a request that was kept back go on to the server."""
        assert held.arrived.wait(WAIT_SECONDS)
        assert held.request is not None
        if held.hangs_up:
            assert self._forward(held.request).status < 300
        held.released.set()

    def cut(self, body_bytes: int) -> None:
        """From now on break off every answer behind so many bytes of its body."""
        self._cut_at = body_bytes

    def close(self) -> None:
        """Hang up and end the thread."""
        self._listener.shutdown()
        self._thread.join(WAIT_SECONDS)
        self._listener.server_close()

    def _pass_on(self, client: BaseHTTPRequestHandler) -> None:
        length = int(client.headers.get("Content-Length", 0))
        headers = {
            name: value for name, value in client.headers.items() if name.lower() not in _HOP_BY_HOP
        }
        request = Request(client.command, client.path, headers, client.rfile.read(length))
        if self._key is not None and client.headers.get("Authorization") != self._key:
            self._say(client, Answer(401, [], b"who are you?"))
            return
        held = self._held
        if held is not None and request.path.endswith(held.ending):
            self._held = None
            held.request = request
            held.arrived.set()
            if held.hangs_up:
                client.close_connection = True
                return
            held.released.wait(WAIT_SECONDS)
        answer = self._forward(request)
        self._say(client, self._tamper(request, answer) if self._tamper else answer)

    def _forward(self, request: Request) -> Answer:
        connection = http.client.HTTPConnection(*self._server, timeout=WAIT_SECONDS)
        try:
            connection.request(request.method, request.path, request.body, request.headers)
            answer = connection.getresponse()
            return Answer(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def _say(self, client: BaseHTTPRequestHandler, answer: Answer) -> None:
        client.send_response(answer.status)
        for name, value in answer.headers:
            if name.lower() not in _HOP_BY_HOP:
                client.send_header(name, value)
        client.send_header("Content-Length", str(len(answer.body)))
        client.end_headers()
        client.wfile.write(answer.body[: self._cut_at])
        if self._cut_at is not None:
            client.close_connection = True
