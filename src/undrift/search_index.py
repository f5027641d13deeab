"""The optional door to a store's search index, and what is known of it.

A search looks at one owner's vectors and compares them all, which is exact. A store that can also
ask an approximate index has this port beside `undrift.ports.VectorStore`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable


class IndexState(StrEnum):
    """Whether there is an index, and whether a search can use it."""

    NONE = "none"
    BUILDING = "building"
    VALID = "valid"
    INVALID = "invalid"


class IndexType(StrEnum):
    """What an index is: a graph of neighbours, or lists of vectors that lie together."""

    HNSW = "hnsw"
    IVFFLAT = "ivfflat"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexParameters:
    """How an index is built. None stands for what is said of each; another type's is refused.

    Attributes:
        type: ``hnsw`` finds nearly all of the nearest, and makes writes slow; ``ivfflat`` finds
            fewer, is built several times as fast and hardly slows writes, but learns its lists from
            the records that are there when it is built.
        m: of hnsw, links per vector and layer, 2 to 100; more find better and cost space and time.
            None means 16.
        ef_construction: of hnsw, candidates looked at for each new vector, at least twice *m*, at
            most 1000. None means 64.
        lists: of ivfflat, 1 to 32768. None means one for every 1,000 records, from a million
            records on the square root of their number.
        maintenance_work_mem: memory for the build as the server writes it, such as ``512MB``;
            None leaves it to the server.
    """

    type: IndexType = IndexType.HNSW
    m: int | None = None
    ef_construction: int | None = None
    lists: int | None = None
    maintenance_work_mem: str | None = None


DEFAULT_PARAMETERS = IndexParameters()
"""HNSW with pgvector's own defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexProgress:
    """How far a build is.

    Attributes:
        phase: in the server's words.
        percent: of this phase, None where nobody knows.
        waits_for: the server process whose transaction the build waits for.
    """

    phase: str
    percent: float | None = None
    waits_for: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexStatus:
    """What there is of an index, and whether one is worth having.

    Attributes:
        location: the store's address without a password.
        state: an invalid index is what a build left that did not finish.
        name: the index's, with its schema; None if there is none.
        type: what it is; None if there is none.
        operator_class: what its distances are.
        m: see `IndexParameters`; so are *ef_construction* and *lists*. None where the type has
            no such parameter.
        built_on_records: how many records an ivfflat index learned its lists from, None where
            nobody wrote it down.
        size_bytes: on disk; 0 if there is none.
        progress: of a build under way, None where it is not shown to this role.
        records: in the table, of all namespaces.
        owners: that have records.
        largest_owner_records: of the owner who has most.
        exact_search_seconds: what an exact search of that owner took just now, None without
            records.
        is_searched: searches ask the index, so that they are approximate.
        is_worth_it: an exact search of the largest owner is slow enough to be noticed.
        notes: what one should know or do, a sentence each.
    """

    location: str
    state: IndexState
    name: str | None = None
    type: IndexType | None = None
    operator_class: str | None = None
    m: int | None = None
    ef_construction: int | None = None
    lists: int | None = None
    built_on_records: int | None = None
    size_bytes: int = 0
    progress: IndexProgress | None = None
    records: int = 0
    owners: int = 0
    largest_owner_records: int = 0
    exact_search_seconds: float | None = None
    is_searched: bool = False
    is_worth_it: bool = False
    notes: tuple[str, ...] = ()


ProgressListener = Callable[[IndexProgress], None]
"""Told how far a build is, from another thread."""


def ignore_progress(progress: IndexProgress) -> None:
    """Listen to nothing."""


@runtime_checkable
class SearchIndex(Protocol):
    """A store that can have an approximate index."""

    def index_status(self) -> IndexStatus:
        """Say what there is, and measure an exact search; changes nothing.

        Raises:
            ConfigError: the store has not been created.
            StoreUnavailable: it could not be looked at.
        """

    def index_ddl(self, parameters: IndexParameters) -> Sequence[str]:
        """The statements that a build runs, for people.

        Raises:
            ConfigError: see `build_index`.
        """

    def build_index(
        self, parameters: IndexParameters, listener: ProgressListener = ignore_progress
    ) -> IndexStatus:
        """Build the index while others read and write; one that is there already is kept.

        What an earlier build left unfinished is replaced, another's index never.

        Raises:
            ConfigError: the store has not been created, the parameters are out of range, the
                vectors have too many components, or an index is there that differs.
            TransientError: another build is under way.
            StoreUnavailable: no definite answer.

        Safety:
            A build that ends early leaves at most an invalid index, which no search uses and the
            next build replaces.
        """

    def drop_index_ddl(self) -> Sequence[str]:
        """The statements that `drop_index` runs, for people; empty where there is no index.

        Raises:
            ConfigError: see `drop_index`.
        """

    def drop_index(self) -> IndexStatus:
        """Drop the index while others read and write, an unfinished one too; never another's.

        Raises:
            ConfigError: the store has not been created.
            TransientError: a build is under way.
            StoreUnavailable: no definite answer.

        Safety:
            Idempotent. One that ends early leaves at most an invalid index, which no search uses
            and the next drop or build removes.
        """
