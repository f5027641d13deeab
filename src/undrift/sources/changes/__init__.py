"""Change capture: triggers that append a mark for every owner whose rows a statement touched.

`tracked` says which tables and columns, `postgres_sql` and `sqlite_sql` which statements. Marks
are appended and never counted up in place: a counter for each owner would make transactions of the
application wait for each other, and deadlock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from undrift.changes import ChangeFeed, Triggers
from undrift.sources.changes.tracked import TrackedTable
from undrift.sources.database import Database

Tracked = Callable[[], Sequence[TrackedTable]]
"""Asks the database for the tables; called when they are first needed."""


def open_triggers(database: Database, tracked: Tracked) -> Triggers:
    """The triggers of *database*. Connects to nothing yet."""
    if database.is_postgres:
        from undrift.sources.changes.postgres_triggers import PostgresTriggers

        return PostgresTriggers(database, tracked)
    from undrift.sources.changes.sqlite_triggers import SqliteTriggers

    return SqliteTriggers(database, tracked)


def open_feed(database: Database, tracked: Tracked) -> ChangeFeed:
    """The marks in *database*. Connects to nothing yet."""
    if database.is_postgres:
        from undrift.sources.changes.postgres_feed import PostgresFeed

        return PostgresFeed(database, tracked)
    from undrift.sources.changes.sqlite_feed import SqliteFeed

    return SqliteFeed(database, tracked)
