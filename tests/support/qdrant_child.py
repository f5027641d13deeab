"""The process of `support.qdrant_server`: Qdrant's REST API, as far as it is called.

    python -m support.qdrant_child FOLDER PORT OPTIONS

It ends when its standard input is closed, and removes its folder then, so that nothing is left of
it however the tests end.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import orjson
import qdrant_edge as edge
from pydantic import TypeAdapter, ValidationError
from qdrant_client.http import models as wire

from support import qdrant_wire as translate
from support.qdrant_wire import Json, Refused, not_known

MAX_REQUEST_BYTES = 32 * 1024 * 1024
CONDITIONAL_SINCE = (1, 16)

_DIMENSION = "Vector dimension error"


class Options(NamedTuple):
    """How the server behaves.

    Attributes:
        version: which one it says it is. One before 1.16 takes no notice of `update_filter`.
        key: whoever shows it may do anything; empty lets everybody in.
        read_key: whoever shows it may read.
        durable: flush before a write is answered.
        status: what a write that waits is said to be.
        strict: conditions may only name fields with an index, as in Qdrant Cloud.
    """

    version: str = "1.16.3"
    key: str = ""
    read_key: str = ""
    durable: bool = False
    status: str = "completed"
    strict: bool = True


class Collection:
    """One collection, open in the engine."""

    def __init__(self, folder: Path, engine: edge.EdgeShard, *, is_strict: bool) -> None:
        self.folder = folder
        self._is_strict = is_strict
        self.engine = engine
        self.writing = threading.RLock()
        self.vectors = json.loads((folder / "vectors.json").read_text())

    @property
    def indexes(self) -> translate.Indexes:
        """The fields that have one, and of which type."""
        schema = self.engine.info().payload_schema
        return {field: translate.KINDS[index.data_type] for field, index in schema.items()}

    @property
    def filterable(self) -> translate.Indexes | None:
        """The fields that conditions may name; None if all may."""
        return self.indexes if self._is_strict else None


class Server:
    """The collections, and what is done with them."""

    def __init__(self, folder: Path, options: Options) -> None:
        self.options = options
        self._folder = folder
        self._collections: dict[str, Collection] = {}
        self._opening = threading.RLock()
        numbers = re.findall(r"\d+", options.version)[:2]
        self._is_conditional = tuple(map(int, numbers)) >= CONDITIONAL_SINCE

    # --- collections

    def collection(self, name: str) -> Collection:
        with self._opening:
            if name not in self._collections:
                folder = self._place(name)
                if not folder.exists():
                    raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
                engine = edge.EdgeShard.load(str(folder / "shard"))
                is_strict = self.options.strict
                self._collections[name] = Collection(folder, engine, is_strict=is_strict)
            return self._collections[name]

    def create(self, name: str, body: wire.CreateCollection) -> Json:
        with self._opening:
            folder = self._place(name)
            if folder.exists():
                raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
            new = folder.with_suffix(".new")
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            engine = edge.EdgeShard.create(str(new / "shard"), translate.engine_config(body))
            engine.flush()
            engine.close()
            assert body.vectors is not None
            vectors = body.model_dump(mode="json", exclude_none=True)["vectors"]
            (new / "vectors.json").write_text(json.dumps(vectors))
            new.rename(folder)
        return True

    def remove(self, name: str) -> Json:
        collection = self.collection(name)
        with self._opening:
            del self._collections[name]
            collection.engine.close()
            shutil.rmtree(collection.folder)
        return True

    def exists(self, name: str) -> Json:
        return {"exists": self._place(name).exists()}

    def info(self, name: str) -> Json:
        collection = self.collection(name)
        return translate.collection_info(
            collection.vectors, collection.engine.info(), is_strict=self.options.strict
        )

    def create_index(self, name: str, body: wire.CreateFieldIndex) -> Json:
        translate.require_only(body, "field_name", "field_schema")
        operation = edge.UpdateOperation.create_field_index(
            body.field_name, translate.index_of(body)
        )
        return self._write(self.collection(name), lambda _: operation)

    # --- writing

    def upsert(self, name: str, body: wire.PointsList) -> Json:
        translate.require_only(body, "points", "update_filter")
        points = translate.points_of(body.points)
        condition = body.update_filter if self._is_conditional else None
        return self._write(
            self.collection(name),
            lambda indexes: edge.UpdateOperation.upsert_points(
                points, translate.filter_of(condition, indexes)
            ),
        )

    def batch(self, name: str, body: wire.UpdateOperations) -> Json:
        operations = list(translate.operations_of(body))
        done = self._write(self.collection(name), *operations)
        return [done for _ in operations]

    def overwrite(self, name: str, body: wire.SetPayload) -> Json:
        return self._write(self.collection(name), translate.overwrite_of(body))

    def set_payload(self, name: str, body: wire.SetPayload) -> Json:
        return self._write(self.collection(name), translate.merge_of(body))

    def delete(self, name: str, body: wire.PointsSelector) -> Json:
        if isinstance(body, wire.PointIdsList):
            operation = edge.UpdateOperation.delete_points(list(body.points))
            return self._write(self.collection(name), lambda _: operation)
        selected = body.filter

        def by_filter(indexes: translate.Indexes | None) -> Json:
            found = translate.filter_of(selected, indexes)
            assert found is not None
            return edge.UpdateOperation.delete_points_by_filter(found)

        return self._write(self.collection(name), by_filter)

    def delete_vectors(self, name: str, body: wire.DeleteVectors) -> Json:
        translate.require_only(body, "points", "vector")
        operation = edge.UpdateOperation.delete_vectors(list(body.points or ()), body.vector)
        return self._write(self.collection(name), lambda _: operation)

    def _write(
        self, collection: Collection, *operations: Callable[[translate.Indexes | None], Json]
    ) -> Json:
        with collection.writing:
            for operation in operations:
                collection.engine.update(operation(collection.filterable))
            if self.options.durable:
                collection.engine.flush()
        return {"operation_id": 0, "status": self.options.status}

    # --- reading

    def retrieve(self, name: str, body: wire.PointRequest) -> Json:
        translate.require_only(body, "ids", "with_payload", "with_vector")
        with_vector = bool(body.with_vector)
        records = self.collection(name).engine.retrieve(
            list(body.ids), translate.selection_of(body.with_payload), with_vector
        )
        return translate.records_json(records, with_vector=with_vector)

    def scroll(self, name: str, body: wire.ScrollRequest) -> Json:
        translate.require_only(body, "filter", "limit", "offset", "with_payload", "with_vector")
        collection = self.collection(name)
        with_vector = bool(body.with_vector)
        records, next_id = collection.engine.scroll(
            edge.ScrollRequest(
                offset=body.offset,
                limit=body.limit or 10,
                filter=translate.filter_of(body.filter, collection.filterable),
                with_payload=translate.selection_of(body.with_payload),
                with_vector=with_vector,
            )
        )
        return {
            "points": translate.records_json(records, with_vector=with_vector),
            "next_page_offset": next_id,
        }

    def query(self, name: str, body: wire.QueryRequest) -> Json:
        known = ("query", "filter", "params", "limit", "with_payload", "with_vector", "using")
        translate.require_only(body, *known)
        if body.params is None or not body.params.exact:
            raise not_known("a search that is not exact")
        collection = self.collection(name)
        found = collection.engine.query(
            edge.QueryRequest(
                limit=body.limit or 10,
                query=edge.Query.Nearest(translate.query_of(body.query), body.using),
                filter=translate.filter_of(body.filter, collection.filterable),
                with_payload=translate.selection_of(body.with_payload),
                params=edge.SearchParams(exact=True),
            )
        )
        return {"points": translate.scored_json(found)}

    def facet(self, name: str, body: wire.FacetRequest) -> Json:
        translate.require_only(body, "key", "limit", "filter", "exact")
        collection = self.collection(name)
        if collection.indexes.get(body.key) != "keyword":
            raise Refused(400, f"Bad request: No appropriate index for faceting: `{body.key}`.")
        request = edge.FacetRequest(
            key=body.key,
            limit=body.limit or 10,
            exact=bool(body.exact),
            filter=translate.filter_of(body.filter, collection.filterable),
        )
        hits = collection.engine.facet(request).hits
        return {"hits": [{"value": hit.value, "count": hit.count} for hit in hits]}

    def count(self, name: str, body: wire.CountRequest) -> Json:
        translate.require_only(body, "filter", "exact")
        collection = self.collection(name)
        condition = translate.filter_of(body.filter, collection.filterable)
        return {"count": collection.engine.count(edge.CountRequest(filter=condition))}

    def _place(self, name: str) -> Path:
        return self._folder / quote(name, safe="")


class Route(NamedTuple):
    """One call of the API.

    Attributes:
        method: of `Server`'s.
        body: what a request's must be; None if there is none.
        parameters: that the URL may have.
        is_write: it needs a key that may write.
    """

    method: Callable[..., Json]
    body: Json = None
    parameters: frozenset[str] = frozenset()
    is_write: bool = False


_READ = frozenset({"consistency", "timeout"})
_WRITE = frozenset({"wait", "ordering", "timeout"})
_TIMEOUT = frozenset({"timeout"})

ROUTES: Mapping[tuple[str, str], Route] = {
    ("GET", ""): Route(Server.info),
    ("GET", "exists"): Route(Server.exists),
    ("PUT", ""): Route(Server.create, wire.CreateCollection, _TIMEOUT, is_write=True),
    ("DELETE", ""): Route(Server.remove, None, _TIMEOUT, is_write=True),
    ("PUT", "index"): Route(Server.create_index, wire.CreateFieldIndex, _WRITE, is_write=True),
    ("PUT", "points"): Route(Server.upsert, wire.PointsList, _WRITE, is_write=True),
    ("POST", "points"): Route(Server.retrieve, wire.PointRequest, _READ),
    ("POST", "points/batch"): Route(Server.batch, wire.UpdateOperations, _WRITE, is_write=True),
    ("PUT", "points/payload"): Route(Server.overwrite, wire.SetPayload, _WRITE, is_write=True),
    ("POST", "points/payload"): Route(Server.set_payload, wire.SetPayload, _WRITE, is_write=True),
    ("POST", "points/delete"): Route(Server.delete, wire.PointsSelector, _WRITE, is_write=True),
    ("POST", "points/vectors/delete"): Route(
        Server.delete_vectors, wire.DeleteVectors, _WRITE, is_write=True
    ),
    ("POST", "points/scroll"): Route(Server.scroll, wire.ScrollRequest, _READ),
    ("POST", "points/query"): Route(Server.query, wire.QueryRequest, _READ),
    ("POST", "points/count"): Route(Server.count, wire.CountRequest, _READ),
    ("POST", "facet"): Route(Server.facet, wire.FacetRequest, _READ),
}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one packet; else each answer waits for an acknowledgement
    app: Server

    def do_GET(self) -> None:
        self._respond()

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815  as the base class calls them

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def _respond(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        status, answer = 200, {}
        try:
            with _refusals():
                answer = {"result": self._result(body), "status": "ok"}
                if urlsplit(self.path).path == "/":
                    answer = answer["result"]
        except Refused as refused:
            status, answer = refused.status, {"status": {"error": str(refused)}}
        content = orjson.dumps({"time": 0.001} | answer)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def _result(self, body: bytes) -> Json:
        url = urlsplit(self.path)
        key = self.headers.get("api-key", "")
        options = self.app.options
        if options.key and not key:
            raise Refused(401, "Must provide an API key or an Authorization bearer token")
        if options.key and key not in (options.key, options.read_key):
            raise Refused(401, "Invalid API key or JWT")
        if url.path == "/":
            return {"title": "qdrant - vector search engine", "version": options.version}
        parts = url.path.split("/")
        route = ROUTES.get((self.command, "/".join(parts[3:])))
        if route is None or parts[1] != "collections":
            raise Refused(404, f"the tests' server has no {self.command} {url.path}")
        if route.is_write and options.key and key != options.key:
            raise Refused(403, "Forbidden: Write access to collection is required")
        parameters = dict(parse_qsl(url.query))
        if unknown := parameters.keys() - route.parameters:
            raise not_known(f"the parameter {min(unknown)}")
        if parameters.get("wait", "true") != "true":
            raise not_known("a write that does not wait")
        if len(body) > MAX_REQUEST_BYTES:
            raise Refused(413, f"JSON payload ({len(body)} bytes) is larger than allowed")
        arguments = [] if route.body is None else [TypeAdapter(route.body).validate_json(body)]
        return route.method(self.app, unquote(parts[2]), *arguments)


@contextmanager
def _refusals() -> Iterator[None]:
    """What the models and the engine raise, as Qdrant answers it."""
    try:
        yield
    except Refused:
        raise
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        raise Refused(
            422, f"Format error in JSON body: {first['msg']} at {first['loc']}"
        ) from error
    except Exception as error:
        message = str(error)
        if _DIMENSION in message or isinstance(error, ValueError):
            raise Refused(400, f"Wrong input: {message}") from error
        raise Refused(500, f"Service internal error: {message}") from error


def main(folder: Path, port: int, options: Options) -> None:
    """Serve until standard input is closed."""
    folder.mkdir(exist_ok=True)
    Handler.app = Server(folder, options)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), Options(**json.loads(sys.argv[3])))
