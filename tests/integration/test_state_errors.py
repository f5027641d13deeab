"""States where things are not as they should be: files, logins, rights, layouts, outages."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import psycopg
import pytest

from support.files import as_nobody
from support.pooler import needs_pooler, pooled
from support.postgres import UNREACHABLE, PostgresServer, with_login
from undrift import mounts
from undrift.errors import ConfigError, StateUnavailable
from undrift.state import Expected, FencedState, Observation, Parking, State
from undrift.states import _pg_layout, _sqlite_file, _sqlite_layout, open_state
from undrift.states.postgres import PostgresState
from undrift.states.sqlite import SqliteState
from undrift.testing._state_fixtures import KIND, acknowledge, claimed, note_of, observe, row

SCOPE = "default@undrift.vectors"


@pytest.fixture
def opened() -> Iterator[Callable[..., FencedState]]:
    """Opens states, which are closed behind the test."""
    states: list[State] = []

    def open_(url: str, scope: str = SCOPE, schema: str | None = None) -> FencedState:
        state = open_state(url, scope=scope, schema=schema)
        states.append(state)
        return state

    yield open_
    for state in states:
        state.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "state.db"


def run(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run *statements* as the superuser, and return the last one's rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def assert_every_call_fails(state: State, error: type[Exception], match: str) -> None:
    """None of them says that nothing is remembered."""
    for call in (
        state.standing,
        state.summary,
        lambda: state.note(["1"]),
        lambda: state.enter("c1"),
        lambda: state.lease(["1"], "w1", 60),
        lambda: state.release(["1"], "w1"),
        lambda: state.observe([Observation(owner_id="1", noted=0, rows=[row("a")])]),
        lambda: state.observe([Observation(owner_id="1", noted=0)]),
        lambda: state.park([Parking("1", KIND, "a", 1, "no", 1.0)]),
        lambda: state.parked(1),
        lambda: state.mark(["1"]),
        lambda: state.claim_dirty("w1", 1, 60),
        lambda: state.stale_owners(["1"], 60),
        lambda: state.spend_deletes({"a": 1}, lambda usage: None),
        lambda: state.buried(60, 1),
    ):
        with pytest.raises(error, match=match):
            call()


# --- addresses


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("mysql://user:hidden-word@host/db", "postgresql://, sqlite://"),
        ("postgre://user:hidden-word@host/db", "did you mean postgres"),
        ("state.db", "No state for this URL"),
        ("sqlite:///", "malformed"),
        ("sqlite:///:memory:", "lost with the process"),
        ("sqlite:///a.db?mode=rw", "malformed"),
        ("postgresql://user:hid@den-word@host/db", "malformed"),
        ("postgresql://user:hid/den-word@host/db", "malformed"),
        ("postgresql://user:hidden-word@host:port/db", "malformed"),
        ("postgresql://user:hidden-word@host/db?schema=", "cannot be named"),
        ("postgresql://user:hidden-word@host/db?schema=" + "x" * 64, "cannot be named"),
    ],
)
def test_a_malformed_address_is_refused_without_showing_a_password(url: str, match: str) -> None:
    """Before anything is connected to."""
    with pytest.raises(ConfigError, match=match) as caught:
        open_state(url, scope=SCOPE)
    assert "den-word" not in str(caught.value)
    assert "state.url" in caught.value.fix or "schema" in caught.value.fix


def test_opening_a_state_touches_nothing(tmp_path: Path) -> None:
    """The address may be printed before anybody knows whether it is right."""
    state = open_state(f"sqlite:///{tmp_path}/a%3Fb.db", scope=SCOPE)
    assert state.location == f"sqlite:///{tmp_path}/a?b.db"
    assert not list(tmp_path.iterdir())
    remote = open_state("postgres://me:secret@nowhere:1/db?connect_timeout=1", scope=SCOPE)
    assert remote.location == "postgresql://me:***@nowhere:1/db?schema=undrift"


def test_tables_say_whose_they_are_in_a_schema_of_somebody_elses(
    postgres_url: str, opened: Callable[..., FencedState]
) -> None:
    """In undrift's own they need not."""
    opened(postgres_url).create()
    opened(postgres_url, schema="public").create()
    opened(f"{postgres_url}?schema=odd%25 %22name").create()
    rows = run(
        postgres_url,
        "SELECT table_schema, table_name FROM information_schema.tables "
        "WHERE table_name LIKE '%owner_state'",
    )
    assert set(rows) == {
        ("undrift", "owner_state"),
        ("public", "undrift_owner_state"),
        ('odd% "name', "undrift_owner_state"),
    }


def test_a_state_works_where_the_schemas_name_is_odd(
    postgres_url: str, opened: Callable[..., FencedState]
) -> None:
    """Per cent and quotation marks have a meaning to the driver."""
    state = opened(f"{postgres_url}?schema=odd%25s %22name")
    state.create()
    observe(state, "1", row("a"))
    state.mark(["1"])
    assert claimed(state) == ["1"]


# --- the file


def test_looking_for_a_missing_file_creates_nothing(tmp_path: Path, path: Path) -> None:
    state = SqliteState(path, scope=SCOPE)
    assert not state.exists()
    assert_every_call_fails(state, ConfigError, "not been created")
    assert not list(tmp_path.iterdir())


def test_a_state_lives_beside_an_applications_tables(path: Path) -> None:
    """They are neither read nor changed."""
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE owner_state (mine TEXT)")
        connection.commit()
    state = SqliteState(path, scope=SCOPE)
    assert not state.exists()
    state.create()
    observe(state, "1", row("a"))
    state.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM owner_state").fetchone() == (0,)


def test_a_file_of_another_kind_is_refused(path: Path) -> None:
    content = b"not a database, but long enough" * 40
    path.parent.mkdir()
    path.write_bytes(content)
    state = SqliteState(path, scope=SCOPE)
    with pytest.raises(ConfigError, match="not a SQLite database"):
        state.exists()
    with pytest.raises(ConfigError):
        state.create()
    assert path.read_bytes() == content


def test_a_folder_in_the_files_place_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(ConfigError, match="not a file"):
        SqliteState(path, scope=SCOPE).exists()


def test_a_file_that_only_may_be_read_can_be_looked_at(path: Path) -> None:
    """As for `status`; writing names the right that is missing."""
    writer = SqliteState(path, scope=SCOPE)
    writer.create()
    writer.mark(["1"])
    reader = open_state(f"sqlite:///{path}?mode=ro", scope=SCOPE)
    assert reader.exists()
    assert reader.summary().dirty == 1
    with pytest.raises(ConfigError, match="may not be used like that") as caught:
        reader.mark(["1"])
    assert "mode=ro" in caught.value.fix
    writer.close()
    reader.close()


def test_a_user_without_the_right_to_write_hears_so(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o755)
    owner = SqliteState(folder / "state.db", scope=SCOPE)
    owner.create()
    owner.close()
    (folder / "state.db").chmod(0o444)
    folder.chmod(0o555)
    state = SqliteState(folder / "state.db", scope=SCOPE)
    with as_nobody(folder), pytest.raises(ConfigError, match="may not be used like that"):
        state.mark(["1"])
    state.close()
    folder.chmod(0o755)


def test_a_network_filesystem_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's locks hold between no two machines there."""
    mountinfo = path.parent.parent / "mountinfo"
    mountinfo.write_text("1 0 0:1 / / rw - nfs4 server:/ rw\n")
    monkeypatch.setattr(mounts, "MOUNTINFO", mountinfo)
    state = SqliteState(path, scope=SCOPE)
    for call in (state.exists, state.create, state.standing):
        with pytest.raises(ConfigError, match="nfs4"):
            call()
    assert not path.parent.exists()


def test_a_locked_file_is_an_outage(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There was no definite answer; reading goes on all the while."""
    monkeypatch.setattr(_sqlite_file, "BUSY_SECONDS", 0.01)
    state = SqliteState(path, scope=SCOPE)
    state.create()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateUnavailable, match="locked"):
            state.mark(["1"])
        assert note_of(state, "1").generation == 0
        other.execute("ROLLBACK")
    state.mark(["1"])
    assert note_of(state, "1").generation == 1
    state.close()


def test_a_file_that_is_replaced_is_noticed_at_once(path: Path) -> None:
    """An open connection would still write into the removed one."""
    state = SqliteState(path, scope=SCOPE)
    state.create()
    state.mark(["1"])
    path.unlink()
    with pytest.raises(ConfigError, match="not been created"):
        state.note(["1"])
    state.create()
    assert note_of(state, "1").generation == 0
    state.close()


def test_the_clock_of_a_file_is_the_callers(path: Path) -> None:
    """Simulations move it."""
    now = 1_000.0
    state = SqliteState(path, scope=SCOPE, clock=lambda: now)
    state.create()
    state.lease(["1"], "w1", 60)
    assert state.lease(["1"], "w2", 60) == {"1": "w1"}
    now += 61
    assert state.lease(["1"], "w2", 60) == {}
    state.close()


# --- the server


def test_an_unreachable_server_is_an_outage(
    postgres_server: PostgresServer, opened: Callable[..., FencedState]
) -> None:
    postgres_server.stop()
    state = opened(postgres_server.url("any", password="hidden-word"))
    with pytest.raises(StateUnavailable, match=UNREACHABLE) as caught:
        state.exists()
    assert "hidden-word" not in str(caught.value)
    assert_every_call_fails(state, StateUnavailable, "did not answer")


def test_a_server_that_comes_back_is_used_again(
    postgres_server: PostgresServer, postgres_url: str, opened: Callable[..., FencedState]
) -> None:
    """Idle connections of before are not."""
    state = opened(postgres_url)
    state.create()
    state.mark(["1"])
    postgres_server.restart()
    assert note_of(state, "1").generation == 1
    state.mark(["1"])
    assert note_of(state, "1").generation == 2


def test_a_session_that_is_ended_in_the_middle_is_an_outage(
    postgres_url: str, opened: Callable[..., FencedState]
) -> None:
    """Whether the write was made, nobody knows; the next call connects anew."""
    state = opened(postgres_url)
    state.create()
    observe(state, "1", row("a"))
    blocked = threading.Event()

    def end_it() -> None:
        with psycopg.connect(postgres_url, autocommit=True) as killer:
            while not killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE wait_event_type = 'Lock' AND datname = current_database()"
            ).fetchall():
                blocked.wait(0.01)

    with psycopg.connect(postgres_url) as other:
        state.fence.hold(other, [Expected("1", KIND, "a", 1)])
        thread = threading.Thread(target=end_it)
        thread.start()
        with pytest.raises(StateUnavailable):
            state.mark(["1"])
        thread.join()
    state.mark(["1"])
    assert note_of(state, "1").generation == 1


@pytest.mark.parametrize("user", ["postgres", "nobody_of_that_name"])
def test_a_refused_login_is_a_configuration_error(
    postgres_server: PostgresServer, user: str, opened: Callable[..., FencedState]
) -> None:
    state = opened(postgres_server.url("postgres", user=user, password="hidden-word"))
    with pytest.raises(ConfigError, match="refused the login") as caught:
        state.exists()
    assert "hidden-word" not in str(caught.value)
    assert user in caught.value.why


def test_an_unknown_database_is_a_configuration_error(
    postgres_server: PostgresServer, opened: Callable[..., FencedState]
) -> None:
    with pytest.raises(ConfigError, match='database "nowhere" does not exist'):
        opened(postgres_server.url("nowhere")).exists()


@needs_pooler
def test_a_state_works_through_a_pooler(
    postgres_url: str, opened: Callable[..., FencedState]
) -> None:
    """Nothing of a session outlasts a transaction."""
    with pooled(postgres_url) as url:
        state = opened(url)
        state.create()
        state.enter("c1")
        observe(state, "1", row("a"))
        state.mark(["1"])
        assert claimed(state) == ["1"]
        acknowledge(state, "1")
        state.close()


# --- rights


@pytest.fixture
def as_role(
    postgres_server: PostgresServer, postgres_url: str, opened: Callable[..., FencedState]
) -> Callable[[str], FencedState]:
    """A function that opens the state as a role that was granted nothing yet."""

    def open_as(name: str) -> FencedState:
        postgres_server.create_role(name, "pass-word")
        return opened(with_login(postgres_url, name, "pass-word"))

    return open_as


def test_a_role_that_may_not_create_hears_what_to_grant(
    postgres_url: str, as_role: Callable[[str], FencedState]
) -> None:
    """And with exactly that, it may."""
    state = as_role("state maker")
    assert not state.exists()
    with pytest.raises(ConfigError, match="may not create") as caught:
        state.create()
    _, _, statement = caught.value.fix.partition(": ")
    assert statement.startswith("GRANT CREATE ON DATABASE")
    run(postgres_url, statement)
    state.create()
    state.create()
    state.mark(["1"])
    assert claimed(state) == ["1"]


def test_a_role_that_may_not_create_in_a_schema_hears_what_to_grant(
    postgres_url: str, as_role: Callable[[str], FencedState]
) -> None:
    run(postgres_url, "CREATE SCHEMA undrift")
    state = as_role("state_builder")
    with pytest.raises(ConfigError, match="may not create") as caught:
        state.create()
    _, _, statement = caught.value.fix.partition(": ")
    assert statement == 'GRANT USAGE, CREATE ON SCHEMA "undrift" TO "state_builder"'
    run(postgres_url, statement)
    state.create()


def test_a_role_that_may_not_use_the_tables_hears_what_to_grant(
    postgres_url: str, as_role: Callable[[str], FencedState], opened: Callable[..., FencedState]
) -> None:
    """First to read, then to write; with exactly that, it may."""
    opened(postgres_url).create()
    state = as_role("state_user")
    with pytest.raises(ConfigError, match="may not read") as caught:
        state.standing()
    run(postgres_url, caught.value.fix.partition(": ")[2])
    assert state.exists()
    assert state.summary().owners == 0
    with pytest.raises(ConfigError, match="may not write") as caught:
        state.mark(["1"])
    run(postgres_url, caught.value.fix.partition(": ")[2])
    state.create()
    state.enter("c1")
    observe(state, "1", row("a"))
    state.mark(["1"])
    assert claimed(state) == ["1"]
    acknowledge(state, "1", published=[(KIND, "a", 1)])


def test_hidden_rows_are_refused(
    postgres_url: str, as_role: Callable[[str], FencedState], opened: Callable[..., FencedState]
) -> None:
    """What row-level security hides would look forgotten."""
    opened(postgres_url).create()
    state = as_role("state_blind")
    run(
        postgres_url,
        "GRANT USAGE ON SCHEMA undrift TO state_blind",
        "GRANT SELECT ON ALL TABLES IN SCHEMA undrift TO state_blind",
        "ALTER TABLE undrift.entity_state ENABLE ROW LEVEL SECURITY",
    )
    with pytest.raises(ConfigError, match="hides rows") as caught:
        state.exists()
    assert "undrift.entity_state" in caught.value.fix


def test_a_read_only_server_is_a_configuration_error(
    postgres_url: str, opened: Callable[..., FencedState]
) -> None:
    """Such as a standby."""
    opened(postgres_url).create()
    state = opened(f"{postgres_url}?options=-c%20default_transaction_read_only%3Don")
    assert state.exists()
    with pytest.raises(ConfigError, match="read-only"):
        state.mark(["1"])


# --- layouts


def test_a_newer_layout_is_refused(postgres_url: str, path: Path) -> None:
    """Whoever wrote it knows what this undrift does not."""
    states: list[tuple[State, Callable[[], object]]] = []
    sqlite_state = SqliteState(path, scope=SCOPE)
    postgres_state = PostgresState(postgres_url, scope=SCOPE)

    def raise_sqlite() -> None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE undrift_state_layout SET version = 99")
            connection.commit()

    states.append((sqlite_state, raise_sqlite))
    states.append(
        (
            postgres_state,
            lambda: run(postgres_url, "UPDATE undrift.state_layout SET version = 99"),
        )
    )
    for state, raise_version in states:
        state.create()
        raise_version()
        for call in (state.exists, state.create, lambda state=state: state.enter("c1")):
            with pytest.raises(ConfigError, match="newer undrift") as caught:
                cast(Callable[[], object], call)()
            assert "pip install --upgrade undrift" in caught.value.fix
        state.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_an_older_layout_is_brought_up_to_date_by_create(
    kind: str, postgres_url: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered stays; until then no writer enters."""

    def opened() -> State:
        if kind == "sqlite":
            return SqliteState(path, scope=SCOPE)
        return PostgresState(postgres_url, scope=SCOPE)

    before = opened()
    before.create()
    observe(before, "1", row("a", 7))
    before.close()
    newer_sqlite = ("ALTER TABLE undrift_owner_state ADD COLUMN more TEXT",)
    newer_postgres = ("ALTER TABLE {owner_state} ADD COLUMN more text",)
    monkeypatch.setattr(_sqlite_layout, "VERSIONS", [*_sqlite_layout.VERSIONS, newer_sqlite])
    monkeypatch.setattr(_pg_layout, "VERSIONS", [*_pg_layout.VERSIONS, newer_postgres])
    state = opened()
    assert state.exists()
    with pytest.raises(ConfigError, match="older undrift"):
        state.enter("c1")
    state.create()
    state.create()
    state.enter("c1")
    assert note_of(state, "1").entities[KIND, "a"].version == 7
    assert any("more" in statement for statement in state.ddl())
    state.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_somebody_elses_tables_are_refused(kind: str, postgres_url: str, path: Path) -> None:
    """Nothing is created between them."""
    state: State
    if kind == "sqlite":
        path.parent.mkdir()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE undrift_owner_state (mine TEXT)")
            connection.commit()
        state = SqliteState(path, scope=SCOPE)
    else:
        run(postgres_url, "CREATE SCHEMA undrift", "CREATE TABLE undrift.owner_state (mine text)")
        state = PostgresState(postgres_url, scope=SCOPE)
    for call in (state.exists, state.create):
        with pytest.raises(ConfigError, match="Something else lies"):
            call()
    state.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_the_printed_statements_create_a_state_that_works(
    kind: str, postgres_url: str, path: Path
) -> None:
    """A DBA runs them; undrift adds the row of its scope."""
    state: State
    if kind == "sqlite":
        path.parent.mkdir()
        state = SqliteState(path, scope=SCOPE)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            for statement in state.ddl():
                connection.execute(statement)
    else:
        state = PostgresState(postgres_url, scope=SCOPE)
        run(postgres_url, *state.ddl())
    assert not state.exists()
    state.create()
    state.enter("c1")
    observe(state, "1", row("a"))
    assert state.exists()
    state.close()
