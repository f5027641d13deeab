"""50 kills on both databases in both classes; ``make kill-loop`` runs a thousand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import randrange
from typing import Any

import pytest

TESTS = Path(__file__).resolve().parents[1]
KILLS, ROUNDS = 60, 6


@pytest.mark.long
def test_no_kill_at_any_step_leaves_a_gap_or_a_difference(
    new_postgres_url: Callable[[], str],
) -> None:
    """Workers are killed and replaced while a writer never stops; at rest the sides are equal.

    The control, which clears before it imports and forgets what it was at, leaves gaps.
    """
    # In a process of its own: this one has threads, and its workers must be forked.
    databases = [new_postgres_url() for _ in range(6)]
    sizes = [f"--kills={KILLS}", f"--rounds={ROUNDS}", f"--seed={randrange(10**6)}"]
    ended = subprocess.run(
        [sys.executable, "-m", "kill_loop", *sizes, "--databases", *databases],
        cwd=TESTS,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    found: dict[str, Any] = json.loads(ended.stdout)
    assert found["kills"] >= KILLS
    assert len(found["kills_at"]) > len(found["places"])
    for fault in ("diverged_rounds", "gaps", "older_content", "broken_workers"):
        assert found[fault] == 0
    assert found["looks"] > ROUNDS
    letters = ("sqlite T", "pgvector T", "sqlite C", "pgvector C", "qdrant C", "redis C")
    assert set(found["places"]) == set(letters)
    assert found["control"]["gaps"] > 0
