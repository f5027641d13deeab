"""How records lie in a collection: undrift's own, or those of another program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from undrift.model import Stamp
from undrift.ports import Match, Record
from undrift.stores._chroma_api import Collection, Put, Row, Where


class Standing(NamedTuple):
    """What lies under a vector_id, as a record or as a tombstone.

    Attributes:
        namespace: whose it is; empty for a record that is not managed.
        entity: owner, kind and id.
    """

    namespace: str
    version: int
    entity: tuple[str, str, str]


class Codec(Protocol):
    """What a record's fields mean, and which fields a record is given."""

    @property
    def needs_documents(self) -> bool:
        """Whether a record's stamp can only be told with its document."""

    def of_owners(self, owners: Sequence[str]) -> Where:
        """Lets records of *owners* pass, of whom there must be one; others may pass too."""

    def of_managed(self) -> Where | None:
        """Lets every managed record pass; others may pass too."""

    def of_unmanaged(self) -> Where | None:
        """Lets every record pass that is not managed; None where no filter tells."""

    def of_searched(self, model: str, kinds: Sequence[str] | None) -> Sequence[Where] | None:
        """Together they let just the managed records of *model* and *kinds* pass; None as above."""

    def owner_of(self, row: Row) -> str:
        """Whose record it is; empty where it names nobody."""

    def is_managed(self, row: Row) -> bool:
        """Whether it is a record of the namespace."""

    def stamp_of(self, row: Row) -> Stamp:
        """Its stamp, whatever owner or namespace it claims; what it lacks is empty."""

    def match_of(self, row: Row, score: float) -> Match:
        """What a search found."""

    def standing_of(self, row: Row) -> Standing:
        """What it means to a write under its id."""

    def is_meant(self, record: Record, row: Row) -> bool:
        """Whether the vector of *row* is that of the text and the model of *record*."""

    def puts_of(
        self, records: Sequence[Record], there: Mapping[str, Row], collection: Collection
    ) -> list[Put]:
        """*records* as they are to be stored, vectors and all.

        Args:
            there: what lies under their ids.
        """

    def restamps_of(self, records: Sequence[Record], there: Mapping[str, Row]) -> list[Put]:
        """What is to be changed in *there*, where the vectors stay."""
