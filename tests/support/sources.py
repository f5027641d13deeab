"""Source databases for the tests: a writable handle on the same place that undrift reads."""

from __future__ import annotations

import gc
import sqlite3
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from support.rendering import note
from undrift.errors import UndriftError
from undrift.mapping import DocumentTable, EntitySpec
from undrift.mapping import Mapping as SourceMapping
from undrift.ports import OwnerContent, Source
from undrift.render import Renderer
from undrift.sources import open_source

Row = Sequence[object]


@dataclass(frozen=True)
class SourceDatabase:
    """A database that a test fills and undrift reads."""

    url: str
    path: Path | None = None

    @property
    def is_postgres(self) -> bool:
        """PostgreSQL, else SQLite."""
        return self.path is None

    def execute(self, *statements: str) -> None:
        """Run *statements*, each committed by itself."""
        for statement in statements:
            self.insert(statement, [()])

    def insert(self, statement: str, rows: Sequence[Row]) -> None:
        """Run *statement* for each of *rows*, with `?` for the parameters, in one transaction."""
        if self.path is not None:
            with closing(sqlite3.connect(self.path)) as file, file:
                file.executemany(statement, rows)
            return
        with psycopg.connect(self.url) as server, server.cursor() as cursor:
            for row in rows:
                # Without parameters no placeholders are looked for, and '%' is only a character.
                query = statement.replace("?", "%s") if row else statement
                cursor.execute(query.encode(), row or None)

    def profiles(self, rows: Sequence[Row], *, owner: str = "text", document: str = "text") -> None:
        """Create `profiles(user_id, filtered_data)` with these types and fill it."""
        self.execute(f"CREATE TABLE profiles (user_id {owner}, filtered_data {document})")
        cast = f"?::{document}" if self.is_postgres else "?"
        spelled = f"?::{owner}" if self.is_postgres else "?"
        self.insert(f"INSERT INTO profiles VALUES ({spelled}, {cast})", rows)


def sqlite_database(folder: Path, *, wal: bool = False) -> SourceDatabase:
    """An empty SQLite file in *folder*."""
    path = folder / "app.db"
    with closing(sqlite3.connect(path)) as file:
        file.execute(f"PRAGMA journal_mode = {'wal' if wal else 'delete'}")
        file.execute("VACUUM")
    return SourceDatabase(f"sqlite:///{path}", path)


@contextmanager
def documents(url: str, **layout: str) -> Iterator[Source]:
    """A source of one document per owner, closed at the end."""
    mapping = SourceMapping(documents=DocumentTable(**layout), entities=(note(),))
    with closing(open_source(url, mapping, Renderer(mapping).fields)) as source:
        yield source


@contextmanager
def tables(url: str, *entities: EntitySpec) -> Iterator[Source]:
    """A source of one row per entity, closed at the end."""
    mapping = SourceMapping(documents=None, entities=entities)
    with closing(open_source(url, mapping, Renderer(mapping).fields)) as source:
        yield source


def table_note(**settings: object) -> EntitySpec:
    """Notes from the table `notes(uid, id, text)`."""
    return note(**{"path": None, "table": "notes", "owner": "uid", **settings})


def pages_of(source: Source, page_owners: int, after: str | None = None) -> list[list[str]]:
    """All pages; a source that goes round in circles ends in an error."""
    pages: list[list[str]] = []
    for page in source.owner_pages(page_owners, after):
        pages.append(list(page))
        assert len(pages) < 1000, "the pages do not end"
    return pages


def owners_of(source: Source, page_owners: int = 100) -> list[str]:
    """All owners, in the pages' order."""
    return [owner for page in pages_of(source, page_owners) for owner in page]


def texts_in(content: OwnerContent) -> list[str]:
    """The `text` fields of all elements, sorted."""
    return sorted(
        str(element.fields["text"]) for elements in content.elements() for element in elements
    )


def read(source: Source, *owners: str) -> list[tuple[str, list[str]]]:
    """What a read of *owners* yields, each with its texts, by owner; none is left out."""
    return sorted((content.owner_id, texts_in(content)) for content in source.read(owners))


def failures(source: Source) -> list[UndriftError]:
    """The errors of every way to read *source*; none of them may succeed."""
    found = []
    for attempt in (
        lambda: pages_of(source, 1),
        lambda: list(source.read(["ann", "bob"])),
        lambda: source.present(["ann"]),
    ):
        with pytest.raises(UndriftError) as caught:
            attempt()
        found.append(caught.value)
    return found


def shown(error: UndriftError) -> str:
    """Everything that a program which logs *error* shows: message, causes and traceback."""
    return "".join(traceback.format_exception(error))


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """Fail if what is dropped inside was not closed: a cursor, a connection, a file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        gc.collect()
        caught.clear()  # what tests before this one have dropped
        yield
        gc.collect()
    left = sorted({str(warning.message)[:60] for warning in caught})
    assert not left, left
