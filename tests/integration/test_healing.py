"""Healing on real sides: what sets it off, what it may do, and how often."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Barrier

import pytest

from support.layouts import ENGINEER, document, experience, skill_key
from support.sides import World, drift_of
from support.wrappers import SteppedStore
from undrift import (
    AsyncUndrift,
    ConfigError,
    Healing,
    HealPolicy,
    OwnerNotFound,
    Retry,
    SafetyStop,
    StoreUnavailable,
    Undrift,
)
from undrift.ports import VectorStore

PATIENT = HealPolicy(wait_seconds=60)
EDITED = document(experience("exp_1", "Builds cathedrals"), experience("exp_2", "Runs a kiln"))


def counted(world: World, policy: HealPolicy = PATIENT) -> tuple[Undrift, SteppedStore]:
    """Both sides, with a store whose publishes are counted."""
    stores: list[SteppedStore] = []

    def wrapped(inner: VectorStore) -> SteppedStore:
        stores.append(SteppedStore(inner))
        return stores[-1]

    sides = world.open(heal=policy, store=wrapped)
    return sides, stores[0]


def drifted(world: World) -> World:
    """An owner whose experiences were edited by SQL."""
    world.bring_in_sync({"1": ENGINEER})
    world.put("1", EDITED)
    return world


# --- what sets it off -------------------------------------------------------------------------


def test_a_search_that_meets_drift_sets_off_a_heal_and_waits_for_nothing(world: World) -> None:
    """Its hits are the source's already; the vectors follow."""
    drifted(world)
    sides, _ = counted(world)

    result = sides.search("1", "Sends invoices")

    assert result.met_drift
    assert result.healing is Healing.PENDING
    sides.close()  # waits for what it set off
    assert world.sides.check("1").is_in_sync
    world.assert_store_holds({"1": EDITED})


def test_a_search_that_meets_none_sets_off_nothing(world: World) -> None:
    """Reading costs reading."""
    world.bring_in_sync({"1": ENGINEER})
    sides, store = counted(world)
    assert sides.search("1", "Sends invoices").healing is None
    sides.close()
    assert store.published == []


def test_a_thousand_concurrent_resolves_set_off_one_heal(world: World) -> None:
    """Each of them is answered, and the store is written once."""
    drifted(world)
    sides, store = counted(world)
    threads = 50
    everybody = Barrier(threads)

    def resolve(number: int) -> str:
        if number < threads:
            everybody.wait(60)
        answer = sides.resolve("1", "experience:exp_gone")
        assert isinstance(answer, Retry)
        return answer.healing

    with ThreadPoolExecutor(threads) as pool:
        states = list(pool.map(resolve, range(1_000)))

    assert set(states) <= {Healing.HEALED, Healing.COOLING_DOWN}
    assert Healing.HEALED in states
    assert store.published == [(2, 3)]
    assert sides.check("1").is_in_sync


@pytest.mark.usefixtures("without_leases")
def test_control_without_joining_every_caller_repairs(world: World) -> None:
    """Two syncs that have both looked write the same records twice."""
    drifted(world)
    both_have_looked = Barrier(2)
    steps = count()
    stores: list[SteppedStore] = []

    def before(step: str) -> None:
        if step == "store.publish" and next(steps) < 2:
            both_have_looked.wait(60)

    def wrapped(inner: VectorStore) -> SteppedStore:
        stores.append(SteppedStore(inner, before))
        return stores[-1]

    sides = world.open(store=wrapped)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: sides.sync("1", is_guarded=True), range(2)))
    assert [writes for writes, _ in stores[0].published].count(2) == 2


def test_the_asynchronous_face_heals_as_well(sqlite: World) -> None:
    """Without holding up the loop."""
    drifted(sqlite)
    sides = AsyncUndrift(sqlite.open(heal=PATIENT))

    async def resolve() -> list[object]:
        return await asyncio.gather(*(sides.resolve("1", "experience:gone") for _ in range(20)))

    answers = asyncio.run(resolve())
    assert all(isinstance(answer, Retry) for answer in answers)
    assert sqlite.sides.check("1").is_in_sync


# --- what it may do ---------------------------------------------------------------------------


def test_a_heal_never_empties_an_owner_that_looks_damaged(world: World) -> None:
    """Thirty of thirty vectors would go: writes are made, deletes wait for a person."""
    skills = [f"Skill {number}" for number in range(30)]
    world.bring_in_sync({"1": document(skills=skills), "2": ENGINEER})
    world.put("1", document(skills=["A new one"]))
    sides = world.open(heal=PATIENT)

    heal = sides.heal("1")

    assert heal.healing is Healing.FAILED
    assert isinstance(heal.error, SafetyStop)
    stale = {skill_key(skill) for skill in skills}
    assert drift_of(sides.check("1")) == {"stale": stale}
    assert sides.sync("1").is_in_sync  # a person may


def test_an_owner_whose_row_is_gone_is_healed_away(world: World) -> None:
    """Its few vectors are deleted, for the source still lists others."""
    world.bring_in_sync({"1": ENGINEER, "2": EDITED})
    world.remove_owners(["1"])
    sides = world.open(heal=PATIENT)

    answer = sides.resolve("1", "experience:exp_1")

    assert isinstance(answer, Retry)
    assert (answer.healing, answer.candidates) == (Healing.HEALED, ())
    assert "gone from the database" in answer.message
    assert world.keys("1") == set()
    assert sides.check("2").is_in_sync


def test_an_emptied_source_is_not_taken_for_a_wish(world: World) -> None:
    """The last rows are gone, and so would be all vectors, one search at a time."""
    world.bring_in_sync({"1": ENGINEER, "2": EDITED})
    world.remove_owners(["1", "2"])
    before = world.store.records()

    heal = world.open(heal=PATIENT).heal("1")

    assert isinstance(heal.error, SafetyStop)
    assert world.store.records() == before


def test_a_heal_creates_no_store(world: World) -> None:
    """That is for a sync that somebody runs."""
    world.put("1", ENGINEER)
    heal = world.open(heal=PATIENT).heal("1")
    assert heal.healing is Healing.FAILED
    assert isinstance(heal.error, ConfigError)
    assert "undrift sync --all" in heal.error.fix
    assert not world.store.exists


def test_nobody_is_told_as_nobody(world: World) -> None:
    """An owner that neither side knows is a mistake of the caller's."""
    world.bring_in_sync({"1": ENGINEER})
    with pytest.raises(OwnerNotFound):
        world.open(heal=PATIENT).resolve("77", "experience:exp_1")


def test_a_name_without_a_known_kind_is_refused(sqlite: World) -> None:
    """Before anything is read."""
    sqlite.bring_in_sync({"1": ENGINEER})
    for name in ("exp_1", "job:exp_1", "experience:", ""):
        with pytest.raises(ConfigError, match="kind:id"):
            sqlite.sides.resolve("1", name)


def test_resolve_needs_no_store_for_what_the_source_has(sqlite: World) -> None:
    """An outage of the vectors must not stop a tool that has a good id."""
    sqlite.bring_in_sync({"1": ENGINEER})

    def refuse(step: str) -> None:
        raise StoreUnavailable("The store is down", why="it is.", fix="start it")

    sides = sqlite.open(store=lambda inner: SteppedStore(inner, refuse), heal=PATIENT)
    found = sides.resolve("1", "experience:exp_1")
    assert not isinstance(found, Retry)
    assert found.entity.entity_id == "exp_1"
