"""What an index on vectors in PostgreSQL gives and costs: graphs and lists, over wholes and halves.

One user has half of all records, one a fifth, thirty have the rest. Of each kind of vectors, those
that lie in clusters as embeddings do and those that lie at random as the worst case, it measures an
exact search, then builds each type of index and measures the build, its size, how much of the true
ten nearest `?search=approximate` finds, how long that takes, and what a write costs with it. Prints
a table and writes it as JSON. Recall is compared with the exact search of what is stored.

    python -m benchmarks.search_index [records]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import psycopg

from undrift.ports import Record, Vectors
from undrift.search_index import IndexParameters, IndexType
from undrift.stores.pgvector import PgvectorStore
from undrift.testing.builders import MODEL, record

RECORDS = 100_000
DIMENSION = 384
QUERIES = 40
NEAREST = 10
NEW = 2_000
CLUSTERS = 300
BATCH = 5_000
RESULT = Path(__file__).parent / "results" / "search_index.json"
SETTINGS = {"shared_buffers": "1GB", "max_wal_size": "8GB", "checkpoint_timeout": "1h"}

Figures = dict[str, float | str | int]


def main() -> None:
    """Measure, print and write the result."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else RECORDS
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from support.postgres import PostgresServer

    found: list[Figures] = []
    with PostgresServer(durable=True, settings=SETTINGS) as server:
        for shape in ("clusters", "random"):
            for stored in ("vector", "halfvec"):
                with server.database() as url:
                    for figures in measured(f"{url}?vectors={stored}", shape, count):
                        found.append({"vectors": stored, "shape": shape, **figures})
                        print(told(found[-1]), flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    document = {"records": count, "dimension": DIMENSION, "rows": found}
    RESULT.write_text(json.dumps(document, indent=2) + "\n")


def measured(url: str, shape: str, count: int) -> Iterator[Figures]:
    """The figures of one database, without an index and with each type."""
    sizes = {"half": count // 2, "fifth": count // 5}
    others = (count - sum(sizes.values())) // 30
    sizes |= {f"other {number}": others for number in range(30)}
    queries = vectors(QUERIES, shape, seed=1_000)
    with (
        closing(PgvectorStore(url)) as store,
        closing(PgvectorStore(f"{url}&search=approximate")) as asking,
    ):
        store.create(DIMENSION)
        for seed, (owner, size) in enumerate(sizes.items()):
            publish(store, records_of(owner, vectors(size, shape, seed=seed)))
        analyze(url)
        true = {owner: searched(store, owner, queries) for owner in ("half", "fifth")}
        yield {
            "index": "none",
            "table_mb": table_megabytes(url),
            "writes_per_second": write(store, url, shape),
            **{f"ms_{owner}": median_ms for owner, (_, median_ms) in true.items()},
        }
        for kind in IndexType:
            begin = time.perf_counter()
            built = store.build_index(IndexParameters(type=kind, maintenance_work_mem="512MB"))
            figures: Figures = {
                "index": kind.value,
                "lists": built.lists or 0,
                "build_seconds": round(time.perf_counter() - begin, 1),
                "index_mb": round(built.size_bytes / 2**20, 1),
            }
            for owner, (expected, _) in true.items():
                hits, median_ms = searched(asking, owner, queries)
                figures[f"ms_{owner}"] = median_ms
                figures[f"recall_{owner}"] = recall(hits, expected)
            figures["writes_per_second"] = write(store, url, shape)
            store.drop_index()
            yield figures


def vectors(count: int, shape: str, *, seed: int) -> Vectors:
    """Directions of length one; those in clusters have the same clusters for every seed."""
    chance = np.random.default_rng(seed)
    made = chance.standard_normal((count, DIMENSION))
    if shape == "clusters":
        centres = np.random.default_rng(99).standard_normal((CLUSTERS, DIMENSION))
        made += centres[chance.integers(CLUSTERS, size=count)]
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made.astype(np.float32)


def records_of(owner: str, embeddings: Vectors, name: str = "r") -> list[Record]:
    """Records with these vectors."""
    return [
        record(f"{name}{number}", owner_id=owner, embedding=embedding)
        for number, embedding in enumerate(embeddings)
    ]


def publish(store: PgvectorStore, written: list[Record]) -> None:
    """Write all of it."""
    for start in range(0, len(written), BATCH):
        store.publish(written[start : start + BATCH], [])


def searched(
    store: PgvectorStore, owner: str, queries: Vectors
) -> tuple[list[frozenset[str]], float]:
    """What each query finds, and how long the median one takes in milliseconds."""
    found, seconds = [], []
    for query in queries:
        begin = time.perf_counter()
        hits = store.search(owner, query, model=MODEL, kinds=None, limit=NEAREST)
        seconds.append(time.perf_counter() - begin)
        found.append(frozenset(hit.stamp.vector_id for hit in hits))
    return found, round(1_000 * statistics.median(seconds), 1)


def recall(found: list[frozenset[str]], expected: list[frozenset[str]]) -> float:
    """How much of what is expected was found."""
    shares = [len(one & other) / len(other) for one, other in zip(found, expected, strict=True)]
    return round(statistics.mean(shares), 3)


def write(store: PgvectorStore, url: str, shape: str) -> int:
    """New records a second; they are removed again."""
    new = records_of("half", vectors(NEW, shape, seed=2_000), name="new")
    begin = time.perf_counter()
    publish(store, new)
    seconds = time.perf_counter() - begin
    with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
        connection.execute("DELETE FROM undrift.vectors WHERE entity_id LIKE 'new%'")
        connection.execute("VACUUM undrift.vectors")
    return round(NEW / seconds)


def analyze(url: str) -> None:
    """Let the planner know what is there, as the server does by itself after a while."""
    with psycopg.connect(url.partition("?")[0], autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE undrift.vectors")


def table_megabytes(url: str) -> float:
    """The table with its own indexes."""
    with psycopg.connect(url.partition("?")[0]) as connection:
        row = connection.execute("SELECT pg_total_relation_size('undrift.vectors')").fetchone()
    assert row is not None
    return round(float(row[0]) / 2**20, 1)


def told(figures: Mapping[str, object]) -> str:
    """One line."""
    return "  ".join(f"{name} {value}" for name, value in figures.items())


if __name__ == "__main__":
    main()
