"""A source in memory whose whole past is known, so that a run can be judged afterwards."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from undrift.fingerprint import content_digest
from undrift.mapping import EntitySpec
from undrift.mapping import Mapping as SourceMapping
from undrift.model import Wanted
from undrift.ports import Element, SourceInfo
from undrift.render import Renderer
from undrift.state import Identity

KINDS = ("note", "part")

SIMULATED_MAPPING = SourceMapping(
    documents=None,
    entities=tuple(
        EntitySpec(
            kind=kind, table=kind, owner="owner", id="id", text="{{ text }}", metadata=("title",)
        )
        for kind in KINDS
    ),
)
"""Two kinds of one layout, so that an id can move from one to the other."""

RENDERER = Renderer(SIMULATED_MAPPING)


class Item(NamedTuple):
    """One entity's content in the source."""

    kind: str
    entity_id: str
    text: str
    title: str

    @property
    def identity(self) -> Identity:
        """The entity within its owner."""
        return self.kind, self.entity_id


def described(items: Iterable[Item]) -> str:
    """For people."""
    return " ".join(f"{i.kind}:{i.entity_id}={i.text}/{i.title}" for i in sorted(items))


Document = frozenset[Item]
"""One owner's content; an owner without a document is not there."""


class SimulatedContent:
    """One owner's `OwnerContent`."""

    def __init__(self, owner_id: str, document: Document) -> None:
        self.owner_id = owner_id
        self._items = sorted(document)

    def __repr__(self) -> str:
        """For the trace, which must be the same in every process."""
        return f"{self.owner_id}: {described(self._items)}"

    @property
    def digest(self) -> bytes:
        """A hash of the content."""
        return content_digest([part for item in self._items for part in item])

    def elements(self) -> Sequence[Sequence[Element]]:
        """The elements by kind."""
        return [
            [
                Element({"id": item.entity_id, "text": item.text, "title": item.title})
                for item in self._items
                if item.kind == kind
            ]
            for kind in KINDS
        ]


@lru_cache(maxsize=100_000)
def wanted_of(owner_id: str, document: Document | None) -> Wanted:
    """What the real renderer makes of *document*; nothing of an owner that is not there."""
    if document is None:
        return Wanted(owner_id, {}, {})
    return RENDERER.render(SimulatedContent(owner_id, document))


Content = frozenset[tuple[str, str, str]]
"""What is to be found of an owner: ``(kind, entity_id, fingerprint)``."""


@lru_cache(maxsize=100_000)
def content_of(owner_id: str, document: Document | None) -> Content:
    """The content that a store true to *document* holds."""
    entities = wanted_of(owner_id, document).entities.values()
    return frozenset((entity.kind, entity.entity_id, entity.fingerprint) for entity in entities)


class SimulatedSource:
    """The database: what it holds now, and what it held at every step before.

    Attributes:
        documents: by owner, of the owners that are there.
        marks: owners that a trigger wrote down, in commit order, each with its own number.
    """

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {}
        self.marks: dict[int, str] = {}
        self._next_mark = 1
        self._past: dict[str, tuple[list[int], list[Document | None]]] = {}

    def commit(self, step: int, changes: Mapping[str, Document | None]) -> None:
        """Change several owners in one transaction; None takes an owner away."""
        for owner_id, document in changes.items():
            if self.documents.get(owner_id) == document:
                continue
            if document is None:
                del self.documents[owner_id]
            else:
                self.documents[owner_id] = document
            steps, documents = self._past.setdefault(owner_id, ([-1], [None]))
            steps.append(step)
            documents.append(document)
            self.marks[self._next_mark] = owner_id
            self._next_mark += 1

    def copy(self) -> dict[str, Document]:
        """A backup."""
        return dict(self.documents)

    def restore(self, step: int, backup: Mapping[str, Document]) -> None:
        """Go back to *backup*; no trigger fires while a backup is loaded."""
        marks = dict(self.marks)
        owners = {*backup, *self.documents}
        self.commit(step, {owner_id: backup.get(owner_id) for owner_id in sorted(owners)})
        self.marks = marks

    def previous(self, owner_id: str) -> Document | None:
        """What the owner's content was before its last change."""
        return self._past[owner_id][1][-2]

    def owners_ever(self) -> list[str]:
        """Everybody who was ever there."""
        return sorted(self._past)

    def contents(self, owner_id: str, first: int, last: int) -> set[Content]:
        """What the owner's content was at any moment from step *first* to *last*."""
        steps, documents = self._past.get(owner_id, ([-1], [None]))
        start = bisect_right(steps, first) - 1
        end = bisect_right(steps, last)
        return {content_of(owner_id, document) for document in documents[start:end]}

    def since(self, owner_id: str, identity: Identity, step: int) -> int:
        """From which step on the entity was what it was at *step*, without an interruption."""
        steps, documents = self._past.get(owner_id, ([-1], [None]))
        index = bisect_right(steps, step) - 1
        item = _item(documents[index], identity)
        while index > 0 and _item(documents[index - 1], identity) == item:
            index -= 1
        return steps[index]

    # --- as a worker sees it

    def describe(self) -> SourceInfo:
        """Where it is."""
        return SourceInfo(location="simulated:", layout="note, part", identity="simulated")

    def owner_pages(self, page_owners: int, after: str | None = None) -> Iterator[Sequence[str]]:
        """Every owner."""
        while True:
            owners = sorted(o for o in self.documents if after is None or o > after)[:page_owners]
            if not owners:
                return
            yield owners
            after = owners[-1]

    def present(self, owners: Sequence[str]) -> frozenset[str]:
        """Which of *owners* are there."""
        return frozenset(self.documents).intersection(owners)

    def read(self, owners: Sequence[str]) -> Iterator[SimulatedContent]:
        """The content of *owners* at this moment."""
        found = [(owner, self.documents[owner]) for owner in owners if owner in self.documents]
        return (SimulatedContent(owner_id, document) for owner_id, document in found)

    def close(self) -> None:
        """There is nothing to give back."""


def _item(document: Document | None, identity: Identity) -> Item | None:
    for item in document or ():
        if item.identity == identity:
            return item
    return None
