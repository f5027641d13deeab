"""Owners that are not there, or cannot be read, embedded or written: they stop nobody else."""

from __future__ import annotations

import pytest

from support.layouts import ENGINEER, document, experience
from support.sides import World
from undrift import (
    EmbeddingFailed,
    InvalidDocument,
    Outcome,
    OwnerNotFound,
    WriteFailed,
)


@pytest.mark.parametrize("owner", ["9", "01", " 1", "1 ", "one", "1.0", "", "1\x00"])
def test_owner_that_neither_side_has_is_not_found(world: World, owner: str) -> None:
    """The row's spelling is the owner's name; nothing else is, and nothing is written for it."""
    world.bring_in_sync({"1": ENGINEER})
    before = world.store.records()

    status, report = world.sides.check(owner), world.sides.sync(owner)

    assert (status.outcome, report.outcome) == (Outcome.NOT_FOUND, Outcome.NOT_FOUND)
    assert isinstance(report.error, OwnerNotFound)
    assert world.store.records() == before


def test_orphan_owner_is_removed_when_a_person_names_it(world: World) -> None:
    """Its records go, everybody else's stay; then nobody knows it any more."""
    world.bring_in_sync({"1": ENGINEER, "2": ENGINEER})
    world.remove_owners(["1"])

    status = world.sides.check("1")
    report = world.sides.sync("1")

    assert status.orphan_owner
    assert (report.outcome, report.deleted) == (Outcome.IN_SYNC, 5)
    assert world.sides.check("1").outcome is Outcome.NOT_FOUND
    world.assert_store_holds({"2": ENGINEER})


@pytest.mark.parametrize("broken", ["NULL", "'[]'", "'\"text\"'", "'{\"skills\": 7}'"])
def test_broken_document_is_unknown_and_stops_nobody_else(world: World, broken: str) -> None:
    """The owner keeps its records; the others are repaired, their deletes included."""
    world.bring_in_sync({"1": ENGINEER, "2": ENGINEER, "3": ENGINEER})
    smaller = document(experience("exp_1", "Edited"))
    world.put_all({"1": smaller, "3": smaller})
    world.source.run(f"UPDATE profiles SET filtered_data = {broken} WHERE user_id = 2")

    outcomes = {status.owner_id: status for status in world.sides.check_all()}
    reports = {report.owner_id: report for report in world.sides.sync_all()}

    assert outcomes["2"].outcome is Outcome.UNKNOWN
    assert isinstance(reports["2"].error, InvalidDocument)
    assert reports["2"].outcome is Outcome.UNKNOWN
    assert reports["1"].is_in_sync
    assert reports["3"].is_in_sync
    world.assert_store_holds({"1": smaller, "2": ENGINEER, "3": smaller})


def test_text_without_a_usable_vector_is_named_and_stops_nobody_else(world: World) -> None:
    """A vector of NaN is never written; the owner's other entities and the other owners are."""
    world.embedder.unusable = {"poison"}
    poisoned = document(experience("exp_1", "poison"), experience("exp_2"))
    world.put_all({"1": ENGINEER, "2": poisoned, "3": ENGINEER})

    reports = {report.owner_id: report for report in world.sides.sync_all()}

    assert reports["2"].outcome is Outcome.FAILED
    assert isinstance(reports["2"].error, EmbeddingFailed)
    assert "experience:exp_1" in str(reports["2"].error)
    assert reports["1"].is_in_sync
    assert reports["3"].is_in_sync
    world.assert_store_holds({"1": ENGINEER, "2": document(experience("exp_2")), "3": ENGINEER})
    world.embedder.unusable = set()
    (retried,) = world.sides.sync_owners(["2"], retry_parked=True)
    assert retried.is_in_sync


def test_failing_embedder_fails_only_the_owner_whose_text_it_refuses(world: World) -> None:
    """A batch that fails as a whole is tried again owner by owner."""
    world.embedder.refused = {"poison"}
    world.put_all({"1": ENGINEER, "2": document(experience("exp_1", "poison")), "3": ENGINEER})

    reports = {report.owner_id: report for report in world.sides.sync_all()}

    assert reports["2"].outcome is Outcome.FAILED
    assert isinstance(reports["2"].error, EmbeddingFailed)
    assert reports["1"].is_in_sync
    assert reports["3"].is_in_sync
    world.assert_store_holds({"1": ENGINEER, "3": ENGINEER})


def test_owner_whose_records_the_store_refuses_stops_nobody_else(world: World) -> None:
    """A database's own constraint refuses one owner; its neighbours in the batch are written."""
    world.bring_in_sync({"9": ENGINEER})
    refuse_owner(world, "2")
    world.put_all({"1": ENGINEER, "2": ENGINEER, "3": ENGINEER})

    reports = {report.owner_id: report for report in world.sides.sync_all()}

    assert reports["2"].outcome is Outcome.FAILED
    assert isinstance(reports["2"].error, WriteFailed)
    assert reports["1"].is_in_sync
    assert reports["3"].is_in_sync
    world.assert_store_holds({"1": ENGINEER, "3": ENGINEER, "9": ENGINEER})


def refuse_owner(world: World, owner: str) -> None:
    """Let the store's database refuse every record of *owner*."""
    if world.store.database.is_postgres:
        world.store.database.run(
            f"ALTER TABLE undrift.vectors ADD CHECK (owner_id <> '{owner}') NOT VALID"
        )
    else:
        world.store.database.run(
            "CREATE TRIGGER refuse BEFORE INSERT ON vectors "
            f"WHEN new.owner_id = '{owner}' BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )


@pytest.mark.parametrize("namespace", ["other", None])
def test_vector_id_taken_by_another_namespace_is_told_and_left_alone(
    world: World, namespace: str | None
) -> None:
    """What is not managed is never touched, even where a record of ours should stand.

    Its version is lower than any that undrift writes, so that only the namespace protects it.
    """
    world.bring_in_sync({"1": ENGINEER})
    taken = world.vector_id("1", "experience:exp_2")
    world.store.set(taken, namespace=namespace, version=0)
    before = world.store.records()

    report = world.sides.sync("1")

    assert report.outcome is Outcome.FAILED
    assert isinstance(report.error, WriteFailed)
    assert world.store.records() == before
    world.store.set(taken, namespace="default")
    assert world.sides.sync("1").is_in_sync


def test_record_in_a_foreign_place_stays_while_its_own_place_is_taken(world: World) -> None:
    """The new record cannot be written, so the old one, which a search finds, is not deleted."""
    world.bring_in_sync({"1": ENGINEER})
    own = world.vector_id("1", "experience:exp_2")
    world.store.move(own)
    foreign = world.store.copy(world.vector_id("1", "experience:exp_1"), namespace="other")
    world.store.move(foreign, own)
    world.put("1", document(experience("exp_1", "Edited"), experience("exp_2", "Edited")))
    before = world.store.records()

    report = world.sides.sync("1")

    assert report.outcome is Outcome.FAILED
    assert "experience:exp_2" in world.keys("1")
    assert world.store.records()[own] == before[own]
    assert "experience:exp_2" in {hit.key for hit in world.sides.search("1", "kiln").hits}
