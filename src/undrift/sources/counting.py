"""How many owners a database has, told in a fraction of a second however many there are.

They are counted where that is quick. Else PostgreSQL's planner is asked: it knows each table's size
and how many values a column has. SQLite's knows nothing of the kind; there a look at a few places
tells how densely owners follow each other whose ids are numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from undrift.errors import SourceUnavailable
from undrift.headcount import Headcount
from undrift.sources.database import Database
from undrift.sources.owners import Verbatim

COUNT_SECONDS = 0.25
"""Counting that takes longer is given up."""

CHEAP_COST = 10_000.0
"""Of a count, in the units of PostgreSQL's planner: that many pages read, or about 300,000 rows."""

PLACES = 64
"""Where SQLite is looked at."""

OWNERS_AT_PLACE = 200

_UNKNOWN_TO_PLANNER = 200
"""PostgreSQL's DEFAULT_NUM_DISTINCT: of a column that was never analysed and is not unique."""

_STEPS = 1_000  # of SQLite's machine between two looks at the clock; takes some 10 microseconds
_NO_LONGER = sa.text("SELECT set_config('statement_timeout', :milliseconds, true)")


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerQueries:
    """The queries of a layout that owners can be counted by.

    Attributes:
        distinct: the distinct owners of each table.
        columns: the owner column of each table, for its least and its greatest value.
        behind: the first owners behind a value, so many at most.
    """

    distinct: Sequence[sa.Select[Any]]
    columns: Sequence[sa.ColumnElement[Any]]
    behind: Callable[[object, int], sa.Select[Any]]


def headcount(database: Database, queries: OwnerQueries) -> Headcount | None:
    """How many owners there are; None where it cannot be told quickly.

    Raises:
        ConfigError: the database refused a query.
        SourceUnavailable: it cannot be reached.
        IncompleteRead: a policy hides rows from this role.
    """
    if database.is_postgres:
        return _by_planner(database, queries)
    found = _counted(database, queries)
    return _by_density(database, queries) if found is None else found


def _counted(database: Database, queries: OwnerQueries) -> Headcount | None:
    """All of them, one by one; None where that takes too long."""
    first, *others = queries.distinct
    everybody = sa.union(first, *others).subquery() if others else first.subquery()
    counting = sa.select(sa.func.count()).select_from(everybody)
    try:
        with database.snapshot() as connection, _hurry(database, connection):
            return Headcount(connection.scalar(counting) or 0)
    except SourceUnavailable:
        return None  # too slow; and whoever cannot be reached is not reached by the next query


@contextmanager
def _hurry(database: Database, connection: Connection) -> Iterator[None]:
    """Let a statement fail that takes too long."""
    if database.is_postgres:
        connection.execute(_NO_LONGER, {"milliseconds": str(round(COUNT_SECONDS * 1000))})
        yield
        return
    driver = connection.connection.driver_connection
    assert driver is not None
    ends = time.monotonic() + COUNT_SECONDS
    driver.set_progress_handler(lambda: time.monotonic() > ends, _STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


# --- PostgreSQL -----------------------------------------------------------------------------------


class _Explained(sa.sql.expression.Executable, sa.sql.expression.ClauseElement):
    """The plan of a statement, which is not run."""

    inherit_cache = False

    def __init__(self, statement: sa.Select[Any]) -> None:
        self.statement = statement


@compiles(_Explained)
def _explain(element: _Explained, compiler: SQLCompiler, **options: object) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **options)}"


def _by_planner(database: Database, queries: OwnerQueries) -> Headcount | None:
    cost, owners = 0.0, 0
    with database.snapshot() as connection:
        for statement in queries.distinct:
            [[[explained]]] = connection.execute(_Explained(statement)).all()
            plan = explained["Plan"]
            cost += plan["Total Cost"]
            # Nearly everybody has rows in the table with the most owners.
            owners = max(owners, plan["Plan Rows"])
    counted = _counted(database, queries) if cost <= CHEAP_COST else None
    if counted is not None:
        return counted
    return None if owners == _UNKNOWN_TO_PLANNER else Headcount(owners, is_estimate=True)


# --- SQLite ---------------------------------------------------------------------------------------


def _by_density(database: Database, queries: OwnerQueries) -> Headcount | None:
    """From how many owners there are to so many numbers in a few places; None for other ids."""
    columns = [sa.type_coerce(column, Verbatim()) for column in queries.columns]
    with database.snapshot() as connection:
        ends = [connection.scalar(sa.select(end(c))) for c in columns for end in _ENDS]
        numbers = [value for value in ends if value is not None]
        if not numbers or not all(isinstance(value, int) for value in numbers):
            return None
        begin, end = min(numbers), max(numbers) + 1

        def look(low: int, high: int) -> _Stretch:
            behind = None if low == begin else low - 1
            found = connection.scalars(queries.behind(behind, OWNERS_AT_PLACE)).all()
            return _Stretch.seen(low, high, found)

        # Again and again at the stretch of which the least is known: where owners are dense.
        stretches = [look(begin, end)]
        for _ in range(PLACES):
            widest = heappop(stretches)
            middle = (widest.low + widest.high) // 2
            heappush(stretches, _Stretch.seen(widest.low, middle, widest.found))
            heappush(stretches, look(middle, widest.high))
    return Headcount(round(sum(each.owners for each in stretches)), is_estimate=True)


class _Stretch(NamedTuple):
    """Some numbers, and how many owners they are likely to be of.

    Attributes:
        rank: the lower, the more owners are only guessed.
        found: the first owners from *low* on; behind the last there may be more.
    """

    rank: float
    low: int
    high: int
    owners: float
    found: Sequence[int]

    @classmethod
    def seen(cls, low: int, high: int, found: Sequence[int]) -> _Stretch:
        """The numbers from *low* on, below *high*, where the first owners are these."""
        within = [number for number in found if number < high]
        if len(within) < OWNERS_AT_PLACE:
            return cls(0.0, low, high, len(within), found)
        # As densely as these follow each other; there may be a desert before them.
        density = (len(within) - 1) / (within[-1] - within[0])
        owners = len(within) + (high - 1 - within[-1]) * density
        return cls(len(within) - owners, low, high, owners, found)


_ENDS = (sa.func.min, sa.func.max)
