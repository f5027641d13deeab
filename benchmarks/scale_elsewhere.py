"""Fleets whose database makes no digests: ``python -m benchmarks.scale_elsewhere [ENTITIES …]``.

The source lies in PostgreSQL with the state beside it, the vectors in a folder, kept by Qdrant's
engine or by LanceDB. A check with memos has to go over every record there; beside it stands the
bare enumeration of either side by its own driver, in the same run. Otherwise as `benchmarks.scale`,
which keeps the figures too.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks import scale
from benchmarks.children import machine
from benchmarks.fleet import MEAN_ENTITIES, Fleet
from benchmarks.scale_world import PostgresWorld, postgres_world

STORES: Mapping[str, str] = {
    "qdrant engine": "qdrant+file:///{folder}/records",
    "lancedb": "lancedb:///{folder}?table=records",
}
AIM = 1.3


class Elsewhere(scale.Bench):
    """One fleet, with its vectors out of the source's database."""

    def run(self) -> scale.Figures:
        """A sync from nothing, and checks beside the bare enumerations."""
        busy = machine()
        self._world.load(self._fleet)
        self._create_store()
        told = self._do("sync from nothing", "sync")
        self._expect("sync from nothing", told["outcomes"], {"in_sync": self._fleet.owners})
        self._world.settle()
        self._check("check, cold", read="full")
        for _ in range(self._rounds):
            self._do("bare source", "bare source digests")
            records = self._do("bare store", "bare stamps")["records"]
            self._check("check, warm", read="digests")
        # One of Qdrant's points is undrift's claim on the collection.
        self._expect("bare store", records - told["written"] in (0, 1), True)
        slower = max(("bare source", "bare store"), key=self._median_seconds)
        ratio = self._median_seconds("check, warm") / self._median_seconds(slower)
        return {
            "machine": busy,
            "dimension": self._dimension,
            "owners": self._fleet.owners,
            "entities": told["written"],
            "actions": self._actions(),
            "slower": slower,
            "ratios": {"check, warm / slower side": round(ratio, 4)},
            "wrong": self._wrong,
        }


@contextmanager
def world_elsewhere(store: str, *, in_memory: bool) -> Iterator[PostgresWorld]:
    """A server for the source and the state, and an empty folder for the store."""
    with (
        postgres_world(in_memory=in_memory) as world,
        tempfile.TemporaryDirectory(prefix="undrift-scale-") as folder,
    ):
        world.state = world.source
        world.store = STORES[store].format(folder=folder)
        yield world


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale_elsewhere")
    parser.add_argument("sizes", nargs="*", type=scale.parsed_size, metavar="ENTITIES")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=scale.RESULT)
    asked = parser.parse_args()
    wrong: list[str] = []
    for entities in asked.sizes or [100_000]:
        fleet = Fleet(entities // MEAN_ENTITIES)
        for store in asked.stores:
            print(f"\n{store}: about {entities} entities", flush=True)
            with world_elsewhere(store, in_memory=scale.fits_in_memory(entities)) as world:
                bench = Elsewhere(world, fleet, dimension=scale.DIMENSION, rounds=asked.rounds)
                figures = bench.run()
            ratio = figures["ratios"]["check, warm / slower side"]
            verdict = "" if ratio <= AIM else "   MISSED"
            print(f"    warm check by {figures['slower']} {ratio:7.3f}   aim {AIM}{verdict}")
            scale.keep(entities, {store: figures}, asked.output)
            wrong += figures["wrong"]
    scale.end_with(wrong)


if __name__ == "__main__":
    main()
