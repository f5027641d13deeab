"""Records that lie under another entity's vector_id, after somebody has edited keys by hand.

Writing the entity whose id it is would replace the other one's only record.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from support.layouts import Document, document, experience
from support.sides import World, identity_of
from undrift import failpoints

ONE = document(experience("exp_0", "Zero"), experience("exp_1", "One"))


def keys(world: World, owner_id: str) -> set[str]:
    """The entities of *owner_id* that have a record, or more than one."""
    found = [identity_of(row) for row in world.store.managed().values()]
    return {identity.key for identity in found if identity.owner_id == owner_id}


@contextmanager
def every_commit(world: World, owner_id: str) -> Iterator[list[set[str]]]:
    """The entities of *owner_id* that have a record, after every commit of a publish."""
    seen: list[set[str]] = []

    def look(name: str) -> None:
        if name == "store.publish.committed":
            seen.append(keys(world, owner_id))

    before = failpoints.install(look)
    try:
        yield seen
    finally:
        failpoints.install(before)


def occupied(world: World, documents: dict[str, Document], holder: str, taken: str) -> None:
    """Bring *documents* in sync, then put the record of *holder* in the place of *taken*."""
    world.bring_in_sync(documents)
    place = world.vector_id(*taken.split("/"))
    record = world.vector_id(*holder.split("/"))
    world.store.delete(place)
    world.store.move(record, place)


def test_live_record_of_the_same_owner_is_never_replaced_before_it_has_a_place(
    world: World,
) -> None:
    """It is written under its own id in the same transaction."""
    documents = {"1": ONE}
    occupied(world, documents, holder="1/experience:exp_0", taken="1/experience:exp_1")
    with every_commit(world, "1") as seen:
        assert world.sides.sync("1").is_in_sync
    assert seen
    assert all("experience:exp_0" in found for found in seen)
    world.assert_store_holds(documents)


def test_live_record_stays_when_the_budget_does_not_reach_for_its_new_place(world: World) -> None:
    """One embedding pays for one of two writes; the one that would replace the other waits."""
    documents = {"1": ONE}
    occupied(world, documents, holder="1/experience:exp_0", taken="1/experience:exp_1")
    report = world.sides.sync("1", max_embeddings=1)
    assert not report.is_in_sync
    assert "experience:exp_0" in keys(world, "1")
    assert world.sides.sync("1").is_in_sync
    world.assert_store_holds(documents)


@pytest.mark.parametrize("first", ["1", "2"])
def test_live_record_of_another_owner_is_never_replaced_before_it_has_a_place(
    world: World, first: str
) -> None:
    """Whichever of the two is synced, the other loses nothing."""
    documents = {"1": ONE, "2": document(experience("exp_0", "Zero of two"))}
    occupied(world, documents, holder="2/experience:exp_0", taken="1/experience:exp_1")
    with every_commit(world, "2") as seen:
        assert world.sides.sync(first).is_in_sync
    assert all("experience:exp_0" in found for found in seen)
    assert all(report.is_in_sync for report in world.sides.sync_all())
    world.assert_store_holds(documents)
