"""Any mixture of damage, on the same records too: one sync brings the store back (I4).

Unlike `test_golden_drift` nobody says what is to be found. Random SQL changes whatever it meets,
and the oracle is only what the source holds in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from support.drift import document_of, fleet
from support.layouts import Document
from support.sides import NAMESPACE, World
from undrift import Outcome

OWNERS = 12
NOBODY = "nobody"
Damage = Callable[[World, str, Random], object]


def change(column: str, *values: object) -> Damage:
    """Set a column of a record to one of *values*."""
    return lambda world, vector_id, random: world.store.set(
        vector_id, **{column: random.choice(values)}
    )


def copy_with(column: str, *values: object) -> Damage:
    """Copy a record, changed in one column."""
    return lambda world, vector_id, random: world.store.copy(
        vector_id, **{column: random.choice(values), "fingerprint": f"{random.random()}"}
    )


OWNER_IDS = (*(str(n) for n in range(1, OWNERS + 1)), NOBODY)
ENTITY_IDS = ("exp_0", "exp_1", "p_0", "p_1", "never_was", "", None)
KINDS = ("experience", "project", "skill", "hobby", None)
DAMAGES: tuple[Damage, ...] = (
    change("owner_id", *OWNER_IDS),
    change("entity_id", *ENTITY_IDS),
    change("kind", *KINDS),
    change("fingerprint", "0" * 32, None),
    change("text_hash", "0" * 32, None),
    change("model", "test/other:16:l2", None),
    change("version", -1, 0, 1, 2, 7, None),
    copy_with("owner_id", *OWNER_IDS),
    copy_with("entity_id", *ENTITY_IDS),
    copy_with("kind", *KINDS),
    copy_with("namespace", "other", None),
    lambda world, vector_id, random: world.store.delete(vector_id),
    lambda world, vector_id, random: world.store.move(vector_id),
    lambda world, vector_id, random: world.store.lose_vector(vector_id),
)


def damage(world: World, documents: dict[str, Document], random: Random) -> None:
    """Damage the store forty times, then edit, remove and add some owners in the source."""
    for _ in range(40):
        vector_ids = [i for i, r in world.store.records().items() if r["namespace"] == NAMESPACE]
        random.choice(DAMAGES)(world, random.choice(sorted(vector_ids)), random)
    for owner in random.sample(sorted(documents), k=4):
        documents[owner] = document_of(int(owner), random)
    gone = random.choice(sorted(documents))
    del documents[gone]
    documents["99"] = document_of(99, random)
    world.put_all(documents)
    world.remove_owners([gone])


@pytest.mark.parametrize("seed", range(8))
def test_any_mixture_of_damage_is_repaired_in_one_sync(world: World, seed: int) -> None:
    """Everything live is there with its own text and vector, and nothing else of the namespace."""
    random = Random(seed)
    documents = fleet(OWNERS, random)
    world.bring_in_sync(documents)
    damage(world, documents, random)
    foreign = foreign_records(world)
    by_name = seed % 2 == 1

    if by_name:
        names = random.sample([*OWNER_IDS, "99"], k=OWNERS + 2)
        reports = list(world.sides.sync_owners(names))
    else:
        reports = list(world.sides.sync_all(max_delete="100%"))

    # Whom the source lacks has records to delete, or none left, or only what is not managed.
    absent = {r.outcome for r in reports if r.owner_id not in documents}
    assert absent <= {Outcome.IN_SYNC, Outcome.NOT_FOUND}
    assert all(report.is_in_sync for report in reports if report.owner_id in documents)
    world.assert_store_holds(documents)
    assert foreign_records(world) == foreign
    world.embedder.texts.clear()
    again = [report for report in world.sides.sync_all() if report.owner_id in documents]
    assert len(again) == len(documents)
    assert all(report.skipped for report in again)
    assert world.embedder.texts == []


def foreign_records(world: World) -> dict[str, object]:
    """The records outside the namespace."""
    return {i: r for i, r in world.store.records().items() if r["namespace"] != NAMESPACE}
