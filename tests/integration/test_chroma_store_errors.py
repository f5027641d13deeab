"""The Chroma store where things are not as they should be: keys, versions, collections, outages."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any, NamedTuple

import numpy as np
import pytest

from support.chroma_server import ChromaServer, collection_of
from support.http_line import Answer, HttpLine, Request
from undrift.errors import ConfigError, DimensionMismatch, StoreUnavailable, WriteFailed
from undrift.ports import Record
from undrift.state import Claim, ClaimableStore
from undrift.stores import open_store
from undrift.stores._chroma_address import parse_server
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

Opened = Callable[..., ClaimableStore]


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
def location(chroma_server: ChromaServer) -> str:
    return chroma_server.new_location()


@pytest.fixture
def filled(location: str, opened: Opened) -> ClaimableStore:
    """A store with three records of owner 1."""
    store = opened(location)
    store.create(DIMENSION)
    store.publish(records(3), [])
    return store


class Large(NamedTuple):
    """A store with an owner that has more than a page of records, and what was written of it."""

    store: ClaimableStore
    written: list[Record]


@pytest.fixture(scope="module")
def large(chroma_server: ChromaServer) -> Iterator[Large]:
    location = chroma_server.new_location()
    with closing(open_store(location)) as store, closing(open_store(location, namespace="x")) as x:
        store.create(DIMENSION)
        written = [
            of for number, kind in enumerate("abc") for of in records(750, kind=kind, seed=number)
        ]
        written += records(50, kind="a", model="another", seed=9)
        written = [*{of.stamp.vector_id: of for of in written}.values()]
        store.publish(written, [])
        x.publish(records(10, kind="a", namespace="x"), [])
        assert isinstance(store, ClaimableStore)
        yield Large(store, written)


@pytest.fixture
def through(chroma_server: ChromaServer) -> Iterator[Callable[..., HttpLine]]:
    """A function that lays a line to the server."""
    with ExitStack() as lines:
        yield lambda **options: _entered(lines, HttpLine(chroma_server.url, **options))


def _entered(stack: ExitStack, line: HttpLine) -> HttpLine:
    stack.enter_context(line)
    return line


def assert_calls_fail(store: ClaimableStore, error: type[Exception], match: str) -> None:
    """Every way to look or write says that it could not, none that there is nothing."""
    for call in (
        store.describe,
        store.claim,
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
        with pytest.raises(error, match=match):
            call()


def versions(store: ClaimableStore) -> list[int]:
    return sorted(stamp.version for stamp in store.stamps(["1"]))


# --- addresses


@pytest.mark.parametrize(
    "rest",
    [
        "",
        "hidden-word@host",
        "hidden-word@host:8000/",
        "hidden-word@host:8000/ab",
        "hidden-word@host:8000/a/b/c",
        "hidden-word@host:8000/name%20with%20space",
        "hidden-word@host:8000/-dash-first",
        "hidden-word@host:8000/records.undrift",
        "hidden-word@host:port/records",
        "hidden-word@host:99999/records",
        "hidden-word@:8000/records",
        "hidden-word@host:8000/records?tenant=",
        "hidden-word@host:8000/records?space=cosine",
        "user:hidden-word@[host/records",
    ],
)
def test_a_malformed_address_is_refused_without_showing_the_key(rest: str) -> None:
    with pytest.raises(ConfigError, match="URL is malformed") as caught:
        open_store(f"chroma+http://{rest}")
    assert "hidden-word" not in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("url", "api", "shown"),
    [
        ("chroma+http://host/records", "http://host:8000/api", "chroma+http://host:8000/records"),
        ("chroma+https://host/records", "https://host:443/api", "chroma+https://host:443/records"),
        ("CHROMA+HTTP://host:1/records", "http://host:1/api", "chroma+http://host:1/records"),
        ("chroma+http://[::1]:1/records", "http://[::1]:1/api", "chroma+http://[::1]:1/records"),
        (
            "chroma+http://key@host:1/records?tenant=t&database=d",
            "http://host:1/api",
            "chroma+http://host:1/records?tenant=t&database=d",
        ),
    ],
)
def test_an_address_is_read_as_it_is_written(url: str, api: str, shown: str) -> None:
    address = parse_server(url)
    assert (address.api, address.location) == (api, shown)
    assert "key" not in repr(address)


@pytest.mark.parametrize(
    ("driver", "url", "extra"),
    [
        ("httpx", "chroma+http://host/records", "chroma"),
        ("chromadb", "chroma+file:////f/records?sole_process=yes", "chroma-embedded"),
    ],
)
def test_a_missing_driver_names_what_installs_it(driver: str, url: str, extra: str) -> None:
    program = (
        f"import sys; sys.modules[{driver!r}] = None\n"
        "from undrift.errors import ConfigError\n"
        "from undrift.stores import open_store\n"
        "try: open_store(sys.argv[1])\n"
        "except ConfigError as error: print(error.fix)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, url], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"pip install 'undrift[{extra}]'\n"


# --- who answers


def test_a_server_that_does_not_run_is_an_outage(
    chroma_server: ChromaServer, filled: ClaimableStore
) -> None:
    """Before the first call and behind it; afterwards everything is there."""
    chroma_server.kill()
    assert_calls_fail(filled, StoreUnavailable, "did not answer")
    chroma_server.start()
    assert versions(filled) == [1, 1, 1]


def test_an_unknown_host_is_an_outage(opened: Opened) -> None:
    assert_calls_fail(
        opened("chroma+http://hidden-word@nowhere.invalid:8000/records"),
        StoreUnavailable,
        r"nowhere\.invalid:8000/records: ",
    )


@pytest.mark.parametrize("login", ["", "hidden-word@", "user:hidden-word@"])
def test_a_refused_key_is_a_configuration_error(
    through: Callable[..., HttpLine], location: str, opened: Opened, login: str
) -> None:
    line = through(key="Bearer sesame")
    store = opened(line.through(location).replace("://", f"://{login}"))
    with pytest.raises(ConfigError, match="refused the key") as caught:
        store.describe()
    assert "hidden-word" not in str(caught.value) + repr(caught.value.__cause__)
    assert_calls_fail(store, ConfigError, "refused the key")


@pytest.mark.parametrize(
    ("login", "key"),
    [
        ("sesame", "Bearer sesame"),
        ("s%40%2Fe", "Bearer s@/e"),
        ("ali:b%3Aba", "Basic YWxpOmI6YmE="),
    ],
)
def test_a_key_or_a_password_lets_in(
    through: Callable[..., HttpLine], location: str, opened: Opened, login: str, key: str
) -> None:
    store = opened(through(key=key).through(location).replace("://", f"://{login}@"))
    store.create(DIMENSION)
    store.publish(records(1), [])
    assert versions(store) == [1]


def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(
    location: str, opened: Opened
) -> None:
    for key in ("hidden%0Aword", "hidden%C3%A4word"):
        with pytest.raises(ConfigError, match="refused the key") as caught:
            opened(location.replace("://", f"://{key}@")).describe()
        assert "hidden" not in str(caught.value) + repr(caught.value.__cause__)


def test_no_tls_where_there_is_none(location: str, opened: Opened) -> None:
    """Whoever writes https and meets plain HTTP did not look at the store."""
    with pytest.raises(StoreUnavailable, match="did not answer"):
        opened(location.replace("+http:", "+https:")).describe()


@pytest.mark.parametrize("version", ["0.6.3", "0.5.23"])
def test_an_older_server_is_named_with_the_version_that_is_needed(
    through: Callable[..., HttpLine], location: str, opened: Opened, version: str
) -> None:
    """As those two answer: one by the present API, the other by the one before only."""

    def of_old(request: Request, answer: Answer) -> Answer:
        is_known = version.startswith("0.6") or "/v1/" in request.path
        if is_known and request.path.endswith("/version"):
            return Answer(200, [], f'"{version}"'.encode())
        return Answer(404, [], b'{"detail":"Not Found"}')

    store = opened(through(tamper=of_old).through(location))
    with pytest.raises(ConfigError, match="Chroma server is too old") as caught:
        store.describe()
    assert "1.0" in caught.value.fix
    assert_calls_fail(store, ConfigError, "too old")


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, [], b"<h1>Not Found</h1>"),
        Answer(200, [("Content-Type", "text/html")], b"<h1>Welcome</h1>"),
        Answer(200, [], b'{"name": "another"}'),
        Answer(302, [("Location", "http://127.0.0.1:1/")], b""),
    ],
)
def test_what_is_not_chroma_is_said_to_be_none(
    through: Callable[..., HttpLine], location: str, opened: Opened, answer: Answer
) -> None:
    store = opened(through(tamper=lambda *_: answer).through(location))
    assert_calls_fail(store, ConfigError, "not Chroma")


@pytest.mark.parametrize("parameter", ["tenant", "database"])
def test_an_unknown_tenant_or_database_is_a_configuration_error(
    location: str, opened: Opened, parameter: str
) -> None:
    """Not a store that is yet to be created: nothing would create it there."""
    store = opened(f"{location}?{parameter}=nowhere")
    assert_calls_fail(store, ConfigError, "tenant or database does not exist")
    with pytest.raises(ConfigError, match="tenant or database"):
        store.create(DIMENSION)


# --- collections


def test_a_store_that_was_not_created_says_how_it_is(location: str, opened: Opened) -> None:
    store = opened(location)
    assert not store.describe().exists
    with pytest.raises(ConfigError, match="has not been created") as caught:
        list(store.stamps(["1"]))
    assert "undrift sync" in caught.value.fix
    with pytest.raises(ConfigError, match="has not been created"):
        store.publish(records(1), [])


def test_a_collection_of_another_program_is_left_alone(
    chroma_server: ChromaServer, location: str, opened: Opened
) -> None:
    path = chroma_server.create_collection(collection_of(location))
    embeddings = vectors(2).tolist()
    chroma_server.ask(f"{path}/add", ids=["a", "b"], embeddings=embeddings, documents=["x", "y"])
    store = opened(location)
    assert_calls_fail(store, ConfigError, "belongs to another program")
    with pytest.raises(ConfigError, match="belongs to another program") as caught:
        store.create(DIMENSION)
    assert "2 records" in caught.value.why
    assert chroma_server.ask(f"{path}/get", include=[])["ids"] == ["a", "b"]


def test_an_empty_collection_that_was_made_for_it_is_used(
    chroma_server: ChromaServer, location: str, opened: Opened
) -> None:
    """By whoever may create collections where undrift may not; metadata tell the metric too."""
    chroma_server.create_collection(collection_of(location), metadata={"hnsw:space": "cosine"})
    store = opened(location)
    assert not store.describe().exists
    store.create(DIMENSION)
    store.publish(records(2), [])
    assert versions(store) == [1, 1]


@pytest.mark.parametrize("space", ["l2", "ip"])
def test_another_metric_is_a_configuration_error(
    chroma_server: ChromaServer, location: str, opened: Opened, space: str
) -> None:
    for name in (collection_of(location), f"{collection_of(location)}.undrift"):
        chroma_server.create_collection(name, configuration={"hnsw": {"space": space}})
    store = opened(location)
    assert_calls_fail(store, ConfigError, "measures another distance")
    with pytest.raises(ConfigError, match=f"'{space}', not 'cosine'"):
        store.create(DIMENSION)


def test_another_dimension_is_named_with_both(filled: ClaimableStore) -> None:
    with pytest.raises(DimensionMismatch) as caught:
        filled.search("1", vectors(1, dimension=8)[0], model=MODEL, kinds=None, limit=1)
    assert (caught.value.expected, caught.value.found) == (8, DIMENSION)
    with pytest.raises(WriteFailed, match="8 components") as refused:
        filled.publish([record("new", dimension=8)], [deletion(record("r0"))])
    assert "VECTOR_URL" in refused.value.fix
    assert versions(filled) == [1, 1, 1]


def test_a_collection_that_is_taken_away_and_made_again_is_found_again(
    chroma_server: ChromaServer, filled: ClaimableStore, location: str, opened: Opened
) -> None:
    """By the store that has used the old one too; it keeps nothing but the name."""
    name = collection_of(location)
    for each in (name, f"{name}.undrift"):
        chroma_server.delete_collection(each)
    with pytest.raises(ConfigError, match="has not been created"):
        list(filled.stamps(["1"]))
    opened(location).create(DIMENSION)
    filled.publish([record(version=7)], [])
    assert versions(filled) == [7]


# --- outages


def test_an_answer_that_breaks_off_is_an_outage_not_a_short_answer(
    through: Callable[..., HttpLine], location: str, filled: ClaimableStore, opened: Opened
) -> None:
    line = through()
    store = opened(line.through(location))
    assert versions(store) == [1, 1, 1]
    for body_bytes in (0, 1, 40):
        line.cut(body_bytes)
        assert_calls_fail(store, StoreUnavailable, "did not answer")


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_a_server_that_fails_is_an_outage(
    through: Callable[..., HttpLine],
    location: str,
    filled: ClaimableStore,
    status: int,
    opened: Opened,
) -> None:
    """Whether it says so itself or a proxy does."""
    line = through(tamper=lambda request, _: Answer(status, [], b"<h1>Oops</h1>"))
    assert_calls_fail(opened(line.through(location)), StoreUnavailable, f"HTTP status {status}")


@pytest.mark.parametrize("step", ["begun", "written", "deleted"])
def test_a_server_that_dies_in_the_midst_of_a_publish_is_an_outage_and_loses_nothing(
    chroma_server: ChromaServer, filled: ClaimableStore, step: str
) -> None:
    """SIGKILL at each step; what was written before the answer failed to come may be there."""
    written, gone = [record("r0", version=2)], [deletion(record("r1"))]
    before = set(filled.stamps(["1"]))
    with call_at(f"store.publish.{step}", chroma_server.kill):
        if step == "deleted":
            filled.publish(written, gone)  # everything was acknowledged
        else:
            with pytest.raises(StoreUnavailable):
                filled.publish(written, gone)
    chroma_server.start()
    found = {stamp.entity_id: stamp.version for stamp in filled.stamps(["1"])}
    assert found["r2"] == 1
    assert found["r0"] == (1 if step == "begun" else 2)
    assert ("r1" in found) == (step != "deleted")
    filled.publish(written, gone)
    assert {s.entity_id for s in filled.stamps(["1"])} == {"r0", "r2"}
    assert len(before) == 3


def test_a_server_that_hangs_is_given_up(
    chroma_server: ChromaServer, filled: ClaimableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a time, of which the test does not wait for all."""
    import httpx

    from undrift.stores import _chroma_http

    assert _chroma_http._TIMEOUT.read is not None
    assert _chroma_http._TIMEOUT.read <= 60.0
    monkeypatch.setattr(_chroma_http, "_TIMEOUT", httpx.Timeout(0.3))
    filled.close()
    chroma_server.pause()
    try:
        with pytest.raises(StoreUnavailable, match="did not answer"):
            filled.publish(records(1, version=2), [])
    finally:
        chroma_server.go_on()
    assert len(versions(filled)) == 3


# --- what Chroma itself loses or leaves


def test_vectors_that_the_index_has_lost_are_found_among_many(
    chroma_server: ChromaServer, location: str, opened: Opened
) -> None:
    """Wherever they lie: of one that is lost Chroma only says that some is."""
    store = opened(location)
    store.create(DIMENSION)
    written = records(2_300)  # the first 2,000 are in the index's own files, the others in the log
    store.publish(written, [])
    lost = {written[number].stamp.vector_id for number in (0, 7, 1_999, 2_000, 2_299)}
    chroma_server.lose_vectors(collection_of(location), sorted(lost))
    found = list(store.stamps(["1"]))
    assert {stamp.vector_id for stamp in found if stamp.model == ""} == lost
    assert len(found) == len(written)
    matches = store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=5_000)
    assert {match.stamp.vector_id for match in matches}.isdisjoint(lost)
    assert len(matches) == len(written) - len(lost)
    store.publish([restamp(written[7], version=2, metadata={"a": 1})], [])
    assert {s.vector_id for s in store.stamps(["1"]) if s.model == ""} == lost
    again = [w._replace(stamp=w.stamp._replace(version=2)) for w in written]
    store.publish([w for w in again if w.stamp.vector_id in lost], [])
    assert all(stamp.model == MODEL for stamp in store.stamps(["1"]))


@pytest.mark.parametrize("kinds", [None, ["a"], ["a", "b"], ["a", "c"]])
def test_of_a_large_owner_the_server_tells_kinds_models_and_namespaces_apart(
    large: Large, kinds: list[str] | None
) -> None:
    """Beyond a page they are filtered there, and nothing of it is missed."""
    store, written = large
    found = store.search("1", vectors(1)[0], model=MODEL, kinds=kinds, limit=5_000)
    expected = {
        r.stamp.vector_id
        for r in written
        if r.stamp.model == MODEL and (kinds is None or r.stamp.kind in kinds)
    }
    assert {match.stamp.vector_id for match in found} == expected
    assert len(expected) >= 700


def test_a_tombstone_and_its_record_that_a_crash_left_both_are_settled_by_the_next_call(
    chroma_server: ChromaServer, filled: ClaimableStore, location: str
) -> None:
    """Between burying and deleting, and between writing and opening the grave."""
    beside = chroma_server.collection(f"{collection_of(location)}.undrift")
    stone = tombstone(record("r0"), version=2)
    fields = {"namespace": "default", "owner_id": "1", "kind": stone.kind, "entity_id": "r0"}
    chroma_server.ask(
        f"{beside}/add",
        ids=[stone.vector_id],
        embeddings=[[0.5]],
        metadatas=[{**fields, "version": 2}],
    )
    assert list(filled.tombstones(["1"])) == [stone]
    filled.publish([record("r0", version=2)], [])
    assert versions(filled) == [1, 1, 1]
    filled.bury([stone])
    assert versions(filled) == [1, 1]

    filled.publish([record("r0", version=3)], [])
    chroma_server.ask(
        f"{beside}/add",
        ids=[stone.vector_id],
        embeddings=[[0.5]],
        metadatas=[{**fields, "version": 2}],
    )
    assert list(filled.tombstones(["1"])) == []
    assert versions(filled) == [1, 1, 3]


def test_nothing_but_records_is_in_the_collection_that_others_search(
    chroma_server: ChromaServer, filled: ClaimableStore, location: str
) -> None:
    """Tombstones and claims lie beside it."""
    assert filled.put_claim(Claim("source", "state", 1), replacing=None)
    filled.bury([tombstone(record("r0"), version=2)])
    path = chroma_server.collection(collection_of(location))
    found = chroma_server.ask(f"{path}/get", include=[])["ids"]
    assert set(found) == {stamp.vector_id for stamp in filled.stamps(["1"])}
    assert len(found) == 2


def test_without_texts_nothing_of_them_stays(
    chroma_server: ChromaServer, filled: ClaimableStore, location: str, opened: Opened
) -> None:
    """Also where a text lay before."""
    store = opened(location, keep_text=False)
    store.publish([record("r0", version=2, metadata={"secret": "word"})], [])
    path = chroma_server.collection(collection_of(location))
    found = chroma_server.ask(
        f"{path}/get",
        ids=[record("r0").stamp.vector_id],
        include=["documents", "metadatas"],
    )
    assert found["documents"] == [""]
    assert "metadata" not in found["metadatas"][0]


def test_a_vector_is_the_same_after_the_server_was_started_again(
    chroma_server: ChromaServer, filled: ClaimableStore, location: str
) -> None:
    """Out of the log as out of memory."""
    path = chroma_server.collection(collection_of(location))
    ids = sorted(stamp.vector_id for stamp in filled.stamps(["1"]))
    before = chroma_server.ask(f"{path}/get", ids=ids, include=["embeddings"])
    chroma_server.kill()
    chroma_server.start()
    after = chroma_server.ask(f"{path}/get", ids=ids, include=["embeddings"])
    np.testing.assert_array_equal(before["embeddings"], after["embeddings"])


def test_claims_are_few_however_often_they_were_replaced(
    chroma_server: ChromaServer, filled: ClaimableStore, location: str
) -> None:
    last: Claim | None = None
    for epoch in range(40):
        ours = Claim("source", f"{os.getpid()}", epoch)
        assert filled.put_claim(ours, replacing=last)
        last = ours
    assert filled.claim() == last
    beside = chroma_server.collection(f"{collection_of(location)}.undrift")
    assert len(chroma_server.ask(f"{beside}/get", include=[])["ids"]) < 20
