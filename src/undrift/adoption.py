"""Collections that another program filled: where in their records a stamp's parts are found.

A record is managed once its fields name an owner, a kind and an entity. Until undrift has put a
stamp beside those fields, such a record says nothing of its content but its text, if that is
stored: its stamp has an empty fingerprint and the version 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

UNSTATED_MODEL = "?"
"""The model of a record that has a vector, but nothing says of which model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Where one part of a stamp is found in somebody else's record.

    Attributes:
        path: a field's or column's name, and the keys below it; empty for a constant.
        value: what is the same for all records; None where it is read.
    """

    path: tuple[str, ...] = ()
    value: str | None = None

    def __post_init__(self) -> None:
        assert bool(self.path) == (self.value is None)

    def __str__(self) -> str:
        return ".".join(self.path) if self.value is None else repr(self.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFields:
    """Where the parts of a stamp are found in a collection's records, ``[store.fields]``.

    Attributes:
        owner: the owner's id.
        kind: the entity's kind; mostly a constant.
        entity_id: the entity's id, as the source has it.
        part: tells several vectors of one entity apart, such as the number of a chunk.
        text: the text that was embedded.
        model: the identity of the embedding; without it nobody knows which one filled the
            collection.
        id: the record's own id, where there is a choice; in a table, else the primary key.
        vector: the vector, where there are several.
        stamp: where undrift keeps its stamp, a column or field of JSON; None for the usual place.
        fixed: what every managed record has, by dotted path, and every new one gets: for tables
            that hold several collections.
    """

    owner: Field
    kind: Field
    entity_id: Field
    part: Field | None = None
    text: Field | None = None
    model: Field | None = None
    id: Field | None = None
    vector: Field | None = None
    stamp: Field | None = None
    fixed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """How a store holds records of another program.

    Attributes:
        fields: where their parts are found.
    """

    fields: StoreFields

    @property
    def has_parts(self) -> bool:
        """Whether several records may stand for one entity."""
        return self.fields.part is not None
