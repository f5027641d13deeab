"""The collections at an address, each with the mapping that both databases suggest. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from undrift.errors import ConfigError, InvalidDocument, UnsupportedError
from undrift.mapping import KIND_DEFAULTS
from undrift.mapping import Mapping as SourceMapping
from undrift.ports import OwnerContent, Source
from undrift.proposal.collections import (
    Embedding,
    FieldsProposal,
    SourceEntity,
    guess_fields,
    owner_values,
)
from undrift.proposal.model import Proposal, ProposedEntity
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.stores import open_store
from undrift.stores.collections import CollectionSample, sample_collections

MAX_SAMPLED_OWNERS = 200
_ASKED_OWNERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoptable:
    """A collection of another program.

    Attributes:
        guess: how its records are to be read.
        proposal: the source's mapping, worded as the collection is.
    """

    guess: FieldsProposal
    proposal: Proposal

    @property
    def name(self) -> str:
        """What people call it."""
        return self.guess.sample.name or self.guess.sample.location


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLook:
    """How the source is read.

    Attributes:
        mapping_of: what a proposal comes to.
    """

    url: str
    proposal: Proposal
    mapping_of: Callable[[Proposal], SourceMapping]


def look_at_collections(
    url: str, source: SourceLook, *, embedding: Embedding | None
) -> list[Adoptable]:
    """Every collection at *url* that is not undrift's own nor the source itself.

    Args:
        url: the store's, with its password.
        embedding: what the configured embedder makes; None where nobody knows.

    Raises:
        ConfigError: the store's address or login is wrong, or a driver is missing.
        UnknownStateError: a side cannot be read.
    """
    tables = set(source.proposal.tables)
    samples = [sample for sample in sample_collections(url) if not _is_source(sample, tables)]
    return [_approved(url, _guessed(sample, source, embedding)) for sample in samples]


def address_of(url: str, sample: CollectionSample) -> str:
    """*url* as it names the collection."""
    if not sample.parameter:
        return url
    has_query = "?" in url.rpartition("@")[2]
    return f"{url}{'&' if has_query else '?'}{sample.parameter}"


def _is_source(sample: CollectionSample, tables: Collection[str]) -> bool:
    """Whether the source's own rows carry vectors; a collection within a table is no such thing."""
    names = (sample.name, sample.name.partition(".")[2])
    return not sample.fixed and any(name in tables for name in names)


def _guessed(sample: CollectionSample, look: SourceLook, embedding: Embedding | None) -> Adoptable:
    mapping = look.mapping_of(look.proposal)
    renderer = Renderer(mapping)
    with closing(open_source(look.url, mapping, renderer.fields)) as source:
        owners = _owners(sample, source)
        contents = list(source.read(owners[:MAX_SAMPLED_OWNERS]))
    found = frozenset(owners)
    guess = guess_fields(sample, found, _entities(contents, renderer), embedding=embedding)
    if guess.renamed or guess.texts:
        reworded = _reworded(look.proposal, guess)
        again = Renderer(look.mapping_of(reworded))
        with closing(open_source(look.url, again.mapping, again.fields)) as source:
            contents = list(source.read(owners[:MAX_SAMPLED_OWNERS]))
        better = guess_fields(sample, found, _entities(contents, again), embedding=embedding)
        if not better.renamed and better.equal_texts >= guess.equal_texts:
            return Adoptable(guess=_told(better, guess), proposal=reworded)
    return Adoptable(guess=guess, proposal=look.proposal)


def _owners(sample: CollectionSample, source: Source) -> list[str]:
    """The sample's values that are users of the source, the most frequent first."""
    values = owner_values(sample)
    present: set[str] = set()
    for start in range(0, len(values), _ASKED_OWNERS):
        present |= source.present(values[start : start + _ASKED_OWNERS])
    return [value for value in values if value in present]


def _entities(contents: Sequence[OwnerContent], renderer: Renderer) -> Iterator[SourceEntity]:
    for content in contents:
        try:
            wanted = renderer.render(content)
            elements = renderer.identify(content)
        except InvalidDocument:
            continue  # a check will say so
        for spec, of_spec in zip(renderer.mapping.entities, elements, strict=True):
            for element in of_spec:
                entity = wanted.entities.get((spec.kind, element.entity_id))
                if entity is not None:
                    yield SourceEntity(
                        owner_id=content.owner_id,
                        kind=spec.kind,
                        entity_id=element.entity_id,
                        text=entity.text,
                        fields=_words(element.fields),
                    )


def _words(fields: Mapping[str, object]) -> dict[str, str]:
    return {
        name: str(value).strip()
        for name, value in fields.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }


def _reworded(proposal: Proposal, guess: FieldsProposal) -> Proposal:
    """*proposal* with the collection's words for kinds, and its wording of their texts."""
    entities = tuple(_entity(entity, guess) for entity in proposal.entities)
    return replace(proposal, entities=entities)


def _entity(entity: ProposedEntity, guess: FieldsProposal) -> ProposedEntity:
    kind = guess.renamed.get(entity.kind, entity.kind)
    default = KIND_DEFAULTS.get(entity.kind)
    text = guess.texts.get(entity.kind, entity.text)
    if kind == entity.kind or default is None:
        return replace(entity, kind=kind, text=text)
    # Under another name nothing is known of the kind but what the file says.
    return replace(
        entity,
        kind=kind,
        key=default.key if entity.key is None else entity.key,
        text=default.text if text is None else text,
        metadata=default.metadata if entity.metadata is None else entity.metadata,
        aliases=default.aliases if entity.aliases is None else entity.aliases,
    )


def _told(better: FieldsProposal, guess: FieldsProposal) -> FieldsProposal:
    """*better* with what was changed in the source's mapping."""
    notes = [
        f"kind {kind} is called {word}, as the records call it"
        for kind, word in sorted(guess.renamed.items())
    ]
    notes += [
        f"the text of kind {guess.renamed.get(kind, kind)} is worded as the stored texts are"
        for kind in sorted(guess.texts)
    ]
    return replace(better, notes=(*notes, *better.notes))


def _approved(url: str, adoptable: Adoptable) -> Adoptable:
    """*adoptable* if the store can read it by its fields, else with the reason why not."""
    guess = adoptable.guess
    if guess.fields is None:
        return adoptable
    try:
        with closing(open_store(address_of(url, guess.sample), fields=guess.fields)) as store:
            store.describe()
    except (ConfigError, UnsupportedError) as error:
        sample = replace(guess.sample, why_not=error.why.rstrip("."))
        return replace(adoptable, guess=replace(guess, sample=sample))
    return adoptable
