"""A read sees one state of the source, writes nothing, and leaves nothing behind."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from support.sources import (
    SourceDatabase,
    documents,
    nothing_left_open,
    owners_of,
    read,
    sqlite_database,
    table_note,
    tables,
    texts_in,
)
from undrift.errors import UndriftError
from undrift.sources.database import STREAM_ROWS, Database

OWNERS = [f"u{number:04}" for number in range(2 * STREAM_ROWS)]


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> SourceDatabase:
    """An empty database of either kind; SQLite with WAL, so that one may write during a read."""
    if request.param == "sqlite":
        return sqlite_database(tmp_path, wal=True)
    return SourceDatabase(request.getfixturevalue("postgres_url"))


@pytest.fixture
def sqlite(tmp_path: Path) -> SourceDatabase:
    """An empty SQLite file."""
    return sqlite_database(tmp_path)


def note(text: str) -> str:
    """A document with one note."""
    return f'{{"notes": [{{"id": 1, "text": "{text}"}}]}}'


# --- one state --------------------------------------------------------------------------------


def test_commit_in_the_middle_of_a_read_is_not_seen(database: SourceDatabase) -> None:
    """All owners of a page are read as they were when it began."""
    database.profiles([(owner, note("before")) for owner in OWNERS])
    with documents(database.url) as source:
        contents = iter(source.read([*OWNERS, "late"]))
        found = [next(contents)]
        database.insert("UPDATE profiles SET filtered_data = ?", [(note("after"),)])
        database.execute("DELETE FROM profiles WHERE user_id >= 'u0500'")
        database.insert("INSERT INTO profiles VALUES (?, ?)", [("late", note("late"))])
        found.extend(contents)
        assert sorted(content.owner_id for content in found) == OWNERS
        assert {text for content in found for text in texts_in(content)} == {"before"}
        assert dict(read(source, "u0000", "u0500", "late")) == {
            "u0000": ["after"],
            "late": ["late"],
        }


def test_all_tables_are_read_in_one_state(database: SourceDatabase) -> None:
    """A row that moves from one table to the other is in exactly one of them."""
    database.execute(
        "CREATE TABLE notes (uid text, id integer, text text)",
        "CREATE TABLE others (uid text, id integer, text text)",
    )
    rows = [(owner, 1, "moved") for owner in OWNERS]
    database.insert("INSERT INTO notes VALUES (?, ?, ?)", rows)
    with tables(database.url, table_note(), table_note(kind="other", table="others")) as source:
        contents = iter(source.read(OWNERS))
        found = [next(contents)]
        database.execute("INSERT INTO others SELECT * FROM notes", "DELETE FROM notes")
        found.extend(contents)
    assert len(found) == len(OWNERS)
    assert all(texts_in(content) == ["moved"] for content in found)


def test_snapshot_shows_one_state_to_all_its_statements(database: SourceDatabase) -> None:
    """The first statement fixes it."""
    database.profiles([("ann", note("before"))])
    count = sa.text("SELECT count(*) FROM profiles")
    with closing(Database(database.url)) as source:
        with source.snapshot() as connection:
            assert connection.scalar(count) == 1
            database.insert("INSERT INTO profiles VALUES (?, ?)", [("bob", note("after"))])
            assert connection.scalar(count) == 1
        with source.snapshot() as connection:
            assert connection.scalar(count) == 2


def test_reading_blocks_no_writer(database: SourceDatabase) -> None:
    """An application goes on while undrift is in the middle of a page."""
    database.profiles([(owner, note("A")) for owner in OWNERS])
    with documents(database.url) as source:
        contents = source.read(OWNERS)
        next(iter(contents))
        writer = threading.Thread(
            target=database.execute, args=("UPDATE profiles SET filtered_data = '{}'",)
        )
        writer.start()
        writer.join(30)
        assert not writer.is_alive()
        assert list(contents)


# --- nothing is written -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO profiles VALUES ('bob', '{}')",
        "UPDATE profiles SET filtered_data = '{}'",
        "DELETE FROM profiles",
        "CREATE TABLE undrift_was_here (id integer)",
        "DROP TABLE profiles",
    ],
)
def test_source_cannot_be_written_to(database: SourceDatabase, statement: str) -> None:
    """Not by our mistake, nor by a where condition."""
    database.profiles([("ann", note("A"))])
    with closing(Database(database.url)) as source:
        with pytest.raises(UndriftError, match=r"read-only|readonly"), source.snapshot() as c:
            c.execute(sa.text(statement))
        with source.snapshot() as connection:
            assert connection.scalar(sa.text("SELECT count(*) FROM profiles")) == 1


def test_snapshot_is_repeatable_read_and_read_only(postgres_url: str) -> None:
    """And sees all rows, or fails."""
    with closing(Database(postgres_url)) as source, source.snapshot() as connection:
        found = {
            name: connection.scalar(sa.text(f"SHOW {name}"))
            for name in ("transaction_isolation", "transaction_read_only", "row_security")
        }
    assert found == {
        "transaction_isolation": "repeatable read",
        "transaction_read_only": "on",
        "row_security": "off",
    }


def test_settings_of_a_snapshot_end_with_it(postgres_url: str) -> None:
    """Behind a pooler the connection is somebody else's next (only SET LOCAL)."""
    with closing(Database(postgres_url)) as source:
        with source.snapshot():
            pass
        assert source._engine is not None
        with source._engine.connect() as connection:
            assert connection.scalar(sa.text("SHOW row_security")) == "on"


@pytest.mark.parametrize("wal", [False, True])
def test_reading_a_sqlite_file_changes_nothing(tmp_path: Path, wal: bool) -> None:
    """Neither the file nor, where it needs none, the folder around it."""
    database = sqlite_database(tmp_path, wal=wal)
    database.profiles([("ann", note("A"))])
    before = database.path.read_bytes() if database.path else b""
    with documents(database.url) as source:
        source.describe()
        assert owners_of(source) == ["ann"]
        assert read(source, "ann") == [("ann", ["A"])]
    assert database.path is not None
    assert database.path.read_bytes() == before
    if not wal:
        assert [path.name for path in tmp_path.iterdir()] == ["app.db"]


def test_sqlite_file_with_an_odd_name_is_that_file(tmp_path: Path) -> None:
    """Percent signs, hashes and spaces are part of a path."""
    folder = tmp_path / "50% off #1 ü"
    folder.mkdir()
    database = sqlite_database(folder)
    database.profiles([("ann", note("A"))])
    with documents(database.url) as source:
        assert read(source, "ann") == [("ann", ["A"])]
    assert [path.name for path in folder.iterdir()] == ["app.db"]


# --- nothing is left behind -------------------------------------------------------------------


def test_read_that_is_given_up_gives_its_connection_back(database: SourceDatabase) -> None:
    """A hundred of them do not exhaust the pool."""
    database.profiles([(owner, note("A")) for owner in OWNERS])
    with nothing_left_open(), documents(database.url) as source:
        for _ in range(100):
            next(iter(source.read(OWNERS)))
            next(iter(source.owner_pages(1)))
        assert len(owners_of(source)) == len(OWNERS)


def test_source_may_be_used_from_several_threads(database: SourceDatabase) -> None:
    """Each reads its own snapshot, all get everything."""
    database.profiles([(owner, note(owner)) for owner in OWNERS[:100]])
    expected = [(owner, [owner]) for owner in OWNERS[:100]]
    with documents(database.url) as source, ThreadPoolExecutor(4) as threads:
        reads = [threads.submit(read, source, *OWNERS) for _ in range(8)]
        pages = [threads.submit(owners_of, source, 7) for _ in range(8)]
        assert all(done.result() == expected for done in reads)
        assert all(done.result() == OWNERS[:100] for done in pages)


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Let Python change threads as often as it can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_threads_that_begin_at_once_share_one_pool(postgres_url: str) -> None:
    """`close` gives back every connection, whoever opened it."""

    def look(source: Database, start: threading.Barrier) -> None:
        start.wait()
        with source.snapshot() as connection:
            connection.execute(sa.text("SELECT 1"))

    with nothing_left_open():
        for _ in range(20):
            source, start = Database(postgres_url), threading.Barrier(8)
            with ThreadPoolExecutor(8) as threads:
                looks = [threads.submit(look, source, start) for _ in range(8)]
            for done in looks:
                done.result()
            source.close()


def test_source_can_be_closed_twice_and_used_again(database: SourceDatabase) -> None:
    """Closing gives back connections and no more."""
    database.profiles([("ann", note("A"))])
    with documents(database.url) as source:
        source.close()
        assert owners_of(source) == ["ann"]
        source.close()
        source.close()
        assert read(source, "ann") == [("ann", ["A"])]
