"""The figures that pages give are those that the benchmarks wrote."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import load, proofs, triggers
from benchmarks.paper import table

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_of_speeds_is_that_of_the_last_run_of_the_benchmark() -> None:
    """Every store that was measured has its row, with just these figures."""
    measured = json.loads((ROOT / "benchmarks/results/stores.json").read_text())
    page = (ROOT / "docs/reference/stores.md").read_text()
    assert len(measured) >= 8
    for figures in measured.values():
        cells = (
            f"{figures['bulk_rows_per_second']:,}",
            figures["bulk_by_bare"],
            f"{figures['rewrite_rows_per_second']:,}",
            figures["one_owner_milliseconds"],
            f"{figures['stamps_per_second']:,}",
            figures["search_milliseconds"],
        )
        assert f"| {' | '.join(map(str, cells))} |" in page


def test_what_triggers_cost_is_what_was_measured() -> None:
    """To the digit."""
    result = json.loads(triggers.RESULT.read_text())
    page = (ROOT / "docs" / "how-to" / "change-capture.md").read_text()
    assert triggers.table(result) in page, f"paste this into the page:\n{triggers.table(result)}"


def test_proofs_are_those_of_the_last_runs() -> None:
    """Of the simulation, the kills, the watch and the triggers."""
    simulation = json.loads((proofs.RESULTS / "simulation.json").read_text())
    kills = json.loads((proofs.RESULTS / "kill_loop.json").read_text())
    assert sum(simulation["seeds"].values()) >= 10_000, "git checkout what a small run wrote"
    assert kills["kills"] >= 1_000
    page = (ROOT / "docs" / "explanation" / "consistency.md").read_text()
    assert proofs.table() in page, f"paste this into the page:\n{proofs.table()}"


def test_the_paper_is_computed_from_the_last_run_of_the_benchmark() -> None:
    """The table of the page on scaling, line by line."""
    measured = json.loads((ROOT / "benchmarks/results/scale.json").read_text())
    page = (ROOT / "docs/explanation/scaling.md").read_text()
    assert table(measured) in page


def test_a_watch_under_load_has_the_figures_of_the_last_run_of_the_benchmark() -> None:
    """What was predicted, what was measured, how far apart they are, and what was only computed."""
    result = json.loads(load.RESULT.read_text())
    page = (ROOT / "docs/explanation/scaling.md").read_text()
    assert load.load_table(result) in page
    assert load.verdict(result) in page
    assert load.paper_table(result) in page
    assert len(result["points"]) >= 5
