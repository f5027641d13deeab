"""What ten million users would take, and a watch under load: ``python -m benchmarks.paper``.

Linear, from the largest fleet in results/scale.json: every pass reads each user once, in pages, so
time, CPU and bytes grow with the entities, and memory does not. Prints the tables of
docs/explanation/scaling.md, those of results/load.json too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import load

RESULT = Path(__file__).parent / "results" / "scale.json"
BACKEND = "postgresql"

MEMO_BYTES = 630
"""Of one owner in the state's memo, with its index."""

PASSES = {
    "Check, everything remembered": "check, warm",
    "Check, nothing remembered": "check, cold",
    "Sync with nothing to do": "no-op sync",
    "Sync from nothing": "sync from nothing",
}


class Fleet(NamedTuple):
    """A fleet on paper."""

    name: str
    owners: int
    entities: int


FLEETS = (
    Fleet("10 M users, 100 M entities", 10_000_000, 100_000_000),
    Fleet("10 M users, 1 B entities", 10_000_000, 1_000_000_000),
)


def largest(measured: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures of the largest fleet that was measured."""
    sizes = measured["sizes"]
    found: Mapping[str, Any] = sizes[max(sizes, key=int)][BACKEND]
    return found


def table(measured: Mapping[str, Any]) -> str:
    """The table, as the page has it."""
    base = largest(measured)
    heads = [fleet.name for fleet in FLEETS]
    lines = [
        f"| | measured: {base['entities']:,} entities | {' | '.join(heads)} |",
        f"| --- |{' --- |' * (1 + len(heads))}",
    ]
    for name, action in PASSES.items():
        figures = base["actions"][action]
        client, server = figures["cpu_seconds"], figures["server_cpu_seconds"]
        cells = [f"{figures['seconds']:.1f} s (CPU {client:.1f} + {server:.1f} s)"]
        for fleet in FLEETS:
            times = fleet.entities / base["entities"]
            cpu = f"CPU {_time(client * times)} + {_time(server * times)}"
            cells.append(f"{_time(figures['seconds'] * times)} ({cpu})")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append(_sizes("Vectors and their stamps", base["stored_mb"], base["entities"]))
    memos = [f"{fleet.owners * MEMO_BYTES / 1e9:.1f} GB" for fleet in FLEETS]
    here = f"{base['owners'] * MEMO_BYTES / 1e6:.0f} MB"
    lines.append(f"| Memos in the state | {here} | {' | '.join(memos)} |")
    peak = f"{base['check_peak_mb']:.0f} MB"
    lines.append(f"| Memory of a check, at most | {peak} | {' | '.join(['the same'] * 2)} |")
    return "\n".join(lines)


def _sizes(name: str, megabytes: float, entities: int) -> str:
    cells = [f"{megabytes * fleet.entities / entities / 1e3:,.0f} GB" for fleet in FLEETS]
    return f"| {name} | {megabytes:,.0f} MB | {' | '.join(cells)} |"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    if seconds < 172_800:
        return f"{seconds / 3_600:.1f} h"
    return f"{seconds / 86_400:.1f} d"


if __name__ == "__main__":
    print(table(json.loads(RESULT.read_text())))
    under_load = json.loads(load.RESULT.read_text())
    print(f"\n{load.load_table(under_load)}\n\n{load.verdict(under_load)}")
    print(f"\n{load.paper_table(under_load)}")
