"""Digests of raw content: equal for equal content, and different for any other."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import combinations
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.postgres import PostgresServer, with_login
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
from undrift.digests import DigestingSource
from undrift.errors import IncompleteRead, SourceUnavailable
from undrift.mapping import KIND_DEFAULTS, EntitySpec
from undrift.ports import Source

OTHER = table_note(kind="other", table="others")


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


@pytest.fixture
def postgres(postgres_url: str) -> SourceDatabase:
    """An empty PostgreSQL database."""
    return SourceDatabase(postgres_url)


def digests(source: Source, *owners: str) -> dict[str, bytes]:
    """The digests of *owners*, which are those that come with their content, too."""
    assert isinstance(source, DigestingSource)
    found = dict(source.digests(owners))
    assert all(len(digest) == 32 for digest in found.values())
    read_with = list(source.read_digested(owners))
    assert {content.owner_id: digest for content, digest in read_with} == found
    plain = {content.owner_id: texts_in(content) for content in source.read(owners)}
    assert {content.owner_id: texts_in(content) for content, _ in read_with} == plain
    return found


def raw_digests(source: Source, *owners: str) -> dict[str, bytes]:
    """The same of documents that are none, so that nothing can be made of them."""
    assert isinstance(source, DigestingSource)
    found = dict(source.digests(owners))
    read_with = source.read_digested(owners)
    assert {content.owner_id: digest for content, digest in read_with} == found
    return found


@contextmanager
def encoded_database(server: PostgresServer, encoding: str) -> Iterator[SourceDatabase]:
    """A database of another encoding, dropped at the end."""
    name = f"encoded_{encoding.lower()}"
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'".encode()
        )
    try:
        yield SourceDatabase(server.url(name))
    finally:
        server.drop_database(server.url(name))


def all_differ(found: Iterable[bytes]) -> bool:
    """Whether no two are equal."""
    return all(one != other for one, other in combinations(list(found), 2))


def profile(*texts: str) -> str:
    """A document with these notes."""
    return json.dumps({"notes": [{"id": text, "text": text} for text in texts]})


# --- documents --------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["text", "json", "jsonb"])
def test_any_edit_of_a_document_changes_its_digest(database: SourceDatabase, column: str) -> None:
    """And undoing it brings the digest back."""
    variants = [profile("A"), profile("B"), profile("A", "B"), profile("é"), "{}", '{"a": null}']
    rows = [(f"u{number}", variant) for number, variant in enumerate(variants)]
    database.profiles([*rows, ("same", profile("A"))], document=column)
    owners = [owner for owner, _ in rows]
    with documents(database.url) as source:
        before = digests(source, *owners, "same", "nobody")
        assert before.pop("same") == before["u0"]
        assert sorted(before) == owners
        assert all_differ(before.values())
        database.insert(
            "UPDATE profiles SET filtered_data = ? WHERE user_id = 'u0'", [(profile("Z"),)]
        )
        edited = digests(source, *owners)
        assert edited["u0"] != before["u0"]
        assert {**edited, "u0": before["u0"]} == before
        database.insert(
            "UPDATE profiles SET filtered_data = ? WHERE user_id = 'u0'", [(profile("A"),)]
        )
        assert digests(source, *owners) == before


def test_null_an_empty_text_and_the_word_are_three_documents(database: SourceDatabase) -> None:
    """None of which is a profile; a digest says only that they differ."""
    rows = [("a", None), ("b", ""), ("c", "null"), ("d", "NULL"), ("e", "None"), ("f", " ")]
    database.profiles(rows)
    with documents(database.url) as source:
        assert all_differ(raw_digests(source, *"abcdef").values())
        assert len(raw_digests(source, *"abcdef")) == 6


def test_number_and_the_text_that_prints_alike_differ_in_sqlite(sqlite: SourceDatabase) -> None:
    """As do a blob and a text, and an integer and a float."""
    values = (5, "5", 5.0, "5.0", b"5", b"5.0", 0, 0.0, -0.0, "", b"", None, "b5", "t5", "\x00")
    sqlite.profiles([(f"u{n}", value) for n, value in enumerate(values)], document="blob")
    with documents(sqlite.url) as source:
        found = raw_digests(source, *(f"u{n}" for n in range(len(values))))
    assert len(found) == len(values)
    assert all_differ(found.values())


def test_text_that_is_not_utf8_has_a_digest_of_its_own(sqlite: SourceDatabase) -> None:
    """It ends no page."""
    sqlite.execute(
        "CREATE TABLE profiles (user_id text, filtered_data text)",
        "INSERT INTO profiles VALUES ('a', CAST(X'80' AS text)), ('b', CAST(X'81' AS text)),"
        " ('c', X'80'), ('d', '')",
    )
    with documents(sqlite.url) as source:
        assert all_differ(raw_digests(source, *"abcd").values())


def test_rows_of_one_owner_count_in_any_order(database: SourceDatabase) -> None:
    """Each of them, and how many they are."""
    a, b, c = (profile(text) for text in "ABC")
    database.profiles(
        [
            *(("one", a), ("two", b), ("one", b), ("two", a), ("single", a)),
            *(("twice", a), ("twice", a), ("thrice", a), ("thrice", a), ("thrice", a)),
            *(("others", a), ("others", c), ("null", None), ("null", a)),
        ]
    )
    with documents(database.url) as source:
        owners = owners_of(source)
        found = raw_digests(source, *owners)
        assert found["one"] == found.pop("two")
        assert all_differ(found.values())
        assert len(found) == 6


def test_digest_of_a_row_that_is_left_out_is_not_taken(database: SourceDatabase) -> None:
    """A where condition holds for digests as it does for reads."""
    database.profiles([("ann", profile("A")), ("bob", profile("B"))])
    with documents(database.url, where="user_id <> 'bob'") as source:
        assert set(digests(source, "ann", "bob")) == {"ann"}


def test_digest_needs_no_database_of_utf8(postgres_server: PostgresServer) -> None:
    """It is hashed in the database's own encoding, whatever the client's."""
    with encoded_database(postgres_server, "LATIN1") as database:
        database.profiles([("ann", profile("é")), ("bob", '{"text": "é"}'), ("cat", None)])
        with documents(database.url) as source:
            found = raw_digests(source, "ann", "bob", "cat")
            assert all_differ(found.values())
        with documents(f"{database.url}?client_encoding=latin1") as source:
            assert raw_digests(source, "ann", "bob", "cat") == found


def test_digest_of_bytes_in_a_database_without_an_encoding(postgres_server: PostgresServer) -> None:
    """What is no text in any encoding can still be hashed."""
    with encoded_database(postgres_server, "SQL_ASCII") as database:
        database.profiles([("ann", profile("A")), ("bob", profile("A"))])
        database.execute(r"UPDATE profiles SET filtered_data = E'\x80' WHERE user_id = 'bob'")
        with documents(f"{database.url}?client_encoding=utf8") as source:
            assert isinstance(source, DigestingSource)
            assert all_differ(source.digests(["ann", "bob"]).values())


# --- tables -----------------------------------------------------------------------------------

COLUMNS = "(uid text, id integer, text text, extra text)"


def noted(database: SourceDatabase) -> None:
    """Two tables of equal columns; `extra` is not mapped."""
    database.execute(
        f"CREATE TABLE notes {COLUMNS}",
        f"CREATE TABLE others {COLUMNS}",
        "INSERT INTO notes VALUES ('ann', 1, 'A', 'x'), ('ann', 2, 'B', 'x'), ('bob', 1, 'A', 'x')",
        "INSERT INTO others VALUES ('ann', 3, 'C', 'x'), ('cat', 1, 'A', 'x')",
    )


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE notes SET text = 'a' WHERE id = 1",
        "UPDATE notes SET text = NULL WHERE id = 1",
        "UPDATE notes SET text = '' WHERE id = 1",
        "UPDATE notes SET id = 7 WHERE id = 1",
        "UPDATE notes SET uid = 'dan' WHERE id = 2",
        "UPDATE notes SET text = CASE text WHEN 'A' THEN 'B' ELSE 'A' END WHERE uid = 'ann'",
        "INSERT INTO notes VALUES ('ann', 4, 'D', 'x')",
        "INSERT INTO notes VALUES ('ann', 1, 'A', 'x')",
        "INSERT INTO notes VALUES ('ann', NULL, NULL, NULL)",
        "INSERT INTO others VALUES ('ann', 4, 'D', 'x')",
        "DELETE FROM notes WHERE id = 2",
        "DELETE FROM others WHERE id = 3",
        "UPDATE others SET text = 'c' WHERE id = 3",
    ],
)
def test_any_edit_of_a_mapped_column_changes_the_digest(
    database: SourceDatabase, edit: str
) -> None:
    """Whatever row of whatever table."""
    noted(database)
    with tables(database.url, table_note(), OTHER) as source:
        before = digests(source, "ann", "cat")
        assert sorted(before) == ["ann", "cat"]
        database.execute(edit)
        after = digests(source, "ann", "cat")
        assert after["ann"] != before["ann"]
        assert after["cat"] == before["cat"]


def test_row_that_moves_between_tables_changes_the_digest(database: SourceDatabase) -> None:
    """Though all columns are equal, it is another kind's."""
    noted(database)
    with tables(database.url, table_note(), OTHER) as source:
        before = digests(source, "bob", "cat", "ann")
        assert all_differ(before.values())
        database.execute(
            "INSERT INTO others SELECT * FROM notes WHERE uid = 'bob'",
            "DELETE FROM notes WHERE uid = 'bob'",
        )
        after = digests(source, "bob", "cat", "ann")
        assert after == {**before, "bob": after["bob"]}
        assert after["bob"] != before["bob"]


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE notes SET extra = 'y'",
        "UPDATE notes SET extra = NULL",
        "ALTER TABLE notes ADD COLUMN more text DEFAULT 'm'",
        "UPDATE notes SET text = 'x' WHERE uid = 'bob'",
        "DELETE FROM others WHERE uid = 'cat'",
        "INSERT INTO notes VALUES (NULL, 9, 'N', 'x')",
    ],
)
def test_edit_of_what_is_not_mapped_changes_nothing(database: SourceDatabase, edit: str) -> None:
    """Neither another column, nor another owner."""
    noted(database)
    with tables(database.url, table_note(), OTHER) as source:
        before = digests(source, "ann")
        database.execute(edit)
        assert digests(source, "ann") == before


def test_owner_without_rows_has_no_digest(database: SourceDatabase) -> None:
    """Nor one of another spelling, or one that no database can hold."""
    noted(database)
    with tables(database.url, table_note(), OTHER) as source:
        assert digests(source, "nobody", "ANN", "ann ", "\x00", "\ud800", "") == {}
        assert digests(source) == {}
        assert set(digests(source, "cat", "ann", "ann", "bob")) == {"ann", "bob", "cat"}
        database.execute("DELETE FROM others WHERE uid = 'cat'")
        assert digests(source, "cat") == {}


@pytest.mark.parametrize("layout", ["tables", "documents"])
def test_order_of_rows_does_not_count(
    layout: str, database: SourceDatabase, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """Equal content in two databases has one digest, wherever its rows lie."""
    if database.is_postgres:
        other = SourceDatabase(request.getfixturevalue("new_postgres_url")())
    else:
        (tmp_path / "other").mkdir()
        other = sqlite_database(tmp_path / "other")
    rows = [(f"u{n % 7}", n, f"text {n}", "x") for n in range(100)]
    for place, ordered in ((database, rows), (other, rows[::-1])):
        place.execute(f"CREATE TABLE notes {COLUMNS}")
        place.insert("INSERT INTO notes VALUES (?, ?, ?, ?)", ordered)
        place.profiles([(row[0], profile(str(row[2]))) for row in ordered])
    owners = [f"u{n}" for n in range(7)]

    def found_in(place: SourceDatabase) -> dict[str, bytes]:
        if layout == "documents":
            with documents(place.url) as source:
                return digests(source, *owners)
        with tables(place.url, table_note()) as source:
            return digests(source, *owners)

    assert found_in(database) == found_in(other)
    assert len(found_in(database)) == 7
    assert all_differ(found_in(database).values())


def test_values_do_not_run_into_one_another(database: SourceDatabase) -> None:
    """What stands in one column, or row, is not taken for two."""
    odd = ["a", "a,b", "b", "", "(", ")", '"', '""', "'", "\\", "a\nb", "é", ",", "NULL", None]
    database.execute("CREATE TABLE notes (uid text, id integer, text text, title text)")
    pairs = [(one, other) for one in odd for other in odd]
    rows = [(f"u{number}", 1, *pair) for number, pair in enumerate(pairs)]
    database.insert("INSERT INTO notes VALUES (?, ?, ?, ?)", rows)
    with tables(database.url, table_note(metadata=("title",))) as source:
        found = digests(source, *(row[0] for row in rows))
    assert len(found) == len(set(found.values())) == len(rows)


@pytest.mark.parametrize(
    ("one", "other"), [("5", "'5'"), ("5", "5.0"), ("'5'", "X'35'"), ("NULL", "''"), ("1", "1.5")]
)
def test_values_of_sqlite_count_with_their_types(
    sqlite: SourceDatabase, one: str, other: str
) -> None:
    """Metadata say 5 or "5"."""
    sqlite.execute(
        "CREATE TABLE notes (uid text, id integer, text)",
        f"INSERT INTO notes VALUES ('one', 1, {one}), ('other', 1, {other}), ('same', 1, {one})",
    )
    with tables(sqlite.url, table_note()) as source:
        found = digests(source, "one", "other", "same")
    assert found["one"] == found["same"] != found["other"]


@pytest.mark.parametrize(
    ("was", "becomes"), [("integer", "text"), ("jsonb", "text"), ("integer", "numeric")]
)
def test_column_that_gets_another_type_changes_the_digest(
    postgres: SourceDatabase, was: str, becomes: str
) -> None:
    """Its values print the same, and something else is made of them; seen at once."""
    postgres.execute(
        f"CREATE TABLE notes (uid text, id integer, text {was})",
        "INSERT INTO notes VALUES ('ann', 1, '5')",
    )
    with tables(postgres.url, table_note()) as source:
        before = raw_digests(source, "ann")
        postgres.execute(f"ALTER TABLE notes ALTER text TYPE {becomes} USING text::text::{becomes}")
        assert raw_digests(source, "ann") != before
        postgres.execute(f"ALTER TABLE notes ALTER text TYPE {was} USING text::text::{was}")
        assert raw_digests(source, "ann") == before


def test_column_that_is_read_under_another_name_changes_the_digest(
    database: SourceDatabase,
) -> None:
    """A field has the name of its column."""
    database.execute(
        "CREATE TABLE notes (uid text, id integer, title text, name text)",
        "INSERT INTO notes VALUES ('ann', 1, 'A', 'A')",
    )
    found = []
    for column in ("title", "name"):
        with tables(database.url, table_note(text=f"{{{{ {column} }}}}")) as source:
            assert isinstance(source, DigestingSource)
            found.append(source.digests(["ann"])["ann"])
    assert all_differ(found)


def test_rows_of_which_nothing_is_read_count_by_their_number(database: SourceDatabase) -> None:
    """A known kind reads the columns there are, and there may be none."""
    database.execute(
        "CREATE TABLE rows (uid text, extra text)",
        "INSERT INTO rows VALUES ('one', 'x'), ('two', 'x'), ('two', 'y'), ('same', 'z')",
    )
    default = KIND_DEFAULTS["experience"]
    spec = EntitySpec(
        kind="experience",
        table="rows",
        owner="uid",
        key=default.key,
        text=default.text,
        metadata=default.metadata,
        aliases=default.aliases,
    )
    with tables(database.url, spec) as source:
        found = raw_digests(source, "one", "two", "same", "nobody")
    assert set(found) == {"one", "two", "same"}
    assert found["one"] == found["same"] != found["two"]


def test_columns_of_any_type_have_digests(postgres: SourceDatabase) -> None:
    """Whatever PostgreSQL prints; times that Python does not have, too."""
    columns = {
        "tags text[]": ("'{Go,SQL}'", "'{\"Go,SQL\"}'"),
        "j jsonb": ("'{\"a\": [1]}'", "'{\"a\": 1}'"),
        "n numeric": ("1.50", "1.5"),
        "f float8": ("0.1", "0.1000000000000001"),
        "b bytea": ("'\\x00'", "'\\x'"),
        "t timestamptz": ("'infinity'", "'2020-03-01 12:00+00'"),
        "d date": ("'0044-03-15 BC'", "'0044-03-15'"),
        "i interval": ("'1 day'", "'24 hours'"),
        "r int4range": ("'[1,3)'", "'[1,4)'"),
    }
    for declared, (one, other) in columns.items():
        name = declared.split()[0]
        postgres.execute(
            "DROP TABLE IF EXISTS notes",
            f"CREATE TABLE notes (uid text, id integer, {declared})",
            f"INSERT INTO notes VALUES ('one', 1, {one}), ('same', 1, {one})",
            f"INSERT INTO notes VALUES ('other', 1, {other})",
        )
        with tables(postgres.url, table_note(text=f"{{{{ {name} }}}}")) as source:
            found = raw_digests(source, "one", "other", "same")
        assert found["one"] == found["same"] != found["other"], declared


def test_times_have_one_digest_whatever_the_database_prefers(postgres: SourceDatabase) -> None:
    """They are hashed as they are read."""
    postgres.execute(
        "CREATE TABLE notes AS SELECT 'ann' AS uid, 1 AS id, date '2020-03-04' AS d,"
        " timestamptz '2020-03-01 12:00+00' AS t, interval '1 day 2 hours' AS i"
    )
    spec = table_note(text="{{ t }} {{ d }} {{ i }}")
    with tables(postgres.url, spec) as source:
        before = raw_digests(source, "ann")
    name = postgres.url.rpartition("/")[2]
    postgres.execute(
        f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'",
        f"ALTER DATABASE {name} SET datestyle = 'German, DMY'",
        f"ALTER DATABASE {name} SET intervalstyle = 'iso_8601'",
    )
    with tables(postgres.url, spec) as source:
        assert raw_digests(source, "ann") == before


def test_spelling_of_owners_is_that_of_reads(database: SourceDatabase) -> None:
    """'007' is not user 7, and a number is found by what it prints as."""
    database.execute(
        "CREATE TABLE notes (id integer, uid integer, text text)",
        "INSERT INTO notes VALUES (1, 7, 'A'), (2, 7, 'B'), (3, 10, 'C')",
    )
    database.profiles([(7, profile("A")), (10, profile("B"))], owner="integer")
    asked = ["7", "007", "7.0", " 7", "10", "1e1", "x", "9" * 30]
    with tables(database.url, table_note()) as source:
        assert set(digests(source, *asked)) == {"7", "10"}
    with documents(database.url) as source:
        assert set(digests(source, *asked)) == {"7", "10"}


@pytest.mark.parametrize(
    ("column", "stored", "printed"),
    [
        ("text", ("ann", "ANN", "ann "), ("ann", "ANN", "ann ")),
        ("char(4)", ("ann", "ANN", "four"), ("ann ", "ANN ", "four")),
        ("numeric", ("1.50", "1.5", "2"), ("1.50", "1.5", "2")),
        ("bigint", (7, 70, -7), ("7", "70", "-7")),
        (
            "date",
            ("2020-01-01", "2020-02-01", "infinity"),
            ("2020-01-01", "2020-02-01", "infinity"),
        ),
    ],
)
def test_owners_of_any_type_have_their_own_digests(
    postgres: SourceDatabase, column: str, stored: tuple[object, ...], printed: tuple[str, ...]
) -> None:
    """Those that a database takes for equal, too."""
    postgres.execute(f"CREATE TABLE notes (uid {column}, id integer, text text)")
    rows = [(owner, number) for number, owner in enumerate(stored)]
    postgres.insert(f"INSERT INTO notes VALUES (?::{column}, ?, 'A')", rows)
    postgres.profiles([(owner, profile(str(number))) for owner, number in rows], owner=column)
    for opened in (tables(postgres.url, table_note()), documents(postgres.url)):
        with opened as source:
            found = digests(source, *printed, "nobody")
            assert set(found) == set(printed)
            assert all_differ(found.values())
            for owner in printed:
                assert digests(source, owner) == {owner: found[owner]}


# --- one state, and a whole one ---------------------------------------------------------------


@pytest.mark.parametrize("layout", ["tables", "documents"])
def test_content_comes_with_the_digest_of_its_own_state(
    layout: str, database: SourceDatabase
) -> None:
    """A commit in the middle of the read is in neither."""
    noted(database)
    database.profiles([(owner, profile("A")) for owner in ("ann", "bob", "cat")])
    opened = (
        documents(database.url) if layout == "documents" else tables(database.url, table_note())
    )
    with opened as source:
        assert isinstance(source, DigestingSource)
        before = source.digests(["ann", "bob"])
        texts = dict(read(source, "ann", "bob"))
        reading = iter(source.read_digested(["ann", "bob"]))
        found = [next(reading)]
        database.execute(
            "UPDATE notes SET text = 'new'", "UPDATE profiles SET filtered_data = '{}'"
        )
        found.extend(reading)
        assert {content.owner_id: digest for content, digest in found} == before
        assert {content.owner_id: texts_in(content) for content, _ in found} == texts
        assert all(source.digests(["ann", "bob"])[owner] != before[owner] for owner in before)


@pytest.mark.parametrize("layout", ["tables", "documents"])
def test_hidden_rows_end_a_digest(
    layout: str, postgres: SourceDatabase, postgres_server: PostgresServer
) -> None:
    """What a policy hides must not look changed; who sees it all has its digest."""
    noted(postgres)
    postgres.profiles([("ann", profile("A"))])
    postgres_server.create_role("digest_reader", "secret")
    for table in ("notes", "profiles"):
        postgres.execute(
            f"GRANT SELECT ON {table} TO digest_reader",
            f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        )
    role_url = with_login(postgres.url, "digest_reader", "secret")
    for url, is_shown in ((role_url, False), (postgres.url, True)):
        opened = documents(url) if layout == "documents" else tables(url, table_note())
        with opened as source:
            assert isinstance(source, DigestingSource)
            if is_shown:
                assert set(digests(source, "ann")) == {"ann"}
                continue
            with pytest.raises(IncompleteRead):
                source.digests(["ann"])
            with pytest.raises(IncompleteRead):
                list(source.read_digested(["ann"]))
    postgres.execute("DROP OWNED BY digest_reader")


@pytest.mark.parametrize("layout", ["tables", "documents"])
def test_digests_leave_nothing_open(layout: str, database: SourceDatabase) -> None:
    """Neither the whole of them, nor a read that is left in its midst."""
    noted(database)
    database.profiles([(owner, profile("A")) for owner in ("ann", "bob")])
    with nothing_left_open():
        opened = (
            documents(database.url) if layout == "documents" else tables(database.url, table_note())
        )
        with opened as source:
            assert isinstance(source, DigestingSource)
            assert len(source.digests(["ann", "bob"])) == 2
            reading = source.read_digested(["ann", "bob"])
            next(iter(reading))
            del reading


# --- generated tables -------------------------------------------------------------------------

VALUES = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.binary(max_size=3)
    | st.text(st.characters(codec="utf-8"), max_size=3)
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.sampled_from("ab"), VALUES, VALUES), max_size=6))
def test_digests_of_generated_rows_are_equal_just_when_the_rows_are(
    sqlite: SourceDatabase, rows: list[tuple[str, object, object]]
) -> None:
    """Of two owners, over values of any type."""
    with closing(sqlite3.connect(sqlite.path or "")) as file, file:
        file.execute("CREATE TABLE IF NOT EXISTS notes (uid text, id, text)")
        file.execute("DELETE FROM notes")
        file.executemany("INSERT INTO notes VALUES (?, ?, ?)", rows)
    with tables(sqlite.url, table_note()) as source:
        assert isinstance(source, DigestingSource)
        found = source.digests(["a", "b"])
    content = {
        owner: sorted(repr(row[1:]) for row in rows if row[0] == owner) for owner in ("a", "b")
    }
    assert set(found) == {owner for owner, own in content.items() if own}
    assert (found.get("a") == found.get("b")) == (content["a"] == content["b"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.none() | st.integers(0, 2),
            st.none()
            | st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=3),
        ),
        max_size=6,
    )
)
def test_digests_of_generated_rows_in_postgresql_are_equal_just_when_the_rows_are(
    postgres: SourceDatabase, rows: list[tuple[str, object, object]]
) -> None:
    """As in SQLite."""
    with psycopg.connect(postgres.url) as server:
        server.execute("CREATE TABLE IF NOT EXISTS notes (uid text, id integer, text text)")
        server.execute("DELETE FROM notes")
        server.cursor().executemany("INSERT INTO notes VALUES (%s, %s, %s)", rows)
    with tables(postgres.url, table_note()) as source:
        found = digests(source, "a", "b")
    content = {
        owner: sorted(repr(row[1:]) for row in rows if row[0] == owner) for owner in ("a", "b")
    }
    assert set(found) == {owner for owner, own in content.items() if own}
    assert (found.get("a") == found.get("b")) == (content["a"] == content["b"])


def test_source_that_is_gone_has_no_digests(
    postgres: SourceDatabase, postgres_server: PostgresServer
) -> None:
    """That is an error, and no empty answer."""
    postgres.profiles([("ann", profile("A"))])
    with documents(postgres.url) as source:
        assert isinstance(source, DigestingSource)
        postgres_server.stop()
        try:
            with pytest.raises(SourceUnavailable):
                source.digests(["ann"])
        finally:
            postgres_server.start()
        assert set(source.digests(["ann"])) == {"ann"}
