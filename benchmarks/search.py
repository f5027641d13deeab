"""What joining a search to the source costs: ``python -m benchmarks.search [--queries N]``.

`Undrift.search` reads the user's content from the source and joins every hit to it, so that nothing
is returned that is gone; beside it the store's own search with the same vector, in turn. Users of
10, 100 and 10,000 entities among a thousand others, in PostgreSQL with pgvector and in two SQLite
files, with the hashing embedder (not semantic); the query is embedded beforehand for both. Prints
the table and keeps it in ``benchmarks/results/search.json``.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from benchmarks.children import ROOT, machine
from benchmarks.fleet import Fleet, document
from benchmarks.profiles import sentence
from benchmarks.scale_bare import MAPPING
from benchmarks.scale_world import World, postgres_world, sqlite_world
from undrift import Undrift
from undrift.embedders.hashing import HashingEmbedder
from undrift.ports import Purpose, Vectors
from undrift.stores import open_store

RESULT = ROOT / "benchmarks" / "results" / "search.json"
OTHERS = 1_000
SIZES = (10, 100, 10_000)
LIMIT = 10
QUERIES = 300
LARGE, LARGE_QUERIES = 1_000, 60
WARM_UP = 5


class KnownQueries(HashingEmbedder):
    """The hashing embedder; queries that it was told of cost nothing."""

    def __init__(self, queries: Iterable[str]) -> None:
        super().__init__()
        self.known = {query: super(KnownQueries, self).embed([query]) for query in queries}

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed, or recall."""
        if purpose == "query" and len(texts) == 1 and texts[0] in self.known:
            return self.known[texts[0]]
        return super().embed(texts, purpose)


def measure(world: World, queries: Sequence[str]) -> dict[str, Any]:
    """The figures of one world, by how many entities the user has."""
    world.load(Fleet(OTHERS))
    owners = {size: OTHERS + number for number, size in enumerate(SIZES, start=1)}
    for size, owner in owners.items():
        text = json.dumps(document(owner, entities=size))
        world.write(
            "source",
            [("INSERT INTO profiles VALUES (:owner, :text)", {"owner": owner, "text": text})],
        )
    embedder = KnownQueries(queries)
    found = {}
    with (
        Undrift(source=world.source, store=world.store, embedder=embedder) as sides,
        closing(open_store(world.store)) as store,
    ):
        assert all(report.is_in_sync for report in sides.sync_all())
        world.settle()
        for size, owner in owners.items():

            def joined(query: str, owner: int = owner) -> list[str]:
                result = sides.search(owner, query, limit=LIMIT)
                assert not result.met_drift
                return [hit.key for hit in result.hits]

            def own(query: str, owner: int = owner) -> list[str]:
                vector = embedder.known[query][0]
                matches = store.search(
                    str(owner), vector, model=embedder.model, kinds=MAPPING.kinds, limit=LIMIT
                )
                return [match.stamp.key for match in matches]

            asked = queries if size < LARGE else queries[:LARGE_QUERIES]
            found[str(size)] = in_turn(joined, own, asked)
            print(line(world.name, size, found[str(size)]), flush=True)
    return found


def in_turn(
    joined: Callable[[str], Sequence[str]],
    own: Callable[[str], Sequence[str]],
    queries: Sequence[str],
) -> dict[str, Any]:
    """Ask both the same, one after the other, and say how long each took."""
    times: dict[str, list[float]] = {"joined": [], "own": []}
    for number, query in enumerate([*queries[:WARM_UP], *queries]):
        began = time.perf_counter()
        hits = joined(query)
        between = time.perf_counter()
        matches = own(query)
        end = time.perf_counter()
        assert len(hits) == len(matches) == LIMIT
        if number >= WARM_UP:
            times["joined"].append(between - began)
            times["own"].append(end - between)
    return {
        "queries": len(queries),
        "joined_ms": quantiles(times["joined"]),
        "own_ms": quantiles(times["own"]),
        "ratio": round(statistics.median(times["joined"]) / statistics.median(times["own"]), 2),
    }


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50 and p99 in milliseconds."""
    p50, p99 = np.percentile(seconds, [50, 99])
    return {"p50": round(1_000 * float(p50), 3), "p99": round(1_000 * float(p99), 3)}


def line(name: str, size: int, figures: Mapping[str, Any]) -> str:
    """One line of the table."""
    both = "  ".join(
        f"{what} p50 {figures[key]['p50']:8.2f} ms, p99 {figures[key]['p99']:8.2f} ms"
        for what, key in (("joined", "joined_ms"), ("the store's own", "own_ms"))
    )
    return f"{name:<11} {size:>6} entities  {both}  {figures['ratio']:6.2f} x"


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search")
    parser.add_argument("--queries", type=int, default=QUERIES)
    asked = parser.parse_args()
    rng = random.Random(1)
    queries = [f"{number} {sentence(rng, 5)}" for number in range(asked.queries)]
    result: dict[str, Any] = {"machine": machine(), "limit": LIMIT}
    with postgres_world(in_memory=True) as postgres:
        result["postgresql"] = measure(postgres, queries)
    with sqlite_world(in_memory=True) as sqlite:
        result["sqlite"] = measure(sqlite, queries)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
