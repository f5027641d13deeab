"""How much of a state is read to say who is dirty: hardly more than the dirty ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from undrift.state import Acknowledgement, State
from undrift.states import open_state
from undrift.states._pg_address import parse_address
from undrift.states._pg_queue import _DIRTY
from undrift.states._pg_statements import Statements
from undrift.states._sqlite_queue import _DIRTY_BY_ID

SCOPE = "default@here"
CROWD = [f"o{number:05}" for number in range(20_000)]
CHANGED = CROWD[::1_000]


def acknowledge_all(state: State) -> None:
    """Let everybody be in sync."""
    round_, generation = state.standing().round, 10
    done = [Acknowledgement(owner_id=o, generation=generation, round=round_) for o in CROWD]
    state.acknowledge(done, "w1")


@pytest.fixture
def crowded(postgres_url: str) -> Iterator[State]:
    """A state of many owners who are clean, by its second round, without statistics."""
    with closing(open_state(postgres_url, scope=SCOPE)) as state:
        state.create()
        run(postgres_url, "ALTER TABLE undrift.owner_state SET (autovacuum_enabled = false)")
        state.mark_everyone()
        acknowledge_all(state)
        yield state


def run(url: str, statement: str) -> None:
    """Run a statement of SQL."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def rows_read(url: str, round_: int) -> int:
    """Rows of tables that a page of the dirty touches."""
    query = b"EXPLAIN (ANALYZE, FORMAT JSON) " + Statements(parse_address(url, None)).ready(_DIRTY)
    values = {"scope": SCOPE, "round": round_, "limit": 50_000, "after": None}
    with psycopg.connect(url) as connection:
        row = connection.execute(query, values).fetchone()
    assert row is not None
    return sum(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
        for node in nodes(row[0][0]["Plan"])
        if "Relation Name" in node
    )


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of *plan*."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


@pytest.mark.parametrize("statistics", ["none", "fresh", "of the last round"])
def test_hardly_more_than_the_dirty_owners_are_read(
    crowded: State, postgres_url: str, statistics: str
) -> None:
    """Whatever the planner knows; the control is a round in which everybody is dirty."""
    if statistics != "none":
        run(postgres_url, "ANALYZE undrift.owner_state")
    if statistics == "of the last round":
        crowded.mark_everyone()
        acknowledge_all(crowded)
    crowded.mark(CHANGED)
    assert list(crowded.dirty_owners(50_000)) == CHANGED
    round_ = crowded.standing().round
    assert rows_read(postgres_url, round_) <= 2 * len(CHANGED) + 10
    assert rows_read(postgres_url, round_ + 1) >= len(CROWD)
    crowded.mark_everyone()
    assert list(crowded.dirty_owners(50_000)) == CROWD


def test_a_file_is_searched_by_its_small_indexes(tmp_path: Path) -> None:
    """Each list by its own, and no table is gone through."""
    path = tmp_path / "state.db"
    with closing(open_state(f"sqlite:///{path}", scope=SCOPE)) as state:
        state.create()
        state.mark(["1"])
    values = {"scope": SCOPE, "round": 1, "limit": 10, "after": None, "now": 0.0}
    with closing(sqlite3.connect(path)) as file:
        plan = [step for *_, step in file.execute(f"EXPLAIN QUERY PLAN {_DIRTY_BY_ID}", values)]
    searched = [step for step in plan if "undrift_" in step]
    assert len(searched) == 5
    assert all(step.startswith("SEARCH ") and " INDEX undrift_" in step for step in searched)
