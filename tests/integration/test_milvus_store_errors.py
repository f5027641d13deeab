"""The Milvus store where things are not as they should be: logins, collections, outages, sizes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count
from threading import Thread
from typing import Any

import grpc
import numpy as np
import pytest
from pymilvus import DataType, MilvusClient
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc

from support.behind.milvus import BehindMilvus
from support.milvus_server import PASSWORD, USER, MilvusServer
from undrift.errors import ConfigError, DimensionMismatch, StoreUnavailable, WriteFailed
from undrift.ports import Record, Vectors
from undrift.state import Claim, ClaimableStore
from undrift.stores import _milvus_wire, open_store
from undrift.stores._milvus_address import parse
from undrift.stores._milvus_reading import PAGE_RECORDS, WINDOW
from undrift.stores._milvus_records import fields_of
from undrift.testing._store_fixtures import enumerated, similarities, stamps_of
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

Opened = Callable[..., ClaimableStore]

_NUMBERS = count(1)


@pytest.fixture
def opened() -> Iterator[Opened]:
    """A function that opens a store, which is closed behind the test."""
    with ExitStack() as stores:

        def open_at(location: str, **options: Any) -> ClaimableStore:  # noqa: ANN401
            store = open_store(location, **options)
            stores.callback(store.close)
            assert isinstance(store, ClaimableStore)
            return store

        yield open_at


@pytest.fixture
def location(milvus_server: MilvusServer) -> str:
    return milvus_server.new_location()


@pytest.fixture
def filled(location: str, opened: Opened) -> ClaimableStore:
    """A store with three records of owner 1."""
    store = opened(location)
    store.create(DIMENSION)
    store.publish(records(3), [])
    return store


@pytest.fixture
def client(milvus_server: MilvusServer) -> Iterator[MilvusClient]:
    """Milvus's own client."""
    with closing(client_of(milvus_server)) as client:
        yield client


def client_of(server: MilvusServer) -> MilvusClient:
    return MilvusClient(uri=server.address, user=USER, password=PASSWORD, timeout=60.0)


def assert_calls_fail(store: ClaimableStore, error: type[Exception], match: str) -> None:
    """Every way to look or write says that it could not, none that there is nothing."""
    for call in (
        store.describe,
        store.claim,
        lambda: store.create(DIMENSION),
        lambda: list(store.stamps(["1"])),
        lambda: list(store.stamps_by_vector_id([record().stamp.vector_id])),
        lambda: list(store.tombstones(["1"])),
        lambda: store.unmanaged(["1"]),
        lambda: store.owners(None, 10),
        lambda: store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5),
        lambda: store.publish(records(1), []),
        lambda: store.bury([tombstone(record(), version=2)]),
        lambda: store.collect([tombstone(record(), version=2)]),
        lambda: store.put_claim(Claim("s", "id", 1), replacing=None),
    ):
        with pytest.raises(error, match=match) as raised:
            call()
        assert PASSWORD not in str(raised.value)
        assert "hidden-word" not in f"{raised.value!r}{raised.value.__cause__!r}"


# --- addresses


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "hidden-word@host",
        "hidden-word@host:19530/",
        "hidden-word@host:19530/a/b",
        "hidden-word@host:19530/with-dash",
        "hidden-word@host:19530/1st",
        "hidden-word@host:19530/" + "a" * 256,
        "hidden-word@host:port/records",
        "hidden-word@host:99999/records",
        "hidden-word@:19530/records",
        "user:hidden-word@host/records?database=",
        "user:hidden-word@host/records?database=a-b",
        "user:hidden-word@host/records?unknown=x",
    ],
)
def test_a_malformed_address_is_refused_without_showing_the_password(rest: str) -> None:
    with pytest.raises(ConfigError, match="malformed") as raised:
        open_store(f"milvus+http://{rest}")
    assert "hidden-word" not in str(raised.value)


def test_an_address_says_where_the_collection_is() -> None:
    """And nothing that is printed of it says who asks."""
    plain = parse("milvus+http://host/records")
    assert (plain.target, plain.database, plain.login) == ("host:19530", "default", "")
    assert plain.location == "milvus+http://host:19530/records"
    named = parse("MILVUS+HTTPS://a%40b:hidden%3Aword@[::1]/records?database=other")
    assert (named.target, named.database, named.is_encrypted) == ("[::1]:443", "other", True)
    assert named.login == "YUBiOmhpZGRlbjp3b3Jk"
    assert parse("milvus+https://token@host/records").login == "dG9rZW4="
    assert "YUBi" not in repr(named)
    assert named.location == "milvus+https://[::1]:443/records?database=other"


@pytest.mark.parametrize("login", ["root:hidden-word@", "nobody:hidden-word@", "hidden-word@", ""])
def test_a_wrong_login_is_named(milvus_server: MilvusServer, opened: Opened, login: str) -> None:
    assert_calls_fail(opened(milvus_server.url("any", login=login)), ConfigError, "the password")


def test_a_user_without_rights_is_told_which(
    milvus_server: MilvusServer,
    filled: ClaimableStore,
    location: str,
    client: MilvusClient,
    opened: Opened,
) -> None:
    user = f"reader_{next(_NUMBERS)}"
    client.create_user(user, "hidden-word", timeout=30)
    theirs = opened(location.replace(f"{USER}:{PASSWORD}", f"{user}:hidden-word"))
    with pytest.raises(ConfigError, match=r"may not do that.*grant"):
        list(theirs.stamps(["1"]))
    client.drop_user(user, timeout=30)


def test_a_database_that_is_not_there_is_no_empty_store(location: str, opened: Opened) -> None:
    assert_calls_fail(opened(f"{location}?database=absent"), ConfigError, "database does not exist")


def test_a_collection_of_another_database_is_another_one(
    location: str, filled: ClaimableStore, client: MilvusClient, opened: Opened
) -> None:
    name = f"base_{next(_NUMBERS)}"
    client.create_database(name, timeout=30)
    theirs = opened(f"{location}?database={name}")
    assert not theirs.describe().exists
    theirs.create(DIMENSION)
    theirs.publish(records(1), [])
    assert enumerated(theirs, "1") == stamps_of(records(1))
    assert enumerated(filled, "1") == stamps_of(records(3))


def test_a_server_without_tls_is_not_asked_in_the_clear(
    milvus_server: MilvusServer, opened: Opened
) -> None:
    store = opened(milvus_server.url("any").replace("+http:", "+https:"))
    with pytest.raises(ConfigError, match="certificate"):
        store.describe()


@pytest.mark.parametrize("target", ["127.0.0.1:1", "no-such-host.invalid:19530"])
def test_a_server_that_is_not_there_is_unavailable(opened: Opened, target: str) -> None:
    assert_calls_fail(opened(f"milvus+http://{target}/any"), StoreUnavailable, "did not answer")


def test_another_program_at_the_address_is_named(opened: Opened) -> None:
    """A web server speaks no HTTP/2."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            store = opened(f"milvus+http://127.0.0.1:{server.server_port}/any")
            with pytest.raises(ConfigError, match="is not Milvus"):
                store.describe()
        finally:
            server.shutdown()
            thread.join()


# --- servers of other versions


class OlderServer(milvus_pb2_grpc.MilvusServiceServicer):  # type: ignore[misc]
    """As 2.2 answers; what it does not know is unimplemented here too."""

    def DescribeCollection(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
        status = common_pb2.Status(error_code=4, reason="can't find collection")
        return milvus_pb2.DescribeCollectionResponse(status=status)

    def GetVersion(self, request: Any, context: Any) -> Any:  # noqa: ANN401, N802
        return milvus_pb2.GetVersionResponse(version="v2.2.16")


@contextmanager
def older_server() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(OlderServer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"milvus+http://127.0.0.1:{port}/any"
    finally:
        server.stop(None).wait()


def test_a_server_that_is_too_old_is_told_before_anything_is_created(opened: Opened) -> None:
    with older_server() as location:
        store = opened(location)
        assert not store.describe().exists
        with pytest.raises(ConfigError, match=r"too old.*v2\.2\.16.*2\.3 or later"):
            store.create(DIMENSION)


def test_a_call_that_the_server_does_not_know_means_that_it_is_too_old() -> None:
    with (
        older_server() as url,
        closing(_milvus_wire.Milvus(parse(url))) as milvus,
        pytest.raises(ConfigError, match=r"too old.*2\.3 or later"),
    ):
        milvus.delete('vector_id in ["a"]')


# --- collections


def test_another_programs_collection_is_refused(
    client: MilvusClient, location: str, opened: Opened
) -> None:
    """Before a record of it is touched."""
    name = location.rpartition("/")[2]
    client.create_collection(name, dimension=DIMENSION, timeout=60)
    client.insert(name, [{"id": 1, "vector": [1.0] * DIMENSION}], timeout=30)
    assert_calls_fail(opened(location), ConfigError, "belongs to another program")


@pytest.mark.parametrize(
    ("metric", "kind", "match"),
    [("L2", "FLAT", "another distance"), ("IP", "FLAT", "another"), ("COSINE", "HNSW", "every")],
)
def test_an_index_that_misleads_is_refused(
    client: MilvusClient, location: str, opened: Opened, metric: str, kind: str, match: str
) -> None:
    create_without_index(client, location)
    add_index(client, location, metric, kind)
    assert_calls_fail(opened(location), ConfigError, match)


def test_a_collection_that_was_half_created_is_finished(
    client: MilvusClient, location: str, opened: Opened
) -> None:
    """By whoever creates it the next time, wherever the first one was killed."""
    create_without_index(client, location)
    store = opened(location)
    assert not store.describe().exists
    assert store.claim() is None
    store.create(DIMENSION)
    store.publish(records(2), [])
    assert enumerated(store, "1") == stamps_of(records(2))


def test_a_collection_that_was_released_is_loaded_again(
    filled: ClaimableStore, client: MilvusClient, location: str
) -> None:
    """To read is all that is wanted of it; nothing says that it was to stay out of memory."""
    client.release_collection(location.rpartition("/")[2], timeout=60)
    assert enumerated(filled, "1") == stamps_of(records(3))


def test_a_collection_that_was_dropped_is_not_created_by_a_write(
    filled: ClaimableStore, client: MilvusClient, location: str
) -> None:
    client.drop_collection(location.rpartition("/")[2], timeout=60)
    assert not filled.describe().exists
    for call in (
        lambda: filled.publish(records(1), []),
        lambda: list(filled.stamps(["1"])),
        lambda: filled.put_claim(Claim("s", "id", 1), replacing=None),
    ):
        with pytest.raises(ConfigError, match=r"not been created.*undrift sync"):
            call()
    assert not filled.describe().exists


def test_vectors_of_another_dimension_are_refused(filled: ClaimableStore) -> None:
    other = record("other", dimension=DIMENSION * 2)
    with pytest.raises(WriteFailed, match=r"32 components.*have 16.*name another collection"):
        filled.publish([other], [deletion(records(3)[0])])
    with pytest.raises(DimensionMismatch, match="name another collection"):
        filled.search("1", vectors(1, dimension=32)[0], model=MODEL, kinds=None, limit=1)
    assert enumerated(filled, "1") == stamps_of(records(3))


def create_without_index(client: MilvusClient, location: str) -> None:
    """What `create` has done before the index of the vectors."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    kinds = {
        "VarChar": DataType.VARCHAR,
        "Int64": DataType.INT64,
        "Int8": DataType.INT8,
        "FloatVector": DataType.FLOAT_VECTOR,
    }
    for field in fields_of(DIMENSION):
        size = {"dim": field.size} if field.kind == "FloatVector" else {"max_length": field.size}
        options = size if field.size else {}
        schema.add_field(field.name, kinds[field.kind], is_primary=field.is_primary, **options)
    client.create_collection(location.rpartition("/")[2], schema=schema, timeout=60)


def add_index(client: MilvusClient, location: str, metric: str, kind: str) -> None:
    params = client.prepare_index_params()
    of_kind = {"M": 8, "efConstruction": 64} if kind == "HNSW" else {}
    params.add_index("embedding", index_type=kind, metric_type=metric, params=of_kind)
    client.create_index(location.rpartition("/")[2], params, timeout=60)


# --- sizes


@pytest.mark.parametrize("text", ["a" * 65_536, "é" * 32_768, "\N{PARTY POPPER}" * 16_384])
def test_a_text_that_no_field_holds_is_refused_by_name(filled: ClaimableStore, text: str) -> None:
    """Nothing is cut off, and nothing of its batch is written."""
    bad = record("bad", text=text)
    with pytest.raises(WriteFailed, match=r"the text of 'experience:bad' of user '1' has 65,53"):
        filled.publish([record("good"), bad], [deletion(records(3)[0])])
    assert enumerated(filled, "1") == stamps_of(records(3))


def test_the_longest_text_comes_back_and_a_longer_one_may_be_left_out(
    filled: ClaimableStore, location: str, opened: Opened
) -> None:
    longest = record("longest", text="é" * 32_767)
    filled.publish([longest], [])
    assert longest.embedding is not None
    (match,) = filled.search("1", longest.embedding, model=MODEL, kinds=None, limit=1)
    assert match.text == longest.text
    longer = record("longer", text="é" * 100_000, metadata={"a": "b" * 100_000})
    opened(location, keep_text=False).publish([longer], [])
    assert longer.stamp in enumerated(filled, "1")


def test_ids_that_no_field_holds_are_refused(filled: ClaimableStore) -> None:
    long = "x" * 65_536
    for write in (record(long), record("a", owner_id=long), record("a", kind=long)):
        with pytest.raises(WriteFailed, match="65,536 bytes"):
            filled.publish([write], [])
        with pytest.raises(WriteFailed, match="65,536 bytes"):
            filled.bury([tombstone(write, version=1)])
    assert enumerated(filled, "1") == stamps_of(records(3))


# --- what a search compares


class Large:
    """A store with an owner that has more records than Milvus answers at once."""

    def __init__(self, location: str, store: ClaimableStore, written: list[Record]) -> None:
        self.location = location
        self.store = store
        self.written = written


@pytest.fixture(scope="module")
def large(milvus_server: MilvusServer) -> Iterator[Large]:
    location = milvus_server.new_location()
    store = open_store(location)
    assert isinstance(store, ClaimableStore)
    with closing(store):
        store.create(DIMENSION)
        written = records(WINDOW + PAGE_RECORDS // 2 + 7)
        for start in range(0, len(written), 5_000):
            store.publish(written[start : start + 5_000], [])
        yield Large(location, store, written)


def found(large: Large, query: Vectors, limit: int) -> list[str]:
    matches = large.store.search("1", query, model=MODEL, kinds=None, limit=limit)
    return [match.stamp.vector_id for match in matches]


def test_a_search_may_ask_for_more_than_milvus_answers_at_once(large: Large) -> None:
    query = vectors(1, seed=3)[0]
    expected = [id_ for _, id_ in similarities(large.written, query)]
    for limit in (WINDOW + 1, len(expected) + 1):
        ids = found(large, query, limit)
        assert len(ids) == min(limit, len(expected))
        assert set(ids) == set(expected[:limit])


def test_what_is_sealed_on_disk_is_searched_as_exactly(
    large: Large, milvus_server: MilvusServer
) -> None:
    """A segment that no longer grows is indexed; its zero vectors still show what they are."""
    lost, buried = large.written[0], large.written[1]
    with BehindMilvus(large.location, ()) as behind, closing(client_of(milvus_server)) as client:
        behind.lose_vector(lost.stamp.vector_id)
        large.store.bury([tombstone(buried, version=2)])
        client.flush(large.location.rpartition("/")[2], timeout=120)
        for query in vectors(3, seed=8):
            expected = [id_ for _, id_ in similarities(large.written[2:], query)]
            assert found(large, query, 10) == expected[:10]
        stamps = enumerated(large.store, "1")
        assert stamps == stamps_of(large.written[2:]) | {lost.stamp._replace(model="")}
        back = [of._replace(stamp=of.stamp._replace(version=3)) for of in (lost, buried)]
        large.store.publish(back, [])
        assert enumerated(large.store, "1") == stamps_of([*back, *large.written[2:]])
        large.store.publish([], [deletion(of) for of in back])
        large.store.publish([lost, buried], [])


def test_records_in_several_segments_are_all_read(
    filled: ClaimableStore, client: MilvusClient, location: str
) -> None:
    """Where those of one segment end, an answer goes on with those of the next."""
    written = records(2_000, owner_id="2")
    filled.publish(written, [])
    client.flush(location.rpartition("/")[2], timeout=120)
    again = [of._replace(stamp=of.stamp._replace(version=2)) for of in written[::3]]
    filled.publish(again, [])
    expected = {of.stamp.vector_id: of.stamp for of in (*written, *again)}
    assert enumerated(filled, "2") == set(expected.values())
    assert set(filled.stamps_by_vector_id(list(expected))) == set(expected.values())


def test_no_search_of_another_program_finds_a_tombstone(
    filled: ClaimableStore, client: MilvusClient, location: str
) -> None:
    """Nor a claim: their vectors are zeros, which have no direction."""
    kept, gone, _ = records(3)
    filled.bury([tombstone(gone, version=2)])
    assert filled.put_claim(Claim("s", "id", 1), replacing=None)
    name = location.rpartition("/")[2]
    options = {"limit": 100, "consistency_level": "Strong", "timeout": 30}
    (hits,) = client.search(name, data=[kept.embedding], output_fields=["deleted"], **options)
    assert len(hits) == 2
    assert {hit["entity"]["deleted"] for hit in hits} == {0}
    read = client.query(name, filter="deleted >= 0", output_fields=["deleted"], **options)
    assert sorted(row["deleted"] for row in read) == [0, 0, 1, 2]


# --- restamps


def test_a_restamp_takes_the_vector_along_that_is_stored(
    filled: ClaimableStore, location: str
) -> None:
    """Milvus writes a record whole; what is not sent would be lost."""
    standing = records(3)[1]
    filled.publish([restamp(standing, version=2, metadata={"a": "b"})], [])
    with BehindMilvus(location, ()) as behind:
        row = behind.records()[standing.stamp.vector_id]
    assert standing.embedding is not None
    assert row["embedding"] == standing.embedding.tobytes()
    assert (row["version"], row["metadata"]) == (2, '{"a":"b"}')


# --- outages


def test_a_killed_server_is_unavailable_and_loses_nothing(
    filled: ClaimableStore, milvus_server: MilvusServer, location: str
) -> None:
    """What was acknowledged is there when it runs again, read at once, bit for bit."""
    awkward = np.zeros(DIMENSION, dtype=np.float32)
    awkward[:4] = [1 / 3, -0.0, 1e-45, 9e18]
    written = [*records(500, owner_id="2"), record("odd", owner_id="2", embedding=awkward)]
    filled.publish(written, [])
    filled.bury([tombstone(records(3)[0], version=2)])
    assert filled.put_claim(Claim("s", "id", 1), replacing=None)
    milvus_server.kill()
    assert_calls_fail(filled, StoreUnavailable, "did not answer")
    milvus_server.start()
    assert enumerated(filled, "1", "2") == stamps_of([*records(3)[1:], *written])
    assert list(filled.tombstones(["1"])) == [tombstone(records(3)[0], version=2)]
    assert filled.claim() == Claim("s", "id", 1)
    with BehindMilvus(location, ()) as behind:
        row = behind.records()[written[-1].stamp.vector_id]
    assert row["embedding"] == awkward.tobytes()


def test_a_server_that_hangs_is_unavailable(
    filled: ClaimableStore, milvus_server: MilvusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not waited for without end."""
    monkeypatch.setattr(_milvus_wire, "CALL_SECONDS", 0.5)
    milvus_server.pause()
    try:
        assert_calls_fail(filled, StoreUnavailable, "did not answer in time")
    finally:
        milvus_server.go_on()
    monkeypatch.undo()
    assert enumerated(filled, "1") == stamps_of(records(3))
