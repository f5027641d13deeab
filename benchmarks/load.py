"""A watch under load, predicted and then measured: ``python -m benchmarks.load``.

One calibration measures what a batch of users costs besides the embedding: one worker, bursts of
known sizes, one pace of the service. From it the simulation of `benchmarks.load_model` predicts
every point below before the first of them is run. Then real processes of ``undrift watch`` run
them: on a durable PostgreSQL with pgvector, with an embedding service behind OpenAI's protocol that
thinks as long as the point says. Prediction and run get the same times of arrival, so that what
they differ in is the model's. Prints the tables of docs/explanation/scaling.md and writes
results/load.json.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.load_model import Costs, Crew, Figures, Load, Pace, figures, simulate

RESULT = Path(__file__).parent / "results" / "load.json"

SLOW = Pace(call_seconds=0.15, text_seconds=0.01)
LIMITED = Pace(call_seconds=0.15, text_seconds=0.01, texts_per_second=40)
FAST = Pace(call_seconds=0.01, text_seconds=0.0002)
"""As a model of one's own beside the worker: then the rest decides."""

HOSTED = Pace(call_seconds=0.3, text_seconds=0.002)
"""Assumed of a service on the network, for what is computed only."""

CREWS_ON_PAPER = (1, 2, 4, 8)
_PAPER_SECONDS = 120.0
_OVERLOAD = 5_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One load that is predicted and measured."""

    name: str
    load: Load
    crew: Crew
    pace: Pace


def _point(name: str, rate: float, workers: int, pace: Pace, seconds: float = 20.0) -> Point:
    seed = int(rate) + workers
    load = Load(rate=rate, seconds=seconds, seed=seed)
    return Point(name=name, load=load, crew=Crew(workers=workers), pace=pace)


POINTS = (
    _point("light load", 20, 1, SLOW),
    _point("near its capacity", 65, 1, SLOW),
    _point("more than it can", 100, 1, SLOW),
    _point("the same, two workers", 100, 2, SLOW),
    _point("near the capacity of two", 130, 2, SLOW),
    _point("below the service's limit", 30, 1, LIMITED),
    _point("above the service's limit", 60, 2, LIMITED),
    _point("a service that is no bottleneck", 150, 1, FAST, seconds=10.0),
)


def main() -> None:
    """Calibrate, predict, measure; print the tables and write them."""
    from benchmarks.load_run import Arena
    from benchmarks.load_service import EmbeddingService
    from support.postgres import PostgresServer  # with the tests on the path, as below

    owners = max(len(point.load.arrivals()) for point in POINTS)
    with (
        EmbeddingService() as service,
        PostgresServer(durable=True, settings={"track_commit_timestamp": "on"}) as server,
        server.database() as url,
    ):
        arena = Arena(url, service, owners)
        arena.prepare()
        costs = arena.calibrate()
        predictions = {point: predicted(point, costs) for point in POINTS}
        print(f"calibrated: {costs}")
        for point, prediction in predictions.items():
            print(f"predicted, {point.name}: {prediction}")
        runs = []
        for point, prediction in predictions.items():
            measured = figures(arena.run(point.load, point.crew, point.pace), point.load.seconds)
            print(f"measured, {point.name}: {measured}")
            runs.append(compared(point, prediction, measured))
    result = {"costs": asdict(costs), "points": runs, "on_paper": on_paper(costs)}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\n{load_table(result)}\n\n{verdict(result)}\n\n{paper_table(result)}")


def predicted(point: Point, costs: Costs) -> Figures:
    """What the simulation says of *point*."""
    changes = simulate(point.load, point.crew, point.pace, costs)
    return figures(changes, point.load.seconds)


def compared(point: Point, prediction: Figures, measured: Figures) -> dict[str, object]:
    """Both, and by how much the prediction is too high (above 0) or too low, of the measured."""
    told, found = asdict(prediction), asdict(measured)
    return {
        "name": point.name,
        "rate": point.load.rate,
        "seconds": point.load.seconds,
        "seed": point.load.seed,
        "workers": point.crew.workers,
        "pace": asdict(point.pace),
        "predicted": told,
        "measured": found,
        "error": {name: round(told[name] / value - 1, 3) for name, value in found.items() if value},
    }


def on_paper(costs: Costs) -> list[dict[str, object]]:
    """What so many workers would do with a hosted service: their capacity, and near it."""
    rows: list[dict[str, object]] = []
    for workers in CREWS_ON_PAPER:
        crew = Crew(workers=workers)
        flood = Load(rate=_OVERLOAD, seconds=_PAPER_SECONDS / 10)
        capacity = figures(simulate(flood, crew, HOSTED, costs), flood.seconds).throughput
        row: dict[str, object] = {"workers": workers, "capacity": capacity}
        for share in (0.5, 0.9):
            load = Load(rate=capacity * share, seconds=_PAPER_SECONDS)
            row[f"{share:.0%}"] = asdict(figures(simulate(load, crew, HOSTED, costs), load.seconds))
        rows.append(row)
    return rows


# --- the tables of the page ----------------------------------------------------------------------


def load_table(result: Mapping[str, Any]) -> str:
    """The table of what was predicted and measured, as the page has it."""
    lines = [
        "| Load | Changes/s, workers | Fresh/s | Freshness p50 | p99 | Backlog mean | at the end |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for run in result["points"]:
        told, found = run["predicted"], run["measured"]
        cells = [
            f"{run['name']} | {run['rate']:g}, {run['workers']}",
            f"{told['throughput']:.0f} / {found['throughput']:.0f}",
            f"{_seconds(told['p50_ms'])} / {_seconds(found['p50_ms'])} s",
            f"{_seconds(told['p99_ms'])} / {_seconds(found['p99_ms'])} s",
            f"{told['backlog_mean']:.0f} / {found['backlog_mean']:.0f}",
            f"{told['backlog_end']} / {found['backlog_end']}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def verdict(result: Mapping[str, Any]) -> str:
    """How good the predictions were, as the page has it."""
    words = []
    for pick in (statistics.median, max):
        errors = [
            pick([abs(run["error"][name]) for run in result["points"]])
            for name in ("throughput", "p50_ms", "p99_ms")
        ]
        words.append("{:.0%} of the throughput, {:.0%} of p50 and {:.0%} of p99".format(*errors))
    return f"Half of the predictions were within {words[0]};\nthe worst missed by {words[1]}."


def paper_table(result: Mapping[str, Any]) -> str:
    """The table of what was computed only, as the page has it."""
    lines = [
        "| Workers | Capacity | p50 and p99 at half of it | at nine tenths |",
        "| --- | --- | --- | --- |",
    ]
    for row in result["on_paper"]:
        ages = [
            f"{_seconds(row[share]['p50_ms'])} s, {_seconds(row[share]['p99_ms'])} s"
            for share in ("50%", "90%")
        ]
        lines.append(f"| {row['workers']} | {row['capacity']:,.0f}/s | {' | '.join(ages)} |")
    return "\n".join(lines)


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.2f}" if milliseconds < 9_995 else f"{milliseconds / 1000:.1f}"


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    main()
