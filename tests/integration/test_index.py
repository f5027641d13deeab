"""The optional index on vectors: building it, what goes wrong meanwhile, and asking it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest

from support.postgres import PostgresServer
from support.startup_proxy import startup_proxy
from undrift.errors import (
    ConfigError,
    StoreUnavailable,
    TransientError,
    UndriftError,
    UnsupportedError,
)
from undrift.ports import Match
from undrift.search_index import IndexParameters, IndexProgress, IndexState, SearchIndex
from undrift.stores import _pg_asking as pg_asking
from undrift.stores import _pg_index as pg_index
from undrift.stores import open_store, pgvector
from undrift.stores._pg_vectors import OneVector
from undrift.stores.pgvector import PgvectorStore
from undrift.testing.builders import DIMENSION, MODEL, records, vectors

SECONDS = 60.0
PARAMETERS = IndexParameters()
OURS = "undrift.vectors_hnsw"


@pytest.fixture
def store(postgres_url: str) -> Iterator[PgvectorStore]:
    """A store with a hundred records of one owner."""
    with closing(PgvectorStore(postgres_url)) as store:
        store.create(DIMENSION)
        store.publish(records(100), [])
        yield store


@pytest.fixture
def sql(postgres_url: str) -> Iterator[psycopg.Connection]:
    """A connection of somebody else's, without transactions."""
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        yield connection


def indexes(sql: psycopg.Connection) -> dict[str, tuple[int, bool]]:
    """The number and the validity of every HNSW index, by its name."""
    found = sql.execute(
        "SELECT i.relname, i.oid, x.indisvalid FROM pg_index x JOIN pg_class i "
        "ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam WHERE a.amname = 'hnsw'"
    )
    return {name: (oid, is_valid) for name, oid, is_valid in found}


def statement_of(store: PgvectorStore) -> str:
    """The statement that builds the index, without those around it."""
    (statement,) = (each for each in store.index_ddl(PARAMETERS) if each.startswith("CREATE"))
    return statement


class Building:
    """A build in a thread of its own, and what came of it.

    Attributes:
        error: what ended it; None if it is done.
    """

    def __init__(self, store: PgvectorStore) -> None:
        self.error: UndriftError | None = None
        self._progress: queue.Queue[IndexProgress] = queue.Queue()
        self._thread = threading.Thread(target=self._run, args=(store,))
        self._thread.start()

    def waiting(self) -> IndexProgress:
        """What it tells once it waits for another's transaction."""
        while True:
            progress = self._progress.get(timeout=SECONDS)
            if progress.waits_for is not None:
                return progress

    def end(self) -> None:
        """Wait until it has ended."""
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()

    def _run(self, store: PgvectorStore) -> None:
        try:
            store.build_index(PARAMETERS, self._progress.put)
        except UndriftError as error:
            self.error = error


@contextmanager
def held_up(url: str, store: PgvectorStore) -> Iterator[tuple[Building, IndexProgress]]:
    """A build that waits for a writer for as long as the context lasts."""
    with psycopg.connect(url) as writer:
        writer.execute("UPDATE undrift.vectors SET text = text WHERE entity_id = 'r0'")
        building = Building(store)
        try:
            progress = building.waiting()
            assert progress.waits_for == writer.info.backend_pid
            yield building, progress
        finally:
            writer.rollback()
            building.end()


def left_invalid(url: str, store: PgvectorStore, sql: psycopg.Connection) -> UndriftError:
    """Let an administrator cancel a build, and return what the build said."""
    with held_up(url, store) as (building, _):
        cancelled = sql.execute(
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
            "WHERE query LIKE 'CREATE INDEX CONCURRENTLY%' AND state = 'active'"
        ).fetchall()
        assert cancelled == [(True,)]
        building.end()
    assert building.error is not None
    return building.error


# --- looking ----------------------------------------------------------------------------------


def test_status_of_a_store_without_an_index_says_that_none_is_needed(
    store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """It counts, measures an exact search, and changes nothing."""
    store.publish(records(7, owner_id="2"), [])
    status = store.index_status()
    assert (status.state, status.name, status.size_bytes) == (IndexState.NONE, None, 0)
    assert (status.records, status.owners, status.largest_owner_records) == (107, 2, 100)
    assert status.exact_search_seconds is not None
    assert 0 < status.exact_search_seconds < SECONDS
    assert not status.is_searched
    assert any("no index is needed" in note for note in status.notes)
    assert indexes(sql) == {}


def test_status_of_an_empty_store(postgres_url: str) -> None:
    """There is nothing to measure."""
    with closing(PgvectorStore(postgres_url)) as store:
        store.create(DIMENSION)
        status = store.index_status()
    assert (status.records, status.owners, status.exact_search_seconds) == (0, 0, None)


@pytest.mark.parametrize("ask", ["index_status", "index_ddl", "build_index"])
def test_a_store_that_was_not_created_is_not_created_for_its_index(
    postgres_url: str, sql: psycopg.Connection, ask: str
) -> None:
    """The error says what creates it."""
    arguments = [] if ask == "index_status" else [PARAMETERS]
    with closing(PgvectorStore(postgres_url)) as store, pytest.raises(ConfigError) as caught:
        getattr(store, ask)(*arguments)
    assert "undrift sync" in caught.value.fix
    assert not sql.execute("SELECT FROM pg_namespace WHERE nspname = 'undrift'").fetchall()


def test_the_embedded_store_has_no_index() -> None:
    """It has no such door at all."""
    assert isinstance(open_store("postgresql://h/d"), SearchIndex)
    assert not isinstance(open_store("sqlite:///vectors.db"), SearchIndex)


# --- building ---------------------------------------------------------------------------------


def test_a_built_index_is_valid_and_kept_by_the_next_build(
    store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """The same object, not one like it."""
    status = store.build_index(IndexParameters(m=8, ef_construction=32))
    assert (status.state, status.name) == (IndexState.VALID, OURS)
    assert (status.m, status.ef_construction) == (8, 32)
    assert status.operator_class == "vector_cosine_ops"
    assert status.size_bytes > 0
    built = indexes(sql)
    again = store.build_index(IndexParameters(m=8, ef_construction=32))
    assert "there already" in again.notes[0]
    assert indexes(sql) == built
    assert store.index_status().state is IndexState.VALID


def test_an_index_with_other_parameters_is_kept_and_told(
    store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """Nothing that is in use is dropped; the fix is the statement that does."""
    store.build_index(PARAMETERS)
    built = indexes(sql)
    with pytest.raises(ConfigError, match="m = 16") as caught:
        store.build_index(IndexParameters(m=8))
    assert indexes(sql) == built
    sql.execute(caught.value.fix.partition(": ")[2].encode())
    assert store.build_index(IndexParameters(m=8)).m == 8


def test_the_statements_for_people_build_the_same_index(
    store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """Run one by one, as psql does."""
    for statement in store.index_ddl(IndexParameters(maintenance_work_mem="64 MB")):
        sql.execute(statement.encode())
    assert sql.execute("SHOW maintenance_work_mem").fetchone() == ("64MB",)
    assert store.index_status().state is IndexState.VALID
    assert "there already" in store.build_index(PARAMETERS).notes[0]


@pytest.mark.parametrize(
    ("dimension", "operator_class"), [(2_000, "vector_cosine_ops"), (2_001, "halfvec_cosine_ops")]
)
def test_many_components_are_indexed_as_halves(
    postgres_url: str, dimension: int, operator_class: str
) -> None:
    """Searches, whichever they are, give true scores."""
    with closing(PgvectorStore(postgres_url)) as store:
        store.create(dimension)
        written = records(5, dimension=dimension)
        store.publish(written, [])
        assert store.build_index(PARAMETERS).operator_class == operator_class
        query = vectors(1, dimension=dimension)[0]
        found = store.search("1", query, model=MODEL, kinds=None, limit=5)
        assert {match.stamp for match in found} == {record.stamp for record in written}


@pytest.mark.parametrize("dimension", [2_000, 2_001])
def test_scores_are_those_of_the_whole_vectors(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, dimension: int
) -> None:
    """The index compares halves; what it finds is sorted and scored as an exact search does."""
    monkeypatch.setattr(pgvector, "APPROXIMATE_FROM_RECORDS", 1)
    with (
        closing(PgvectorStore(postgres_url)) as exact,
        closing(PgvectorStore(f"{postgres_url}?search=approximate")) as asking,
    ):
        exact.create(dimension)
        exact.publish(records(300, dimension=dimension), [])
        exact.build_index(PARAMETERS)
        assert "vectors_hnsw" in plan_of(asking, dimension, is_asked=True, by_force=True)
        query = vectors(1, seed=9, dimension=dimension)[0]
        both = [
            store.search("1", query, model=MODEL, kinds=None, limit=10) for store in (exact, asking)
        ]
        assert both[0] == both[1]


def test_names_and_schemas_that_need_quoting(new_postgres_url: Callable[[], str]) -> None:
    """A table with a percent sign, and pgvector in a schema of its own."""
    url = new_postgres_url()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "Ext%"')
        connection.execute('ALTER EXTENSION vector SET SCHEMA "Ext%"')
    with closing(PgvectorStore(f"{url}?table=we%25ird.Vec%25tors&search=approximate")) as store:
        store.create(DIMENSION)
        store.publish(records(30), [])
        status = store.build_index(PARAMETERS)
        assert (status.state, status.name) == (IndexState.VALID, "we%ird.Vec%tors_hnsw")
        assert status.records == 30
        assert len(store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=10)) == 10


def test_too_many_components_are_refused(postgres_url: str, sql: psycopg.Connection) -> None:
    """Before anything is begun."""
    with closing(PgvectorStore(postgres_url)) as store:
        store.create(4_001)
        with pytest.raises(ConfigError, match="4001 components"):
            store.build_index(PARAMETERS)
    assert indexes(sql) == {}


@pytest.mark.parametrize(
    ("parameters", "option"),
    [
        (IndexParameters(m=1), "--m"),
        (IndexParameters(m=101), "--m"),
        (IndexParameters(ef_construction=1_001), "--ef-construction"),
        (IndexParameters(m=40, ef_construction=64), "--ef-construction"),
        (IndexParameters(maintenance_work_mem="512"), "--maintenance-work-mem"),
        (IndexParameters(maintenance_work_mem="64kB"), "--maintenance-work-mem"),
        (IndexParameters(maintenance_work_mem="1MB -c x=y"), "--maintenance-work-mem"),
    ],
    ids=str,
)
def test_parameters_out_of_range_are_refused_by_name(
    store: PgvectorStore, parameters: IndexParameters, option: str
) -> None:
    """And so is what would be another option."""
    for refuses in (store.build_index, store.index_ddl):
        with pytest.raises(ConfigError) as caught:
            refuses(parameters)
        assert caught.value.what == f"{option} is out of range"


def test_a_partitioned_table_is_refused(store: PgvectorStore, sql: psycopg.Connection) -> None:
    """PostgreSQL cannot build such an index CONCURRENTLY."""
    sql.execute("CREATE TABLE parts (LIKE undrift.vectors) PARTITION BY HASH (owner_id)")
    sql.execute("DROP TABLE undrift.vectors")
    sql.execute("ALTER TABLE parts SET SCHEMA undrift")
    sql.execute("ALTER TABLE undrift.parts RENAME TO vectors")
    with pytest.raises(UnsupportedError, match="partition"):
        store.build_index(PARAMETERS)


def test_a_role_that_does_not_own_the_table_is_told_who_may(
    store: PgvectorStore, sql: psycopg.Connection, postgres_url: str
) -> None:
    """Not which grant: none would do."""
    sql.execute("CREATE ROLE index_reader LOGIN PASSWORD 'reader' IN ROLE pg_read_all_data")
    try:
        url = postgres_url.replace(
            postgres_url.partition("//")[2].partition("@")[0], "index_reader:reader"
        )
        with closing(PgvectorStore(url)) as reader:
            assert reader.index_status().state is IndexState.NONE
            with pytest.raises(ConfigError, match="may not build or drop an index") as caught:
                reader.build_index(PARAMETERS)
    finally:
        sql.execute("DROP ROLE index_reader")
    assert "index build --sql" in caught.value.fix


# --- another's --------------------------------------------------------------------------------


def test_another_index_is_never_touched(store: PgvectorStore, sql: psycopg.Connection) -> None:
    """A second would only cost; the error names it, and status shows it."""
    sql.execute("CREATE INDEX theirs ON undrift.vectors USING hnsw (embedding vector_cosine_ops)")
    before = indexes(sql)
    with pytest.raises(ConfigError, match="theirs"):
        store.build_index(PARAMETERS)
    assert indexes(sql) == before
    status = store.index_status()
    assert (status.state, status.name) == (IndexState.VALID, "undrift.theirs")
    assert any("not one that undrift built" in note for note in status.notes)


def test_something_else_under_the_name_is_never_touched(
    store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """A table, or an index for another distance."""
    sql.execute("CREATE INDEX vectors_hnsw ON undrift.vectors USING hnsw (embedding vector_l2_ops)")
    before = indexes(sql)
    with pytest.raises(ConfigError, match="name of the index is taken"):
        store.build_index(PARAMETERS)
    assert indexes(sql) == before


def test_an_invalid_index_of_anothers_is_left_and_ours_is_built(
    postgres_url: str, store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """Whoever began it may go on with it."""
    left_invalid(postgres_url, store, sql)
    sql.execute("ALTER INDEX undrift.vectors_hnsw RENAME TO theirs")
    theirs = indexes(sql)["theirs"]
    assert store.build_index(PARAMETERS).name == OURS
    assert indexes(sql)["theirs"] == theirs


# --- while it is built ------------------------------------------------------------------------


def test_a_build_says_whom_it_waits_for_and_a_second_build_is_told(
    postgres_url: str, store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """The second harms nothing: the first ends well."""
    with held_up(postgres_url, store) as (building, progress):
        assert "waiting for writers" in progress.phase
        with closing(PgvectorStore(postgres_url)) as other:
            status = other.index_status()
            assert (status.state, status.progress) == (IndexState.BUILDING, progress)
            with pytest.raises(TransientError, match="being built already"):
                other.build_index(PARAMETERS)
    assert building.error is None
    assert [is_valid for _, is_valid in indexes(sql).values()] == [True]


def test_a_build_by_other_means_is_not_taken_for_a_failed_one(
    postgres_url: str, store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """Its index is invalid too, for as long as it takes; dropping it would waste the work."""
    statement = statement_of(store)
    with ExitStack() as stack:
        writer = stack.enter_context(psycopg.connect(postgres_url))
        writer.execute("UPDATE undrift.vectors SET text = text")
        by_hand = stack.enter_context(psycopg.connect(postgres_url, autocommit=True))
        thread = threading.Thread(target=by_hand.execute, args=[statement.encode()])
        thread.start()
        stack.callback(thread.join, SECONDS)
        stack.callback(writer.rollback)
        while not sql.execute("SELECT FROM pg_stat_progress_create_index").fetchall():
            assert thread.is_alive()
        with pytest.raises(TransientError):
            store.build_index(PARAMETERS)
    assert store.index_status().state is IndexState.VALID


def test_a_cancelled_build_leaves_an_invalid_index_that_the_next_replaces(
    postgres_url: str, store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """Until then it is told, and writes and searches go on."""
    error = left_invalid(postgres_url, store, sql)
    assert isinstance(error, StoreUnavailable)
    ((left, is_valid),) = indexes(sql).values()
    assert not is_valid
    status = store.index_status()
    assert status.state is IndexState.INVALID
    assert any("undrift index build" in note for note in status.notes)
    store.publish(records(101, version=2), [])
    assert len(store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=200)) == 101
    assert store.build_index(PARAMETERS).state is IndexState.VALID
    ((built, is_valid),) = indexes(sql).values()
    assert is_valid
    assert built != left


def test_a_build_outlasts_the_time_outs_that_the_database_sets(
    postgres_url: str, store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """The control is the same statement without its settings."""
    database = psycopg.sql.Identifier(sql.info.dbname)
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
        sql.execute(psycopg.sql.SQL("ALTER DATABASE {} SET {} = '400ms'").format(
            database, psycopg.sql.SQL(setting)))  # fmt: skip
    with psycopg.connect(postgres_url) as writer:
        writer.execute("SET idle_in_transaction_session_timeout = 0")
        writer.execute("UPDATE undrift.vectors SET text = text")
        with psycopg.connect(postgres_url, autocommit=True) as control:
            create = statement_of(store).replace("vectors_hnsw", "control")
            with pytest.raises(psycopg.errors.QueryCanceled):
                control.execute(create.encode())
        store.close()  # connections from before the settings
        building = Building(store)
        building.waiting()
        sql.execute("SELECT pg_sleep(0.8)")  # past both time-outs
        writer.rollback()
    building.end()
    assert building.error is None
    assert store.index_status().state is IndexState.VALID


@pytest.mark.parametrize("refuses", [False, True], ids=["ignores", "refuses"])
def test_a_pooler_that_takes_no_settings_is_named_and_nothing_is_built(
    postgres_url: str, sql: psycopg.Connection, store: PgvectorStore, refuses: bool
) -> None:
    """A SET through it would stay with a stranger's session, or be lost."""
    database = psycopg.sql.Identifier(sql.info.dbname)
    sql.execute(psycopg.sql.SQL("ALTER DATABASE {} SET statement_timeout = '50s'").format(database))
    with startup_proxy(postgres_url, refuses=refuses) as url, closing(PgvectorStore(url)) as pooled:
        assert pooled.index_status().state is IndexState.NONE
        with pytest.raises(ConfigError, match="No index can be built") as caught:
            pooled.build_index(PARAMETERS)
    assert "the server itself" in caught.value.fix
    assert indexes(sql) == {}
    assert store.build_index(PARAMETERS).state is IndexState.VALID


# --- asking it --------------------------------------------------------------------------------

LARGE = 20_000


@pytest.fixture(scope="module")
def large_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database whose store has an index, and an owner large enough to ask it."""
    with postgres_server.database() as url:
        with closing(PgvectorStore(url)) as store:
            store.create(DIMENSION)
            for start in range(0, LARGE, 5_000):
                store.publish(records(LARGE, seed=3)[start : start + 5_000], [])
            store.publish(records(12, kind="skill", seed=4), [])
            store.build_index(IndexParameters(maintenance_work_mem="256MB"))
        yield url


@pytest.fixture
def asking(large_url: str) -> Iterator[PgvectorStore]:
    """The large store, searched by its index."""
    with closing(PgvectorStore(f"{large_url}?search=approximate")) as store:
        yield store


def found(store: PgvectorStore, limit: int = 10, kinds: list[str] | None = None) -> list[Match]:
    """A search of the large owner."""
    return list(store.search("1", vectors(1, seed=9)[0], model=MODEL, kinds=kinds, limit=limit))


def plan_of(
    store: PgvectorStore, dimension: int = DIMENSION, *, is_asked: bool, by_force: bool = False
) -> str:
    """How the server would search.

    Args:
        by_force: even where another way is quicker.
    """
    statements = store._statements
    values: dict[str, object] = {
        "owner_id": "1",
        "namespace": "default",
        "model": MODEL,
        "kinds": None,
        "vector": OneVector(vectors(1, seed=9, dimension=dimension)[0]),
        "limit": 10,
    }
    with store._session("read") as session, session.connection.transaction():
        schema = session.vector_schema()
        query = (
            statements.approximate_search(schema, pg_index.indexed_of("vector", dimension))
            if is_asked
            else statements.search(schema)
        )
        for kind in ("seqscan", "bitmapscan", "sort") if by_force else ():
            session.connection.execute(f"SET LOCAL enable_{kind} = off".encode())
        text = psycopg.sql.SQL("EXPLAIN {}").format(query)
        return "\n".join(row[0] for row in session.connection.execute(text, values))


def test_only_an_approximate_search_asks_the_index(asking: PgvectorStore) -> None:
    """An exact one cannot be served by it, whoever builds one."""
    assert "vectors_hnsw" in plan_of(asking, is_asked=True)
    assert "vectors_hnsw" not in plan_of(asking, is_asked=False)
    assert asking.index_status().is_searched
    assert not asking.capabilities.exact_owner_search
    assert "approximate" in asking.describe().location


def test_too_few_from_the_index_are_searched_for_exactly(
    asking: PgvectorStore, large_url: str
) -> None:
    """Twelve skills hide among 20,000 others; the index alone, as the control, misses some."""
    with closing(PgvectorStore(large_url)) as exact:
        assert len(found(asking, 12, ["skill"])) == 12
        assert found(asking, 12, ["skill"]) == found(exact, 12, ["skill"])
    with asking._session("read") as session:
        query = asking._statements.approximate_search(
            session.vector_schema(), pg_index.indexed_of("vector", DIMENSION)
        )
        parameters = {
            "owner_id": "1", "namespace": "default", "model": MODEL, "kinds": ["skill"],
            "vector": OneVector(vectors(1, seed=9)[0]), "limit": 12,
        }  # fmt: skip
        with session.connection.transaction():
            session.connection.execute("SET LOCAL enable_seqscan = off")
            session.connection.execute("SET LOCAL enable_bitmapscan = off")
            session.connection.execute("SET LOCAL enable_sort = off")
            session.connection.execute("SET LOCAL hnsw.iterative_scan = off")
            alone = session.connection.execute(query, parameters).fetchall()
    assert len(alone) < 12


def test_settings_of_a_search_end_with_it(asking: PgvectorStore) -> None:
    """The connection goes back as it was, after the index was asked and after it was not."""
    for limit, kinds in ((10, None), (12, ["skill"])):
        found(asking, limit, kinds)
        with asking._session("read") as session:
            shown = session.connection.execute(
                "SELECT current_setting('hnsw.iterative_scan'), current_setting('hnsw.ef_search')"
            ).fetchone()
        assert shown == ("off", "40")


def test_a_server_that_does_not_know_the_settings_is_searched_exactly(
    asking: PgvectorStore, large_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As pgvector before 0.8: PostgreSQL would take any name, so they are looked up first."""
    monkeypatch.setattr(pg_asking, "_SET", pg_asking._SET.replace("hnsw.iter", "hnsw.itter"))
    with closing(PgvectorStore(large_url)) as exact:
        assert found(asking) == found(exact)


@pytest.mark.parametrize(
    ("query", "is_approximate"),
    [("", False), ("?search=exact", False), ("?search=approximate", True)],
)
def test_how_to_search_is_part_of_the_address(query: str, is_approximate: bool) -> None:
    """Exactly, unless it says otherwise."""
    store = PgvectorStore(f"postgresql://h/d{query}")
    assert store.capabilities.exact_owner_search is not is_approximate


def test_an_unknown_way_to_search_is_refused() -> None:
    """And the ways there are, are named."""
    with pytest.raises(ConfigError, match="fast") as caught:
        PgvectorStore("postgresql://h/d?search=fast")
    assert "approximate" in caught.value.fix
