"""A fleet of owners, and every kind of drift to plant in it by SQL."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from copy import deepcopy
from random import Random

from support.layouts import Document, skill_key
from support.sides import NAMESPACE, Identity, World
from undrift import EntityId

_WORDS = ("ledger", "settles", "refunds", "nightly", "walled", "garden", "pears", "grafts", "kiln")
_SKILLS = ("SQL", "Go", "Grafting", "Pruning", "Kotlin", "Glazing")


def document_of(number: int, random: Random) -> Document:
    """An owner's document; ids repeat from owner to owner, skills are often the same."""

    def sentence() -> str:
        return f"{' '.join(random.choices(_WORDS, k=6))} {random.randrange(10**9)}"

    experiences: list[Document] = [
        {
            "id": f"exp_{index}",
            "title": f"Title {number}-{index}",
            "company": random.choice(("Acme", "Quince Hall")),
            "description": sentence(),
        }
        for index in range(random.choice((2, 3)))
    ]
    experiences[0]["projects"] = [
        {"id": f"p_{index}", "title": f"Project {index}", "description": sentence()}
        for index in range(random.choice((1, 2)))
    ]
    return {"experiences": experiences, "skills": random.sample(_SKILLS, k=3)}


def fleet(owners: int, random: Random) -> dict[str, Document]:
    """Documents of *owners* owners, numbered from 1."""
    return {str(number): document_of(number, random) for number in range(1, owners + 1)}


class Drift:
    """Drift planted into a world that was in sync, and what follows from it.

    Attributes:
        documents: the source's content after the planting.
        expected: owner → kind of drift → ids.
        orphans: owners that the source no longer has.
        to_embed: the texts that a repair has to embed.
        touched: vector_ids of records that a repair may write or delete.
        unmanaged: records planted outside what undrift manages, by owner.
    """

    def __init__(self, world: World, documents: dict[str, Document], random: Random) -> None:
        self._world = world
        self._random = random
        self._ids = world.store.identities()
        self._free = {
            owner: list(world.layout.entities(document)) for owner, document in documents.items()
        }
        self._edited: set[str] = set()
        self.documents = deepcopy(documents)
        self.expected: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.orphans: set[str] = set()
        self.to_embed: set[str] = set()
        self.touched: set[str] = set()
        self.unmanaged: Counter[str] = Counter()

    @property
    def on_an_entity(self) -> dict[str, Callable[[str], None]]:
        """Every kind of drift that concerns one entity of an owner, by name."""
        return {
            "record lost": self.lose_record,
            "record invented": self.invent_record,
            "record copied": self.copy_record,
            "record stolen": self.steal_record,
            "fingerprint tampered": self.tamper,
            "model of another": self.change_model,
            "vector lost": self.lose_vector,
            "entity removed": self.remove_entity,
            "entity added": self.add_entity,
            "text edited": self.edit_text,
            "metadata edited": self.edit_metadata,
        }

    def save(self) -> None:
        """Bring the edits of the documents into the source."""
        self._world.put_all({owner: self.documents[owner] for owner in sorted(self._edited)})

    # --- in the store -------------------------------------------------------------------------

    def lose_record(self, owner: str) -> None:
        """Delete a record."""
        key = self._take(owner)
        self._world.store.delete(self._id(owner, key))
        self._expect(owner, "missing", key, embed=True)

    def invent_record(self, owner: str) -> None:
        """Add a record of an entity that never was."""
        key = self._take(owner)
        copied = self._world.store.copy(self._id(owner, key), entity_id="never_was")
        self.touched.add(copied)
        self.expected[owner]["stale"].add(f"{key.kind}:never_was")

    def copy_record(self, owner: str) -> None:
        """Add a second record of an entity, under a vector_id that is not its own."""
        key = self._take(owner)
        self.touched.add(self._world.store.copy(self._id(owner, key), entity_id=key.id))
        self.expected[owner]["duplicate"].add(key)

    def steal_record(self, owner: str) -> None:
        """Give a record to another owner, who may or may not have an entity of that name."""
        key = self._take(owner)
        thief = self._random.choice([o for o in self._free if o not in self.orphans | {owner}])
        if key in self._world.layout.entities(self.documents[thief]):
            if key not in self._free[thief]:
                return self.steal_record(owner)  # something is planted there already
            self._free[thief].remove(key)
            self.expected[thief]["duplicate"].add(key)
        else:
            self.expected[thief]["stale"].add(key)
        self._world.store.set(self._id(owner, key), owner_id=thief)
        self._expect(owner, "missing", key, embed=True)
        return None

    def tamper(self, owner: str) -> None:
        """Change a record's fingerprint; its vector still is the right one."""
        key = self._take(owner)
        self._world.store.set(self._id(owner, key), fingerprint="0" * 32)
        self._expect(owner, "changed", key, embed=False)

    def change_model(self, owner: str) -> None:
        """Pretend that a record was embedded by another model."""
        key = self._take(owner)
        self._world.store.set(self._id(owner, key), model="test/other:16:l2")
        self._expect(owner, "wrong_model", key, embed=True)

    def lose_vector(self, owner: str) -> None:
        """Take a record's vector away: no search finds it, so it is as good as missing."""
        key = self._take(owner)
        self._world.store.lose_vector(self._id(owner, key))
        self._expect(owner, "missing", key, embed=True)

    def lose_owner(self, owner: str) -> None:
        """Delete all records of an owner."""
        for _ in range(len(self._free[owner])):
            self.lose_record(owner)

    def add_unmanaged(self, owner: str, **changes: object) -> None:
        """Add a record that is none of undrift's business."""
        key = self._random.choice(list(self._world.layout.entities(self.documents[owner])))
        self._world.store.copy(self._ids[Identity(owner, key)], **changes)
        self.unmanaged[str(changes.get("owner_id", owner))] += 1

    # --- in the source ------------------------------------------------------------------------

    def remove_owner(self, owner: str) -> None:
        """Delete an owner from the source."""
        self._world.remove_owners([owner])
        keys = self._free.pop(owner)
        self.expected[owner]["stale"].update(keys)
        self.touched.update(self._id(owner, key) for key in keys)
        self.orphans.add(owner)
        del self.documents[owner]

    def remove_entity(self, owner: str) -> None:
        """Delete an entity from the owner's content."""
        key = self._take(owner, "project", "skill")
        document = self._edit(owner)
        if key.kind == "skill":
            names = [name for name in document["skills"] if skill_key(name) != key]
            document["skills"] = names
        else:
            projects = document["experiences"][0]["projects"]
            document["experiences"][0]["projects"] = [p for p in projects if p["id"] != key.id]
        self._expect(owner, "stale", key, embed=False)

    def add_entity(self, owner: str) -> None:
        """Add an entity to the owner's content."""
        name = f"Skill {self._random.randrange(10**9)}"
        self._edit(owner)["skills"].append(name)
        self.expected[owner]["missing"].add(skill_key(name))
        self.to_embed.add(name)

    def edit_text(self, owner: str) -> None:
        """Change what an entity's text is made of."""
        key = self._take(owner, "experience", "project")
        experiences = self._edit(owner)["experiences"]
        entities = [*experiences, *experiences[0]["projects"]]
        edited = next(e for e in entities if e["id"] == key.id)
        edited["description"] = f"Rewritten {self._random.randrange(10**9)}"
        self._expect(owner, "changed", key, embed=True)

    def edit_metadata(self, owner: str) -> None:
        """Change what is kept beside the vector, and not the text."""
        key = self._take(owner, "experience")
        edited = next(e for e in self._edit(owner)["experiences"] if e["id"] == key.id)
        edited["end"] = "2024-05"
        self._expect(owner, "changed", key, embed=False)

    # --- keeping count ------------------------------------------------------------------------

    def _take(self, owner: str, *kinds: str) -> EntityId:
        """An entity of the owner in which nothing is planted yet."""
        free = [key for key in self._free[owner] if not kinds or key.kind in kinds]
        key = self._random.choice(free)
        self._free[owner].remove(key)
        return key

    def _id(self, owner: str, key: EntityId) -> str:
        return self._ids[Identity(owner, key)]

    def _edit(self, owner: str) -> Document:
        self._edited.add(owner)
        return self.documents[owner]

    def _expect(self, owner: str, kind: str, key: EntityId, *, embed: bool) -> None:
        self.expected[owner][kind].add(key)
        self.touched.add(self._id(owner, key))
        if embed:
            self.to_embed.add(self._world.layout.entities(self.documents[owner])[key].text)


def plant_everything(drift: Drift, random: Random) -> None:
    """Plant every kind of drift: each alone in some owners, several together in others.

    More than half of the owners are left as they are, but for what thieves bring them.
    """
    owners: Iterator[str] = iter(random.sample(list(drift.documents), k=len(drift.documents)))
    per_kind = len(drift.documents) // 25
    for _ in range(per_kind):
        drift.remove_owner(next(owners))
        drift.lose_owner(next(owners))
    for plant in drift.on_an_entity.values():
        for _ in range(per_kind // 2):
            plant(next(owners))
    for _ in range(2 * per_kind):
        owner = next(owners)
        for plant in random.sample(list(drift.on_an_entity.values()), k=2):
            plant(owner)
    drift.save()
    untouched = next(owners)
    for changes in ({"namespace": "other"}, {"namespace": None}, {"kind": "hobby"}):
        drift.add_unmanaged(next(owners), **changes)
        drift.add_unmanaged(untouched, **changes)
    drift.add_unmanaged(next(owners), namespace=f"{NAMESPACE}2", owner_id="990")
