"""What the indexes of a Redis store are asked.

A tag is not quite the value it was made from: white space around it is cut off, a separator splits
it, and a long one is cut. Ids that a tag gives back exactly are asked for as such, so that the
answer follows whatever the hash says; the others by a digest of theirs. Either way the hash itself
is looked at afterwards, and has the last word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

from undrift.stores._redis_layout import SEPARATOR
from undrift.stores._redis_sessions import Command

QUERY_MILLISECONDS = 60_000
"""How long a query may take; what would come after is not left out but refused."""

PARTS = tuple(f"{number:02x}" for number in range(256))
"""The first digits of a vector_id, by which records are dealt into parts of about one size."""

PART_RECORDS = 10_000
"""Records that one query may look at; the server does nothing else for 45 ms."""

_TAG_BYTES = 1_024
_SPECIAL = re.compile(r"[\x00-\x7f](?<![A-Za-z0-9])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def digest(id_: str) -> str:
    """What stands for *id_* in a tag."""
    return blake2b(id_.encode(), digest_size=16).hexdigest()


def part_of(vector_id: str) -> str:
    """The part that a record is dealt into."""
    return vector_id[:2]


def is_plain(value: str) -> bool:
    """Whether a tag gives *value* back as it is."""
    return (
        value != ""
        and value == value.strip()
        and SEPARATOR not in value
        and _CONTROL.search(value) is None
        and len(value.encode()) <= _TAG_BYTES
    )


def of_owners(owners: Iterable[str]) -> str:
    """What finds every record of *owners*, and may find others'."""
    plain, odd = [], []
    for owner_id in owners:
        if is_plain(owner_id):
            plain.append(owner_id)
        else:
            odd.append(digest(owner_id))
    tags = [_tag(name, ids) for name, ids in (("owner_id", plain), ("owner_digest", odd)) if ids]
    return f"({' | '.join(tags)})"


def with_tags(query: str, **wanted: Sequence[str]) -> str:
    """*query*, without records that have none of the *wanted* values of a field.

    It may find others, as far as a tag does not give a value back as it is.
    """
    tags = [_tag(name, values) for name, values in wanted.items() if all(map(is_plain, values))]
    return " ".join((query, *tags))


def in_parts(query: str, records: int) -> Iterator[str]:
    """Queries that find what *query* finds, each in a part of the records.

    Args:
        records: how many *query* finds, about.

    Safety:
        A record never changes its part. One that somebody gave no part, or an unheard-of one, is
        found by the last of them.
    """
    count = min(len(PARTS), -(-records // PART_RECORDS))
    if count <= 1:
        yield query
        return
    within = "" if query == "*" else f"{query} "
    size = -(-len(PARTS) // count)
    for start in range(0, len(PARTS), size):
        yield within + _tag("part", PARTS[start : start + size])
    yield f"{within}-{_tag('part', PARTS)}"


def count_command(index: str, query: str) -> Command:
    """What counts the records that *query* finds."""
    return ("FT.SEARCH", index, query, "NOCONTENT", "LIMIT", "0", "0", *_limits())


def keys_command(index: str, query: str) -> Command:
    """What lists the keys of the records that *query* finds, as one row that nothing limits."""
    load = ("LOAD", "1", "@__key", "GROUPBY", "0")
    reduce = ("REDUCE", "TOLIST", "1", "@__key", "AS", "keys", "REDUCE", "COUNT", "0", "AS", "n")
    return ("FT.AGGREGATE", index, query, *load, *reduce, *_limits())


def owners_command(index: str, query: str) -> Command:
    """What lists the owners of the records that *query* finds, by namespace and tombstone."""
    load = ("LOAD", "3", "@owner_id", "@namespace", "@deleted")
    group = ("GROUPBY", "2", "@namespace", "@deleted")
    reduce = ("REDUCE", "TOLIST", "1", "@owner_id", "AS", "owners")
    return ("FT.AGGREGATE", index, query, *load, *group, *reduce, *_limits())


def counts_command(index: str, query: str, fields: Sequence[str]) -> Command:
    """What counts the records that *query* finds by the values of *fields*."""
    names = [f"@{field}" for field in fields]
    load = ("LOAD", str(len(names)), *names, "GROUPBY", str(len(names)), *names)
    return ("FT.AGGREGATE", index, query, *load, "REDUCE", "COUNT", "0", "AS", "n", *_limits())


def nearest_command(
    index: str, query: str, vector: bytes, count: int, fields: Sequence[str]
) -> Command:
    """What finds the *count* nearest of the records that *query* finds, comparing all of them."""
    knn = f"[KNN {count} @embedding $vector HYBRID_POLICY ADHOC_BF AS distance]"
    order = ("SORTBY", "distance", "ASC", "LIMIT", "0", str(count))
    returned = ("RETURN", str(len(fields) + 1), "distance", *fields)
    parameters = ("PARAMS", "2", "vector", vector)
    return ("FT.SEARCH", index, f"({query})=>{knn}", *parameters, *order, *returned, *_limits())


def _tag(field: str, values: Sequence[str]) -> str:
    escaped = (_SPECIAL.sub(r"\\\g<0>", value) for value in values)
    return f"@{field}:{{{'|'.join(escaped)}}}"


def _limits() -> Command:
    return ("TIMEOUT", str(QUERY_MILLISECONDS), "DIALECT", "2")
