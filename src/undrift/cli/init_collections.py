"""What ``undrift init`` decides about the collections that other programs filled, and says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from undrift.cli.render_json import Object
from undrift.cli.render_text import snippet
from undrift.cli.streams import Line, Terminal, Tone
from undrift.errors import ConfigError, UndriftError

if TYPE_CHECKING:
    from undrift.adoption import Field
    from undrift.config import Settings
    from undrift.mapping import Mapping
    from undrift.proposal import Proposal
    from undrift.proposal.adopting import Adoptable
    from undrift.proposal.collections import Embedding, FieldsProposal

STAMP_COMMAND = "undrift init --stamp"
FROM_VARIABLE = "env:VECTOR_URL"


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """The collection that the configuration is about, if there is one.

    Attributes:
        chosen: None where undrift has a store of its own.
        others: collections that were seen, and not chosen.
        store_url: what the file has for ``store.url``.
        export: what a person has to run for ``VECTOR_URL`` to name the collection.
    """

    chosen: Adoptable | None = None
    others: Sequence[Adoptable] = ()
    store_url: str = FROM_VARIABLE
    export: str = ""

    @property
    def guess(self) -> FieldsProposal | None:
        """How the collection's records are to be read."""
        return None if self.chosen is None else self.chosen.guess

    @property
    def is_ready(self) -> bool:
        """Whether a check can begin, and no person has to complete anything."""
        return self.guess is not None and self.guess.fields is not None


def adopted(
    terminal: Terminal, settings: Settings, proposal: Proposal, *, wanted: str | None
) -> Adopted:
    """Look at the store, or where none is named at the source's own server, and choose.

    Args:
        wanted: what ``--collection`` names; None for the only one that can be adopted.

    Raises:
        ConfigError: there is no collection of that name, or there are several and none is named.
    """
    from undrift.proposal.adopting import SourceLook, look_at_collections

    source_url = settings.source_url or ""
    url = settings.store_url or (source_url if source_url.startswith("postgres") else "")
    found: list[Adoptable] = []
    try:
        if url:
            source = SourceLook(url=source_url, proposal=proposal, mapping_of=_mapping_of(settings))
            found = look_at_collections(url, source, embedding=_embedding(settings))
    except UndriftError as error:
        if wanted is not None:
            raise
        terminal.tell([Line(f"The vector store was not looked at: {error.what}")])
        return Adopted()
    chosen = _only_one(settings, url, found) if wanted is None else _named(wanted, found)
    if chosen is None:
        return Adopted(others=found)
    return _addressed(settings, url, chosen, [one for one in found if one is not chosen])


def file_text(settings: Settings, proposal: Proposal, adoption: Adopted | None = None) -> str:
    """What the file is to hold."""
    from undrift.proposal.toml import written

    return written(
        proposal,
        source_url="env:DATABASE_URL",
        store_url=FROM_VARIABLE if adoption is None else adoption.store_url,
        embedder=settings.embedder,
        namespace=settings.namespace,
        adopted=None if adoption is None else adoption.guess,
    )


# --- which one --------------------------------------------------------------------------------


def _only_one(settings: Settings, url: str, found: Sequence[Adoptable]) -> Adoptable | None:
    """The collection that is meant; None where undrift is to have a store of its own."""
    named = [one for one in found if not one.guess.sample.parameter]
    ready = [one for one in named or found if one.guess.fields is not None]
    if not ready:
        # Whom the address names is meant: what is missing stands in the file, to be completed.
        return named[0] if len(named) == 1 else None
    if not named and _has_own_store(settings, url):
        return None
    if len(ready) > 1:
        names = ", ".join(one.name for one in ready)
        raise ConfigError(
            "Several collections could be adopted",
            why=f"the vector store holds {names}, and each of them names users of the source.",
            fix=f"choose one, as in `undrift init --collection {ready[0].name}`, or give "
            "--no-adopt for a store of undrift's own",
        )
    return ready[0]


def _has_own_store(settings: Settings, url: str) -> bool:
    """Whether undrift has been at work here already, in a table of its own."""
    from undrift.stores import open_store

    try:
        with closing(open_store(url, namespace=settings.namespace)) as store:
            return store.describe().exists
    except UndriftError:
        return False


def _named(wanted: str, found: Sequence[Adoptable]) -> Adoptable:
    whole = [one for one in found if one.name == wanted]
    matching = whole or [one for one in found if one.name.rpartition(".")[2] == wanted]
    if len(matching) == 1:
        return matching[0]
    names = ", ".join(one.name for one in matching or found) or "none that another program filled"
    raise ConfigError(
        "There is no such collection" if not matching else "Several collections are called so",
        why=f"--collection names {wanted}, and the vector store holds {names}.",
        fix="correct --collection, or VECTOR_URL",
    )


def _addressed(
    settings: Settings, url: str, chosen: Adoptable, others: Sequence[Adoptable]
) -> Adopted:
    """*chosen* with what makes ``VECTOR_URL``, which beats the file, name it."""
    from undrift.proposal.adopting import address_of

    sample = chosen.guess.sample
    variable = "VECTOR_URL" if settings.store_url is not None else "DATABASE_URL"
    whole = address_of(url, sample)
    if settings.store_url is None and whole == sample.url:  # there is no password in it
        return Adopted(chosen=chosen, others=others, store_url=whole)
    added = whole[len(url) :]
    is_right = variable == "VECTOR_URL" and not added
    export = "" if is_right else f'export VECTOR_URL="${variable}{added}"'
    return Adopted(chosen=chosen, others=others, export=export)


def _mapping_of(settings: Settings) -> Callable[[Proposal], Mapping]:
    from undrift.config import mapping_in

    return lambda proposal: mapping_in(file_text(settings, proposal))


def _embedding(settings: Settings) -> Embedding | None:
    """What the configured embedder makes; None where it cannot be opened."""
    from undrift.embedders import close_embedder, open_embedder
    from undrift.proposal.collections import Embedding

    try:
        embedder = open_embedder(settings.embedder, settings.embedder_options)
        try:
            return Embedding(embedder.model, embedder.dimension)
        finally:
            close_embedder(embedder)
    except UndriftError:
        return None  # a check will say so


# --- the answer -------------------------------------------------------------------------------


def adopted_lines(adoption: Adopted) -> Iterator[Line]:
    """The guess, what it rests on, and what a person has to complete."""
    chosen = adoption.chosen
    if chosen is not None:
        yield from _guess_lines(chosen)
    for other in adoption.others:
        reason = _why_not(other.guess) or f"--collection {other.name} adopts it"
        yield Line(f"  - Also seen, and not adopted: {other.name} ({reason})")


def _guess_lines(chosen: Adoptable) -> Iterator[Line]:
    from undrift.proposal.collections import FIELD_NAMES

    guess = chosen.guess
    sample = guess.sample
    writer = f"filled as {sample.writer} does" if sample.writer else "filled by another program"
    stamped = "; undrift has stamped records in it" if sample.is_stamped else ""
    count = len(sample.records)
    records = f"{count} record{'' if count == 1 else 's'} sampled{stamped}"
    yield Line(f"🔍 {chosen.name} was {writer}; {records}", Tone.HEADING)
    for name in FIELD_NAMES:
        if name in guess.found:
            yield Line(f"  - {name}: {_shown(guess.found[name])} ({guess.reasons[name]})")
    for path, value in guess.fixed.items():
        yield Line(f"  - fixed: {path} = {value}")
    if sample.why_not:
        yield Line(f"  - It cannot be adopted as it is: {sample.why_not}", Tone.WARNING)
    else:
        for name, missing in guess.missing.items():
            yield Line(f"  - {name} is not known: {missing}", Tone.WARNING)
    for note in guess.notes:
        yield Line(f"  - Note: {note}", Tone.WARNING)
    for example in guess.examples:
        under = f", record {example.record_id}" if example.record_id else ""
        yield Line(f"  - For example user {example.owner_id}, {example.entity}{under}")
        if example.text:
            yield Line(f"    {snippet(example.text)}")


def _why_not(guess: FieldsProposal) -> str:
    if guess.sample.why_not or guess.fields is not None:
        return guess.sample.why_not
    return "; ".join(
        f"{name}: {guess.missing[name]}"
        for name in ("owner", "entity_id", "kind")
        if name in guess.missing
    )


def _shown(found: Field) -> str:
    return ".".join(found.path) if found.value is None else found.value


def next_lines(adoption: Adopted, following: str, config: str) -> Iterator[Line]:
    """The commands that come next.

    Args:
        config: the option that names the file, if it has to be given.
    """
    if adoption.export:
        yield Line(f"Next: {adoption.export}")
        following = f"Then: {following}"
    else:
        following = f"Next: {following}"
    if adoption.chosen is not None and not adoption.is_ready:
        yield Line("⚠️ Complete [store.fields] in the file first", Tone.WARNING)
    yield Line(following)
    if adoption.chosen is not None:
        yield Line(f"Then: {STAMP_COMMAND}{config}")


def adopted_object(adoption: Adopted) -> Object:
    """The collection, as a program reads it."""
    from undrift.proposal.collections import FIELD_NAMES

    chosen = adoption.chosen
    if chosen is None:
        return {}
    guess = chosen.guess
    sample = guess.sample
    return {
        "name": chosen.name,
        "location": sample.location,
        "writer": sample.writer or None,
        "records": len(sample.records),
        "is_ready": adoption.is_ready,
        "is_stamped": sample.is_stamped,
        "fields": {n: _object(guess.found[n]) for n in FIELD_NAMES if n in guess.found},
        "fixed": dict(guess.fixed),
        "reasons": dict(guess.reasons),
        "missing": dict(guess.missing),
        "why_not": sample.why_not or None,
        "notes": list(guess.notes),
        "examples": [
            {
                "owner_id": example.owner_id,
                "id": example.entity,
                "record_id": example.record_id,
                "text": snippet(example.text),
            }
            for example in guess.examples
        ],
        "export": adoption.export or None,
    }


def _object(found: Field) -> object:
    return ".".join(found.path) if found.value is None else {"value": found.value}
