"""The benchmark of whole fleets measures what it says, and notices a check that is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from benchmarks import children, scale, scale_elsewhere
from benchmarks.fleet import Fleet
from benchmarks.scale_world import PostgresWorld, SqliteWorld

FLEET = Fleet(60)


def test_a_small_fleet_goes_through_every_part(tmp_path: Path) -> None:
    """Every piece of work does what it should, and every ratio has its two sides."""
    bench = scale.Bench(SqliteWorld(tmp_path), FLEET, dimension=8, rounds=1)
    figures = bench.run()
    assert figures["wrong"] == []
    assert figures["entities"] == FLEET.entities()
    assert figures["ratios"].keys() == figures["cpu_ratios"].keys() == scale.AIMS.keys()
    assert all(action["seconds"] > 0 for action in figures["actions"].values())
    assert figures["actions"]["check, warm"]["read"] == {"digests": FLEET.owners}
    assert figures["actions"]["check, cold"]["read"] == {"full": FLEET.owners}
    planted = [figures["actions"][name] for name in figures["actions"] if "planted" in name]
    assert all(action["exact"] for action in planted if "exact" in action)


@pytest.mark.parametrize("store", list(scale_elsewhere.STORES))
def test_a_store_without_digests_is_measured_beside_its_bare_enumeration(
    postgres_url: str, tmp_path: Path, store: str
) -> None:
    """Source and state in PostgreSQL, and every record in the store is seen by its own driver."""
    world = PostgresWorld(postgres_url, postmaster=os.getpid())
    world.state, world.store = postgres_url, scale_elsewhere.STORES[store].format(folder=tmp_path)
    bench = scale_elsewhere.Elsewhere(world, FLEET, dimension=8, rounds=1)
    figures = bench.run()
    assert figures["wrong"] == []
    assert figures["entities"] == FLEET.entities()
    assert figures["ratios"]["check, warm / slower side"] > 0


def test_a_check_that_finds_something_else_is_told(tmp_path: Path) -> None:
    """The control: one difference too few, and one too many."""
    bench = scale.Bench(SqliteWorld(tmp_path), FLEET, dimension=8, rounds=1)
    found = ("1", "missing", "skill:s_0")
    bench._expect_found("nothing amiss", {"differences": [found]}, {found})
    assert bench._wrong == []
    bench._expect_found("too few", {"differences": []}, {found})
    bench._expect_found("too many", {"differences": [found, found]}, {found})
    assert len(bench._wrong) == 2


def test_a_run_of_one_size_replaces_that_size_alone(tmp_path: Path) -> None:
    """The others stay as they were kept, in order of their sizes."""
    path = tmp_path / "scale.json"
    scale.keep(20, {"sqlite": {"n": 1}}, path)
    scale.keep(3, {"sqlite": {"n": 2}}, path)
    scale.keep(20, {"sqlite": {"n": 3}}, path)
    scale.keep(20, {"postgresql": {"n": 4}}, path)
    assert json.loads(path.read_text()) == {
        "sizes": {
            "3": {"sqlite": {"n": 2}},
            "20": {"sqlite": {"n": 3}, "postgresql": {"n": 4}},
        }
    }
    assert list(json.loads(path.read_text())["sizes"]) == ["3", "20"]


def test_a_child_that_fails_is_told_with_its_last_words() -> None:
    """And never taken for a measurement."""
    with pytest.raises(RuntimeError, match=r"no such table|unable to open"):
        children.measured(
            scale.CHILD,
            {
                "do": "bare render",
                "source": "sqlite:////nowhere/app.db",
                "store": "sqlite:////nowhere/vectors.db",
                "first": 1,
                "last": 2,
            },
        )


@pytest.mark.parametrize(("text", "size"), [("10k", 10_000), ("1M", 1_000_000), ("7", 7)])
def test_sizes_are_written_as_people_write_them(text: str, size: int) -> None:
    """With k and M."""
    assert scale.parsed_size(text) == size
