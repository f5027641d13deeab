"""How records, tombstones and claims lie in Milvus, and the filters that find them.

A field of Milvus 2.3 always has a value: what is absent is an empty text or 0. Whatever is no
record has a vector of zeros, which has no direction, so that no search by the cosine finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from undrift.fingerprint import text_hash
from undrift.model import EntityId, Stamp
from undrift.ports import Record, Vectors
from undrift.state import Claim, Tombstone
from undrift.stores._milvus_errors import ANOTHERS, INEXACT, WRONG_METRIC, too_long
from undrift.stores._milvus_wire import Column, Field, Index, Row
from undrift.stores._records import STAMP_COLUMNS, stamp_of

T = TypeVar("T")

MOST_BYTES = 65_535
"""What a field of text holds."""

ID_BYTES = 255
"""What a primary key holds: a vector_id has 36."""

VECTOR = "embedding"
ROLE = "deleted"
RECORD, TOMBSTONE, CLAIM = 0, 1, 2
"""Values of `ROLE`."""

COSINE = "COSINE"
FLAT = Index("FLAT", COSINE)
OWNERS = Index("Trie", "")

_TEXTS = (*STAMP_COLUMNS[:-1], "text", "metadata")
_EMPTY = "{}"

_FILTER_CHARACTERS = 200_000
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-.:@/")


# --- layout


def fields_of(dimension: int) -> list[Field]:
    """The fields of a collection for vectors of *dimension* components."""
    return [
        Field("vector_id", "VarChar", ID_BYTES, is_primary=True),
        *(Field(name, "VarChar", MOST_BYTES) for name in _TEXTS[1:]),
        Field("version", "Int64"),
        Field(ROLE, "Int8"),
        Field(VECTOR, "FloatVector", dimension),
    ]


def dimension_of(fields: Sequence[Field], location: str) -> int:
    """The dimension of a collection with *fields*.

    Raises:
        ConfigError: undrift did not create it.
    """
    dimension = next((field.size for field in fields if field.kind == "FloatVector"), 0)
    lacking = [field for field in fields_of(dimension) if field not in fields]
    if lacking:
        names = ", ".join(field.name for field in lacking)
        raise ANOTHERS.error(location, f"it has no fields as undrift makes them: {names}")
    return dimension


def refuse_index(found: Index, location: str) -> None:
    """Refuse an index whose searches are not exact.

    Raises:
        ConfigError: it is of another metric or type.
    """
    if found.metric != COSINE:
        why = f"its index was created with the metric {found.metric}, not {COSINE}"
        raise WRONG_METRIC.error(location, why)
    if found.kind != FLAT.kind:
        raise INEXACT.error(location, f"its index is of the type {found.kind}, not {FLAT.kind}")


# --- records


class Put(NamedTuple):
    """What is written under a primary key.

    Attributes:
        texts: in the order of the fields, the primary key first.
        embedding: None for zeros.
    """

    texts: tuple[str, ...]
    version: int
    role: int
    embedding: Vectors | None

    @property
    def size(self) -> int:
        """About how many bytes a call carries for it."""
        vector = 0 if self.embedding is None else self.embedding.nbytes
        return sum(map(len, self.texts)) * 2 + vector + 100


class Standing(NamedTuple):
    """What lies under a vector_id.

    Attributes:
        entity: owner, kind and id.
        embedded: text_hash and model.
    """

    role: int
    namespace: str
    version: int
    entity: tuple[str, str, str]
    embedded: tuple[str, str]


STANDING_FIELDS = (
    "vector_id",
    ROLE,
    "namespace",
    "version",
    "owner_id",
    "kind",
    "entity_id",
    "text_hash",
    "model",
)


def standing_of(row: Row) -> Standing:
    """What *row* means to a write under its id."""
    return Standing(
        row[ROLE],
        row["namespace"],
        row["version"],
        (row["owner_id"], row["kind"], row["entity_id"]),
        (row["text_hash"], row["model"]),
    )


def put_of(record: Record) -> Put:
    """*record* as it is stored."""
    stamp = record.stamp
    metadata = "" if record.metadata_json == _EMPTY else record.metadata_json
    texts = (*stamp[:-1], record.text, metadata)
    return Put(texts, stamp.version, RECORD, record.embedding)


def refuse_too_long(records: Iterable[Record]) -> None:
    """Refuse what no field holds, before anything is written.

    Raises:
        WriteFailed: one of *records* has such a part.
    """
    for record in records:
        texts = put_of(record).texts
        if max(map(len, texts)) > MOST_BYTES // 4:  # no character has more bytes
            what = f"{record.stamp.key!a} of user {record.stamp.owner_id[:100]!a}"
            _refuse_field(texts, what)


def refuse_too_long_ids(stones: Iterable[Tombstone]) -> None:
    """As `refuse_too_long`, of tombstones."""
    for stone in stones:
        if max(map(len, stone[1:4])) > MOST_BYTES // 4:
            entity = EntityId.of(stone.kind, stone.entity_id[:100])
            _refuse_field((stone.vector_id, "", *stone[1:4]), f"the tombstone of {entity!a}")


def _refuse_field(texts: Sequence[str], what: str) -> None:
    for name, text in zip(_TEXTS, texts, strict=False):
        size = len(text.encode())
        if size > MOST_BYTES:
            raise too_long(what[:400], name, size, MOST_BYTES)


def grave_of(stone: Tombstone, namespace: str) -> Put:
    """*stone* as it is stored."""
    texts = (stone.vector_id, namespace, stone.owner_id, stone.kind, stone.entity_id)
    return Put((*texts, "", "", "", "", ""), stone.version, TOMBSTONE, None)


def tombstone_of(row: Row) -> Tombstone:
    """The tombstone of *row*."""
    return Tombstone(*(row[name] for name in Tombstone._fields))


def stamp_of_row(row: Row) -> Stamp:
    """The stamp of *row*."""
    return stamp_of([row[name] for name in STAMP_COLUMNS])


def metadata_of(row: Row) -> str:
    """The metadata of *row*, as JSON."""
    return str(row["metadata"]) or _EMPTY


def claim_key(namespace: str) -> str:
    """The primary key of a namespace's claim, which is no vector_id."""
    return f"claim {text_hash(namespace.encode())}"


def claim_put(claim: Claim, namespace: str) -> Put:
    """*claim* as it is stored."""
    texts = (claim_key(namespace), namespace, "", "", claim.state_id)
    return Put((*texts, "", "", "", claim.source, ""), claim.epoch, CLAIM, None)


def claim_of(row: Row) -> Claim:
    """The claim of *row*."""
    return Claim(row["text"], row["entity_id"], row["version"])


CLAIM_FIELDS = ("text", "entity_id", "version")


def columns_of(puts: Sequence[Put], dimension: int) -> dict[str, Column]:
    """*puts* by field, as a call takes them."""
    vectors = np.zeros((len(puts), dimension), dtype=np.float32)
    for number, put in enumerate(puts):
        if put.embedding is not None:
            vectors[number] = put.embedding
    columns: dict[str, Column] = {
        name: [put.texts[place] for put in puts] for place, name in enumerate(_TEXTS)
    }
    columns["version"] = [put.version for put in puts]
    columns[ROLE] = [put.role for put in puts]
    columns[VECTOR] = vectors
    return columns


def has_direction(vector: Vectors) -> bool:
    """Whether a search can find *vector*."""
    with np.errstate(over="ignore"):
        square = float(np.dot(vector, vector))
    return 0.0 < square < float("inf")


# --- filters


def literal(text: str) -> str:
    """*text* in a filter: whatever is no letter, digit or harmless sign by its number."""
    return f'"{"".join([sign if sign in _PLAIN else _escaped(sign) for sign in text])}"'


def one_of(field: str, values: Iterable[str]) -> str:
    """Lets the records pass whose *field* is one of *values*."""
    return f"{field} in [{','.join(map(literal, values))}]"


def all_of(*filters: str) -> str:
    """Lets the records pass that all *filters* let pass."""
    return " and ".join(f"({one})" for one in filters)


def parts_of(values: Iterable[str], most: int) -> Iterator[list[str]]:
    """*values*, as many at a time as a filter takes, at most *most*."""
    return cut(values, most, lambda value: 6 * len(value) + 3, _FILTER_CHARACTERS)


def cut(
    values: Iterable[T], most: int, size: Callable[[T], int], most_size: int
) -> Iterator[list[T]]:
    """*values* in parts of at most *most* of them, and of *most_size* unless one has more."""
    part: list[T] = []
    sum_ = 0
    for value in values:
        of_value = size(value)
        if part and (len(part) >= most or sum_ + of_value > most_size):
            yield part
            part, sum_ = [], 0
        part.append(value)
        sum_ += of_value
    if part:
        yield part


def _escaped(sign: str) -> str:
    number = ord(sign)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
