"""Draws what the benchmarks wrote: ``make plots``, or ``python -m benchmarks.plots [FOLDER]``.

A chart is nothing but numbers and words, made from one file of ``benchmarks/results``; drawing it
adds none. The same numbers give the same file, and a digest of them is kept in it, so that a test
can tell that the plots in the documentation are those of the results beside them. A result that is
not there yet is passed over, and said so.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.charts import draw
from benchmarks.children import ROOT
from benchmarks.scale import AIMS
from benchmarks.scale_elsewhere import STORES

RESULTS = ROOT / "benchmarks" / "results"
PLOTS = ROOT / "docs" / "plots"

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What is drawn.

    Attributes:
        title: one line.
        kind: ``bars`` in groups, or ``lines`` over numbers.
        across: what the groups are, or what lies on the horizontal axis, with its unit.
        up: what is measured, with its unit.
        groups: the groups' names, or the numbers on the horizontal axis.
        series: by name, one value for each group; None where there is none.
        is_log: the vertical axis is logarithmic.
        marks: for each group a limit that is drawn across its bars; None for none.
    """

    title: str
    kind: str
    across: str
    up: str
    groups: tuple[str, ...] | tuple[float, ...]
    series: Mapping[str, tuple[float | None, ...]]
    is_log: bool = True
    marks: tuple[float, ...] | None = None

    @property
    def digest(self) -> str:
        """Of everything that is drawn."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


# --- the charts -----------------------------------------------------------------------------------

_WORLD_NAMES = {"postgresql": "PostgreSQL", "sqlite": "SQLite"}
_CHECKS = {
    "without memos": "check, without memos",
    "first, memos being made": "check, cold",
    "bare: read and render, two processes": "bare render",
    "with memos": "check, warm",
    "bare: digest queries of both sides": "bare digests",
    "incremental, 100 users touched": "incremental check",
}


def checks(result: Result, world: str) -> Chart:
    """How long checks take, by the size of the fleet."""
    sizes = {size: found[world] for size, found in result["sizes"].items() if world in found}
    return Chart(
        title=f"Checking a whole fleet, source and vectors in {_WORLD_NAMES[world]}",
        kind="lines",
        across="entities",
        up="seconds",
        groups=tuple(float(found["entities"]) for found in sizes.values()),
        series={
            name: tuple(found["actions"][action]["seconds"] for found in sizes.values())
            for name, action in _CHECKS.items()
        },
    )


def syncs(result: Result, world: str) -> Chart:
    """How long syncs take, by the size of the fleet."""
    sizes = {size: found[world] for size, found in result["sizes"].items() if world in found}
    actions = {
        "from nothing": "sync from nothing",
        "bare: read, render, embed, load": "bare sync",
        "1 % of the users changed": "sync, 1 % changed",
        "nothing changed": "no-op sync",
    }
    return Chart(
        title=f"Syncing a whole fleet, source and vectors in {_WORLD_NAMES[world]}",
        kind="lines",
        across="entities",
        up="seconds",
        groups=tuple(float(found["entities"]) for found in sizes.values()),
        series={
            name: tuple(found["actions"][action]["seconds"] for found in sizes.values())
            for name, action in actions.items()
        },
    )


def limits(result: Result) -> Chart:
    """The ratios to the raw limits in the largest fleet."""
    entities, worlds = max(result["sizes"].items(), key=lambda item: int(item[0]))
    names = [name for name in AIMS if not name.startswith("incremental")]
    return Chart(
        title=f"How far from the raw limits, {int(entities):,} entities",
        kind="bars",
        across="",
        up="times the raw limit",
        groups=tuple(name.replace(" / ", "\nby ").replace(", ", ",\n") for name in names),
        series={
            _WORLD_NAMES[world]: tuple(worlds[world]["ratios"][name] for name in names)
            for world in _WORLD_NAMES
            if world in worlds
        },
        is_log=False,
        marks=tuple(AIMS[name] for name in names),
    )


def memory(result: Result) -> Chart:
    """The largest memory of the checks, by the size of the fleet."""
    groups = tuple(float(size) for size in result["sizes"])
    return Chart(
        title="The most memory that any check took",
        kind="lines",
        across="entities",
        up="MB (proportional set size of all its processes)",
        groups=groups,
        series={
            name: tuple(
                found[world]["check_peak_mb"] if world in found else None
                for found in result["sizes"].values()
            )
            for world, name in _WORLD_NAMES.items()
        },
        is_log=False,
    )


def elsewhere(result: Result) -> Chart:
    """Checks with memos of stores that compute no digests, in the largest fleet that has them."""
    sizes = [found for found in result["sizes"].values() if STORES.keys() & found.keys()]
    stores = {name: sizes[-1][name] for name in STORES if name in sizes[-1]}
    series = {
        "check with memos": "check, warm",
        "bare: every record of the store": "bare store",
        "bare: digests of the source": "bare source",
    }
    entities = max(found["entities"] for found in stores.values())
    return Chart(
        title=f"Stores that compute no digests, {entities:,} entities, source in PostgreSQL",
        kind="bars",
        across="",
        up="seconds",
        groups=tuple(stores),
        series={
            name: tuple(found["actions"][action]["seconds"] for found in stores.values())
            for name, action in series.items()
        },
    )


def search(result: Result) -> Chart:
    """Joined searches beside the store's own."""
    sizes = list(result["postgresql"])
    series = {}
    for world, name in _WORLD_NAMES.items():
        for what, key in (("joined to the source", "joined_ms"), ("the store alone", "own_ms")):
            found = result[world]
            series[f"{name}, {what}"] = tuple(found[size][key]["p50"] for size in sizes)
    return Chart(
        title="A search for ten, the query embedded beforehand",
        kind="bars",
        across="entities of the user",
        up="milliseconds (median)",
        groups=tuple(f"{int(size):,}" for size in sizes),
        series=series,
    )


def freshness(result: Result) -> Chart:
    """From a commit in the source to the commit of its vector."""
    ways = {"polling": "by polling", "notify": "with --notify"}
    figures = {"watch": "freshness_ms", "bare wake-up": "bare_wake_up_ms"}
    parts = ("p50", "p95", "p99", "max")
    rate = result["changes_per_second"]
    return Chart(
        title=f"How fresh a watch keeps the vectors, {rate:g} changes a second",
        kind="bars",
        across="share of the changes",
        up="milliseconds",
        groups=parts,
        series={
            f"{what} {name}": tuple(result[way][key][part] for part in parts)
            for way, name in ways.items()
            for what, key in figures.items()
        },
    )


def load(result: Result) -> Chart:
    """What was predicted of a watch under load, beside what was measured."""
    points = result["points"]
    parts = {"p50": "p50_ms", "p99": "p99_ms"}
    return Chart(
        title="Freshness of a watch under load, predicted and measured",
        kind="bars",
        across="",
        up="seconds",
        groups=tuple("\n".join(textwrap.wrap(point["name"], 10)) for point in points),
        series={
            f"{part}, {side}": tuple(float(f"{point[side][key] / 1000:.2g}") for point in points)
            for part, key in parts.items()
            for side in ("predicted", "measured")
        },
    )


def stores(result: Result) -> Chart:
    """What each store takes in a second."""
    return Chart(
        title="Records loaded in a second, 384 components",
        kind="bars",
        across="",
        up="records a second",
        groups=tuple(result),
        series={
            "undrift": tuple(found["bulk_rows_per_second"] for found in result.values()),
            "the bare driver": tuple(
                found["bare_bulk_rows_per_second"] for found in result.values()
            ),
        },
    )


def peers(result: Result) -> Chart:
    """The same texts through each system."""
    groups = {
        "from nothing": ("initial",),
        "nothing to do": ("no-op",),
        "one change": ("one change",),
        "100 lost,\nuntil repaired": ("100 lost", "100 lost, repair", "100 lost, rebuild"),
        "one ghost,\nuntil repaired": ("one ghost", "one ghost, repair", "one ghost, rebuild"),
    }
    return Chart(
        title=f"The same {result['texts']:,} texts into one PostgreSQL with pgvector",
        kind="bars",
        across="",
        up="seconds",
        groups=tuple(groups),
        series={
            system: tuple(_seconds_until_well(found, names) for names in groups.values())
            for system, found in result["systems"].items()
        },
    )


def _seconds_until_well(found: Mapping[str, Any], names: Sequence[str]) -> float | None:
    """Of the first of these runs that left no damage."""
    for name in names:
        if name in found and found[name]["repaired"]:
            return float(found[name]["seconds"])
    return None


Maker = Callable[[Result], Chart]

CHARTS: Mapping[str, tuple[str, Maker]] = {
    "scale-check-postgresql": ("scale.json", lambda result: checks(result, "postgresql")),
    "scale-check-sqlite": ("scale.json", lambda result: checks(result, "sqlite")),
    "scale-sync-postgresql": ("scale.json", lambda result: syncs(result, "postgresql")),
    "scale-sync-sqlite": ("scale.json", lambda result: syncs(result, "sqlite")),
    "scale-limits": ("scale.json", limits),
    "scale-memory": ("scale.json", memory),
    "scale-elsewhere": ("scale.json", elsewhere),
    "search": ("search.json", search),
    "watch": ("watch.json", freshness),
    "load": ("load.json", load),
    "stores": ("stores.json", stores),
    "peers": ("peers.json", peers),
}
"""By the plot's name, the result and what makes the chart of it."""


def chart_of(name: str) -> Chart | None:
    """The chart of that name; None if its result is not there."""
    file, make = CHARTS[name]
    path = RESULTS / file
    return make(json.loads(path.read_text())) if path.exists() else None


def kept_digest(svg: str) -> str:
    """The digest that a drawn plot carries; empty if it has none."""
    found = re.search(r"numbers sha256:([0-9a-f]{64})", svg)
    return found[1] if found else ""


def main(argv: Sequence[str] | None = None) -> None:
    """Draw every chart whose result is there."""
    given = sys.argv[1:] if argv is None else argv
    folder = Path(given[0]) if given else PLOTS
    folder.mkdir(parents=True, exist_ok=True)
    for name, (file, _) in CHARTS.items():
        chart = chart_of(name)
        if chart is None:
            print(f"{name}: left out, there is no benchmarks/results/{file}")
            continue
        (folder / f"{name}.svg").write_text(draw(chart))
        print(f"{name}: drawn from {file}")


if __name__ == "__main__":
    main()
