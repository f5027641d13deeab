"""The write of a profile, attacked: locks, time limits, triggers, types, and owners alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import pytest
import sqlalchemy as sa

from support.assistant import PROJECT, add_project, stored, with_project
from support.layouts import ENGINEER, document, experience
from support.postgres import PostgresServer
from support.sides import World
from undrift import ConfigError, TransientError, Undrift, UndriftError, WriteFailed
from undrift.assistant import CareerAssistant, ToolDone
from undrift.sources import editing

SECRET = "SECRET-PROFILE-TEXT"

NewWorld = Callable[..., World]


def said(error: BaseException | None) -> str:
    """Everything that a traceback of *error* would print of it and its causes."""
    return (
        "" if error is None else f"{error!r} {error} {said(error.__cause__ or error.__context__)}"
    )


@contextmanager
def row_held(world: World, owner: int = 1) -> Iterator[None]:
    """The application holds the owner's row, or on SQLite the database."""
    held, release = Event(), Event()

    def hold() -> None:
        with world.source.connection() as connection:
            if world.source.is_postgres:
                connection.execute(
                    sa.text("SELECT 1 FROM profiles WHERE user_id = :o FOR UPDATE"), {"o": owner}
                )
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            held.set()
            assert release.wait(60)

    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(hold)
        assert held.wait(60)
        try:
            yield
        finally:
            release.set()
            holding.result(60)


@contextmanager
def as_role(world: World, server: PostgresServer, *settings: str) -> Iterator[Undrift]:
    """Both sides, the source under a role with *settings* of its own."""
    name = f"app_{abs(hash(settings)) % 10**9}"
    server.create_role(name, "secret-of-app")
    world.source.run(f"GRANT SELECT, UPDATE ON profiles TO {name}")
    for setting in settings:
        world.source.run(f"ALTER ROLE {name} SET {setting}")
    url = sa.make_url(world.source_url).set(username=name, password="secret-of-app")
    yield world.open(source_url=url.render_as_string(hide_password=False))


# --- locks and limits -------------------------------------------------------------------------


def test_a_statement_timeout_of_the_role_is_told_as_passing(
    postgres: World, postgres_server: PostgresServer
) -> None:
    """It ends the wait for the row before our own limit does; nothing is written."""
    postgres.bring_in_sync({"1": ENGINEER})
    with (
        as_role(postgres, postgres_server, "statement_timeout = '200ms'") as sides,
        row_held(postgres),
    ):
        with pytest.raises(TransientError, match="nothing was written") as raised:
            add_project(sides)
        assert "secret-of-app" not in said(raised.value)
    assert stored(postgres) == ENGINEER
    assert isinstance(add_project(sides), ToolDone)


@pytest.mark.parametrize("how", ["terminated", "idle"])
def test_a_session_that_is_ended_between_lock_and_write_is_told_as_passing(
    postgres: World, postgres_server: PostgresServer, how: str
) -> None:
    """By an administrator, or by a limit on idle transactions; nothing is written."""
    postgres.bring_in_sync({"1": ENGINEER})

    def change(raw: str) -> str:
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = 'undrift' AND pid = :p"
        (found,) = postgres.source.rows(
            "SELECT pid FROM pg_locks JOIN pg_stat_activity USING (pid)"
            " WHERE relation = 'profiles'::regclass AND mode = 'RowShareLock'"
            " AND application_name = 'undrift' AND datname = current_database()"
        ) or [{"pid": 0}]
        if how == "terminated":
            postgres.source.rows("SELECT pg_terminate_backend(:p)", p=found["pid"])
        while postgres.source.rows(query, p=found["pid"]):
            pass
        return raw.replace("Runs a kiln", "Was lost")

    with as_role(postgres, postgres_server) as sides:
        sides.documents.edit("1", lambda raw: raw)
        if how == "idle":  # for new sessions, such as the next edit's
            role = sa.make_url(sides.describe().source.partition(" ")[0]).username
            limit = "idle_in_transaction_session_timeout = '50ms'"
            postgres.source.run(f"ALTER ROLE {role} SET {limit}")
            sides.documents.close()
        with pytest.raises(TransientError, match="nothing was written"):
            sides.documents.edit("1", change)
    assert stored(postgres) == ENGINEER


def test_a_role_that_is_read_only_by_default_is_told_so(
    postgres: World, postgres_server: PostgresServer
) -> None:
    """As a replica is; whoever set that meant it."""
    postgres.bring_in_sync({"1": ENGINEER})
    with (
        as_role(postgres, postgres_server, "default_transaction_read_only = on") as sides,
        pytest.raises(ConfigError, match="read-only"),
    ):
        add_project(sides)
    assert stored(postgres) == ENGINEER


def test_a_reader_that_will_not_end_holds_up_a_sqlite_commit_and_nothing_is_half(
    sqlite: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without WAL a commit waits for readers; given up, it is as if it had not been tried."""
    monkeypatch.setattr(editing, "LOCK_SECONDS", 0.1)
    sqlite.bring_in_sync({"1": ENGINEER})
    with sqlite.source.connection() as reader:
        reader.exec_driver_sql("BEGIN")
        reader.exec_driver_sql("SELECT * FROM profiles").all()
        with pytest.raises(TransientError, match="nothing was written"):
            add_project(sqlite.sides)
    assert stored(sqlite) == ENGINEER
    assert isinstance(add_project(sqlite.sides), ToolDone)


def test_a_lock_on_one_owner_holds_up_no_other(postgres: World) -> None:
    """Rows are locked, not tables."""
    postgres.bring_in_sync({"1": ENGINEER, "2": document(experience("exp_1"))})
    with row_held(postgres, owner=2):
        done = add_project(postgres.sides)
    assert isinstance(done, ToolDone)
    assert done.vector == "written"


# --- triggers, types and collations -----------------------------------------------------------


@pytest.mark.parametrize("state", ["P0001", "PT400", "42501", "0A000", "42P01", "22P02", "23514"])
def test_a_trigger_that_refuses_is_told_without_its_words(postgres: World, state: str) -> None:
    """Whatever state it raises; its message may quote the profile."""
    postgres.bring_in_sync({"1": ENGINEER})
    postgres.source.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" RAISE EXCEPTION USING ERRCODE = '{state}', MESSAGE = 'no ' || NEW.filtered_data::text;"
        " END $$"
    )
    postgres.source.run(
        "CREATE TRIGGER refuse BEFORE UPDATE ON profiles FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(UndriftError) as raised:
        add_project(postgres.sides, {"title": SECRET})
    assert isinstance(raised.value, WriteFailed)
    assert state in raised.value.why
    assert SECRET not in said(raised.value)
    assert stored(postgres) == ENGINEER


def test_a_deferred_constraint_refuses_at_the_commit(postgres: World) -> None:
    """Which is when it looks; nothing is written."""
    postgres.bring_in_sync({"1": ENGINEER})
    postgres.source.run(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION USING MESSAGE = 'no ' || NEW.filtered_data::text; END $$"
    )
    postgres.source.run(
        "CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON profiles DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    with pytest.raises(WriteFailed, match="nothing was written") as raised:
        add_project(postgres.sides, {"title": SECRET})
    assert SECRET not in said(raised.value)
    assert stored(postgres) == ENGINEER


@pytest.mark.parametrize("kind", ["ABORT", "FAIL", "ROLLBACK"])
def test_a_sqlite_trigger_that_refuses_is_told_without_its_words(sqlite: World, kind: str) -> None:
    """It may say anything."""
    sqlite.bring_in_sync({"1": ENGINEER})
    sqlite.source.run(
        "CREATE TRIGGER refuse BEFORE UPDATE ON profiles"
        f" BEGIN SELECT RAISE({kind}, '{SECRET} is locked'); END"
    )
    with pytest.raises(WriteFailed, match="nothing was written") as raised:
        add_project(sqlite.sides)
    assert SECRET not in said(raised.value)
    assert stored(sqlite) == ENGINEER


def test_a_deadlock_is_told_as_passing(postgres: World) -> None:
    """The words of another refusal, such as a wait of seconds, would be wrong."""
    postgres.bring_in_sync({"1": ENGINEER})
    postgres.source.run("CREATE TABLE counters (n int)")
    postgres.source.run("INSERT INTO counters VALUES (0)")
    postgres.source.run(
        "CREATE FUNCTION tally() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN UPDATE counters SET n = n + 1; RETURN NEW; END $$"
    )
    postgres.source.run(
        "CREATE TRIGGER tally BEFORE UPDATE ON profiles FOR EACH ROW EXECUTE FUNCTION tally()"
    )
    holds, goes_on = Event(), Event()

    def application() -> str:
        """Take the counter, then the profile: the other way round."""
        with postgres.source.connection() as connection, connection.begin():
            connection.exec_driver_sql("SET LOCAL deadlock_timeout = '60s'")
            connection.exec_driver_sql("UPDATE counters SET n = 100")
            holds.set()
            assert goes_on.wait(60)
            connection.exec_driver_sql("SELECT 1 FROM profiles FOR UPDATE")
        return "done"

    def change(raw: str) -> str:
        goes_on.set()
        return raw.replace("Runs a kiln", "Was lost")

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(application)
        assert holds.wait(60)
        with pytest.raises(TransientError, match="nothing was written") as raised:
            postgres.sides.documents.edit("1", change)
        assert "free within" not in str(raised.value)
        assert running.result(60) == "done"
    assert stored(postgres) == ENGINEER


@pytest.mark.parametrize("declared", ["BLOB", "JSON", "VARCHAR(9)", ""])
def test_sqlite_keeps_the_type_of_the_value(sqlite: World, declared: str) -> None:
    """An application that stored bytes reads bytes."""
    sqlite.source.run("DROP TABLE profiles")
    sqlite.source.run(f"CREATE TABLE profiles (user_id integer, filtered_data {declared})")
    sqlite.source.run(
        "INSERT INTO profiles VALUES (1, CAST(:raw AS BLOB))", raw=json.dumps(ENGINEER)
    )
    sqlite.source.run("INSERT INTO profiles VALUES (2, :raw)", raw=json.dumps(ENGINEER))
    sqlite.sides.sync("1")
    for owner in ("1", "2"):
        done = CareerAssistant(sqlite.sides).add_project_to_experience(
            owner, experience_id="exp_2", project=PROJECT
        )
        assert isinstance(done, ToolDone)
        assert stored(sqlite, int(owner)) == with_project()
    types = sqlite.source.rows("SELECT typeof(filtered_data) AS t FROM profiles ORDER BY user_id")
    assert [row["t"] for row in types] == ["blob", "text"]


@pytest.mark.parametrize(
    "column_type", ["profile_json", "profile_text", "varchar", "varchar(9000)", "jsonb NOT NULL"]
)
def test_postgres_columns_of_derived_types_are_written(
    new_postgres_world: NewWorld, column_type: str
) -> None:
    """Domains with a check, and texts with a length."""
    world = new_postgres_world()
    world.source.run("DROP TABLE profiles")
    world.source.run("CREATE DOMAIN profile_json AS jsonb CHECK (jsonb_typeof(VALUE) = 'object')")
    world.source.run("CREATE DOMAIN profile_text AS text CHECK (VALUE <> '')")
    world.source.run(f"CREATE TABLE profiles (user_id bigint, filtered_data {column_type})")
    cast = column_type.partition(" ")[0]
    world.source.run(
        f"INSERT INTO profiles VALUES (1, CAST(:raw AS {cast}))", raw=json.dumps(ENGINEER)
    )
    world.sides.sync("1")
    done = add_project(world.sides)
    assert isinstance(done, ToolDone)
    assert done.vector == "written"
    assert stored(world) == with_project()


@pytest.mark.parametrize(
    ("owner_type", "mine", "others"),
    [
        ("text COLLATE NOCASE", "Ann", ["ann", "ANN", "Ann "]),
        ("", "1", ["1.5", "01"]),
        ("TEXT", "'; DROP TABLE profiles; --", ["' OR 1=1", "%", ""]),
    ],
)
def test_no_other_owners_row_is_written_on_sqlite(
    sqlite: World, owner_type: str, mine: str, others: list[str]
) -> None:
    """However alike the database finds their names."""
    sqlite.source.run("DROP TABLE profiles")
    sqlite.source.run(f"CREATE TABLE profiles (user_id {owner_type}, filtered_data text)")
    insert = "INSERT INTO profiles VALUES (:owner, :raw)"
    rows = [{"owner": owner, "raw": json.dumps(ENGINEER)} for owner in (mine, *others)]
    sqlite.source.run_many(insert, rows)
    list(sqlite.sides.sync_all())
    done = CareerAssistant(sqlite.sides).add_project_to_experience(
        mine, experience_id="exp_2", project=PROJECT
    )
    assert isinstance(done, ToolDone)
    assert done.vector == "written"
    documents = {
        row["user_id"]: json.loads(row["filtered_data"])
        for row in sqlite.source.rows("SELECT * FROM profiles")
    }
    assert documents == {mine: with_project()} | dict.fromkeys(others, ENGINEER)


@pytest.mark.parametrize(
    ("owner_type", "mine", "other"),
    [
        ("uuid", "0b5a1c9e-0000-4000-8000-000000000001", "0b5a1c9e-0000-4000-8000-000000000002"),
        ("text", "'; DROP TABLE profiles; --", "' OR ''='"),
        ("numeric", "1.50", "1.51"),
        ("integer", "7", "77"),
        ("char(5)", "Ann  ", "ann  "),
    ],
)
def test_no_other_owners_row_is_written_on_postgres(
    new_postgres_world: NewWorld, owner_type: str, mine: str, other: str
) -> None:
    """The owner is bound as a value, and converted to the column's type."""
    world = new_postgres_world()
    world.source.run("DROP TABLE profiles")
    world.source.run(f"CREATE TABLE profiles (user_id {owner_type}, filtered_data jsonb)")
    for owner in (mine, other):
        world.source.run(
            f"INSERT INTO profiles VALUES (CAST(:owner AS {owner_type}), CAST(:raw AS jsonb))",
            owner=owner,
            raw=json.dumps(ENGINEER),
        )
    list(world.sides.sync_all())
    done = CareerAssistant(world.sides).add_project_to_experience(
        mine, experience_id="exp_2", project=PROJECT
    )
    assert isinstance(done, ToolDone)
    rows = world.source.rows("SELECT CAST(user_id AS text) AS o, filtered_data AS d FROM profiles")
    assert [row["d"] for row in sorted(rows, key=lambda row: row["o"].strip() != mine.strip())] == [
        with_project(),
        ENGINEER,
    ]
