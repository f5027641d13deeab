"""The LanceDB store in object storage: by S3's protocol, as a folder behaves by the file system's.

The server is a small one of our own. What it stands for is what a database relies on: whole writes
that are seen at once, and one winner among several writers of a new key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from support.behind.lancedb import rows_of, vector_at
from support.lance_writers import Writer, entities_of, newest_of, rounds
from support.s3_server import BUCKET, KEY_ID, SECRET, S3Server
from undrift.errors import ConfigError, StoreUnavailable
from undrift.state import Claim
from undrift.stores import open_store
from undrift.stores.lancedb import LanceDbStore
from undrift.testing.builders import (
    DIMENSION,
    MODEL,
    deletion,
    record,
    records,
    restamp,
    tombstone,
    vectors,
)

WRITERS = 2
ROUNDS = 3


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server with an empty bucket, to which the environment leads."""
    with S3Server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def location(server: S3Server) -> str:
    del server
    return f"lancedb+s3://{BUCKET}/a folder/db?table=records"


@pytest.fixture
def store(location: str) -> Iterator[LanceDbStore]:
    store = open_store(location)
    assert isinstance(store, LanceDbStore)
    yield store
    store.close()


def test_looking_creates_nothing_there(store: LanceDbStore, server: S3Server) -> None:
    assert not store.describe().exists
    assert store.claim() is None
    with pytest.raises(ConfigError, match="not been created"):
        list(store.stamps(["1"]))
    assert server.objects == {}


def test_records_are_written_replaced_deleted_and_found(
    store: LanceDbStore, location: str, server: S3Server
) -> None:
    store.create(DIMENSION)
    kept, restamped, replaced, deleted, buried = records(5)
    store.publish([kept, restamped, replaced, deleted, buried], [])
    new = restamp(restamped, version=2, metadata={"title": "new"})
    newer = replaced._replace(stamp=replaced.stamp._replace(version=2))
    late = kept._replace(stamp=kept.stamp._replace(version=0))
    store.publish([new, newer, late], [deletion(deleted)])
    store.bury([tombstone(buried, version=2)])
    expected = {kept.stamp, new.stamp, newer.stamp}
    for reader in (store, open_store(location)):
        assert set(reader.stamps(["1"])) == expected
        found = reader.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=10)
        assert {match.stamp for match in found} == expected
    assert list(store.tombstones(["1"])) == [tombstone(buried, version=2)]
    assert restamped.embedding is not None
    assert vector_at(location, restamped.stamp.vector_id).tobytes() == (
        restamped.embedding.tobytes()
    )
    assert all(key.startswith("a folder/db/records") for key in server.objects)


def test_a_claim_is_replaced_only_while_it_is_the_one_that_was_seen(store: LanceDbStore) -> None:
    store.create(DIMENSION)
    first, second = Claim("source", "state", 1), Claim("source", "state", 2)
    assert store.put_claim(first, replacing=None)
    assert not store.put_claim(second, replacing=None)
    assert store.put_claim(second, replacing=first)
    assert not store.put_claim(first, replacing=first)
    assert store.claim() == second


def test_processes_that_write_the_same_new_records_agree_on_the_newest(
    store: LanceDbStore, location: str
) -> None:
    store.create(DIMENSION)
    writers = [Writer(location, "write", number) for number in range(WRITERS)]
    assert len(list(rounds(writers, ROUNDS))) == ROUNDS
    newest = {id_: newest_of(WRITERS, n) for n in range(ROUNDS) for id_ in entities_of(n)}
    rows = rows_of(location)
    assert {row["entity_id"]: row["version"] for row in rows} == newest
    assert max(Counter(row["vector_id"] for row in rows).values()) == 1


# --- errors


def test_another_key_is_refused(location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another-key")
    store = open_store(location)
    for call in (store.describe, lambda: store.create(DIMENSION)):
        with pytest.raises(ConfigError, match=r"refused the login.*InvalidAccessKeyId") as caught:
            call()
        assert "AWS_ACCESS_KEY_ID" in caught.value.fix
        assert SECRET not in str(caught.value)
        assert KEY_ID not in str(caught.value)


def test_a_bucket_that_is_not_there_is_no_store_not_yet_created(server: S3Server) -> None:
    del server
    store = open_store("lancedb+s3://another-bucket/db")
    for call in (store.describe, lambda: store.create(DIMENSION)):
        with pytest.raises(ConfigError, match="no such bucket"):
            call()


def test_an_outage_is_no_empty_store_and_passes(store: LanceDbStore, server: S3Server) -> None:
    store.create(DIMENSION)
    store.publish(records(3), [])
    server.outage = True
    for call in (
        store.describe,
        lambda: list(store.stamps(["1"])),
        lambda: store.publish([record(version=2)], []),
    ):
        with pytest.raises(StoreUnavailable, match=r"did not answer.*ServiceUnavailable"):
            call()
    server.outage = False
    assert {stamp.version for stamp in store.stamps(["1"])} == {1}
