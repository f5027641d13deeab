"""Records whose keys somebody edited by hand, so that each lies in another's place.

To write one entity is then to overwrite the only record of another: the hardest case of "no gap".
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from support.layouts import document, experience
from support.sides import CountingEmbedder, World
from undrift import Outcome
from undrift.failpoints import install

THREE = document(*(experience(f"exp_{n}", f"Text {n}") for n in (1, 2, 3)))
KEYS = {"experience:exp_1", "experience:exp_2", "experience:exp_3"}


def rotate(world: World, entity_ids: Sequence[str]) -> None:
    """Let each record of owner 1 claim to be the next one's entity."""
    vector_ids = [world.vector_id("1", f"experience:{entity_id}") for entity_id in entity_ids]
    for vector_id, entity_id in zip(vector_ids, [*entity_ids[1:], entity_ids[0]], strict=True):
        world.store.set(vector_id, entity_id=entity_id)


@pytest.mark.parametrize("entity_ids", [("exp_1", "exp_2"), ("exp_1", "exp_2", "exp_3")])
@pytest.mark.parametrize("force", [False, True], ids=["sync", "force"])
def test_swapped_records_are_repaired_without_a_gap(
    world: World, entity_ids: Sequence[str], force: bool
) -> None:
    """At every step of the repair a search of another program shows every entity (I1)."""
    world.bring_in_sync({"1": THREE})
    rotate(world, entity_ids)
    reader = world.open(embedder=CountingEmbedder())
    seen: list[set[str]] = []

    def search(failpoint: str) -> None:
        seen.append({hit.key for hit in reader.search("1", "keeps books", limit=100).hits})

    previous = install(search)
    try:
        report = world.sides.sync("1", force=force)
    finally:
        install(previous)

    assert report.is_in_sync
    assert len(seen) > 8
    assert all(hits == KEYS for hits in seen)
    world.assert_store_holds({"1": THREE})


@pytest.mark.parametrize("poisoned_id", ["exp_1", "exp_2"])
def test_swapped_records_stay_where_one_of_them_has_no_vector(
    world: World, poisoned_id: str
) -> None:
    """What cannot be embedded must not lose the record it has to another's repair."""
    world.bring_in_sync({"1": THREE})
    rotate(world, ("exp_1", "exp_2"))
    experiences = THREE["experiences"]
    poisoned = document(
        *(e | {"description": "poison"} if e["id"] == poisoned_id else e for e in experiences)
    )
    world.put("1", poisoned)
    world.embedder.unusable = {"poison"}

    report = world.sides.sync("1")

    assert report.outcome is Outcome.FAILED
    assert {hit.key for hit in world.sides.search("1", "keeps books").hits} == KEYS
    world.embedder.unusable = set()
    (retried,) = world.sides.sync_owners(["1"], retry_parked=True)
    assert retried.is_in_sync
    world.assert_store_holds({"1": poisoned})


def test_swapped_records_stay_where_the_budget_does_not_reach_for_all(world: World) -> None:
    """The first text is paid for, the second is not: nothing is overwritten yet."""
    world.bring_in_sync({"1": THREE})
    rotate(world, ("exp_1", "exp_2"))

    report = world.sides.sync("1", max_embeddings=1)

    assert report.outcome is Outcome.FAILED
    assert {hit.key for hit in world.sides.search("1", "keeps books").hits} == KEYS
    assert world.sides.sync("1").is_in_sync
    world.assert_store_holds({"1": THREE})


def test_swapped_records_are_not_torn_apart_by_the_batches_of_a_large_owner(sqlite: World) -> None:
    """400 of 5,100 records lie in each other's places: one batch must hold all that they need."""
    texts = [f"Skill {n}" for n in range(5_100)]
    sqlite.bring_in_sync({"1": document(skills=texts)})
    rotated = list(sqlite.store.identities().items())[:400]
    entity_ids = [identity.key.id for identity, _ in rotated]
    sqlite.store.database.run_many(
        f"UPDATE {sqlite.store.vectors} SET entity_id = :entity_id WHERE vector_id = :vector_id",
        [
            {"vector_id": vector_id, "entity_id": entity_id}
            for (_, vector_id), entity_id in zip(
                rotated, [*entity_ids[1:], entity_ids[0]], strict=True
            )
        ],
    )
    seen: set[int] = set()

    def count(failpoint: str) -> None:
        seen.add(len({row["entity_id"] for row in sqlite.store.managed().values()}))

    previous = install(count)
    try:
        report = sqlite.sides.sync("1", force=True)
    finally:
        install(previous)

    assert report.is_in_sync
    assert seen == {5_100}
