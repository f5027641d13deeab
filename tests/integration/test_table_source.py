"""One row per entity, each kind in a table of its own, read from SQLite and from PostgreSQL."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from support.rendering import texts_of
from support.sources import (
    SourceDatabase,
    owners_of,
    pages_of,
    read,
    sqlite_database,
    table_note,
    tables,
)
from undrift.errors import ConfigError, InvalidDocument
from undrift.mapping import KIND_DEFAULTS, EntitySpec
from undrift.mapping import Mapping as SourceMapping
from undrift.model import Wanted
from undrift.ports import Source
from undrift.render import Renderer


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> SourceDatabase:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return sqlite_database(tmp_path)
    return SourceDatabase(request.getfixturevalue("postgres_url"))


@pytest.fixture
def sqlite(tmp_path: Path) -> SourceDatabase:
    """An empty SQLite file."""
    return sqlite_database(tmp_path)


@pytest.fixture
def postgres(postgres_url: str) -> SourceDatabase:
    """An empty PostgreSQL database."""
    return SourceDatabase(postgres_url)


def known(kind: str, **settings: object) -> EntitySpec:
    """A known kind with its defaults, in the table `rows`."""
    default = KIND_DEFAULTS[kind]
    given: dict[str, object] = {
        "kind": kind,
        "table": "rows",
        "owner": "uid",
        "key": default.key,
        "text": default.text,
        "metadata": default.metadata,
        "aliases": default.aliases,
    }
    return EntitySpec(**{**given, **settings})  # type: ignore[arg-type]


def wanted_of(url: str, owner: str, *entities: EntitySpec) -> Wanted:
    """What the rows of *owner* render to."""
    renderer = Renderer(SourceMapping(documents=None, entities=entities))
    with tables(url, *entities) as source:
        (content,) = source.read([owner])
        return renderer.render(content)


def refusal(url: str, *entities: EntitySpec) -> ConfigError:
    """The error that these entities are refused with, before any row is read."""
    with tables(url, *entities) as source, pytest.raises(ConfigError) as caught:
        source.describe()
    return caught.value


# --- rows -------------------------------------------------------------------------------------


def test_every_table_adds_its_kind(database: SourceDatabase) -> None:
    """An owner is whoever has a row in any of them."""
    database.execute(
        "CREATE TABLE notes (id integer, uid integer, text text)",
        "CREATE TABLE others (id integer, uid integer, text text)",
        "INSERT INTO notes VALUES (1, 7, 'A'), (2, 7, 'B'), (3, 8, 'C'), (4, NULL, 'D')",
        "INSERT INTO others VALUES (1, 7, 'E'), (2, 9, 'F')",
    )
    other = table_note(kind="other", table="others")
    with tables(database.url, table_note(), other) as source:
        assert owners_of(source) == ["7", "8", "9"]
        assert source.present(["9", "8", "10", "x"]) == {"8", "9"}
        assert read(source, "7", "8", "9", "10") == [
            ("7", ["A", "B", "E"]),
            ("8", ["C"]),
            ("9", ["F"]),
        ]
    wanted = wanted_of(database.url, "7", table_note(), other)
    assert dict(wanted.counts) == {"note": 2, "other": 1}
    assert sorted(wanted.entities) == [("note", "1"), ("note", "2"), ("other", "1")]


def test_one_kind_may_have_two_tables(database: SourceDatabase) -> None:
    """Its ids are unique over both."""
    database.execute(
        "CREATE TABLE notes (id text, uid text, text text)",
        "CREATE TABLE old_notes (id text, uid text, text text)",
        "INSERT INTO notes VALUES ('1', 'ann', 'A')",
        "INSERT INTO old_notes VALUES ('2', 'ann', 'B')",
    )
    wanted = wanted_of(database.url, "ann", table_note(), table_note(table="old_notes"))
    assert texts_of(wanted, "note") == ["A", "B"]


def test_where_belongs_to_its_table(database: SourceDatabase) -> None:
    """It leaves out rows, and owners that have no others."""
    database.execute(
        "CREATE TABLE notes (id integer, uid text, text text, tag text)",
        "INSERT INTO notes VALUES (1, 'ann', 'A', 'keep'), (2, 'ann', 'B', ':drop'),"
        " (3, 'bob', 'C', ':drop')",
    )
    with tables(database.url, table_note(where="tag <> ':drop' or 1 = 0")) as source:
        assert owners_of(source) == ["ann"]
        assert source.present(["ann", "bob"]) == {"ann"}
        assert read(source, "ann", "bob") == [("ann", ["A"])]


def test_table_may_be_a_view_in_a_schema(postgres: SourceDatabase) -> None:
    """As with documents."""
    postgres.execute(
        "CREATE SCHEMA app",
        "CREATE VIEW app.notes AS SELECT 1 AS id, 'ann' AS uid, 'A' AS text",
    )
    spec = table_note(table="app.notes")
    with tables(postgres.url, spec) as source:
        assert owners_of(source) == ["ann"]
        assert read(source, "ann") == [("ann", ["A"])]
        assert source.describe().layout == "app.notes(uid, …)"


def test_digest_does_not_depend_on_the_order_of_rows(database: SourceDatabase) -> None:
    """A table has none; another value or another row is another digest."""
    database.execute(
        "CREATE TABLE notes (id integer, uid text, text text)",
        "INSERT INTO notes VALUES (1, 'ann', 'A'), (2, 'ann', 'B')",
    )

    def digest(source: Source) -> bytes:
        (content,) = source.read(["ann"])
        return content.digest

    with tables(database.url, table_note()) as source:
        first = digest(source)
        database.execute(
            "DELETE FROM notes WHERE id = 1", "INSERT INTO notes VALUES (1, 'ann', 'A')"
        )
        assert digest(source) == first
        database.execute("UPDATE notes SET text = 'C' WHERE id = 1")
        assert digest(source) != first


def test_owner_of_another_spelling_gets_no_rows(database: SourceDatabase) -> None:
    """'007' is not user 7, in no table."""
    database.execute(
        "CREATE TABLE notes (id integer, uid integer, text text)",
        "INSERT INTO notes VALUES (1, 7, 'A')",
    )
    with tables(database.url, table_note()) as source:
        assert read(source, "007", "7.0", " 7", "'; DROP TABLE notes", "\x00") == []
        assert read(source, "7") == [("7", ["A"])]


# --- columns ----------------------------------------------------------------------------------


def test_known_kind_copes_with_the_columns_there_are(database: SourceDatabase) -> None:
    """Its default text and metadata read what they find, by any of its names."""
    database.execute(
        "CREATE TABLE rows (uid text, position text, organization text, startdate text)",
        "INSERT INTO rows VALUES ('ann', 'Engineer', 'Acme', '2019')",
    )
    wanted = wanted_of(database.url, "ann", known("experience"))
    assert texts_of(wanted, "experience") == ["Engineer at Acme"]


def test_known_kind_with_a_text_of_ones_own_copes_too(database: SourceDatabase) -> None:
    """Who writes `text = "{{ title }}"` has not asked for a company column."""
    database.execute(
        "CREATE TABLE rows (uid text, id integer, title text)",
        "INSERT INTO rows VALUES ('ann', 1, 'Engineer')",
    )
    wanted = wanted_of(database.url, "ann", known("experience", text="{{ title }}!"))
    assert texts_of(wanted, "experience") == ["Engineer!"]


def test_columns_of_a_row_are_its_fields(database: SourceDatabase) -> None:
    """Numbers, dates, booleans and NULL, in text and metadata."""
    yes = "true" if database.is_postgres else "1"
    database.execute(
        "CREATE TABLE notes (uid text, id integer, n integer, d date, b boolean, x text)",
        f"INSERT INTO notes VALUES ('ann', 1, 5, '2020-03-01', {yes}, NULL)",
    )
    spec = table_note(text="{{ n }} {{ d }} [{{ x }}]", metadata=("n", "d", "b", "x"))
    entity = wanted_of(database.url, "ann", spec).entities["note", "1"]
    assert entity.text == "5 2020-03-01 []"
    assert entity.metadata == {"n": 5, "d": "2020-03-01", "b": True}


def test_columns_of_postgresqls_own_types_are_fields(postgres: SourceDatabase) -> None:
    """Arrays, JSON, numerics, UUIDs, intervals."""
    postgres.execute(
        "CREATE TABLE notes (uid uuid, id bigint, tags text[], j jsonb, n numeric, u uuid,"
        " t timestamptz, i interval)",
        "INSERT INTO notes VALUES ('00000000-0000-0000-0000-000000000001', 1, '{Go,SQL}',"
        " '{\"a\": [1]}', 1.50, '00000000-0000-0000-0000-000000000002',"
        " '2020-03-01 12:00+00', '1 day')",
    )
    spec = table_note(text="{{ tags | names }} {{ j.a[0] }}", metadata=("j", "n", "u", "t", "i"))
    owner = "00000000-0000-0000-0000-000000000001"
    entity = wanted_of(postgres.url, owner, spec).entities["note", "1"]
    assert entity.text == "Go, SQL 1"
    assert entity.metadata == {
        "j": {"a": [1]},
        "n": "1.50",
        "u": "00000000-0000-0000-0000-000000000002",
        "t": "2020-03-01 12:00:00+00",
        "i": "1 day",
    }


@pytest.mark.parametrize(
    "value",
    [
        "date 'infinity'",
        "timestamptz '-infinity'",
        "date '0044-03-15 BC'",
        "timestamp '20000-01-01'",
    ],
)
def test_date_that_python_does_not_have_ends_no_page(postgres: SourceDatabase, value: str) -> None:
    """'infinity' is how many tables say "still going on"."""
    postgres.execute(
        f"CREATE TABLE notes AS SELECT 'ann' AS uid, 1 AS id, {value} AS text",
        "INSERT INTO notes SELECT 'bob', 2, CURRENT_DATE",
    )
    with tables(postgres.url, table_note()) as source:
        assert [owner for owner, _ in read(source, "ann", "bob")] == ["ann", "bob"]


def test_times_print_alike_whatever_the_database_prefers(postgres: SourceDatabase) -> None:
    """Else the same row would be another text on another machine, or for another role."""
    postgres.execute(
        "CREATE TABLE notes AS SELECT 'ann' AS uid, 1 AS id, date '2020-03-04' AS d,"
        " timestamptz '2020-03-01 12:00+00' AS t, interval '1 day 2 hours' AS i"
    )
    spec = table_note(text="{{ t }} {{ d }} {{ i }}")
    texts = texts_of(wanted_of(postgres.url, "ann", spec), "note")
    name = postgres.url.rpartition("/")[2]
    postgres.execute(
        f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'",
        f"ALTER DATABASE {name} SET datestyle = 'German, DMY'",
        f"ALTER DATABASE {name} SET intervalstyle = 'iso_8601'",
    )
    assert texts_of(wanted_of(postgres.url, "ann", spec), "note") == texts
    assert texts == ["2020-03-01 12:00:00+00 2020-03-04 1 day 02:00:00"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("date", "'2019-01'"),
        ("datetime", "'2020-01-01T10:00:00Z'"),
        ("datetime", "'soon'"),
        ("numeric", "'n/a'"),
        ("decimal(5, 2)", "'1,50'"),
        ("float", "'n/a'"),
        ("integer", "'n/a'"),
        ("boolean", "'yes'"),
        ("json", "'[1'"),
        ("json", "X'ff'"),
        ("time", "'noon'"),
        ("text", "X'80ff'"),
        ("text", "CAST(X'80ff' AS text)"),
    ],
)
def test_sqlites_declared_types_are_not_believed(
    sqlite: SourceDatabase, column: str, value: str
) -> None:
    """A column may hold anything; a value that its type does not expect ends no page."""
    sqlite.execute(
        f"CREATE TABLE notes (uid text, id integer, text {column})",
        f"INSERT INTO notes VALUES ('ann', 1, {value}), ('bob', 2, NULL)",
    )
    renderer = Renderer(SourceMapping(documents=None, entities=(table_note(),)))
    with tables(sqlite.url, table_note()) as source:
        contents = {content.owner_id: content for content in source.read(["ann", "bob"])}
        assert sorted(contents) == ["ann", "bob"]
        # A text is made of it, or this one owner is unknown; nothing else may come of it.
        with suppress(InvalidDocument):
            assert renderer.render(contents["ann"]).counts == {"note": 1}


def test_json_column_of_sqlite_is_decoded(sqlite: SourceDatabase) -> None:
    """A list of technologies is a list."""
    sqlite.execute(
        "CREATE TABLE notes (uid text, id integer, tags json)",
        """INSERT INTO notes VALUES ('ann', 1, '["Go", {"name": "SQL"}]')""",
    )
    wanted = wanted_of(sqlite.url, "ann", table_note(text="{{ tags | names }}"))
    assert texts_of(wanted, "note") == ["Go, SQL"]


# --- what is not there ------------------------------------------------------------------------


def test_missing_table_lists_those_there_are(database: SourceDatabase) -> None:
    """And names the nearest."""
    database.execute("CREATE TABLE note (uid text, id integer, text text)")
    error = refusal(database.url, table_note())
    assert error.what == "No table 'notes'"
    assert "did you mean 'note'" in error.why
    assert "'note'" in error.fix


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        (table_note(owner="uidd"), "uidd"),
        (table_note(text="{{ texd }}"), "texd"),
        (table_note(metadata=("texd",)), "texd"),
        (table_note(key=("texd",)), "texd"),
        (table_note(key=("{{ texd }}",)), "texd"),
        (table_note(id="texd"), "texd"),
        (table_note(id="{{ texd }}"), "texd"),
    ],
    ids=["owner", "text", "metadata", "key", "template in the key", "id", "template as the id"],
)
def test_missing_column_names_the_nearest(
    database: SourceDatabase, spec: EntitySpec, missing: str
) -> None:
    """Wherever it is named: what is not read would look deleted."""
    database.execute("CREATE TABLE notes (uid text, id integer, text text)")
    error = refusal(database.url, spec)
    assert error.what == f"No column {missing!r} in table 'notes'"
    assert "id, text, uid" in error.why
    assert f"did you mean {'uid' if missing == 'uidd' else 'text'!r}" in error.why
    assert "'note'" in error.fix


def test_missing_id_needs_a_key(database: SourceDatabase) -> None:
    """A table without an id column and a kind without a natural key."""
    database.execute(
        "CREATE TABLE notes (uid text, text text)", "INSERT INTO notes VALUES ('ann', 'A')"
    )
    assert "'id'" in refusal(database.url, table_note()).what
    wanted = wanted_of(database.url, "ann", table_note(key=("text",)))
    assert texts_of(wanted, "note") == ["A"]


def test_owner_columns_that_cannot_be_compared_are_a_configuration_error(
    postgres: SourceDatabase,
) -> None:
    """A number in one table and a text in the other: no server is at fault."""
    postgres.execute(
        "CREATE TABLE notes (uid integer, id integer, text text)",
        "CREATE TABLE others (uid text, id integer, text text)",
        "INSERT INTO notes VALUES (1, 1, 'A')",
        "INSERT INTO others VALUES ('1', 1, 'B')",
    )
    other = table_note(kind="other", table="others")
    with tables(postgres.url, table_note(), other) as source:
        try:
            found = pages_of(source, 10)
        except ConfigError:
            return
    assert found == [["1"]]
