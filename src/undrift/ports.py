"""The three doors to the world: a source, a vector store, an embedder.

The core speaks to these protocols only; adapters in `undrift.sources`, `undrift.stores` and
`undrift.embedders` implement them and translate their drivers' errors. Ports are synchronous; an
adapter is safe to call from several threads at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

from undrift.adoption import Adoption
from undrift.model import Stamp

if TYPE_CHECKING:  # the state and its values, which need no numbers, come through here too
    import numpy as np
    from numpy.typing import NDArray

Vectors: TypeAlias = "NDArray[np.float32]"
Purpose = Literal["document", "query"]

MAX_VERSION = 2**52
"""Versions stay below this: range filters of some stores compute in 64-bit floats."""


# --- source -----------------------------------------------------------------------------------


class Element:
    """One place in an owner's content that an entity is made from.

    A source fills in the first two; rendering sets the rest, so that children can refer to it.

    Attributes:
        fields: the element's own fields; a scalar element is ``{"value": scalar}``.
        parent: the nearest enclosing element, such as the experience around a project.
        entity_id: the element's id within its kind, given or minted.
        view: what ``parent`` shows of this element in a template.
    """

    __slots__ = ("entity_id", "fields", "parent", "view")

    def __init__(self, fields: Mapping[str, object], parent: Element | None = None) -> None:
        self.fields = fields
        self.parent = parent
        self.entity_id = ""
        self.view: dict[str, object] | None = None


class OwnerContent(Protocol):
    """What a complete read of the source shows for one owner, not yet rendered."""

    @property
    def owner_id(self) -> str:
        """The owner, as the row spells it."""

    @property
    def digest(self) -> bytes:
        """A hash of the raw content; equal digests render to equal entities."""

    def elements(self) -> Sequence[Sequence[Element]]:
        """The elements, one sequence for each configured entity, in configuration order.

        Raises:
            InvalidDocument: the content is not what the mapping describes.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """Where the source is, for people.

    Attributes:
        location: its address without a password.
        layout: the tables read, such as ``profiles(user_id, filtered_data)``.
        is_standby: a replica that may lag; it serves ``check`` only.
        identity: tells this database from every other, a standby or another spelling of its address
            does not change it; empty if nothing does.
    """

    location: str
    layout: str
    is_standby: bool = False
    identity: str = ""


class Source(Protocol):
    """The relational database, read-only: the truth."""

    def describe(self) -> SourceInfo:
        """Connect, check that every configured table and column is there, and say what is read.

        Raises:
            ConfigError: wrong address, password, table or column.
            SourceUnavailable: the server cannot be reached.
        """

    def owner_pages(self, page_owners: int, after: str | None = None) -> Iterator[Sequence[str]]:
        """Yield every owner, in pages of at most *page_owners*, each read in a short transaction.

        Order:
            The owner column's own order, ascending, starting behind *after*.

        Raises:
            SourceUnavailable: a page failed; what was not yielded was not seen.
        """

    def present(self, owners: Sequence[str]) -> frozenset[str]:
        """Which of *owners* the source has, without reading their content.

        Raises:
            SourceUnavailable: the read broke off.
            IncompleteRead: the role is shown only part of the rows.
        """

    def read(self, owners: Sequence[str]) -> Iterator[OwnerContent]:
        """Yield the content of those *owners* that the source has, all from one snapshot.

        Order:
            Unspecified, each owner once with all of its rows. An owner that is not yielded is
            absent only if the iterator ended normally.

        Raises:
            SourceUnavailable: the read broke off.
            IncompleteRead: the role is shown only part of the rows.
        """

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""


class DocumentEditor(Protocol):
    """Changes owners' documents in the source. Only what is asked for by name comes here."""

    def edit(self, owner_id: str, change: Callable[[str], str]) -> None:
        """Replace the owner's document by what *change* makes of it, under the row's lock.

        Args:
            change: from the document as the row holds it to the new one, both JSON. Returning what
                it was given leaves the row alone; whatever it raises does too, and is passed on.

        Raises:
            OwnerNotFound: the source has no row of this owner.
            UnsupportedError: the owner has several rows, or the table cannot be written.
            ConfigError: the role may not write.
            TransientError: another program holds the row, or the connection broke; nothing was
                written.
            SourceUnavailable: the server cannot be reached; nothing was written.
            UnknownStateError: the connection broke at the commit, and nobody can tell what became
                of it.
            WriteFailed: the database refused the new document; nothing was written.

        Safety:
            Concurrent edits of one owner follow each other, none is lost. *change* runs once.
        """

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""


@runtime_checkable
class EditableSource(Source, Protocol):
    """A source whose documents can be edited."""

    def editor(self) -> DocumentEditor:
        """An editor of this source's documents, with connections of its own."""


# --- vector store -----------------------------------------------------------------------------


class StoreClass(StrEnum):
    """How strongly a store can refuse a late write."""

    TRANSACTIONAL = "T"
    CONDITIONAL = "C"
    NEITHER = "N"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an adapter promises; the contract suite proves it.

    Attributes:
        store_class: how writes are fenced.
        atomic_records: records that one ``publish`` may hold and still be all or nothing;
            0 if the store has no transactions.
        many_processes: several processes may use the store at once.
        exact_owner_search: a search returns the true nearest records of the owner.
        exact_vectors: a vector is stored bit for bit; else it is rounded, or scaled to length 1.
        adoption: set where records are managed that another program wrote.
        why_not: for each promise that is not made, the reason.
    """

    store_class: StoreClass
    atomic_records: int
    many_processes: bool = True
    exact_owner_search: bool = True
    exact_vectors: bool = True
    adoption: Adoption | None = None
    why_not: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreInfo:
    """What is found at the store's address.

    Attributes:
        location: its address without a password.
        exists: False only when it certainly has not been created yet.
        dimension: components per vector, None while nothing fixes it.
        change_dimension: what a person does to store vectors of another dimension.
    """

    location: str
    exists: bool
    dimension: int | None
    change_dimension: str


class Record(NamedTuple):
    """One conditional write.

    Attributes:
        stamp: identity, content hashes and the version the record will carry.
        text: the text that is embedded.
        metadata_json: canonical JSON object.
        embedding: float32 of shape ``(dimension,)``, or None to keep the stored vector; then the
            write applies only where the stored text_hash and model are the stamp's.
    """

    stamp: Stamp
    text: str
    metadata_json: str
    embedding: Vectors | None


class Deletion(NamedTuple):
    """One conditional delete: applies only where owner and version are still these."""

    owner_id: str
    vector_id: str
    version: int


class Match(NamedTuple):
    """One record that a search found, with its cosine similarity."""

    stamp: Stamp
    score: float
    text: str
    metadata_json: str


class VectorStore(Protocol):
    """Where the vectors live.

    Every call names owners, or ids that were read from those owners' rows; no call can reach
    another owner's records by a pattern or a prefix.
    """

    @property
    def namespace(self) -> str:
        """The namespace whose records are managed; all other records are never touched."""

    @property
    def capabilities(self) -> Capabilities:
        """What this adapter promises."""

    def describe(self) -> StoreInfo:
        """Say what is there; creates nothing.

        Raises:
            ConfigError: wrong address, password or layout.
            StoreUnavailable: it cannot be told whether the store exists.
        """

    def ddl(self, dimension: int) -> Sequence[str]:
        """The statements that ``create`` runs, for people; empty where there are none."""

    def create(self, dimension: int) -> None:
        """Create what is missing. Idempotent, and safe when two processes do it at once."""

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """Yield every stamp of *owners* in the namespace, whatever their number.

        A record whose vector is gone, though its other fields are there, has an empty ``model``:
        no search finds it, so it must not pass for what it was.

        Order:
            Unspecified. Duplicates of one entity are all yielded.

        Raises:
            StoreUnavailable: the enumeration broke off; what was yielded is not all.
        """

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """Yield the stamps found under *vector_ids*, whatever owner or namespace they claim.

        Fields that such a record lacks are empty strings, a lacking version is 0.
        """

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* outside the namespace; owners with none are left out."""

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """At most *limit* distinct owners of managed records, ascending, behind *after*.

        Order:
            The store's own; only good to continue from the last one returned.
        """

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Write *writes* where the stored version is older or absent, then delete *deletes*.

        A refused write or delete is no error; the caller reads back. A record under a write's
        vector_id that belongs to another namespace is left alone. Several writes for one vector_id
        in a batch: the highest version wins.

        Safety:
            Idempotent. All or nothing up to ``capabilities.atomic_records`` records; beyond that
            writes are applied before deletes. When this returns, the result is durable and visible
            to every later read.

        Raises:
            WriteFailed: the store refused the batch as such, such as a NUL in an id; nothing is
                written.
            StoreUnavailable: no definite answer; the batch may or may not have been applied.
        """

    def search(
        self,
        owner_id: str,
        vector: Vectors,
        *,
        model: str,
        kinds: Sequence[str] | None,
        limit: int,
    ) -> Sequence[Match]:
        """The records of *owner_id* and *model* nearest to *vector* by cosine, best first.

        Args:
            vector: float32 of shape ``(dimension,)``.
            kinds: restrict to these kinds; None means all.
        """

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""


# --- embedder ---------------------------------------------------------------------------------


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors."""

    @property
    def model(self) -> str:
        """The embedding's identity; changes whenever equal text may give another vector."""

    @property
    def dimension(self) -> int:
        """Components per vector."""

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed *texts*.

        Shape:
            ``(len(texts), dimension)`` float32, one row for each text, in the given order.

        Raises:
            EmbeddingFailed: no vectors for this batch.
            ConfigError: the model is not installed.
        """

    def count_truncated(self, texts: Sequence[str]) -> int:
        """How many of *texts* are longer than the model reads."""
