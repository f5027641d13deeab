"""What both roads to Qdrant do that no contract asks of every store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest

from support.qdrant_server import QdrantServer
from undrift.fingerprint import canonical_json
from undrift.ports import Record, Vectors
from undrift.stores import _qdrant_store, open_store
from undrift.stores._qdrant_conditions import Either, OneOf
from undrift.stores._qdrant_layout import unit
from undrift.stores._qdrant_store import QdrantPointStore
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

Opener = Callable[..., QdrantPointStore]

STAMP = {
    "namespace": "default",
    "owner_id": "1",
    "kind": "experience",
    "entity_id": "a",
    "model": MODEL,
    "version": 1,
}


@pytest.fixture(params=["engine", "http"])
def location(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "engine":
        return f"qdrant+file:///{tmp_path / 'c'}"
    server: QdrantServer = request.getfixturevalue("qdrant_server")
    return server.url(f"c-{uuid4()}")


@pytest.fixture
def open_(location: str) -> Iterator[Opener]:
    opened: list[QdrantPointStore] = []

    def open_at(*, keep_text: bool = True) -> QdrantPointStore:
        store = open_store(location, keep_text=keep_text)
        assert isinstance(store, QdrantPointStore)
        opened.append(store)
        return store

    yield open_at
    for store in opened:
        store.close()


@pytest.fixture
def store(open_: Opener) -> QdrantPointStore:
    store = open_()
    store.create(DIMENSION)
    return store


def payload(store: QdrantPointStore, of: Record) -> dict[str, object]:
    """What is stored of a record but for its hashes."""
    fields = (*STAMP, "fingerprint", "text_hash", "text", "metadata", "metadata_json", "deleted")
    (point,) = store._points.retrieve([of.stamp.vector_id], fields)
    return {k: v for k, v in point.payload.items() if k not in ("fingerprint", "text_hash")}


def nearest(store: QdrantPointStore, query: Vectors) -> dict[str, float]:
    found = store.search("1", query, model=MODEL, kinds=None, limit=10)
    return {match.stamp.entity_id: match.score for match in found}


# --- what is stored


def test_a_point_is_readable_by_other_programs(store: QdrantPointStore) -> None:
    written = record("a", text="Café", metadata={"title": "Chef", "years": [2019, 2020]})
    store.publish([written], [])
    assert payload(store, written) == {
        **STAMP,
        "text": "Café",
        "metadata": {"title": "Chef", "years": [2019, 2020]},
    }


def test_without_texts_neither_text_nor_metadata_is_stored(
    store: QdrantPointStore, open_: Opener
) -> None:
    """A restamp removes what was stored before."""
    written = record("a", text="Café", metadata={"title": "Chef"})
    store.publish([written], [])
    silent = open_(keep_text=False)
    silent.publish([restamp(written, version=2, metadata={"title": "Cook"})], [])
    assert payload(store, written) == STAMP | {"version": 2}
    other = record("b", text="Café")
    silent.publish([other], [])
    assert payload(store, other) == STAMP | {"entity_id": "b"}
    (match,) = silent.search("1", other.embedding, model=MODEL, kinds=None, limit=1)  # type: ignore[arg-type]
    assert (match.text, match.metadata_json) == ("", "{}")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"large": 2**63, "small": -(2**63), "huge": 10**30, "n": [1, -(2**63) - 1]},
        {"third": 1 / 3, "tiny": 5e-324, "sum": 0.1 + 0.2, "e": 1.7976931348623157e308},
        {"short": 0.25, "none": None, "list": [None, True, "", {}], "": {"a.b": "c[0]"}},
        {"brackets": "[{" * 100},
        {"emoji": "\N{PARTY POPPER}", "quote": '"\\'},
    ],
)
def test_metadata_comes_back_as_it_was_written(
    store: QdrantPointStore, metadata: dict[str, object]
) -> None:
    """Floats and large integers too, which Qdrant reads as their neighbours."""
    written = record("a", metadata=metadata)
    store.publish([written], [])
    (match,) = store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=1)
    assert match.metadata_json == written.metadata_json
    assert isinstance(payload(store, written)["metadata"], dict)


def test_floats_would_not_come_back_otherwise(store: QdrantPointStore) -> None:
    """The control: what Qdrant itself makes of 1,000 floats."""
    floats = np.random.default_rng(0).random(1_000).tolist()
    written = record("a", metadata={"floats": floats})
    store.publish([written], [])
    stored = payload(store, written)["metadata"]
    assert isinstance(stored, dict)
    assert stored["floats"] != floats
    np.testing.assert_allclose(stored["floats"], floats, rtol=1e-15)


def test_metadata_too_deep_for_qdrant_is_kept_as_text(
    store: QdrantPointStore, open_: Opener
) -> None:
    """As an object it would make the point unreadable, and the engine's log with it."""
    deep: dict[str, object] = {}
    for _ in range(100):
        deep = {"a": [deep]}
    written = record("a", metadata=deep)
    store.publish([written], [])
    (match,) = store.search("1", vectors(1)[0], model=MODEL, kinds=None, limit=1)
    assert match.metadata_json == written.metadata_json == canonical_json(deep)
    assert "metadata" not in payload(store, written)
    store.close()
    assert len(list(open_().stamps(["1"]))) == 1


# --- vectors


@pytest.mark.parametrize("length", [1e-15, 1e-5, 1.0, 1e15])
def test_a_vectors_length_does_not_change_its_similarity(
    store: QdrantPointStore, length: float
) -> None:
    """Qdrant does not scale what is shorter than 0.0003, and would find it far from everything."""
    near, far = vectors(2)
    store.publish(
        [
            record("near", embedding=(near * length).astype(np.float32)),
            record("far", embedding=far),
        ],
        [],
    )
    found = nearest(store, (near * 1e-10).astype(np.float32))
    assert list(found) == ["near", "far"]
    assert found["near"] == pytest.approx(1.0, abs=1e-6)
    assert found["far"] == pytest.approx(float(near @ far), abs=1e-6)


def test_a_vector_of_length_one_stays_as_it_is() -> None:
    """To the last bit, as most models' vectors are."""
    for vector in vectors(200, dimension=768):
        assert unit(vector) is vector
        scaled = unit((vector * 3).astype(np.float32))
        assert float(np.linalg.norm(scaled)) == pytest.approx(1.0, abs=1e-6)
        np.testing.assert_allclose(scaled, vector, atol=1e-7)


# --- many at once


def test_a_batch_of_many_versions_is_judged_record_by_record(store: QdrantPointStore) -> None:
    standing = [record(f"r{n}", version=n % 50 + 1) for n in range(300)]
    store.publish(standing, [])
    late = [record(f"r{n}", text="late", version=(n * 7) % 50 + 1) for n in range(300)]
    store.publish(late, [])
    expected = {
        max(old, new, key=lambda one: one.stamp.version).stamp
        if old.stamp.version != new.stamp.version
        else old.stamp
        for old, new in zip(standing, late, strict=True)
    }
    assert set(store.stamps(["1"])) == expected


def test_restamps_of_any_number_apply(store: QdrantPointStore) -> None:
    written = records(700)
    store.publish(written, [])
    again = [restamp(one, version=2, metadata={"n": n}) for n, one in enumerate(written)]
    store.publish(again, [deletion(written[0]), deletion(written[1], version=2)])
    expected = {one.stamp for one in again} - {again[1].stamp}
    assert set(store.stamps(["1"])) == expected


def test_owners_beyond_the_first_count_are_listed(
    store: QdrantPointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A count that may be cut is never taken for all."""
    monkeypatch.setattr(_qdrant_store, "_OWNERS_AT_FIRST", 3)
    owners = [f"o{n:03}" for n in range(45)]
    store.publish([record(owner_id=owner) for owner in owners], [])
    assert list(store.owners(None, 100)) == owners


def test_pages_follow_one_another(store: QdrantPointStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_qdrant_store, "PAGE_POINTS", 7)
    written = records(50)
    store.publish(written, [])
    assert sorted(store.stamps(["1"])) == sorted(one.stamp for one in written)
    store.bury([tombstone(one, version=2) for one in written])
    assert len(list(store.tombstones(["1"]))) == 50


# --- conditions


def test_no_alternative_is_no_condition() -> None:
    """To Qdrant an empty list of alternatives is everything: a delete by it would take all."""
    with pytest.raises(AssertionError, match="everything"):
        Either([])
    with pytest.raises(AssertionError, match="everything"):
        OneOf("owner_id", [])


@pytest.mark.parametrize("value", [None, "seven", [], [9], {"a": 1}])
def test_a_version_that_is_no_number_reads_as_zero_and_is_replaced(
    store: QdrantPointStore, value: object
) -> None:
    from undrift.stores._qdrant_conditions import HasId
    from undrift.stores._qdrant_points import Change

    written = record("a")
    store.publish([written], [])
    damaged = {**written.stamp._asdict(), "version": value}
    del damaged["vector_id"]
    store._points.change([Change(damaged, HasId([written.stamp.vector_id]))])
    assert [stamp.version for stamp in store.stamps(["1"])] == [0]
    if value == [9]:  # a list with a number in it is at least that number to Qdrant
        store.publish([record("a", version=10)], [])
        assert [stamp.version for stamp in store.stamps(["1"])] == [10]
    else:
        store.publish([record("a", version=1)], [])
        assert [stamp.version for stamp in store.stamps(["1"])] == [1]


def test_the_claim_is_readable(store: QdrantPointStore) -> None:
    from undrift.state import Claim

    assert store.put_claim(Claim("source", "state", 3), replacing=None)
    assert store.put_claim(Claim("source", "state", 4), replacing=Claim("source", "state", 3))
    (point,) = store._points.retrieve([store._claims._id], ("claim", "version", "tokens"))
    assert json.loads(json.dumps(point.payload["claim"])) == {
        "namespace": "default",
        "source": "source",
        "state_id": "state",
        "epoch": 4,
    }
    assert point.payload["version"] == 2
