"""A source under change capture: its database by SQL, its triggers, and the marks they leave."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from support.sources import SourceDatabase, documents, table_note, tables
from undrift.changes import CapturedSource, ChangeFeed, ChangeStatus, Triggers
from undrift.mapping import EntitySpec
from undrift.ports import Source

EVERYBODY = "*"


class Capture:
    """Triggers and marks of one source."""

    def __init__(self, database: SourceDatabase, triggers: Triggers, feed: ChangeFeed) -> None:
        self.database = database
        self.triggers = triggers
        self.feed = feed

    def run(self, *statements: str) -> list[str]:
        """Execute *statements* and return whom they marked."""
        self.database.execute(*statements)
        return self.marked()

    def marked(self, limit: int = 1_000) -> list[str]:
        """Take all marks; the owners, sorted, and `EVERYBODY` if everybody was marked."""
        found: set[str] = set()

        def mark(owners: Sequence[str]) -> None:
            assert list(owners) == sorted(set(owners))
            found.update(owners)

        while self.feed.drain(limit, mark, lambda: found.add(EVERYBODY)):
            pass
        return sorted(found)

    def install(self) -> ChangeStatus:
        """Install, and take the mark that an installation leaves."""
        status = self.triggers.install()
        self.marked()
        return status


@contextmanager
def capture_of(database: SourceDatabase, source: Source) -> Iterator[Capture]:
    """The capture of *source*, not installed."""
    assert isinstance(source, CapturedSource)
    with closing(source.triggers()) as triggers, closing(source.change_feed()) as feed:
        yield Capture(database, triggers, feed)


@contextmanager
def of_documents(
    database: SourceDatabase, *, url: str | None = None, **layout: str
) -> Iterator[Capture]:
    """A capture of one document per owner; *url* is another login."""
    with documents(url or database.url, **layout) as source, capture_of(database, source) as found:
        yield found


@contextmanager
def of_tables(
    database: SourceDatabase, *entities: EntitySpec, url: str | None = None
) -> Iterator[Capture]:
    """A capture of one row per entity; the table of notes by default."""
    specs = entities or (table_note(),)
    with tables(url or database.url, *specs) as source, capture_of(database, source) as found:
        yield found
