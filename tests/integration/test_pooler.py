"""PostgreSQL behind a pooler in transaction mode: each transaction may be on another connection."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import psycopg
import pytest

from support.layouts import document, experience
from support.pooler import needs_pooler, pooled
from support.sides import World
from undrift import Outcome, Undrift
from undrift.heal import NO_HEALING

pytestmark = needs_pooler

OWNERS = {
    str(n): document(experience("exp_1", f"Text {n}"), skills=["SQL", f"Skill {n}"])
    for n in range(1, 41)
}


@pytest.fixture
def address(postgres: World) -> Iterator[str]:
    """The world's database through a pooler with three connections."""
    with pooled(postgres.source_url) as url:
        yield url


def opened(world: World, address: str) -> Undrift:
    """Source, store and state, all of them through the pooler."""
    return Undrift(source=address, store=address, embedder=world.embedder, heal=NO_HEALING)


def test_control_a_sessions_settings_do_not_survive_the_pooler(address: str) -> None:
    """So that whoever relied on them would be found out here."""
    address = address.replace("+psycopg", "")
    with ExitStack() as stack:
        connections = [
            stack.enter_context(psycopg.connect(address, autocommit=True, prepare_threshold=None))
            for _ in range(6)
        ]
        for number, connection in enumerate(connections):
            connection.execute(f"SET statement_timeout = '{number + 1}h'")
        found = [
            connection.execute("SHOW statement_timeout").fetchone() for connection in connections
        ]
    assert found != [(f"{number + 1}h",) for number in range(6)]


def test_everything_goes_through_a_pooler(postgres: World, address: str) -> None:
    """Sync, check, search, triggers and a watch."""
    postgres.put_all(OWNERS)
    with opened(postgres, address) as sides:
        assert all(report.is_in_sync for report in sides.sync_all())
        assert all(status.is_in_sync for status in sides.check_all())
        assert sides.search("1", "Text 1").hits
        sides.triggers.install()
        changed = document(experience("exp_1", "Another text"))
        postgres.put("7", changed)
        looks = iter(range(1_000))

        def is_over() -> bool:
            return sides.check("7").is_in_sync or next(looks) > 500

        sides.watch(is_over=is_over)
    postgres.assert_store_holds(OWNERS | {"7": changed})


def test_many_workers_share_three_connections(postgres: World, address: str) -> None:
    """No lock is left behind on a connection that somebody else goes on with."""
    postgres.put_all(OWNERS)

    def sync(_: int) -> set[Outcome]:
        with opened(postgres, address) as sides:
            return {report.outcome for report in sides.sync_all()}

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(sync, range(6)))
    assert outcomes == [{Outcome.IN_SYNC}] * 6
    postgres.assert_store_holds(OWNERS)
    assert len(postgres.embedder.texts) <= 1.02 * len(set(postgres.embedder.texts)) + len(OWNERS)
