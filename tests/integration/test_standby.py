"""A real standby as the source: good for looking, refused for writing, and the same source."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from support.outages import PUBLISHED, WANTED, drift_away
from support.postgres import PostgresServer
from support.sides import World, postgres_world
from support.standby import StandbyServer
from undrift import ConfigError, Outcome, Undrift
from undrift.errors import StateMismatch
from undrift.ledger import Ledger


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresServer]:
    """A server of this module's own, since a standby follows all of one."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="module")
def standby(primary: PostgresServer) -> Iterator[StandbyServer]:
    """What follows it."""
    with StandbyServer(primary) as server:
        yield server


@pytest.fixture
def world(primary: PostgresServer, standby: StandbyServer) -> Iterator[World]:
    """A world in one database of the primary, in sync, which the standby shows."""
    with primary.database() as url, postgres_world(url) as world:
        world.bring_in_sync(PUBLISHED)
        standby.catch_up()
        try:
            yield world
        finally:
            standby.go_on()


def standby_url(world: World, primary: PostgresServer, standby: StandbyServer) -> str:
    """The world's source as the standby shows it."""
    return world.source_url.replace(f":{primary.port}/", f":{standby.port}/")


@pytest.fixture
def looking(world: World, primary: PostgresServer, standby: StandbyServer) -> Undrift:
    """An `Undrift` whose source is the standby, and whose store is on the primary."""
    return world.open(source_url=standby_url(world, primary, standby))


def ledger(sides: Undrift) -> Ledger:
    """The right to write, not yet asked for."""
    return sides._connections.states.looking(sides._connections.sides())


def test_standby_serves_check_and_search(
    world: World, standby: StandbyServer, looking: Undrift
) -> None:
    """They say of the standby what they say of the primary once it has caught up."""
    assert {status.outcome for status in looking.check_all()} == {Outcome.IN_SYNC}
    hits = looking.search("1", "Kept 1").hits
    assert hits == world.sides.search("1", "Kept 1").hits
    assert hits

    drift_away(world)
    standby.catch_up()

    assert [(s.owner_id, s.outcome) for s in looking.check_all()] == [
        (s.owner_id, s.outcome) for s in world.sides.check_all()
    ]
    assert looking.check("1").outcome is Outcome.DRIFT


def test_sync_and_watch_from_a_standby_that_lags_are_refused(
    world: World, standby: StandbyServer, looking: Undrift
) -> None:
    """What it does not show yet stays in the store."""
    standby.hold_back()
    world.put_all(WANTED)
    assert all(report.is_in_sync for report in world.sides.sync_owners(list(WANTED)))
    before = world.store.records()

    assert looking.check("1").outcome is Outcome.DRIFT
    for refused in (
        lambda: looking.sync("1"),
        lambda: list(looking.sync_all(force=True)),
        lambda: looking.watch(is_over=lambda: True),
    ):
        with pytest.raises(ConfigError, match="standby"):
            refused()

    assert world.store.records() == before
    standby.go_on()
    standby.catch_up()
    assert looking.check("1").outcome is Outcome.IN_SYNC


def test_claim_made_from_the_primary_holds_on_the_standby(
    world: World, primary: PostgresServer, standby: StandbyServer, looking: Undrift
) -> None:
    """Both are one source; after a failover nobody has to adopt anything."""
    direct = world.sides._connections.sides().source.describe()
    shown = looking._connections.sides().source.describe()

    assert (direct.is_standby, shown.is_standby) == (False, True)
    assert shown.identity == direct.identity != ""
    assert ledger(looking).note(["1"]).standing == ledger(world.sides).note(["1"]).standing


def test_control_claim_does_not_hold_for_another_database_of_the_primary(
    world: World, primary: PostgresServer
) -> None:
    """The same tables elsewhere are another source."""
    with (
        primary.database() as url,
        World(url, world.store_url) as other,
        pytest.raises(StateMismatch),
    ):
        ledger(other.sides).note(["1"])


def test_standby_is_one(standby: StandbyServer) -> None:
    """It refuses every write by itself."""
    with (
        psycopg.connect(standby.admin_url) as connection,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        connection.execute("CREATE TABLE here ()")
