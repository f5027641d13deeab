"""What stores keep for a state: claims, tombstones, addresses; in new places and in older ones."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import cast
from urllib.parse import unquote

import psycopg
import pytest

from support.fences import PostgresFence, SqliteFence
from support.files import as_nobody
from support.postgres import PostgresServer, with_login
from undrift.errors import ConfigError
from undrift.ports import Record
from undrift.state import Claim, Expected, TransactionalStore
from undrift.stores import open_store
from undrift.stores._pg_address import parse_address
from undrift.stores.pgvector import PgvectorStore
from undrift.stores.sqlite import SqliteStore
from undrift.testing.builders import (
    DIMENSION,
    MODEL,
    deletion,
    expected,
    record,
    records,
    tombstone,
    vectors,
)
from undrift.testing.store_process import fenced_batch

CLAIM = Claim("1/app", "a state", 3)

# As the tables were created before there were claims and tombstones.
OLD_POSTGRES = (
    "DROP TABLE undrift.store_claim",
    "DROP INDEX undrift.vectors_by_owner, undrift.vectors_lost, undrift.vectors_buried",
    """CREATE INDEX vectors_by_owner ON undrift.vectors (owner_id, namespace)
    INCLUDE (kind, entity_id, fingerprint, text_hash, model, version, vector_id)""",
    """CREATE INDEX vectors_lost ON undrift.vectors (owner_id) INCLUDE (vector_id)
    WHERE embedding IS NULL""",
)
OLD_SQLITE = (
    "DROP TABLE undrift_store_claim",
    "DROP INDEX vectors_by_owner",
    "DROP INDEX vectors_buried",
    """CREATE INDEX vectors_by_owner ON vectors (
    owner_id, namespace, kind, entity_id, fingerprint, text_hash, model, version, vector_id)""",
)


def run(url: str, *statements: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vectors.db"


@pytest.fixture
def pgvector(postgres_url: str) -> Iterator[PgvectorStore]:
    with closing(PgvectorStore(postgres_url)) as store:
        store.create(DIMENSION)
        yield store


@pytest.fixture
def sqlite(path: Path) -> Iterator[SqliteStore]:
    with closing(SqliteStore(path)) as store:
        store.create(DIMENSION)
        yield store


@pytest.fixture(params=["sqlite", "pgvector"])
def older(request: pytest.FixtureRequest) -> TransactionalStore:
    """A store whose tables are from before."""
    store: TransactionalStore = request.getfixturevalue(request.param)
    store.publish(records(4), [])
    if isinstance(store, PgvectorStore):
        run(request.getfixturevalue("postgres_url"), *OLD_POSTGRES)
    else:
        with closing(sqlite3.connect(request.getfixturevalue("path"))) as file:
            for statement in OLD_SQLITE:
                file.execute(statement)
    return store


def ids(store: TransactionalStore) -> list[str]:
    return sorted(stamp.entity_id for stamp in store.stamps(["1"]))


# --- tables of before ---------------------------------------------------------------------------


def test_an_older_store_is_claimed_without_any_migration(older: TransactionalStore) -> None:
    """Reading creates nothing; the first claim does."""
    assert older.claim() is None
    assert not older.put_claim(CLAIM, replacing=CLAIM)
    assert older.claim() is None
    assert older.put_claim(CLAIM, replacing=None)
    assert older.claim() == CLAIM


def test_creating_an_older_store_adds_what_it_lacks(older: TransactionalStore) -> None:
    older.create(DIMENSION)
    assert older.put_claim(CLAIM, replacing=None)
    older.create(DIMENSION)
    assert older.claim() == CLAIM
    assert ids(older) == ["r0", "r1", "r2", "r3"]


def test_an_older_store_keeps_tombstones(older: TransactionalStore) -> None:
    """Its indexes do not know them, so it takes longer; the answers are the same."""
    gone = [tombstone(of, version=2) for of in records(4)[2:]]
    older.bury(gone)
    older.publish(records(4), [])
    assert ids(older) == ["r0", "r1"]
    assert sorted(older.tombstones(["1"])) == sorted(gone)
    assert len(older.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=10)) == 2
    older.bury([tombstone(of, version=2) for of in records(2)])
    assert older.owners(None, 10) == []
    assert older.unmanaged(["1"]) == {}
    older.collect(list(older.tombstones(["1"])))
    assert list(older.tombstones(["1"])) == []
    older.publish(records(4), [])
    assert ids(older) == ["r0", "r1", "r2", "r3"]


# --- what a tombstone leaves --------------------------------------------------------------------


def test_a_tombstone_keeps_no_text_and_no_vector_in_postgresql(
    pgvector: PgvectorStore, postgres_url: str
) -> None:
    pgvector.publish([record(text="a secret text", metadata={"a": "secret"})], [])
    pgvector.bury([tombstone(record(), version=2)])
    rows = run(
        postgres_url,
        "SELECT deleted, deleted_at > now() - interval '1 minute', embedding IS NULL, "
        "v::text LIKE '%secret%' FROM undrift.vectors v",
    )
    assert rows == [(1, True, True, False)]


def test_a_tombstone_keeps_no_text_and_no_vector_in_sqlite(sqlite: SqliteStore, path: Path) -> None:
    sqlite.publish([record(text="a secret text", metadata={"a": "secret"})], [])
    sqlite.bury([tombstone(record(), version=2)])
    with closing(sqlite3.connect(path)) as file:
        ((deleted, is_recent, text, metadata),) = file.execute(
            "SELECT deleted, julianday('now') - julianday(deleted_at) < 0.001, text, metadata "
            "FROM vectors"
        )
        assert (deleted, is_recent, text, metadata) == (1, 1, "", "{}")
        assert file.execute("SELECT count(*) FROM embeddings").fetchone() == (0,)


def test_tombstones_and_stamps_come_from_indexes_alone(
    pgvector: PgvectorStore, postgres_url: str
) -> None:
    """The table, whose rows hold the vectors, is not read."""
    for owner in "123456789":
        pgvector.publish(records(300, owner_id=owner), [])
    pgvector.bury([tombstone(of, version=2) for of in records(200)])
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE undrift.vectors")
        connection.execute("SET enable_seqscan = off")  # so few rows would be
        connection.execute("SET enable_bitmapscan = off")
        values = {"owners": ["1", "2"], "namespace": "default"}
        for query in (
            pgvector._statements.stamps_of_owners,
            pgvector._statements.tombstones,
            pgvector._statements.first_owners,
        ):
            rows = connection.execute(b"EXPLAIN " + query, values | {"limit": 10}).fetchall()
            plan = "\n".join(row[0] for row in rows)
            scans = [line for line in plan.splitlines() if " on vectors" in line]
            assert scans
            assert all("Index Only Scan" in line for line in scans), plan


def test_many_owners_of_a_table_never_analysed_are_found_by_its_index(
    pgvector: PgvectorStore, postgres_url: str
) -> None:
    """As after a first sync. The control asks for the same, as the planner would have it."""

    def scans() -> tuple[int, int]:
        counted = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'vectors'"
        return cast(tuple[int, int], run(postgres_url, counted)[0])

    def counted_when(work: Callable[[], object]) -> int:
        """Scans of the whole table; a session tells what it did when it ends."""
        before = scans()
        work()
        pgvector.close()
        while (now := scans()) == before:
            time.sleep(0.01)
        return now[0] - before[0]

    run(postgres_url, "ALTER TABLE undrift.vectors SET (autovacuum_enabled = off)")
    owners = [f"user-{number}" for number in range(400)]
    written = [one for owner in owners for one in records(5, owner_id=owner)]
    counted_when(lambda: pgvector.publish(written, []))
    asked = owners[:200]
    assert counted_when(lambda: pgvector.unmanaged(asked)) == 0
    assert counted_when(lambda: pgvector.digests(asked, model=MODEL, kinds=["experience"])) == 0
    values = {"owners": asked, "namespace": "default"}

    def plainly() -> None:
        with psycopg.connect(postgres_url) as connection:
            connection.execute(pgvector._statements.unmanaged, values)

    assert counted_when(plainly) == 1


# --- claims and rights --------------------------------------------------------------------------


def test_stores_of_one_schema_have_claims_of_their_own(postgres_url: str) -> None:
    tables = ("?table=shop.one", "?table=shop.two", "?table=shop.one%25")
    stores = [PgvectorStore(f"{postgres_url}{table}") for table in tables]
    for number, store in enumerate(stores):
        store.create(DIMENSION)
        assert store.claim() is None
        assert store.put_claim(CLAIM._replace(epoch=number), replacing=None)
    for number, store in enumerate(stores):
        assert store.claim() == CLAIM._replace(epoch=number)
        store.close()
    found = run(postgres_url, "SELECT count(*) FROM shop.undrift_store_claim")
    assert found == [(3,)]


def test_a_role_that_may_not_create_is_told_what_its_owner_has_to_run(
    pgvector: PgvectorStore, postgres_url: str, postgres_server: PostgresServer
) -> None:
    """And that is all that was missing."""
    postgres_server.create_role("claim writer", "secret")
    run(
        postgres_url,
        *OLD_POSTGRES,
        'GRANT USAGE ON SCHEMA undrift TO "claim writer"',
        'GRANT SELECT, INSERT, UPDATE, DELETE ON undrift.vectors TO "claim writer"',
    )
    with closing(PgvectorStore(with_login(postgres_url, "claim writer", "secret"))) as store:
        assert store.claim() is None
        with pytest.raises(ConfigError, match="may not create the table of claims") as caught:
            store.put_claim(CLAIM, replacing=None)
        assert "secret" not in str(caught.value)
        run(postgres_url, *caught.value.fix.removeprefix("let the owner run: ").split("; "))
        assert store.put_claim(CLAIM, replacing=None)
        assert store.claim() == CLAIM


@pytest.mark.parametrize("call", ["claim", "put_claim"])
def test_a_role_without_rights_on_claims_is_told_which(
    pgvector: PgvectorStore, postgres_url: str, postgres_server: PostgresServer, call: str
) -> None:
    postgres_server.create_role("claim_stranger", "secret")
    run(postgres_url, "GRANT USAGE ON SCHEMA undrift TO claim_stranger")
    with closing(PgvectorStore(with_login(postgres_url, "claim_stranger", "secret"))) as store:
        calls: dict[str, Callable[[], object]] = {
            "claim": store.claim,
            "put_claim": lambda: store.put_claim(CLAIM, replacing=None),
        }
        with pytest.raises(ConfigError, match="may not use the table of claims") as caught:
            calls[call]()
        run(postgres_url, *caught.value.fix.removeprefix("let the owner run: ").split("; "))
        calls[call]()


def test_vectors_cannot_take_the_place_of_claims(postgres_url: str) -> None:
    for name in ("store_claim", "undrift.store_claim", "shop.undrift_store_claim"):
        with pytest.raises(ConfigError, match="keeps the claims"):
            PgvectorStore(f"{postgres_url}?table={name}")


# --- where a state beside them lives ------------------------------------------------------------


def test_the_state_beside_vectors_in_postgresql(pgvector: PgvectorStore, postgres_url: str) -> None:
    """The same database and parameters, but for those that are the store's own."""
    assert pgvector.state_address() == (
        f"{postgres_url}?schema=undrift",
        "default@undrift.vectors",
    )
    url = f"{postgres_url}?table=My%26Shop.v&connect_timeout=7&search=approximate"
    with closing(PgvectorStore(url, namespace="n")) as store:
        state_url, scope = store.state_address()
    assert state_url == f"{postgres_url}?connect_timeout=7&schema=My%26Shop"
    assert scope == "n@My&Shop.v"
    assert parse_address(postgres_url).conninfo == postgres_url


def test_the_state_beside_vectors_in_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An absolute address, which opens the same file wherever it is opened from."""
    folder = tmp_path / "50% of a folder?"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with closing(SqliteStore("vectors.db", namespace="n")) as store:
        store.create(DIMENSION)
        url, scope = store.state_address()
    assert scope == "n"
    assert unquote(url) == f"sqlite:///{folder}/vectors.db"
    monkeypatch.chdir("/")
    with closing(open_store(url)) as again:
        assert again.describe().exists


def test_nothing_is_kept_beside_vectors_that_are_read_only(sqlite: SqliteStore, path: Path) -> None:
    with closing(SqliteStore(path, read_only=True)) as reader:
        with pytest.raises(ConfigError, match="mode=ro"):
            reader.state_address()
        with pytest.raises(ConfigError, match="may not be used like that"):
            reader.put_claim(CLAIM, replacing=None)
        assert reader.claim() is None
    path.chmod(0o444)
    with as_nobody(path.parent), pytest.raises(ConfigError, match="may not write it"):
        sqlite.state_address()
    path.chmod(0o644)
    assert sqlite.state_address()[1] == "default"


# --- fenced publishes ---------------------------------------------------------------------------


class OnceDeadlocked(PostgresFence):
    """A fence in which the server ends the first transaction that asks it."""

    asked = 0

    def hold(self, connection: object, expected: Sequence[Expected]) -> frozenset[str]:
        self.asked += 1
        if self.asked == 1:
            raise psycopg.errors.DeadlockDetected("deadlock detected")
        return super().hold(connection, expected)


def test_a_fenced_publish_that_deadlocks_begins_again(
    pgvector: PgvectorStore, postgres_url: str
) -> None:
    fence = OnceDeadlocked(postgres_url, "undrift")
    batch = fenced_batch(3, 2)
    fence.put(batch.expected)
    assert pgvector.publish_fenced(*batch, fence) == frozenset()
    assert fence.asked == 2
    assert ids(pgvector) == ["r0", "r1", "r2"]
    assert set(fence.published_versions().values()) == {2}


@pytest.mark.parametrize("which", ["sqlite", "pgvector"])
def test_whoever_comes_late_the_store_ends_as_the_state_says(
    request: pytest.FixtureRequest, which: str, postgres_url: str, path: Path
) -> None:
    """Eight threads write and physically delete one record, each at a version of its own."""
    store: TransactionalStore = request.getfixturevalue(which)
    fence = (
        PostgresFence(postgres_url, "undrift") if which == "pgvector" else SqliteFence(str(path))
    )
    observing, versions = threading.Lock(), count(1)
    last = 0

    def work(_: int) -> None:
        nonlocal last
        for _ in range(10):
            with observing:
                last = next(versions)
                of = record(text=f"version {last}", version=last)
                fence.put([expected(of)])
            stored = [deletion(stamp) for stamp in store.stamps(["1"])]
            writes, deletes = ([], stored) if last_is_delete(of) else ([of], [])
            store.publish_fenced(writes, deletes, [expected(of)], fence)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert last == 80
    assert ids(store) == []
    final = record(version=81)
    fence.put([expected(final)])
    assert store.publish_fenced([final], [], [expected(final)], fence) == frozenset()
    assert ids(store) == ["exp_1"]


def last_is_delete(of: Record) -> bool:
    """Every second version is one."""
    return of.stamp.version % 2 == 0
