"""What each store does in a second, beside its bare driver: 50,000 records of 1,000 users.

    python -m benchmarks.stores [RECORDS] [STORE …]

For every store in turn, on this machine and in one run: the bulk load through undrift's adapter and
by the bare driver, records written anew, one user's stamps, everybody's stamps, and a search of one
user for ten. Servers are started for it, with their usual durability. Vectors have 384 components
and mean nothing. Ratios are sounder than times; results are kept as JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

from undrift.ports import Record, VectorStore
from undrift.stores import open_store
from undrift.testing.builders import MODEL, records, vectors

RECORDS, PER_OWNER = 50_000, 50
DIMENSION = 384
BATCH = 5_000
REWRITTEN = 5_000
ASKED = 50
RESULT = Path(__file__).parent / "results" / "stores.json"


class Place(NamedTuple):
    """An empty place for a store, and the bare load of the same records elsewhere."""

    url: str
    load: Callable[[Sequence[Record]], None]
    version: str


# --- the bare drivers -----------------------------------------------------------------------------


@contextmanager
def sqlite(folder: Path) -> Iterator[Place]:
    """A file; the bare load is one transaction of rows."""
    import sqlite3

    def load(written: Sequence[Record]) -> None:
        with closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as file:
            file.execute("PRAGMA journal_mode = wal")
            file.execute("CREATE TABLE bare (id TEXT PRIMARY KEY, stamp TEXT, vector BLOB)")
            file.execute("BEGIN")
            file.executemany("INSERT INTO bare VALUES (?, ?, ?)", _rows(written))
            file.execute("COMMIT")

    yield Place(f"sqlite:///{folder}/store.db", load, sqlite3.sqlite_version)


@contextmanager
def pgvector(folder: Path) -> Iterator[Place]:
    """A durable server out of a wheel; the bare load is a binary COPY."""
    import psycopg
    from pgvector.psycopg import register_vector

    from support.postgres import PostgresServer

    with PostgresServer(durable=True) as server, server.database() as url:

        def load(written: Sequence[Record]) -> None:
            with psycopg.connect(url) as connection:
                register_vector(connection)
                connection.execute(
                    f"CREATE TABLE bare (id uuid PRIMARY KEY, stamp text, v vector({DIMENSION}))"
                )
                copy_in = "COPY bare FROM STDIN WITH (FORMAT BINARY)"
                with connection.cursor().copy(copy_in) as copy:
                    copy.set_types(["uuid", "text", "vector"])
                    for record in written:
                        copy.write_row(
                            (UUID(record.stamp.vector_id), _stamp(record), record.embedding)
                        )

        with psycopg.connect(url) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        yield Place(url, load, str(row[0]) if row else "")


@contextmanager
def qdrant(folder: Path) -> Iterator[Place]:
    """The stand-in for a server over Qdrant's engine; the bare load is the client's upsert."""
    from qdrant_client import QdrantClient, models

    from support.qdrant_server import QdrantServer

    with QdrantServer() as server:

        def load(written: Sequence[Record]) -> None:
            client = QdrantClient(server.http_url, timeout=60, check_compatibility=False)
            at = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
            client.create_collection("bare", vectors_config=at)
            for part in _parts(written, 1_000):
                client.upsert("bare", [_point(models, record) for record in part], wait=True)
            client.close()

        yield Place(server.url("store"), load, "engine 0.9")


def _point(models: Any, record: Record) -> Any:  # noqa: ANN401 - a module of the driver's
    assert record.embedding is not None
    return models.PointStruct(
        id=record.stamp.vector_id,
        vector=record.embedding.tolist(),
        payload={"stamp": _stamp(record)},
    )


@contextmanager
def qdrant_engine(folder: Path) -> Iterator[Place]:
    """Qdrant's engine in this process."""
    import qdrant_edge as edge

    def load(written: Sequence[Record]) -> None:
        (folder / "bare").mkdir()
        config = edge.EdgeConfig(vectors=edge.EdgeVectorParams(DIMENSION, edge.Distance.Cosine))
        shard = edge.EdgeShard.create(str(folder / "bare"), config)
        for part in _parts(written, BATCH):
            points = [edge.Point(r.stamp.vector_id, _list(r), {"stamp": _stamp(r)}) for r in part]
            shard.update(edge.UpdateOperation.upsert_points(points))
        shard.flush()
        shard.close()

    yield Place(f"qdrant+file:///{folder}/store", load, "engine 0.9")


@contextmanager
def chroma(folder: Path) -> Iterator[Place]:
    """A server; the bare load is the client's add."""
    import chromadb
    from chromadb.config import Settings

    from support.chroma_server import ChromaServer

    with ChromaServer() as server:

        def load(written: Sequence[Record]) -> None:
            settings = Settings(anonymized_telemetry=False)
            client = chromadb.HttpClient("127.0.0.1", server.port, settings=settings)
            bare = client.create_collection("bare", embedding_function=None)
            for part in _parts(written, 1_000):
                bare.add(
                    ids=[record.stamp.vector_id for record in part],
                    embeddings=np.stack([r.embedding for r in part if r.embedding is not None]),
                    metadatas=[{"stamp": _stamp(record)} for record in part],
                )

        yield Place(server.new_location(), load, chromadb.__version__)


@contextmanager
def lance(folder: Path) -> Iterator[Place]:
    """A folder; the bare load is one add a batch."""
    import lancedb
    import pyarrow as pa

    def load(written: Sequence[Record]) -> None:
        database = lancedb.connect(folder / "bare")
        kind = pa.list_(pa.float32(), DIMENSION)
        columns = {"id": pa.string(), "stamp": pa.string(), "vector": kind}
        table = database.create_table("bare", schema=pa.schema(list(columns.items())))
        for part in _parts(written, BATCH):
            flat = pa.array(np.concatenate([r.embedding for r in part if r.embedding is not None]))
            table.add(
                pa.table(
                    {
                        "id": [record.stamp.vector_id for record in part],
                        "stamp": [_stamp(record) for record in part],
                        "vector": pa.FixedSizeListArray.from_arrays(flat, DIMENSION),
                    }
                )
            )

    yield Place(f"lancedb:///{folder}/store?table=records", load, lancedb.__version__)


@contextmanager
def redis(folder: Path) -> Iterator[Place]:
    """A server with RediSearch, its log on the disk; the bare load is a pipeline of HSETs."""
    from redis import Redis
    from redis.commands.search.field import VectorField
    from redis.commands.search.index_definition import IndexDefinition, IndexType

    from support.redis_server import RedisServer

    with RedisServer() as server:

        def load(written: Sequence[Record]) -> None:
            client = Redis.from_url(server.url)
            field = VectorField(
                "v", "FLAT", {"TYPE": "FLOAT32", "DIM": DIMENSION, "DISTANCE_METRIC": "COSINE"}
            )
            client.ft("bare").create_index(
                [field],
                definition=IndexDefinition(["bare:"], index_type=IndexType.HASH),  # type: ignore[no-untyped-call]
            )
            for part in _parts(written, 1_000):
                pipeline = client.pipeline(transaction=False)
                for key, stamp, vector in _rows(part):
                    pipeline.hset(f"bare:{key}", mapping={"stamp": stamp, "v": vector})
                pipeline.execute()
            client.close()

        yield Place(f"{server.url}?index=store", load, "RediSearch 2.10 on Valkey 9")


@contextmanager
def milvus(folder: Path) -> Iterator[Place]:
    """A standalone server; the bare load is the client's insert."""
    from pymilvus import DataType, MilvusClient

    from support.milvus_server import PASSWORD, USER, VERSION, MilvusServer

    with MilvusServer() as server:
        at = {"uri": server.address, "user": USER, "password": PASSWORD}
        with closing(MilvusClient(**at, timeout=60.0)) as client:
            # Ahead of the clock, as undrift's own is: it sleeps until the collection is loaded.
            fields = MilvusClient.create_schema()
            fields.add_field("id", DataType.VARCHAR, max_length=36, is_primary=True)
            fields.add_field("stamp", DataType.VARCHAR, max_length=65_535)
            fields.add_field("vector", DataType.FLOAT_VECTOR, dim=DIMENSION)
            index = MilvusClient.prepare_index_params()
            index.add_index("vector", index_type="FLAT", metric_type="COSINE")
            client.create_collection("bare", schema=fields, index_params=index)

            def load(written: Sequence[Record]) -> None:
                for part in _parts(written, 1_000):
                    rows = [
                        {"id": r.stamp.vector_id, "stamp": _stamp(r), "vector": _list(r)}
                        for r in part
                    ]
                    client.insert("bare", rows)

            yield Place(server.url("store"), load, VERSION)


STORES: Mapping[str, Callable[[Path], Any]] = {
    "sqlite": sqlite,
    "pgvector": pgvector,
    "qdrant": qdrant,
    "qdrant engine": qdrant_engine,
    "chroma": chroma,
    "lancedb": lance,
    "redis": redis,
    "milvus": milvus,
}


# --- measuring ------------------------------------------------------------------------------------


def measure(place: Place, written: Sequence[Sequence[Record]]) -> dict[str, float | str]:
    """The figures of one store.

    Args:
        written: by owner.
    """
    flat = [record for of_owner in written for record in of_owner]
    with closing(open_store(place.url)) as store:
        store.create(DIMENSION)
        bulk = timed(lambda: publish(store, flat))
        bare = timed(lambda: place.load(flat))
        again = [
            record._replace(stamp=record.stamp._replace(version=2)) for record in flat[:REWRITTEN]
        ]
        rewritten = timed(lambda: publish(store, again))
        owners = [of_owner[0].stamp.owner_id for of_owner in written]
        one = [timed(partial(enumerate_one, store, owner)) for owner in owners[:ASKED]]
        everybody = timed(lambda: enumerate_all(store, owners))
        queries = vectors(ASKED, seed=99, dimension=DIMENSION)
        search = [
            timed(partial(store.search, owner, query, model=MODEL, kinds=None, limit=10))
            for owner, query in zip(owners, queries, strict=False)
        ]
        return {
            "version": place.version,
            "class": store.capabilities.store_class.value,
            "records": len(flat),
            "bulk_rows_per_second": round(len(flat) / bulk),
            "bare_bulk_rows_per_second": round(len(flat) / bare),
            "bulk_by_bare": round(bulk / bare, 2),
            "rewrite_rows_per_second": round(len(again) / rewritten),
            "one_owner_milliseconds": round(statistics.median(one) * 1_000, 2),
            "stamps_per_second": round(len(flat) / everybody),
            "search_milliseconds": round(statistics.median(search) * 1_000, 2),
        }


def publish(store: VectorStore, written: Sequence[Record]) -> None:
    """As a sync does: a batch at a time."""
    for part in _parts(written, BATCH):
        store.publish(part, [])


def enumerate_one(store: VectorStore, owner: str) -> None:
    """One user's stamps."""
    assert len(list(store.stamps([owner]))) == PER_OWNER


def enumerate_all(store: VectorStore, owners: Sequence[str]) -> None:
    """Everybody's stamps, in pages of 200 users as a check reads them."""
    found = 0
    for page in _parts(owners, 200):
        found += sum(1 for _ in store.stamps(page))
    assert found == len(owners) * PER_OWNER, f"{found} stamps"


def timed(work: Callable[[], object]) -> float:
    """Seconds that *work* takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    """Measure, print and write the result."""
    asked = sys.argv[1:]
    size = int(asked.pop(0)) if asked and asked[0].isdigit() else RECORDS
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    written = [
        records(PER_OWNER, owner_id=f"user-{number}", seed=number, dimension=DIMENSION)
        for number in range(size // PER_OWNER)
    ]
    result: dict[str, dict[str, float | str]] = {}
    for name in asked or STORES:
        with tempfile.TemporaryDirectory() as folder, STORES[name](Path(folder)) as place:
            result[name] = measure(place, written)
        print(name, json.dumps(result[name]), flush=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


def _parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _rows(written: Sequence[Record]) -> Iterator[tuple[str, str, bytes]]:
    for record in written:
        assert record.embedding is not None
        yield record.stamp.vector_id, _stamp(record), record.embedding.tobytes()


def _stamp(record: Record) -> str:
    return json.dumps(record.stamp)


def _list(record: Record) -> list[float]:
    assert record.embedding is not None
    found: list[float] = record.embedding.tolist()
    return found


if __name__ == "__main__":
    main()
