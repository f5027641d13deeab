"""Digests of stores where the databases are not as they are everywhere."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest

from support.postgres import PostgresServer
from undrift.digests import FINGERPRINT_CHARACTERS, records_digest, stamps_digest
from undrift.ports import Record
from undrift.stores import _sqlite_sql
from undrift.stores._pg_address import parse_address
from undrift.stores._pg_sql import Statements
from undrift.stores.pgvector import PgvectorStore
from undrift.stores.sqlite import SqliteStore
from undrift.testing.builders import DIMENSION, MODEL, record, records

KINDS = ("experience",)
S = TypeVar("S", PgvectorStore, SqliteStore)
OWNERS = [f"u{number:03}" for number in range(400)]


@pytest.fixture
def postgres(postgres_url: str) -> Iterator[PgvectorStore]:
    """A store in PostgreSQL, created and empty."""
    with created(PgvectorStore(postgres_url)) as store:
        yield store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the SQLite store is."""
    return tmp_path / "vectors.db"


@pytest.fixture
def sqlite(path: Path) -> Iterator[SqliteStore]:
    """A store in a file, created and empty."""
    with created(SqliteStore(path)) as store:
        yield store


@contextmanager
def created(store: S, dimension: int = DIMENSION) -> Iterator[S]:
    """*store*, created, and closed at the end."""
    store.create(dimension)
    yield store
    store.close()


def run(path: Path, statement: str, *values: object) -> None:
    """Execute *statement* in the SQLite file."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(statement, values)


def wanted(*of: Record) -> bytes:
    """The digest of these records."""
    return records_digest((r.stamp.fingerprint, r.stamp.kind, r.stamp.entity_id) for r in of)


def crowd(dimension: int = DIMENSION) -> list[Record]:
    """Ten records of each of many owners."""
    return [of for owner in OWNERS for of in records(10, owner_id=owner, dimension=dimension)]


def assert_as_stamps_say(store: PgvectorStore | SqliteStore, *owners: str) -> None:
    """Compare the digests with those of what is enumerated; all records are of the namespace."""
    found = store.digests(owners, model=MODEL, kinds=KINDS)
    assert set(found) == set(owners)
    for owner in owners:
        stamps = list(store.stamps([owner]))
        assert stamps
        assert found[owner] == stamps_digest(stamps, model=MODEL, kinds=KINDS)


# --- PostgreSQL -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_digests_are_read_from_the_index_alone(postgres_url: str, workers: int) -> None:
    """The table, with its vectors, is many times as large."""
    with created(PgvectorStore(postgres_url), dimension=384) as store:
        store.publish(crowd(dimension=384), [])
    parameters = {
        "owners": OWNERS[100:150],
        "namespace": "default",
        "model": MODEL,
        "kinds": list(KINDS),
        "fingerprint_characters": FINGERPRINT_CHARACTERS,
    }
    query = (
        b"EXPLAIN (ANALYZE, FORMAT JSON) " + Statements(parse_address(postgres_url).table).digests
    )

    def scans() -> list[tuple[str, int]]:
        with psycopg.connect(postgres_url) as server:
            server.execute("SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0")
            server.execute(f"SET LOCAL max_parallel_workers_per_gather = {workers}".encode())
            row = server.execute(query, parameters).fetchone()
        assert row is not None
        return [
            (node["Node Type"], node.get("Heap Fetches", 0))
            for node in nodes(row[0][0]["Plan"])
            if "Relation Name" in node and node["Actual Rows"]  # of lost vectors there are none
        ]

    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute("ANALYZE undrift.vectors")
        assert scans() != [("Index Only Scan", 0)]
        server.execute("CHECKPOINT")  # a commit that is not on the disk is not visible to all
        server.execute("VACUUM ANALYZE undrift.vectors")
    assert scans() == [("Index Only Scan", 0)]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All nodes of *plan*."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


def test_records_of_a_table_of_before_have_digests(
    postgres: PgvectorStore, postgres_url: str
) -> None:
    """Also where it has none of the indexes."""
    written = records(6)
    postgres.publish(written, [])
    with psycopg.connect(postgres_url) as server:
        found = server.execute(
            "SELECT indexrelid::regclass::text FROM pg_index"
            " WHERE indrelid = 'undrift.vectors'::regclass AND NOT indisprimary"
        ).fetchall()
        assert len(found) == 3
        for (name,) in found:
            server.execute(f"DROP INDEX {name}".encode())
        server.execute(
            "UPDATE undrift.vectors SET embedding = NULL WHERE vector_id = %s",
            [written[0].stamp.vector_id],
        )
    assert_as_stamps_say(postgres, "1")
    assert postgres.digests(["1"], model=MODEL, kinds=KINDS)["1"].amiss == 1


def test_database_without_an_encoding_ends_no_page(postgres_server: PostgresServer) -> None:
    """Whatever bytes somebody wrote there; all that is text has its digest."""
    name = "digests_sql_ascii"
    with psycopg.connect(postgres_server.admin_url, autocommit=True) as admin:
        admin.execute(
            f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'".encode()
        )
    url = postgres_server.url(name)
    try:
        with created(PgvectorStore(url)) as store:
            broken = record("broken", owner_id="2")
            store.publish([*records(3), broken, record("é", owner_id="3")], [])
            with psycopg.connect(url) as server:
                server.execute(r"UPDATE undrift.vectors SET entity_id = E'\x80' WHERE owner_id='2'")
            found = store.digests(["1", "2", "3"], model=MODEL, kinds=KINDS)
            assert found["1"].digest == wanted(*records(3))
            assert found["2"].digest != wanted(broken)
            assert_as_stamps_say(store, "1")
    finally:
        postgres_server.drop_database(url)


def test_vectors_lost_by_the_thousand_are_counted_at_once(
    postgres: PgvectorStore, postgres_url: str
) -> None:
    """Though the statistics know of none: what is joined are owners, not records."""
    postgres.publish(crowd(), [])
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute("VACUUM ANALYZE undrift.vectors")
        server.execute("ALTER TABLE undrift.vectors SET (autovacuum_enabled = off)")
        server.execute("UPDATE undrift.vectors SET embedding = NULL WHERE owner_id < 'u390'")
    found = postgres.digests(OWNERS, model=MODEL, kinds=KINDS)
    assert [found[owner].amiss for owner in OWNERS] == [10] * 390 + [0] * 10


# --- SQLite -----------------------------------------------------------------------------------


def test_id_with_a_nul_is_not_taken_for_two_records(sqlite: SqliteStore, path: Path) -> None:
    """SQLite's functions stop there; whoever wrote that is to be read in full."""
    one, other = records(2)
    sqlite.publish([one], [])
    first, second = sorted((one.stamp, other.stamp), key=lambda stamp: stamp.fingerprint)
    forged = f"{first.entity_id}\x00{second.fingerprint}|{second.kind}:2:{second.entity_id}"
    for entity_id in (forged, forged.replace("\x00", "")):
        run(path, "UPDATE vectors SET entity_id = ?, fingerprint = ?", entity_id, first.fingerprint)
        found = sqlite.digests(["1"], model=MODEL, kinds=KINDS)["1"]
        assert found.records == 1
        assert found.digest not in (wanted(one, other), wanted(one), wanted(other))


@pytest.mark.parametrize("column", ["kind", "entity_id", "fingerprint", "model"])
@pytest.mark.parametrize("value", ["CAST(X'80' AS TEXT)", "X'80'", "X'00'", "5", "NULL"])
def test_value_of_any_type_ends_no_page(
    sqlite: SqliteStore, path: Path, column: str, value: str
) -> None:
    """What somebody wrote into one record is seen to be wrong, and the others have digests."""
    written = records(2)
    sqlite.publish([*written, *records(3, owner_id="2")], [])
    run(
        path,
        f"UPDATE vectors SET {column} = {value} WHERE vector_id = ?",
        written[0].stamp.vector_id,
    )
    found = sqlite.digests(["1", "2"], model=MODEL, kinds=KINDS)
    assert found["1"].amiss or found["1"].digest != wanted(*written)
    assert found["1"].records + found["1"].unmanaged == 2
    assert_as_stamps_say(sqlite, "2")


def test_file_of_another_encoding_is_never_said_to_agree(path: Path) -> None:
    """An application's file may be in UTF-16; its owners are read in full."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("PRAGMA encoding = 'UTF-16le'")
        file.execute("CREATE TABLE application (id)")
    with created(SqliteStore(path)) as store:
        store.publish(records(2), [])
        found = store.digests(["1", "2"], model=MODEL, kinds=KINDS)
        assert set(found) == {"1"}
        assert found["1"].records == 2
        assert found["1"].digest != wanted(*records(2))


def test_records_of_a_file_of_before_have_digests(sqlite: SqliteStore, path: Path) -> None:
    """One whose index lacks a column."""
    sqlite.publish(records(6), [])
    run(path, "DROP INDEX vectors_by_owner")
    run(path, "CREATE INDEX vectors_by_owner ON vectors (owner_id, namespace, kind)")
    assert_as_stamps_say(sqlite, "1")


def test_digests_of_sqlite_touch_no_vector(sqlite: SqliteStore, path: Path) -> None:
    """Only the indexes are read, of the records and of their vectors."""
    sqlite.publish(records(3), [])
    with closing(sqlite3.connect(path)) as file:
        plan = file.execute(
            "EXPLAIN QUERY PLAN " + _sqlite_sql.DIGESTS,
            {
                "owners": json.dumps(["1"]),
                "namespace": "default",
                "model": MODEL,
                "kinds": json.dumps(KINDS),
                "fingerprint_characters": FINGERPRINT_CHARACTERS,
            },
        )
        steps = [step for *_, step in plan if step.startswith(("SEARCH v", "SEARCH e", "SCAN v"))]
    assert len(steps) == 2
    assert all("COVERING INDEX" in step for step in steps)
