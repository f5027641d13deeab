"""What checking and syncing whole fleets takes: ``python -m benchmarks.scale [ENTITIES …]``.

For each size, in a fresh PostgreSQL with pgvector and in a pair of SQLite files, with the hashing
embedder (not semantic, so that the embedding hides nothing): the fleet synced from nothing; checked
with memos, without any yet, and without using them; checked and synced after changes; and checked
after differences were planted behind undrift's back, which must be found exactly. Every piece of
work is a process of its own, whose clock starts after imports and connections. Beside it stand the
raw limits, taken in the same run: the digest queries of both sides, the source read and rendered by
two processes, and read, render, embed and load one after another. Ratios are sounder than times.

Sizes are written like 10k or 1M. Results are kept by size in ``benchmarks/results/scale.json``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any

import psutil

from benchmarks import planting
from benchmarks.children import ROOT, Told, machine, measured
from benchmarks.fleet import MEAN_ENTITIES, Fleet
from benchmarks.scale_world import World, postgres_world, sqlite_world
from undrift import Undrift
from undrift.embedders.hashing import HashingEmbedder
from undrift.stores import open_store

RESULT = ROOT / "benchmarks" / "results" / "scale.json"
CHILD = "benchmarks.scale_child"
DIMENSION = 384
PROCESSES = 2
SYNC_PROCESSES = 2
"""Each works while the other waits for the database; a third one costs its start."""

PLANTED = 1_000
DIRTY = 100
MOST_ROUNDS = 5

BYTES_PER_ENTITY = 2_500
"""Source, store and state, besides the vector."""

SPARE_BYTES = 4 * 2**30

AIMS = {
    "check, warm / bare digests": 2.0,
    "check, cold / bare render": 1.25,
    "check, without memos / bare render": 1.25,
    "sync from nothing / bare sync": 1.15,
    "sync from nothing, several processes / bare sync": 1.15,
    "incremental check / check, cold": 0.01,
}
PEAK_AIM_MB = 300

Figures = dict[str, Any]


class Bench:
    """One fleet in one world.

    Args:
        rounds: how often what can be repeated is measured, in turn with its raw limit.
    """

    def __init__(self, world: World, fleet: Fleet, *, dimension: int, rounds: int) -> None:
        self._world, self._fleet, self._rounds = world, fleet, rounds
        self._dimension = dimension
        self._taken: dict[str, list[Told]] = {}
        self._facts: Figures = {}
        self._wrong: list[str] = []

    def run(self) -> Figures:
        """Everything, and what it came to."""
        busy = machine()
        self._world.load(self._fleet)
        self._sync_from_nothing()
        self._checks()
        self._incremental()
        self._one_percent()
        self._planted()
        actions = self._actions()
        return {
            "machine": busy,
            "dimension": self._dimension,
            "rounds": self._rounds,
            **self._facts,
            "actions": actions,
            "ratios": _ratios(self._taken, _seconds),
            "cpu_ratios": _ratios(self._taken, _cpu_seconds),
            "check_peak_mb": max(
                figures["peak_mb"] for name, figures in actions.items() if name.startswith("check")
            ),
            "wrong": self._wrong,
        }

    # --- the parts

    def _sync_from_nothing(self) -> None:
        self._create_store()
        bare = self._do("bare sync", "bare sync", last=self._fleet.owners)
        self._world.drop_bare()
        for name, processes in (
            ("sync from nothing, several processes", SYNC_PROCESSES),
            ("sync from nothing", 1),
        ):
            if self._taken.get("sync from nothing, several processes"):
                self._world.drop_vectors()
                self._create_store()
            self._world.settle()
            told = self._do(name, "sync", spread=processes)
            self._expect(name, told["outcomes"], {"in_sync": self._fleet.owners})
            self._expect(name, told["written"], bare["entities"])
        self._world.settle()
        self._facts |= {
            "owners": self._fleet.owners,
            "entities": bare["entities"],
            "stored_mb": round(self._world.bytes_stored() / 1e6, 1),
        }

    def _checks(self) -> None:
        for _ in range(self._rounds):
            self._bare_render()
            self._world.forget_memos()
            self._check("check, cold", read="full")
            self._check("check, without memos", read="full", memos=False)
        self._world.settle()
        for _ in range(self._rounds):
            self._do("bare digests", "bare digests")
            self._check("check, warm", read="digests")
        told = self._do("no-op sync", "sync")
        self._expect("no-op sync", told["written"] + told["deleted"], 0)

    def _incremental(self) -> None:
        url = self._world
        embedder = HashingEmbedder(self._dimension)
        with Undrift(source=url.source, store=url.store, state=url.state, embedder=embedder) as u:
            u.triggers.install()
        self._world.take_marks()
        self._world.settle()
        dirty = self._spread(min(DIRTY, self._fleet.owners // 10))
        planting.edit(self._world, dirty, "Touched")
        for _ in range(self._rounds):
            told = self._do("incremental check", "changed")
            self._expect_found("incremental check", told, _edited(dirty))
        self._sync_changes("sync of what is dirty", dirty)

    def _one_percent(self) -> None:
        changed = self._spread(max(1, self._fleet.owners // 100))
        planting.edit(self._world, changed, "Changed by a migration")
        told = self._do("check, 1 % changed", "check")
        self._expect_found("check, 1 % changed", told, _edited(changed))
        self._sync_changes("sync, 1 % changed", changed)

    def _planted(self) -> None:
        count = min(PLANTED, self._fleet.owners // 5)
        first = planting.plan(self._fleet, count, seed=1)
        planting.plant(self._world, first)
        self._checks_of_planted("planted", first)
        touched = {one.owner for one in first}
        second = planting.plan(self._fleet, count, seed=2, untouched=touched)
        with self._world.silenced():
            planting.plant(self._world, second)
        self._checks_of_planted("planted without triggers", [*first, *second])
        self._facts["planted"] = [count, 2 * count]
        self._do("sync, planted", "sync")
        told = self._do("check, repaired", "check")
        self._expect_found("check, repaired", told, set())

    def _checks_of_planted(self, name: str, planted: Sequence[planting.Planted]) -> None:
        told = self._do(f"check, warm, {name}", "check")
        self._expect_found(f"check, warm, {name}", told, planting.to_find(planted))
        self._world.forget_memos()
        told = self._do(f"check, cold, {name}", "check")
        self._expect_found(f"check, cold, {name}", told, planting.to_find(planted))

    def _sync_changes(self, name: str, owners: Sequence[int]) -> None:
        told = self._do(name, "sync")
        self._expect(name, (told["written"], told["embedded"]), (len(owners), len(owners)))

    def _bare_render(self) -> None:
        half = self._fleet.owners // 2
        parts = [(1, half), (half + 1, self._fleet.owners)]
        jobs = [self._job("bare render", first=first, last=last) for first, last in parts]
        cpu = self._world.server_cpu_seconds()
        told = _together(measured(CHILD, *jobs))
        told["server_cpu_seconds"] = self._world.server_cpu_seconds() - cpu
        self._note("bare render", told)

    def _check(self, name: str, *, read: str, memos: bool = True) -> None:
        told = self._do(name, "check", memos=memos, processes=PROCESSES)
        self._expect(name, told["outcomes"], {"in_sync": self._fleet.owners})
        self._expect(name, told["read"], {read: self._fleet.owners})

    def _create_store(self) -> None:
        """Empty, as a sync would; a bare load copies its layout."""
        with closing(open_store(self._world.store)) as store:
            store.create(self._dimension)

    # --- measuring

    def _do(self, name: str, do: str, **more: object) -> Told:
        """Have something done, and note what it took under *name*."""
        cpu, touched = self._world.server_cpu_seconds(), self._world.bytes_touched()
        (told,) = measured(CHILD, self._job(do, **({"processes": PROCESSES} | more)))
        told["server_cpu_seconds"] = self._world.server_cpu_seconds() - cpu
        read = told.pop("file_bytes_read") if self._world.name == "sqlite" else 0
        told["mb_read"] = round((self._world.bytes_touched() - touched + read) / 1e6, 1)
        self._note(name, told)
        return told

    def _job(self, do: str, **more: object) -> Mapping[str, object]:
        world = self._world
        sides = {"source": world.source, "store": world.store, "state": world.state}
        return {"do": do, "dimension": self._dimension, **sides, **more}

    def _actions(self) -> dict[str, Figures]:
        return {name: _medians(rounds) for name, rounds in self._taken.items()}

    def _median_seconds(self, name: str) -> float:
        return statistics.median(float(told["seconds"]) for told in self._taken[name])

    def _note(self, name: str, told: Told) -> None:
        self._taken.setdefault(name, []).append(told)
        print(_line(name, told), flush=True)

    def _expect(self, name: str, found: object, expected: object) -> None:
        if found != expected:
            self._wrong.append(f"{name}: {found} instead of {expected}")
            print(f"  WRONG: {self._wrong[-1]}", flush=True)

    def _expect_found(self, name: str, told: Told, expected: Iterable[object]) -> None:
        found = {tuple(one) for one in told["differences"]}
        wanted = set(expected)
        told["exact"] = found == wanted and len(found) == len(told["differences"])
        if not told["exact"]:
            amiss = sorted(map(str, found ^ wanted))
            self._wrong.append(f"{name}: {len(found)} of {len(wanted)} found, e.g. {amiss[:3]}")
            print(f"  WRONG: {self._wrong[-1]}", flush=True)

    def _spread(self, count: int) -> Sequence[int]:
        """So many users, all over the fleet."""
        step = self._fleet.owners // count
        return range(1, 1 + step * count, step)


def _edited(owners: Iterable[int]) -> set[planting.Difference]:
    return {(str(owner), "changed", "experience:exp_0") for owner in owners}


def _together(told: Sequence[Told]) -> Told:
    """What processes that worked side by side took in all."""
    sums = ("cpu_seconds", "peak_mb", "owners", "entities")
    whole: Told = {name: sum(one[name] for one in told) for name in sums}
    return whole | {"seconds": max(one["seconds"] for one in told)}


# --- what is kept ---------------------------------------------------------------------------------


def _medians(rounds: Sequence[Told]) -> Figures:
    """The medians of what is a measurement; the last round's of what is not."""
    figures: Figures = {}
    for name, value in rounds[-1].items():
        if name == "differences":
            figures[name] = len(value)
        elif isinstance(value, float):
            figures[name] = round(statistics.median(float(one[name]) for one in rounds), 4)
        else:
            figures[name] = value
    return figures | {"rounds": [round(one["seconds"], 4) for one in rounds]}


def _ratios(
    taken: Mapping[str, Sequence[Told]], figure: Callable[[Told], float]
) -> dict[str, float]:
    """The medians of the pairs that were measured in turn."""
    ratios = {}
    for name in AIMS:
        work, floor = name.split(" / ")
        pairs = zip(taken[work], taken[floor], strict=False)
        ratios[name] = round(
            statistics.median(figure(ours) / figure(bare) for ours, bare in pairs), 4
        )
    return ratios


def _seconds(told: Told) -> float:
    return float(told["seconds"])


def _cpu_seconds(told: Told) -> float:
    """Of the clients and the servers: what a busy machine cannot falsify."""
    return float(told["cpu_seconds"] + told.get("server_cpu_seconds", 0.0))


def keep(entities: int, figures: Mapping[str, Figures], path: Path = RESULT) -> None:
    """Put the figures of one size in the place of those of the last run."""
    kept = json.loads(path.read_text()) if path.exists() else {"sizes": {}}
    kept["sizes"].setdefault(str(entities), {}).update(figures)
    kept["sizes"] = dict(sorted(kept["sizes"].items(), key=lambda item: int(item[0])))
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(kept, indent=1) + "\n")


def _line(name: str, told: Told) -> str:
    words = [
        f"  {name:<36} {told['seconds']:9.3f} s  cpu {told['cpu_seconds']:8.3f} s",
        f"server {told.get('server_cpu_seconds', 0.0):8.3f} s",
        f"{told['peak_mb']:6.0f} MB",
        f"{told.get('mb_read', 0.0):9.1f} MB read",
    ]
    return "  ".join(words)


def report(name: str, figures: Figures) -> None:
    """Print the ratios of one world beside what they should be."""
    print(f"\n  {name}: {figures['entities']} entities of {figures['owners']} users")
    for what, aim in AIMS.items():
        found = figures["ratios"][what]
        verdict = "" if found <= aim else "   MISSED"
        cpu = figures["cpu_ratios"][what]
        print(f"    {what:<38} {found:8.4f}   by CPU {cpu:8.4f}   aim {aim}{verdict}")
    peak = figures["check_peak_mb"]
    verdict = "" if peak <= PEAK_AIM_MB else "   MISSED"
    print(f"    {'peak of a check, MB':<38} {peak:8.1f}   aim {PEAK_AIM_MB}{verdict}")


# --- the command ----------------------------------------------------------------------------------


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("sizes", nargs="*", type=parsed_size, metavar="ENTITIES")
    parser.add_argument("--worlds", nargs="+", choices=WORLDS, default=list(WORLDS))
    parser.add_argument("--dimension", type=int, default=DIMENSION)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--output", type=Path, default=RESULT)
    asked = parser.parse_args()
    wrong: list[str] = []
    for entities in asked.sizes or [10_000, 100_000, 1_000_000]:
        fleet = Fleet(entities // MEAN_ENTITIES)
        rounds = asked.rounds or max(1, min(MOST_ROUNDS, 2_000_000 // entities))
        in_memory = fits_in_memory(entities, asked.dimension)
        where = "in memory" if in_memory else "on disk"
        for name in asked.worlds:
            print(f"\n{name}, {where}: about {entities} entities", flush=True)
            began = time.monotonic()
            with WORLDS[name](in_memory=in_memory) as world:
                bench = Bench(world, fleet, dimension=asked.dimension, rounds=rounds)
                figures = bench.run() | {"where": where}
            report(name, figures)
            print(f"    took {time.monotonic() - began:.0f} s in all", flush=True)
            keep(entities, {name: figures}, asked.output)
            wrong += figures["wrong"]
    end_with(wrong)


def end_with(wrong: Sequence[str]) -> None:
    """Fail if anything was not what it should be."""
    if wrong:
        sys.exit("\n".join(["not as it should be:", *wrong]))


WORLDS: Mapping[str, Callable[..., AbstractContextManager[World]]] = {
    "postgresql": postgres_world,
    "sqlite": sqlite_world,
}


def parsed_size(text: str) -> int:
    """``10k`` is 10,000, and ``1M`` a million."""
    for sign, times in (("k", 1_000), ("M", 1_000_000)):
        if text.endswith(sign):
            return int(text[:-1]) * times
    return int(text)


def fits_in_memory(entities: int, dimension: int = DIMENSION) -> bool:
    """Whether the machine has the memory to hold it all; ends the program if nothing has."""
    needed = entities * (BYTES_PER_ENTITY + 4 * dimension) + SPARE_BYTES
    memory, disk = Path("/dev/shm"), shutil.disk_usage(tempfile.gettempdir()).free
    if memory.is_dir():
        room = min(psutil.virtual_memory().available, shutil.disk_usage(memory).free)
        if needed < room:
            return True
    if needed > disk:
        sys.exit(
            f"{entities} entities take {needed / 1e9:.0f} GB, and {disk / 1e9:.0f} GB are free"
        )
    return False


if __name__ == "__main__":
    main()
