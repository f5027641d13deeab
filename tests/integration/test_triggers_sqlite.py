"""Change capture in a SQLite file: rows that vanish without a delete, and an application's ways."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from support.capture import EVERYBODY, Capture, of_documents, of_tables
from support.sources import SourceDatabase, sqlite_database
from undrift.errors import ConfigError, TransientError, UnsupportedError


@pytest.fixture
def database(tmp_path: Path) -> SourceDatabase:
    """An empty file."""
    return sqlite_database(tmp_path)


def schema_of(database: SourceDatabase) -> list[tuple[str, str, str]]:
    """Everything that the file's schema says."""
    assert database.path is not None
    with closing(sqlite3.connect(database.path)) as file:
        query = "SELECT type, name, coalesce(sql, '') FROM sqlite_master ORDER BY type, name"
        return file.execute(query).fetchall()


@pytest.fixture
def new_capture(database: SourceDatabase) -> Iterator[Capture]:
    """Triggers on a table of notes that exists by then."""
    database.execute("CREATE TABLE notes (uid text, id INTEGER PRIMARY KEY, text text, mail text)")
    with of_tables(database) as capture:
        yield capture


# --- rows that make room ------------------------------------------------------------------------

UNIQUE_KEYS = {
    "rowid": ("id INTEGER PRIMARY KEY, mail text", ""),
    "primary key": ("id text PRIMARY KEY, mail text", ""),
    "without rowid": ("id text PRIMARY KEY, mail text", "WITHOUT ROWID"),
    "pair": ("id text, mail text, PRIMARY KEY (id, mail)", ""),
    "pair without rowid": ("id text, mail text, PRIMARY KEY (id, mail)", "WITHOUT ROWID"),
    "constraint": ("mail text, id text UNIQUE", ""),
    "collation": ("mail text, id text UNIQUE COLLATE NOCASE", ""),
    "index": ("mail text, id text", "CREATE UNIQUE INDEX u ON notes (id, mail DESC)"),
    "collated index": ("mail text, id text", "CREATE UNIQUE INDEX u ON notes (id COLLATE nocase)"),
    "partial": (
        "mail text, id text",
        "CREATE UNIQUE INDEX \"u (\" ON notes (id) WHERE mail <> 'where )' -- ,",
    ),
    "expression": (
        "mail text, id text",
        "CREATE UNIQUE INDEX u ON notes (lower(id), mail || ',' /* , */ DESC) WHERE mail = 'm'",
    ),
    "rowid of another name": ("rowid text, id INTEGER PRIMARY KEY, mail text", ""),
}


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("key", UNIQUE_KEYS)
def test_row_that_makes_room_marks_its_owner(
    database: SourceDatabase, key: str, recursive: bool
) -> None:
    """By REPLACE INTO and UPDATE OR REPLACE, whichever unique key stood in the way."""
    columns, more = UNIQUE_KEYS[key]
    index = [more] if more.startswith("CREATE") else []
    tail = "" if index else more
    database.execute(f"CREATE TABLE notes (uid text, text text, {columns}) {tail}", *index)
    row = "INTO notes (uid, text, id, mail) VALUES"
    same = "'A'" if key in ("collation", "collated index", "expression") else "'a'"
    one, same, two = ("1", "1", "2") if "INTEGER" in columns else ("'a'", same, "'b'")
    with of_tables(database) as capture, closing(sqlite3.connect(database.path or "")) as app:
        assert capture.install().is_fine
        app.execute(f"PRAGMA recursive_triggers = {recursive}")

        def marked(statement: str) -> list[str]:
            with app:
                app.execute(statement)
            return capture.marked()

        assert marked(f"INSERT {row} ('ann', 'x', {one}, 'm')") == ["ann"]
        assert marked(f"REPLACE {row} ('bob', 'x', {same}, 'm')") == ["ann", "bob"]
        assert marked(f"INSERT {row} ('cid', 'x', {two}, 'm')") == ["cid"]
        taken = f"UPDATE OR REPLACE notes SET id = {one} WHERE uid = 'cid'"
        assert marked(taken) == ["bob", "cid"]
        assert marked("UPDATE notes SET text = text") == []
        assert app.execute("SELECT count(*) FROM notes").fetchone() == (1,)


def test_triggers_on_deletes_alone_would_miss_the_row_that_makes_room(
    new_capture: Capture,
) -> None:
    """The control of the tests above."""
    new_capture.install()
    new_capture.database.execute(
        'DROP TRIGGER "undrift_notes_replace"',
        "INSERT INTO notes VALUES ('ann', 1, 'x', 'm')",
    )
    new_capture.marked()
    assert new_capture.run("REPLACE INTO notes VALUES ('bob', 1, 'x', 'm')") == ["bob"]


def test_upsert_marks_old_and_new_owner(new_capture: Capture) -> None:
    """INSERT … ON CONFLICT DO UPDATE."""
    new_capture.install()
    write = (
        "INSERT INTO notes VALUES ('{}', 1, 'x', 'm') ON CONFLICT (id) DO UPDATE SET "
        "uid = excluded.uid"
    )
    assert new_capture.run(write.format("ann")) == ["ann"]
    assert new_capture.run(write.format("bob")) == ["ann", "bob"]


def test_delete_of_everything_marks_everyone_by_name(new_capture: Capture) -> None:
    """SQLite empties a table without looking at its rows, unless there is a trigger."""
    new_capture.install()
    new_capture.run("INSERT INTO notes VALUES ('ann', 1, 'x', 'm'), ('bob', 2, 'x', 'm')")
    assert new_capture.run("DELETE FROM notes") == ["ann", "bob"]


def test_spelling_counts_whatever_the_collation(database: SourceDatabase) -> None:
    """'ann' and 'ANN' are two owners."""
    database.execute(
        "CREATE TABLE notes (uid text COLLATE NOCASE, id int, text text COLLATE NOCASE)"
    )
    with of_tables(database) as capture:
        capture.install()
        capture.run("INSERT INTO notes VALUES ('ann', 1, 'x')")
        assert capture.run("UPDATE notes SET uid = 'ANN'") == ["ANN", "ann"]
        assert capture.run("UPDATE notes SET text = 'X'") == ["ANN"]


# --- the application's file ---------------------------------------------------------------------


def test_only_the_table_of_marks_and_the_triggers_go_into_the_file_and_out_again(
    new_capture: Capture,
) -> None:
    """Not even a row of SQLite's own stays behind."""
    before = schema_of(new_capture.database)
    new_capture.install()
    added = [row for row in schema_of(new_capture.database) if row not in before]
    assert {kind for kind, _, _ in added} == {"table", "trigger"}
    assert [name for kind, name, _ in added if kind == "table"] == ["undrift_change"]
    new_capture.run("INSERT INTO notes VALUES ('ann', 1, 'x', 'm')")
    new_capture.triggers.remove()
    assert schema_of(new_capture.database) == before


def test_application_sees_nothing_of_the_triggers_in_its_own_counters(
    new_capture: Capture,
) -> None:
    """The id of the last row and the number of changed ones; also where schemas are not trusted."""
    new_capture.install()
    with closing(sqlite3.connect(new_capture.database.path or "")) as app, app:
        app.execute("PRAGMA trusted_schema = OFF")
        cursor = app.execute("INSERT INTO notes VALUES ('ann', 41, 'x', 'm')")
        assert (cursor.lastrowid, cursor.rowcount) == (41, 1)
        cursor = app.execute("UPDATE notes SET text = 'y'")
        assert cursor.rowcount == 1
        assert app.execute("SELECT changes()").fetchone() == (1,)
    assert new_capture.marked() == ["ann"]


def test_table_that_a_migration_rebuilt_is_noticed_and_mended(new_capture: Capture) -> None:
    """Triggers go with the table that they were on."""
    new_capture.install()
    new_capture.database.execute(
        "CREATE TABLE new_notes (uid text, id INTEGER PRIMARY KEY, text text)",
        "DROP TABLE notes",
        "ALTER TABLE new_notes RENAME TO notes",
    )
    assert any("lacks the triggers" in line for line in new_capture.triggers.status().problems)
    assert new_capture.triggers.install().is_fine
    assert new_capture.marked() == [EVERYBODY]
    assert new_capture.run("INSERT INTO notes VALUES ('ann', 1, 'x')") == ["ann"]


def test_renamed_column_goes_on_being_watched(new_capture: Capture) -> None:
    """SQLite renames it in the triggers, too."""
    new_capture.install()
    new_capture.database.execute("ALTER TABLE notes RENAME COLUMN mail TO address")
    assert new_capture.run("INSERT INTO notes VALUES ('ann', 1, 'x', 'm')") == ["ann"]


def test_new_unique_key_is_noticed(new_capture: Capture) -> None:
    """The triggers look for rows in its way only after the next installation."""
    new_capture.install()
    new_capture.database.execute("CREATE UNIQUE INDEX u ON notes (mail)")
    assert any("outdated" in line for line in new_capture.triggers.status().problems)
    new_capture.install()
    new_capture.run("INSERT INTO notes VALUES ('ann', 1, 'x', 'm')")
    assert new_capture.run("REPLACE INTO notes VALUES ('bob', 2, 'x', 'm')") == ["ann", "bob"]


def test_installation_gives_up_when_the_file_is_not_free(new_capture: Capture) -> None:
    """And changes nothing; the application goes on."""
    before = schema_of(new_capture.database)
    with closing(sqlite3.connect(new_capture.database.path or "")) as app:
        app.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError, match=r"was not free within 0\.05 s"):
            new_capture.triggers.install(lock_timeout_seconds=0.05)
        app.execute("INSERT INTO notes VALUES ('ann', 1, 'x', 'm')")
        app.commit()
    assert schema_of(new_capture.database) == before


def test_virtual_table_and_notification_are_refused(database: SourceDatabase) -> None:
    """Neither is there to be had."""
    database.execute("CREATE VIRTUAL TABLE notes USING fts5(uid, id, text)")
    with (
        of_tables(database) as capture,
        pytest.raises(UnsupportedError, match="virtual table"),
    ):
        capture.triggers.install()
    database.profiles([])
    with (
        of_documents(database) as capture,
        pytest.raises(UnsupportedError, match="cannot notify"),
    ):
        capture.triggers.install(notify=True)


def test_marks_are_counted_while_the_application_writes(new_capture: Capture) -> None:
    """Eight threads of it and two workers; whoever wrote is marked after the last write."""
    new_capture.install()
    path = new_capture.database.path or ""
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA journal_mode = WAL")
    seen: dict[str, int] = {}
    written: dict[str, int] = {}
    is_over = threading.Event()
    failures: list[Exception] = []

    def look(owners: object) -> None:
        with closing(sqlite3.connect(path, timeout=30)) as file:
            for owner in owners if isinstance(owners, list) else []:
                (count,) = file.execute(
                    "SELECT count(*) FROM notes WHERE uid = ?", (owner,)
                ).fetchone()
                seen[owner] = max(seen.get(owner, 0), count)

    def write(writer: int) -> None:
        with closing(sqlite3.connect(path, timeout=30)) as app:
            for turn in range(25):
                owner = f"u{(writer * 7 + turn) % 10}"
                with app:
                    app.execute("INSERT INTO notes (uid, text) VALUES (?, 'x')", (owner,))

    def drain() -> None:
        try:
            while not is_over.is_set() or new_capture.feed.pending().marks:
                if new_capture.feed.drain(20, look, lambda: None) == 0:
                    new_capture.feed.wait(0.01)
        except Exception as exc:  # noqa: BLE001  told by the main thread
            failures.append(exc)

    drainers = [threading.Thread(target=drain) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in (*drainers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    is_over.set()
    for thread in drainers:
        thread.join()
    assert not failures
    with closing(sqlite3.connect(path)) as file:
        written = dict(file.execute("SELECT uid, count(*) FROM notes GROUP BY uid").fetchall())
    assert sum(written.values()) == 200
    assert seen == written


def test_file_that_may_not_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    """With what to do about it."""
    folder = tmp_path / "readonly"
    folder.mkdir()
    database = sqlite_database(folder)
    database.profiles([])
    assert database.path is not None
    # A file whose header says that only readers of a later format may read it is read-only.
    content = bytearray(database.path.read_bytes())
    content[18] = 3
    database.path.write_bytes(content)
    with of_documents(database) as capture, pytest.raises(ConfigError, match="cannot be written"):
        capture.triggers.install()
