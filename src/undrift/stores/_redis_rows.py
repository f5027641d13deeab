"""Records as the Redis store's hashes hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from undrift.model import Stamp

STAMP_FIELDS = (
    "namespace",
    "owner_id",
    "kind",
    "entity_id",
    "fingerprint",
    "text_hash",
    "model",
    "version",
    "deleted",
)

_VERSION_DIGITS = 16


class Row(NamedTuple):
    """A hash without its vector and its text; what it lacks is empty.

    Attributes:
        embedding_bytes: the length of what is stored as its vector; 0 if there is none.
    """

    vector_id: str
    namespace: str
    owner_id: str
    kind: str
    entity_id: str
    fingerprint: str
    text_hash: str
    model: str
    version: int
    is_tombstone: bool
    embedding_bytes: int

    def stamp(self, vector_bytes: int) -> Stamp:
        """Its stamp; without a vector of *vector_bytes* it has no model."""
        stamp = Stamp._make(self[:9])
        return stamp if self.embedding_bytes == vector_bytes else stamp._replace(model="")


def rows_of(vector_ids: Sequence[str], answer: object) -> list[Row]:
    """The rows of *vector_ids* that the answer of the script `ROWS` holds."""
    assert isinstance(answer, bytes)
    try:
        found = orjson.loads(answer)
    except orjson.JSONDecodeError:  # somebody else's bytes, which are no UTF-8
        found = json.loads(answer.decode(errors="replace"))
    return [
        _row(vector_id, values)
        for vector_id, values in zip(vector_ids, found, strict=True)
        if values
    ]


def row_of(vector_id: str, fields: dict[bytes, bytes], embedding_bytes: int) -> Row:
    """The row of a hash's *fields*."""
    texts = [fields.get(name.encode(), b"").decode(errors="replace") for name in STAMP_FIELDS]
    return _row(vector_id, [*texts, embedding_bytes])


def version_of(stored: str) -> int:
    """The number that a field holds; 0 if it is not one."""
    is_number = len(stored) <= _VERSION_DIGITS and stored.isascii() and stored.isdigit()
    return int(stored) if is_number else 0


def _row(vector_id: str, values: Sequence[str | int | bool]) -> Row:
    if len(values) <= len(STAMP_FIELDS):  # not even a hash
        return Row(vector_id, "", "", "", "", "", "", "", 0, False, 0)
    *texts, embedding_bytes = values
    *fields, version, deleted = (str(text or "") for text in texts)
    return Row._make(
        (vector_id, *fields, version_of(version), deleted == "1", int(embedding_bytes))
    )
