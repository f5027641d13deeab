"""undrift beside LangChain, LlamaIndex and CocoIndex: ``python -m benchmarks.peers [OPTIONS]``.

The same texts, 10,000 unless told otherwise, of a tenth as many owners, through each of them into
one PostgreSQL with pgvector, all with the same hashing embedder (not semantic) and without an index
over the vectors. Each is run from nothing; with nothing to do; after a change in the source; and
after its vectors were damaged behind its back. Each run is a process of its own, its clock starts
after imports and connections, and what it did is read from its table. Where the usual run leaves
damage, what the system has for that case is run too. Prints a table and keeps the medians of all
rounds in ``benchmarks/results/peers.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.children import ROOT, Told, answer, child, machine, say, watched
from benchmarks.peers_table import RESULT, ratios
from benchmarks.peers_world import Table, World, copy_folder, is_noticed

OWN, PEERS = Path(sys.executable), ROOT / ".venv-peers/bin/python"


class System(NamedTuple):
    """One of those that are measured.

    Attributes:
        module: the program's, below `benchmarks.peers_children`.
        packages: whose versions are told.
        repairs: what it has besides its usual run, the least first.
        checks: whether it can look without writing.
    """

    module: str
    python: Path
    packages: Sequence[str]
    table: Table
    repairs: Sequence[str]
    checks: bool = False


_LANGCHAIN = "public.langchain_texts"
_LANGCHAIN_OLD = "public.langchain_pg_embedding"
_LLAMA = "public.data_texts"

SYSTEMS: Mapping[str, System] = {
    "undrift": System(
        module="undrift",
        python=OWN,
        packages=("undrift", "psycopg"),
        table=Table(
            name="undrift.vectors",
            key="owner_id || '/' || kind || ':' || entity_id",
            text="text",
            ghost="INSERT INTO undrift.vectors SELECT (jsonb_populate_record(v, jsonb_build_object("
            "'vector_id', gen_random_uuid(), 'entity_id', 'ghost'))).* FROM undrift.vectors AS v"
            " WHERE owner_id = '1' AND kind = 'skill' AND entity_id = 's_0'",
        ),
        repairs=(),
        checks=True,
    ),
    "LangChain": System(
        module="langchain",
        python=PEERS,
        packages=("langchain-core", "langchain-classic", "langchain-postgres"),
        table=Table(
            name=_LANGCHAIN,
            key="langchain_metadata ->> 'key'",
            text="content",
            ghost=f"INSERT INTO {_LANGCHAIN} SELECT (jsonb_populate_record(v, jsonb_build_object("
            "'langchain_id', 'ghost', 'langchain_metadata',"
            ' langchain_metadata::jsonb || \'{"key": "1/skill:ghost"}\')'
            f")).* FROM {_LANGCHAIN} AS v WHERE langchain_metadata ->> 'key' = '1/skill:s_0'",
        ),
        repairs=("repair", "rebuild"),
    ),
    "LangChain, PGVector": System(
        module="langchain_pgvector",
        python=PEERS,
        packages=("langchain-core", "langchain-classic", "langchain-postgres"),
        table=Table(
            name=_LANGCHAIN_OLD,
            key="cmetadata ->> 'key'",
            text="document",
            ghost=f"INSERT INTO {_LANGCHAIN_OLD} SELECT (jsonb_populate_record(v,"
            " jsonb_build_object('id', gen_random_uuid(),"
            " 'cmetadata', cmetadata || '{\"key\": \"1/skill:ghost\"}')"
            f")).* FROM {_LANGCHAIN_OLD} AS v WHERE cmetadata ->> 'key' = '1/skill:s_0'",
        ),
        repairs=("repair", "rebuild"),
    ),
    "LlamaIndex": System(
        module="llamaindex",
        python=PEERS,
        packages=("llama-index-core", "llama-index-vector-stores-postgres"),
        table=Table(
            name=_LLAMA,
            key="metadata_ ->> 'key'",
            text="text",
            ghost=f"INSERT INTO {_LLAMA} SELECT (jsonb_populate_record(v, jsonb_build_object("
            "'id', id + 1000000, 'node_id', gen_random_uuid(),"
            " 'metadata_', metadata_ || '{\"key\": \"1/skill:ghost\"}')"
            f")).* FROM {_LLAMA} AS v WHERE metadata_ ->> 'key' = '1/skill:s_0'",
        ),
        repairs=("rebuild",),
    ),
    "CocoIndex": System(
        module="cocoindex",
        python=PEERS,
        packages=("cocoindex", "asyncpg"),
        table=Table(
            name="public.embedded",
            key="key",
            text="text",
            ghost="INSERT INTO public.embedded SELECT '1/skill:ghost', owner, text, embedding"
            " FROM public.embedded WHERE key = '1/skill:s_0'",
        ),
        repairs=("repair", "rebuild"),
    ),
}

HURTS: Mapping[str, Callable[[World, str, Table], None]] = {
    "one change": lambda world, database, _: world.change_one(database),
    "100 lost": World.lose,
    "100 stale": lambda world, database, _: world.drop_from_source(database),
    "one ghost": World.haunt,
}


class Bench:
    """One system in one round.

    Args:
        world: the databases.
        folder: an empty one, for what the systems keep in files.
    """

    def __init__(self, world: World, name: str, folder: Path) -> None:
        self._world, self._system = world, SYSTEMS[name]
        self._database = self._system.module
        self._folder, self._kept = folder / "now", folder / "kept"
        self._told_of_nothing: dict[str, Mapping[str, int]] = {}
        self.figures: dict[str, Told] = {}

    def run(self, hurts: Collection[str] = HURTS) -> Iterator[str]:
        """Everything from nothing, nothing to do, and each of *hurts*.

        Yields:
            What was done. Works while it is iterated, so that several systems take turns.
        """
        self._folder.mkdir(parents=True)
        self._world.copy("source", self._database)
        self._do("initial", "run")
        yield "initial"
        self._world.settle(self._database)
        self._nothing_to_do()
        yield "no-op"
        self._world.settle(self._database)
        self._world.copy(self._database, f"{self._database}_kept")
        copy_folder(self._folder, self._kept)
        for scenario in hurts:
            self._hurt(scenario)
            yield scenario
        for database in (self._database, f"{self._database}_kept"):
            self._world.drop(database)

    def _nothing_to_do(self) -> None:
        if self._system.checks:
            self._do("no-op, first check", "check")
            told = self._do("no-op, check", "check")
            self._told_of_nothing["check"] = told["report"]
        self._told_of_nothing["run"] = self._do("no-op", "run")["report"]

    def _hurt(self, scenario: str) -> None:
        """Hurt a fresh copy, and do what there is until it is well."""
        self._world.copy(f"{self._database}_kept", self._database)
        copy_folder(self._kept, self._folder)
        HURTS[scenario](self._world, self._database, self._system.table)
        if self._system.checks:
            self._do(f"{scenario}, check", "check")
        told = self._do(scenario, "run")
        for repair in self._system.repairs:
            if told["repaired"]:
                break
            told = self._do(f"{scenario}, {repair}", repair)

    def _do(self, scenario: str, do: str) -> Told:
        """Do one thing and note what it took, what was told of it, and what it left."""
        job = {"do": do, "url": self._world.url(self._database), "folder": str(self._folder)}
        with (
            child(
                f"benchmarks.peers_children.{self._system.module}",
                job,
                python=self._system.python,
                environment={"COCOINDEX_DISABLE_USAGE_TRACKING": "1"},
            ) as program,
            watched(program.pid) as peak,
        ):
            server = self._world.server_cpu_seconds()
            say(program, "go")
            told = answer(program)
            server = self._world.server_cpu_seconds() - server
        left = self._world.damage(self._database, self._system.table)
        del told["file_bytes_read"]  # databases are read by the server
        told |= {"server_cpu_seconds": server, "peak_mb": peak[0] / 1e6}
        if do in self._told_of_nothing:
            told["noticed"] = is_noticed(told["report"], self._told_of_nothing[do])
        if do != "check":
            told["repaired"] = left.is_none
            told["left"] = left._asdict()
        self.figures[scenario] = told
        return told


# --- what is kept ---------------------------------------------------------------------------------


def summary(rounds: Sequence[Mapping[str, Mapping[str, Told]]]) -> dict[str, Any]:
    """The medians over all rounds.

    A ratio is the median of the rounds' own ratios, so that the two it compares had the same
    neighbours.
    """
    return {
        "systems": {
            name: {
                scenario: median([of[name][scenario] for of in rounds]) for scenario in scenarios
            }
            for name, scenarios in rounds[0].items()
        },
        "ratios": {
            name: {
                scenario: median([found[name][scenario] for found in map(ratios, rounds)], digits=2)
                for scenario in scenarios
            }
            for name, scenarios in ratios(rounds[0]).items()
        },
    }


def median(figures: Sequence[Told], *, digits: int = 4) -> Told:
    """The median of each measurement; what is none must be the same everywhere."""
    kept: Told = {}
    for name, first in figures[0].items():
        values = [found[name] for found in figures]
        if isinstance(first, float):
            kept[name] = round(statistics.median(values), digits)
        else:
            assert all(value == first for value in values), f"{name} varies: {values}"
            kept[name] = first
    return kept


def versions(server_version: str) -> dict[str, str]:
    """Of everything that takes part."""
    asked = (
        "import importlib.metadata as m, json, sys;"
        " print(json.dumps([m.version(name) for name in sys.argv[1:]]))"
    )
    found = {"PostgreSQL": server_version, "Python": sys.version.split()[0]}
    for system in SYSTEMS.values():
        told = subprocess.run(
            [str(system.python), "-c", asked, *system.packages],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        found |= zip(system.packages, json.loads(told), strict=True)
    return found


def report(systems: Mapping[str, Mapping[str, Told]]) -> None:
    """Print the figures."""
    for name, scenarios in systems.items():
        for scenario, figures in scenarios.items():
            print(line(name, scenario, figures), flush=True)


def line(name: str, scenario: str, figures: Told) -> str:
    """One line of the table on stdout."""
    verdict = [
        word
        for key, word, other in (
            ("noticed", "noticed", "NOT NOTICED"),
            ("repaired", "repaired", "NOT REPAIRED"),
        )
        if key in figures
        for word in [word if figures[key] else other]
    ]
    return (
        f"{name:<19} {scenario:<20} {figures['seconds']:8.3f} s"
        f"  cpu {figures['cpu_seconds']:7.3f} s  server {figures['server_cpu_seconds']:6.2f} s"
        f"  {figures['peak_mb']:6.0f} MB  embedded {figures['embedded']:6}  {', '.join(verdict)}"
    )


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=SYSTEMS, default=list(SYSTEMS))
    parser.add_argument("--output", type=Path, default=RESULT)
    asked = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from support.postgres import PostgresServer

    rounds: list[Mapping[str, Mapping[str, Told]]] = []
    # Without flushes, which would tell of the disk, and most of all of those that commit every row.
    with PostgresServer() as server, tempfile.TemporaryDirectory() as folder:
        postmaster = int((server.folder / "data/postmaster.pid").read_text().split()[0])
        world = World(server.admin_url, postmaster, asked.texts // 10)
        world.create()
        about = {"texts": asked.texts, "versions": versions(world.server_version())}
        for number in range(1, asked.rounds + 1):
            benches = {
                name: Bench(world, name, Path(folder, f"{number}", name)) for name in asked.only
            }
            for _ in zip(*(bench.run() for bench in benches.values()), strict=True):
                pass  # they take turns, so that whatever else the machine does is shared by all
            rounds.append({name: bench.figures for name, bench in benches.items()})
            print(f"\nRound {number}")
            report(rounds[-1])
            result = about | {"rounds": number, "machine": machine()} | summary(rounds)
            asked.output.write_text(json.dumps(result, indent=2) + "\n")
    print("\nMedians")
    report(result["systems"])
    for name, times in result["ratios"].items():
        told = [f"{scenario} {time['seconds']} ({time['cpu']})" for scenario, time in times.items()]
        print(f"{name} by undrift, and by CPU: {', '.join(told)}")


if __name__ == "__main__":
    main()
