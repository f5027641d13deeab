"""An embedding service as slow as one likes, behind OpenAI's protocol.

Its vectors mean nothing; what counts is when it answers. It thinks as long as its `Pace` says,
about any number of requests at once, and beyond its rate limit answers 429 with how long to wait,
as the large ones do.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import NamedTuple, Self

from benchmarks.load_model import Limit, Pace

DIMENSION = 384
INSTANT = Pace(call_seconds=0.0, text_seconds=0.0)
_VECTORS = 64


class Call(NamedTuple):
    """A request that was answered, by this machine's clock; the texts as they came."""

    began: float
    ended: float
    texts: tuple[str, ...]


class EmbeddingService:
    """Serves from entering to leaving.

    Attributes:
        calls: what was answered since the last `set_pace`, in the order of the answers.
        taken: how many requests were not told to wait since then, answered or not.
    """

    def __init__(self) -> None:
        chance = random.Random(1)
        self._vectors = [
            json.dumps([round(chance.gauss(0, 1), 6) for _ in range(DIMENSION)])
            for _ in range(_VECTORS)
        ]
        self._lock = Lock()
        self.set_pace(INSTANT)
        service = self

        class Handler(_Handler):
            owner = service

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._http.serve_forever, args=(0.05,))

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def set_pace(self, pace: Pace) -> None:
        """Answer at this pace from now on, and forget what was."""
        with self._lock:
            self.pace = pace
            self._limit = Limit(pace.texts_per_second)
            self.calls: list[Call] = []
            self.taken = 0

    def wait_for(self, texts: int) -> float:
        """Take a request of so many texts, or say after how many seconds to ask again."""
        with self._lock:
            wait = self._limit.wait(time.monotonic(), texts)
            self.taken += not wait
            return wait

    def answer(self, texts: list[str]) -> bytes:
        """Think about *texts*, and answer."""
        began = time.time()
        time.sleep(self.pace.seconds(len(texts)))
        rows = ", ".join(
            f'{{"object": "embedding", "index": {index}, "embedding": {self._vector(text)}}}'
            for index, text in enumerate(texts)
        )
        body = f'{{"object": "list", "data": [{rows}]}}'.encode()
        with self._lock:
            self.calls.append(Call(began, time.time(), tuple(texts)))
        return body

    def _vector(self, text: str) -> str:
        digest = hashlib.blake2b(text.encode(), digest_size=1).digest()
        return self._vectors[digest[0] % _VECTORS]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    owner: EmbeddingService
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer in two parts would else wait for 40 ms between them

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        texts: list[str] = json.loads(raw)["input"]
        wait = self.owner.wait_for(len(texts))
        if wait:
            self._answer(429, b'{"error": {"code": "rate_limit_exceeded"}}', wait)
        else:
            self._answer(200, self.owner.answer(texts))

    def _answer(self, status: int, body: bytes, wait: float = 0.0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if wait:
            self.send_header("retry-after-ms", f"{1000 * wait:.0f}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""
