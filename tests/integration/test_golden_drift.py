"""Every kind of drift, planted by SQL, is found and repaired, and nothing else is touched.

The oracle is `support.drift`: it knows what it planted. What undrift says is compared with that,
and what it did is read from the store's tables; its own verdict on itself counts for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

import pytest

from support.drift import Drift, fleet, plant_everything
from support.layouts import DocumentsLayout, Layout, TablesLayout
from support.sides import Row, World, drift_of, identity_of
from undrift import Outcome, SyncReport, SyncStatus

OWNERS = 200
SEED = 20_240_611
KINDS_OF_DRIFT = {"missing", "stale", "changed", "wrong_model", "duplicate"}


@pytest.fixture(params=[DocumentsLayout(), TablesLayout()], ids=["documents", "tables"])
def layout(request: pytest.FixtureRequest) -> Layout:
    """Each layout of a source."""
    found: Layout = request.param
    return found


@pytest.fixture
def drifted(new_world: Callable[..., World], layout: Layout) -> tuple[World, Drift]:
    """A fleet that was in sync and then drifted in every way."""
    random = Random(SEED)
    world = new_world(layout)
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
    assert {s.owner_id: s.unmanaged for s in statuses if s.unmanaged} == {
        owner: count for owner, count in drift.unmanaged.items() if owner in drift.documents
    }
    for status in statuses:
        has_drifted = status.owner_id in drift.expected
        assert status.outcome is (Outcome.DRIFT if has_drifted else Outcome.IN_SYNC)
    named = list(world.sides.check_owners([status.owner_id for status in statuses]))
    assert named == statuses
    assert world.store.records() == before
    assert world.embedder.texts == []


def test_sync_repairs_exactly_the_planted_drift(drifted: tuple[World, Drift]) -> None:
    """What was planted is mended at its own cost; every other record stays as it was."""
    world, drift = drifted
    before = world.store.records()

    reports = list(world.sides.sync_all())

    after = world.store.records()
    assert_all_verified(reports, drift)
    world.assert_store_holds(drift.documents)
    assert_others_untouched(before, after, drift)
    assert_versions_rose(before, after, drift)
    assert sorted(world.embedder.texts) == sorted(drift.to_embed)
    assert found_in(list(world.sides.check_all())) == {}


def test_sync_of_named_owners_repairs_exactly_the_planted_drift(
    drifted: tuple[World, Drift],
) -> None:
    """Owners synced one by one, in any order, come to the same end as a fleet run."""
    world, drift = drifted
    before = world.store.records()
    owners = Random(SEED).sample(sorted(drift.expected), k=len(drift.expected))

    reports = [world.sides.sync(owner) for owner in owners]

    after = world.store.records()
    assert all(report.is_in_sync and report.verified for report in reports)
    world.assert_store_holds(drift.documents)
    assert_others_untouched(before, after, drift)
    assert found_in(list(world.sides.check_all())) == {}


def assert_all_verified(reports: list[SyncReport], drift: Drift) -> None:
    assert len(reports) == len({report.owner_id for report in reports})
    assert {report.owner_id for report in reports} == drift.documents.keys() | drift.orphans
    for report in reports:
        assert report.is_in_sync
        assert report.verified
        planted = drift.expected.get(report.owner_id, {})
        assert report.skipped is (not planted)
        writes = [planted.get(kind, set()) for kind in ("missing", "changed", "wrong_model")]
        assert report.written == len(set[str]().union(*writes))
        # A stolen record goes back to its owner by being written, not by being deleted.
        gone = [planted.get(kind, set()) for kind in ("stale", "duplicate")]
        assert report.deleted <= sum(map(len, gone))


def assert_others_untouched(
    before: Mapping[str, Row], after: Mapping[str, Row], drift: Drift
) -> None:
    """Records that nothing was planted in are the same in every column, version included."""
    others = {vector_id: row for vector_id, row in before.items() if vector_id not in drift.touched}
    assert {vector_id: after.get(vector_id) for vector_id in others} == others
    new = {identity_of(after[vector_id]) for vector_id in after.keys() - before.keys()}
    missing = {
        (owner, key)
        for owner, planted in drift.expected.items()
        for key in planted.get("missing", ())
    }
    assert new <= missing


def assert_versions_rose(before: Mapping[str, Row], after: Mapping[str, Row], drift: Drift) -> None:
    rewritten = drift.touched & before.keys() & after.keys()
    assert rewritten
    for vector_id in rewritten:
        assert after[vector_id]["version"] > before[vector_id]["version"]
