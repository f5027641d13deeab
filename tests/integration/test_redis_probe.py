"""What is found when a Redis store is looked at before a sync."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.redis_server import RedisServer
from undrift.findings import Status
from undrift.stores.probe import RecordCount, StoreProbe, probe_store
from undrift.stores.redis import RedisStore
from undrift.testing.builders import DIMENSION, MODEL, records, tombstone


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server whose settings a test may change."""
    with RedisServer() as server:
        yield server


def statuses(probe: StoreProbe) -> dict[str, Status]:
    return {finding.name: finding.status for finding in probe.findings}


def test_a_server_that_keeps_what_it_is_given_is_well(server: RedisServer) -> None:
    """And looking creates nothing."""
    probe = probe_store(server.url, dimension=DIMENSION)
    assert probe.exists is False
    assert statuses(probe) == dict.fromkeys(
        ("store.server", "store.class", "store.durability"), Status.OK
    )
    assert server.indexes() == []


def test_records_are_counted_by_namespace_model_and_kind(server: RedisServer) -> None:
    """Tombstones are not."""
    for namespace in ("default", "other"):
        store = RedisStore(server.url, namespace=namespace)
        store.create(DIMENSION)
        written = records(3, namespace=namespace)
        store.publish(written, [])
        store.bury([tombstone(written[0], version=2)])
        store.close()
    probe = probe_store(server.url, dimension=DIMENSION)
    assert (probe.exists, probe.dimension) == (True, DIMENSION)
    assert probe.counts == [
        RecordCount(namespace, MODEL, "experience", 2) for namespace in ("default", "other")
    ]


def test_a_server_that_forgets_is_told_with_what_mends_it(server: RedisServer) -> None:
    """Both ways, and the lines that are given mend both."""
    server.run("CONFIG", "SET", "appendonly", "no")
    server.run("CONFIG", "SET", "maxmemory", "1gb")
    server.run("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    told = {
        finding.name: finding
        for finding in probe_store(server.url, dimension=None).findings
        if finding.status is Status.WARNING
    }
    assert set(told) == {"store.durability", "store.eviction"}
    for finding in told.values():
        assert finding.fix is not None
        server.run(*finding.fix.partition(",")[0].split())
    probe = probe_store(server.url, dimension=None)
    assert Status.WARNING not in statuses(probe).values()


def test_a_user_without_rights_is_told_which(server: RedisServer) -> None:
    server.run("ACL", "SETUSER", "app", "on", ">pass-word", "+@connection")
    url = server.url.replace("redis://", "redis://app:pass-word@")
    (finding,) = probe_store(url, dimension=None).findings
    assert finding.status is Status.PROBLEM
    assert finding.fix is not None
    assert "ACL SETUSER app" in finding.fix
