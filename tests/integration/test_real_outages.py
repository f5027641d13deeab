"""Servers that are stopped, files that are damaged, rows that are hidden: nothing is deleted.

As `test_outages`, with faults that come from the databases themselves.
"""

from __future__ import annotations

import gc
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import psycopg
import pytest
import sqlalchemy as sa

from support.drift import fleet
from support.files import damage
from support.naive import NaiveWriter
from support.outages import (
    ORPHAN,
    PUBLISHED,
    WANTED,
    Fragile,
    Outage,
    assert_only_stale_was_deleted,
    drift_away,
    publish,
    ran,
    stale_in,
    truly_in_sync,
)
from support.postgres import PostgresServer, with_login
from support.sides import NAMESPACE, ORIGIN, CountingEmbedder, World, sqlite_world
from undrift import ConfigError, IncompleteRead, Outcome, SourceUnavailable, Undrift
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.sources.database import Database
from undrift.stores import open_store

# --- a server that is stopped in the middle ---------------------------------------------------


def stop_in_the_middle(server: PostgresServer, world: World, side: str, step: str) -> None:
    """Stop the server just before *step* of a fleet sync, and look at what was left."""
    drift_away(world)
    fragile = Fragile(world)
    stale = []

    def stop() -> None:
        stale.append(stale_in(world))
        server.stop("fast")

    outage = fragile.fail(side, Outage(None, step, begin=stop))
    run = ran(fragile.sides.sync_all)
    server.start()

    assert outage.began
    assert run.told
    assert_only_stale_was_deleted(world)
    assert stale_in(world) == stale[0]
    claimed = run.owners(Outcome.IN_SYNC)
    assert truly_in_sync(world, claimed) == claimed
    assert all(report.is_in_sync for report in world.sides.sync_all())
    world.assert_store_holds(WANTED)


@pytest.mark.parametrize(
    "step",
    [
        "source.describe",
        "source.owner_pages next",
        "source.read",
        "source.read next",
        "source.present",
    ],
)
def test_source_server_that_stops_in_the_middle_deletes_nothing(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path, step: str
) -> None:
    """The vectors are elsewhere and could be deleted; they are not."""
    with World(postgres_url, f"sqlite:///{tmp_path / 'vectors.db'}") as world:
        stop_in_the_middle(postgres_server, world, "source", step)


@pytest.mark.parametrize(
    "step",
    [
        "store.stamps",
        "store.stamps next",
        "store.unmanaged",
        "store.owners",
        "store.publish",
        "store.publish returned",
    ],
)
def test_store_server_that_stops_in_the_middle_is_told(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path, step: str
) -> None:
    """The source still answers; what became of the last write is not known, and said so."""
    with World(f"sqlite:///{tmp_path / 'app.db'}", postgres_url) as world:
        stop_in_the_middle(postgres_server, world, "store", step)


def test_connection_that_breaks_between_two_rows_leaves_no_cursor_open(
    postgres_server: PostgresServer, postgres: World
) -> None:
    """A cursor that nobody closed makes psycopg warn, and here a warning is an error."""
    publish(postgres)
    source = open_source(postgres.source_url, ORIGIN, Renderer(ORIGIN).fields)
    contents = source.read(list(PUBLISHED))
    next(contents)
    postgres_server.stop()

    with pytest.raises(SourceUnavailable):
        list(contents)
    del contents
    gc.collect()

    source.close()


def test_connection_that_breaks_while_it_asks_leaves_no_cursor_open(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    """The server goes away before the first row; SQLAlchemy then closes no cursor by itself."""
    database = Database(postgres_url)

    def ask() -> None:
        with database.snapshot() as connection:
            postgres_server.stop()
            list(database.stream(connection, sa.select(sa.literal(1))))

    with pytest.raises(SourceUnavailable):
        ask()
    gc.collect()

    database.close()


def test_stopped_server_is_unknown_for_every_owner(
    postgres_server: PostgresServer, postgres: World
) -> None:
    """A named owner is unknown, a fleet run ends: neither in sync nor drift."""
    publish(postgres)
    postgres_server.stop()

    run = ran(postgres.sides.check_all)
    named = ran(lambda: [postgres.sides.check("1")])
    synced = ran(lambda: [postgres.sides.sync("1")])

    assert (run.outcomes, named.outcomes, synced.outcomes) == ({}, {}, {})
    assert run.error
    assert named.error
    assert synced.error


# --- a file that is damaged -------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Callable[[str], World]]:
    """A function that damages one file of a fleet in sync, and gives the fleet again.

    Half of the file's pages are overwritten, the roots of its tables and indexes are not: reading
    begins well and breaks off in the middle.
    """
    documents = fleet(150, Random(3))
    with sqlite_world(tmp_path) as intact:
        intact.bring_in_sync(documents)
    with sqlite_world(tmp_path, create=False) as world:

        def damaged(name: str) -> World:
            damage(tmp_path / name)
            return world

        yield damaged


@pytest.mark.parametrize("name", ["app.db", "vectors.db"])
def test_damaged_file_is_unknown_and_nothing_is_written(
    many: Callable[[str], World], tmp_path: Path, name: str
) -> None:
    """Neither a check nor a sync takes what it could read for all there is."""
    world = many(name)
    vectors = written_vectors(tmp_path, name)

    checked, synced = ran(world.sides.check_all), ran(world.sides.sync_all)
    world.close()

    for run in (checked, synced):
        assert run.told
        assert set(run.outcomes.values()) <= {Outcome.UNKNOWN}
    assert written_vectors(tmp_path, name) == vectors


def written_vectors(folder: Path, damaged: str) -> bytes | list[str]:
    """The store's file; without the state that lies beside the vectors, where it can be read."""
    file = folder / "vectors.db"
    if damaged == file.name:
        return file.read_bytes()
    with closing(sqlite3.connect(file)) as database:
        return [line for line in database.iterdump() if '"vectors"' in line or "embed" in line]


def test_control_damaged_source_taken_for_what_it_shows_deletes_owners(
    many: Callable[[str], World], tmp_path: Path
) -> None:
    """The naive sync, over the same damaged file, removes owners that it could not read."""
    world = many("app.db")
    before = len(world.store.identities())
    writer = naive(world)

    for owner in range(1, 151):
        writer.sync(str(owner))

    assert len(world.store.identities()) < before


@pytest.mark.parametrize("name", ["app.db", "vectors.db"])
def test_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, name: str) -> None:
    """A wrong path is a mistake of the configuration; what lies there is not overwritten."""
    with sqlite_world(tmp_path) as world:
        publish(world)
    for leftover in tmp_path.glob(f"{name}-*"):
        leftover.unlink()
    (tmp_path / name).write_text("Dear diary, this is not a database. " * 99)

    with sqlite_world(tmp_path, create=False) as world:
        with pytest.raises(ConfigError):
            world.sides.check("1")
        with pytest.raises(ConfigError):
            list(world.sides.sync_all())

    assert (tmp_path / name).read_text().startswith("Dear diary")


# --- a source that hides something ------------------------------------------------------------


@pytest.fixture
def limited(postgres_server: PostgresServer, postgres: World) -> tuple[World, Undrift]:
    """A fleet in sync, and an `Undrift` whose role a policy hides an owner from.

    The role may write the vectors: what it believes to be gone, it could delete.
    """
    publish(postgres)
    postgres_server.create_role("limited", "secret")
    for statement in (
        "GRANT SELECT ON profiles TO limited",
        "GRANT USAGE ON SCHEMA undrift TO limited",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA undrift TO limited",
        "ALTER TABLE profiles ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON profiles TO limited USING (user_id <> 4)",
    ):
        postgres.source.run(statement)
    url = with_login(postgres.source_url, "limited", "secret")
    return postgres, postgres.open(source_url=url, store_url=url)


def test_role_that_is_shown_part_of_the_rows_deletes_nothing(
    limited: tuple[World, Undrift],
) -> None:
    """Row level security is noticed, for the hidden owner and for the others."""
    world, sides = limited

    runs = [
        ran(sides.check_all),
        ran(sides.sync_all),
        ran(lambda: [sides.check(owner) for owner in PUBLISHED]),
        ran(lambda: [sides.sync(owner) for owner in PUBLISHED]),
    ]

    assert all(set(run.outcomes.values()) <= {Outcome.UNKNOWN} for run in runs)
    assert all(run.told for run in runs)
    assert isinstance(sides.check(ORPHAN).error, IncompleteRead)
    world.assert_store_holds(PUBLISHED)


def test_control_policy_hides_rows_from_a_plain_reader_without_an_error(
    limited: tuple[World, Undrift],
) -> None:
    """What PostgreSQL answers to whoever does not insist on everything."""
    world, _ = limited
    with psycopg.connect(with_login(world.source_url, "limited", "secret")) as connection:
        owners = connection.execute("SELECT user_id FROM profiles").fetchall()

    assert len(owners) == len(PUBLISHED) - 1


def test_store_that_hides_rows_from_the_role_is_refused(
    postgres_server: PostgresServer, postgres: World
) -> None:
    """A policy on the vectors could hide a stale record: nobody is called in sync, or missing."""
    drift_away(postgres)
    postgres_server.create_role("limited", "secret")
    for statement in (
        "GRANT SELECT ON profiles TO limited",
        "GRANT USAGE ON SCHEMA undrift TO limited",
        "GRANT SELECT ON undrift.vectors TO limited",
        "ALTER TABLE undrift.vectors ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY mine ON undrift.vectors TO limited USING (text NOT LIKE 'Gone%')",
    ):
        postgres.source.run(statement)
    url = with_login(postgres.source_url, "limited", "secret")
    sides = postgres.open(source_url=url, store_url=url)

    with pytest.raises(ConfigError, match="hides rows"):
        sides.check("1")
    with pytest.raises(ConfigError, match="hides rows"):
        list(sides.sync_all())

    assert_only_stale_was_deleted(postgres)
    assert len(stale_in(postgres)) == 6


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE profiles RENAME TO profiles_old",
        'ALTER TABLE profiles RENAME COLUMN user_id TO "ownerId"',
        "ALTER TABLE profiles RENAME COLUMN filtered_data TO document",
    ],
)
@pytest.mark.parametrize("step", ["source.owner_pages next", "source.read", "source.present"])
def test_migration_in_the_middle_of_a_run_deletes_nothing(
    new_world: Callable[[], World], change: str, step: str
) -> None:
    """A table or column that is gone is a mistake to mend, and not an empty source."""
    world = new_world()
    drift_away(world)
    fragile = Fragile(world)
    outage = fragile.fail("source", Outage(None, step, begin=lambda: world.source.run(change)))

    with pytest.raises(ConfigError):
        list(fragile.sides.sync_all())
    with pytest.raises(ConfigError):
        fragile.sides.sync("1")

    assert outage.began
    assert_only_stale_was_deleted(world)
    assert len(stale_in(world)) == 6


def naive(world: World) -> NaiveWriter:
    renderer = Renderer(ORIGIN)
    return NaiveWriter(
        open_source(world.source_url, ORIGIN, renderer.fields),
        open_store(world.store_url, namespace=NAMESPACE),
        renderer,
        CountingEmbedder(),
    )
