"""Many seeds of the deterministic simulation: undrift keeps every promise, the controls do not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from undrift.ports import StoreClass
from undrift.testing.simulation import simulate

TESTS = Path(__file__).resolve().parents[1]
CONTROLS = "simulation.controls"
SEEDS = 500


def run_seeds(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, in processes of its own, which the order of sets there depends on."""
    return subprocess.run(
        [sys.executable, "-m", "undrift.testing.simulation", *arguments],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_every_promise_is_kept_under_every_seed() -> None:
    done = run_seeds("--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{SEEDS} seeds" in done.stdout
    assert " 0 with a broken promise" in done.stdout
    # No class of stores is left out by the seeds.
    assert re.search(r"\([1-9]\d* T, [1-9]\d* C, [1-9]\d* N\)", done.stdout)


@pytest.mark.parametrize("control", ["ClearThenImport", "LeaseAndCheck"])
def test_writers_without_order_are_found_out_within_a_thousand_seeds(control: str) -> None:
    done = run_seeds("--seeds", "1000", "--first-only", "--writer", f"{CONTROLS}:{control}")
    assert done.returncode == 1, done.stdout + done.stderr
    found = re.search(r"seed (\d+), class [TCN]: I[1-9]: ", done.stdout)
    assert found is not None
    assert f"--seed {found[1]} --verbose --writer {CONTROLS}:{control}" in done.stdout


@pytest.mark.parametrize("store_class", list(StoreClass))
def test_a_lease_with_a_check_ends_in_divergence_in_every_class(store_class: StoreClass) -> None:
    """Not only in passing: at rest the store is wrong, and everybody was told that it is right."""
    done = run_seeds(
        *("--seeds", "2000", "--store-class", store_class),
        *("--writer", f"{CONTROLS}:LeaseAndCheck", "--promise", "I4", "--first-only"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "at rest the store is not what the source is" in done.stdout


def test_a_seed_runs_alike_every_time() -> None:
    """Step by step, in another process too, and whether or not anybody looks on."""
    command = ["--seed", "4", "--verbose", "--writer", f"{CONTROLS}:LeaseAndCheck"]
    first, second = run_seeds(*command), run_seeds(*command)
    assert first.stdout.count("\n") > 100
    assert first.stdout == second.stdout
    assert "seed 4, class" in first.stdout
    assert simulate(9) == simulate(9)
    told: list[str] = []
    assert simulate(9, trace=told.append) == simulate(9)
    assert told
