"""Digests: what one side holds of an owner in 32 bytes, computed where it lies.

Two sides that agree need not be read to see it. The store's digest is of the records themselves and
can be computed from entities too, so that the two compare. The source's is of the raw rows; what
they render to is remembered, see `undrift.memory`, under that very digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from undrift.model import Stamp
from undrift.ports import OwnerContent, Source, VectorStore

FORMAT = "1"
"""Grows whenever a digest is computed in another way; what was remembered before counts no more."""

FINGERPRINT_CHARACTERS = 32
"""Of every fingerprint that undrift writes. A record with another one is amiss."""


class RecordsDigest(NamedTuple):
    """What a store holds of one owner, in the namespace and of the configured kinds.

    Attributes:
        records: how many.
        digest: see `records_digest`; a tombstone is no record.
        amiss: of them, how many carry another model, no vector, or no fingerprint of undrift's.
            The digest says nothing of that, so with any the owner is to be read.
        unmanaged: the owner's other records: outside of the namespace, or of other kinds.
    """

    records: int
    digest: bytes
    amiss: int
    unmanaged: int


def records_digest(records: Iterable[tuple[str, str, str]]) -> bytes:
    """The digest of records by their ``(fingerprint, kind, entity_id)``, in any order.

    SHA-256 over the UTF-8 of ``fingerprint|kind:LENGTH:entity_id`` of each in order of the
    fingerprints, by code point, with nothing in between. LENGTH is the id's, in code points. As a
    fingerprint has 32 characters and a kind no colon, nothing else reads the same.
    """
    return items_digest([record_item(*record) for record in records])


def record_item(fingerprint: str, kind: str, entity_id: str) -> str:
    """What `records_digest` hashes of one record."""
    return f"{fingerprint}|{kind}:{len(entity_id)}:{entity_id}"


def items_digest(items: list[str]) -> bytes:
    """As `records_digest`, by `record_item` of each; sorts *items*."""
    items.sort()
    return hashlib.sha256("".join(items).encode("utf-8", "surrogatepass")).digest()


NO_RECORDS = RecordsDigest(0, records_digest([]), 0, 0)
"""Of an owner whom the store does not have."""


def wanted_digest(fingerprints: Mapping[tuple[str, str], str]) -> bytes:
    """The digest of the records that the source wants.

    Args:
        fingerprints: by ``(kind, entity_id)``, see `Outline`.
    """
    # As `records_digest`, without a tuple for each: this runs once for every entity of a fleet.
    return items_digest(
        [
            f"{print_}|{kind}:{len(entity_id)}:{entity_id}"
            for (kind, entity_id), print_ in fingerprints.items()
        ]
    )


def stamps_digest(stamps: Sequence[Stamp], *, model: str, kinds: Collection[str]) -> RecordsDigest:
    """The digest of what a store was read to hold of one owner.

    Args:
        stamps: all of the owner's in the namespace; those that are listed twice make it differ.
        model: the identity that current embeddings carry.
        kinds: the configured ones.
    """
    own = [stamp for stamp in stamps if stamp.kind in kinds]
    return RecordsDigest(
        records=len(own),
        digest=records_digest((stamp.fingerprint, stamp.kind, stamp.entity_id) for stamp in own),
        amiss=sum(
            stamp.model != model or len(stamp.fingerprint) != FINGERPRINT_CHARACTERS
            for stamp in own
        ),
        unmanaged=len(stamps) - len(own),
    )


@runtime_checkable
class DigestingStore(VectorStore, Protocol):
    """A store that computes the digests itself."""

    def digests(
        self, owners: Sequence[str], *, model: str, kinds: Collection[str]
    ) -> Mapping[str, RecordsDigest]:
        """The digest of each of *owners*, all from one snapshot, computed anew by every call.

        Returns:
            By owner; those of whom there is no record at all are left out.

        Raises:
            StoreUnavailable: it could not be read to the end.
        """


@runtime_checkable
class PagedStore(Protocol):
    """A store that says how many owners it is best asked about at once."""

    @property
    def page_owners(self) -> int:
        """Owners in one call of `DigestingStore.digests`; fewer cost more for each."""


@runtime_checkable
class DigestingSource(Source, Protocol):
    """A source that computes digests of its raw content itself."""

    def digests(self, owners: Sequence[str]) -> Mapping[str, bytes]:
        """A digest of the raw content of each of *owners*, all from one snapshot.

        Equal digests are of equal content: whatever rendering reads is in them. Computed anew by
        every call.

        Returns:
            By owner; those whom the source does not have are left out.

        Raises:
            SourceUnavailable: the read broke off.
            IncompleteRead: the role is shown only part of the rows.
        """

    def read_digested(self, owners: Sequence[str]) -> Iterator[tuple[OwnerContent, bytes]]:
        """As `read`, each owner with its digest, all from one snapshot."""
