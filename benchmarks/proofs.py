"""What the proofs last came to: ``python -m benchmarks.proofs``.

Prints the table of docs/explanation/consistency.md from what `make sim`, `make kill-loop`,
`make bench-watch` and `make bench-triggers` wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PLACES = {"sqlite": "SQLite", "pgvector": "pgvector", "qdrant": "Qdrant's engine", "redis": "Redis"}

Result = Mapping[str, Any]


def table(results: Path = RESULTS) -> str:
    """The table, as the page has it."""
    simulation, kills, watch, triggers = (
        json.loads((results / f"{name}.json").read_text())
        for name in ("simulation", "kill_loop", "watch", "triggers")
    )
    rows = [
        ("Simulation", _simulated(simulation)),
        *_killed(kills),
        ("Freshness, by polling", _fresh(watch["polling"])),
        ("Freshness, with notify", _fresh(watch["notify"])),
        ("Triggers", _written(triggers)),
    ]
    return "\n".join(["| What | Last run |", "| --- | --- |", *(f"| {a} | {b} |" for a, b in rows)])


def _simulated(found: Result) -> str:
    seeds = found["seeds"]
    classes = ", ".join(f"{count:,} in class {name}" for name, count in sorted(seeds.items()))
    broken = len(found["broken"])
    return (
        f"{sum(seeds.values()):,} seeds ({classes}), {found['steps']:,} steps, "
        f"{broken} with a broken promise"
    )


def _killed(found: Result) -> Iterator[tuple[str, str]]:
    diverged = f"{found['diverged_rounds']} diverged"
    yield "Killing", f"{found['kills']:,} kills in {found['rounds']} rounds, {diverged} at rest"
    control = found["control"]
    diverged = f"{control['diverged_rounds']} diverged"
    yield (
        "Killing a naive writer",
        f"{control['kills']:,} kills in {control['rounds']} rounds, {diverged}",
    )
    for place, figures in found["places"].items():
        store, kind = place.rsplit(" ", 1)
        took = figures["recovery_seconds"]
        times = f"{took['p50']:.1f} s at p50, {took['p99']:.1f} s at p99"
        leases = f"leases of {found['lease_seconds']:.0f} s"
        yield f"Recovery, {PLACES[store]} in class {kind}", f"{times}, {leases}"


def _fresh(found: Result) -> str:
    ours, bare = found["freshness_ms"], found["bare_wake_up_ms"]
    return (
        f"p50 {ours['p50']:.0f} ms, p99 {ours['p99']:.0f} ms at "
        f"{found['achieved_changes_per_second']:.0f} changes a second; a client that only "
        f"wakes up: {bare['p50']:.0f} and {bare['p99']:.0f} ms"
    )


def _written(found: Result) -> str:
    ratios = {name: figures["ratio"] for name, figures in found["writes"].items()}
    written, copy = ratios["rows written"], ratios["copy"]
    return (
        f"{found['rows']:,} profiles copied in, then all updated, take {written:.2f} × as long as "
        f"without (the COPY alone {copy:.2f} ×); [updates of what is not mapped, and "
        "deletes](../how-to/change-capture.md#what-it-costs), take more"
    )


if __name__ == "__main__":
    print(table())
