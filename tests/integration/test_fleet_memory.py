"""The memory of whole fleets where things are not as they should be: layouts, rights, outages."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Protocol

import psycopg
import pytest

from support.pooler import needs_pooler, pooled
from support.postgres import PostgresServer, with_login
from support.sides import NAMESPACE, Database, World
from undrift.errors import ConfigError, StateUnavailable
from undrift.memory import FleetMemory
from undrift.state import FencedState, State, TransactionalStore
from undrift.states import (
    _pg_layout,
    _pg_memory,
    _pg_session,
    _sqlite_file,
    _sqlite_layout,
    open_state,
)
from undrift.stores import open_store
from undrift.testing._state_concurrency import THREADS, at_once
from undrift.testing._state_fixtures import KIND, claimed, note_of, observe, row
from undrift.testing._state_memory import KEY, RUN, calls_of, memo, memory_of

SCOPE = "default@undrift.vectors"
PASSWORD = "pass-word"
MEMORY_TABLES = ("state_memo", "state_run", "state_result")


class OpenState(Protocol):
    """Opens a state, which is closed behind the test."""

    def __call__(self, url: str, scope: str = SCOPE) -> FencedState: ...


class Place:
    """Where a state is, and raw access to its tables."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._is_postgres = url.startswith("postgres")

    def table(self, name: str) -> str:
        """One of the state's tables, as SQL names it."""
        return ("undrift." if self._is_postgres else "undrift_") + name

    def run(self, statement: str) -> None:
        """Run *statement* as whoever owns everything."""
        with closing(Database(self.url)) as database:
            database.run(statement)


@pytest.fixture
def opened() -> Iterator[OpenState]:
    states: list[State] = []

    def open_(url: str, scope: str = SCOPE) -> FencedState:
        state = open_state(url, scope=scope)
        states.append(state)
        return state

    yield open_
    for state in states:
        state.close()


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place without a state."""
    if request.param == "sqlite":
        return Place(f"sqlite:///{tmp_path}/state.db")
    return Place(request.getfixturevalue("postgres_url"))


@pytest.fixture
def older_undrift(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """An undrift that knew of no memory, until its end."""
    with monkeypatch.context() as patch:
        patch.setattr(_sqlite_layout, "VERSIONS", _sqlite_layout.VERSIONS[:1])
        patch.setattr(_pg_layout, "VERSIONS", _pg_layout.VERSIONS[:1])
        yield patch


def assert_works(memory: FleetMemory) -> None:
    """It remembers a memo and a run."""
    memory.remember({"1": memo("a")}, KEY)
    assert memory.memos(["1", "2"], KEY) == {"1": memo("a")}
    begun = memory.begin_run(RUN, "0")
    assert memory.advance(RUN, begun.run_id, "1", ["a", "b"])
    assert list(memory.results(RUN, begun.run_id)) == ["a", "b"]
    memory.end_run(RUN, begun.run_id)
    assert memory.run(RUN) is None


def assert_every_call_fails(memory: FleetMemory, error: type[Exception], match: str) -> None:
    """None of them says that nothing is remembered."""
    for call in calls_of(memory):
        with pytest.raises(error, match=match) as caught:
            call()
        assert PASSWORD not in str(caught.value)


# --- layouts


def test_a_state_of_an_older_undrift_gets_its_memory_by_create(
    place: Place, opened: OpenState, older_undrift: pytest.MonkeyPatch
) -> None:
    """What it remembers stays; until then there is no memory, and it is no stranger's."""
    before = opened(place.url)
    before.create()
    before.enter("c1")
    observe(before, "1", row("a", 7))
    before.mark(["1"])
    older_undrift.undo()

    state = opened(place.url)
    assert state.exists()
    assert note_of(state, "1").entities[KIND, "a"].version == 7
    for call in calls_of(memory_of(state)):
        with pytest.raises(ConfigError, match="of an older undrift") as caught:
            call()
        assert "undrift sync" in caught.value.fix
    standing = state.standing()
    state.create()
    state.create()
    assert_works(memory_of(state))
    assert state.standing() == standing
    assert note_of(state, "1").entities[KIND, "a"].version == 7
    assert claimed(state) == ["1"]


def test_the_older_undrift_refuses_a_state_that_was_brought_up_to_date(
    place: Place, opened: OpenState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says which of the two is to be upgraded."""
    opened(place.url).create()
    monkeypatch.setattr(_sqlite_layout, "VERSIONS", _sqlite_layout.VERSIONS[:1])
    monkeypatch.setattr(_pg_layout, "VERSIONS", _pg_layout.VERSIONS[:1])
    with pytest.raises(ConfigError, match="newer undrift"):
        opened(place.url).exists()


def test_a_sync_brings_the_state_of_an_older_undrift_up_to_date(
    world: World, opened: OpenState, older_undrift: pytest.MonkeyPatch
) -> None:
    """As its errors say; nothing is embedded for it."""
    world.bring_in_sync({"1": {"skills": ["Go"]}})
    older_undrift.undo()
    with closing(open_store(world.store_url, namespace=NAMESPACE)) as store:
        assert isinstance(store, TransactionalStore)
        url, scope = store.state_address()
    memory = memory_of(opened(url, scope))
    with pytest.raises(ConfigError, match="of an older undrift"):
        memory.run(RUN)
    with closing(world.open()) as newer:
        assert [report.is_in_sync for report in newer.sync_all()] == [True]
    assert_works(memory)
    assert world.embedder.texts == []


@pytest.mark.parametrize("name", MEMORY_TABLES)
def test_a_state_that_lacks_a_table_of_its_memory_is_refused(
    place: Place, opened: OpenState, name: str
) -> None:
    """Nobody but a stranger takes one away; an older layout has none of them."""
    state = opened(place.url)
    state.create()
    place.run(f"DROP TABLE {place.table(name)}")
    for call in (state.exists, state.create):
        with pytest.raises(ConfigError, match=f"Something else lies.*(\n.*)*{name}"):
            call()


def test_a_strangers_table_in_the_memorys_place_stops_the_migration(
    place: Place, opened: OpenState, older_undrift: pytest.MonkeyPatch
) -> None:
    """Nothing of the new layout is left behind."""
    opened(place.url).create()
    older_undrift.undo()
    stranger = place.table("state_result")
    place.run(f"CREATE TABLE {stranger} (mine INTEGER)")
    state = opened(place.url)
    with pytest.raises(ConfigError, match="Something else lies"):
        state.create()
    place.run(f"DROP TABLE {stranger}")
    with pytest.raises(ConfigError, match="of an older undrift"):
        memory_of(state).run(RUN)
    state.create()
    assert_works(memory_of(state))


def test_a_memory_that_is_wiped_loses_nothing_else(place: Place, opened: OpenState) -> None:
    """It begins anew."""
    state = opened(place.url)
    state.create()
    observe(state, "1", row("a"))
    memory = memory_of(state)
    memory.remember({"1": memo("a")}, KEY)
    begun = memory.begin_run(RUN, "")
    memory.advance(RUN, begun.run_id, "1", ["a"])
    for name in MEMORY_TABLES:
        place.run(f"DELETE FROM {place.table(name)}")
    assert memory.memos(["1"], KEY) == {}
    assert memory.run(RUN) is None
    assert not memory.advance(RUN, begun.run_id, "2", ["b"])
    assert list(memory.results(RUN, begun.run_id)) == []
    assert_works(memory)
    assert note_of(state, "1").observation == 1


# --- rights


def test_a_role_without_rights_hears_what_the_memory_needs(
    postgres_server: PostgresServer, postgres_url: str, opened: OpenState
) -> None:
    """With exactly that, it works; who only checks may go on without."""
    opened(postgres_url).create()
    postgres_server.create_role("memory_user", PASSWORD)
    memory = memory_of(opened(with_login(postgres_url, "memory_user", PASSWORD)))
    assert_every_call_fails(memory, ConfigError, "may not (read|write)")
    with pytest.raises(ConfigError) as caught:
        memory.remember({"1": memo("a")}, KEY)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(caught.value.fix.partition(": ")[2].encode())
    assert_works(memory)
    assert "entity_state" not in caught.value.fix


def test_rights_on_the_older_tables_alone_are_none_on_the_memory(
    postgres_server: PostgresServer, postgres_url: str, opened: OpenState
) -> None:
    """Such a role goes on writing vectors; what it lacks is told by name."""
    opened(postgres_url).create()
    postgres_server.create_role("memory_less", PASSWORD)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("GRANT USAGE ON SCHEMA undrift TO memory_less")
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA undrift TO memory_less")
        for name in MEMORY_TABLES:
            connection.execute(f"REVOKE ALL ON undrift.{name} FROM memory_less".encode())
    state = opened(with_login(postgres_url, "memory_less", PASSWORD))
    state.create()
    state.enter("c1")
    state.mark(["1"])
    assert claimed(state) == ["1"]
    assert_every_call_fails(memory_of(state), ConfigError, "permission denied for table state_")


def test_a_memory_that_may_only_be_read_can_be_asked(place: Place, opened: OpenState) -> None:
    """As on a standby, or of a file opened with mode=ro; whoever writes hears why not."""
    writer = opened(place.url)
    writer.create()
    memory = memory_of(writer)
    memory.remember({"1": memo("a")}, KEY)
    begun = memory.begin_run(RUN, "")
    memory.advance(RUN, begun.run_id, "1", ["a"])
    option = "options=-c%20default_transaction_read_only%3Don"
    only = memory_of(opened(f"{place.url}?{'mode=ro' if 'sqlite' in place.url else option}"))
    assert only.memos(["1"], KEY) == {"1": memo("a")}
    assert only.run(RUN) is not None
    assert list(only.results(RUN, begun.run_id)) == ["a"]
    for write in (
        lambda: only.remember({"1": memo("b")}, KEY),
        lambda: only.forget_memos(["1"]),
        lambda: only.begin_run(RUN, ""),
        lambda: only.advance(RUN, begun.run_id, "2", []),
        lambda: only.end_run(RUN, begun.run_id),
    ):
        with pytest.raises(ConfigError, match=r"read-only|may not be used like that"):
            write()
    assert list(memory.results(RUN, begun.run_id)) == ["a"]


# --- outages


def test_the_memory_of_a_server_that_is_down_is_unknown(
    postgres_server: PostgresServer, opened: OpenState
) -> None:
    postgres_server.stop()
    memory = memory_of(opened(postgres_server.url("any", password=PASSWORD)))
    assert_every_call_fails(memory, StateUnavailable, "did not answer")


def test_results_that_break_off_are_no_end_of_results(
    postgres_server: PostgresServer, postgres_url: str, opened: OpenState
) -> None:
    """Whoever reads them hears of it, and may read them again."""
    state = opened(postgres_url)
    state.create()
    memory = memory_of(state)
    begun = memory.begin_run(RUN, "")
    expected = [str(number) for number in range(1_000)]
    memory.advance(RUN, begun.run_id, "1", expected)
    results = memory.results(RUN, begun.run_id)
    assert next(results) == "0"
    postgres_server.restart()
    with pytest.raises(StateUnavailable):
        list(results)
    assert list(memory.results(RUN, begun.run_id)) == expected


def test_a_locked_file_keeps_nobody_from_reading_its_memory(
    tmp_path: Path, opened: OpenState, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be saved is an outage."""
    monkeypatch.setattr(_sqlite_file, "BUSY_SECONDS", 0.01)
    state = opened(f"sqlite:///{tmp_path}/state.db")
    state.create()
    memory = memory_of(state)
    memory.remember({"1": memo("a")}, KEY)
    begun = memory.begin_run(RUN, "")
    with closing(sqlite3.connect(tmp_path / "state.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateUnavailable, match="locked"):
            memory.advance(RUN, begun.run_id, "1", ["a"])
        assert memory.memos(["1"], KEY) == {"1": memo("a")}
        other.execute("ROLLBACK")
    found = memory.run(RUN)
    assert found is not None
    assert found.position == ""
    assert list(memory.results(RUN, begun.run_id)) == []


@needs_pooler
def test_a_memory_works_through_a_pooler(postgres_url: str, opened: OpenState) -> None:
    """Nothing of a session outlasts a transaction."""
    with pooled(postgres_url) as url:
        state = opened(url)
        state.create()
        assert_works(memory_of(state))
        state.close()


@pytest.mark.parametrize("is_ordered", [True, False], ids=["ordered", "control"])
def test_writers_of_memos_never_wait_for_each_other_in_a_circle(
    postgres_url: str, opened: OpenState, monkeypatch: pytest.MonkeyPatch, *, is_ordered: bool
) -> None:
    """Nothing has to be made again; a memory that locks in the order it is told does deadlock."""
    monkeypatch.setattr(_pg_session, "_RETRIES", 0)
    if not is_ordered:
        monkeypatch.setattr(_pg_memory, "ordered", list)
        for name in ("_REMEMBER", "_HOLD"):
            statement: str = getattr(_pg_memory, name)
            in_any_order = re.sub(r"ORDER BY owner_id( COLLATE .C.)?", "", statement)
            monkeypatch.setattr(_pg_memory, name, in_any_order)
    url = f"{postgres_url}?options=-c%20deadlock_timeout%3D20ms"
    memories = [memory_of(opened(url)) for _ in range(THREADS)]
    opened(postgres_url).create()
    owners = [f"o{number}" for number in range(300)]

    def work(number: int) -> int:
        mine, refused = owners if number % 2 else owners[::-1], 0
        for turn in range(8):
            try:
                memories[number].remember({owner: memo(f"{number}, {turn}") for owner in mine}, KEY)
                if number == turn:
                    memories[number].forget_memos(mine)
            except StateUnavailable:
                refused += 1
        return refused

    assert (sum(at_once(work)) == 0) == is_ordered
