"""The tests' own PostgreSQL: what every test on it relies on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from support.postgres import UNREACHABLE, PostgresServer, with_login

TESTS = Path(__file__).resolve().parents[1]


def value(url: str, query: str) -> object:
    """Return the one value that *query* gives."""
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_server_is_postgresql_18(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        assert connection.info.server_version // 10_000 == 18


def test_new_database_has_pgvector(postgres_url: str) -> None:
    assert value(postgres_url, "SELECT '[1,2,2]'::vector <-> '[1,2,0]'::vector") == 2.0


def test_database_without_pgvector_can_be_had(postgres_server: PostgresServer) -> None:
    with postgres_server.database(with_vector=False) as url:
        assert value(url, "SELECT to_regtype('vector')::text") is None


def test_two_databases_are_apart(new_postgres_url: Callable[[], str]) -> None:
    one, other = new_postgres_url(), new_postgres_url()
    with psycopg.connect(one) as connection:
        connection.execute("CREATE TABLE here AS SELECT 1")
    assert value(one, "SELECT to_regclass('here')::text") == "here"
    assert value(other, "SELECT to_regclass('here')::text") is None


@pytest.mark.parametrize("turn", ["first", "second"])
def test_database_is_empty_in_every_test(postgres_url: str, turn: str) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE left_behind (turn text)")
        connection.execute("INSERT INTO left_behind VALUES (%s)", [turn])


def test_database_is_dropped_under_an_open_connection(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as url:
        connection = psycopg.connect(url)
    with connection, pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(url)


def test_wrong_password_is_refused(postgres_url: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(with_login(postgres_url, "postgres", "wrong"))


def test_role_has_its_attributes_and_no_others(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    for attributes in ((), ("CREATEDB", "BYPASSRLS")):  # the second replaces the first
        postgres_server.create_role("reader of things", "pass/word@", *attributes)
        url = with_login(postgres_url, "reader of things", "pass/word@")
        assert value(url, "SELECT current_user") == "reader of things"
        for attribute, column in (("CREATEDB", "rolcreatedb"), ("BYPASSRLS", "rolbypassrls")):
            query = f"SELECT {column} FROM pg_roles WHERE rolname = current_user"
            assert value(url, query) is (attribute in attributes)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            value(url, "CREATE TABLE mine (id int)")


def test_stopped_server_refuses_and_is_back_at_the_same_address(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1")
    postgres_server.stop()
    with pytest.raises(psycopg.OperationalError, match=UNREACHABLE):
        psycopg.connect(postgres_url)
    postgres_server.start()
    assert value(postgres_url, "SELECT count(*) FROM kept") == 1


@pytest.mark.parametrize("turn", ["first", "second"])
def test_server_that_a_test_left_stopped_is_up_in_the_next(
    postgres_server: PostgresServer, postgres_url: str, turn: str
) -> None:
    assert value(postgres_url, f"SELECT '{turn}'") == turn
    postgres_server.stop("immediate")


def test_durable_server_keeps_what_was_committed_before_a_kill() -> None:
    with PostgresServer(durable=True) as server:
        url = server.create_database()
        assert value(url, "SHOW fsync") == "on"
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1")
        with psycopg.connect(url) as busy:  # killed in the middle of a transaction
            busy.execute("INSERT INTO kept SELECT * FROM generate_series(1, 9)")
            server.restart("kill")
            with pytest.raises(psycopg.OperationalError):
                busy.execute("SELECT 1")
        assert value(url, "SELECT count(*) FROM kept") == 1


def test_server_and_its_folder_go_when_the_tests_are_killed() -> None:
    program = (
        "from support.postgres import PostgresServer\n"
        "server = PostgresServer()\n"
        "print(server.folder, server.admin_url, sep='\\n', flush=True)\n"
        "input()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as tests:
        assert tests.stdout is not None
        folder = Path(tests.stdout.readline().strip())
        url = tests.stdout.readline().strip()
        assert value(url, "SELECT 1") == 1
        tests.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while folder.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.exists()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)
