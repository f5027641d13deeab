"""The Redis store where things are not as they should be: addresses, servers, rights, indexes."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from support.redis_line import RedisLine, make_certificate
from support.redis_server import RedisServer
from undrift.errors import ConfigError, DimensionMismatch, StoreUnavailable, WriteFailed
from undrift.model import Stamp
from undrift.ports import Record, VectorStore
from undrift.stores import open_store
from undrift.stores.redis import RedisStore
from undrift.testing.builders import DIMENSION, MODEL, deletion, record, records, tombstone, vectors


@pytest.fixture
def store(redis_url: str) -> Iterator[RedisStore]:
    store = RedisStore(redis_url)
    yield store
    store.close()


@pytest.fixture
def filled(store: RedisStore) -> RedisStore:
    """A store with three records of owner 1."""
    store.create(DIMENSION)
    store.publish(records(3), [])
    return store


@pytest.fixture
def new_server() -> Iterator[Callable[..., RedisServer]]:
    """A function that starts another server."""
    started: list[RedisServer] = []

    def start(**arguments: object) -> RedisServer:
        started.append(RedisServer(**arguments))  # type: ignore[arg-type]
        return started[-1]

    yield start
    for server in started:
        server.close()


def index_of(url: str) -> str:
    return url.partition("?index=")[2]


def assert_reads_fail(store: VectorStore, error: type[Exception], match: str) -> None:
    """Every way to look says that it could not, none that there is nothing."""
    for look in (
        lambda: list(store.stamps(["1"])),
        lambda: list(store.stamps_by_vector_id([record().stamp.vector_id])),
        lambda: store.unmanaged(["1"]),
        lambda: store.owners(None, 10),
        lambda: store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5),
    ):
        with pytest.raises(error, match=match):
            look()


def versions(store: VectorStore) -> list[int]:
    return sorted(stamp.version for stamp in store.stamps(["1"]))


# --- addresses


@pytest.mark.parametrize(
    "rest",
    [
        "user:hid@den-word@host/0",
        "user:hid/den-word@host/0",
        "user:hid?den-word@host/0",
        "user:hid#den-word@host/0",
        "user:hid%den-word@host/0",
        "user:hid%zzden-word@host/0",
        "user:1234/den-word@host/0",
        "user:hidden-word@host:port/0",
        "user:hidden-word@[host/0",
        "user:hidden-word@/0",
        "user:%FFhidden-word@host/0",
    ],
)
def test_a_malformed_url_does_not_show_its_password(rest: str) -> None:
    with pytest.raises(ConfigError, match="malformed") as caught:
        open_store(f"redis://{rest}")
    shown = str(caught.value) + repr(caught.value)
    assert not any(part in shown for part in ("hid", "den", "1234"))
    assert "%40" in caught.value.fix


@pytest.mark.parametrize(
    ("rest", "match"),
    [
        ("host/3", "database '3'"),
        ("host/0?indx=a", "did you mean index"),
        ("host/0?index=", "1 to 100 letters"),
        ("host/0?index=a%7Bb", "1 to 100 letters"),
        ("host/0?ssl_ca_certs=a", "with rediss:// only"),
        ("host/0?password=hidden-word", "'password' is not known"),
    ],
)
def test_what_an_address_cannot_say_is_named(rest: str, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        open_store(f"redis://{rest}")
    assert "hidden-word" not in str(caught.value)


def test_a_certificate_is_checked_unless_the_address_says_otherwise() -> None:
    with pytest.raises(ConfigError, match="none of required, optional and none"):
        open_store("rediss://host/0?ssl_cert_reqs=maybe")
    assert RedisStore("rediss://host/0")._address.tls == {"ssl_cert_reqs": "required"}
    careless = RedisStore("rediss://host/0?ssl_cert_reqs=none")._address.tls
    assert careless == {"ssl_cert_reqs": "none", "ssl_check_hostname": False}


@pytest.mark.parametrize("scheme", ["redis", "valkey", "REDIS"])
def test_every_spelling_of_the_scheme_is_understood(filled: RedisStore, scheme: str) -> None:
    address = filled._address
    store = open_store(f"{scheme}://{address.host}:{address.port}?index={address.names.vectors}")
    assert versions(store) == [1, 1, 1]
    store.close()


def test_the_location_names_user_and_index_and_hides_the_password() -> None:
    location = RedisStore("valkeys://us%40er:hidden-word@[::1]:7000/?index=a.b")._address.location
    assert location == "rediss://us%40er:***@[::1]:7000/0?index=a.b"
    assert "hidden-word" not in repr(RedisStore("redis://:hidden-word@host")._address)
    assert RedisStore("redis://:hidden-word@host")._address.location == (
        "redis://:***@host:6379/0?index=undrift"
    )


# --- servers


def test_an_unreachable_server_is_an_outage(redis_server: RedisServer) -> None:
    redis_server.stop()
    store = RedisStore(f"redis://:hidden-word@127.0.0.1:{redis_server.port}/0")
    with pytest.raises(StoreUnavailable, match=r"did not answer.*(?i:refused)") as caught:
        store.describe()
    assert_reads_fail(store, StoreUnavailable, "did not answer")
    assert "hidden-word" not in str(caught.value)


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(StoreUnavailable, match=r"host is not known.*nowhere\.invalid") as caught:
        RedisStore("redis://nowhere.invalid/0").describe()
    assert "VECTOR_URL" in caught.value.fix


@pytest.mark.parametrize("login", ["", ":hidden-word@", "somebody:hidden-word@"])
def test_a_refused_login_is_a_configuration_error(
    new_server: Callable[..., RedisServer], login: str
) -> None:
    server = new_server()
    server.run("CONFIG", "SET", "requirepass", "right")
    store = RedisStore(f"redis://{login}127.0.0.1:{server.port}/0")
    with pytest.raises(ConfigError, match="refused the login") as caught:
        store.describe()
    assert "hidden-word" not in str(caught.value)
    assert_reads_fail(store, ConfigError, "refused the login")
    with_password = RedisStore(f"redis://:right@127.0.0.1:{server.port}/0")
    assert not with_password.describe().exists
    with_password.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_must_be_trusted(filled: RedisStore, redis_url: str, tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    with RedisLine(redis_url, certificate=certificate) as line:
        with pytest.raises(ConfigError, match=r"encryption cannot be agreed on.*certificate"):
            RedisStore(line.url).describe()
        for parameters in (f"ssl_ca_certs={tmp_path / 'certificate.pem'}", "ssl_cert_reqs=none"):
            store = RedisStore(f"{line.url}&{parameters}")
            assert versions(store) == [1, 1, 1]
            store.close()


def test_a_server_that_does_not_encrypt_is_given_up(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits for the end of a command, and the client for a certificate."""
    monkeypatch.setattr("undrift.stores._redis_sessions.CONNECT_SECONDS", 0.2)
    with pytest.raises(StoreUnavailable, match="did not answer") as caught:
        RedisStore(redis_url.replace("redis://", "rediss://")).describe()
    assert "redis:// where it does not" in caught.value.fix


def test_a_server_without_the_module_is_refused(new_server: Callable[..., RedisServer]) -> None:
    server = new_server(with_module=False)
    with pytest.raises(ConfigError, match=r"no search module.*Valkey 9\.") as caught:
        RedisStore(server.url).describe()
    assert "RediSearch 2.10" in caught.value.fix


@pytest.mark.parametrize("version", [b"20815", b"10203"])
def test_an_older_module_is_refused(redis_url: str, version: bytes) -> None:
    """As is valkey-search, which has the same name; 21005 is what is really there."""
    with RedisLine(redis_url, replace=(b":21005", b":" + version)) as line:
        store = RedisStore(line.url)
        with pytest.raises(ConfigError, match=f"search module of version {version.decode()}"):
            store.describe()
    with RedisLine(redis_url) as line:
        control = RedisStore(line.url)
        assert not control.describe().exists
        control.close()


def test_a_cluster_is_refused(new_server: Callable[..., RedisServer]) -> None:
    server = new_server(settings={"cluster-enabled": "yes"})
    with pytest.raises(ConfigError, match=r"is a cluster.*Valkey 9\."):
        RedisStore(server.url).describe()


def test_a_replica_is_refused_even_to_read(
    new_server: Callable[..., RedisServer], filled: RedisStore
) -> None:
    """What it shows may be outdated."""
    server = new_server()
    server.run("REPLICAOF", filled._address.host, str(filled._address.port))
    store = RedisStore(f"{server.url}?index={filled._address.names.vectors}")
    with pytest.raises(ConfigError, match="is a replica") as caught:
        store.describe()
    assert_reads_fail(store, ConfigError, "is a replica")
    assert "primary" in caught.value.fix


def test_a_primary_that_becomes_a_replica_takes_no_writes(
    new_server: Callable[..., RedisServer],
) -> None:
    """Over a connection that was opened before; over a new one nothing is even read."""
    server = new_server()
    store = RedisStore(server.url)
    store.create(DIMENSION)
    store.publish(records(1), [])
    server.run("REPLICAOF", "127.0.0.1", "1")
    with pytest.raises(ConfigError, match="is read-only") as caught:
        store.publish(records(1, version=2), [])
    assert "primary" in caught.value.fix
    assert_reads_fail(store, ConfigError, "is a replica")
    store.close()


# --- rights


def test_what_a_user_may_not_do_is_granted_by_the_line_that_the_error_gives(
    filled: RedisStore, redis_server: RedisServer, redis_url: str
) -> None:
    """To read first, then to write, then to create."""
    redis_server.run("ACL", "SETUSER", "app", "on", ">pass-word", "+@connection")
    store = RedisStore(redis_url.replace("redis://", "redis://app:pass-word@"))
    try:
        with pytest.raises(ConfigError, match="user may not read") as caught:
            store.describe()
        redis_server.run(*caught.value.fix.removeprefix("let an administrator run: ").split())
        assert store.describe().exists
        assert versions(store) == [1, 1, 1]
        assert store.unmanaged(["1"]) == {}
        assert store.owners(None, 5) == ["1"]
        assert store.claim() is None
        assert len(list(store.stamps_by_vector_id([record("r0").stamp.vector_id]))) == 1
        assert store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5)
        with pytest.raises(ConfigError, match="user may not write") as caught:
            store.publish(records(1, version=2), [])
        assert versions(store) == [1, 1, 1]
        redis_server.run(*caught.value.fix.removeprefix("let an administrator run: ").split())
        store.publish(records(1, version=2), [deletion(record("r2"))])
        store.bury([tombstone(record("r1"), version=5)])
        store.collect([tombstone(record("r1"), version=5)])
        assert versions(store) == [2]
        redis_server.run("FT.DROPINDEX", index_of(redis_url))
        store.create(DIMENSION)
        assert versions(store) == [2]
        assert "pass-word" not in str(caught.value)
    finally:
        store.close()
        redis_server.run("ACL", "DELUSER", "app")


@pytest.mark.parametrize("lacking", ["del", "hset"])
def test_a_batch_that_would_lack_a_right_in_its_midst_leaves_nothing(
    filled: RedisStore, redis_server: RedisServer, redis_url: str, lacking: str
) -> None:
    """Redis does not take back what a script did before it failed."""
    redis_server.run("ACL", "SETUSER", "app", "on", ">pass-word", "~*", "+@all", f"-{lacking}")
    store = RedisStore(redis_url.replace("redis://", "redis://app:pass-word@"))
    try:
        with pytest.raises(ConfigError, match="may not write"):
            store.publish(records(2, version=2), [deletion(record("r2"))])
        assert versions(store) == [1, 1, 1]
    finally:
        store.close()
        redis_server.run("ACL", "DELUSER", "app")


# --- indexes


def test_a_store_that_was_not_created_cannot_be_used(store: RedisStore) -> None:
    assert_reads_fail(store, ConfigError, "not been created")
    writes: list[Callable[[], None]] = [
        lambda: store.publish(records(1), []),
        lambda: store.bury([tombstone(record(), version=1)]),
        lambda: store.collect([tombstone(record(), version=1)]),
    ]
    for write in writes:
        with pytest.raises(ConfigError, match="not been created") as caught:
            write()
        assert "undrift sync" in caught.value.fix
    assert not store.describe().exists


def test_a_lost_index_loses_no_record(filled: RedisStore, redis_server: RedisServer) -> None:
    """Without it nobody can look; created again, it knows what is there."""
    for index in (filled._address.names.vectors, filled._address.names.identities):
        redis_server.run("FT.DROPINDEX", index)
        assert not filled.describe().exists
        assert_reads_fail(filled, ConfigError, "not been created")
        filled.create(DIMENSION)
        assert versions(filled) == [1, 1, 1]
        assert filled.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5)


TAGS = ("owner_id", "owner_digest", "namespace", "kind", "model")


def create_index(server: RedisServer, index: str, **changes: str) -> None:
    """An index under the name of undrift's, like it but for *changes*."""
    of = {
        "prefix": f"{{{index}}}:v:",
        "metric": "COSINE",
        "case": "CASESENSITIVE",
        "type": "FLOAT32",
    }
    of |= changes
    schema = [part for tag in TAGS for part in (tag, "TAG", of["case"]) if part]
    vector = ["embedding", "VECTOR", "FLAT", "6", "TYPE", of["type"], "DIM", str(DIMENSION)]
    vector += ["DISTANCE_METRIC", of["metric"]]
    where = ["ON", "HASH", "PREFIX", "1", of["prefix"], *of.get("filter", "").split()]
    server.run("FT.CREATE", index, *where, "SCHEMA", *schema, *vector)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"prefix": "theirs:"}, "not one of undrift's.*is not over hashes"),
        ({"filter": "FILTER @kind=='skill'"}, "not one of undrift's.*by a filter"),
        ({"case": ""}, "not one of undrift's.*no case-sensitive tag owner_id"),
        ({"type": "FLOAT64"}, "not one of undrift's.*of FLOAT32"),
        ({"metric": "L2"}, "by another metric.*L2"),
    ],
)
def test_somebody_elses_index_is_refused_and_left_alone(
    store: RedisStore, redis_server: RedisServer, changes: dict[str, str], match: str
) -> None:
    index = store._address.names.vectors
    create_index(redis_server, index, **changes)
    before = redis_server.indexes()  # other tests' are on this server too
    for use in (
        store.describe,
        lambda: store.create(DIMENSION),
        lambda: store.publish(records(1), []),
        lambda: list(store.stamps(["1"])),
    ):
        with pytest.raises(ConfigError, match=match) as caught:
            use()
        assert "?index=" in caught.value.fix
    assert redis_server.run("KEYS", f"{{{index}}}*") == []
    assert sorted(redis_server.indexes()) == sorted(before)


def test_an_index_like_undrifts_is_taken_for_its_own(
    store: RedisStore, redis_server: RedisServer
) -> None:
    """The control of the test above."""
    create_index(redis_server, store._address.names.vectors)
    assert not store.describe().exists
    store.create(DIMENSION)
    store.publish(records(3), [])
    assert versions(store) == [1, 1, 1]


def test_vectors_of_another_dimension_are_refused(filled: RedisStore) -> None:
    with pytest.raises(WriteFailed, match=r"17 components, those of .* have 16") as caught:
        filled.publish(records(3, version=2, dimension=17), [deletion(record("r0"))])
    assert "?index=" in caught.value.fix
    assert versions(filled) == [1, 1, 1]
    query = vectors(1, dimension=17)[0]
    with pytest.raises(DimensionMismatch, match="16 components") as mismatch:
        filled.search("1", query, model=MODEL, kinds=None, limit=5)
    assert (mismatch.value.expected, mismatch.value.found) == (17, 16)


# --- damaged hashes


def key_of(store: RedisStore, of: Record) -> str:
    return store._address.names.prefix + of.stamp.vector_id


def test_a_record_whose_vector_has_a_wrong_length_is_still_enumerated(
    filled: RedisStore, redis_server: RedisServer
) -> None:
    """The index of vectors, the control, forgets such a hash altogether."""
    damaged = records(3)[1]
    redis_server.run("HSET", key_of(filled, damaged), "embedding", b"abc")
    models = {stamp.entity_id: stamp.model for stamp in filled.stamps(["1"])}
    assert models == {"r0": MODEL, "r1": "", "r2": MODEL}
    found = filled.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5)
    assert {match.stamp.entity_id for match in found} == {"r0", "r2"}
    known = redis_server.run(
        "FT.SEARCH", filled._address.names.vectors, "@owner_id:{1}", "LIMIT", 0, 0
    )
    assert isinstance(known, dict)
    assert known[b"total_results"] == 2
    filled.publish(records(3, version=2), [])
    assert {stamp.model for stamp in filled.stamps(["1"])} == {MODEL}


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_vector_without_a_direction_disturbs_no_search(
    filled: RedisStore, redis_server: RedisServer, value: float
) -> None:
    """Somebody else stored it; the others are found as ever, and it is not."""
    blank = np.full(DIMENSION, value, dtype="<f4").tobytes()
    redis_server.run("HSET", key_of(filled, records(3)[1]), "embedding", blank)
    found = filled.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5)
    assert [match.stamp.entity_id for match in found] == ["r0", "r2"]


def test_a_key_that_is_no_hash_is_left_alone(filled: RedisStore, redis_server: RedisServer) -> None:
    """It is nobody's record, and its place is taken."""
    new = record("new")
    redis_server.run("SET", key_of(filled, new), "theirs")
    filled.publish([new, *records(3, version=2)], [deletion(new)])
    filled.bury([tombstone(new, version=9)])
    assert redis_server.run("GET", key_of(filled, new)) == b"theirs"
    assert versions(filled) == [2, 2, 2]
    empty = Stamp(new.stamp.vector_id, "", "", "", "", "", "", "", 0)
    assert list(filled.stamps_by_vector_id([new.stamp.vector_id])) == [empty]


def test_bytes_that_are_no_text_are_shown_all_the_same(
    filled: RedisStore, redis_server: RedisServer
) -> None:
    redis_server.run("HSET", key_of(filled, records(3)[0]), "fingerprint", b"\xff\xfe")
    fingerprints = {stamp.entity_id: stamp.fingerprint for stamp in filled.stamps(["1"])}
    assert fingerprints["r0"] == "\ufffd\ufffd"


@pytest.mark.parametrize("version", ["many", "-1", "1e3", "9" * 17, " 7"])
def test_a_version_that_is_no_number_counts_as_none(
    filled: RedisStore, redis_server: RedisServer, version: str
) -> None:
    """To a look and to a write alike."""
    redis_server.run("HSET", key_of(filled, records(3)[0]), "version", version)
    assert versions(filled) == [0, 1, 1]
    filled.publish(records(1), [])
    assert versions(filled) == [1, 1, 1]


def test_texts_are_kept_out_where_they_shall_be(redis_url: str, redis_server: RedisServer) -> None:
    store = RedisStore(redis_url, keep_text=False)
    store.create(DIMENSION)
    store.publish([record(text="a secret", metadata={"b": "another"})], [])
    stored = redis_server.run("HGETALL", key_of(store, record()))
    assert b"secret" not in repr(stored).encode()
    assert b"another" not in repr(stored).encode()
    store.close()


# --- memory and settings


def test_a_full_server_takes_nothing_of_a_batch(
    filled: RedisStore, redis_server: RedisServer
) -> None:
    """Neither writes nor deletes; reading goes on."""
    redis_server.run("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(WriteFailed, match="out of memory") as caught:
            filled.publish(records(2, version=2), [deletion(record("r2"))])
        assert "maxmemory" in caught.value.fix
        with pytest.raises(WriteFailed, match="out of memory"):
            filled.bury([tombstone(record("r2"), version=2)])
        assert versions(filled) == [1, 1, 1]
        filled.publish([], [deletion(record("r2"))])  # which makes room
        assert versions(filled) == [1, 1]
    finally:
        redis_server.run("CONFIG", "SET", "maxmemory", "0")
    filled.publish(records(3, version=2), [])
    assert versions(filled) == [2, 2, 2]


def test_without_a_word_from_the_writes_the_deletes_of_a_refused_batch_would_apply(
    filled: RedisStore, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above: a transaction goes on behind a command that failed."""
    monkeypatch.setattr("undrift.stores._redis_writing.secrets.token_hex", lambda _: "")
    redis_server.run("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(WriteFailed, match="out of memory"):
            filled.publish(records(2, version=2), [deletion(record("r2"))])
    finally:
        redis_server.run("CONFIG", "SET", "maxmemory", "0")
    assert versions(filled) == [1, 1]


def test_a_server_that_refuses_writes_takes_nothing_of_a_batch(
    filled: RedisStore, redis_server: RedisServer
) -> None:
    redis_server.run("CONFIG", "SET", "min-replicas-to-write", "1")
    try:
        with pytest.raises(WriteFailed, match="takes no writes"):
            filled.publish(records(2, version=2), [deletion(record("r2"))])
    finally:
        redis_server.run("CONFIG", "SET", "min-replicas-to-write", "0")
    assert versions(filled) == [1, 1, 1]


def test_what_a_server_may_lose_is_told_when_the_store_is_created(
    new_server: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Once; and nothing is told of a server that keeps what it is given."""
    with caplog.at_level(logging.WARNING, "undrift"):
        durable = new_server()
        store = RedisStore(durable.url)
        store.create(DIMENSION)
        store.close()
        assert not caplog.records
        settings = {"appendonly": "no", "maxmemory": "1gb", "maxmemory-policy": "allkeys-lru"}
        forgetful = new_server(settings=settings)
        store = RedisStore(forgetful.url)
        for _ in range(2):
            store.create(DIMENSION)
        store.close()
    first, second = (entry.getMessage() for entry in caplog.records)
    assert "no append-only file" in first
    assert "maxmemory-policy allkeys-lru" in second
