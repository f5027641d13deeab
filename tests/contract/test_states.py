"""The states keep the contract of every state."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from itertools import count

import psycopg
import pytest
from psycopg import sql

from support.postgres import PostgresServer
from undrift.testing.state_contract import StateContract


class TestSqliteState(StateContract):
    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
        folder, numbers = tmp_path_factory.mktemp("states"), count(1)
        return lambda: f"sqlite:///{folder / f'{next(numbers)}.db'}"

    def let_pass(self, location: str, seconds: float) -> None:
        """Every time that is remembered becomes earlier."""
        with self._connection(location) as connection, connection:
            times = connection.execute(
                "SELECT t.name, c.name FROM sqlite_master t JOIN pragma_table_info(t.name) c "
                "WHERE t.type = 'table' AND c.type = 'REAL'"
            ).fetchall()
            assert times
            for table, column in times:
                connection.execute(f"UPDATE {table} SET {column} = {column} - ?", [seconds])

    @contextmanager
    def transaction(self, location: str) -> Iterator[object]:
        with self._connection(location) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _connection(self, location: str) -> Iterator[sqlite3.Connection]:
        path = location.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
            yield connection


class TestPostgresState(StateContract):
    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
        numbers = count(1)
        with postgres_server.database() as url:
            yield lambda: f"{url}?schema=state_{next(numbers)}"

    def let_pass(self, location: str, seconds: float) -> None:
        """Every time that is remembered becomes earlier."""
        url, _, schema = location.partition("?schema=")
        with psycopg.connect(url) as connection:
            times = connection.execute(
                "SELECT table_name, column_name FROM information_schema.columns "
                "WHERE table_schema = %s AND data_type = 'timestamp with time zone'",
                [schema],
            ).fetchall()
            assert times
            for table, column in times:
                update = sql.SQL("UPDATE {table} SET {column} = {column} - {seconds}::interval")
                connection.execute(
                    update.format(
                        table=sql.Identifier(schema, table),
                        column=sql.Identifier(column),
                        seconds=sql.Literal(f"{seconds} seconds"),
                    )
                )

    @contextmanager
    def transaction(self, location: str) -> Iterator[object]:
        with psycopg.connect(location.partition("?schema=")[0]) as connection:
            yield connection
