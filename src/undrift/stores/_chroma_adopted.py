"""The vector store in a Chroma collection that another program filled.

The other program's fields stay what they are. A record whose text changed is written under an id of
undrift's own, takes over those fields, and the old one is deleted behind it; a record whose text is
still the source's gets a stamp where it lies. Tombstones and claims lie in a collection beside, so
that the other program neither finds nor counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from undrift.adoption import Adoption, StoreFields
from undrift.errors import ConfigError
from undrift.ports import Capabilities, StoreInfo
from undrift.stores._chroma_address import Address
from undrift.stores._chroma_adopted_records import AdoptedRecords, adopted_records, require_fields
from undrift.stores._chroma_api import Chroma, Collection
from undrift.stores._chroma_ledger import Ledger
from undrift.stores._chroma_reading import Opened
from undrift.stores.chroma import ChromaStore

CHANGE_DIMENSION = (
    "the collection was filled with vectors of another model: set embedder.name in undrift.toml to "
    "the one that filled it"
)


class AdoptedChromaStore(ChromaStore):
    """The `ClaimableStore` over a collection of somebody else's, whatever distance it measures.

    A search compares an owner's vectors itself, by cosine; the other program's searches go on as
    the collection was created.

    Args:
        chroma: the server, or what else holds collections.
        namespace: whose stamps are its own.
        fields: where the records hold what.
        why_not_many_processes: the reason where only one process may use it at once.
    """

    change_dimension = CHANGE_DIMENSION

    def __init__(
        self,
        chroma: Chroma,
        address: Address,
        *,
        namespace: str,
        fields: StoreFields,
        why_not_many_processes: str = "",
    ) -> None:
        super().__init__(
            chroma, address, namespace=namespace, why_not_many_processes=why_not_many_processes
        )
        self._fields = fields
        self._codec: AdoptedRecords | None = None

    @property
    def capabilities(self) -> Capabilities:
        """As undrift's own collections; records of another program."""
        return replace(super().capabilities, adoption=Adoption(fields=self._fields))

    def describe(self) -> StoreInfo:
        """Say what is there.

        Raises:
            ConfigError: there is no such collection, or it is not as the fields say.
        """
        self._codec = None  # the collection may be another one by now
        opened = self._find()
        require_fields(opened.records, self._fields, location=self._address.location)
        return super().describe()

    def ddl(self, dimension: int) -> Sequence[str]:
        """What `create` makes: only the collection beside."""
        return super().ddl(dimension)[1:]

    def create(self, dimension: int) -> None:
        """Create the collection beside, for tombstones and claims."""
        self._prepared()

    def _find(self) -> Opened:
        """The collection, and the one beside it as far as it is there.

        Raises:
            ConfigError: there is no such collection.
        """
        location = self._address.location
        records = self._chroma.find(self._address.collection)
        if records is None:
            raise ConfigError(
                "There is no such collection",
                why=f"[store.fields] says that another program filled {location}, and there is no "
                "such collection.",
                fix="correct the collection's name in VECTOR_URL, or leave [store.fields] out of "
                "undrift.toml and run `undrift sync --all`, which creates one of undrift's own",
            )
        if self._codec is None:
            self._codec = adopted_records(records, self._fields, namespace=self._namespace)
        return Opened(records, self._found_ledger(), self._codec)

    def _prepared(self) -> tuple[Opened, Ledger]:
        """What is written into; the collection beside is created when it is first needed."""
        opened = self._find()
        if opened.ledger is None:
            self._chroma.create(self._address.ledger)
            opened = opened._replace(ledger=self._found_ledger())
        assert opened.ledger is not None, "it has just been created"
        return opened, opened.ledger

    def _found_ledger(self) -> Ledger | None:
        found: Collection | None = self._chroma.find(self._address.ledger)
        return None if found is None else Ledger(found, self._namespace)
