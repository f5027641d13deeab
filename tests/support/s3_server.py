"""A small S3: the part of its protocol that LanceDB speaks, over HTTP on the loopback interface.

Faithful in what a database relies on: a write is atomic and seen by every later read and listing,
and ``If-None-Match: *`` lets one of several writers of a key pass. Signatures are not checked, only
whose they are. Source: https://docs.aws.amazon.com/AmazonS3/latest/API/
"""

from __future__ import annotations

import hashlib
import re
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from support.closing import Closing

BUCKET = "bucket"
KEY_ID = "test-key-id"
SECRET = "test-secret-key"

_MODIFIED_HTTP = "Sun, 22 Nov 2026 00:00:00 GMT"
_MODIFIED = "2026-11-22T00:00:00.000Z"


class Answer(NamedTuple):
    """What is answered to a request."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


class S3Server(Closing):
    """The server, with one bucket.

    Attributes:
        objects: what is in the bucket, by key.
        outage: while it is set, every request is answered by an error of the server's.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.outage = False
        self._uploads: dict[str, dict[int, bytes]] = {}
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def environment(self) -> dict[str, str]:
        """What leads a client here, and lets it in."""
        host, port = self._server.server_address[:2]
        return {
            "AWS_ENDPOINT": f"http://{host!s}:{port}",
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        """Answer one request."""
        if self.outage:
            return _error(503, "ServiceUnavailable")
        if f"Credential={KEY_ID}/" not in headers.get("authorization", ""):
            return _error(403, "InvalidAccessKeyId")
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query, True).items()}
        bucket, _, key = unquote(parts.path[1:]).partition("/")
        if bucket != BUCKET:
            return _error(404, "NoSuchBucket")
        with self._lock:
            if not key:
                return self._delete_many(body) if method == "POST" else self._list(query)
            if "uploads" in query or "uploadId" in query:
                return self._multipart(method, key, query, body, headers)
            return self._object(method, key, headers, body)

    def _object(self, method: str, key: str, headers: dict[str, str], body: bytes) -> Answer:
        if method == "PUT":
            if source := headers.get("x-amz-copy-source"):
                body = self.objects[unquote(source).lstrip("/").partition("/")[2]]
            return self._put(key, body, headers)
        if method == "DELETE":
            self.objects.pop(key, None)
            return Answer(204)
        if key not in self.objects:
            return _error(404, "NoSuchKey")
        return _content(self.objects[key], headers.get("range"))

    def _put(self, key: str, body: bytes, headers: dict[str, str]) -> Answer:
        if headers.get("if-none-match") == "*" and key in self.objects:
            return _error(412, "PreconditionFailed")
        self.objects[key] = body
        return Answer(200, headers=(("ETag", _etag(body)),))

    def _multipart(
        self, method: str, key: str, query: dict[str, str], body: bytes, headers: dict[str, str]
    ) -> Answer:
        if "uploads" in query:
            upload = uuid.uuid4().hex
            self._uploads[upload] = {}
            return _xml(
                "InitiateMultipartUploadResult",
                f"<Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>",
            )
        upload = query["uploadId"]
        if method == "PUT":
            self._uploads[upload][int(query["partNumber"])] = body
            return Answer(200, headers=(("ETag", _etag(body)),))
        uploaded = self._uploads.pop(upload)
        if method == "DELETE":
            return Answer(204)
        whole = b"".join(part for _, part in sorted(uploaded.items()))
        done = self._put(key, whole, headers)
        if done.status != 200:
            return done
        return _xml("CompleteMultipartUploadResult", f"<ETag>{escape(_etag(whole))}</ETag>")

    def _list(self, query: dict[str, str]) -> Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        after = query.get("continuation-token") or query.get("start-after", "")
        most = int(query.get("max-keys", 1_000))
        contents: list[str] = []
        folders, last = dict[str, None](), ""
        is_cut = False
        for key in sorted(key for key in self.objects if key.startswith(prefix) and key > after):
            if len(contents) + len(folders) >= most:
                is_cut = True
                break
            last = key
            below = key[len(prefix) :]
            if delimiter and delimiter in below:
                folders[prefix + below.partition(delimiter)[0] + delimiter] = None
            else:
                body = self.objects[key]
                contents.append(
                    f"<Contents><Key>{escape(key)}</Key><Size>{len(body)}</Size>"
                    f"<ETag>{escape(_etag(body))}</ETag>"
                    f"<LastModified>{_MODIFIED}</LastModified></Contents>"
                )
        common = (f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in folders)
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if is_cut else ""
        return _xml(
            "ListBucketResult",
            f"<Name>{BUCKET}</Name><IsTruncated>{str(is_cut).lower()}</IsTruncated>{token}"
            + "".join((*contents, *common)),
        )

    def _delete_many(self, body: bytes) -> Answer:
        keys = [
            element.text or ""
            for element in ElementTree.fromstring(body).iter()
            if element.tag.rpartition("}")[2] == "Key"
        ]
        for key in keys:
            self.objects.pop(key, None)
        deleted = (f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        return _xml("DeleteResult", "".join(deleted))


def _handler(server: S3Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # or every answer waits 40 ms for its own headers' receipt

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = server.answer(self.command, self.path, headers, body)
            self.send_response(answer.status)
            for name, value in answer.headers:
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815  http.server's names

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    return Handler


def _content(body: bytes, wanted: str | None) -> Answer:
    headers = (("ETag", _etag(body)), ("Last-Modified", _MODIFIED_HTTP))
    if wanted is None:
        return Answer(200, body, headers)
    first, last = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted).groups()  # type: ignore[union-attr]
    start = int(first) if first else max(0, len(body) - int(last))
    stop = min(int(last) + 1, len(body)) if first and last else len(body)
    if start >= len(body):
        return _error(416, "InvalidRange")
    place = f"bytes {start}-{stop - 1}/{len(body)}"
    return Answer(206, body[start:stop], (*headers, ("Content-Range", place)))


def _etag(body: bytes) -> str:
    return f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'


def _xml(name: str, content: str) -> Answer:
    text = f'<?xml version="1.0" encoding="UTF-8"?><{name}>{content}</{name}>'
    return Answer(200, text.encode(), (("Content-Type", "application/xml"),))


def _error(status: int, code: str) -> Answer:
    return _xml("Error", f"<Code>{code}</Code><Message>{code}</Message>")._replace(status=status)
