"""A mapping guessed for a collection that another program filled.

Pure: a sample of the collection and a sample of the source in, ``[store.fields]`` out. What a field
holds is told by its values: an owner's field holds users of the source, an entity's field ids of
that very user's entities. Names only decide between fields whose values serve equally well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from undrift.adoption import Field, StoreFields
from undrift.fingerprint import is_storable_id
from undrift.identity import MAX_OWNER_BYTES
from undrift.proposal._contents import Contents, guess_model, guess_text
from undrift.proposal._matches import (
    Match,
    SourceEntity,
    Sources,
    best_pair,
    entity_id_is_chance,
    guess_fixed,
    guess_kind,
    guess_part,
    paths_of,
)
from undrift.stores.collections import CollectionSample

__all__ = [
    "FIELD_NAMES",
    "REQUIRED_FIELDS",
    "Embedding",
    "Example",
    "FieldsProposal",
    "SourceEntity",
    "guess_fields",
    "owner_values",
]

MAX_EXAMPLES = 3

REQUIRED_FIELDS = ("owner", "kind", "entity_id")
FIELD_NAMES = (*REQUIRED_FIELDS, "part", "text", "model", "id", "vector", "stamp")
"""The settings of ``[store.fields]`` that name a field, in the order people read them."""


class Embedding(NamedTuple):
    """What the configured embedder makes."""

    model: str
    dimension: int


class Example(NamedTuple):
    """A sampled record as the guess reads it.

    Attributes:
        record_id: the record's own id; empty where the sample does not show it.
        entity: ``kind:id``.
        text: what is stored, whole.
    """

    record_id: str
    owner_id: str
    entity: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldsProposal:
    """What was guessed of a collection, and why.

    Attributes:
        found: by setting of ``[store.fields]``, what it is to be.
        fixed: see `StoreFields`.
        reasons: by setting, what the guess rests on.
        missing: by setting, what could not be told and what a person does; only the first three
            settings are needed.
        notes: what a person should know besides.
        renamed: kinds that the collection calls otherwise, with its word for them.
        texts: by kind, the template that makes the very texts that are stored.
        equal_texts: how many of the sampled texts equal what the source renders.
        matched: sampled records that stand for an entity of the source.
    """

    sample: CollectionSample
    found: Mapping[str, Field] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    equal_texts: int = 0
    matched: int = 0
    examples: tuple[Example, ...] = field(default=(), repr=False)

    @property
    def fields(self) -> StoreFields | None:
        """The whole mapping; None where a person has to complete it."""
        is_told = all(n in self.found and n not in self.missing for n in REQUIRED_FIELDS)
        if self.sample.why_not or not is_told:
            return None
        return StoreFields(**self.found, fixed=self.fixed)


def owner_values(sample: CollectionSample) -> list[str]:
    """Every value of the sample that may be an owner, each once, for the source to be asked."""
    values = dict.fromkeys(value for record in sample.records for value in record.values())
    return [
        value
        for value in values
        if len(value.encode("utf-8", "replace")) <= MAX_OWNER_BYTES and is_storable_id(value)
    ]


def guess_fields(
    sample: CollectionSample,
    owners: Collection[str],
    entities: Iterable[SourceEntity],
    *,
    embedding: Embedding | None = None,
) -> FieldsProposal:
    """Which field of the sampled records holds what.

    Args:
        owners: those of `owner_values` that are users of the source.
        entities: what the source has of them.
        embedding: what the configured embedder makes; None where nobody knows.
    """
    draft = _Draft(sample)
    sources = Sources(owners, entities)
    paths = paths_of(sample.records)
    if sample.why_not:
        return draft.proposal()
    matches = draft.identity(sources, paths)
    draft.kind(matches, paths)
    draft.part(paths)
    draft.model(paths, embedding)
    draft.contents(paths)
    draft.places()
    return draft.proposal()


class _Draft:
    """Collects the guesses, each of which knows what is taken by the ones before."""

    def __init__(self, sample: CollectionSample) -> None:
        self._sample = sample
        self._found: dict[str, Field] = {}
        self._fixed = dict(sample.fixed)
        self._reasons: dict[str, str] = {}
        self._missing: dict[str, str] = {}
        self._notes: list[str] = []
        self._renamed: Mapping[str, str] = {}
        self._contents = Contents()
        self._matches: Sequence[Match] = ()

    def identity(self, sources: Sources, paths: Sequence[str]) -> Sequence[Match]:
        """The owner's and the entity's id, which are told together."""
        records, count = self._sample.records, len(self._sample.records)
        if not records:
            self._missing["owner"] = "the collection holds no record that could be sampled"
            self._missing["entity_id"] = self._missing["kind"] = "see owner"
            return ()
        pair = best_pair(records, paths, sources, record_id=self._sample.record_id)
        if not pair.owner:
            self._missing["owner"] = (
                f"none of {count} sampled records names a source user in any field"
            )
        else:
            self._take("owner", pair.owner)
            self._reasons["owner"] = (
                f"{pair.owners} of {count} sampled records name a source user in {pair.owner}"
            )
        if not pair.entity_id:
            self._missing["entity_id"] = "no field holds ids of these users' entities"
            return ()
        self._take("entity_id", pair.entity_id)
        self._reasons["entity_id"] = (
            f"{len(pair.matches)} of {count} sampled records name an entity of that very user in "
            f"{pair.entity_id}"
        )
        if pair.entity_id == self._sample.record_id:
            self._missing["entity_id"] = (
                f"the entity's id stands only in {pair.entity_id}, the record's own id, which a "
                "record that undrift writes cannot take; let the program write it into its "
                "metadata, too"
            )
        elif entity_id_is_chance(pair):
            self._missing["entity_id"] = (
                "these are small numbers under names that tell nothing, and may agree by chance"
            )
        self._matches = pair.matches
        return pair.matches

    def kind(self, matches: Sequence[Match], paths: Sequence[str]) -> None:
        """What the records are of, and which records are meant at all."""
        if not matches:
            self._missing.setdefault("kind", "it is told by the entities, and none was found")
            return
        free = self._free(paths)
        guess = guess_kind(matches, free)
        self._renamed = guess.renamed
        if guess.field is None:
            self._missing["kind"] = guess.reason
            return
        self._found["kind"] = guess.field
        self._reasons["kind"] = guess.reason
        self._matches = guess.matches
        fixed = guess_fixed(
            guess.matches,
            self._sample.records,
            self._free(paths),
            owner=_path(self._found["owner"]),
            entity_id=_path(self._found["entity_id"]),
        )
        if guess.field.value is not None and fixed is not None:
            self._fixed[fixed.path] = fixed.value
            self._notes.append(
                f"only records whose {fixed.path} is {fixed.value} are managed: {fixed.others} "
                "sampled records have something else there, and name no entity of the source"
            )

    def part(self, paths: Sequence[str]) -> None:
        """What tells several vectors of one entity apart."""
        guess = guess_part(self._matches, self._free(paths), record_id=self._sample.record_id)
        if guess is None:
            return
        self._notes.extend(guess.notes)
        if guess.path:
            self._take("part", guess.path)
            self._reasons["part"] = guess.reason

    def contents(self, paths: Sequence[str]) -> None:
        """Where the text is, and how it differs from what the source renders."""
        self._contents = guess_text(
            self._matches, self._free(paths), has_parts="part" in self._found
        )
        self._notes.extend(self._contents.notes)
        if self._contents.path:
            self._take("text", self._contents.path)
            self._reasons["text"] = self._contents.reason
        elif self._matches:
            self._missing["text"] = self._contents.reason

    def model(self, paths: Sequence[str], embedding: Embedding | None) -> None:
        """Of which model the vectors are."""
        sample = self._sample
        if embedding is None:
            self._missing["model"] = "the configured embedder is not there, so its identity is not"
            return
        dimension = self._dimension(embedding)
        if dimension not in (None, embedding.dimension):
            self._missing["model"] = (
                f"the vectors have {dimension} components, and {embedding.model} makes "
                f"{embedding.dimension}: set [embedder] name to the model that filled the "
                "collection"
            )
            return
        guess = guess_model(sample.records, self._free(paths), embedding.model)
        if guess.field is None:
            self._missing["model"] = guess.reason
        else:
            self._found["model"] = guess.field
            self._reasons["model"] = guess.reason

    def places(self) -> None:
        """The record's id, and where stamps go, if they have to be said."""
        sample = self._sample
        if sample.record_id and not sample.id_is_usual:
            self._take("id", sample.record_id)
            self._reasons["id"] = "it differs in all sampled records; no unique column does"
        owner = self._found.get("owner")
        places = sample.stamp_places
        if places is None or owner is None or len(places) == 1:
            return
        if len(owner.path) == 1 or owner.path[0] not in places:
            self._take("stamp", places[0])
            self._reasons["stamp"] = f"stamps can lie in {', '.join(places)}"

    def proposal(self) -> FieldsProposal:
        """What was found."""
        return FieldsProposal(
            sample=self._sample,
            found=self._found,
            fixed=self._fixed,
            reasons=self._reasons,
            missing=self._missing,
            notes=tuple(self._notes),
            renamed=self._renamed,
            texts=self._contents.templates,
            equal_texts=self._contents.equal,
            matched=len(self._matches),
            examples=tuple(map(self._example, self._matches[:MAX_EXAMPLES])),
        )

    def _dimension(self, embedding: Embedding) -> int | None:
        """Components of the vectors; of several vectors, those that the embedder can have made."""
        vectors = self._sample.vectors
        if not vectors:
            return self._sample.dimension
        fitting = [path for path, size in vectors.items() if size == embedding.dimension]
        chosen = next(iter(fitting or vectors))
        self._take("vector", chosen)
        self._reasons["vector"] = f"there are {', '.join(vectors)}"
        return vectors[chosen]

    def _example(self, match: Match) -> Example:
        entity = next(iter(match.entities.values()))
        return Example(
            record_id=match.record.get(self._sample.record_id, ""),
            owner_id=entity.owner_id,
            entity=f"{entity.kind}:{entity.entity_id}",
            text=match.record.get(self._contents.path, ""),
        )

    def _take(self, setting: str, path: str) -> None:
        self._found[setting] = Field(path=tuple(path.split(".")))

    def _free(self, paths: Sequence[str]) -> list[str]:
        """The paths that nothing has been found in yet."""
        taken = {_path(found) for found in self._found.values()}
        return [path for path in paths if path not in taken and path not in self._fixed]


def _path(found: Field) -> str:
    return ".".join(found.path)
