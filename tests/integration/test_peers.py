"""The benchmark of other systems, in small: that it runs, and that its verdicts are right."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.peers import HURTS, SYSTEMS, Bench
from benchmarks.peers_world import DAMAGED, World

from support.postgres import PostgresServer

TEXTS = 10 * DAMAGED


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_ends_with_the_same_records_and_what_it_overlooks_is_seen(
    name: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    """Control: those that trust a ledger leave the damage that undrift repairs."""
    if not SYSTEMS[name].python.exists():
        pytest.skip("the other systems are not installed: make peers")
    pid = (postgres_server.folder / "data" / "postmaster.pid").read_text().split()[0]
    world = World(postgres_server.admin_url, int(pid), TEXTS // 10)
    world.create()
    try:
        bench = Bench(world, name, tmp_path / "files")
        hurts = HURTS if name == "undrift" else ["100 lost"]
        assert list(bench.run(hurts)) == ["initial", "no-op", *hurts]
    finally:
        world.drop("source")
    found = bench.figures
    assert found["initial"]["repaired"]
    assert found["no-op"]["repaired"]
    assert found["no-op"]["embedded"] == 0
    if name == "undrift":
        paid = {scenario: found[scenario]["embedded"] for scenario in HURTS}
        assert paid == {"one change": 1, "100 lost": DAMAGED, "100 stale": 0, "one ghost": 0}
        assert all(found[scenario]["noticed"] for scenario in HURTS)
        assert all(found[scenario]["repaired"] for scenario in HURTS)
        assert all(found[f"{scenario}, check"]["noticed"] for scenario in HURTS)
    else:
        assert not found["100 lost"]["noticed"]
        assert not found["100 lost"]["repaired"]
        assert found["100 lost"]["left"] == {"missing": DAMAGED, "stale": 0, "changed": 0}
        repairs = [found[step] for step in found if step.startswith("100 lost, ")]
        assert repairs[-1]["repaired"]
        assert repairs[-1]["embedded"] == TEXTS
