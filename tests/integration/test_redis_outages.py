"""The Redis store while its server fails, starts, hurries or is asked too early.

An answer is whole or an error, never short; and what was acknowledged is there again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Event

import pytest

from support.cut_proxy import CutProxy
from support.redis_server import RedisServer
from undrift.errors import ConfigError, StoreUnavailable, UndriftError
from undrift.model import Stamp
from undrift.ports import Record
from undrift.stores import _redis_queries as queries
from undrift.stores._redis_layout import create_commands
from undrift.stores._redis_writing import ATOMIC_RECORDS
from undrift.stores.redis import RedisStore
from undrift.testing.builders import DIMENSION, MODEL, deletion, record, records, vectors
from undrift.testing.faults import call_at, raise_at

MANY = 12_000


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server of the test's own, which flushes its file before it acknowledges."""
    with RedisServer(durable=True) as server:
        yield server


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    """A store with three records of owner 1."""
    store = RedisStore(server.url)
    store.create(DIMENSION)
    store.publish(records(3), [])
    yield store
    store.close()


@pytest.fixture(scope="module")
def crowded(redis_server: RedisServer) -> Iterator[RedisStore]:
    """A store with so many records of one owner that a query takes a while; nobody changes it."""
    store = RedisStore(f"{redis_server.url}?index=crowded")
    store.create(DIMENSION)
    for start in range(0, MANY, 4_000):
        store.publish(records(MANY)[start : start + 4_000], [])
    yield store
    store.close()
    redis_server.start()
    redis_server.remove("crowded")


def enumerated(store: RedisStore, *owners: str) -> set[Stamp]:
    """The stamps that *store* enumerates; none of them twice."""
    found = list(store.stamps(owners))
    assert len(found) == len(set(found))
    return set(found)


def stamps_of(written: Sequence[Record]) -> set[Stamp]:
    """The stamps that *written* should leave in the store."""
    return {record.stamp for record in written}


def keys_found(server: RedisServer, store: RedisStore, milliseconds: int) -> object:
    """What the server itself says of owner 1's records, if it may take so long."""
    index = store._address.names.identities
    command = list(queries.keys_command(index, "@owner_id:{1}"))
    command[command.index("TIMEOUT") + 1] = str(milliseconds)
    answer = server.run(*command)
    assert isinstance(answer, dict)
    return answer


# --- time-outs and limits


@pytest.mark.parametrize("policy", ["return", "fail"])
def test_an_answer_that_takes_too_long_is_an_error(
    crowded: RedisStore,
    redis_server: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    policy: str,
) -> None:
    """Whatever the server is set to do then; by default it answers with what it has."""
    redis_server.run("FT.CONFIG", "SET", "ON_TIMEOUT", policy)
    monkeypatch.setattr(queries, "QUERY_MILLISECONDS", 1)
    monkeypatch.setattr(queries, "PART_RECORDS", 10 * MANY)
    try:
        for look in (
            lambda: list(crowded.stamps(["1"])),
            lambda: crowded.unmanaged(["1"]),
            lambda: crowded.owners(None, 10),
            lambda: crowded.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=MANY),
        ):
            with pytest.raises(StoreUnavailable, match="did not finish its answer in time"):
                look()
        if policy == "return":  # the control: nothing but a warning tells that it is not all
            found = keys_found(redis_server, crowded, 1)
            assert isinstance(found, dict)
            assert found[b"warning"]
            assert found[b"total_results"] < MANY
    finally:
        redis_server.run("FT.CONFIG", "SET", "ON_TIMEOUT", "return")


def test_the_servers_own_time_limit_does_not_matter(
    crowded: RedisStore, redis_server: RedisServer
) -> None:
    """Half a second by default, and here a millisecond."""
    redis_server.run("FT.CONFIG", "SET", "TIMEOUT", "1")
    try:
        assert len(list(crowded.stamps(["1"]))) == MANY
        assert crowded.unmanaged(["1"]) == {}
        assert crowded.owners(None, 10) == ["1"]
        found = crowded.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=50)
        assert len(found) == 50
    finally:
        redis_server.run("FT.CONFIG", "SET", "TIMEOUT", "500")


def test_limits_on_answers_are_told_and_cut_nothing(store: RedisStore, server: RedisServer) -> None:
    """Unlike a server's own answer, the control, which is silently short."""
    owners = [f"owner-{number}" for number in range(30)]
    store.publish([record(owner_id=owner, namespace="default") for owner in owners], [])
    server.run("FT.CONFIG", "SET", "MAXAGGREGATERESULTS", "10")
    server.run("FT.CONFIG", "SET", "MAXSEARCHRESULTS", "10")
    assert len(list(store.stamps(["1", *owners]))) == 33
    assert len(store.owners(None, 100)) == 31
    with pytest.raises(ConfigError, match=r"limits its answers.*found 30 and sent 10") as caught:
        store.unmanaged(owners)
    assert "MAXAGGREGATERESULTS" in caught.value.fix
    with pytest.raises(ConfigError, match="limits its answers") as caught:
        store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=11)
    assert "MAXSEARCHRESULTS" in caught.value.fix
    index = store._address.names.identities
    short = server.run(*queries.counts_command(index, "*", ["owner_id"]))
    assert isinstance(short, dict)
    assert (len(short[b"results"]), short[b"warning"]) == (10, [])


@pytest.mark.parametrize("damage", ["none", "removed", "unheard of"])
def test_large_answers_are_put_together_of_parts(
    store: RedisStore, server: RedisServer, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """Also where somebody took away what the records are parted by."""
    written = records(300) + records(300, owner_id="2")
    store.publish(written, [])
    for of in written[::7] if damage != "none" else []:
        key = store._address.names.prefix + of.stamp.vector_id
        command = ("HDEL", key, "part") if damage == "removed" else ("HSET", key, "part", "zz")
        assert server.run(*command) is not None
    monkeypatch.setattr(queries, "PART_RECORDS", 10)
    assert len(list(queries.in_parts("*", 600))) > 50
    assert enumerated(store, "1", "2") == stamps_of(written)
    assert store.owners(None, 10) == ["1", "2"]


# --- indexes that do not know everything yet


def rebuild(server: RedisServer, store: RedisStore) -> None:
    """Let the server build the index of identities once more, and do not wait for it."""
    names = store._address.names
    server.run("FT.DROPINDEX", names.identities)
    server.run(*create_commands(names, DIMENSION)[names.identities])


def test_an_index_that_is_being_built_is_waited_for(
    crowded: RedisStore, redis_server: RedisServer
) -> None:
    """The server itself, the control, shows what it knows so far."""
    rebuild(redis_server, crowded)
    early = keys_found(redis_server, crowded, 0)
    assert len(list(crowded.stamps(["1"]))) == MANY
    late = keys_found(redis_server, crowded, 0)
    assert _count(early) < _count(late) == MANY


def test_an_index_that_is_not_ready_in_time_is_an_error(
    crowded: RedisStore, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("undrift.stores._redis_reading.INDEXING_SECONDS", -1)
    rebuild(redis_server, crowded)
    for look in (
        lambda: list(crowded.stamps(["1"])),
        lambda: crowded.unmanaged(["1"]),
        lambda: crowded.owners(None, 10),
        lambda: crowded.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5),
    ):
        with pytest.raises(StoreUnavailable, match="still being built"):
            look()
    monkeypatch.undo()
    assert len(list(crowded.stamps(["1"]))) == MANY


def _count(answer: object) -> int:
    assert isinstance(answer, dict)
    return sum(int(result[b"extra_attributes"][b"n"]) for result in answer[b"results"])


# --- servers that end


@pytest.mark.parametrize("flushed", ["always", "everysec"])
def test_what_was_acknowledged_outlives_a_killed_server(
    server: RedisServer, store: RedisStore, flushed: str
) -> None:
    """With its connections, which the store opens again."""
    server.run("CONFIG", "SET", "appendfsync", flushed)
    for version in range(2, 12):
        store.publish(records(3, version=version), [])
        server.kill()
        server.start()
        assert enumerated(store, "1") == stamps_of(records(3, version=version))


def test_without_a_file_a_killed_server_loses_everything() -> None:
    """The control of the test above; the store says then that it is not there any more."""
    with RedisServer(settings={"appendonly": "no"}) as server:
        store = RedisStore(server.url)
        store.create(DIMENSION)
        store.publish(records(3), [])
        server.kill()
        server.start()
        assert not store.describe().exists
        store.close()


@pytest.mark.parametrize("failpoint", ["begun", "written", "deleted"])
def test_a_server_killed_within_a_publish_has_none_of_it(
    server: RedisServer, store: RedisStore, failpoint: str
) -> None:
    """The writer learns that it does not know; the next publish finishes."""
    with (
        call_at(f"store.publish.{failpoint}", server.kill),
        pytest.raises(StoreUnavailable, match="did not answer"),
    ):
        store.publish(records(2, version=2), [deletion(record("r2"))])
    server.start()
    assert enumerated(store, "1") == stamps_of(records(3))
    store.publish(records(2, version=2), [deletion(records(3)[2])])
    assert enumerated(store, "1") == stamps_of(records(2, version=2))


def test_a_server_killed_behind_a_commit_has_all_of_it(
    server: RedisServer, store: RedisStore
) -> None:
    with call_at("store.publish.committed", server.kill):
        store.publish(records(2, version=2), [deletion(records(3)[2])])
    server.start()
    assert enumerated(store, "1") == stamps_of(records(2, version=2))


def test_a_server_killed_at_any_moment_has_all_of_a_publish_or_none(
    server: RedisServer, store: RedisStore
) -> None:
    """Each writes 200 records and deletes the 200 of the one before, in one transaction."""

    def generation(number: int) -> list[Record]:
        return [record(f"{number}-{place}", owner_id="2") for place in range(200)]

    published = 0
    store.publish(generation(0), [])
    for _ in range(6):
        acknowledged = Event()

        def publish_until_it_fails(last: int, acknowledged: Event = acknowledged) -> int:
            with suppress(StoreUnavailable):
                while True:
                    gone = [deletion(of) for of in generation(last)]
                    store.publish(generation(last + 1), gone)
                    last += 1
                    acknowledged.set()
            return last

        with ThreadPoolExecutor(1) as thread:
            running = thread.submit(publish_until_it_fails, published)
            assert acknowledged.wait(30)
            server.kill()
            published = running.result()
        server.start()
        found = enumerated(store, "2")
        either = [stamps_of(generation(number)) for number in (published, published + 1)]
        assert found in either
        published += found == either[1]


def test_a_publish_too_large_for_one_transaction_deletes_nothing_before_all_is_written(
    store: RedisStore,
) -> None:
    written = records(2 * ATOMIC_RECORDS, version=2)
    gone = [deletion(of, version=2) for of in written[:10]]
    with raise_at("store.publish.written", InterruptedError()), pytest.raises(InterruptedError):
        store.publish(written, gone)
    assert enumerated(store, "1") == stamps_of(written)
    store.publish(written, gone)
    assert enumerated(store, "1") == stamps_of(written[10:])


def test_a_server_that_is_loading_shows_everything_or_nothing(
    server: RedisServer, store: RedisStore
) -> None:
    """From the moment it is started: an error, until all is there."""
    written = records(MANY, owner_id="many")
    store.publish(written, [])
    server.kill()
    server.launch()
    errors: list[UndriftError] = []
    while True:
        try:
            found = enumerated(store, "many")
        except StoreUnavailable as error:
            errors.append(error)
        else:
            break
    assert found == stamps_of(written)
    assert errors


def test_a_server_that_says_nothing_is_given_up(
    server: RedisServer, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is asked again when it does."""
    monkeypatch.setattr("undrift.stores._redis_sessions.ANSWER_SECONDS", 0.3)
    monkeypatch.setattr("undrift.stores._redis_sessions.CONNECT_SECONDS", 0.3)
    store.close()  # connections that are open have the time of before
    server.suspend()
    try:
        with pytest.raises(StoreUnavailable, match="did not answer"):
            list(store.stamps(["1"]))
        with pytest.raises(StoreUnavailable, match="did not answer"):
            store.publish(records(3, version=2), [])
    finally:
        server.resume()
    assert enumerated(store, "1") <= stamps_of(records(3)) | stamps_of(records(3, version=2))


def test_a_line_that_breaks_anywhere_makes_no_answer_shorter(
    server: RedisServer, store: RedisStore
) -> None:
    """Every look is cut at every 200th byte; it ends with an error, or with all there is."""
    looks: list[Callable[[RedisStore], object]] = [
        lambda store: enumerated(store, "1"),
        lambda store: list(store.owners(None, 10)),
        lambda store: store.unmanaged(["1", "2"]),
        lambda store: store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5),
    ]
    whole = [look(store) for look in looks]
    outcomes = set()
    for cut_after in range(100, 20_000, 200):
        with CutProxy(f"{server.url}?index=undrift", cut_after) as line:
            behind = RedisStore(line.url)
            for look, expected in zip(looks, whole, strict=True):
                try:
                    assert look(behind) == expected
                    outcomes.add("whole")
                except StoreUnavailable:
                    outcomes.add("error")
            behind.close()
    assert outcomes == {"whole", "error"}
