"""Samples of a Chroma collection that another program may have filled."""

from __future__ import annotations

from undrift.stores._adopted import STAMP_KEY
from undrift.stores._chroma_address import Address
from undrift.stores._chroma_adopted_records import DOCUMENT
from undrift.stores._chroma_api import Chroma, Row
from undrift.stores._chroma_records import FIELDS
from undrift.stores.collections import CollectionSample, flattened

_STAMP = f"{STAMP_KEY}_"


def sample_of(chroma: Chroma, address: Address, url: str, limit: int) -> CollectionSample | None:
    """At most *limit* records of the collection; None where there is none, or it is undrift's own.

    Args:
        url: its address for ``VECTOR_URL``, without a key.
    """
    records = chroma.find(address.collection)
    if records is None:
        return None
    rows = records.rows(limit=limit, with_documents=True)
    is_marked = chroma.find(address.ledger) is not None
    if is_marked and (not rows or any(row.metadata.keys() >= set(FIELDS) for row in rows)):
        return None
    return CollectionSample(
        location=address.location,
        url=url,
        records=[_fields_of(row) for row in rows],
        dimension=records.dimension,
        is_stamped=any(name.startswith(_STAMP) for row in rows for name in row.metadata),
    )


def _fields_of(row: Row) -> dict[str, str]:
    """What *row* shows but for stamps, by the paths that ``[store.fields]`` has for it."""
    metadata = {k: v for k, v in row.metadata.items() if not k.startswith(_STAMP)}
    return flattened(metadata | ({DOCUMENT: row.document} if row.document else {}))
