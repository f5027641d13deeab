"""A server that gives every request one answer: what a proxy, a stranger or a sick server says."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from support.closing import Closing


class Answer(NamedTuple):
    """What is answered.

    Attributes:
        body: as it is sent.
    """

    status: int
    body: str
    headers: tuple[tuple[str, str], ...] = ()


class CannedServer(Closing):
    """Answers on a free port of 127.0.0.1 until it is closed.

    Args:
        answer: what to say to a path; None says nothing at all, until the server is closed.
        certificate: a file with a key and a certificate, to speak TLS.
    """

    def __init__(
        self, answer: Callable[[str], Answer | None], *, certificate: str | None = None
    ) -> None:
        closing = self._closing = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                given = answer(self.path)
                if given is None:
                    closing.wait()
                    return
                self.send_response(given.status)
                for name, value in given.headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(given.body.encode())))
                self.end_headers()
                self.wfile.write(given.body.encode())

            do_PUT = do_POST = do_GET  # noqa: N815  as the base class calls them

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
