"""Looks at a vector store and tries what a sync needs, and takes all of it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from undrift.findings import Finding

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


def probe_store(url: str, *, dimension: int | None) -> StoreProbe:
    """Look at the store at *url*, whatever its scheme.

    Raises:
        ConfigError: no adapter for the scheme, a malformed URL, or a missing driver.
    """
    from undrift.stores import open_store

    open_store(url).close()  # says what is wrong with the URL, and connects to nothing
    if url.partition("://")[0].lower().startswith("sqlite"):
        from undrift.stores._sqlite_probe import probe_sqlite

        return probe_sqlite(url)
    from undrift.stores._pg_probe import probe_pgvector

    return probe_pgvector(url, dimension)


def login_of(url: str) -> Login | None:
    """As whom *url* logs in, and where; None where nobody does, as in SQLite.

    Raises:
        ConfigError: the URL is malformed.
    """
    if url.partition("://")[0].lower().startswith("sqlite"):
        return None
    from undrift.stores import _pg_rights

    return _pg_rights.login_of(url)


def grants_of(url: str) -> Sequence[str]:
    """The lines of a DBA's script that let the role of *url* use the store. Connects to nothing."""
    if url.partition("://")[0].lower().startswith("sqlite"):
        return ("-- SQLite has no roles: who may read and write the file and its folder may sync.",)
    from undrift.stores._pg_rights import grants

    return grants(url)
