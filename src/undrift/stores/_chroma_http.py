"""A Chroma server, by its HTTP API.

Spoken to directly: Chroma's own client waits for ever, raises bare `Exception` for what it does not
know, reads a ``.env`` of the working directory, and brings a hundred packages along.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

import httpx
import orjson

from undrift.pooling import Pool
from undrift.stores._chroma_address import ServerAddress, path_of
from undrift.stores._chroma_api import Collection, Put, Row, Where, space_of
from undrift.stores._chroma_errors import NOT_CHROMA, TOO_OLD, refusal, transport_errors
from undrift.stores._meaning import NOT_CREATED

# A page of 2,000 records of 1,536 components takes some 5 s to write. All calls of a publish
# together must end within the horizon behind which a state has late writes looked for, 900 s.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)

_JSON = {"Content-Type": "application/json"}
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY

_FOUND = (200, 201)
_API = "/v2"


class _Ask(Protocol):
    def __call__(
        self, method: str, path: str, request: Mapping[str, object] | None = None
    ) -> object: ...


class ChromaServer:
    """The `Chroma` that is a server.

    Safety:
        May be used from several threads and behind a fork: each call has a connection to itself.
    """

    def __init__(self, address: ServerAddress) -> None:
        self._address = address
        self._connections = Pool(self._connect, httpx.Client.close, lambda _: True)
        self._is_new_enough = False

    def find(self, name: str) -> Collection | None:
        """The collection called *name*; asks the server each time, since somebody may replace it.

        Raises:
            ConfigError: wrong key, tenant or database, or no Chroma server, or an old one.
            StoreUnavailable: no answer.
        """
        self._require_new_server()
        status, body = self._send("GET", self._collections(name))
        if status == 404:
            self._require_database(status, body)
            return None
        return self._collection(self._read(status, body))

    def create(self, name: str) -> None:
        """Create a collection that measures the cosine; one that is there stays as it is."""
        self._require_new_server()
        status, body = self._send(
            "POST",
            self._collections(),
            {
                "name": name,
                "configuration": {"hnsw": {"space": "cosine"}},
                "metadata": {"hnsw:space": "cosine"},  # the first of 1.0 read only that
                "get_or_create": True,
            },
        )
        if status == 409 and self.find(name) is not None:
            return  # another process was quicker
        self._read(status, body)

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._connections.close()

    def ask(self, method: str, path: str, request: Mapping[str, object] | None = None) -> object:
        """Send *request* and read what the server answers.

        Raises:
            UndriftError: it is no success, or no answer.
        """
        return self._read(*self._send(method, path, request))

    def _send(
        self, method: str, path: str, request: Mapping[str, object] | None = None
    ) -> tuple[int, bytes]:
        content = None if request is None else orjson.dumps(request, option=_OPTIONS)
        with (
            transport_errors(self._address.location),
            self._connections.connection() as connection,
        ):
            answer = connection.request(method, self._address.api + path, content=content)
            return answer.status_code, answer.content

    def _read(self, status: int, body: bytes) -> object:
        if status not in _FOUND:
            raise refusal(self._address.location, status, body)
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            self._is_no_chroma("what it says is no JSON")

    def _require_new_server(self) -> None:
        """Look once whether what answers is a Chroma server that has all that is asked of it."""
        if self._is_new_enough:
            return
        status, body = self._send("GET", f"{_API}/version")
        if status == 404:  # before 0.6 there was no such API
            status, _ = self._send("GET", "/v1/version")
            if status in _FOUND:
                raise TOO_OLD.error(self._address.location, "it knows the API v1 only")
            self._is_no_chroma("there is no Chroma API")
        version = self._read(status, body)
        if not isinstance(version, str) or not version.partition(".")[0].isdigit():
            self._is_no_chroma("it names no version")
        if version.startswith("0."):
            raise TOO_OLD.error(self._address.location, f"it is Chroma {version}")
        self._is_new_enough = True

    def _require_database(self, status: int, body: bytes) -> None:
        """That there is no collection is certain only where there is its database.

        Raises:
            ConfigError: there is not.
        """
        missing = refusal(self._address.location, status, body)
        if missing.what != NOT_CREATED.what:
            raise missing
        tenant, database = self._address.tenant, self._address.database
        self.ask("GET", _API + path_of("tenants", tenant, "databases", database))

    def _collection(self, answer: object) -> ServerCollection:
        found = answer if isinstance(answer, dict) else {}
        id_, dimension = found.get("id"), found.get("dimension")
        if not isinstance(id_, str):
            self._is_no_chroma("it describes a collection in another way")
        return ServerCollection(
            ask=self.ask,
            path=self._collections(id_),
            space=space_of(found.get("configuration_json"), found.get("metadata")),
            dimension=dimension if isinstance(dimension, int) else None,
        )

    def _is_no_chroma(self, why: str) -> NoReturn:
        raise NOT_CHROMA.error(self._address.location, why)

    def _collections(self, *names: str) -> str:
        tenant, database = self._address.tenant, self._address.database
        return _API + path_of("tenants", tenant, "databases", database, "collections", *names)

    def _connect(self) -> httpx.Client:
        is_plain = self._address.api.startswith("http:")
        return httpx.Client(
            headers={**_JSON, **self._address.headers},
            timeout=_TIMEOUT,
            # Reading all authorities' certificates takes 20 ms, and nobody shows one there.
            verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_plain else True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCollection:
    """The `Collection` of a server."""

    ask: _Ask = field(repr=False)
    path: str
    space: str
    dimension: int | None

    def count(self) -> int:
        """How many records there are."""
        found = self.ask("GET", f"{self.path}/count")
        return found if isinstance(found, int) else 0

    def rows(
        self,
        *,
        ids: Sequence[str] | None = None,
        where: Where | None = None,
        limit: int | None = None,
        with_documents: bool = False,
    ) -> list[Row]:
        """The records under *ids*, or those that *where* lets pass, by one consistent read."""
        include = ["metadatas", "documents"] if with_documents else ["metadatas"]
        found = self._get(include, ids=ids, where=where, limit=limit)
        documents = found["documents"] if with_documents else [None] * len(found["ids"])
        return [
            Row(id_, metadata or {}, document or "")
            for id_, metadata, document in zip(
                found["ids"], found["metadatas"], documents, strict=True
            )
        ]

    def ids(self, where: Where | None) -> list[str]:
        """The ids of the records that *where* lets pass, by one consistent read."""
        found: list[str] = self._get([], where=where)["ids"]
        return found

    def embeddings(self, ids: Sequence[str]) -> list[tuple[str, Sequence[float]]]:
        """The vectors under *ids*."""
        found = self._get(["embeddings"], ids=ids)
        return list(zip(found["ids"], found["embeddings"], strict=True))

    def require_vectors(self, ids: Sequence[str]) -> None:
        """Look whether the records under *ids* have their vectors.

        A query without a vector: the server looks up the place of each record in the index, and
        then has nothing to compare. 2,000 records took 6 ms; reading their vectors takes 180 ms.
        """
        request = {"ids": list(ids), "query_embeddings": [], "n_results": 1, "include": []}
        self.ask("POST", f"{self.path}/query", request)

    def add(self, put: Put) -> None:
        """Write a record, if none has its id."""
        self._write("add", [put])

    def upsert(self, puts: Sequence[Put]) -> None:
        """Write records, whatever has their ids."""
        self._write("upsert", puts)

    def update(self, puts: Sequence[Put]) -> None:
        """Change fields and documents of records that are there; their vectors stay."""
        self._write("update", puts)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove records; one that is not there is no error."""
        self.ask("POST", f"{self.path}/delete", {"ids": list(ids)})

    def _write(self, how: str, puts: Sequence[Put]) -> None:
        request: dict[str, object] = {
            "ids": [put.id for put in puts],
            "metadatas": [put.metadata for put in puts],
            "documents": [put.document for put in puts],
        }
        if how != "update":
            request["embeddings"] = [put.embedding for put in puts]
        self.ask("POST", f"{self.path}/{how}", request)

    def _get(self, include: Sequence[str], **chosen: object) -> Mapping[str, list[Any]]:
        answer = self.ask("POST", f"{self.path}/get", {**chosen, "include": include})
        assert isinstance(answer, dict)
        return answer
