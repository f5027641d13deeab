"""Sync when something was configured otherwise: namespace, texts kept or not, model, dimension."""

from __future__ import annotations

import pytest

from support.layouts import ENGINEER, document, experience
from support.sides import CountingEmbedder, World, drift_of
from undrift import DimensionMismatch, Outcome, Undrift

SMALLER = document(ENGINEER["experiences"][0])


def test_two_namespaces_in_one_store_never_touch_each_other(world: World) -> None:
    """The same owners and entities in both; each is synced, emptied and repaired alone (I7)."""
    world.bring_in_sync({"1": ENGINEER, "2": ENGINEER})
    with Undrift(
        source=world.source_url,
        store=world.store_url,
        embedder=world.embedder,
        namespace="other",
    ) as other:
        assert all(report.written == 5 for report in other.sync_all())
        assert [status.unmanaged for status in other.check_all()] == [5, 5]
        theirs = records_of(world, "other")
        world.put("1", SMALLER)
        world.remove_owners(["2"])

        assert all(report.is_in_sync for report in world.sides.sync_all())

        assert records_of(world, "other") == theirs
        ours = records_of(world, "default")
        assert all(report.is_in_sync for report in other.sync_all(force=True))
        assert records_of(world, "default") == ours
    world.assert_store_holds({"1": SMALLER})


def records_of(world: World, namespace: str) -> dict[str, object]:
    return {i: r for i, r in world.store.records().items() if r["namespace"] == namespace}


def test_store_without_texts_is_checked_repaired_and_searched_like_any_other(
    world: World,
) -> None:
    """Neither text nor metadata is in the store; what a search shows is the source's."""
    world.put("1", ENGINEER)
    with Undrift(
        source=world.source_url, store=world.store_url, embedder=world.embedder, keep_text=False
    ) as sides:
        assert sides.sync("1").is_in_sync
        world.put("1", document(*ENGINEER["experiences"], skills=["SQL", "Kotlin"]))
        world.store.delete(world.vector_id("1", "experience:exp_1"))
        status = sides.check("1")
        assert {kind: len(ids) for kind, ids in drift_of(status).items()} == {
            "missing": 2,
            "stale": 1,
        }
        assert sides.sync("1").is_in_sync
        hits = sides.search("1", "Kotlin").hits

    rows = world.store.records().values()
    assert {row["text"] or "" for row in rows} == {""}
    assert {str(row["metadata"] or "{}") for row in rows} == {"{}"}
    assert hits[0].text == "Kotlin"
    assert hits[0].metadata == {"name": "Kotlin"}


def test_other_model_of_the_same_dimension_is_repaired_in_place(world: World) -> None:
    """Every record is of the wrong model; each is embedded once, and none is deleted."""
    world.bring_in_sync({"1": ENGINEER})
    before = world.store.records()
    embedder = CountingEmbedder("another")
    sides = world.open(embedder=embedder)

    status = sides.check("1")
    report = sides.sync("1")

    assert status.outcome is Outcome.DRIFT
    assert set(status.wrong_model_ids) == world.layout.entities(ENGINEER).keys()
    assert (report.outcome, report.written, report.deleted) == (Outcome.IN_SYNC, 5, 0)
    assert len(embedder.texts) == 5
    assert world.store.records().keys() == before.keys()
    assert world.sides.check("1").wrong_model_ids == status.wrong_model_ids


def test_other_dimension_is_refused_and_nothing_is_written(world: World) -> None:
    """A mistake of the configuration, told before anything is embedded."""
    world.bring_in_sync({"1": ENGINEER})
    before = world.store.records()
    embedder = CountingEmbedder(dimension=8)
    sides = world.open(embedder=embedder)

    for call in (sides.check, sides.sync):
        with pytest.raises(DimensionMismatch):
            call("1")

    assert embedder.texts == []
    assert world.store.records() == before


def test_kind_that_is_no_longer_configured_is_left_alone(world: World) -> None:
    """Its records are unmanaged: counted, not drift, not deleted."""
    world.bring_in_sync({"1": ENGINEER})
    before = world.store.records()
    mapping = world.layout.mapping
    without_skills = type(mapping)(
        documents=mapping.documents,
        entities=tuple(spec for spec in mapping.entities if spec.kind != "skill"),
    )
    with Undrift(
        source=world.source_url,
        store=world.store_url,
        embedder=world.embedder,
        mapping=without_skills,
    ) as sides:
        status = sides.check("1")
        forced = list(sides.sync_all(force=True))

    assert (status.outcome, status.unmanaged) == (Outcome.IN_SYNC, 2)
    assert [report.written for report in forced] == [3]
    after = world.store.records()
    skills = {i for i, row in before.items() if row["kind"] == "skill"}
    assert len(skills) == 2
    assert {i: after[i] for i in skills} == {i: before[i] for i in skills}


def test_entity_whose_text_vanished_loses_its_record(world: World) -> None:
    """What renders to nothing wants no vector, and is counted as such."""
    world.bring_in_sync({"1": document(experience("exp_1"), skills=["SQL"])})
    world.put("1", document({"id": "exp_1"}, skills=["SQL"]))

    report = world.sides.sync("1")
    status = world.sides.check("1")

    assert (report.outcome, report.deleted) == (Outcome.IN_SYNC, 1)
    assert (status.outcome, status.without_text) == (Outcome.IN_SYNC, 1)
    assert world.keys("1") == world.layout.entities(document(skills=["SQL"])).keys()
