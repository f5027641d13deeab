"""Looks at a vector store and tries what a sync needs, and takes all of it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from undrift.adoption import StoreFields
from undrift.findings import Finding
from undrift.stores import open_store, scheme_of

if TYPE_CHECKING:
    from undrift.stores._pg_rights import Login

COUNTED_RECORDS = 1_000_000
"""Records are counted as far as this, half a second; a look must not take longer than a check."""


class RecordCount(NamedTuple):
    """How many records share a namespace, a model and a kind."""

    namespace: str | None
    model: str
    kind: str
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreProbe:
    """What was found.

    Attributes:
        exists: False only when it certainly has not been created yet; None where it is not known.
        dimension: components per vector, None while nothing fixes it.
        change_dimension: what a person does to store vectors of another dimension.
        counts: what the store holds, by namespace, model and kind; None where it was not read.
    """

    findings: tuple[Finding, ...]
    exists: bool | None = None
    dimension: int | None = None
    change_dimension: str = ""
    counts: Sequence[RecordCount] | None = None


def probe_store(
    url: str, *, dimension: int | None, fields: StoreFields | None = None
) -> StoreProbe:
    """Look at the store at *url*, whatever its scheme.

    Args:
        dimension: components per vector of the embedder; None where nobody knows.
        fields: where the parts of a stamp are found, in a collection that another program filled.

    Raises:
        ConfigError: no adapter for the scheme, a malformed URL, or a missing driver.
        UnsupportedError: the adapter does not manage collections of other programs.
    """
    open_store(url, fields=fields).close()  # what is wrong with the URL; connects to nothing
    scheme = scheme_of(url)
    if scheme == "sqlite" and fields is None:
        from undrift.stores._sqlite_probe import probe_sqlite

        return probe_sqlite(url)
    if scheme == "postgresql" and fields is None:
        from undrift.stores._pg_probe import probe_pgvector

        return probe_pgvector(url, dimension)
    if scheme in ("redis", "rediss"):
        from undrift.stores._redis_probe import probe_redis

        return probe_redis(url)
    from undrift.stores._described_probe import probe_described

    return probe_described(url, fields)


def login_of(url: str) -> Login | None:
    """As whom *url* logs in to PostgreSQL, and where; None where nobody does.

    Raises:
        ConfigError: the URL is malformed.
    """
    if scheme_of(url) != "postgresql":
        return None
    from undrift.stores import _pg_rights

    return _pg_rights.login_of(url)


def grants_of(url: str) -> Sequence[str]:
    """The lines of a DBA's script that let the role of *url* use the store. Connects to nothing.

    Empty where the store knows no roles that SQL could grant anything.
    """
    scheme = scheme_of(url)
    if scheme == "sqlite":
        return ("-- SQLite has no roles: who may read and write the file and its folder may sync.",)
    if scheme != "postgresql":
        return ()
    from undrift.stores._pg_rights import grants

    return grants(url)
