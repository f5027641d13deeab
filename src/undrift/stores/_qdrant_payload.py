"""How a record is written into a point's payload, and read from it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

from undrift.fingerprint import canonical_json
from undrift.model import Stamp
from undrift.ports import Match, Record
from undrift.state import Tombstone
from undrift.stores._qdrant_points import FoundPoint, Payload
from undrift.stores._records import STAMP_COLUMNS

NAMESPACE, OWNER, KIND, ENTITY_ID = "namespace", "owner_id", "kind", "entity_id"
FINGERPRINT, TEXT_HASH, MODEL = "fingerprint", "text_hash", "model"
VERSION, DELETED = "version", "deleted"
TEXT, METADATA, METADATA_JSON = "text", "metadata", "metadata_json"

STAMP_FIELDS = STAMP_COLUMNS[1:]
"""A stamp's fields but for the point's own id, in `Stamp`'s order."""

TOMBSTONE_FIELDS = (OWNER, KIND, ENTITY_ID, VERSION)
MATCH_FIELDS = (*STAMP_FIELDS, TEXT, METADATA, METADATA_JSON)

# A point whose payload is nested deeper than 127 levels cannot be read any more, and Qdrant's own
# log cannot be replayed.
_MAX_DEPTH = 64

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')


def payload_of(record: Record, *, keep_text: bool) -> Payload:
    """What is stored of *record* beside its vector."""
    payload = dict(zip(STAMP_FIELDS, record.stamp[1:], strict=True))
    if keep_text:
        payload[TEXT] = record.text
        payload.update(_metadata(record.metadata_json))
    return payload


def grave_of(stone: Tombstone, namespace: str) -> Payload:
    """What is stored of *stone*; there is no vector beside it."""
    fields = dict(zip(TOMBSTONE_FIELDS, stone[1:], strict=True))
    return {NAMESPACE: namespace, **fields, DELETED: 1}


def stamp_of(point: FoundPoint) -> Stamp:
    """The stamp of *point*; what it lacks is empty."""
    payload = point.payload
    texts = (text_of(payload, field) for field in STAMP_FIELDS[:-1])
    return Stamp._make((point.vector_id, *texts, version_of(payload)))


def tombstone_of(point: FoundPoint) -> Tombstone:
    """The tombstone that *point* is."""
    payload = point.payload
    texts = (text_of(payload, field) for field in TOMBSTONE_FIELDS[:-1])
    return Tombstone._make((point.vector_id, *texts, version_of(payload)))


def match_of(point: FoundPoint) -> Match:
    """What a search found."""
    # Rounding may take the similarity of equal directions a little beyond 1.
    score = min(1.0, max(-1.0, point.score))
    return Match(stamp_of(point), score, text_of(point.payload, TEXT), _metadata_json(point))


def text_of(payload: Payload, field: str) -> str:
    """A field's text; empty where it is not there, or somebody made something else of it."""
    value = payload.get(field)
    return value if isinstance(value, str) else ""


def version_of(payload: Payload) -> int:
    """The version, 0 where there is none."""
    value = payload.get(VERSION)
    return value if isinstance(value, int) else 0


def _metadata(metadata_json: str) -> Payload:
    """Metadata as an object, by which other programs can filter, and as JSON where that is more.

    Qdrant keeps integers of 64 bits, and reads some floats as their neighbours. Without the JSON
    itself such metadata would not come back as it was written.
    """
    if is_too_deep(metadata_json):
        return {METADATA_JSON: metadata_json}
    metadata = json.loads(metadata_json)
    if _comes_back(metadata):
        return {METADATA: metadata}
    return {METADATA: metadata, METADATA_JSON: metadata_json}


def _metadata_json(point: FoundPoint) -> str:
    as_json = text_of(point.payload, METADATA_JSON)
    if as_json:
        return as_json
    metadata = point.payload.get(METADATA)
    return canonical_json(metadata) if isinstance(metadata, dict) else "{}"


def is_too_deep(encoded: str) -> bool:
    """Whether JSON is nested more deeply than a payload should be."""
    if encoded.count("{") + encoded.count("[") <= _MAX_DEPTH:
        return False
    deepest = depth = 0
    for character in _STRING.sub("", encoded):
        if character in "{[":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "}]":
            depth -= 1
    return deepest > _MAX_DEPTH


def _comes_back(value: object) -> bool:
    """Whether Qdrant gives *value* back as it was given."""
    if isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -(2**63) <= value < 2**64
    if isinstance(value, float):
        return _is_short(value)
    if isinstance(value, dict):
        return _all_come_back(value.values())
    return _all_come_back(value) if isinstance(value, list) else True


def _all_come_back(values: Iterable[object]) -> bool:
    return all(_comes_back(value) for value in values)


def _is_short(value: float) -> bool:
    """Whether every reader of decimals gets *value* right.

    It has 15 digits at most, and a power of ten that a float holds exactly.
    """
    _, digits, exponent = Decimal(repr(value)).as_tuple()
    return len(digits) <= 15 and isinstance(exponent, int) and abs(exponent) <= 22


def parts_of(ids: Sequence[str], size: int) -> Iterator[list[str]]:
    """*ids* in parts of at most *size*, each id once."""
    distinct = list(dict.fromkeys(ids))
    return (distinct[start : start + size] for start in range(0, len(distinct), size))
