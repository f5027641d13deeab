"""Differences that are planted behind undrift's back, by SQL, each known by name.

Records are taken away, made up, copied, given another fingerprint or model, or lose their vectors;
users get records without having a profile; profiles are edited, and some deleted. What a check must
find is exactly what was planted: user, kind of drift, entity.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple, Protocol
from uuid import UUID

from benchmarks.fleet import Fleet, entity_names, size
from undrift.model import SyncStatus

Difference = tuple[str, str, str]
"""User, kind of drift, and the entity as ``kind:id``."""

Parameters = Mapping[str, str | int]

NOBODY = 10**12
"""Users above this number have no profile."""


class Hand(Protocol):
    """Writes into the sides directly."""

    def write(self, side: str, statements: Iterable[tuple[str, Parameters]]) -> None:
        """Run statements in one transaction, each put into its own dialect."""


class Planted(NamedTuple):
    """One thing that is done to one user, and what must be found of it."""

    what: str
    owner: int
    entity: tuple[str, str]
    found: Sequence[Difference]


OF_RECORDS = ("missing", "stale", "changed", "wrong model", "lost vector", "duplicate", "orphan")
OF_SOURCE = ("edited", "removed")


def plan(
    fleet: Fleet, count: int, *, seed: int, untouched: Set[int] = frozenset()
) -> list[Planted]:
    """Exactly *count* differences, at most one thing for each user.

    Args:
        untouched: users who are to be left alone.
    """
    rng = random.Random(f"planted/{seed}")
    shuffled = rng.sample(range(1, fleet.owners + 1), fleet.owners)
    owners = [owner for owner in shuffled if owner not in untouched]
    planted, of_removed = [], max(1, count // 10)
    for owner in owners:
        if (entities := size(owner, seed=fleet.seed)) <= of_removed:
            planted.append(_removed(owner, fleet))
            of_removed -= entities
        if not of_removed:
            break
    removed = {one.owner for one in planted}
    others = (owner for owner in owners if owner not in removed)
    left = count - len(to_find(planted))
    single = (*OF_RECORDS, "edited")
    planted += [_single(single[n % len(single)], next(others), rng, fleet) for n in range(left)]
    return planted


def plant(hand: Hand, planted: Sequence[Planted]) -> None:
    """Do it."""
    of_source = [one for one in planted if one.what in OF_SOURCE]
    hand.write("source", (write for one in of_source for write in _source_writes(one)))
    of_store = [one for one in planted if one.what in OF_RECORDS]
    hand.write("store", (write for one in of_store for write in _store_writes(one)))


def edit(hand: Hand, owners: Iterable[int], text: str) -> None:
    """Give the first experience of *owners* another description, each one of its own."""
    edits: list[tuple[str, Parameters]] = [
        (_EDIT, {"owner": owner, "text": f"{text} {owner}"}) for owner in owners
    ]
    hand.write("source", edits)


def to_find(planted: Iterable[Planted]) -> set[Difference]:
    """What a check must find."""
    return {difference for one in planted for difference in one.found}


def differences(status: SyncStatus) -> Iterator[Difference]:
    """What a check found of one user."""
    stale = "orphan" if status.orphan_owner else "stale"
    for drift, ids in (
        ("missing", status.missing_ids),
        (stale, status.stale_ids),
        ("changed", status.changed_ids),
        ("wrong model", status.wrong_model_ids),
        ("duplicate", status.duplicate_ids),
    ):
        for entity in ids:
            yield status.owner_id, drift, entity
    if status.error is not None:
        yield status.owner_id, "unknown", type(status.error).__name__


# --- what to find ---------------------------------------------------------------------------------


def _removed(owner: int, fleet: Fleet) -> Planted:
    found = [(str(owner), "orphan", _id(name)) for name in entity_names(owner, seed=fleet.seed)]
    return Planted("removed", owner, ("", ""), found)


def _single(what: str, owner: int, rng: random.Random, fleet: Fleet) -> Planted:
    entity = rng.choice(entity_names(owner, seed=fleet.seed))
    drift, whose, which = what, str(owner), _id(entity)
    if what == "stale":
        which = _id((entity[0], "ghost"))
    elif what == "orphan":
        whose = str(NOBODY + owner)
    elif what == "lost vector":
        drift = "missing"  # what cannot be found by a search is not there
    elif what == "edited":
        entity = ("experience", "exp_0")
        drift, which = "changed", _id(entity)
    return Planted(what, owner, entity, [(whose, drift, which)])


def _id(name: tuple[str, str]) -> str:
    return ":".join(name)


# --- how it is done -------------------------------------------------------------------------------

# The hand fills in the words in braces, its database's own; what is empty then is not run.
_EDIT = "UPDATE profiles SET filtered_data = {edit} WHERE user_id = :owner"
_REMOVE = "DELETE FROM profiles WHERE user_id = :owner"
_THE_RECORD = "owner_id = :owner AND kind = :kind AND entity_id = :entity"
_ON_RECORD = {
    "missing": "DELETE FROM {vectors} WHERE " + _THE_RECORD,
    "changed": "UPDATE {vectors} SET fingerprint = :fingerprint WHERE " + _THE_RECORD,
    "wrong model": "UPDATE {vectors} SET model = 'another model' WHERE " + _THE_RECORD,
    "lost vector": "{lose_vector}",
}
_COPY = (
    "INSERT INTO {vectors} (vector_id, namespace, owner_id, kind, entity_id, fingerprint,"
    " text_hash, model, version, deleted, text, metadata{embedding})"
    " SELECT :new_vector_id, namespace, :new_owner, kind, :new_entity, fingerprint,"
    " text_hash, model, version, deleted, text, metadata{embedding}"
    " FROM {vectors} WHERE " + _THE_RECORD
)
_WORDS = {
    "postgresql": {
        "vectors": "undrift.vectors",
        "embedding": ", embedding",
        "edit": "jsonb_set(filtered_data, '{experiences,0,description}', to_jsonb(:text ::text))",
        "lose_vector": "UPDATE undrift.vectors SET embedding = NULL WHERE " + _THE_RECORD,
        "copy_vector": "",
    },
    "sqlite": {
        "vectors": "vectors",
        "embedding": "",
        "edit": "json_set(filtered_data, '$.experiences[0].description', :text)",
        "lose_vector": "DELETE FROM embeddings WHERE vector_id IN"
        " (SELECT vector_id FROM vectors WHERE " + _THE_RECORD + ")",
        "copy_vector": "INSERT INTO embeddings SELECT :new_vector_id, embedding FROM embeddings"
        " WHERE vector_id IN (SELECT vector_id FROM vectors WHERE " + _THE_RECORD + ")",
    },
}


def in_dialect(statement: str, dialect: str) -> str:
    """*statement* in the words of ``postgresql`` or ``sqlite``; empty where it has none."""
    for word, means in _WORDS[dialect].items():
        statement = statement.replace(f"{{{word}}}", means)
    return statement


def _source_writes(one: Planted) -> Iterator[tuple[str, Parameters]]:
    if one.what == "removed":
        yield _REMOVE, {"owner": one.owner}
    else:
        yield _EDIT, {"owner": one.owner, "text": f"Edited behind everybody's back {one.owner}"}


def _store_writes(one: Planted) -> Iterator[tuple[str, Parameters]]:
    record = {"owner": str(one.owner), "kind": one.entity[0], "entity": one.entity[1]}
    if one.what not in ("stale", "duplicate", "orphan"):
        of_nothing = {"fingerprint": f"{one.owner:032x}"}
        yield _ON_RECORD[one.what], record | (of_nothing if one.what == "changed" else {})
        return
    owner, _, entity = one.found[0]
    copied = record | {
        "new_vector_id": str(UUID(int=NOBODY**2 + one.owner)),
        "new_owner": owner,
        "new_entity": entity.partition(":")[2],
    }
    yield "{copy_vector}", copied
    yield _COPY, copied
