"""How many owners there are: exact where that is quick to know, else about right, never slow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.sources import SourceDatabase, documents, sqlite_database, table_note, tables
from undrift.errors import ConfigError
from undrift.headcount import CountingSource, Headcount
from undrift.ports import Source
from undrift.sources import counting

NOTES = table_note(kind="note", table="notes")
OTHER = table_note(kind="other", table="others")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> SourceDatabase:
    """An empty database of either kind."""
    if request.param == "sqlite":
        return sqlite_database(tmp_path)
    return SourceDatabase(request.getfixturevalue("postgres_url"))


@pytest.fixture
def no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let counting take too long, and be expected to."""
    monkeypatch.setattr(counting, "COUNT_SECONDS", -1.0)
    monkeypatch.setattr(counting, "CHEAP_COST", 0.0)


def headcount(source: Source) -> Headcount | None:
    """What the source says."""
    assert isinstance(source, CountingSource)
    return source.headcount()


def fill(database: SourceDatabase, owners: list[int], *, table: str = "notes") -> None:
    """A table with two rows for each of *owners*, and an index by which they are found."""
    database.execute(f"CREATE TABLE {table} (uid bigint, id bigint, text text)")
    # In another order than that of their ids, as users come back.
    numbers = "generate_series(1, 2)" if database.is_postgres else "json_each('[1, 2]')"
    listed = json.dumps(owners)
    each = "json_array_elements_text(?::json)" if database.is_postgres else "json_each(?)"
    database.insert(
        f"INSERT INTO {table} SELECT CAST(o.value AS bigint), 1, 'text' "
        f"FROM {numbers} AS n, {each} AS o(value)"
        if database.is_postgres
        else f"INSERT INTO {table} SELECT o.value, 1, 'text' FROM {numbers} AS n, {each} AS o",
        [(listed,)],
    )
    database.execute(f"CREATE INDEX {table}_by_user ON {table} (uid)")
    if database.is_postgres:
        database.execute(f"ANALYZE {table}")


def test_documents_are_counted_as_the_mapping_reads_them(database: SourceDatabase) -> None:
    """Without rows that the condition leaves out, or that are nobody's; a % is a percent sign."""
    rows = [("ann", '{"a": "50%"}'), ("bob", "{}"), ("bob", "{}"), (None, "{}"), ("eve", "[]")]
    database.profiles(rows)
    with documents(database.url) as source:
        assert headcount(source) == (3, False)
    with documents(database.url, where="filtered_data NOT LIKE '[%'") as source:
        assert headcount(source) == (2, False)
    with documents(database.url, where="user_id = 'nobody'") as source:
        assert headcount(source) == (0, False)


def test_owners_of_several_tables_are_counted_once(database: SourceDatabase) -> None:
    """Whoever has a row in any of them."""
    fill(database, [1, 2, 3])
    fill(database, [3, 4], table="others")
    with tables(database.url, NOTES, OTHER) as source:
        assert headcount(source) == (4, False)


@pytest.mark.parametrize(
    "owners",
    [
        range(0, 60_000, 3),
        [*range(1_000, 21_000), *range(21_000, 2_000_000, 990)],
        [*range(10_000), *range(10**12, 10**12 + 10_000)],
    ],
    ids=["evenly", "crowded at first", "in two crowds"],
)
@pytest.mark.usefixtures("no_time")
def test_many_owners_are_estimated(database: SourceDatabase, owners: Sequence[int]) -> None:
    """However their ids lie."""
    fill(database, list(owners))
    with tables(database.url, NOTES) as source:
        found = headcount(source)
    assert found is not None
    assert found.is_estimate
    assert found.owners == pytest.approx(len(owners), rel=0.1)


@pytest.mark.usefixtures("no_time")
def test_planner_that_knows_nothing_of_a_column_is_not_believed(postgres_url: str) -> None:
    """It takes any column for one of two hundred values then."""
    database = SourceDatabase(postgres_url)
    database.execute(
        "CREATE TABLE notes (uid text, id bigint, text text) WITH (autovacuum_enabled = off)",
        "INSERT INTO notes SELECT 'user ' || n % 5000, 1, 'text' FROM generate_series(1, 9000) n",
    )
    with tables(database.url, NOTES) as source:
        assert headcount(source) is None
    database.execute("ANALYZE notes")
    with tables(database.url, NOTES) as source:
        found = headcount(source)
    assert found is not None
    assert found.owners == pytest.approx(5_000, rel=0.1)


@pytest.mark.usefixtures("no_time")
def test_owners_of_several_tables_are_estimated_once(database: SourceDatabase) -> None:
    """Three tables of the same owners are not three times as many."""
    fill(database, list(range(5_000)))
    fill(database, list(range(5_000)), table="others")
    with tables(database.url, NOTES, OTHER) as source:
        found = headcount(source)
    assert found is not None
    assert found.owners == pytest.approx(5_000, rel=0.1)


@pytest.mark.usefixtures("no_time")
def test_sqlite_does_not_guess_how_many_names_there_are(tmp_path: Path) -> None:
    """Between two names lies no distance."""
    database = sqlite_database(tmp_path)
    database.profiles([(f"user {number:05}", "{}") for number in range(3_000)])
    with documents(database.url) as source:
        assert headcount(source) is None


def test_count_that_was_given_up_leaves_the_connection_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read next over it takes its time."""
    database = sqlite_database(tmp_path)
    database.profiles([(str(number), json.dumps({"n": number})) for number in range(3_000)])
    with documents(database.url) as source:
        with monkeypatch.context() as patched:
            patched.setattr(counting, "COUNT_SECONDS", -1.0)
            assert headcount(source) is None
        assert sum(map(len, source.owner_pages(500))) == 3_000
        assert headcount(source) == (3_000, False)


def test_source_without_its_table_says_so(database: SourceDatabase) -> None:
    """Nobody is not how many there are."""
    database.execute("CREATE TABLE another (user_id text)")
    with documents(database.url) as source, pytest.raises(ConfigError, match="No table"):
        headcount(source)


def test_part_of_a_count_is_an_estimate() -> None:
    """Parts are of nearly equal size; the whole is what was counted."""
    assert Headcount(1_000).of_share(1) == (1_000, False)
    assert Headcount(1_000).of_share(1 / 8) == (125, True)
