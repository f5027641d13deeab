"""What is promised of every store, on every one: drift is found and repaired exactly.

The oracle is `support.drift`, as for the SQL stores: it knows what it planted, past undrift.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest

from support.drift import Drift, fleet, plant_everything
from support.every_store import STORES, world_on
from support.layouts import Layout
from support.sides import World, drift_of
from undrift import Outcome, SyncStatus

OWNERS = 60
SEED = 20_240_611
KINDS_OF_DRIFT = {"missing", "stale", "changed", "wrong_model", "duplicate"}


@pytest.fixture(params=STORES)
def new_world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., World]]:
    """A function that creates a world on each store."""
    with ExitStack() as worlds:

        def new(layout: Layout | None = None) -> World:
            return worlds.enter_context(world_on(request.param, request, tmp_path, layout=layout))

        yield new


@pytest.fixture
def world(new_world: Callable[..., World]) -> World:
    """One in the origin's layout."""
    return new_world()


@pytest.fixture
def drifted(world: World) -> tuple[World, Drift]:
    """A fleet that was in sync and then drifted in every way."""
    random = Random(SEED)
    documents = fleet(OWNERS, random)
    world.bring_in_sync(documents)
    drift = Drift(world, documents, random)
    plant_everything(drift, random)
    return world, drift


def found_in(statuses: list[SyncStatus]) -> dict[str, dict[str, set[str]]]:
    """What *statuses* say, in the oracle's words."""
    assert len({status.owner_id for status in statuses}) == len(statuses)
    return {status.owner_id: found for status in statuses if (found := drift_of(status))}


def test_check_finds_exactly_the_planted_drift(drifted: tuple[World, Drift]) -> None:
    """Recall 1 and precision 1, for each owner and each kind of drift; and nothing is written."""
    world, drift = drifted
    before = world.store.records()

    statuses = list(world.sides.check_all())

    assert {kind for planted in drift.expected.values() for kind in planted} == KINDS_OF_DRIFT
    assert found_in(statuses) == drift.expected
    assert {s.owner_id for s in statuses} == drift.documents.keys() | drift.orphans
    assert {s.owner_id for s in statuses if s.orphan_owner} == drift.orphans
    for status in statuses:
        has_drifted = status.owner_id in drift.expected
        assert status.outcome is (Outcome.DRIFT if has_drifted else Outcome.IN_SYNC)
    assert world.store.records().keys() == before.keys()
    assert world.embedder.texts == []


def test_sync_repairs_exactly_the_planted_drift(drifted: tuple[World, Drift]) -> None:
    """What was planted is mended at its own cost; every other record stays as it was."""
    world, drift = drifted
    before = world.store.managed()

    reports = list(world.sides.sync_all())

    assert all(report.is_in_sync and report.verified for report in reports)
    assert {report.owner_id for report in reports} == drift.documents.keys() | drift.orphans
    world.assert_store_holds(drift.documents)
    after = world.store.managed()
    untouched = before.keys() - drift.touched
    assert {id_: versions(after[id_]) for id_ in untouched} == {
        id_: versions(before[id_]) for id_ in untouched
    }
    assert sorted(world.embedder.texts) == sorted(drift.to_embed)
    assert found_in(list(world.sides.check_all())) == {}


def versions(row: object) -> object:
    """What tells whether a record was written."""
    assert isinstance(row, dict)
    return {name: row[name] for name in ("version", "fingerprint", "model", "owner_id", "text")}


def test_a_hundred_records_lost_behind_its_back_cost_a_hundred_embeddings(world: World) -> None:
    """And no more: no tool that trusts its own ledger even notices."""
    random = Random(7)
    documents = fleet(40, random)
    world.bring_in_sync(documents)
    lost = random.sample(sorted(world.store.managed().items()), k=100)
    for vector_id, _ in lost:
        world.store.delete(vector_id)
    distinct = {row["text"] for _, row in lost}

    reports = list(world.sides.sync_all())

    assert all(report.is_in_sync for report in reports)
    assert sum(report.written for report in reports) == 100
    assert sorted(world.embedder.texts) == sorted(distinct)
    world.assert_store_holds(documents)


def test_a_sync_with_nothing_to_do_writes_and_embeds_nothing(world: World) -> None:
    """It has read both sides."""
    documents = fleet(10, Random(3))
    world.bring_in_sync(documents)
    before = world.store.records()
    assert all(report.skipped for report in world.sides.sync_all())
    assert world.store.records().keys() == before.keys()
    assert world.embedder.texts == []


def test_search_joins_what_every_store_finds(world: World) -> None:
    """What is gone from the source is never returned, and what changed has the source's text."""
    documents = fleet(3, Random(5))
    world.bring_in_sync(documents)
    (first, *_), owner = documents["1"]["experiences"], "1"
    text = world.layout.entities(documents["1"])
    hits = world.sides.search(owner, first["description"]).hits
    assert {hit.key for hit in hits} == set(text)
    documents["1"]["experiences"] = [{**first, "title": "Director"}]
    world.put(owner, documents["1"])
    result = world.sides.search(owner, first["description"])
    wanted = world.layout.entities(documents["1"])
    assert {hit.key: hit.text for hit in result.hits} == {k: e.text for k, e in wanted.items()}
    assert result.met_drift
