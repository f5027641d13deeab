"""Which database a source is, however it is addressed."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from support.postgres import PostgresServer, with_login
from support.sources import SourceDatabase, documents, sqlite_database


def identity(url: str) -> str:
    with documents(url) as source:
        return source.describe().identity


def filled(url: str) -> str:
    SourceDatabase(url).profiles([("ann", '{"notes": []}')])
    return url


def test_a_database_is_itself_under_every_spelling(postgres_url: str) -> None:
    url = filled(postgres_url)
    parts = urlsplit(url)
    spellings = [
        url,
        url.replace("postgresql://", "postgres://"),
        url.replace("127.0.0.1", "localhost"),
        f"{url}?application_name=another",
        f"postgresql+psycopg://{parts.netloc}{parts.path}",
    ]
    assert len({identity(spelling) for spelling in spellings}) == 1


def test_it_names_the_cluster_and_the_database(postgres_url: str) -> None:
    with psycopg.connect(filled(postgres_url)) as connection:
        query = "SELECT system_identifier || '/' || current_database() FROM pg_control_system()"
        ((expected,),) = connection.execute(query).fetchall()
    assert identity(postgres_url) == expected


def test_two_databases_of_one_server_are_not_the_same(
    new_postgres_url: Callable[[], str],
) -> None:
    assert identity(filled(new_postgres_url())) != identity(filled(new_postgres_url()))


def test_another_server_is_another_source_and_a_standby_is_not(postgres_url: str) -> None:
    """Even under one name; a server that recovers for ever is a standby."""
    here = identity(filled(postgres_url))
    with PostgresServer() as server, server.database() as url:
        there = identity(filled(url))
        server.stop()
        signal_file = server.folder / "data" / "standby.signal"
        signal_file.touch()
        server.start()
        with documents(url) as source:
            info = source.describe()
        server.stop()
        signal_file.unlink()
        server.start()
    assert info.is_standby
    assert info.identity == there
    assert there.partition("/")[0] != here.partition("/")[0]


def test_a_role_that_may_not_ask_has_none(
    postgres_url: str, postgres_server: PostgresServer
) -> None:
    """And its reads go on; the control: the right alone makes the difference."""
    filled(postgres_url)
    postgres_server.create_role("identity_reader", "secret")
    url = with_login(postgres_url, "identity_reader", "secret")
    function = sql.SQL("FUNCTION pg_control_system() FROM PUBLIC")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("GRANT SELECT ON profiles TO identity_reader")
        assert identity(url) == identity(postgres_url) != ""
        connection.execute(sql.SQL("REVOKE EXECUTE ON {}").format(function))
    with documents(url) as source:
        assert source.describe().identity == ""
        assert not source.describe().is_standby
        assert [content.owner_id for content in source.read(["ann"])] == ["ann"]
    assert identity(postgres_url) != ""


def test_a_file_is_itself_under_every_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    database = sqlite_database(folder)
    database.profiles([("ann", '{"notes": []}')])
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for url in (
        database.url,
        "sqlite:///app.db",
        f"sqlite:///{tmp_path}/link/app.db",
        f"sqlite:///{folder}/../link/app.db",
    ):
        assert identity(url) == "app.db"


def test_another_file_of_the_same_content_is_another_source(tmp_path: Path) -> None:
    database = sqlite_database(tmp_path)
    database.profiles([("ann", '{"notes": []}')])
    copy = tmp_path / "copy.db"
    with (
        closing(sqlite3.connect(tmp_path / "app.db")) as file,
        closing(sqlite3.connect(copy)) as to,
    ):
        file.backup(to)
    assert identity(f"sqlite:///{copy}") != identity(database.url)
