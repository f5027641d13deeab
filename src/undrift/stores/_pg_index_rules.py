"""What an index on vectors may be, and what is said where one may not."""

from __future__ import annotations

import re

from psycopg import sql

from undrift.errors import ConfigError, TransientError, UndriftError, UnsupportedError
from undrift.search_index import IndexParameters, IndexType
from undrift.stores._pg_address import Address
from undrift.stores._pg_index import (
    DEFAULT_EF_CONSTRUCTION,
    DEFAULT_M,
    HALFVEC_COMPONENTS,
    FoundIndex,
    FoundTable,
    drop_statement,
)

_LINKS = range(2, 101)
_CANDIDATES = range(4, 1_001)
_LISTS = range(1, 32_769)
_MEMORY = re.compile(r"([1-9][0-9]{0,9}) ?(kB|MB|GB|TB)")
_KILOBYTES = {"kB": 1, "MB": 2**10, "GB": 2**20, "TB": 2**30}
_SERVER_KILOBYTES = range(2**10, 2**31)  # what every supported server takes


def require_sensible(parameters: IndexParameters) -> None:
    """Refuse what the server would refuse, in words that name the option.

    Raises:
        ConfigError: a parameter is out of range, or another type's.
    """
    if parameters.type is IndexType.IVFFLAT:
        _require_not_given(parameters.type, "--m", parameters.m)
        _require_not_given(parameters.type, "--ef-construction", parameters.ef_construction)
        _require_in(_LISTS, "--lists", parameters.lists)
    else:
        _require_not_given(parameters.type, "--lists", parameters.lists)
        _require_in(_LINKS, "--m", parameters.m)
        _require_in(_CANDIDATES, "--ef-construction", parameters.ef_construction)
        m = DEFAULT_M if parameters.m is None else parameters.m
        candidates = parameters.ef_construction or DEFAULT_EF_CONSTRUCTION
        if candidates < 2 * m:
            allowed = f"at least twice --m, which is {m}"
            raise _out_of_range("--ef-construction", candidates, allowed)
    memory = parameters.maintenance_work_mem
    if memory is not None:
        parts = _MEMORY.fullmatch(memory)
        if parts is None or int(parts[1]) * _KILOBYTES[parts[2]] not in _SERVER_KILOBYTES:
            allowed = "a number and kB, MB, GB or TB, from 1MB to less than 2TB"
            raise _out_of_range("--maintenance-work-mem", memory, allowed)


def require_indexable(address: Address, found: FoundTable | None, dimension: int) -> None:
    """Refuse to index what cannot be indexed.

    Raises:
        ConfigError: pgvector is too old, or the vectors have too many components.
        UnsupportedError: the table is partitioned.
    """
    if found is not None and found.is_partitioned:
        raise UnsupportedError(
            "A partitioned table cannot be indexed while it is in use",
            why=f"{address.table} in {address.location} has partitions, and PostgreSQL builds an "
            "index CONCURRENTLY on each of them only.",
            fix="run CREATE INDEX CONCURRENTLY on every partition, as "
            "`undrift index build --sql` prints it for the table",
        )
    if found is not None and not found.can_be_indexed:
        raise ConfigError(
            "The server's pgvector has no HNSW indexes",
            why=f"{address.location} has a version older than 0.5.0.",
            fix="update it, and let its administrator run: ALTER EXTENSION vector UPDATE",
        )
    if not 1 <= dimension <= HALFVEC_COMPONENTS:
        raise ConfigError(
            "The vectors cannot be indexed",
            why=f"the column embedding of {address.table} in {address.location} "
            + (f"holds {dimension} components" if dimension else "has no fixed dimension")
            + f", and an index takes at most {HALFVEC_COMPONENTS}.",
            fix="search exactly, which needs no index, or embed with a model of fewer dimensions",
        )


def foreign_index(address: Address, name: str) -> UndriftError:
    """The error where another's index would be in the way."""
    drop = drop_statement(address.table, name).as_string(None)
    return ConfigError(
        "The vectors have an index already",
        why=f"{name} on {address.table} in {address.location} is not one that undrift built, and "
        "is left alone; searches can use it as it is.",
        fix=f"leave it, or drop it and build again: {drop}",
    )


def other_index(address: Address, found: FoundIndex) -> UndriftError:
    """The error where our index is there, of another type or with other parameters."""
    drop = drop_statement(address.table, found.name).as_string(None)
    return ConfigError(
        "The vectors have an index with other parameters",
        why=f"{found.name} on {address.table} in {address.location} is {found.type} and was built "
        f"with {found.parameters}, and is in use.",
        fix=f"drop it (`undrift index drop`) and build again: {drop}",
    )


def name_taken(address: Address, name: str) -> UndriftError:
    """The error where something else has our index's name."""
    shown = sql.Identifier(address.table.schema, name).as_string(None)
    return ConfigError(
        "The name of the index is taken",
        why=f"{shown} in {address.location} is something else than an approximate index on the "
        "vectors' cosine distance.",
        fix="rename or drop it, or build an index under another name with the statement that "
        "`undrift index build --sql` prints",
    )


def busy(address: Address) -> UndriftError:
    """The error where somebody builds one."""
    return TransientError(
        "An index is being built already",
        why=f"another session builds one on {address.table} in {address.location}.",
        fix="see `undrift index status` for how far it is",
    )


def pooled(address: Address, why: str) -> UndriftError:
    """The error where a pooler keeps a session's settings from the server."""
    return ConfigError(
        "No index can be built through this connection",
        why=f"{address.location}: a build needs settings of its own for the whole session, and "
        f"{why}; a pooler seems to stand in between.",
        fix="set VECTOR_URL to the server itself for this one command",
    )


def _require_in(allowed: range, option: str, found: int | None) -> None:
    if found is not None and found not in allowed:
        raise _out_of_range(option, found, f"{allowed[0]} to {allowed[-1]}")


def _require_not_given(kind: IndexType, option: str, found: int | None) -> None:
    if found is not None:
        raise ConfigError(
            f"{option} is not for this type of index",
            why=f"{found} was given, and an index of type {kind} has no such parameter.",
            fix=f"leave {option} out, or give another --type",
        )


def _out_of_range(option: str, found: object, allowed: str) -> ConfigError:
    return ConfigError(
        f"{option} is out of range",
        why=f"{found} was given, and it takes {allowed}.",
        fix=f"give another {option}, or leave it out",
    )
