"""A Qdrant collection of another program's keeps the contract of adopted collections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient, models

from support.qdrant_engine import engine_at, folder_in_memory
from support.qdrant_server import QdrantServer
from undrift.adoption import Field, StoreFields
from undrift.ports import Vectors
from undrift.stores._qdrant_folder import Folder
from undrift.testing._store_adoption import KIND, AdoptionContract, ForeignRecord
from undrift.testing.builders import DIMENSION, MODEL, vectors

Payload = dict[str, object]


class Flat:
    """Fields beside one another, one nameless vector, as most programs have it."""

    vector = ""

    def fields(self, location: str) -> StoreFields:
        return StoreFields(
            owner=Field(path=("user_id",)),
            kind=Field(value=KIND),
            entity_id=Field(path=("exp.id",)),
            text=Field(path=("page_content",)),
            model=Field(value=MODEL),
            fixed={"app": "careers"},
        )

    def payload(self, record: ForeignRecord) -> Payload:
        found: Payload = {"app": "careers", "extra": record.extra, "page_content": record.text}
        if record.owner is not None:
            found["user_id"] = record.owner
        if record.entity_id is not None:
            found["exp.id"] = record.entity_id
        return found

    def record(self, id_: str, payload: Mapping[str, object], vector: object) -> ForeignRecord:
        return _record(id_, payload, payload, payload.get("exp.id"), vector)


class Nested:
    """As LangChain has it: metadata in an object of their own; and a vector with a name."""

    vector = "text"

    def fields(self, location: str) -> StoreFields:
        return StoreFields(
            owner=Field(path=("metadata", "user_id")),
            kind=Field(value=KIND),
            entity_id=Field(path=("metadata", "exp")),
            text=Field(path=("page_content",)),
            model=Field(value=MODEL),
            vector=Field(path=("text",)),
        )

    def payload(self, record: ForeignRecord) -> Payload:
        metadata: Payload = {"extra": record.extra}
        if record.owner is not None:
            metadata["user_id"] = record.owner
        if record.entity_id is not None:
            metadata["exp"] = record.entity_id
        return {"page_content": record.text, "metadata": metadata}

    def record(self, id_: str, payload: Mapping[str, object], vector: object) -> ForeignRecord:
        metadata = payload.get("metadata")
        beside = metadata if isinstance(metadata, dict) else {}
        return _record(id_, payload, beside, beside.get("exp"), vector)


class Server:
    """Written and searched by qdrant-client."""

    payload: Callable[[ForeignRecord], Payload]
    record: Callable[[str, Mapping[str, object], object], ForeignRecord]
    vector: str

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls) -> Iterator[Callable[[], str]]:
        """Not in strict mode, which is for collections whose indexes somebody thought of."""
        with QdrantServer(strict=False) as server:
            yield lambda: server.url(f"c-{uuid4()}")

    def write_foreign(self, location: str, records: Sequence[ForeignRecord]) -> None:
        params = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
        with client_at(location) as (client, name):
            if not client.collection_exists(name):
                named = {self.vector: params} if self.vector else params
                client.create_collection(name, vectors_config=named)
            points = [
                models.PointStruct(
                    id=record.id, vector=_named(self.vector, record), payload=self.payload(record)
                )
                for record in records
            ]
            client.upsert(name, points)

    def raw(self, location: str) -> Mapping[str, ForeignRecord]:
        with client_at(location) as (client, name):
            records, _ = client.scroll(name, limit=10_000, with_vectors=True)
        return {
            str(found.id): self.record(str(found.id), found.payload or {}, found.vector)
            for found in records
        }

    def searchable(self, location: str) -> set[str]:
        exact = models.SearchParams(exact=True)
        with client_at(location) as (client, name):
            answer = client.query_points(
                name,
                query=vectors(1)[0].tolist(),
                using=self.vector or None,
                limit=1_000,
                search_params=exact,
            )
        return {str(hit.id) for hit in answer.points}


class Engine:
    """Written and searched by the engine."""

    payload: Callable[[ForeignRecord], Payload]
    record: Callable[[str, Mapping[str, object], object], ForeignRecord]
    vector: str

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls) -> Iterator[Callable[[], str]]:
        numbers = count(1)
        with folder_in_memory() as folder:
            yield lambda: f"qdrant+file:///{folder / f'c{next(numbers)}'}"

    def write_foreign(self, location: str, records: Sequence[ForeignRecord]) -> None:
        folder = Folder(Path(location.removeprefix("qdrant+file:///")))
        params = edge.EdgeVectorParams(size=DIMENSION, distance=edge.Distance.Cosine)
        named = {self.vector: params} if self.vector else params
        folder.create(edge.EdgeConfig(vectors=named), lambda engine: None)
        with engine_at(location) as engine:
            points = [
                edge.Point(record.id, _named(self.vector, record), self.payload(record))
                for record in records
            ]
            engine.update(edge.UpdateOperation.upsert_points(points))

    def raw(self, location: str) -> Mapping[str, ForeignRecord]:
        with engine_at(location) as engine:
            request = edge.ScrollRequest(limit=10_000, with_payload=True, with_vector=True)
            records, _ = engine.scroll(request)
        return {
            str(found.id): self.record(str(found.id), found.payload or {}, found.vector)
            for found in records
        }

    def searchable(self, location: str) -> set[str]:
        query = edge.Query.Nearest(vectors(1)[0].tolist(), self.vector or None)
        with engine_at(location) as engine:
            hits = engine.query(edge.QueryRequest(limit=1_000, query=query))
        return {str(hit.id) for hit in hits}


class TestFlatServer(Flat, Server, AdoptionContract):
    pass


class TestNestedServer(Nested, Server, AdoptionContract):
    pass


class TestFlatEngine(Flat, Engine, AdoptionContract):
    pass


class TestNestedEngine(Nested, Engine, AdoptionContract):
    pass


@contextmanager
def client_at(location: str) -> Iterator[tuple[QdrantClient, str]]:
    """Qdrant's own client, and the collection's name."""
    server, _, collection = location.removeprefix("qdrant+").rpartition("/")
    client = QdrantClient(url=server, check_compatibility=False)
    try:
        yield client, collection
    finally:
        client.close()


def _named(name: str, record: ForeignRecord) -> Any:  # noqa: ANN401  what both drivers take
    if record.vector is None:
        return {}
    vector: list[float] = record.vector.tolist()
    return {name: vector} if name else vector


def _record(
    id_: str,
    payload: Mapping[str, object],
    beside: Mapping[str, object],
    entity_id: object,
    vector: object,
) -> ForeignRecord:
    owner, text, extra = beside.get("user_id"), payload.get("page_content"), beside.get("extra")
    assert owner is None or isinstance(owner, int)
    return ForeignRecord(
        id=id_,
        owner=owner,
        entity_id=None if entity_id is None else str(entity_id),
        text=None if text is None else str(text),
        vector=_vector(vector),
        extra=None if extra is None else str(extra),
    )


def _vector(found: object) -> Vectors | None:
    if isinstance(found, dict):
        found = next(iter(found.values()), None)
    return np.array(found, dtype=np.float32) if isinstance(found, list) else None
