"""Owners in every type of column: listed once, found by their own spelling and by no other."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from support.sources import (
    SourceDatabase,
    documents,
    owners_of,
    pages_of,
    read,
    sqlite_database,
    table_note,
    tables,
)
from undrift.errors import ConfigError
from undrift.ports import Source

UUIDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in (1, 2, 16, 255)]

# For each type what is stored and how it prints, in the column's own order.
POSTGRES_COLUMNS: dict[str, list[tuple[object, str]]] = {
    "integer": [(-1, "-1"), (0, "0"), (2, "2"), (10, "10"), (2**31 - 1, "2147483647")],
    "bigint": [(2, "2"), (10, "10"), (2**63 - 1, str(2**63 - 1))],
    "smallint": [(2, "2"), (10, "10")],
    "text": [(name, name) for name in ("", " ", "%", "'; --", "10", "2", "Ann", "ann", "é")],
    "varchar(9)": [(name, name) for name in ("10", "2", "Ann", "ann", "ann ")],
    "char(4)": [("10", "10  "), ("Ann", "Ann "), ("ann", "ann "), ("four", "four")],
    "uuid": [(name, name) for name in UUIDS],
    # By their texts, since equal numbers may print differently.
    "numeric": [(10, "10"), (10**30, str(10**30)), (2, "2"), ("2.50", "2.50"), ("NaN", "NaN")],
    "numeric(9,2)": [(10, "10.00"), (2, "2.00"), ("2.5", "2.50")],
    "date": [("2020-01-01", "2020-01-01"), ("2020-02-01", "2020-02-01")],
    "boolean": [(False, "false"), (True, "true")],
    "name": [("Ann", "Ann"), ("ann", "ann")],
}
SQLITE_COLUMNS: dict[str, list[tuple[object, str]]] = {
    "integer": [(-1, "-1"), (0, "0"), (2, "2"), (10, "10"), (2**63 - 1, str(2**63 - 1))],
    "text": POSTGRES_COLUMNS["text"],
    "varchar(9)": POSTGRES_COLUMNS["varchar(9)"],
    "char(4)": [("10", "10"), ("Ann", "Ann"), ("ann", "ann")],
    "uuid": [(name, name) for name in UUIDS],
    "": [(2, "2"), (10, "10"), ("Ann", "Ann"), ("ann", "ann")],
    "blob": [(2, "2"), (10, "10"), ("Ann", "Ann")],
}
COLUMNS = [
    *(("postgres", column) for column in POSTGRES_COLUMNS),
    *(("sqlite", column) for column in SQLITE_COLUMNS),
]


@pytest.fixture
def sqlite(tmp_path: Path) -> SourceDatabase:
    """An empty SQLite file."""
    return sqlite_database(tmp_path)


@pytest.fixture
def postgres(postgres_url: str) -> SourceDatabase:
    """An empty PostgreSQL database."""
    return SourceDatabase(postgres_url)


@pytest.fixture
def database(request: pytest.FixtureRequest, server: str) -> SourceDatabase:
    """The database of the parameter `server`."""
    database: SourceDatabase = request.getfixturevalue(server)
    return database


def printed(server: str, column: str) -> list[str]:
    """The owners of a filled column, as they print and in its order."""
    columns = POSTGRES_COLUMNS if server == "postgres" else SQLITE_COLUMNS
    return [spelled for _, spelled in columns[column]]


def filled(database: SourceDatabase, column: str) -> None:
    """`profiles` with one row per owner, and one without."""
    columns = POSTGRES_COLUMNS if database.is_postgres else SQLITE_COLUMNS
    rows = [(stored, "{}") for stored, _ in columns[column]]
    database.profiles([*reversed(rows), (None, "{}")], owner=column)


def flat(pages: list[list[str]]) -> list[str]:
    """All owners of *pages*."""
    return [owner for page in pages for owner in page]


# --- pages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("server", "column"), COLUMNS)
def test_pages_list_every_owner_once(database: SourceDatabase, server: str, column: str) -> None:
    """In the column's order, whatever the size of a page."""
    filled(database, column)
    expected = printed(server, column)
    with documents(database.url) as source:
        for size in (1, 2, len(expected), len(expected) + 1):
            pages = pages_of(source, size)
            assert flat(pages) == expected
            assert all(len(page) == size for page in pages[:-1])
            assert 0 < len(pages[-1]) <= size


@pytest.mark.parametrize(("server", "column"), COLUMNS)
def test_every_listed_owner_is_read(database: SourceDatabase, server: str, column: str) -> None:
    """An owner that is listed and not read would look deleted."""
    filled(database, column)
    expected = printed(server, column)
    with documents(database.url) as source:
        assert read(source, *expected) == sorted((owner, []) for owner in expected)
        assert source.present(expected) == set(expected)
        for owner in expected:
            assert read(source, owner) == [(owner, [])]


@pytest.mark.parametrize(("server", "column"), COLUMNS)
def test_listing_goes_on_behind_any_owner(
    database: SourceDatabase, server: str, column: str
) -> None:
    """A run that was interrupted is resumed with the last owner it saw."""
    filled(database, column)
    expected = printed(server, column)
    with documents(database.url) as source:
        for place, owner in enumerate(expected):
            assert flat(pages_of(source, 2, after=owner)) == expected[place + 1 :]


@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_rows_that_come_while_paging_do_not_disturb(database: SourceDatabase, server: str) -> None:
    """Owners that were there all along are listed once; new ones behind the page are seen."""
    database.profiles([(owner, "{}") for owner in ("b", "d", "f", "h")])
    with documents(database.url) as source:
        found: list[str] = []
        for page in source.owner_pages(1):
            found.extend(page)
            if page == ["d"]:
                database.execute(
                    "INSERT INTO profiles VALUES ('a', '{}'), ('c', '{}'), ('g', '{}')",
                    "DELETE FROM profiles WHERE user_id = 'b'",
                )
    assert found == ["b", "d", "f", "g", "h"]


@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_pages_of_tables_are_the_union(database: SourceDatabase, server: str) -> None:
    """An owner in two tables is listed once, in order, at every size of a page."""
    database.execute(
        "CREATE TABLE notes (uid integer, id integer, text text)",
        "CREATE TABLE others (uid integer, id integer, text text)",
        "INSERT INTO notes VALUES (10, 1, 'A'), (2, 1, 'A'), (NULL, 1, 'A'), (2, 2, 'B')",
        "INSERT INTO others VALUES (3, 1, 'A'), (10, 1, 'A'), (1, 1, 'A')",
    )
    other = table_note(kind="other", table="others")
    with tables(database.url, table_note(), other) as source:
        for size in (1, 2, 3, 4, 5):
            pages = pages_of(source, size)
            assert flat(pages) == ["1", "2", "3", "10"]
            assert all(len(page) == size for page in pages[:-1])
        assert flat(pages_of(source, 2, after="2")) == ["3", "10"]


# --- spellings --------------------------------------------------------------------------------

# Spellings that a database might take for a stored 7 or 'ann'.
NOT_SEVEN = ["007", "+7", " 7", "7 ", "7.0", "7e0", "0x7", "٧", "７", "7_", "0_7", "true", "-7"]
NOT_ANN = ["Ann", "ANN", "ann ", " ann", "an", "annn", "a%", "an_", "ａｎｎ", "ánn"]
HOSTILE = [
    "'; DROP TABLE profiles; --",
    "' OR '1'='1",
    "%",
    "_",
    "",
    " ",
    "NULL",
    "None",
    "\x00",
    "7\x00",
    "ann\x00",
    "\ud800",
    "x" * 100_000,
    "1" * 5_000,
    "NaN",
    "sNaN",
    "-NaN",
    "Infinity",
    "nan",
    "inf",
    "-inf",
    "-0",
    "1e400",
    "1E+1000000",
    str(2**15),
    str(2**31),
    str(2**40),
    str(2**63),
    str(2**64),
    str(2**70),
    "-" + str(2**70),
]
SEVENS = ["integer", "bigint", "smallint", "numeric", "text", "uuid", "boolean", "date"]


def stored_seven(column: str) -> object:
    """A value of that type that somebody might call 7."""
    known = {"uuid": UUIDS[0], "boolean": True, "date": "2020-01-07"}
    return known.get(column, 7)


def finds_nothing(source: Source, owner: str) -> bool:
    """Whether neither way of asking finds *owner*, without an error."""
    return read(source, owner) == [] and source.present([owner]) == frozenset()


@pytest.mark.parametrize("column", SEVENS)
def test_no_other_spelling_is_the_owner_in_postgresql(
    postgres: SourceDatabase, column: str
) -> None:
    """'007' is not user 7; a name that no such column can hold is nobody, not an error."""
    postgres.profiles([(stored_seven(column), "{}")], owner=column)
    with documents(postgres.url) as source:
        (seven,) = owners_of(source)
        names = [name for name in [*NOT_SEVEN, *HOSTILE] if name != seven]
        wrong = [name for name in names if not finds_nothing(source, name)]
        assert [ascii(name)[:30] for name in wrong] == []
        assert read(source, seven, *names) == [(seven, [])]


@pytest.mark.parametrize("owner", [str(2**15), str(2**31), str(2**40), str(2**70), "1E+1000000"])
@pytest.mark.parametrize("column", ["smallint", "integer", "bigint", "numeric"])
def test_number_that_the_column_cannot_hold_is_nobody(
    postgres: SourceDatabase, column: str, owner: str
) -> None:
    """One wrong argument must not make the other owners of its page unknown."""
    postgres.profiles([(7, "{}")], owner=column)
    with documents(postgres.url) as source:
        assert read(source, "7", owner) == [("7", [])]
        assert source.present([owner]) == frozenset()


@pytest.mark.parametrize("column", ["integer", "text", "", "numeric", "real", "blob", "varchar(9)"])
def test_no_other_spelling_is_the_owner_in_sqlite(sqlite: SourceDatabase, column: str) -> None:
    """Whatever SQLite would convert for a comparison."""
    sqlite.profiles([(7, "{}")], owner=column)
    with documents(sqlite.url) as source:
        (seven,) = owners_of(source)
        names = [name for name in [*NOT_SEVEN, *HOSTILE] if name != seven]
        wrong = [name for name in names if not finds_nothing(source, name)]
        assert [ascii(name)[:30] for name in wrong] == []
        assert read(source, seven) == [(seven, [])]


@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_no_other_spelling_is_a_texts_owner(database: SourceDatabase, server: str) -> None:
    """Neither case, nor white space, nor a pattern, nor a look-alike."""
    database.profiles([("ann", "{}")])
    with documents(database.url) as source:
        wrong = [name for name in [*NOT_ANN, *HOSTILE] if not finds_nothing(source, name)]
        assert [ascii(name)[:30] for name in wrong] == []


@pytest.mark.parametrize("column", ["mood", "level"])
def test_types_of_ones_own_hold_owners_too(postgres: SourceDatabase, column: str) -> None:
    """An enumeration and a domain; what they cannot hold is nobody."""
    postgres.execute(
        "CREATE TYPE mood AS ENUM ('calm', 'glad')",
        "CREATE DOMAIN level AS text CHECK (value <> '')",
    )
    postgres.profiles([("calm", "{}"), ("glad", "{}")], owner=column)
    with documents(postgres.url) as source:
        assert owners_of(source, 1) == ["calm", "glad"]
        assert read(source, "glad", "nobody", "") == [("glad", [])]


# --- columns that hold more than one thing ----------------------------------------------------


def note(text: str) -> str:
    """A document with one note."""
    return f'{{"notes": [{{"text": "{text}"}}]}}'


def test_number_and_text_that_print_alike_are_one_owner(sqlite: SourceDatabase) -> None:
    """A column without a type may hold 1 and '1': both are user 1's, and listed once."""
    sqlite.profiles(
        [(1, note("A")), (2, note("B")), ("1", note("C")), ("ann", note("D"))], owner=""
    )
    with documents(sqlite.url) as source:
        assert read(source, "1", "2", "ann") == [("1", ["A", "C"]), ("2", ["B"]), ("ann", ["D"])]
        assert read(source, "1") == [("1", ["A", "C"])]
        for size in (1, 2, 10):
            assert sorted(owners_of(source, size)) == ["1", "2", "ann"]


def test_number_and_text_that_print_alike_are_one_owner_of_a_table(sqlite: SourceDatabase) -> None:
    """The same with a row per entity."""
    sqlite.execute(
        "CREATE TABLE notes (uid, id, text)",
        "INSERT INTO notes VALUES (1, 1, 'A'), (2, 1, 'B'), ('1', 2, 'C')",
    )
    with tables(sqlite.url, table_note()) as source:
        assert read(source, "1") == [("1", ["A", "C"])]
        for size in (1, 2, 10):
            assert sorted(owners_of(source, size)) == ["1", "2"]


@pytest.mark.parametrize("collation", ["nocase", "rtrim"])
def test_spellings_that_a_collation_confuses_are_owners_of_their_own(
    sqlite: SourceDatabase, collation: str
) -> None:
    """Every spelling is listed, and each is read with all of its rows and no others."""
    twin = "Ann" if collation == "nocase" else "ann "
    rows = [("ann", note("A")), (twin, note("B")), ("ann", note("C")), ("bob", note("D"))]
    sqlite.profiles(rows, owner=f"text collate {collation}")
    with documents(sqlite.url) as source:
        assert read(source, "ann") == [("ann", ["A", "C"])]
        assert read(source, twin) == [(twin, ["B"])]
        assert read(source, "ANN", "ann  ") == []
        assert source.present([twin, "ANN"]) == {twin}
        for size in (1, 2, 10):
            assert sorted(owners_of(source, size)) == sorted(["ann", twin, "bob"])


def test_owner_that_is_a_blob_is_read_or_refused(sqlite: SourceDatabase) -> None:
    """A UUID in sixteen bytes has no spelling of its own, but it must not look absent."""
    sqlite.profiles([("ann", note("A"))], owner="")
    sqlite.execute("INSERT INTO profiles VALUES (X'0011223344556677', '{}')")
    with documents(sqlite.url) as source:
        try:
            listed = owners_of(source)
        except ConfigError:
            return
        assert [owner for owner, _ in read(source, *listed)] == sorted(listed)


@pytest.mark.parametrize("owner", ["CAST(X'61ff' AS text)", "'a' || char(0) || 'b'"])
def test_owner_that_no_store_takes_is_listed_and_unreadable_not_absent(
    sqlite: SourceDatabase, owner: str
) -> None:
    """Bytes that are not UTF-8, or a NUL: that owner is unknown, and all others are listed."""
    sqlite.profiles([("a", note("A")), ("z", note("Z"))])
    sqlite.execute(f"INSERT INTO profiles VALUES ({owner}, '{note('B')}')")
    with documents(sqlite.url) as source:
        for size in (1, 2, 10):
            first, odd, last = owners_of(source, size)
            assert (first, last) == ("a", "z")
            assert {owner for owner, _ in read(source, first, odd, last)} == {first, odd, last}


@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_order_is_strictly_ascending(database: SourceDatabase, server: str) -> None:
    """So that a run can go on behind the last owner of a page."""
    names = ["b", "a", "é", "Z", "z", "10", "9", "a b", "a-b", "ab", "\U0001f600", "ﬁ"]
    database.profiles([(name, "{}") for name in names])
    with documents(database.url) as source:
        found = owners_of(source, 3)
    assert sorted(found) == sorted(names)
    assert all(one < other for one, other in pairwise(found))
