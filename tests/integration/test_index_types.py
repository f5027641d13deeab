"""The choice between indexes on vectors: lists beside graphs, and taking either away again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
from psycopg.sql import SQL

from support.postgres import PostgresServer, with_login
from undrift.errors import ConfigError, TransientError, UndriftError
from undrift.search_index import IndexParameters, IndexState, IndexType
from undrift.stores import pgvector
from undrift.stores._pg_asking import ask_index
from undrift.stores._pg_index import lists_for
from undrift.stores.pgvector import PgvectorStore
from undrift.testing.builders import DIMENSION, MODEL, records, vectors

SECONDS = 60.0
LISTS = IndexParameters(type=IndexType.IVFFLAT)
GRAPH = IndexParameters()


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
    """The number and the validity of every approximate index, by its name."""
    found = sql.execute(
        "SELECT i.relname, i.oid, x.indisvalid FROM pg_index x JOIN pg_class i "
        "ON i.oid = x.indexrelid JOIN pg_am a ON a.oid = i.relam "
        "WHERE a.amname IN ('hnsw', 'ivfflat')"
    )
    return {name: (oid, is_valid) for name, oid, is_valid in found}


def notes_of(store: PgvectorStore) -> str:
    return "\n".join(store.index_status().notes)


# --- building lists -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "lists"),
    [(0, 1), (499, 1), (1_600, 2), (50_000, 50), (1_000_000, 1_000), (4_000_000, 2_000)],
)
def test_as_many_lists_as_pgvector_advises(count: int, lists: int) -> None:
    """One for a thousand records, from a million on the square root."""
    assert lists_for(count) == lists


def test_an_index_of_lists_is_built_kept_and_described(
    store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """The next build leaves it as it is, however many lists it has."""
    status = store.build_index(IndexParameters(type=IndexType.IVFFLAT, lists=3))
    assert (status.state, status.name) == (IndexState.VALID, "undrift.vectors_ivfflat")
    assert (status.type, status.lists, status.built_on_records) == (IndexType.IVFFLAT, 3, 100)
    assert (status.m, status.ef_construction) == (None, None)
    assert status.operator_class == "vector_cosine_ops"
    built = indexes(sql)
    assert "there already" in store.build_index(LISTS).notes[0]
    assert indexes(sql) == built


def test_without_a_number_the_records_decide(store: PgvectorStore) -> None:
    """As many as there are at that moment, of all owners."""
    store.publish(records(2_900, owner_id="2"), [])
    status = store.build_index(LISTS)
    assert (status.lists, status.built_on_records) == (3, 3_000)
    assert "ask for" not in notes_of(store)


@pytest.mark.parametrize("dimension", [2_000, 2_001])
def test_lists_of_many_components_are_of_halves(postgres_url: str, dimension: int) -> None:
    """As graphs are, and the scores are those of the whole vectors."""
    with (
        closing(PgvectorStore(postgres_url)) as exact,
        closing(PgvectorStore(f"{postgres_url}?search=approximate")) as asking,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(pgvector, "APPROXIMATE_FROM_RECORDS", 1)
        exact.create(dimension)
        exact.publish(records(200, dimension=dimension), [])
        kind = "vector" if dimension == 2_000 else "halfvec"
        assert exact.build_index(LISTS).operator_class == f"{kind}_cosine_ops"
        query = vectors(1, seed=9, dimension=dimension)[0]
        both = [
            store.search("1", query, model=MODEL, kinds=None, limit=10) for store in (exact, asking)
        ]
        assert both[0] == both[1]


def test_the_statements_for_people_build_the_same_lists(
    store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """What the status needs to know included."""
    for statement in store.index_ddl(LISTS):
        sql.execute(statement.encode())
    status = store.index_status()
    assert (status.state, status.lists, status.built_on_records) == (IndexState.VALID, 1, 100)


@pytest.mark.parametrize(
    ("parameters", "option"),
    [
        (IndexParameters(type=IndexType.IVFFLAT, lists=0), "--lists"),
        (IndexParameters(type=IndexType.IVFFLAT, lists=32_769), "--lists"),
        (IndexParameters(type=IndexType.IVFFLAT, m=16), "--m"),
        (IndexParameters(type=IndexType.IVFFLAT, ef_construction=64), "--ef-construction"),
        (IndexParameters(lists=10), "--lists"),
        (IndexParameters(m=0), "--m"),
        (IndexParameters(ef_construction=0), "--ef-construction"),
    ],
    ids=str,
)
def test_another_types_parameters_are_refused_by_name(
    store: PgvectorStore, sql: psycopg.Connection, parameters: IndexParameters, option: str
) -> None:
    """Nobody shall think that they had been heard."""
    for refuses in (store.build_index, store.index_ddl):
        with pytest.raises(ConfigError) as caught:
            refuses(parameters)
        assert caught.value.what.startswith(option)
    assert indexes(sql) == {}


# --- whether its lists fit ----------------------------------------------------------------------


def test_an_index_built_on_nothing_is_noticed_once_there_is_something(postgres_url: str) -> None:
    """A fitting number of lists does not help where they were learned from nothing."""
    with closing(PgvectorStore(postgres_url)) as store:
        store.create(DIMENSION)
        status = store.build_index(IndexParameters(type=IndexType.IVFFLAT, lists=2))
        assert any("little data" in note for note in status.notes), status.notes
        assert "ask for" not in notes_of(store)
        store.publish(records(2_000), [])
        note = notes_of(store)
        assert "lists = 2 and was built on 0 records; the 2000 records" in note
        assert "undrift index drop" in note
        store.drop_index()
        store.build_index(LISTS)
        assert "ask for" not in notes_of(store)


def test_an_index_that_the_records_have_outgrown_is_noticed(store: PgvectorStore) -> None:
    """Five times as many as it was built for."""
    assert store.build_index(LISTS).lists == 1
    assert "ask for" not in notes_of(store)
    store.publish(records(4_900, owner_id="2"), [])
    assert "the 5000 records that there are now ask for 5" in notes_of(store)


def test_too_many_lists_are_noticed(store: PgvectorStore, sql: psycopg.Connection) -> None:
    """Also in an index that somebody else built, of which nobody knows on what."""
    sql.execute(
        "CREATE INDEX theirs ON undrift.vectors USING ivfflat (embedding vector_cosine_ops) "
        "WITH (lists = 50)"
    )
    status = store.index_status()
    assert (status.lists, status.built_on_records) == (50, None)
    assert any("it has lists = 50; the 100 records" in note for note in status.notes)


# --- one at a time ------------------------------------------------------------------------------


@pytest.mark.parametrize(("there", "wanted"), [(LISTS, GRAPH), (GRAPH, LISTS)], ids=["g", "l"])
def test_another_type_is_not_built_beside_the_one_in_use(
    store: PgvectorStore, sql: psycopg.Connection, there: IndexParameters, wanted: IndexParameters
) -> None:
    """A second would only cost; the fix is the statement that drops the first."""
    store.build_index(there)
    built = indexes(sql)
    with pytest.raises(ConfigError, match="other parameters") as caught:
        store.build_index(wanted)
    assert f"is {there.type}" in caught.value.why
    assert "undrift index drop" in caught.value.fix
    assert indexes(sql) == built
    sql.execute(caught.value.fix.partition(": ")[2].encode())
    assert store.build_index(wanted).type is wanted.type


def test_what_a_build_of_the_other_type_left_is_dropped(
    postgres_url: str, store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """An invalid index serves nobody, whatever it was to become."""
    left_invalid(postgres_url, store, sql)
    status = store.build_index(LISTS)
    assert status.state is IndexState.VALID
    assert set(indexes(sql)) == {"vectors_ivfflat"}


# --- dropping -----------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [GRAPH, LISTS], ids=lambda each: each.type.value)
def test_a_dropped_index_is_gone_and_the_vectors_are_not(
    store: PgvectorStore, sql: psycopg.Connection, parameters: IndexParameters
) -> None:
    """Twice is no error."""
    store.build_index(parameters)
    (statement,) = store.drop_index_ddl()
    assert statement.startswith("DROP INDEX CONCURRENTLY")
    assert store.drop_index().state is IndexState.NONE
    assert indexes(sql) == {}
    assert len(store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=200)) == 100
    assert store.drop_index_ddl() == []
    assert "nothing was done" in store.drop_index().notes[0]


def test_an_unfinished_index_is_dropped(
    postgres_url: str, store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """It costs every write as much as a finished one."""
    left_invalid(postgres_url, store, sql)
    assert store.drop_index().state is IndexState.NONE
    assert indexes(sql) == {}


def test_anothers_index_is_not_dropped(store: PgvectorStore, sql: psycopg.Connection) -> None:
    """Whatever its type."""
    sql.execute("CREATE INDEX theirs ON undrift.vectors USING hnsw (embedding vector_cosine_ops)")
    before = indexes(sql)
    assert "built no index here" in store.drop_index().notes[0]
    assert indexes(sql) == before


def test_an_index_is_not_dropped_under_whoever_builds_it(
    postgres_url: str, store: PgvectorStore, sql: psycopg.Connection
) -> None:
    """The build ends well."""
    with psycopg.connect(postgres_url) as writer:
        writer.execute("UPDATE undrift.vectors SET text = text")
        building = threading.Thread(target=store.build_index, args=[LISTS])
        building.start()
        while not sql.execute("SELECT FROM pg_stat_progress_create_index").fetchall():
            assert building.is_alive()
        with closing(PgvectorStore(postgres_url)) as other, pytest.raises(TransientError):
            other.drop_index()
        writer.rollback()
        building.join(SECONDS)
    assert [is_valid for _, is_valid in indexes(sql).values()] == [True]


def test_a_role_that_does_not_own_the_index_is_told_who_may_drop_it(
    store: PgvectorStore,
    sql: psycopg.Connection,
    postgres_url: str,
    postgres_server: PostgresServer,
) -> None:
    """The statement for its owner can be printed by anybody who may read."""
    store.build_index(LISTS)
    postgres_server.create_role("index_dropper", "secret")
    sql.execute("GRANT pg_read_all_data TO index_dropper")
    with closing(PgvectorStore(with_login(postgres_url, "index_dropper", "secret"))) as reader:
        assert reader.drop_index_ddl() == store.drop_index_ddl()
        with pytest.raises(ConfigError, match="may not build or drop an index") as caught:
            reader.drop_index()
    assert "undrift index drop --sql" in caught.value.fix


# --- asking lists -------------------------------------------------------------------------------

LARGE = 20_000


@pytest.fixture(scope="module")
def large_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A database whose store has an index of lists, and an owner large enough to ask it."""
    with postgres_server.database() as url:
        with closing(PgvectorStore(url)) as store:
            store.create(DIMENSION)
            for start in range(0, LARGE, 5_000):
                store.publish(records(LARGE, seed=3)[start : start + 5_000], [])
            store.publish(records(12, kind="skill", seed=4), [])
            assert store.build_index(LISTS).lists == 20
        yield url


@pytest.fixture
def asking(large_url: str) -> Iterator[PgvectorStore]:
    """The large store, searched by its lists."""
    with closing(PgvectorStore(f"{large_url}?search=approximate")) as store:
        yield store


def test_lists_are_asked_by_the_root_of_their_number(asking: PgvectorStore) -> None:
    """Twice the root at once, and on until there are enough, but not through all of them."""
    shows = SQL(
        "SELECT name, setting FROM pg_settings WHERE name LIKE 'ivfflat.%%' ORDER BY 1"
    ).format()
    with asking._session("read") as session:
        is_large = b"SELECT '[1]'::vector IS NOT NULL"  # loads the library
        seen = ask_index(session.connection, asking._address.table, is_large, shows, {})
    assert seen == [
        ("ivfflat.iterative_scan", "relaxed_order"),
        ("ivfflat.max_probes", "18"),
        ("ivfflat.probes", "9"),
    ]
    assert asking.index_status().is_searched


def test_settings_of_a_search_over_lists_end_with_it(asking: PgvectorStore) -> None:
    """The connection goes back as it was, after the index was asked and after it was not."""
    for limit, kinds in ((10, None), (12, ["skill"])):
        asking.search("1", vectors(1, seed=9)[0], model=MODEL, kinds=kinds, limit=limit)
        with asking._session("read") as session:
            shown = session.connection.execute(
                "SELECT current_setting('ivfflat.probes'), "
                "current_setting('ivfflat.iterative_scan')"
            ).fetchone()
        assert shown == ("1", "off")


def test_too_few_from_the_lists_are_searched_for_exactly(
    asking: PgvectorStore, large_url: str
) -> None:
    """Twelve skills hide in all the lists, of which not all are read."""
    query = vectors(1, seed=9)[0]
    with closing(PgvectorStore(large_url)) as exact:
        for store in (exact, asking):
            found = store.search("1", query, model=MODEL, kinds=["skill"], limit=12)
            assert len(found) == 12


# --- support ------------------------------------------------------------------------------------


def left_invalid(url: str, store: PgvectorStore, sql: psycopg.Connection) -> None:
    """Let an administrator cancel the build of a graph, which leaves an invalid index."""
    failed: list[UndriftError] = []

    def build() -> None:
        try:
            store.build_index(GRAPH)
        except UndriftError as error:
            failed.append(error)

    with psycopg.connect(url) as writer:
        writer.execute("UPDATE undrift.vectors SET text = text")
        building = threading.Thread(target=build)
        building.start()
        waiting = (
            "SELECT pid FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for writers%'"
        )
        while not (found := sql.execute(waiting).fetchall()):
            assert building.is_alive()
        sql.execute("SELECT pg_cancel_backend(%s)", found[0])
        building.join(SECONDS)
        writer.rollback()
    assert failed
    assert [is_valid for _, is_valid in indexes(sql).values()] == [False]
