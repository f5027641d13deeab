"""Change capture in PostgreSQL: every way to write, rights, partitions, and what is refused."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import psycopg
import pytest

from support.capture import EVERYBODY, Capture, of_documents, of_tables
from support.postgres import PostgresServer, with_login
from support.sources import SourceDatabase, table_note
from undrift.errors import ConfigError, TransientError, UnsupportedError

NOTES = "CREATE TABLE notes (uid text, id int PRIMARY KEY, text text, colour text)"


@pytest.fixture
def database(postgres_url: str) -> SourceDatabase:
    """An empty database."""
    return SourceDatabase(postgres_url)


@pytest.fixture
def notes(database: SourceDatabase) -> Iterator[Capture]:
    """Triggers on a table of ann's and bob's note."""
    database.execute(NOTES, "INSERT INTO notes VALUES ('ann', 1, 'x'), ('bob', 2, 'x')")
    with of_tables(database) as capture:
        assert capture.install().is_fine
        yield capture


def catalogue_of(database: SourceDatabase) -> list[tuple[object, ...]]:
    """Everything that a dump of the schema would show, and the rights."""
    query = """
        SELECT 'class', c.oid::regclass::text, c.relkind::text, c.relacl::text, c.relhastriggers
        FROM pg_class c WHERE c.relnamespace NOT IN ('pg_catalog'::regnamespace,
             'information_schema'::regnamespace, 'pg_toast'::regnamespace)
        UNION ALL SELECT 'proc', p.oid::regprocedure::text, p.prosrc, p.proacl::text, NULL
        FROM pg_proc p WHERE p.pronamespace NOT IN ('pg_catalog'::regnamespace,
             'information_schema'::regnamespace)
        UNION ALL SELECT 'trigger', t.tgname::text, t.tgrelid::regclass::text, t.tgenabled::text,
               NULL FROM pg_trigger t
        UNION ALL SELECT 'schema', n.nspname::text, obj_description(n.oid, 'pg_namespace'),
               n.nspacl::text, NULL FROM pg_namespace n WHERE n.nspname !~ '^pg_(temp|toast_temp)'
        UNION ALL SELECT 'type', y.oid::regtype::text, NULL, NULL, NULL FROM pg_type y
        ORDER BY 1, 2, 3, 4"""
    with psycopg.connect(database.url) as server:
        rows = server.execute(query).fetchall()
    # A table that had triggers once says so until the next VACUUM.
    return [row[:4] for row in rows]


# --- every way to write -------------------------------------------------------------------------


def test_copy_merge_upsert_and_ctes_mark(notes: Capture) -> None:
    """Each is an insert, an update or a delete to a trigger."""
    with (
        psycopg.connect(notes.database.url) as app,
        app.cursor().copy("COPY notes (uid, id, text) FROM STDIN") as copy,
    ):
        copy.write_row(("cid", 3, "x"))
        copy.write_row(("dan", 4, "x"))
    assert notes.marked() == ["cid", "dan"]
    upsert = "INSERT INTO notes VALUES ('eve', 3, 'y') ON CONFLICT (id) DO UPDATE SET uid = 'eve'"
    assert notes.run(upsert) == ["cid", "eve"]
    merge = (
        "MERGE INTO notes USING (VALUES (1), (2), (9)) AS s (id) ON s.id = notes.id "
        "WHEN MATCHED AND notes.id = 1 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET text = 'merged' "
        "WHEN NOT MATCHED THEN INSERT VALUES ('new', 9, 'x')"
    )
    assert notes.run(merge) == ["ann", "bob", "new"]
    moved = (
        "WITH gone AS (DELETE FROM notes WHERE id = 2 RETURNING *) "
        "INSERT INTO notes SELECT 'heir', id + 100, text FROM gone"
    )
    assert notes.run(moved) == ["bob", "heir"]


def test_cascade_of_a_foreign_key_marks(database: SourceDatabase) -> None:
    """The server's own deletes are statements, too."""
    database.execute(
        "CREATE TABLE people (uid text PRIMARY KEY)",
        "CREATE TABLE notes (uid text REFERENCES people ON DELETE CASCADE ON UPDATE CASCADE, "
        "id int PRIMARY KEY, text text)",
        "INSERT INTO people VALUES ('ann'), ('bob')",
        "INSERT INTO notes VALUES ('ann', 1, 'x'), ('bob', 2, 'x')",
    )
    with of_tables(database) as capture:
        capture.install()
        assert capture.run("UPDATE people SET uid = 'eve' WHERE uid = 'ann'") == ["ann", "eve"]
        assert capture.run("DELETE FROM people WHERE uid = 'bob'") == ["bob"]


def test_truncate_marks_everybody(notes: Capture) -> None:
    """Alone, and with a table that it goes on to."""
    assert notes.run("TRUNCATE notes") == [EVERYBODY]
    notes.database.execute(
        "CREATE TABLE colours (id int PRIMARY KEY)",
        "ALTER TABLE notes ADD FOREIGN KEY (id) REFERENCES colours",
    )
    assert notes.run("TRUNCATE colours CASCADE") == [EVERYBODY]


def test_session_that_writes_cannot_change_what_is_marked(database: SourceDatabase) -> None:
    """Not by its search_path, its temporary tables or its way to print times."""
    database.execute(
        "CREATE TABLE notes (uid timestamptz, id int PRIMARY KEY, text text)",
        "CREATE SCHEMA evil CREATE TABLE change (owner_id text)",
    )
    with of_tables(database) as capture:
        capture.install()
        assert capture.run(
            "SET search_path = evil, public; SET datestyle = 'SQL, DMY';"
            " SET timezone = 'Asia/Tokyo';"
            " CREATE TEMP TABLE undrift_new (uid text);"
            " CREATE TEMP TABLE pg_class (uid text);"
            " INSERT INTO public.notes VALUES ('2020-01-02 03:00+00', 1, 'x')"
        ) == ["2020-01-02 03:00:00+00"]


def test_spelling_counts_whatever_the_collation(database: SourceDatabase) -> None:
    """A json column has no equality, and a key of an extension's type none in the catalogue."""
    database.execute(
        "CREATE DOMAIN word AS text",
        "CREATE TABLE notes (uid text, id word PRIMARY KEY, text json)",
        "INSERT INTO notes VALUES ('ann', 'a', '{\"a\": 1}'), ('bob', 'b', '{\"a\": 1}')",
    )
    with of_tables(database) as capture:
        capture.install()
        assert capture.run("UPDATE notes SET text = '{\"a\":1}' WHERE id = 'a'") == ["ann"]
        assert capture.run("UPDATE notes SET text = text") == []


@pytest.mark.parametrize("key", ["bit(8)", "tsvector", "numeric"])
def test_rows_are_found_again_by_a_key_that_cannot_be_hashed(
    database: SourceDatabase, key: str
) -> None:
    """Sorted then, although the functions ask for a hash; numeric can be, and is the control."""
    database.execute(
        f"CREATE TABLE notes (uid text, id {key} PRIMARY KEY, text text, colour text)",
        f"INSERT INTO notes VALUES ('ann', '10000000'::{key}, 'x'), ('bob', '10000001', 'y')",
    )
    with of_tables(database) as capture:
        capture.install()
        assert capture.run("UPDATE notes SET colour = 'red'") == []
        assert capture.run("UPDATE notes SET text = 'z' WHERE uid = 'bob'") == ["bob"]
        assert capture.run("UPDATE notes SET id = '10000011' WHERE uid = 'bob'") == ["bob"]


def test_key_that_may_be_violated_for_a_while_is_not_relied_upon(
    database: SourceDatabase,
) -> None:
    """Rows are then compared by their content."""
    database.execute(
        "CREATE TABLE notes (uid text, id int PRIMARY KEY DEFERRABLE, text text, colour text)",
        "INSERT INTO notes VALUES ('ann', 1, 'x'), ('bob', 2, 'y')",
    )
    with of_tables(database) as capture:
        capture.install()
        assert not any("FULL JOIN" in statement for statement in capture.triggers.ddl())
        assert capture.run("UPDATE notes SET colour = 'red'") == []
        assert capture.run("UPDATE notes SET text = 'z' WHERE id = 2") == ["bob"]


def test_migration_under_way_never_fails_the_applications_writes(notes: Capture) -> None:
    """A column that was renamed marks everybody; the control says what it would be without."""
    for column in ("text", "uid"):
        notes.database.execute(f"ALTER TABLE notes RENAME {column} TO new_{column}")
        assert EVERYBODY in notes.run("UPDATE notes SET colour = 'red'")
        notes.database.execute(f"ALTER TABLE notes RENAME new_{column} TO {column}")
        assert notes.run("UPDATE notes SET colour = 'blue'") == []
    (function,) = [s for s in notes.triggers.ddl() if '_update"() RETURNS' in s]
    naive = function.replace("WHEN undefined_column", "WHEN division_by_zero")
    assert naive != function
    notes.database.execute(naive, "ALTER TABLE notes RENAME text TO new_text")
    with pytest.raises(psycopg.errors.UndefinedColumn):
        notes.database.execute("UPDATE notes SET colour = 'green'")


# --- partitions ---------------------------------------------------------------------------------

PARTITIONED = (
    """CREATE TABLE notes (uid text, id int PRIMARY KEY, text text, colour text)
    PARTITION BY RANGE (id)""",
    "CREATE TABLE low PARTITION OF notes FOR VALUES FROM (0) TO (100)",
    "CREATE TABLE high PARTITION OF notes FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (id)",
    "CREATE TABLE highest PARTITION OF high FOR VALUES FROM (100) TO (200)",
)


def test_partitions_mark_whether_written_directly_or_through_their_table(
    database: SourceDatabase,
) -> None:
    """And once: the table's own trigger does not fire for a partition's."""
    database.execute(*PARTITIONED)
    with of_tables(database) as capture:
        capture.install()
        for table, number in (("notes", 1), ("low", 2), ("notes", 101), ("highest", 102)):
            database.execute(f"INSERT INTO {table} VALUES ('ann', {number}, 'x')")
            assert capture.feed.pending().marks == 1
            assert capture.marked() == ["ann"]
        assert capture.run("UPDATE highest SET text = 'y' WHERE id = 102") == ["ann"]
        assert capture.run("UPDATE notes SET colour = 'red'") == []
        assert capture.run("UPDATE notes SET id = 103, uid = 'bob' WHERE id = 1") == ["ann", "bob"]
        assert capture.run("DELETE FROM high WHERE id = 103") == ["bob"]
        assert capture.run("TRUNCATE highest") == [EVERYBODY]


def test_partition_that_was_attached_since_is_noticed_and_mended(
    database: SourceDatabase,
) -> None:
    """What it brought along is answered by everybody."""
    database.execute(*PARTITIONED)
    with of_tables(database) as capture:
        capture.install()
        database.execute(
            "CREATE TABLE late (LIKE notes INCLUDING ALL)",
            "INSERT INTO late VALUES ('cid', 300, 'x')",
            "ALTER TABLE notes ATTACH PARTITION late FOR VALUES FROM (300) TO (400)",
        )
        assert capture.run("INSERT INTO late VALUES ('cid', 301, 'x')") == []
        problems = capture.feed.pending().problems
        assert problems == ("public.late has no trigger for insert, update, delete, truncate",)
        assert capture.triggers.install().is_fine
        assert capture.marked() == [EVERYBODY]
        assert capture.run("INSERT INTO late VALUES ('cid', 302, 'x')") == ["cid"]


def test_table_that_inherits_is_watched_and_a_parent_is_told(database: SourceDatabase) -> None:
    """A read of the upper one shows the rows of the lower one."""
    database.execute(NOTES, "CREATE TABLE more (extra int) INHERITS (notes)")
    with of_tables(database) as capture:
        capture.install()
        assert capture.run("INSERT INTO more VALUES ('ann', 1, 'x', 'red', 1)") == ["ann"]
        assert capture.run("UPDATE notes SET text = 'y'") == ["ann"]
    with of_tables(database, table_note(table="more")) as capture:
        assert any("through notes" in line for line in capture.triggers.status().unseen)


# --- rights -------------------------------------------------------------------------------------


def test_application_without_a_right_on_undrift_writes_freely(
    notes: Capture, postgres_server: PostgresServer
) -> None:
    """The control is a function with the rights of whoever calls it: the write fails."""
    postgres_server.create_role("trigger_app", "secret")
    app = SourceDatabase(with_login(notes.database.url, "trigger_app", "secret"))
    notes.database.execute("GRANT INSERT, UPDATE, DELETE, SELECT, TRUNCATE ON notes TO trigger_app")
    app.execute(
        "INSERT INTO notes VALUES ('cid', 3, 'x')",
        "UPDATE notes SET text = 'y' WHERE uid = 'cid'",
        "DELETE FROM notes WHERE uid = 'ann'",
    )
    assert notes.marked() == ["ann", "cid"]
    app.execute("TRUNCATE notes")
    assert notes.marked() == [EVERYBODY]
    for forbidden in (
        "SELECT * FROM undrift.change",
        "INSERT INTO undrift.change (owner_id) VALUES ('x')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(forbidden)
    (function,) = [s for s in notes.triggers.ddl() if '_insert"() RETURNS' in s]
    notes.database.execute(function.replace("SECURITY DEFINER", "SECURITY INVOKER"))
    assert any("outdated" in problem for problem in notes.triggers.status().problems)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        app.execute("INSERT INTO notes VALUES ('dan', 4, 'x')")


def test_trigger_right_and_an_own_schema_are_all_that_it_takes(
    database: SourceDatabase, postgres_server: PostgresServer
) -> None:
    """To install, to drain and to take everything away, though the table is another's."""
    postgres_server.create_role("trigger_installer", "secret")
    database.execute(*PARTITIONED)
    login = with_login(database.url, "trigger_installer", "secret")
    with of_tables(database, url=login) as capture:
        database.execute("GRANT SELECT ON notes TO trigger_installer")
        with pytest.raises(ConfigError, match="has not the rights") as caught:
            capture.triggers.install()
        assert "GRANT TRIGGER" in caught.value.fix
        database.execute("CREATE SCHEMA undrift AUTHORIZATION trigger_installer")
        with pytest.raises(ConfigError, match="has not the rights"):
            capture.triggers.install()
        for table in ("notes", "low", "high", "highest"):
            database.execute(f"GRANT TRIGGER ON {table} TO trigger_installer")
        before = [row for row in catalogue_of(database) if "undrift" not in str(row)]
        assert capture.install().is_fine
        assert capture.run("INSERT INTO notes VALUES ('ann', 1, 'x')") == ["ann"]
        capture.triggers.remove()
        assert [row for row in catalogue_of(database) if "undrift" not in str(row)] == before
        assert [r[:2] for r in catalogue_of(database) if "undrift" in str(r)] == [
            ("schema", "undrift")
        ]


def test_role_that_may_not_take_marks_is_told_what_to_grant(
    notes: Capture, postgres_server: PostgresServer
) -> None:
    """And can, when it was granted."""
    postgres_server.create_role("trigger_worker", "secret")
    notes.database.execute("GRANT SELECT ON notes TO trigger_worker")
    notes.database.execute("INSERT INTO notes VALUES ('cid', 3, 'x')")
    login = with_login(notes.database.url, "trigger_worker", "secret")
    with of_tables(notes.database, url=login) as worker:
        with pytest.raises(ConfigError, match="has not the rights") as caught:
            worker.marked()
        assert 'DELETE ON "undrift"."change"' in caught.value.fix
        with pytest.raises(ConfigError, match="has not the rights"):
            worker.feed.pending()
        notes.database.execute(*[s for s in worker.triggers.ddl() if s.startswith("GRANT")])
        assert worker.feed.pending().marks == 1
        assert worker.marked() == ["cid"]


@pytest.mark.parametrize("schema_exists", [False, True])
def test_removal_leaves_the_catalogue_as_it_was(
    database: SourceDatabase, schema_exists: bool
) -> None:
    """The schema too, if it was made for the triggers; and somebody else's stays."""
    database.execute(*PARTITIONED)
    if schema_exists:
        database.execute("CREATE SCHEMA undrift")
    with of_tables(database) as capture:
        before = catalogue_of(database)
        capture.install()
        assert catalogue_of(database) != before
        capture.run("INSERT INTO notes VALUES ('ann', 1, 'x')")
        capture.triggers.remove()
        assert catalogue_of(database) == before


def test_schema_with_something_else_in_it_stays(notes: Capture) -> None:
    """Such as the vectors."""
    notes.database.execute("CREATE TABLE undrift.vectors (id int)")
    notes.triggers.remove()
    assert not notes.triggers.status().is_installed
    notes.database.execute("INSERT INTO undrift.vectors VALUES (1)")


# --- what is amiss ------------------------------------------------------------------------------


def test_missing_and_disabled_triggers_are_noticed_and_mended(notes: Capture) -> None:
    """The next installation answers for what was missed."""
    notes.database.execute(
        "ALTER TABLE notes DISABLE TRIGGER undrift_update", "DROP TRIGGER undrift_delete ON notes"
    )
    assert notes.run("DELETE FROM notes WHERE id = 1") == []
    status = notes.feed.pending()
    assert status.problems == (
        "public.notes has no trigger for delete",
        "public.notes: triggers for update are disabled",
    )
    assert not status.is_fine
    assert notes.triggers.install().is_fine
    assert notes.marked() == [EVERYBODY]
    assert notes.run("DELETE FROM notes WHERE id = 2") == ["bob"]
    notes.database.execute("ALTER TABLE notes ENABLE REPLICA TRIGGER undrift_insert")
    assert notes.triggers.status().problems == ("public.notes: triggers for insert are disabled",)
    notes.database.execute("DROP TABLE undrift.change")
    assert "the table undrift.change is missing" in notes.triggers.status().problems


# --- many owners, few marks ---------------------------------------------------------------------


def test_bulk_statement_marks_each_owner_once_forty_in_a_row(notes: Capture) -> None:
    """Whoever takes marks is told of whole rows of the table, and of every owner."""
    notes.database.execute(
        "INSERT INTO notes SELECT 'u' || n % 250, n, 'x' FROM generate_series(1000, 1999) AS n"
    )
    owners = {f"u{number}" for number in range(250)}
    with psycopg.connect(notes.database.url) as server:
        rows = server.execute("SELECT owner_ids FROM undrift.change ORDER BY id").fetchall()
    assert sorted(len(named) for (named,) in rows) == [10, 40, 40, 40, 40, 40, 40]
    assert {owner for (named,) in rows for owner in named} == owners
    assert notes.feed.pending().marks == 250
    seen: list[str] = []
    after = None
    while True:
        page = notes.feed.peek(40, after)
        seen += page.owners
        after = page.next_after
        if after is None:
            break
    assert seen == sorted(owners)
    taken: list[str] = []
    sizes = [notes.feed.drain(101, taken.extend, lambda: None) for _ in range(3)]
    assert sum(sizes) == 250
    assert sizes[0] in (90 + 40, 120)  # until 101 are reached, and to the end of that row
    assert set(taken) == owners


def test_a_drain_leaves_to_others_what_it_does_not_take(notes: Capture) -> None:
    """Of many full marks it locks as many as it hands over."""
    notes.database.execute(
        "INSERT INTO notes SELECT 'u' || n, n, 'x' FROM generate_series(1000, 1399) AS n"
    )
    taken: list[str] = []
    others: list[int] = []

    def first(owners: Sequence[str]) -> None:
        taken.extend(owners)
        others.extend(notes.feed.drain(80, taken.extend, lambda: None) for _ in range(5))

    assert notes.feed.drain(80, first, lambda: None) == 80
    assert others == [80, 80, 80, 80, 0]
    assert len(set(taken)) == len(taken) == 400


def test_single_and_bulk_marks_are_drained_together_in_their_order(notes: Capture) -> None:
    """The steps in which a drain goes fit neither."""
    for number in range(30):
        notes.database.execute(
            f"INSERT INTO notes VALUES ('one{number}', {5000 + number}, 'x')",
            f"INSERT INTO notes SELECT 'u{number}.' || n, {6000 + 50 * number} + n, 'x' "
            "FROM generate_series(1, 45) AS n",
        )
    notes.database.execute("INSERT INTO undrift.change (owner_ids) VALUES ('{}')")
    assert notes.feed.pending().marks == 30 * 46 + 1
    seen: list[str] = []
    sizes = []
    while size := notes.feed.drain(100, seen.extend, lambda: None):
        sizes.append(size)
    assert sum(sizes) == 30 * 46 + 1
    assert max(sizes) < 100 + 40
    assert all(size >= 100 for size in sizes[:-1])
    assert len(set(seen)) == len(seen) == 30 * 46
    singles = [owner for owner in seen if owner.startswith("one")]
    assert sorted(singles, key=lambda owner: int(owner[3:])) == [f"one{n}" for n in range(30)]
    assert notes.feed.pending().marks == 0


def test_marks_of_an_earlier_undrift_are_told_and_brought_up_to_date(notes: Capture) -> None:
    """Its table has one owner a row; nothing that is marked in it is lost."""
    notes.database.execute(
        "ALTER TABLE undrift.change DROP COLUMN owner_ids",
        "CREATE FUNCTION undrift.old_mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO undrift.change (owner_id) SELECT DISTINCT uid FROM undrift_new; "
        "RETURN NULL; END $$",
        "DROP TRIGGER undrift_update ON notes",
        "CREATE TRIGGER undrift_update AFTER UPDATE ON notes REFERENCING NEW TABLE AS undrift_new "
        "FOR EACH STATEMENT EXECUTE FUNCTION undrift.old_mark()",
        "UPDATE notes SET text = 'y' WHERE id = 2",
    )
    status = notes.triggers.status()
    assert "the table undrift.change is of an earlier undrift" in status.problems
    assert status.marks == 1
    for look in (lambda: notes.feed.drain(9, print, print), lambda: notes.feed.peek(9)):
        with pytest.raises(ConfigError) as caught:
            look()
        assert "none is lost" in caught.value.why
        assert "undrift triggers install" in caught.value.fix
    with psycopg.connect(notes.database.url) as control:  # what does not add the column
        for statement in notes.triggers.ddl():
            if "ADD COLUMN" not in statement:
                control.execute(statement.encode())
        with pytest.raises(psycopg.errors.UndefinedColumn):
            control.execute("UPDATE notes SET text = 'harm' WHERE id = 1")
        control.rollback()
    with psycopg.connect(notes.database.url) as elsewhere:  # a DBA's, taken back
        for statement in notes.triggers.ddl():
            elsewhere.execute(statement.encode())
        elsewhere.execute("UPDATE notes SET text = 'fine' WHERE id = 1")
        elsewhere.rollback()
    assert notes.triggers.install().is_fine
    assert notes.marked() == [EVERYBODY, "bob"]
    assert notes.run("UPDATE notes SET text = 'z' WHERE id = 1") == ["ann"]


def test_what_replicas_write_is_told_to_be_unseen(notes: Capture) -> None:
    """And it is."""
    assert any("session_replication_role" in line for line in notes.triggers.status().unseen)
    replica = "SET session_replication_role = replica; UPDATE notes SET text = 'z'"
    assert notes.run(replica) == []


def test_installation_waits_no_longer_than_it_may(database: SourceDatabase) -> None:
    """For a transaction that has written; it then changes nothing of that table."""
    database.execute(NOTES)
    with of_tables(database) as capture, psycopg.connect(database.url) as app:
        app.execute("INSERT INTO notes VALUES ('ann', 1, 'x')")
        with pytest.raises(TransientError, match=r"notes was not free within 0\.05 s"):
            capture.triggers.install(lock_timeout_seconds=0.05)
        assert not capture.triggers.status().is_fine
        app.commit()
        assert capture.install().is_fine
        app.execute("INSERT INTO notes VALUES ('ann', 2, 'x')")
        with pytest.raises(TransientError):
            capture.triggers.remove(lock_timeout_seconds=0.05)


def test_foreign_tables_and_materialized_views_are_refused(database: SourceDatabase) -> None:
    """A partition that lies elsewhere is one, too."""
    database.execute(
        NOTES,
        "CREATE MATERIALIZED VIEW snapshot AS SELECT * FROM notes",
        "CREATE FOREIGN DATA WRAPPER nothing",
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing",
        "CREATE FOREIGN TABLE far (uid text, id int, text text) SERVER elsewhere",
        "CREATE TABLE parted (uid text, id int, text text) PARTITION BY RANGE (id)",
        "CREATE FOREIGN TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9) SERVER elsewhere",
    )
    refusals = {"snapshot": "materialized view", "far": "foreign table", "parted": "foreign table"}
    for table, why in refusals.items():
        with (
            of_tables(database, table_note(table=table)) as capture,
            pytest.raises(UnsupportedError, match=why),
        ):
            capture.triggers.install()


def test_table_that_a_subscription_writes_to_is_refused() -> None:
    """Logical replication fires no trigger: a change arrives and leaves no mark."""
    with PostgresServer(settings={"wal_level": "logical"}) as server:
        publisher = SourceDatabase(server.create_database(with_vector=False))
        subscriber = SourceDatabase(server.create_database(with_vector=False))
        for database in (publisher, subscriber):
            database.execute(NOTES)
        publisher.execute(
            "CREATE PUBLICATION p FOR TABLE notes",
            # Beforehand: within one server the subscription would wait for itself.
            "SELECT pg_create_logical_replication_slot('s', 'pgoutput')",
        )
        with of_tables(subscriber) as capture:
            capture.install()
            with psycopg.connect(subscriber.url, autocommit=True) as connection:
                connection.execute(
                    psycopg.sql.SQL(
                        "CREATE SUBSCRIPTION s CONNECTION {} PUBLICATION p "
                        # Nothing is copied: within one server a copy, which holds the table, makes
                        # a slot, and that waits for whoever else is writing and wants the table.
                        "WITH (create_slot = false, slot_name = 's', copy_data = false)"
                    ).format(psycopg.sql.Literal(publisher.url))
                )
            status = capture.triggers.status()
            assert status.tables == ()
            assert "a subscription writes to public.notes" in status.refused[0]
            with pytest.raises(UnsupportedError, match="logical replication"):
                capture.triggers.install()
            capture.triggers.remove()
            assert not capture.triggers.status().is_installed


# --- waking -------------------------------------------------------------------------------------


def test_mark_wakes_whoever_waits_if_it_is_to_notify(notes: Capture) -> None:
    """Far before the time is over; every thread that waits; and a mark before is not overheard."""
    assert notes.triggers.install(notify=True).is_notified
    notes.marked()
    assert notes.feed.pending().is_notified
    notes.feed.wait(60)  # begins to listen, and returns at once: marks may have been there before
    woken = [threading.Event() for _ in range(3)]

    def wait(event: threading.Event) -> None:
        notes.feed.wait(60)
        event.set()

    threads = [threading.Thread(target=wait, args=(event,)) for event in woken]
    for thread in threads:
        thread.start()
    turn = 0
    while not all(event.wait(0.05) for event in woken):
        turn += 1
        assert turn < 200, "nobody was woken"
        notes.database.execute(f"UPDATE notes SET text = 'turn {turn}'")
    for thread in threads:
        thread.join()
    assert notes.marked() == ["ann", "bob"]


def test_unread_column_wakes_nobody(notes: Capture) -> None:
    """No mark, no call."""
    notes.triggers.install(notify=True)
    with psycopg.connect(notes.database.url, autocommit=True) as ears:
        ears.execute("LISTEN undrift_change")
        notes.database.execute("UPDATE notes SET colour = 'red'")
        notes.database.execute("UPDATE notes SET text = 'red'", "TRUNCATE notes")
        assert len(list(ears.notifies(timeout=10, stop_after=2))) == 2


def test_waiting_outlives_the_server(notes: Capture, postgres_server: PostgresServer) -> None:
    """It becomes a pause, and listens again when the server is back."""
    notes.triggers.install(notify=True)
    notes.feed.wait(0.01)
    postgres_server.restart()
    notes.feed.wait(0.01)
    notes.feed.wait(60)  # a new connection, so it returns at once
    notes.database.execute("UPDATE notes SET text = 'again'")
    notes.feed.wait(60)
    assert set(notes.marked()) == {"ann", "bob", EVERYBODY}


def test_switching_notification_on_or_off_loses_nothing(notes: Capture) -> None:
    """The functions are replaced under the application's writes."""
    assert not notes.triggers.status().is_notified
    assert notes.triggers.install(notify=True).is_notified
    assert notes.triggers.status().is_fine
    assert not notes.triggers.install().is_notified


def test_documents_are_watched_where_they_are(database: SourceDatabase) -> None:
    """In a schema of their own, a numeric owner printed as the source prints it."""
    database.execute(
        "CREATE SCHEMA app",
        "CREATE TABLE app.profiles (user_id numeric, filtered_data jsonb, seen int)",
        "INSERT INTO app.profiles VALUES (1.50, '{}', 0), (2, '{}', 0)",
    )
    with of_documents(database, table="app.profiles") as capture:
        capture.install()
        assert capture.run("UPDATE app.profiles SET seen = 1") == []
        assert capture.run("UPDATE app.profiles SET filtered_data = '[]'") == ["1.50", "2"]
