"""Some rows of a LanceDB table that another program may have filled."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from undrift.stores import _lance_layout as layout
from undrift.stores._lance_address import Address
from undrift.stores._lance_adopted_ledger import SUFFIX
from undrift.stores._lance_adopted_rows import vector_columns
from undrift.stores._lance_database import Database
from undrift.stores._lance_errors import mapped_errors
from undrift.stores.collections import CollectionSample, flattened

# By the columns that they write.
_WRITERS = {
    "LlamaIndex": {"id", "doc_id", "vector", "text", "metadata"},
    "LangChain": {"id", "vector", "text", "metadata"},
}


def sample_table(address: Address, limit: int) -> CollectionSample | None:
    """At most *limit* rows; None where there is no table, or it is undrift's own."""
    database = Database(address)
    table = database.find_any()
    if table is None or not layout.why_unusable(table.schema):
        return None
    vectors = vector_columns(table.schema)
    plain = [field.name for field in table.schema if not pa.types.is_fixed_size_list(field.type)]
    with mapped_errors(database.location):
        rows = table.search().select(plain).limit(limit).to_arrow().to_pylist()
    beside = Database(replace(address, table=address.table + SUFFIX))
    names, is_one = set(table.schema.names), len(vectors) == 1
    return CollectionSample(
        location=address.location,
        url=address.location,
        writer=next((writer for writer, marks in _WRITERS.items() if marks <= names), ""),
        records=[flattened(row) for row in rows],
        record_id=_record_id(table.schema),
        id_is_usual="id" in table.schema.names,
        vectors={} if is_one else dict(vectors),
        dimension=next(iter(vectors.values())) if is_one else None,
        is_stamped=beside.find_any() is not None,
        why_not="" if vectors else "it has no column of float32 vectors of one length",
    )


def _record_id(schema: pa.Schema) -> str:
    """The usual column of ids, else one whose name ends as an id's; empty where none does."""
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    if "id" in texts:
        return "id"
    return next((name for name in texts if name.lower().endswith(("_id", " id", "uuid"))), "")
