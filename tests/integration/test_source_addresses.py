"""How a source is addressed, and what its address never shows."""

from __future__ import annotations

import socket
import tempfile
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from support.postgres import UNREACHABLE, PostgresServer, with_login
from support.sources import SourceDatabase, documents, failures, owners_of, shown
from undrift.errors import ConfigError, SourceUnavailable
from undrift.sources.database import Database

SECRET = "hunter2-hunter2"


@pytest.fixture
def postgres(postgres_url: str) -> SourceDatabase:
    """A PostgreSQL database with three profiles."""
    database = SourceDatabase(postgres_url)
    database.profiles([(owner, '{"notes": []}') for owner in ("ann", "bob", "cat")])
    return database


def test_wrong_password_is_a_configuration_error(postgres: SourceDatabase) -> None:
    """Neither the wrong nor the right one is shown."""
    with (
        documents(with_login(postgres.url, "postgres", SECRET)) as source,
        pytest.raises(ConfigError, match="refused the login") as caught,
    ):
        source.describe()
    assert "password" in caught.value.fix
    assert SECRET not in shown(caught.value)
    assert str(urlsplit(postgres.url).password) not in str(caught.value)


def test_unknown_database_is_a_configuration_error(postgres: SourceDatabase) -> None:
    """It is named."""
    with (
        documents(postgres.url.rpartition("/")[0] + "/nowhere") as source,
        pytest.raises(ConfigError, match='"nowhere" does not exist') as caught,
    ):
        source.describe()
    assert caught.value.what == "The source's database does not exist"


def test_unknown_role_is_a_configuration_error(postgres: SourceDatabase) -> None:
    """The server says no more than that the password is wrong, and so do we."""
    with (
        documents(with_login(postgres.url, "nobody_at_all", SECRET)) as source,
        pytest.raises(ConfigError, match="refused the login"),
    ):
        source.describe()


def test_server_that_does_not_answer_is_unavailable() -> None:
    """Nothing listens there: unknown, to be tried again."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can get the port
        port = taken.getsockname()[1]
        with documents(f"postgresql://app:{SECRET}@127.0.0.1:{port}/app") as source:
            with pytest.raises(SourceUnavailable, match=UNREACHABLE) as caught:
                source.describe()
            assert all(isinstance(error, SourceUnavailable) for error in failures(source))
    assert "server runs" in caught.value.fix
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.db",
        "//db/app",
        f"postgresql:/app:{SECRET}@db/app",
        f"postgresql://app:{SECRET}@db:port/app",
        f"'postgresql://app:{SECRET}@db/app'",
    ],
)
def test_malformed_address_is_a_configuration_error(url: str) -> None:
    """It is not repeated, for it may hold a password; nothing is connected to."""
    with pytest.raises(ConfigError, match="DATABASE_URL is malformed") as caught:
        Database(url)
    assert "postgresql://user:password@host:5432/database" in caught.value.fix
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize("scheme", ["mysql", "mysql+pymysql", "oracle", "mongodb", "https"])
def test_database_that_is_not_read_is_a_configuration_error(scheme: str) -> None:
    """It is named, and those that are."""
    with pytest.raises(ConfigError, match=f"does not read {scheme.partition('+')[0]}") as caught:
        Database(f"{scheme}://app:{SECRET}@db/app")
    assert "postgresql:// or sqlite:///" in caught.value.fix
    assert SECRET not in shown(caught.value)


@pytest.mark.parametrize(
    "scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"]
)
def test_every_spelling_of_the_scheme_means_psycopg(postgres: SourceDatabase, scheme: str) -> None:
    """Hosting providers write `postgres://`; white space around it comes from a file."""
    with documents(f" {scheme}://{postgres.url.partition('://')[2]}\n") as source:
        assert owners_of(source) == ["ann", "bob", "cat"]
        assert source.describe().location.startswith("postgresql://postgres:***@")


def test_socket_is_an_address() -> None:
    """`postgresql://user:password@/database?host=/folder`."""
    with tempfile.TemporaryDirectory(prefix="undrift-socket-", dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        with PostgresServer(settings={"unix_socket_directories": folder}) as server:
            login = urlsplit(server.admin_url).netloc.partition("@")[0]
            url = f"postgresql://{login}@/postgres?host={folder}&port={server.port}"
            database = SourceDatabase(server.admin_url)
            database.profiles([("ann", "{}")])
            with documents(url) as source:
                assert owners_of(source) == ["ann"]
                assert server.password not in source.describe().location


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://app:{SECRET}@db/app",
        f"postgres://app:{SECRET}@db/app?sslmode=require",
        f"postgresql://app@db/app?password={SECRET}",
        f"postgresql://app@db/app?sslmode=require&sslpassword={SECRET}",
        f"postgresql://app:{SECRET}@/app?host=/run/postgresql",
    ],
)
def test_location_hides_the_password(url: str) -> None:
    """It is printed by every run, and libpq takes a password in the query too."""
    location = Database(url).location
    assert SECRET not in location
    assert location.startswith("postgresql://app")


def test_own_connection_settings_are_kept(postgres: SourceDatabase) -> None:
    """A URL may name a time-out and an application."""
    url = f"{postgres.url}?application_name=mine&connect_timeout=3"
    with closing(Database(url)) as source, source.snapshot() as connection:
        name = connection.exec_driver_sql("SHOW application_name").scalar()
    assert name == "mine"
