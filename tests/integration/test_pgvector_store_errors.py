"""The pgvector store where things are not as they should be: logins, rights, layouts, outages."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import psycopg
import pytest

from support.postgres import UNREACHABLE, PostgresServer, with_login
from undrift import failpoints
from undrift.errors import ConfigError, DimensionMismatch, StoreUnavailable, WriteFailed
from undrift.ports import Record, VectorStore
from undrift.stores import open_store
from undrift.stores.pgvector import PgvectorStore
from undrift.testing.builders import DIMENSION, MODEL, deletion, record, records, vectors
from undrift.testing.faults import call_at


@pytest.fixture
def store(postgres_url: str) -> Iterator[PgvectorStore]:
    store = PgvectorStore(postgres_url)
    yield store
    store.close()


@pytest.fixture
def filled(store: PgvectorStore) -> PgvectorStore:
    """A store with three records of owner 1."""
    store.create(DIMENSION)
    store.publish(records(3), [])
    return store


@pytest.fixture
def as_role(
    postgres_server: PostgresServer, postgres_url: str
) -> Iterator[Callable[[str], VectorStore]]:
    """A function that opens the store as a role that was granted nothing yet."""
    opened: list[VectorStore] = []

    def open_as(name: str) -> VectorStore:
        postgres_server.create_role(name, "pass-word")
        opened.append(open_store(with_login(postgres_url, name, "pass-word")))
        return opened[-1]

    yield open_as
    for store in opened:
        store.close()


def run(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run *statements* as the superuser, and return the last one's rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def assert_reads_fail(store: VectorStore, error: type[Exception], match: str) -> None:
    """Every way to look says that it could not, none that there is nothing."""
    for look in (
        lambda: list(store.stamps(["1"])),
        lambda: list(store.stamps_by_vector_id([record().stamp.vector_id])),
        lambda: store.unmanaged(["1"]),
        lambda: store.owners(None, 10),
        lambda: store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5),
    ):
        with pytest.raises(error, match=match):
            look()


def versions(store: VectorStore) -> list[int]:
    return sorted(stamp.version for stamp in store.stamps(["1"]))


# --- addresses and logins


def test_an_unreachable_server_is_an_outage(postgres_server: PostgresServer) -> None:
    postgres_server.stop()
    store = PgvectorStore(postgres_server.url("any", password="hidden-word"))
    with pytest.raises(StoreUnavailable, match=UNREACHABLE) as caught:
        store.describe()
    assert_reads_fail(store, StoreUnavailable, "did not answer")
    assert "hidden-word" not in str(caught.value)


@pytest.mark.parametrize("user", ["postgres", "nobody_of_that_name"])
def test_a_refused_login_is_a_configuration_error(
    postgres_server: PostgresServer, user: str
) -> None:
    store = PgvectorStore(postgres_server.url("postgres", user=user, password="hidden-word"))
    with pytest.raises(ConfigError, match="refused the login") as caught:
        store.describe()
    assert "hidden-word" not in str(caught.value)
    assert user in caught.value.why


def test_an_unknown_database_is_a_configuration_error(postgres_server: PostgresServer) -> None:
    with pytest.raises(ConfigError, match='database "nowhere" does not exist') as caught:
        PgvectorStore(postgres_server.url("nowhere")).describe()
    assert caught.value.what == "The vector store's database does not exist"


@pytest.mark.parametrize(
    "rest",
    [
        "user:hid@den-word@host/db",
        "user:hid/den-word@host/db",
        "user:hid%den-word@host/db",
        "user:hid%zzden-word@host/db",
        "user:hid/den?word@host/db",
        "user:1234/den-word@host/db",
        "user:hidden-word@host:port/db",
        "user:hidden-word@[host/db",
        "user:hidden-word@host/db?bogus=1",
    ],
)
def test_a_malformed_url_does_not_show_its_password(rest: str) -> None:
    """As libpq would take a part of it for the host, and print that."""
    with pytest.raises(ConfigError, match="malformed") as caught:
        open_store(f"postgresql://{rest}")
    shown = str(caught.value) + repr(caught.value)
    assert not any(part in shown for part in ("hid", "den", "1234"))
    assert caught.value.__cause__ is None
    assert "%40" in caught.value.fix


def test_a_password_may_hold_a_question_mark() -> None:
    store = PgvectorStore("postgresql://user:hid?den@host:1/db?table=a.b&sslmode=disable")
    assert store._address.conninfo == "postgresql://user:hid?den@host:1/db?sslmode=disable"
    assert store._address.location == "postgresql://user:***@host:1/db?table=a.b"


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "POSTGRES"])
def test_every_spelling_of_the_scheme_is_understood(filled: PgvectorStore, scheme: str) -> None:
    url = filled._address.conninfo.replace("postgresql://", f"{scheme}://")
    store = open_store(f"{url}?application_name=mine&table=undrift.vectors&connect_timeout=7")
    assert versions(store) == [1, 1, 1]
    assert store.describe().location.startswith("postgresql://postgres:***@127.0.0.1:")
    store.close()


def test_the_location_hides_the_password_and_names_the_table(
    postgres_server: PostgresServer,
) -> None:
    password = postgres_server.password
    store = PgvectorStore(f"{postgres_server.admin_url}?table=a.b&sslmode=disable")
    assert password not in store._address.location
    assert store._address.location.endswith("/postgres?table=a.b")
    sockets = PgvectorStore("postgresql://me@/db?host=/run/postgresql")
    assert sockets._address.location == (
        "postgresql://me@/db?host=/run/postgresql&table=undrift.vectors"
    )


def test_an_address_may_leave_everything_to_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGUSER", "somebody")
    monkeypatch.setenv("PGDATABASE", "somewhere")
    address = PgvectorStore("postgresql://")._address
    assert address.location == "postgresql:///?table=undrift.vectors"
    assert (address.role, address.database) == ("somebody", "somewhere")


@pytest.mark.parametrize("table", ["a.b.c", ".b", "a.", "x" * 55])
def test_impossible_table_names_are_refused(table: str) -> None:
    with pytest.raises(ConfigError, match="named like that"):
        PgvectorStore(f"postgresql://host/db?table={table}")


def test_the_connection_says_who_it_is(filled: PgvectorStore, postgres_url: str) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'undrift'"
    assert run(postgres_url, query) == [(1,)]


# --- what is there


def test_looking_at_an_empty_database_creates_nothing(
    postgres_server: PostgresServer,
) -> None:
    with postgres_server.database(with_vector=False) as url:
        count = "SELECT count(*) FROM pg_class"
        before = run(url, count)
        store = PgvectorStore(url)
        assert (store.describe().exists, store.describe().dimension) == (False, None)
        assert_reads_fail(store, ConfigError, "not been created|not installed")
        assert run(url, count) == before
        store.close()


@pytest.mark.parametrize("schema", ["undrift", "Up And Down", 'quo"te', "per%cent"])
def test_any_table_name_works(postgres_url: str, schema: str) -> None:
    store = PgvectorStore(f"{postgres_url}?table={schema.replace('%', '%25')}.{schema[:5]}-1")
    store.create(DIMENSION)
    written = records(3)
    store.publish(written, [])
    store.publish([written[0]._replace(embedding=None)], [deletion(written[1])])
    assert len(store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5)) == 2
    assert store.owners(None, 5) == ["1"]
    assert store.describe().dimension == DIMENSION
    store.close()


def test_the_printed_ddl_creates_the_store(store: PgvectorStore, postgres_url: str) -> None:
    run(postgres_url, *store.ddl(DIMENSION))
    assert store.describe().dimension == DIMENSION
    store.create(DIMENSION)
    store.publish(records(3), [])
    assert versions(store) == [1, 1, 1]
    run(postgres_url, *store.ddl(DIMENSION))


def test_pgvector_in_a_schema_of_its_own_is_found(postgres_server: PostgresServer) -> None:
    """Hosted databases keep extensions apart, and their schema out of the search path."""
    with postgres_server.database(with_vector=False) as url:
        run(url, "CREATE SCHEMA extensions", "CREATE EXTENSION vector SCHEMA extensions")
        store = PgvectorStore(url)
        store.create(DIMENSION)
        store.publish(records(3), [])
        assert store.describe().dimension == DIMENSION
        assert len(store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5)) == 3
        store.close()


INTO_VIEW = """ALTER TABLE undrift.vectors RENAME TO kept;
               CREATE VIEW undrift.vectors AS SELECT * FROM undrift.kept"""


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("ALTER TABLE undrift.vectors DROP COLUMN text_hash", "lacks the column text_hash"),
        ("ALTER TABLE undrift.vectors ALTER version TYPE text", "version is text, not int8"),
        ("ALTER TABLE undrift.vectors ALTER embedding TYPE real[]", "embedding is _float4"),
        (INTO_VIEW, "it is not a table"),
    ],
)
def test_a_table_of_another_layout_is_refused(
    filled: PgvectorStore, postgres_url: str, change: str, why: str
) -> None:
    run(postgres_url, change)
    with pytest.raises(ConfigError, match=why):
        filled.describe()
    with pytest.raises(ConfigError, match=why):
        filled.create(DIMENSION)


def test_a_table_without_its_primary_key_is_refused(
    filled: PgvectorStore, postgres_url: str
) -> None:
    run(postgres_url, "ALTER TABLE undrift.vectors DROP CONSTRAINT vectors_pkey")
    with pytest.raises(ConfigError, match="not one of undrift's"):
        filled.publish(records(3, version=2), [])


def test_a_dimension_other_than_the_tables_is_told_apart(filled: PgvectorStore) -> None:
    assert filled.describe().dimension == DIMENSION
    other = vectors(1, dimension=DIMENSION + 1)[0]
    with pytest.raises(WriteFailed, match=f"expected {DIMENSION} dimensions"):
        filled.publish([record("new", embedding=other)], [])
    with pytest.raises(DimensionMismatch) as caught:
        filled.search("1", other, model=MODEL, kinds=None, limit=5)
    assert (caught.value.expected, caught.value.found) == (DIMENSION + 1, DIMENSION)
    assert versions(filled) == [1, 1, 1]


def test_more_dimensions_than_pgvector_has_are_refused(store: PgvectorStore) -> None:
    with pytest.raises(ConfigError, match="cannot exceed 16000"):
        store.create(16_001)
    assert not store.describe().exists


def test_ids_too_long_for_the_index_are_refused(filled: PgvectorStore) -> None:
    random = np.random.default_rng(0).integers(33, 126, 5_000)
    long = record("".join(map(chr, random)))
    with pytest.raises(WriteFailed, match="exceeds"):
        filled.publish([record("good"), long], [])
    assert versions(filled) == [1, 1, 1]


# --- rights


def run_fix(url: str, error: ConfigError) -> None:
    """Do what the error says."""
    _, _, statements = error.fix.partition("let the owner run: ")
    run(url, statements)


def test_a_role_that_may_only_select_looks_and_does_not_write(
    filled: PgvectorStore, postgres_url: str, as_role: Callable[[str], VectorStore]
) -> None:
    reader = as_role("Reader One")
    run(
        postgres_url,
        'GRANT USAGE ON SCHEMA undrift TO "Reader One"',
        'GRANT SELECT ON undrift.vectors TO "Reader One"',
    )
    assert reader.describe().exists
    reader.create(DIMENSION)  # nothing is missing
    assert versions(reader) == [1, 1, 1]
    assert reader.owners(None, 5) == ["1"]
    assert reader.unmanaged(["1"]) == {}
    assert len(reader.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5)) == 3
    with pytest.raises(ConfigError, match="may not write") as caught:
        reader.publish(records(3, version=2), [])
    assert (
        'GRANT SELECT, INSERT, UPDATE, DELETE ON "undrift"."vectors" TO "Reader One"'
        in caught.value.fix
    )
    run_fix(postgres_url, caught.value)
    reader.publish(records(2, version=2), [deletion(records(3)[2])])
    assert versions(filled) == [2, 2]


def test_a_role_without_rights_is_told_what_to_grant(
    filled: PgvectorStore, postgres_url: str, as_role: Callable[[str], VectorStore]
) -> None:
    stranger = as_role("stranger")
    assert stranger.describe().exists  # which is not a secret, and not "not created yet"
    assert_reads_fail(stranger, ConfigError, "may not read")
    with pytest.raises(ConfigError) as caught:
        versions(stranger)
    run_fix(postgres_url, caught.value)
    assert versions(stranger) == [1, 1, 1]


def test_a_role_that_may_not_create_is_told_what_to_grant(
    postgres_url: str, as_role: Callable[[str], VectorStore]
) -> None:
    creator = as_role("creator")
    for right in ("GRANT CREATE ON DATABASE", None):
        if right is None:
            creator.create(DIMENSION)
            break
        with pytest.raises(ConfigError, match="may not create") as caught:
            creator.create(DIMENSION)
        assert right in caught.value.fix
        run_fix(postgres_url, caught.value)
    creator.publish(records(3), [])
    assert versions(creator) == [1, 1, 1]


def test_a_role_creates_the_table_in_a_schema_that_is_there(
    postgres_url: str, as_role: Callable[[str], VectorStore]
) -> None:
    """Without the right to create schemas."""
    creator = as_role("creator")
    run(postgres_url, "CREATE SCHEMA undrift")
    with pytest.raises(ConfigError) as caught:
        creator.create(DIMENSION)
    assert caught.value.fix.endswith('GRANT USAGE, CREATE ON SCHEMA "undrift" TO "creator"')
    run_fix(postgres_url, caught.value)
    creator.create(DIMENSION)
    assert creator.describe().exists


def test_a_missing_extension_names_the_administrators_command(
    postgres_server: PostgresServer,
) -> None:
    postgres_server.create_role("creator", "pass-word")
    with postgres_server.database(with_vector=False) as url:
        run(url, f"GRANT CREATE ON DATABASE {url.rpartition('/')[2]} TO creator")
        store = PgvectorStore(with_login(url, "creator", "pass-word"))
        with pytest.raises(ConfigError, match="CREATE EXTENSION vector"):
            store.create(DIMENSION)
        assert not store.describe().exists
        run(url, "CREATE EXTENSION vector")
        store.create(DIMENSION)
        store.publish(records(3), [])
        assert versions(store) == [1, 1, 1]
        store.close()


def test_row_level_security_is_refused_where_it_hides_rows(
    filled: PgvectorStore, postgres_url: str, as_role: Callable[[str], VectorStore]
) -> None:
    """Hidden records would look missing, and be embedded and written again and again."""
    reader = as_role("reader")
    run(
        postgres_url,
        "GRANT USAGE ON SCHEMA undrift TO reader",
        "GRANT SELECT ON undrift.vectors TO reader",
        "ALTER TABLE undrift.vectors ENABLE ROW LEVEL SECURITY",
    )
    with pytest.raises(ConfigError, match="hides rows"):
        reader.describe()
    assert filled.describe().exists  # the owner of the table sees everything


def test_a_database_that_is_read_only_is_read_and_not_written(
    filled: PgvectorStore, postgres_url: str
) -> None:
    database = postgres_url.rpartition("/")[2]
    run(postgres_url, f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    filled.close()
    assert versions(filled) == [1, 1, 1]
    with pytest.raises(ConfigError, match="read-only"):
        filled.publish(records(3, version=2), [])
    other = PgvectorStore(f"{postgres_url}?table=other.vectors")
    with pytest.raises(ConfigError, match="read-only"):
        other.create(DIMENSION)
    other.close()


# --- refusals in the midst of a write


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("23514", WriteFailed),  # a constraint
        ("22000", WriteFailed),
        ("53100", WriteFailed),  # the disk is full
        ("P0001", WriteFailed),  # a trigger of the user's
        ("57014", StoreUnavailable),  # cancelled, as by statement_timeout
        ("57P01", StoreUnavailable),  # the server shuts down
        ("40001", StoreUnavailable),  # every retry fails
        ("53200", StoreUnavailable),  # out of memory
        ("XX000", StoreUnavailable),
    ],
)
def test_a_write_that_breaks_off_leaves_nothing(
    filled: PgvectorStore, postgres_url: str, state: str, error: type[Exception]
) -> None:
    refuse_entity(postgres_url, "r2", state)
    # What a function of the user's own says may quote anything; only its state is told.
    said = "SQLSTATE P0001" if state == "P0001" else "not that one"
    with pytest.raises(error, match=said) as caught:
        filled.publish(records(4, version=2), [])
    assert "Text of experience" not in str(caught.value)
    assert versions(filled) == [1, 1, 1]


def refuse_entity(url: str, entity_id: str, state: str) -> None:
    run(
        url,
        f"""CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE 'not that one' USING ERRCODE = '{state}', DETAIL = new.text; END $$""",
        f"""CREATE TRIGGER refuse BEFORE INSERT ON undrift.vectors FOR EACH ROW
            WHEN (new.entity_id = '{entity_id}') EXECUTE FUNCTION refuse()""",
    )


def test_two_publishers_that_deadlock_both_succeed(
    filled: PgvectorStore, postgres_url: str
) -> None:
    """Each has written what the other deletes: the server ends one, which begins again."""
    one, other, _ = records(3)
    both_have_written = threading.Barrier(2)
    attempts: list[int] = []

    def meet(failpoint: str) -> None:
        if failpoint == "store.publish.written":
            attempts.append(threading.get_ident())
            if attempts.count(threading.get_ident()) == 1:
                both_have_written.wait(30)

    impatient = PgvectorStore(f"{postgres_url}?options=-cdeadlock_timeout%3D10ms")
    newer = {r.stamp.vector_id: r for r in records(3, version=2)}
    failures: list[BaseException] = []

    def publish(written: Record, deleted: Record) -> None:
        try:
            impatient.publish([newer[written.stamp.vector_id]], [deletion(deleted)])
        except BaseException as error:  # noqa: BLE001 - asserted on below
            failures.append(error)

    previous = failpoints.install(meet)
    threads = [threading.Thread(target=publish, args=pair) for pair in ((one, other), (other, one))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failpoints.install(previous)
    assert not failures
    assert len(attempts) == 3  # one of the two came twice
    assert versions(filled) == [1, 2, 2]
    impatient.close()


# --- outages


def test_the_store_comes_back_with_the_server(
    filled: PgvectorStore, postgres_server: PostgresServer
) -> None:
    assert versions(filled) == [1, 1, 1]
    postgres_server.stop()
    for _ in range(2):
        assert_reads_fail(filled, StoreUnavailable, "did not answer")
        with pytest.raises(StoreUnavailable):
            filled.describe()
        with pytest.raises(StoreUnavailable):
            filled.publish(records(3, version=2), [])
    postgres_server.start()
    assert versions(filled) == [1, 1, 1]
    filled.publish(records(3, version=2), [])
    assert versions(filled) == [2, 2, 2]


def test_a_restart_between_two_calls_is_not_noticed(
    filled: PgvectorStore, postgres_server: PostgresServer
) -> None:
    """The idle connections of before are dead, and are not lent again."""
    enumerations = [filled.stamps(["1"]) for _ in range(3)]
    for enumeration in enumerations:  # three connections at once
        next(enumeration)
    assert [len(list(enumeration)) for enumeration in enumerations] == [2, 2, 2]
    postgres_server.restart()
    filled.publish(records(3, version=2), [])
    assert versions(filled) == [2, 2, 2]
    postgres_server.restart()
    assert versions(filled) == [2, 2, 2]


def test_an_enumeration_that_breaks_off_is_no_short_list(
    filled: PgvectorStore, postgres_server: PostgresServer
) -> None:
    for owner_id in "2345":
        filled.publish(records(20_000, owner_id=owner_id), [])
    enumeration = filled.stamps(["2", "3", "4", "5"])
    next(enumeration)
    postgres_server.stop("immediate")
    with pytest.raises(StoreUnavailable):
        list(enumeration)
    postgres_server.start()


def test_a_server_that_stops_in_the_midst_of_a_publish_leaves_nothing(
    filled: PgvectorStore, postgres_server: PostgresServer
) -> None:
    outage = call_at("store.publish.written", postgres_server.stop)
    with outage, pytest.raises(StoreUnavailable):
        filled.publish(records(4, version=2), [])
    postgres_server.start()
    assert versions(filled) == [1, 1, 1]


def test_nothing_is_left_behind_in_a_session(filled: PgvectorStore) -> None:
    """As a pooler gives each transaction another one: nothing prepared, set, or temporary."""
    for version in range(2, 12):
        written = records(300, version=version)
        filled.publish([*written[:150], *(r._replace(embedding=None) for r in written[150:])], [])
        assert len(filled.search("1", vectors(1)[0], model=MODEL, kinds=["a"], limit=5)) == 0
        filled.unmanaged(["1"])
    with filled._sessions.session() as session:
        left = session.connection.execute(
            """
            SELECT (SELECT count(*) FROM pg_prepared_statements),
                   (SELECT count(*) FROM pg_class WHERE relpersistence = 't'),
                   (SELECT count(*) FROM pg_cursors WHERE statement NOT LIKE '%pg_cursors%'),
                   (SELECT count(*) FROM pg_locks l WHERE l.locktype = 'advisory'),
                   (SELECT count(*) FROM pg_settings WHERE source = 'session')"""
        ).fetchone()
    assert left == (0, 0, 0, 0, 0)


def test_a_forked_process_opens_connections_of_its_own(postgres_url: str) -> None:
    """Two processes on one connection would read each other's answers."""
    program = f"""
import os
from undrift.stores.pgvector import PgvectorStore
from undrift.testing.builders import DIMENSION, records
store = PgvectorStore({postgres_url!r})
store.create(DIMENSION)
store.publish(records(3), [])
child = os.fork()
store.publish(records(50, owner_id=str(child != 0)), [])
assert len(list(store.stamps(["1"]))) == 3
if child:
    assert os.waitpid(child, 0)[1] == 0
    assert len(list(store.stamps(["True", "False"]))) == 100
store.close()
os._exit(0)
"""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)


# --- search


def test_search_is_exact_beside_an_hnsw_index(filled: PgvectorStore, postgres_url: str) -> None:
    """Where the bare query, which the index serves, gives other records or too few (control)."""
    rows = 4_000
    for owner_id in "abcdefghij":
        filled.publish(records(rows // 10, owner_id=owner_id, seed=ord(owner_id)), [])
    run(
        postgres_url,
        "CREATE INDEX ON undrift.vectors USING hnsw (embedding vector_cosine_ops)",
        "ANALYZE undrift.vectors",
    )
    mine = records(rows // 10, owner_id="c", seed=ord("c"))
    matrix = np.stack([r.embedding for r in mine if r.embedding is not None])
    complete = 0
    for query in vectors(5, seed=9):
        best = np.argsort(-(matrix @ query))[:10]
        expected = [mine[row].stamp.vector_id for row in best]
        found = filled.search("c", query, model=MODEL, kinds=None, limit=10)
        assert [match.stamp.vector_id for match in found] == expected
        with psycopg.connect(postgres_url) as connection:
            connection.execute("SET enable_seqscan = off")
            connection.execute("SET enable_bitmapscan = off")
            connection.execute("SET enable_sort = off")
            naive = connection.execute(
                "SELECT vector_id::text FROM undrift.vectors WHERE owner_id = 'c' "
                "ORDER BY embedding <=> %s::vector LIMIT 10",
                [str(query.tolist())],
            ).fetchall()
        complete += [id_ for (id_,) in naive] == expected
    assert complete < 5


def test_a_record_with_a_zero_vector_is_never_the_nearest(
    filled: PgvectorStore, postgres_url: str
) -> None:
    zero = "[" + ",".join("0" * DIMENSION) + "]"
    run(
        postgres_url,
        f"UPDATE undrift.vectors SET embedding = '{zero}' WHERE entity_id = 'r0'",
    )
    for limit in (1, 10):
        found = filled.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=limit)
        assert len(found) == min(limit, 2)
        assert all(-1 <= match.score <= 1 for match in found)


def test_texts_are_left_out_where_they_are_not_wanted(postgres_url: str) -> None:
    store = PgvectorStore(postgres_url, keep_text=False)
    store.create(DIMENSION)
    written = record(text="a secret text", metadata={"a": "secret title"})
    assert written.embedding is not None
    store.publish([written], [])
    store.publish([written._replace(stamp=written.stamp._replace(version=2), embedding=None)], [])
    (match,) = store.search("1", written.embedding, model=MODEL, kinds=None, limit=1)
    assert match.stamp == written.stamp._replace(version=2)
    assert (match.text, match.metadata_json) == ("", "{}")
    rows = run(postgres_url, "SELECT v::text FROM undrift.vectors v WHERE v::text LIKE '%secret%'")
    assert rows == []
    store.close()


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("undrift.stores.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'undrift\[postgres\]'"):
        open_store("postgresql://user@host/db")
