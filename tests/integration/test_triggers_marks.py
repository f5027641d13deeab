"""Whom a change marks, on both databases and in both layouts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.capture import EVERYBODY, Capture, of_documents, of_tables
from support.sources import SourceDatabase, owners_of, sqlite_database, table_note, tables
from undrift.errors import ConfigError, SourceUnavailable, UnsupportedError


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> SourceDatabase:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return sqlite_database(tmp_path)
    return SourceDatabase(request.getfixturevalue("postgres_url"))


@pytest.fixture
def profiles(database: SourceDatabase) -> Iterator[Capture]:
    """Triggers on the origin's table, which holds ann, bob and a row of nobody."""
    json_type = "text" if database.path else "jsonb"
    database.execute(
        f"CREATE TABLE profiles (user_id text, filtered_data {json_type}, seen int, "
        "id int PRIMARY KEY)"
    )
    database.execute(
        "INSERT INTO profiles VALUES ('ann', '{}', 0, 1), ('bob', '{}', 0, 2), (NULL, '{}', 0, 3)"
    )
    with of_documents(database) as capture:
        assert capture.install().is_fine
        yield capture


def test_every_kind_of_write_marks_its_owners_and_no_others(profiles: Capture) -> None:
    """Insert, update and delete; each owner once for a statement."""
    assert profiles.run("INSERT INTO profiles VALUES ('cid', '{}', 0, 4)") == ["cid"]
    assert profiles.run("UPDATE profiles SET filtered_data = '[]' WHERE id = 1") == ["ann"]
    assert profiles.run("UPDATE profiles SET filtered_data = '[1]'") == ["ann", "bob", "cid"]
    assert profiles.run("DELETE FROM profiles WHERE id = 4") == ["cid"]
    assert profiles.run("DELETE FROM profiles WHERE id > 100") == []


def test_change_of_owner_marks_both(profiles: Capture) -> None:
    """The one who lost the row and the one who has it; and nobody is not marked."""
    assert profiles.run("UPDATE profiles SET user_id = 'dan' WHERE id = 1") == ["ann", "dan"]
    assert profiles.run("UPDATE profiles SET user_id = NULL WHERE id = 1") == ["dan"]
    assert profiles.run("UPDATE profiles SET user_id = 'eve' WHERE id = 1") == ["eve"]
    assert profiles.run("UPDATE profiles SET filtered_data = '[2]' WHERE id = 3") == []
    assert profiles.run("DELETE FROM profiles WHERE id = 3") == []


def test_change_that_is_not_read_marks_nobody(profiles: Capture) -> None:
    """Another column, or the same value again; the control is one that is read."""
    assert profiles.run("UPDATE profiles SET seen = seen + 1") == []
    assert profiles.run("UPDATE profiles SET filtered_data = filtered_data") == []
    changed = "UPDATE profiles SET seen = 9, filtered_data = '[3]' WHERE id = 2"
    assert profiles.run(changed) == ["bob"]


def test_swapped_rows_mark_both_owners(profiles: Capture) -> None:
    """The set of values stays the same."""
    profiles.run("UPDATE profiles SET filtered_data = '[1]' WHERE id = 1")
    cast = "" if profiles.database.path else "::jsonb"
    swap = (
        f"UPDATE profiles SET filtered_data = (CASE id WHEN 1 THEN '{{}}' ELSE '[1]' END){cast} "
        "WHERE id < 3"
    )
    assert profiles.run(swap) == ["ann", "bob"]


def test_rolled_back_write_marks_nobody(profiles: Capture) -> None:
    """Marks are part of the application's transaction."""
    with pytest.raises(Exception, match=r"(?i)unique"):
        profiles.database.insert(
            "INSERT INTO profiles (user_id, filtered_data, id) VALUES (?, '{}', ?)",
            [("cid", 8), ("dan", 1)],
        )
    assert profiles.marked() == []


def test_where_condition_lets_every_column_count(database: SourceDatabase) -> None:
    """Whether a row is read may hang on any of them."""
    database.execute(
        "CREATE TABLE profiles (user_id text, filtered_data text, hidden int, id int PRIMARY KEY)",
        "INSERT INTO profiles VALUES ('ann', '{}', 0, 1), ('bob', '{}', 0, 2)",
    )
    with of_documents(database, where="hidden = 0") as capture:
        capture.install()
        assert capture.run("UPDATE profiles SET hidden = 1 WHERE id = 2") == ["bob"]
        assert capture.run("UPDATE profiles SET hidden = 1 WHERE id = 2") == []


def test_tables_of_rows_mark_by_the_columns_that_their_templates_read(
    database: SourceDatabase,
) -> None:
    """Two kinds of one table with an owner column each: both are marked."""
    database.execute(
        "CREATE TABLE notes (uid int, id int PRIMARY KEY, text text, friend int, colour text)"
    )
    mine = table_note()
    shared = table_note(kind="shared", owner="friend")
    with of_tables(database, mine, shared) as capture:
        capture.install()
        assert capture.run("INSERT INTO notes VALUES (7, 1, 'hello', 8, 'red')") == ["7", "8"]
        assert capture.run("UPDATE notes SET colour = 'blue'") == []
        assert capture.run("UPDATE notes SET text = 'bye'") == ["7", "8"]
        assert capture.run("UPDATE notes SET friend = 9") == ["7", "8", "9"]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("text", "'007'"),
        ("text", "'Zoë ''%s'' :x \"'"),
        ("char(6)", "'ann'"),
        ("varchar(20)", "' b '"),
        ("int", "42"),
        ("bigint", "-9000000000"),
        ("numeric(9, 2)", "1.5"),
        ("uuid", "'6F1E0BCE-8B0B-4B36-9C0A-2B0A5C6D7E8F'"),
        ("timestamptz", "'2020-01-01 12:00+02'"),
        ("boolean", "true"),
        ("double precision", "0.1"),
    ],
)
def test_mark_spells_the_owner_as_the_source_does(
    database: SourceDatabase, declared: str, value: str
) -> None:
    """Whatever the type of the column, and the settings of the session that writes."""
    database.execute(f"CREATE TABLE notes (uid {declared}, id int PRIMARY KEY, text text)")
    with of_tables(database) as capture, tables(database.url, table_note()) as source:
        capture.install()
        marked = capture.run(f"INSERT INTO notes VALUES ({value}, 1, 'hello')")
        assert marked == owners_of(source)
        assert capture.run("UPDATE notes SET text = 'bye'") == marked
        assert capture.run("DELETE FROM notes") == marked


def test_value_that_only_prints_differently_is_a_change(database: SourceDatabase) -> None:
    """1 and 1.0 are equal, and give different texts."""
    number = "" if database.path else "numeric"
    database.execute(f"CREATE TABLE notes (uid text, id int PRIMARY KEY, text {number})")
    with of_tables(database) as capture:
        capture.install()
        capture.run("INSERT INTO notes VALUES ('ann', 1, 1)")
        assert capture.run("UPDATE notes SET text = 1.0") == ["ann"]


def test_names_that_need_quotes_are_quoted(database: SourceDatabase) -> None:
    """Tables and columns of any name."""
    database.execute(
        'CREATE TABLE "My ""notes"" {%s} :x" ("The user" text, id int PRIMARY KEY, text text)'
    )
    odd = table_note(table='My "notes" {%s} :x', owner="The user")
    with of_tables(database, odd) as capture:
        assert capture.install().is_fine
        written = 'INSERT INTO "My ""notes"" {%s} :x" VALUES (\'ann\', 1, \'hello\')'
        assert capture.run(written) == ["ann"]
        capture.triggers.remove()
        assert not capture.triggers.status().is_installed


# --- what cannot be watched ---------------------------------------------------------------------


def test_view_is_refused_and_the_tables_beside_it_are_watched(database: SourceDatabase) -> None:
    """Alone it is an error that says what to do instead."""
    database.execute(
        "CREATE TABLE notes (uid text, id int PRIMARY KEY, text text)",
        "CREATE VIEW seen AS SELECT * FROM notes",
    )
    view = table_note(kind="seen", table="seen")
    with of_tables(database, view) as capture:
        with pytest.raises(UnsupportedError, match="seen is a view") as caught:
            capture.triggers.install()
        assert "look at everybody" in caught.value.fix
        with pytest.raises(UnsupportedError):
            capture.triggers.ddl()
    with of_tables(database, view, table_note()) as capture:
        status = capture.install()
        assert status.tables == ("notes",)
        assert [refused.split(",")[0] for refused in status.refused] == ["seen is a view"]


@pytest.mark.parametrize(
    "where",
    [
        "until > CURRENT_TIMESTAMP",
        "until > current_date",
        "until > LocalTimestamp",
        "until > now()",
        "until > clock_timestamp ( )",
        "age(until) < 'P1D'",
        "random() < 0.5",
        "until > 'now'",
        "until > datetime('now')",
        "until > date()",
    ],
)
def test_condition_that_time_changes_is_refused(tmp_path: Path, where: str) -> None:
    """Nobody writes, and a row is gone."""
    database = sqlite_database(tmp_path)
    database.profiles([])
    with (
        of_documents(database, where=where) as capture,
        pytest.raises(UnsupportedError, match="depends on time or chance"),
    ):
        capture.triggers.install()


@pytest.mark.parametrize(
    "where", ["user_id <> 'now()'", "knows_age(1)", "user_id <> 'a' -- now()", '"now" = 1']
)
def test_condition_that_only_looks_like_time_is_not_refused(tmp_path: Path, where: str) -> None:
    """In quotes, in a comment, or within another word."""
    database = sqlite_database(tmp_path)
    database.profiles([])
    with of_documents(database, where=where) as capture:
        assert capture.install().is_fine


def test_condition_that_reads_another_table_is_told(database: SourceDatabase) -> None:
    """The triggers are not on that one."""
    database.profiles([])
    database.execute("CREATE TABLE blocked (uid text)")
    with of_documents(database, where="user_id NOT IN (SELECT uid FROM blocked)") as capture:
        assert any("other tables" in line for line in capture.install().unseen)
    with of_documents(database, where="user_id <> 'select'") as capture:
        assert not any("other tables" in line for line in capture.triggers.status().unseen)


# --- taking marks -------------------------------------------------------------------------------


def test_marks_stay_until_they_are_handed_over(profiles: Capture) -> None:
    """Whatever goes wrong at the receiver: at least once."""

    def fail(owners: object) -> None:
        raise SourceUnavailable("The state hung up", why="it did.", fix="wait")

    profiles.database.execute("UPDATE profiles SET filtered_data = '[4]' WHERE id = 1")
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match="hung up"):
            profiles.feed.drain(10, fail, lambda: None)
    assert profiles.feed.pending().marks == 1
    assert profiles.marked() == ["ann"]
    assert profiles.feed.pending().marks == 0


def test_mark_that_comes_while_others_are_handed_over_stays(profiles: Capture) -> None:
    """Exactly those that were read are removed, though their ids may be used again."""
    write = "UPDATE profiles SET filtered_data = '[{}]' WHERE id = 2"
    profiles.database.execute(write.format(1))
    taken: list[str] = []

    def take(owners: object) -> None:
        if not taken:
            taken.append("first")
            # Another worker takes and removes the same mark, then the application writes again.
            if profiles.database.path is not None:
                profiles.feed.drain(10, lambda owners: taken.extend(owners), lambda: None)
            profiles.database.execute(write.format(2))

    profiles.feed.drain(10, take, lambda: None)
    assert profiles.marked() == ["bob"]


def test_no_more_marks_are_taken_than_asked_for_and_the_oldest_first(profiles: Capture) -> None:
    """So that a flood does not hold up the rest."""
    for number in range(10, 15):
        profiles.database.execute(f"INSERT INTO profiles VALUES ('u{number}', '{{}}', 0, {number})")
    taken: list[str] = []
    assert profiles.feed.drain(2, taken.extend, lambda: None) == 2
    assert taken == ["u10", "u11"]
    assert profiles.feed.drain(10, taken.extend, lambda: None) == 3
    assert profiles.feed.drain(10, taken.extend, lambda: None) == 0


def test_owner_that_no_store_can_hold_does_not_block_the_others(tmp_path: Path) -> None:
    """Bytes, and text that is not UTF-8."""
    database = sqlite_database(tmp_path)
    database.profiles([], owner="")
    with of_documents(database) as capture:
        capture.install()
        rows = "(x'00ff', '{}'), (CAST(x'ff' AS text), '{}'), (7, '{}'), ('7.0', '{}')"
        assert capture.run(f"INSERT INTO profiles VALUES {rows}") == ["7", "7.0"]


def test_marks_age_is_told_and_a_day_without_anybody_is_a_warning(profiles: Capture) -> None:
    """The oldest counts."""
    profiles.database.execute("UPDATE profiles SET filtered_data = '[5]' WHERE id = 1")
    young = profiles.feed.pending()
    assert young.marks == 1
    assert young.oldest_seconds is not None
    assert 0 <= young.oldest_seconds < 60
    assert not young.is_unwatched
    if profiles.database.path is not None:
        profiles.database.execute("UPDATE undrift_change SET at = at - 1.5")
    else:
        profiles.database.execute("UPDATE undrift.change SET at = at - interval '36 hours'")
    assert profiles.triggers.status().is_unwatched


def test_nothing_to_drain_where_nothing_is_installed(database: SourceDatabase) -> None:
    """It says how to install it."""
    database.profiles([])
    with of_documents(database) as capture:
        with pytest.raises(ConfigError, match="not installed") as caught:
            capture.marked()
        assert "undrift triggers install" in caught.value.fix
        status = capture.feed.pending()
        assert (status.is_installed, status.is_fine, status.marks) == (False, False, 0)


# --- installing ---------------------------------------------------------------------------------


def test_installing_marks_everybody_once_and_again_only_where_something_was_amiss(
    profiles: Capture,
) -> None:
    """What happened before nobody saw."""
    profiles.triggers.remove()
    profiles.triggers.install()
    assert profiles.marked() == [EVERYBODY]
    profiles.triggers.install()
    assert profiles.marked() == []


def test_statements_for_people_install_the_same(database: SourceDatabase) -> None:
    """Run as they are, in their order; what is then there is found to be right."""
    database.profiles([])
    with of_documents(database) as capture:
        assert not capture.triggers.removal_ddl()
        database.execute(*capture.triggers.ddl())
        assert capture.triggers.status().is_fine
        assert capture.marked() == [EVERYBODY]
        assert capture.run("INSERT INTO profiles VALUES ('ann', '{}')") == ["ann"]
        database.execute(*capture.triggers.removal_ddl())
        assert not capture.triggers.status().is_installed


def test_column_that_the_mapping_reads_since_is_noticed_and_mended(
    database: SourceDatabase,
) -> None:
    """The functions were made of other columns; a mend marks everybody."""
    database.execute("CREATE TABLE notes (uid text, id int PRIMARY KEY, text text, extra text)")
    with of_tables(database) as capture:
        capture.install()
        capture.run("INSERT INTO notes VALUES ('ann', 1, 'hello', 'x')")
    with of_tables(database, table_note(text="{{ text }} {{ extra }}")) as capture:
        assert capture.run("UPDATE notes SET extra = 'y'") == []
        assert any("outdated" in problem for problem in capture.triggers.status().problems)
        assert capture.triggers.install().is_fine
        assert capture.marked() == [EVERYBODY]
        assert capture.run("UPDATE notes SET extra = 'z'") == ["ann"]


def test_table_that_is_mapped_no_more_loses_its_triggers(database: SourceDatabase) -> None:
    """With the next installation; until then it is told."""
    for name in ("notes", "other"):
        database.execute(f"CREATE TABLE {name} (uid text, id int PRIMARY KEY, text text)")
    both = (table_note(), table_note(kind="other", table="other"))
    with of_tables(database, *both) as capture:
        capture.install()
        assert capture.run("INSERT INTO other VALUES ('ann', 1, 'x')") == ["ann"]
    with of_tables(database) as capture:
        assert any("left over" in problem for problem in capture.triggers.status().problems)
        assert capture.triggers.install().is_fine
        assert capture.run("INSERT INTO other VALUES ('ann', 2, 'x')") == []


def test_removing_twice_and_installing_twice_is_no_error(profiles: Capture) -> None:
    """Both are what was asked for already; the application writes on."""
    profiles.triggers.install()
    profiles.triggers.remove()
    profiles.triggers.remove()
    profiles.database.execute("INSERT INTO profiles VALUES ('cid', '{}', 0, 4)")
    assert not profiles.triggers.status().is_installed
