"""The two indexes of a Redis store: what they are made of, and whether they are there.

A hash whose vector has a wrong length drops out of an index of vectors altogether. Which records
there are is therefore asked of an index that knows no vectors. Both are made of tags and of vectors
alone: a number that is none would take its record out too.

Vectors are in a ``FLAT`` index. A search is always one owner's, so it compares that owner's
vectors one by one whatever the index; ``HNSW`` only made writing fourteen times slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from redis import exceptions

from undrift.errors import ConfigError
from undrift.stores._redis_address import Address, Names
from undrift.stores._redis_errors import is_unknown_index
from undrift.stores._redis_sessions import Command

SEPARATOR = "\x1f"
"""Between several tags of one field; ids that hold it are found by their digest."""

IDENTITY_TAGS = ("owner_id", "owner_digest", "part", "deleted")
VECTOR_TAGS = ("owner_id", "owner_digest", "namespace", "kind", "model")
EMBEDDING = "embedding"

_COMPACT = ("NOOFFSETS", "NOHL", "NOFIELDS", "NOFREQS", "STOPWORDS", "0")


class Layout(NamedTuple):
    """What is found under a store's names.

    Attributes:
        exists: both indexes are there.
        dimension: components per vector; None where there is no index of them.
        is_indexing: an index does not know all records yet.
    """

    exists: bool
    dimension: int | None
    is_indexing: bool

    @property
    def vector_bytes(self) -> int:
        """The length of a stored vector."""
        return 4 * (self.dimension or 0)


def create_commands(names: Names, dimension: int) -> Mapping[str, Command]:
    """What creates each index."""
    options = ("TYPE", "FLOAT32", "DIM", str(dimension), "DISTANCE_METRIC", "COSINE")
    vector = (EMBEDDING, "VECTOR", "FLAT", str(len(options)), *options)
    return {
        names.identities: (*_create(names.identities, names), *_tags(IDENTITY_TAGS)),
        names.vectors: (*_create(names.vectors, names), *_tags(VECTOR_TAGS), *vector),
    }


def info_commands(names: Names) -> tuple[Command, Command]:
    """What asks for both indexes; `layout_of` reads the answers."""
    return ("FT.INFO", names.identities), ("FT.INFO", names.vectors)


def layout_of(answers: Sequence[object], address: Address) -> Layout:
    """What the answers to `info_commands` say.

    Raises:
        ConfigError: an index is not one of undrift's.
        ResponseError: there is no answer.
    """
    identities, vectors = map(_info, answers)
    names = address.names
    if identities is not None:
        _require_index(identities, names.identities, IDENTITY_TAGS, address)
    dimension = None
    if vectors is not None:
        _require_index(vectors, names.vectors, VECTOR_TAGS, address)
        dimension = _dimension(vectors, address)
    return Layout(
        exists=identities is not None and vectors is not None,
        dimension=dimension,
        is_indexing=any(bool(_number(info, b"indexing")) for info in (identities, vectors)),
    )


def _create(index: str, names: Names) -> Command:
    return ("FT.CREATE", index, "ON", "HASH", "PREFIX", "1", names.prefix, *_COMPACT, "SCHEMA")


def _tags(fields: Sequence[str]) -> Iterator[str]:
    for field in fields:
        yield from (field, "TAG", "SEPARATOR", SEPARATOR, "CASESENSITIVE")


def _info(answer: object) -> Mapping[bytes, object] | None:
    if isinstance(answer, exceptions.ResponseError):
        if is_unknown_index(answer):
            return None
        raise answer
    assert isinstance(answer, dict)
    return answer


def _number(info: Mapping[bytes, object] | None, name: bytes) -> float:
    value = None if info is None else info.get(name)
    return float(value) if isinstance(value, int | float | bytes) else 0.0


def _require_index(
    info: Mapping[bytes, object], index: str, tags: Sequence[str], address: Address
) -> None:
    definition = info.get(b"index_definition")
    assert isinstance(definition, dict)
    prefixes = [address.names.prefix.encode()]
    if definition.get(b"key_type") != b"HASH" or definition.get(b"prefixes") != prefixes:
        raise _anothers(address, f"the index {index} is not over hashes {address.names.prefix}*")
    if b"filter" in definition:
        raise _anothers(address, f"the index {index} leaves records out by a filter")
    found = _attributes(info)
    for tag in tags:
        attribute = found.get(tag, {})
        if attribute.get(b"type") != b"TAG" or b"CASESENSITIVE" not in _flags(attribute):
            raise _anothers(address, f"the index {index} has no case-sensitive tag {tag}")


def _dimension(info: Mapping[bytes, object], address: Address) -> int:
    vector = _attributes(info).get(EMBEDDING, {})
    if vector.get(b"type") != b"VECTOR" or vector.get(b"data_type") != b"FLOAT32":
        raise _anothers(
            address, f"the index {address.names.vectors} has no field {EMBEDDING} of FLOAT32"
        )
    metric = vector.get(b"distance_metric")
    if metric != b"COSINE":
        shown = metric.decode(errors="replace") if isinstance(metric, bytes) else "unknown"
        raise ConfigError(
            "The vector store compares vectors by another metric",
            why=f"{address.location}: the metric of the index is {shown}, undrift's is COSINE.",
            fix="set another ?index= in VECTOR_URL and run `undrift sync --all`, or drop the "
            f"index, which loses no record, and sync: FT.DROPINDEX {address.names.vectors}",
        )
    return int(_number(vector, b"dim"))


def _attributes(info: Mapping[bytes, object]) -> dict[str, Mapping[bytes, object]]:
    attributes = info.get(b"attributes")
    assert isinstance(attributes, list)
    return {attribute[b"attribute"].decode(): attribute for attribute in attributes}


def _flags(attribute: Mapping[bytes, object]) -> Sequence[object]:
    flags = attribute.get(b"flags")
    return flags if isinstance(flags, list) else ()


def _anothers(address: Address, why: str) -> ConfigError:
    return ConfigError(
        "The vector store's index is not one of undrift's",
        why=f"{address.location}: {why}.",
        fix="set ?index= in VECTOR_URL to another name, which `undrift sync` creates",
    )
