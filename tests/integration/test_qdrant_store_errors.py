"""The Qdrant store where things are not as they should be: keys, versions, layouts, outages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from qdrant_client import QdrantClient, models

from support.canned import Answer, CannedServer
from support.qdrant_server import QdrantServer
from undrift.errors import ConfigError, DimensionMismatch, StoreUnavailable, WriteFailed
from undrift.ports import VectorStore
from undrift.stores import _qdrant_http, _qdrant_layout, _qdrant_writing, open_store
from undrift.stores._qdrant_address import parse_address
from undrift.stores.qdrant import QdrantStore
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
from undrift.testing.faults import call_at

KEY, READ_KEY = "hidden-word", "reading-word"


@pytest.fixture
def collection() -> str:
    return f"c-{uuid4()}"


@pytest.fixture
def store(qdrant_server: QdrantServer, collection: str) -> Iterator[QdrantStore]:
    store = QdrantStore(qdrant_server.url(collection))
    yield store
    store.close()


@pytest.fixture
def filled(store: QdrantStore) -> QdrantStore:
    """A store with three records of owner 1."""
    store.create(DIMENSION)
    store.publish(records(3), [])
    return store


@pytest.fixture
def client(qdrant_server: QdrantServer) -> Iterator[QdrantClient]:
    """Qdrant's own."""
    client = QdrantClient(url=qdrant_server.http_url, check_compatibility=False)
    yield client
    client.close()


@pytest.fixture(scope="module")
def guarded_server() -> Iterator[QdrantServer]:
    """One that asks for a key."""
    with QdrantServer(key=KEY, read_key=READ_KEY) as server:
        yield server


@pytest.fixture(scope="module")
def mortal_server() -> Iterator[QdrantServer]:
    """One that flushes what it acknowledges, to be killed."""
    with QdrantServer(durable=True) as server:
        yield server


@pytest.fixture
def at_canned() -> Iterator[Callable[[Callable[[str], Answer | None]], QdrantStore]]:
    """A function that opens a store at a server with one answer."""
    opened: list[QdrantStore | CannedServer] = []

    def open_at(answer: Callable[[str], Answer | None]) -> QdrantStore:
        server = CannedServer(answer)
        store = QdrantStore(f"qdrant+http://:{KEY}@127.0.0.1:{server.port}/c")
        opened.extend([server, store])
        return store

    yield open_at
    for one in reversed(opened):
        one.close()


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


def sick(status: int, error: str) -> Callable[[str], Answer]:
    """A Qdrant that says its version and then only *error*."""

    def answer(path: str) -> Answer:
        if path == "/":
            return Answer(200, json.dumps({"title": "qdrant", "version": "1.17.0"}))
        return Answer(status, json.dumps({"status": {"error": error}, "time": 0.0}))

    return answer


# --- addresses and keys


@pytest.mark.parametrize(
    ("url", "server", "collection", "key", "location"),
    [
        ("qdrant+http://host/c", "http://host:6333", "c", "", "qdrant+http://host:6333/c"),
        (
            "qdrant+https://:k%40%2Fy@host:443/c",
            "https://host:443",
            "c",
            "k@/y",
            "qdrant+https://:***@host:443/c",
        ),
        (
            "qdrant+https://key@host/c",
            "https://host:6333",
            "c",
            "key",
            "qdrant+https://:***@host:6333/c",
        ),
        (
            "QDRANT+HTTP://[::1]:1/proxy/path/my%20c",
            "http://[::1]:1/proxy/path",
            "my c",
            "",
            "qdrant+http://[::1]:1/proxy/path/my%20c",
        ),
    ],
)
def test_addresses(url: str, server: str, collection: str, key: str, location: str) -> None:
    address = parse_address(url)
    assert (address.server, address.collection, address.key) == (server, collection, key)
    assert address.location == location
    assert KEY not in repr(parse_address(f"qdrant+http://:{KEY}@host/c"))


@pytest.mark.parametrize(
    "rest",
    [
        ":hid/den-word@host/c",
        ":hid?den-word@host/c",
        ":hid#den-word@host/c",
        "user:1234/den-word@host/c",
        ":hidden-word@host:port/c",
        ":hidden-word@[host/c",
        ":hidden-word@host",
        ":hidden-word@host/",
        ":hidden-word@host/..",
        ":hidden-word@/c",
    ],
)
def test_a_malformed_url_does_not_show_its_key(rest: str) -> None:
    with pytest.raises(ConfigError, match="malformed") as caught:
        open_store(f"qdrant+https://{rest}")
    shown = str(caught.value) + repr(caught.value)
    assert not any(part in shown for part in ("hid", "den", "1234"))
    assert caught.value.__cause__ is None
    assert "%40" in caught.value.fix


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(ConfigError, match="apikey") as caught:
        open_store(f"qdrant+http://host/c?apikey={KEY}")
    assert KEY not in str(caught.value)


def test_the_key_may_come_from_the_environment(
    guarded_server: QdrantServer, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = guarded_server.url(collection, key="") + "?api_key=env:QDRANT_TEST_KEY"
    with pytest.raises(ConfigError, match="QDRANT_TEST_KEY names a variable that is not set"):
        open_store(url)
    monkeypatch.setenv("QDRANT_TEST_KEY", KEY)
    store = open_store(url)
    store.create(DIMENSION)
    assert store.describe().exists
    assert KEY not in store.describe().location
    store.close()


def test_a_key_among_the_parameters_is_refused_and_not_shown() -> None:
    """It would stand in every log of a proxy's."""
    with pytest.raises(ConfigError, match="env:QDRANT_API_KEY") as caught:
        open_store(f"qdrant+http://host/c?api_key={KEY}")
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("key", ["", "wrong-word"])
def test_a_refused_key_is_a_configuration_error(
    guarded_server: QdrantServer, collection: str, key: str
) -> None:
    store = open_store(guarded_server.url(collection, key=key))
    with pytest.raises(ConfigError, match="refused the key") as caught:
        store.describe()
    assert "wrong-word" not in str(caught.value) + str(caught.value.__cause__)
    assert "?api_key=env:NAME" in caught.value.fix
    assert_reads_fail(store, ConfigError, "refused the key")
    store.close()


def test_a_key_that_may_only_read_looks_and_does_not_write(
    guarded_server: QdrantServer, collection: str
) -> None:
    writer = open_store(guarded_server.url(collection))
    writer.create(DIMENSION)
    writer.publish(records(3), [])
    reader = open_store(guarded_server.url(collection, key=READ_KEY))
    assert reader.describe().exists
    reader.create(DIMENSION)  # nothing is missing
    assert versions(reader) == [1, 1, 1]
    assert reader.owners(None, 5) == ["1"]
    assert len(reader.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5)) == 3
    with pytest.raises(ConfigError, match="may not do this"):
        reader.publish(records(3, version=2), [])
    with pytest.raises(ConfigError, match="may not do this"):
        open_store(guarded_server.url("other", key=READ_KEY)).create(DIMENSION)
    assert versions(writer) == [1, 1, 1]
    writer.close()
    reader.close()


# --- what answers


def test_an_unreachable_server_is_an_outage(mortal_server: QdrantServer, collection: str) -> None:
    mortal_server.stop()
    store = open_store(mortal_server.url(collection, key=KEY))
    with pytest.raises(StoreUnavailable, match=r"(?i)refused") as caught:
        store.describe()
    assert KEY not in str(caught.value)
    assert_reads_fail(store, StoreUnavailable, "did not answer")
    with pytest.raises(StoreUnavailable):
        store.publish(records(1), [])
    mortal_server.start()


def test_an_unknown_host_is_an_outage() -> None:
    """Names fail to resolve for a while too."""
    store = open_store("qdrant+http://no-such-host.invalid/c")
    with pytest.raises(StoreUnavailable, match="did not answer") as caught:
        store.describe()
    assert "host" in caught.value.fix


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, "<html>Welcome</html>"),
        Answer(200, '{"cluster_name": "elasticsearch"}'),
        Answer(404, "<html>Not here</html>"),
        Answer(302, "", (("Location", "https://elsewhere/"),)),
    ],
)
def test_another_server_is_told_from_qdrant(
    at_canned: Callable[[Callable[[str], Answer]], QdrantStore], answer: Answer
) -> None:
    store = at_canned(lambda path: answer)
    with pytest.raises(ConfigError, match="not a Qdrant server") as caught:
        store.describe()
    assert "6333" in caught.value.fix


@pytest.mark.parametrize(
    ("status", "error", "kind", "match"),
    [
        (500, "Service internal error: disk", StoreUnavailable, "failed.*HTTP 500.*disk"),
        (503, "overloaded", StoreUnavailable, "did not answer"),
        (429, "too many", StoreUnavailable, "too busy"),
        (400, "odd", StoreUnavailable, "failed"),
        (401, "Invalid API key or JWT", ConfigError, "refused the key"),
        (403, "Invalid api-key", ConfigError, "refused the key"),
        (404, "Not found: Collection `c` doesn't exist!", ConfigError, "not been created"),
    ],
)
def test_every_refusal_says_what_it_means(
    at_canned: Callable[[Callable[[str], Answer]], QdrantStore],
    status: int,
    error: str,
    kind: type[Exception],
    match: str,
) -> None:
    assert_reads_fail(at_canned(sick(status, error)), kind, match)


def test_a_refusal_with_a_time_to_wait_is_an_outage(
    at_canned: Callable[[Callable[[str], Answer]], QdrantStore],
) -> None:
    def answer(path: str) -> Answer:
        given = sick(429, "slow down")(path)
        return given._replace(headers=(("Retry-After", "1"),))

    assert_reads_fail(at_canned(answer), StoreUnavailable, "too busy.*slow down")


def test_no_error_quotes_a_vector(
    at_canned: Callable[[Callable[[str], Answer]], QdrantStore],
) -> None:
    store = at_canned(sick(500, "cannot store [0.25, -0.5, 0.125] here"))
    with pytest.raises(StoreUnavailable, match=r"cannot store \[…\] here") as caught:
        store.publish(records(1), [])
    assert "0.125" not in str(caught.value)


def test_a_server_that_does_not_answer_is_an_outage(
    at_canned: Callable[[Callable[[str], Answer | None]], QdrantStore],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_qdrant_http, "TIMEOUT_SECONDS", 1)
    store = at_canned(lambda path: sick(200, "")(path) if path == "/" else None)
    with pytest.raises(StoreUnavailable, match="no answer in time"):
        store.describe()


def test_a_server_without_tls_is_told_apart(qdrant_server: QdrantServer) -> None:
    store = open_store(f"qdrant+https://127.0.0.1:{qdrant_server.port}/c")
    with pytest.raises(ConfigError, match="No TLS connection") as caught:
        store.describe()
    assert "qdrant+http://" in caught.value.fix


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_must_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(tmp_path / "both.pem")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", file, "-out", f"{file}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    with Path(file).open("a") as both:
        both.write(Path(f"{file}.crt").read_text())
    answer = sick(404, "Not found: Collection `c` doesn't exist!")
    with CannedServer(answer, certificate=file) as server:
        url = f"qdrant+https://127.0.0.1:{server.port}/c"
        with pytest.raises(ConfigError, match=r"No TLS connection.*certificate") as caught:
            open_store(url).describe()
        assert "SSL_CERT_FILE" in caught.value.fix
        monkeypatch.setenv("SSL_CERT_FILE", f"{file}.crt")
        trusting = open_store(url)
        assert not trusting.describe().exists
        trusting.close()


# --- older servers


def test_a_server_without_conditional_writes_is_refused(collection: str) -> None:
    with QdrantServer(version="1.15.5") as server:
        store = open_store(server.url(collection))
        with pytest.raises(ConfigError, match=r"too old.*Qdrant 1\.15\.5") as caught:
            store.describe()
        assert "1.16" in caught.value.fix
        assert_reads_fail(store, ConfigError, "too old")
        store.close()


def test_on_a_server_without_conditional_writes_older_content_would_win(
    collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test before: such a server says nothing and ignores the condition."""
    monkeypatch.setattr(_qdrant_http, "OLDEST_SERVER", (1, 0))
    with QdrantServer(version="1.15.5") as server:
        store = open_store(server.url(collection))
        store.create(DIMENSION)
        store.publish([record(version=2)], [])
        store.publish([record(version=1)], [])
        assert versions(store) == [1]
        store.close()


@pytest.mark.parametrize("version", ["1.16.0", "1.20.2-dev", "2.0.0"])
def test_later_servers_are_taken(
    at_canned: Callable[[Callable[[str], Answer]], QdrantStore], version: str
) -> None:
    def answer(path: str) -> Answer:
        if path == "/":
            return Answer(200, json.dumps({"title": "qdrant", "version": version}))
        return sick(404, "Not found: Collection `c` doesn't exist!")(path)

    assert not at_canned(answer).describe().exists


# --- what is there


def test_looking_at_an_empty_server_creates_nothing(
    store: QdrantStore, client: QdrantClient, collection: str
) -> None:
    assert (store.describe().exists, store.describe().dimension) == (False, None)
    assert_reads_fail(store, ConfigError, "not been created")
    writes: list[Callable[[], None]] = [
        lambda: store.publish(records(1), []),
        lambda: store.publish([], [deletion(record())]),
        lambda: store.bury([tombstone(record(), version=1)]),
    ]
    for write in writes:
        with pytest.raises(ConfigError, match="not been created"):
            write()
    assert not client.collection_exists(collection)


def test_a_collection_removed_under_an_open_store_is_missed_at_once(
    filled: QdrantStore, client: QdrantClient, collection: str
) -> None:
    client.delete_collection(collection)
    assert not filled.describe().exists
    assert_reads_fail(filled, ConfigError, "not been created")


def test_somebody_elses_collection_is_refused_and_left_alone(
    store: QdrantStore, client: QdrantClient, collection: str
) -> None:
    params = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
    client.create_collection(collection, vectors_config=params)
    point = models.PointStruct(id=7, vector=vectors(1)[0].tolist(), payload={"page": "theirs"})
    client.upsert(collection, [point])
    for refused in (store.describe, lambda: store.create(DIMENSION)):
        with pytest.raises(ConfigError, match=r"another layout.*keyword index on owner_id"):
            refused()
    assert not client.get_collection(collection).payload_schema
    assert client.retrieve(collection, [7])[0].payload == {"page": "theirs"}


def test_a_refused_creation_is_a_configuration_error(
    at_canned: Callable[[Callable[[str], Answer]], QdrantStore],
) -> None:
    """There is no such collection, and none can be made."""
    answers = iter(
        [
            sick(0, "")("/"),
            sick(404, "Not found: Collection `c` doesn't exist!")("/collections/c"),
            sick(400, "Wrong input: the name is too long")("/collections/c"),
        ]
    )
    store = at_canned(lambda path: next(answers))
    with pytest.raises(ConfigError, match=r"refused to create.*too long"):
        store.create(DIMENSION)


def test_a_creation_that_was_broken_off_is_finished(
    store: QdrantStore, client: QdrantClient, collection: str
) -> None:
    """Its indexes were missing, and no point was there."""
    params = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
    client.create_collection(collection, vectors_config=params)
    client.create_payload_index(collection, "kind", models.PayloadSchemaType.KEYWORD)
    assert not store.describe().exists
    store.create(DIMENSION)
    assert store.describe().exists
    store.publish(records(3), [])
    assert versions(store) == [1, 1, 1]


@pytest.mark.parametrize("distance", [models.Distance.DOT, models.Distance.EUCLID])
def test_another_metric_is_refused(
    store: QdrantStore, client: QdrantClient, collection: str, distance: models.Distance
) -> None:
    params = models.VectorParams(size=DIMENSION, distance=distance)
    client.create_collection(collection, vectors_config=params)
    with pytest.raises(ConfigError, match=f"another metric.*{distance.value}"):
        store.describe()


def test_a_collection_of_named_vectors_is_refused(
    store: QdrantStore, client: QdrantClient, collection: str
) -> None:
    params = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
    client.create_collection(collection, vectors_config={"text": params})
    with pytest.raises(ConfigError, match="no nameless vector"):
        store.describe()


def test_a_dimension_other_than_the_collections_is_told_apart(filled: QdrantStore) -> None:
    assert filled.describe().dimension == DIMENSION
    other = vectors(1, dimension=DIMENSION + 1)[0]
    with pytest.raises(WriteFailed, match=f"expected dim: {DIMENSION}, got {DIMENSION + 1}"):
        filled.publish([record("new", embedding=other)], [deletion(record("r0"))])
    with pytest.raises(DimensionMismatch) as caught:
        filled.search("1", other, model=MODEL, kinds=None, limit=5)
    assert (caught.value.expected, caught.value.found) == (DIMENSION + 1, DIMENSION)
    assert "undrift sync --all" in caught.value.fix
    assert versions(filled) == [1, 1, 1]


def test_a_missing_index_is_named(
    store: QdrantStore, client: QdrantClient, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Qdrant Cloud refuses conditions on fields that have none."""
    without = {f: i for f, i in _qdrant_layout.INDEXES.items() if f not in ("text_hash", "model")}
    with monkeypatch.context() as patch:
        patch.setattr(_qdrant_http, "INDEXES", without)
        store.create(DIMENSION)
    store.publish(records(1), [])
    with pytest.raises(ConfigError, match=r"lacks an index.*text_hash"):
        store.publish([restamp(records(1)[0], version=2, metadata={})], [])
    with pytest.raises(ConfigError, match=r"lacks an index.*model"):
        store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5)
    with pytest.raises(ConfigError, match="uuid index on text_hash"):
        store.describe()


def test_the_printed_ddl_creates_the_store(store: QdrantStore, qdrant_server: QdrantServer) -> None:
    """Line by line, as anybody could send it."""
    import httpx

    for line in store.ddl(DIMENSION):
        method, path, body = line.split(" ", 2)
        response = httpx.request(method, qdrant_server.http_url + path, content=body)
        assert response.status_code == 200, response.text
    assert store.describe().dimension == DIMENSION
    store.publish(records(3), [])
    assert versions(store) == [1, 1, 1]


# --- writes without a definite answer


@pytest.mark.parametrize("status", ["acknowledged", "wait_timeout"])
def test_a_write_that_is_not_completed_is_not_definite(collection: str, status: str) -> None:
    with QdrantServer() as server:
        ready = open_store(server.url(collection))
        ready.create(DIMENSION)
        ready.close()
        server.restart(status=status)
        store = QdrantStore(server.url(collection))
        writes: list[Callable[[], None]] = [
            lambda: store.publish(records(1), []),
            lambda: store.publish([restamp(records(1)[0], version=2, metadata={})], []),
            lambda: store.publish([], [deletion(record())]),
            lambda: store.bury([tombstone(record(), version=1)]),
        ]
        for write in writes:
            with pytest.raises(StoreUnavailable, match=f"no definite answer.*{status}"):
                write()
        store.close()


@pytest.mark.parametrize("failpoint", ["begun", "written", "deleted"])
def test_a_server_that_dies_within_a_publish_leaves_a_part(
    mortal_server: QdrantServer, collection: str, failpoint: str
) -> None:
    """What was acknowledged is there when it is back, and the same publish again does the rest."""
    store = open_store(mortal_server.url(collection))
    store.create(DIMENSION)
    kept, gone = records(2)
    store.publish([kept, gone], [])
    new = record("r0", text="new", version=2)
    if failpoint == "deleted":  # nothing is sent any more
        with call_at(f"store.publish.{failpoint}", mortal_server.stop):
            store.publish([new], [deletion(gone)])
    else:
        with (
            call_at(f"store.publish.{failpoint}", mortal_server.stop),
            pytest.raises(StoreUnavailable, match="did not answer"),
        ):
            store.publish([new], [deletion(gone)])
    with pytest.raises(StoreUnavailable):
        versions(store)
    mortal_server.start()
    expected = {"begun": [1, 1], "written": [1, 2], "deleted": [2]}
    assert versions(store) == expected[failpoint]
    store.publish([new], [deletion(gone)])
    assert versions(store) == [2]
    store.close()


def test_acknowledged_publishes_survive_the_servers_death(
    mortal_server: QdrantServer, collection: str
) -> None:
    store = open_store(mortal_server.url(collection))
    store.create(DIMENSION)
    for version in range(1, 6):
        store.publish(records(50, version=version), [])
        mortal_server.stop()
        mortal_server.start()
        assert versions(store) == [version] * 50
    store.close()


def test_a_record_too_large_for_a_request_is_refused(filled: QdrantStore) -> None:
    huge = record("huge")._replace(text="x" * 34_000_000)
    with pytest.raises(WriteFailed, match="HTTP 413"):
        filled.publish([huge], [])
    assert versions(filled) == [1, 1, 1]


def test_a_refusal_behind_a_part_that_was_written_is_not_definite(filled: QdrantStore) -> None:
    """`WriteFailed` would say that nothing was."""
    huge = record("huge")._replace(text="x" * 34_000_000)
    parts = sorted([record("a"), record("b"), huge], key=lambda one: one.stamp.vector_id)
    if parts[0] is huge:  # parts go by vector_id
        parts = [record(f"{n}") for n in range(3)] + [huge]
    before = len(versions(filled))
    with pytest.raises(StoreUnavailable, match=r"refused a part.*What was sent before it"):
        filled.publish(parts, [])
    assert len(versions(filled)) > before


# --- processes


def test_a_forked_process_opens_connections_of_its_own(filled: QdrantStore) -> None:
    assert versions(filled) == [1, 1, 1]
    child = os.fork()
    if child == 0:
        os._exit(0 if versions(filled) == [1, 1, 1] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert versions(filled) == [1, 1, 1]


def test_a_part_holds_what_a_request_may(filled: QdrantStore) -> None:
    """However large the texts are."""
    texts = [record(f"t{n}")._replace(text="ü" * 900_000) for n in range(40)]
    filled.publish(texts, [])
    assert len(versions(filled)) == 43
    assert _qdrant_writing.PART_POINTS > 40
