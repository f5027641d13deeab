"""What a check of everybody reads, and that it goes on without its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

import psycopg
import pytest

from support.layouts import Document, document, experience
from support.postgres import PostgresServer, with_login
from support.rendering import note_rendered
from support.scanning import (
    NO_MEMOS,
    assert_true,
    checked,
    forget_memos,
    memory_table,
    warm,
)
from support.sides import World, drift_of
from support.standby import StandbyServer
from undrift import Undrift
from undrift.errors import ConfigError, StateUnavailable
from undrift.events import CheckStarted, SyncEvent
from undrift.memory import FleetMemory
from undrift.model import Read
from undrift.scan.options import DEFAULT_CHECK, CheckOptions
from undrift.states import _pg_layout, _sqlite_layout

PASSWORD = "pass-word"
TWENTY: dict[str, Document] = {
    str(owner): document(experience("exp_1", f"Baker {owner}"), skills=["SQL"])
    for owner in range(1, 21)
}


@dataclass
class Reads:
    """What was asked of both sides.

    Attributes:
        rendered: owners whose content was rendered.
        read: owners whose content was read in full, for a look or to be remembered.
        listed: owners whose records were listed one by one.
        digested: owners of whom the source, and the store, computed a digest.
    """

    rendered: list[str] = field(default_factory=list)
    read: list[str] = field(default_factory=list)
    listed: list[str] = field(default_factory=list)
    digested: list[str] = field(default_factory=list)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Callable[[Undrift], Reads]:
    """A function that writes down what an `Undrift` reads from now on."""

    def recorded(sides: Undrift) -> Reads:
        found = Reads(rendered=note_rendered(monkeypatch))

        def note(side: object, name: str, into: list[str]) -> None:
            inner = getattr(side, name)

            def call(owners: Sequence[str], **options: object) -> Iterable[object]:
                into.extend(owners)
                answer: Iterable[object] = inner(owners, **options)
                return answer

            monkeypatch.setattr(side, name, call)

        source, store = sides._connections.source, sides._connections.store
        note(source, "read", found.read)
        note(source, "read_digested", found.read)
        note(source, "digests", found.digested)
        note(store, "stamps", found.listed)
        note(store, "digests", found.digested)
        return found

    return recorded


def head(sides: Undrift, options: CheckOptions = DEFAULT_CHECK) -> Read:
    """What a check of everybody says at its beginning that it reads."""
    events: list[SyncEvent] = []
    next(sides.check_all(CheckOptions(memos=options.memos, listener=events.append)))
    (started,) = events
    assert isinstance(started, CheckStarted)
    return started.read


# --- what is read ---------------------------------------------------------------------------------


def test_nothing_is_rendered_or_sent_when_nothing_has_changed(
    world: World, reads: Callable[[Undrift], Reads]
) -> None:
    """Both sides compute a digest of everybody, in every run."""
    world.bring_in_sync(TWENTY)
    warm(world)
    found = reads(world.sides)
    statuses = checked(world.sides)
    assert (found.rendered, found.read, found.listed) == ([], [], [])
    assert sorted(found.digested) == sorted([*TWENTY, *TWENTY])
    assert {status.read for status in statuses.values()} == {Read.DIGESTS}
    assert head(world.sides) is Read.DIGESTS


def test_only_owners_that_differ_are_read_in_full(
    world: World, reads: Callable[[Undrift], Reads]
) -> None:
    """One whose source was edited is rendered again, one whose store has drifted is, too."""
    world.bring_in_sync(TWENTY)
    warm(world)
    world.put(3, document(experience("exp_1", "Brewer")))
    world.store.delete(world.vector_id(5, "experience:exp_1"))
    found = reads(world.sides)
    statuses = checked(world.sides)
    assert {owner for owner, status in statuses.items() if drift_of(status)} == {"3", "5"}
    assert set(found.read) == set(found.rendered) == set(found.listed) == {"3", "5"}
    assert {o for o, status in statuses.items() if status.read is Read.FULL} == {"3", "5"}


def test_an_edit_that_was_synced_is_rendered_once_more(
    world: World, reads: Callable[[Undrift], Reads]
) -> None:
    """By the first check behind it, and never again."""
    world.bring_in_sync(TWENTY)
    warm(world)
    world.put(3, document(experience("exp_1", "Brewer")))
    world.sides.sync(3)
    found = reads(world.sides)
    assert all(status.is_in_sync for status in checked(world.sides).values())
    assert found.rendered == ["3"]
    checked(world.sides)
    assert found.rendered == ["3"]


def test_without_memos_everybody_is_rendered_and_records_stay_where_they_are(
    world: World, reads: Callable[[Undrift], Reads]
) -> None:
    """What is remembered is not asked for, and the store's side still is a digest."""
    world.bring_in_sync(TWENTY)
    warm(world)
    found = reads(world.sides)
    statuses = checked(world.sides, NO_MEMOS)
    assert sorted(found.rendered) == sorted(TWENTY)
    assert found.listed == []
    assert {status.read for status in statuses.values()} == {Read.FULL}
    assert head(world.sides, NO_MEMOS) is Read.FULL


def test_another_mapping_has_memos_of_its_own(world: World) -> None:
    """What content rendered to by other templates says nothing."""
    world.bring_in_sync(TWENTY)
    warm(world)
    mapping = world.layout.mapping
    entities = tuple(replace(spec, text="{{ title }}!") for spec in mapping.entities)
    other = replace(mapping, entities=entities)
    with Undrift(
        source=world.source_url, store=world.store_url, embedder=world.embedder, mapping=other
    ) as sides:
        found = checked(sides)
        assert {drift_of(status).keys() >= {"changed"} for status in found.values()} == {True}
    assert all(status.is_in_sync for status in assert_true(world).values())


# --- without a memory -----------------------------------------------------------------------------


def drift_a_little(world: World) -> None:
    """Let two owners differ, behind the memos' back."""
    world.put(3, document(experience("exp_1", "Brewer")))
    world.store.set(world.vector_id(5, "experience:exp_1"), fingerprint="0" * 32)


def assert_finds_it(world: World, sides: Undrift, *, read: Read = Read.FULL) -> None:
    """The two are found, and nobody else; *read* is what the others' statuses say."""
    found = assert_true(world, sides=sides)
    assert {owner for owner, status in found.items() if not status.is_in_sync} == {"3", "5"}
    assert {status.read for owner, status in found.items() if owner not in ("3", "5")} == {read}


def test_check_without_a_state_reads_everything(world: World) -> None:
    """Nobody can say what anything rendered to; nothing is created."""
    world.bring_in_sync(TWENTY)
    drift_a_little(world)
    prefix = "undrift." if world.source.is_postgres else "undrift_"
    is_postgres = world.store.database.is_postgres
    tables = [
        row["name"]
        for row in world.store.database.rows(
            "SELECT tablename AS name FROM pg_tables WHERE schemaname = 'undrift' "
            "AND tablename <> 'vectors' AND tablename NOT LIKE 'store%'"
            if is_postgres
            else "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'undrift_%'"
        )
    ]
    assert tables
    for name in tables:
        cascade = " CASCADE" if is_postgres else ""
        world.store.database.run(f"DROP TABLE {prefix if is_postgres else ''}{name}{cascade}")
    with closing(world.open()) as sides:
        assert_finds_it(world, sides)
        assert head(sides) is Read.FULL


def test_check_with_a_state_of_an_older_undrift_reads_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no memory until the next sync."""
    with monkeypatch.context() as older:
        older.setattr(_sqlite_layout, "VERSIONS", _sqlite_layout.VERSIONS[:1])
        older.setattr(_pg_layout, "VERSIONS", _pg_layout.VERSIONS[:1])
        world.bring_in_sync(TWENTY)
    drift_a_little(world)
    with closing(world.open()) as sides:
        assert_finds_it(world, sides)
        assert head(sides) is Read.FULL
        with pytest.raises(ConfigError) as caught:
            checked(sides, CheckOptions(resume=True))
        assert "undrift sync" in caught.value.fix


def test_role_that_may_only_look_checks_without_memos(
    postgres: World, postgres_server: PostgresServer
) -> None:
    """Of both sides it may read what there is, and of the state nothing."""
    postgres.bring_in_sync(TWENTY)
    warm(postgres)
    drift_a_little(postgres)
    postgres_server.create_role("looker", PASSWORD)
    with psycopg.connect(postgres.source_url, autocommit=True) as connection:
        connection.execute("GRANT USAGE ON SCHEMA undrift TO looker")
        connection.execute("GRANT SELECT ON profiles, undrift.vectors TO looker")
    url = with_login(postgres.source_url, "looker", PASSWORD)
    looker = postgres.open(source_url=url, store_url=url)
    assert_finds_it(postgres, looker)
    assert head(looker) is Read.FULL


def test_role_that_may_read_the_memory_and_not_write_it_uses_what_there_is(
    postgres: World, postgres_server: PostgresServer
) -> None:
    """Whom nobody remembers is read in full; nothing can be remembered of them."""
    postgres.bring_in_sync(TWENTY)
    warm(postgres)
    memos = memory_table(postgres, "state_memo")
    postgres.store.database.run(f"DELETE FROM {memos} WHERE owner_id = '7'")
    before = postgres.store.database.rows(f"SELECT owner_id, wanted FROM {memos} ORDER BY 1")
    drift_a_little(postgres)
    postgres_server.create_role("reader", PASSWORD)
    with psycopg.connect(postgres.source_url, autocommit=True) as connection:
        connection.execute("GRANT USAGE ON SCHEMA undrift TO reader")
        connection.execute("GRANT SELECT ON profiles TO reader")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA undrift TO reader")
    url = with_login(postgres.source_url, "reader", PASSWORD)
    found = assert_true(postgres, sides=postgres.open(source_url=url, store_url=url))
    assert {owner for owner, status in found.items() if not status.is_in_sync} == {"3", "5"}
    assert {o for o, status in found.items() if status.read is Read.FULL} == {"3", "5", "7"}
    assert (
        postgres.store.database.rows(f"SELECT owner_id, wanted FROM {memos} ORDER BY 1") == before
    )


class Failing:
    """A memory whose calls fail from some call on."""

    def __init__(self, inner: FleetMemory, *, after: int, error: Exception) -> None:
        self._inner = inner
        self._left = after
        self._error = error

    def __getattr__(self, name: str) -> object:
        inner = getattr(self._inner, name)

        def call(*arguments: object) -> object:
            self._left -= 1
            if self._left < 0:
                raise self._error
            return inner(*arguments)

        return call


@pytest.mark.parametrize("calls", [0, 1, 2, 3, 5])
def test_memory_that_fails_in_mid_run_is_done_without(
    sqlite: World, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be remembered is rendered, and what was said stands."""
    monkeypatch.setattr("undrift.scan.feed.PAGE_OWNERS", 4)
    sqlite.bring_in_sync(TWENTY)
    warm(sqlite)
    drift_a_little(sqlite)
    state = sqlite.sides._connections.states.state
    failing = Failing(
        state.memory,  # type: ignore[attr-defined]
        after=calls,
        error=StateUnavailable("The state hung up", why="it did.", fix="wait"),
    )
    monkeypatch.setattr(type(state), "memory", property(lambda self: failing))
    found = assert_true(sqlite, CheckOptions(saves_progress=True))
    assert {owner for owner, status in found.items() if not status.is_in_sync} == {"3", "5"}


# --- on a standby ---------------------------------------------------------------------------------


def test_standby_serves_a_check_by_digests() -> None:
    """The state and the store on the primary remember; the source is read where it is."""
    with PostgresServer() as primary, StandbyServer(primary) as standby, primary.database() as url:
        world = World(url, url)
        with world:
            world.bring_in_sync(TWENTY)
            warm(world)
            drift_a_little(world)
            standby.catch_up()
            elsewhere = url.replace(f":{primary.port}/", f":{standby.port}/")
            looking = world.open(source_url=elsewhere)
            assert_finds_it(world, looking, read=Read.DIGESTS)
            everything = world.open(source_url=elsewhere, store_url=elsewhere)
            assert_finds_it(world, everything, read=Read.DIGESTS)
            forget_memos(world)
            standby.catch_up()
            assert_finds_it(world, everything)
            assert_finds_it(world, looking)
            assert_finds_it(world, looking, read=Read.DIGESTS)


@pytest.mark.parametrize("mode", ["EXCLUSIVE", "ACCESS EXCLUSIVE"])
def test_a_check_does_not_wait_for_whoever_has_locked_its_memory(
    postgres: World, mode: str
) -> None:
    """Neither to read memos nor to write them; the answer is the same."""
    postgres.bring_in_sync(TWENTY)
    warm(postgres)
    postgres.put("3", document(experience("exp_1", "Carpenter")))
    table = memory_table(postgres, "state_memo")
    with psycopg.connect(postgres.store_url) as other:
        other.execute(f"LOCK TABLE {table} IN {mode} MODE".encode())
        statuses = checked(postgres.open())
    assert [owner for owner, status in statuses.items() if not status.is_in_sync] == ["3"]
    assert len(statuses) == len(TWENTY)
