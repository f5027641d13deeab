"""Samples of collections, from which a person's mapping is guessed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from undrift.stores import module_of, scheme_of
from undrift.stores._adopted import STAMP_KEY

SAMPLE_RECORDS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectionSample:
    """Some records of a collection that another program may have filled.

    Attributes:
        location: its address for people, without a password.
        url: its address for ``VECTOR_URL``, without a password where it holds one.
        name: what people call it, for ``--collection``; empty where the address names it.
        parameter: what the address that was looked at lacks to name it, such as ``table=…``.
        writer: the program whose layout it has, such as ``LangChain``; empty where unknown.
        records: each flattened: by dotted path, the value as text. Vectors are left out, and so
            are names that hold a dot.
        record_id: the path of the records' own id, if they show it.
        id_is_usual: the id is found without being named.
        fixed: what has to be given for a record to be one of this collection, by dotted path.
        vectors: where there are several, each one's path and components.
        stamp_places: the fields that can take a stamp; None where every record can.
        dimension: components per vector, None where no record tells.
        is_stamped: undrift has written here already.
        why_not: why it cannot be adopted; empty where it can.
    """

    location: str
    url: str = field(repr=False)
    name: str = ""
    parameter: str = ""
    writer: str = ""
    records: Sequence[Mapping[str, str]] = field(default=(), repr=False)
    record_id: str = ""
    id_is_usual: bool = True
    fixed: Mapping[str, str] = field(default_factory=dict)
    vectors: Mapping[str, int | None] = field(default_factory=dict)
    stamp_places: Sequence[str] | None = None
    dimension: int | None = None
    is_stamped: bool = False
    why_not: str = ""


def sample_collections(url: str, *, limit: int = SAMPLE_RECORDS) -> Sequence[CollectionSample]:
    """The collections at *url* that are not undrift's own; writes nothing.

    Args:
        url: as ``VECTOR_URL`` has it; where it names a table or a collection, only that.
        limit: records of each, at most.

    Raises:
        ConfigError: a malformed address, a wrong login, or a missing driver.
        StoreUnavailable: it cannot be told what is there.
    """
    if scheme_of(url) == "postgresql":
        module_of(url)  # a missing driver is explained there
        from undrift.stores._pg_collections import sample_tables

        return sample_tables(url, limit)
    sample_collection = getattr(module_of(url), "sample_collection", None)
    if sample_collection is None:
        return ()
    found = cast("Callable[[str, int], CollectionSample | None]", sample_collection)(url, limit)
    return () if found is None else (found,)


def flattened(fields: Mapping[str, object]) -> dict[str, str]:
    """*fields* by dotted path, each value as text; lists, and undrift's stamps, are left out."""
    return dict(_flattened(fields, ""))


def _flattened(fields: Mapping[str, object], above: str) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if not name or "." in name or name == STAMP_KEY:
            continue
        path = f"{above}{name}"
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{path}.")
        elif isinstance(value, bool):
            yield path, "true" if value else "false"
        elif isinstance(value, str | int | float) and value != "":
            yield path, str(value)
