"""A Qdrant collection that another program filled is adopted, checked and repaired.

The other program is Qdrant's own client, or its engine; its own search is asked afterwards.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4, uuid5

import numpy as np
import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient, models

from support.closing import Closing
from support.layouts import DocumentsLayout
from support.qdrant_engine import engine_at
from support.qdrant_server import QdrantServer
from support.sides import DIMENSION, CountingEmbedder, Database
from undrift import Field, Outcome, StoreFields, SyncStatus, Undrift
from undrift.errors import ConfigError
from undrift.heal import NO_HEALING
from undrift.ports import Vectors
from undrift.stores import open_store
from undrift.stores._qdrant_folder import Folder
from undrift.stores.collections import sample_collections
from undrift.testing.builders import record, restamp

LAYOUT = DocumentsLayout()
_SPACE = UUID("3a8f1c61-7d0e-4c3b-9b52-0b7f2f8a6b10")


class Seen(NamedTuple):
    """A point as the other program reads it."""

    id: str
    payload: Mapping[str, Any]
    vector: Sequence[float] | None


def documents() -> dict[str, dict[str, Any]]:
    return {
        str(owner): {
            "experiences": [
                {
                    "id": f"exp_{number}",
                    "title": f"Engineer {number}",
                    "company": f"Acme {owner}",
                    "description": f"built {owner}-{number}",
                }
                for number in range(4)
            ]
        }
        for owner in range(1, 6)
    }


class Program(Closing):
    """What fills the collection, and searches one user's points in it.

    Attributes:
        url: the collection's, for undrift.
    """

    url: str

    @abstractmethod
    def write(self, points: Sequence[Seen]) -> None:
        """Create the collection if it is not there, and put *points* into it."""

    @abstractmethod
    def read(self) -> list[Seen]:
        """Everything that is in it."""

    @abstractmethod
    def delete(self, id_: str) -> None:
        """Delete a point."""

    @abstractmethod
    def search(self, owner: int, vector: Vectors) -> list[Seen]:
        """The nearest points of one user."""


class ClientProgram(Program):
    """A program that uses qdrant-client, in strict mode as in Qdrant Cloud."""

    def __init__(self, server: QdrantServer) -> None:
        self._collection = f"careers-{uuid4()}"
        self.url = server.url(self._collection)
        self._client = QdrantClient(url=server.http_url, check_compatibility=False)

    def close(self) -> None:
        self._client.close()

    def write(self, points: Sequence[Seen]) -> None:
        if not self._client.collection_exists(self._collection):
            params = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
            self._client.create_collection(self._collection, vectors_config=params)
            index = models.PayloadSchemaType.INTEGER
            self._client.create_payload_index(self._collection, "user_id", index)
        new = [
            models.PointStruct(id=p.id, vector=list(p.vector or ()), payload=dict(p.payload))
            for p in points
        ]
        self._client.upsert(self._collection, new)

    def read(self) -> list[Seen]:
        records, _ = self._client.scroll(self._collection, limit=1_000, with_vectors=True)
        return [_seen(record.id, record.payload, record.vector) for record in records]

    def delete(self, id_: str) -> None:
        self._client.delete(self._collection, [id_])

    def search(self, owner: int, vector: Vectors) -> list[Seen]:
        of_user = models.FieldCondition(key="user_id", match=models.MatchValue(value=owner))
        answer = self._client.query_points(
            self._collection,
            query=vector.tolist(),
            query_filter=models.Filter(must=[of_user]),
            limit=50,
            search_params=models.SearchParams(exact=True),
        )
        return [_seen(hit.id, hit.payload, None) for hit in answer.points]


class EngineProgram(Program):
    """A program that uses the engine in this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = Folder(folder / "careers")
        self.url = f"qdrant+file:///{folder / 'careers'}"

    def close(self) -> None:
        """Nothing stays open."""

    def write(self, points: Sequence[Seen]) -> None:
        vectors = edge.EdgeVectorParams(size=DIMENSION, distance=edge.Distance.Cosine)
        self._folder.create(edge.EdgeConfig(vectors=vectors), lambda engine: None)
        with engine_at(self.url) as engine:
            new = [edge.Point(p.id, list(p.vector or ()), dict(p.payload)) for p in points]
            engine.update(edge.UpdateOperation.upsert_points(new))

    def read(self) -> list[Seen]:
        with engine_at(self.url) as engine:
            request = edge.ScrollRequest(limit=1_000, with_payload=True, with_vector=True)
            records, _ = engine.scroll(request)
        return [_seen(record.id, record.payload, record.vector) for record in records]

    def delete(self, id_: str) -> None:
        with engine_at(self.url) as engine:
            engine.update(edge.UpdateOperation.delete_points([id_]))

    def search(self, owner: int, vector: Vectors) -> list[Seen]:
        of_user = edge.FieldCondition("user_id", match=edge.MatchValue(owner))
        request = edge.QueryRequest(
            limit=50,
            query=edge.Query.Nearest(vector.tolist()),
            filter=edge.Filter(must=[of_user]),
            with_payload=True,
        )
        with engine_at(self.url) as engine:
            return [_seen(hit.id, hit.payload, None) for hit in engine.query(request)]


class Adopted(Closing):
    """A source, a collection that the program filled from it, and undrift between them."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.embedder = CountingEmbedder()
        self._folder, self._numbers = folder, count(1)
        self.source = Database(f"sqlite:///{folder / 'app.db'}")
        for statement in LAYOUT.ddl(is_postgres=False):
            self.source.run(statement)
        for statement, rows in LAYOUT.inserts(documents(), is_postgres=False):
            self.source.run_many(statement, rows)
        self.written = [
            self.point(int(owner), key.id, entity.text)
            for owner, document in documents().items()
            for key, entity in LAYOUT.entities(document).items()
        ]
        program.write(self.written)
        self.embedder.texts.clear()
        self._opened: list[Undrift] = []
        self.sides = self.open()

    def close(self) -> None:
        for sides in self._opened:
            sides.close()
        self.source.close()

    def point(self, owner: int, exp: str, text: str) -> Seen:
        payload = {"user_id": owner, "exp": exp, "content": text, "origin": "import", "n": [1]}
        vector = self.embedder.embed([text])[0].tolist()
        return Seen(str(uuid5(_SPACE, f"{owner}-{exp}")), payload, vector)

    def id_of(self, owner: int, exp: str) -> str:
        return str(uuid5(_SPACE, f"{owner}-{exp}"))

    def fields(self, **changes: Field | None) -> StoreFields:
        named: dict[str, Any] = {
            "owner": Field(path=("user_id",)),
            "kind": Field(value="experience"),
            "entity_id": Field(path=("exp",)),
            "text": Field(path=("content",)),
            "model": Field(value=self.embedder.model),
        }
        return StoreFields(**(named | changes))

    def open(self, fields: StoreFields | None = None) -> Undrift:
        sides = Undrift(
            source=f"sqlite:///{self._folder / 'app.db'}",
            store=self.program.url,
            fields=fields or self.fields(),
            embedder=self.embedder,
            mapping=LAYOUT.mapping,
            heal=NO_HEALING,
            state=f"sqlite:///{self._folder / 'state.db'}",
        )
        self._opened.append(sides)
        return sides

    def points(self) -> dict[str, Seen]:
        return {seen.id: seen for seen in self.program.read()}

    def foreign(self) -> dict[str, Seen]:
        """Every point with a vector, as a program sees it that knows nothing of undrift."""
        return {
            id_: seen._replace(payload={k: v for k, v in seen.payload.items() if k != "undrift"})
            for id_, seen in self.points().items()
            if seen.vector
        }

    def change(self, owner: int, document: dict[str, Any] | None) -> None:
        self.source.run("DELETE FROM profiles WHERE user_id = :owner", owner=owner)
        if document is not None:
            for statement, rows in LAYOUT.inserts({str(owner): document}, is_postgres=False):
                self.source.run_many(statement, rows)

    def drift(self) -> None:
        """One changed, one gone, one owner gone, one new in the source; one lost in the store."""
        changed = documents()
        changed["1"]["experiences"][0]["title"] = "Director"
        del changed["2"]["experiences"][3]
        changed["4"]["experiences"].append(
            {"id": "exp_new", "title": "Founder", "company": "Own", "description": "began"}
        )
        for owner in (1, 2, 4):
            self.change(owner, changed[str(owner)])
        self.change(3, None)
        self.program.delete(self.id_of(5, "exp_1"))


def _seen(id_: object, payload: Mapping[str, Any] | None, vector: object) -> Seen:
    return Seen(str(id_), payload or {}, vector if isinstance(vector, list) else None)


@pytest.fixture(params=["client", "engine"])
def program(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Program]:
    if request.param == "engine":
        (tmp_path / "engine").mkdir()
        with EngineProgram(tmp_path / "engine") as engine:
            yield engine
        return
    with ClientProgram(request.getfixturevalue("qdrant_server")) as client:
        yield client


@pytest.fixture
def adopted(program: Program, tmp_path: Path) -> Iterator[Adopted]:
    with Adopted(program, tmp_path) as found:
        yield found


def found(statuses: list[SyncStatus]) -> Mapping[str, Mapping[str, set[str]]]:
    return {
        status.owner_id: {
            name: {str(key) for key in ids}
            for name, ids in (
                ("missing", status.missing_ids),
                ("stale", status.stale_ids),
                ("changed", status.changed_ids),
                ("unknown", status.unknown_ids),
            )
            if ids
        }
        for status in statuses
        if status.outcome is not Outcome.IN_SYNC
    }


DRIFT = {
    "1": {"changed": {"experience:exp_0"}},
    "2": {"stale": {"experience:exp_3"}},
    "3": {"stale": {f"experience:exp_{number}" for number in range(4)}},
    "4": {"missing": {"experience:exp_new"}},
    "5": {"missing": {"experience:exp_1"}},
}


def test_what_another_program_wrote_is_in_sync_at_once(adopted: Adopted) -> None:
    """A check reads both sides, and writes nothing."""
    before = adopted.points()
    statuses = list(adopted.sides.check_all())
    assert found(statuses) == {}
    assert [status.unstamped for status in statuses] == [4] * 5
    assert adopted.points() == before


def test_check_finds_just_what_differs(adopted: Adopted) -> None:
    """Missing, stale and changed, exactly, before anything has a stamp."""
    adopted.drift()
    before = adopted.points()
    assert found(list(adopted.sides.check_all())) == DRIFT
    assert adopted.points() == before
    assert adopted.embedder.texts == []


def test_without_texts_content_is_unknown_and_never_in_sync(adopted: Adopted) -> None:
    """What is missing and stale is found all the same."""
    adopted.drift()
    sides = adopted.open(adopted.fields(text=None))
    statuses = {status.owner_id: status for status in sides.check_all()}
    assert {o: (s.outcome, len(s.unknown_ids)) for o, s in statuses.items()} == {
        "1": (Outcome.UNKNOWN, 4),
        "2": (Outcome.DRIFT, 3),
        "3": (Outcome.DRIFT, 0),
        "4": (Outcome.DRIFT, 4),
        "5": (Outcome.DRIFT, 3),
    }
    assert statuses["2"].stale_ids == ("experience:exp_3",)


def test_stamps_are_added_without_embedding(adopted: Adopted) -> None:
    """Only where the text is still the source's; vectors and other fields stay."""
    adopted.drift()
    before = adopted.points()
    stamped = {each.owner_id: each for each in adopted.sides.stamp()}
    assert {owner: each.stamped for owner, each in stamped.items()} == {
        "1": 3,
        "2": 3,
        "3": 0,
        "4": 4,
        "5": 3,
    }
    assert found([each.status for each in stamped.values()]) == DRIFT
    assert adopted.embedder.texts == []
    after = adopted.points()
    for id_, seen in before.items():
        assert after[id_].vector == seen.vector
        assert seen.payload.items() <= after[id_].payload.items()
    assert sum("undrift" in seen.payload for seen in after.values() if seen.vector) == 13
    assert [each.stamped for each in adopted.sides.stamp()] == [0] * 5


def test_a_sync_repairs_just_what_differs_and_their_own_search_goes_on(adopted: Adopted) -> None:
    """At the cost of the difference; the program finds its fields, and the new text."""
    adopted.drift()
    kept = adopted.id_of(5, "exp_0")
    before = adopted.foreign()[kept]
    reports = {report.owner_id: report for report in adopted.sides.sync_all()}
    assert all(report.is_in_sync and report.verified for report in reports.values())
    assert sorted(adopted.embedder.texts) == [
        "Director at Acme 1. built 1-0",
        "Engineer 1 at Acme 5. built 5-1",
        "Founder at Own. began",
    ]
    assert found(list(adopted.sides.check_all())) == {}
    after = adopted.foreign()[kept]
    assert after.vector == before.vector
    assert before.payload.items() <= after.payload.items()

    vector = adopted.embedder.embed(["Director at Acme 1. built 1-0"])[0]
    seen = adopted.program.search(1, vector)
    assert seen[0].payload["content"] == "Director at Acme 1. built 1-0"
    assert (seen[0].payload["origin"], seen[0].payload["user_id"]) == ("import", 1)
    assert seen[0].payload["n"] == [1]
    assert len(seen) == 4
    assert adopted.id_of(1, "exp_0") not in {point.id for point in seen}
    new = {point.payload["content"] for point in adopted.program.search(4, vector)}
    assert "Founder at Own. began" in new
    assert adopted.program.search(3, vector) == []
    assert len(adopted.program.search(2, vector)) == 3
    again = list(adopted.sides.sync_all())
    assert all(report.skipped for report in again)


def test_what_the_program_writes_later_is_seen(adopted: Adopted) -> None:
    """Its point takes our stamp with it; an old text is then a change, the right one is none."""
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    old, same = adopted.written[:2]
    adopted.program.write([adopted.point(1, "exp_0", "An old text."), same])
    assert found(list(adopted.sides.check_all())) == {"1": {"changed": {"experience:exp_0"}}}
    adopted.embedder.texts.clear()
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    assert adopted.embedder.texts == [old.payload["content"]]
    vector = adopted.embedder.embed([old.payload["content"]])[0]
    contents = [seen.payload["content"] for seen in adopted.program.search(1, vector)]
    assert len(contents) == 4
    assert "An old text." not in contents


def test_points_that_the_fields_do_not_cover_are_left_alone(adopted: Adopted) -> None:
    """Of a user or of nobody, they are counted and never touched."""
    vector = [1.0] + [0.0] * (DIMENSION - 1)
    others = [
        Seen(str(uuid4()), payload, vector)
        for payload in ({"user_id": 1}, {"exp": "exp_0"}, {}, {"user_id": True, "exp": "x"})
    ]
    adopted.program.write(others)
    before = adopted.points()
    adopted.change(2, None)
    statuses = {status.owner_id: status for status in adopted.sides.check_all()}
    assert statuses["1"].unmanaged == 1
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    after = adopted.points()
    assert {other.id: after[other.id] for other in others} == {
        other.id: before[other.id] for other in others
    }


def test_a_search_joins_what_the_program_wrote_with_the_source(adopted: Adopted) -> None:
    result = adopted.sides.search("2", "Engineer 1 at Acme 2. built 2-1", limit=2)
    assert (result.hits[0].key, result.hits[0].changed) == ("experience:exp_1", False)
    assert result.hits[0].score == pytest.approx(1.0, abs=1e-5)


def test_the_sample_for_a_guess_shows_fields_and_no_vectors(adopted: Adopted) -> None:
    (sample,) = sample_collections(adopted.program.url)
    assert len(sample.records) == 20
    assert set(sample.records[0]) == {"user_id", "exp", "content", "origin"}
    assert (sample.dimension, sample.vectors, sample.is_stamped) == (DIMENSION, {}, False)
    list(adopted.sides.stamp())
    (sample,) = sample_collections(adopted.program.url)
    assert sample.is_stamped
    assert all("undrift" not in path for record in sample.records for path in record)


def test_metadata_too_deep_for_qdrant_do_no_harm(adopted: Adopted) -> None:
    """Beside the program's fields they would make its point unreadable."""
    deep: dict[str, Any] = {}
    for _ in range(100):
        deep = {"a": [deep]}
    store = open_store(adopted.program.url, fields=adopted.fields())
    written = record("exp_new", owner_id="1", metadata=deep)
    store.publish([written], [])
    store.publish([restamp(written, version=2, metadata=deep | {"b": 1})], [])
    store.close()
    point = adopted.points()[written.stamp.vector_id]
    assert "a" not in point.payload
    assert len(adopted.points()) == 21


# --- other layouts than that


def fields_of(owner: str, **more: Field) -> StoreFields:
    named = {
        "owner": Field(path=(owner,)),
        "kind": Field(value="k"),
        "entity_id": Field(path=("exp",)),
    }
    return StoreFields(**(named | more))  # type: ignore[arg-type]


def test_a_wrong_field_is_named_with_what_there_is(adopted: Adopted) -> None:
    store = open_store(adopted.program.url, fields=fields_of("userId"))
    with pytest.raises(ConfigError, match=r"none of 20 points has userId.*content, exp") as caught:
        store.describe()
    assert "owner" in caught.value.fix
    store.close()


def test_a_vector_that_is_not_there_is_named(adopted: Adopted) -> None:
    fields = fields_of("user_id", vector=Field(path=("image",)))
    store = open_store(adopted.program.url, fields=fields)
    with pytest.raises(ConfigError, match="no vector image; there are the nameless one"):
        store.describe()
    store.close()


@pytest.fixture
def server_client(qdrant_server: QdrantServer) -> Iterator[QdrantClient]:
    client = QdrantClient(url=qdrant_server.http_url, check_compatibility=False)
    yield client
    client.close()


Filled = Callable[..., str]


@pytest.fixture
def filled(qdrant_server: QdrantServer, server_client: QdrantClient) -> Filled:
    """A function that fills a collection of a hundred points, and returns its URL."""

    def fill(vectors: Any, *, index: models.PayloadSchemaType | None, ids: bool = False) -> str:  # noqa: ANN401
        name = f"c-{uuid4()}"
        server_client.create_collection(name, vectors_config=vectors)
        if index is not None:
            server_client.create_payload_index(name, "user_id", index)
        named = list(vectors) if isinstance(vectors, dict) else [""]
        directions = np.random.default_rng(1).standard_normal((100, DIMENSION))
        points = []
        for number, direction in enumerate(directions):
            vector = {each: direction.tolist() for each in named}
            owner = str(number % 5) if index is models.PayloadSchemaType.KEYWORD else number % 5
            points.append(
                models.PointStruct(
                    id=number if ids else str(uuid4()),
                    vector=vector if named != [""] else vector[""],
                    payload={"user_id": owner, "exp": number, "content": f"text {number}"},
                )
            )
        server_client.upsert(name, points)
        return qdrant_server.url(name)

    return fill


COSINE = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
INTEGER, KEYWORD = models.PayloadSchemaType.INTEGER, models.PayloadSchemaType.KEYWORD


def test_points_may_have_numbers_for_ids(filled: Filled) -> None:
    store = open_store(filled(COSINE, index=INTEGER, ids=True), fields=fields_of("user_id"))
    stamps = {stamp.vector_id: stamp for stamp in store.stamps(["3"])}
    assert sorted(stamps, key=int) == [str(number) for number in range(3, 100, 5)]
    assert stamps["8"].entity_id == "8"
    assert [s.vector_id for s in store.stamps_by_vector_id(["8", "08", "x"])] == ["8"]
    store.close()


def test_ids_may_be_texts(filled: Filled) -> None:
    store = open_store(filled(COSINE, index=KEYWORD), fields=fields_of("user_id"))
    assert len(list(store.stamps(["3"]))) == 20
    assert list(store.owners(None, 9)) == list("01234")
    store.close()


def test_in_strict_mode_the_missing_index_is_named_and_made_by_the_first_write(
    filled: Filled,
) -> None:
    """Qdrant Cloud refuses to look for a user by a field without one."""
    store = open_store(filled(COSINE, index=None), fields=fields_of("user_id"))
    with pytest.raises(ConfigError, match=r"lacks an index.*user_id") as caught:
        list(store.stamps(["3"]))
    assert "undrift sync" in caught.value.fix
    store.create(DIMENSION)
    assert len(list(store.stamps(["3"]))) == 20
    store.close()


def test_several_vectors_need_a_name(filled: Filled) -> None:
    url = filled({"text": COSINE, "image": COSINE}, index=INTEGER)
    store = open_store(url, fields=fields_of("user_id"))
    with pytest.raises(ConfigError, match="vectors are image, text, not just one") as caught:
        store.describe()
    assert "vector = " in caught.value.fix
    store.close()
    named = open_store(url, fields=fields_of("user_id", vector=Field(path=("image",))))
    assert named.describe().dimension == DIMENSION
    assert len(list(named.stamps(["3"]))) == 20
    named.close()
    (sample,) = sample_collections(url)
    assert (sample.dimension, sample.vectors) == (None, {"image": DIMENSION, "text": DIMENSION})


@pytest.mark.parametrize("distance", list(models.Distance))
def test_search_is_by_cosine_whatever_the_metric_is(
    filled: Filled, server_client: QdrantClient, distance: models.Distance
) -> None:
    """The other program's ranking is its own business."""
    url = filled(models.VectorParams(size=DIMENSION, distance=distance), index=INTEGER)
    fields = fields_of("user_id", model=Field(value="m"), text=Field(path=("content",)))
    store = open_store(url, fields=fields)
    directions = np.random.default_rng(1).standard_normal((100, DIMENSION)).astype(np.float32)
    query = directions[3] * 7
    scores = directions @ query / np.linalg.norm(directions, axis=1) / np.linalg.norm(query)
    expected = sorted(range(3, 100, 5), key=lambda number: -scores[number])[:5]
    matches = store.search("3", query, model="m", kinds=["k"], limit=5)
    assert [match.stamp.entity_id for match in matches] == [str(number) for number in expected]
    assert [match.score for match in matches] == pytest.approx(
        [float(scores[number]) for number in expected], abs=1e-5
    )
    assert matches[0].text == "text 3"
    assert store.search("3", query, model="other", kinds=None, limit=5) == []
    with pytest.raises(ConfigError, match="dimension"):
        store.search("3", query[:-1], model="m", kinds=None, limit=5)
    store.close()
