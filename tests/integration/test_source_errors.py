"""What stands between undrift and a source: each obstacle has its error, its reason and its fix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from support.postgres import PostgresServer, StopMode, with_login
from support.sources import (
    SourceDatabase,
    documents,
    failures,
    nothing_left_open,
    owners_of,
    pages_of,
    read,
    shown,
    sqlite_database,
)
from undrift.errors import ConfigError, IncompleteRead, SourceUnavailable
from undrift.sources.database import Database
from undrift.sources.failures import mapped_failures

SECRET = "hunter2-hunter2"
READER = "undrift_reader"


@pytest.fixture
def postgres(postgres_url: str) -> SourceDatabase:
    """A PostgreSQL database with three profiles."""
    database = SourceDatabase(postgres_url)
    database.profiles([(owner, '{"notes": []}') for owner in ("ann", "bob", "cat")])
    return database


@pytest.fixture
def reader(postgres: SourceDatabase, postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of *postgres* for a role that may do nothing yet."""
    postgres_server.create_role(READER, SECRET)
    yield with_login(postgres.url, READER, SECRET)
    postgres_server.start()
    postgres.execute(f"DROP OWNED BY {READER}")


# --- rights -----------------------------------------------------------------------------------


def test_policy_that_hides_rows_is_an_incomplete_read(
    postgres: SourceDatabase, reader: str
) -> None:
    """Fewer rows without an error would look like deletes."""
    postgres.execute(
        f"GRANT SELECT ON profiles TO {READER}",
        "ALTER TABLE profiles ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY hiding ON profiles TO {READER} USING (user_id = 'ann')",
    )
    with documents(reader) as source:
        for error in failures(source):
            assert isinstance(error, IncompleteRead)
            assert "BYPASSRLS" in error.fix
            assert "undrift_reader:***@" in error.why


def test_policy_that_would_show_everything_is_an_incomplete_read_too(
    postgres: SourceDatabase, reader: str
) -> None:
    """It cannot be told from one that does not."""
    postgres.execute(
        f"GRANT SELECT ON profiles TO {READER}",
        "ALTER TABLE profiles ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY every_row ON profiles TO {READER} USING (true)",
    )
    with documents(reader) as source:
        assert all(isinstance(error, IncompleteRead) for error in failures(source))


def test_role_that_bypasses_policies_reads_everything(
    postgres: SourceDatabase, reader: str
) -> None:
    """As the fix says."""
    postgres.execute(
        f"GRANT SELECT ON profiles TO {READER}",
        "ALTER TABLE profiles ENABLE ROW LEVEL SECURITY",
        f"ALTER ROLE {READER} BYPASSRLS",
    )
    with documents(reader) as source:
        assert owners_of(source) == ["ann", "bob", "cat"]


def test_tables_without_policies_are_read_by_anybody_with_the_right(
    postgres: SourceDatabase, reader: str
) -> None:
    """A role that may only read is all that undrift needs."""
    postgres.execute(f"GRANT SELECT ON profiles TO {READER}")
    with documents(reader) as source:
        assert source.describe().layout == "profiles(user_id, filtered_data)"
        assert read(source, "ann", "dan") == [("ann", [])]


def test_role_without_select_is_told_to_grant(reader: str) -> None:
    """A configuration error: trying again does not help."""
    with documents(reader) as source:
        for error in failures(source):
            assert isinstance(error, ConfigError)
            assert "GRANT SELECT" in error.fix
            assert "profiles" in error.why
            assert SECRET not in shown(error)


def test_role_without_the_schema_is_told_to_grant(postgres: SourceDatabase, reader: str) -> None:
    """USAGE on the schema is missing, SELECT on the table is there."""
    postgres.execute(
        "CREATE SCHEMA app",
        "CREATE TABLE app.profiles AS SELECT * FROM profiles",
        f"GRANT SELECT ON app.profiles TO {READER}",
    )
    with documents(reader, table="app.profiles") as source:
        for error in failures(source):
            assert isinstance(error, ConfigError)
            assert "USAGE" in error.fix


def test_right_to_some_columns_is_not_enough(postgres: SourceDatabase, reader: str) -> None:
    """The owner may be read, the document may not."""
    postgres.execute(f"GRANT SELECT (user_id) ON profiles TO {READER}")
    with documents(reader) as source:
        assert owners_of(source) == ["ann", "bob", "cat"]
        with pytest.raises(ConfigError, match="GRANT SELECT"):
            list(source.read(["ann"]))


# --- outages ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["fast", "kill"])
def test_server_that_stops_between_pages_is_unavailable_until_it_is_back(
    postgres: SourceDatabase, postgres_server: PostgresServer, mode: StopMode
) -> None:
    """What was yielded stands; the same object goes on as soon as the server does."""
    postgres.execute("CHECKPOINT")
    with documents(postgres.url) as source:
        pages = iter(source.owner_pages(1))
        assert list(next(pages)) == ["ann"]
        postgres_server.stop(mode)
        with pytest.raises(SourceUnavailable):
            next(pages)
        assert all(isinstance(error, SourceUnavailable) for error in failures(source))
        postgres_server.start()
        assert pages_of(source, 1, after="ann") == [["bob"], ["cat"]]
        assert read(source, "bob") == [("bob", [])]


def test_server_that_stops_in_the_middle_of_a_read_is_unavailable(
    postgres: SourceDatabase, postgres_server: PostgresServer
) -> None:
    """The iterator does not end as if it had been complete."""
    names = [f"u{number:05}" for number in range(20_000)]
    postgres.execute(
        "INSERT INTO profiles SELECT 'u' || lpad(n::text, 5, '0'), "
        "'{\"notes\": [\"' || repeat('x', 2000) || '\"]}' FROM generate_series(0, 19999) AS n"
    )
    with nothing_left_open(), documents(postgres.url) as source:
        contents = iter(source.read(names))
        next(contents)
        postgres_server.stop("immediate")
        with pytest.raises(SourceUnavailable):
            list(contents)
        del contents


def test_outage_does_not_show_the_password(
    postgres: SourceDatabase, postgres_server: PostgresServer
) -> None:
    """Nor does its traceback."""
    postgres_server.stop()
    with documents(postgres.url) as source, pytest.raises(SourceUnavailable) as caught:
        source.describe()
    assert postgres_server.password not in shown(caught.value)


def test_pool_without_a_free_connection_is_unavailable() -> None:
    """Too many threads at once are no fault of the configuration."""
    refused = pytest.raises(SourceUnavailable, match="no connection became free")
    with refused, mapped_failures("postgresql://db/app"):
        raise sa.exc.TimeoutError("QueuePool limit reached")


# --- tables and columns -----------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> SourceDatabase:
    """A database of either kind with a table of profiles and a view."""
    if request.param == "postgres":
        database = SourceDatabase(request.getfixturevalue("postgres_url"))
    else:
        database = sqlite_database(tmp_path)
    database.profiles([("ann", "{}")])
    database.execute("CREATE VIEW people AS SELECT * FROM profiles")
    return database


def test_missing_table_lists_those_there_are(database: SourceDatabase) -> None:
    """Views too; the nearest is named."""
    with documents(database.url, table="profile") as source:
        for error in (*failures(source), *failures(source)):
            assert isinstance(error, ConfigError)
            assert error.what == "No table 'profile'"
            assert "people, profiles; did you mean 'profiles'?" in error.why
            assert "undrift.toml" in error.fix


def test_database_without_tables_says_so(tmp_path: Path) -> None:
    """As a new file is, or the wrong one."""
    with (
        documents(sqlite_database(tmp_path).url) as source,
        pytest.raises(ConfigError, match="there are: none"),
    ):
        source.describe()


def test_table_of_another_schema_is_not_taken(postgres: SourceDatabase) -> None:
    """A schema that does not exist has no tables."""
    with (
        documents(postgres.url, table="app.profiles") as source,
        pytest.raises(ConfigError, match=r"No table 'app\.profiles'"),
    ):
        source.describe()


@pytest.mark.parametrize(
    ("setting", "column", "nearest"),
    [("owner", "userid", "user_id"), ("document", "filterd_data", "filtered_data")],
)
def test_missing_column_names_the_nearest(
    database: SourceDatabase, setting: str, column: str, nearest: str
) -> None:
    """Without it nothing can be read."""
    with (
        documents(database.url, **{setting: column}) as source,
        pytest.raises(ConfigError) as caught,
    ):
        source.describe()
    assert caught.value.what == f"No column {column!r} in table 'profiles'"
    assert f"did you mean {nearest!r}?" in caught.value.why


@pytest.mark.parametrize(
    "where", ["no_such_column = 1", "user_id = = 1", "no_such_function(1)", ")"]
)
def test_condition_that_is_no_sql_is_a_configuration_error(
    database: SourceDatabase, where: str
) -> None:
    """No server is at fault."""
    with documents(database.url, where=where) as source:
        for error in failures(source):
            assert isinstance(error, ConfigError)
            assert "where" in error.fix


# --- files ------------------------------------------------------------------------------------


def test_file_that_is_not_there_is_never_created(tmp_path: Path) -> None:
    """An empty database would look like one without users."""
    path = tmp_path / "app.db"
    with documents(f"sqlite:///{path}") as source:
        assert all(isinstance(error, ConfigError) for error in failures(source))
        with pytest.raises(ConfigError, match="does not exist") as caught:
            source.describe()
    assert str(path) in caught.value.why
    assert list(tmp_path.iterdir()) == []


def test_file_that_is_no_database_is_a_configuration_error(tmp_path: Path) -> None:
    """Nor is a folder."""
    path = tmp_path / "app.db"
    path.write_text("not a database, though long enough to have a header" * 20)
    with (
        documents(f"sqlite:///{path}") as source,
        pytest.raises(ConfigError, match="not a SQLite database"),
    ):
        source.describe()
    with documents(f"sqlite:///{tmp_path}") as source, pytest.raises(ConfigError):
        source.describe()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///"])
def test_memory_is_no_source(url: str) -> None:
    """Every process would see an empty one of its own."""
    with pytest.raises(ConfigError, match="names no file"):
        Database(url)


def test_file_that_vanishes_is_an_error_not_an_empty_source(tmp_path: Path) -> None:
    """Whatever the pool still holds."""
    database = sqlite_database(tmp_path)
    database.profiles([("ann", "{}")])
    with documents(database.url) as source:
        assert owners_of(source) == ["ann"]
        source.close()
        assert database.path is not None
        database.path.unlink()
        assert len(failures(source)) == 3
    assert list(tmp_path.iterdir()) == []
