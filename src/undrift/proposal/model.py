"""What a proposal consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from undrift.mapping import DocumentTable


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedEntity:
    """An ``[[entity]]`` to be written. What is None is left to the kind's defaults.

    Attributes:
        seen: how much of it the sample held, for people.
        left_out: fields that no template reads, each with the reason.
        where: a condition that the table's columns suggest; a person decides.
    """

    kind: str
    path: str | None = None
    table: str | None = None
    owner: str | None = None
    id: str | None = None
    key: tuple[str, ...] | None = None
    text: str | None = None
    metadata: tuple[str, ...] | None = None
    aliases: Mapping[str, tuple[str, ...]] | None = None
    seen: str = ""
    left_out: tuple[str, ...] = ()
    where: str = ""

    @property
    def place(self) -> str:
        """Where it is found."""
        return self.table or self.path or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A mapping for a database, and why it is this one.

    Attributes:
        documents: the table with a document per owner; None where every entity has a table.
        chosen: why this layout, a sentence without a full stop.
        notes: what a person should know of it, such as lists that were left out.
    """

    documents: DocumentTable | None
    entities: tuple[ProposedEntity, ...]
    chosen: str
    notes: tuple[str, ...] = field(default=())

    @property
    def tables(self) -> tuple[str, ...]:
        """Every table it reads, each once."""
        if self.documents is not None:
            return (self.documents.table,)
        return tuple(dict.fromkeys(entity.table or "" for entity in self.entities))
