"""A Redis server behind a line that encrypts, or that says something else of the server."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from support.closing import Closing


class RedisLine(Closing):
    """Forwards connections to the server of *url*.

    Args:
        certificate: a file with a key and a certificate, to speak TLS with the client.
        replace: in what the server says, bytes for others of the same length.
    """

    def __init__(
        self,
        url: str,
        *,
        certificate: Path | None = None,
        replace: tuple[bytes, bytes] = (b"", b""),
    ) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "", parts.port or 0)
        self._replace = replace
        assert len(replace[0]) == len(replace[1])
        self._context = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate)
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = url.replace(f":{parts.port}/", f":{port}/")
        if certificate is not None:
            self.url = self.url.replace("redis://", "rediss://")
        self._threads = [self._start(self._accept)]

    def close(self) -> None:
        """Hang up."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in list(self._threads):
            thread.join()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                self._ends.append(client)
                with suppress(ssl.SSLError):  # it does not trust us, or does not encrypt
                    if self._context is not None:
                        client = self._context.wrap_socket(client, server_side=True)
                        self._ends.append(client)
                    server = socket.create_connection(self._server)
                    self._ends.append(server)
                    self._threads.append(self._start(self._forward, client, server, (b"", b"")))
                    self._threads.append(self._start(self._forward, server, client, self._replace))

    def _forward(
        self, from_: socket.socket, to: socket.socket, replace: tuple[bytes, bytes]
    ) -> None:
        with suppress(OSError):  # one end has gone; so does the other
            while chunk := from_.recv(65_536):
                to.sendall(chunk.replace(*replace) if replace[0] else chunk)
        with suppress(OSError):
            to.shutdown(socket.SHUT_RDWR)

    def _start(self, work: object, *arguments: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        thread.start()
        return thread


def make_certificate(folder: Path) -> Path:
    """A key with a certificate for 127.0.0.1 that only itself vouches for; openssl makes it."""
    file = folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command += ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    file.write_text(key.read_text() + certificate.read_text())
    return file
