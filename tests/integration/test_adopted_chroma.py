"""A Chroma collection that LangChain filled is adopted, checked and repaired.

It is written by LangChain itself, and LangChain's own search is asked afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.adopters import Program, Written
from support.chroma_server import ChromaServer, collection_of
from support.layouts import DocumentsLayout
from support.sides import CountingEmbedder, Database
from undrift import Field, Outcome, StoreFields, SyncStatus, Undrift
from undrift.errors import ConfigError
from undrift.heal import NO_HEALING
from undrift.proposal.collections import SourceEntity, guess_fields
from undrift.stores import open_store
from undrift.stores.collections import sample_collections
from undrift.testing.builders import record, records

LAYOUT = DocumentsLayout()
OWNER_FIELD = "user_id"


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


def written(embedder: CountingEmbedder) -> list[Written]:
    """What LangChain is given."""
    return [
        {
            "id": f"langchain-{owner}-{key.id}",
            "text": entity.text,
            "vector": embedder.embed([entity.text])[0].tolist(),
            "metadata": {"user_id": int(owner), "exp": key.id, "origin": "import"},
        }
        for owner, document in documents().items()
        for key, entity in LAYOUT.entities(document).items()
    ]


@pytest.fixture(scope="module")
def template(chroma_server: ChromaServer) -> str:
    """A collection that LangChain has filled, to be copied: starting it takes seconds."""
    name = collection_of(chroma_server.new_location())
    program = Program("langchain_chroma_server.py", chroma_server.url, name, owner_field="user_id")
    program.write(written(CountingEmbedder()))
    return name


class Adopted:
    """A source, a collection that LangChain filled from it, and raw access to both.

    Args:
        template: what is copied, a collection of the same server.
    """

    def __init__(self, server: ChromaServer, folder: Path, template: str) -> None:
        self.location = server.new_location()
        self.name = collection_of(self.location)
        self.server = server
        self.embedder = CountingEmbedder()
        self.program = Program(
            "langchain_chroma_server.py", server.url, self.name, owner_field=OWNER_FIELD
        )
        self.source = Database(f"sqlite:///{folder / 'app.db'}")
        self._source_url = f"sqlite:///{folder / 'app.db'}"
        self._state_url = f"sqlite:///{folder / 'state.db'}"
        for statement in LAYOUT.ddl(is_postgres=False):
            self.source.run(statement)
        self.put(documents())
        self.written = written(self.embedder)
        self.embedder.texts.clear()
        server.copy_collection(template, self.name)
        self._opened = ExitStack()
        self.sides = self.open()

    def close(self) -> None:
        self._opened.close()
        self.source.close()

    @property
    def fields(self) -> StoreFields:
        return StoreFields(
            owner=Field(path=("user_id",)),
            kind=Field(value="experience"),
            entity_id=Field(path=("exp",)),
            text=Field(path=("document",)),
            model=Field(value=self.embedder.model),
        )

    def open(self, fields: StoreFields | None = None) -> Undrift:
        sides = Undrift(
            source=self._source_url,
            store=self.location,
            fields=fields or self.fields,
            state=self._state_url,
            embedder=self.embedder,
            mapping=LAYOUT.mapping,
            heal=NO_HEALING,
        )
        return self._opened.enter_context(sides)

    def put(self, documents: Mapping[str, dict[str, Any]]) -> None:
        self.remove(documents)
        for statement, rows in LAYOUT.inserts(documents, is_postgres=False):
            self.source.run_many(statement, rows)

    def remove(self, owners: Mapping[str, object]) -> None:
        self.source.run_many(
            "DELETE FROM profiles WHERE user_id = :owner",
            [{"owner": int(owner)} for owner in owners],
        )

    def rows(self) -> dict[str, tuple[dict[str, Any], str, tuple[float, ...]]]:
        """Each record's metadata, document and vector, by its own id."""
        found = self.server.ask(
            f"{self.server.collection(self.name)}/get",
            include=["metadatas", "documents", "embeddings"],
        )
        parts = (found[name] for name in ("ids", "metadatas", "documents", "embeddings"))
        return {
            id_: (metadata, document, tuple(vector))
            for id_, metadata, document, vector in zip(*parts, strict=True)
        }

    def drift(self) -> None:
        """One changed, one gone, one owner gone, one new in the source; one lost in the store."""
        changed = documents()
        changed["1"]["experiences"][0]["title"] = "Director"
        del changed["2"]["experiences"][3]
        changed["4"]["experiences"].append(
            {"id": "exp_new", "title": "Founder", "company": "Own", "description": "began"}
        )
        self.put({owner: changed[owner] for owner in ("1", "2", "4")})
        self.remove({"3": None})
        self.server.ask(f"{self.server.collection(self.name)}/delete", ids=["langchain-5-exp_1"])


@pytest.fixture
def adopted(chroma_server: ChromaServer, tmp_path: Path, template: str) -> Iterator[Adopted]:
    with closing(Adopted(chroma_server, tmp_path, template)) as found:
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


def test_what_langchain_wrote_is_in_sync_at_once(adopted: Adopted) -> None:
    """A check reads both sides, and writes nothing, nor a collection beside."""
    before = adopted.rows()
    statuses = list(adopted.sides.check_all())
    assert found(statuses) == {}
    assert [status.unstamped for status in statuses] == [4] * 5
    assert adopted.rows() == before
    assert adopted.server.collection(f"{adopted.name}.undrift") is None


def test_check_finds_just_what_differs(adopted: Adopted) -> None:
    """Missing, stale and changed, exactly, before anything has a stamp."""
    adopted.drift()
    before = adopted.rows()
    assert found(list(adopted.sides.check_all())) == DRIFT
    assert adopted.rows() == before
    assert adopted.embedder.texts == []


def test_without_texts_content_is_unknown_and_never_in_sync(adopted: Adopted) -> None:
    """What is missing and stale is found all the same."""
    adopted.drift()
    statuses = {
        status.owner_id: status
        for status in adopted.open(replace(adopted.fields, text=None)).check_all()
    }
    assert statuses["1"].outcome is Outcome.UNKNOWN
    assert statuses["1"].in_sync is None
    assert {o: len(s.unknown_ids) for o, s in statuses.items()} == {
        "1": 4,
        "2": 3,
        "3": 0,
        "4": 4,
        "5": 3,
    }
    assert statuses["2"].stale_ids == ("experience:exp_3",)


def test_stamps_are_added_without_embedding(adopted: Adopted) -> None:
    """Only where the text is still the source's; vectors and other fields stay."""
    adopted.drift()
    before = adopted.rows()
    stamped = {each.owner_id: each for each in adopted.sides.stamp()}
    assert {owner: each.stamped for owner, each in stamped.items()} == {
        "1": 3,
        "2": 3,
        "3": 0,
        "4": 4,
        "5": 3,
    }
    assert adopted.embedder.texts == []
    after = adopted.rows()
    assert {id_: row[1:] for id_, row in after.items()} == {i: r[1:] for i, r in before.items()}
    changed = {id_ for id_ in after if after[id_] != before[id_]}
    assert len(changed) == 13
    for id_ in changed:
        assert after[id_][0].items() >= before[id_][0].items()
        assert after[id_][0]["undrift_namespace"] == "default"
    assert [each.stamped for each in adopted.sides.stamp()] == [0] * 5


def test_a_sync_repairs_just_what_differs_and_langchains_search_goes_on(adopted: Adopted) -> None:
    """At the cost of the difference; what is written anew keeps the program's fields."""
    adopted.drift()
    reports = {report.owner_id: report for report in adopted.sides.sync_all()}
    assert all(report.is_in_sync and report.verified for report in reports.values())
    assert sorted(adopted.embedder.texts) == [
        "Director at Acme 1. built 1-0",
        "Engineer 1 at Acme 5. built 5-1",
        "Founder at Own. began",
    ]
    assert found(list(adopted.sides.check_all())) == {}

    vector = adopted.embedder.embed(["Director at Acme 1. built 1-0"])[0]
    seen = adopted.program.search(1, vector)
    assert seen[0].text == "Director at Acme 1. built 1-0"
    assert seen[0].metadata["origin"] == "import"
    assert len(seen) == 4
    assert "Founder at Own. began" in {each.text for each in adopted.program.search(4, vector)}
    assert adopted.program.search(3, vector) == []
    assert len(adopted.program.search(2, vector)) == 3
    assert len(adopted.rows()) == 4 + 3 + 5 + 4  # no tombstone among them
    assert {row[0]["user_id"] for row in adopted.rows().values()} == {1, 2, 4, 5}


def test_undrifts_search_is_by_cosine_though_the_collection_measures_otherwise(
    adopted: Adopted,
) -> None:
    """LangChain creates its collections with Chroma's usual distance, squared lengths."""
    vector = adopted.embedder.embed(["Engineer 2 at Acme 4. built 4-2"])[0]
    with closing(open_store(adopted.location, fields=adopted.fields)) as store:
        matches = store.search("4", 3 * vector, model=adopted.embedder.model, kinds=None, limit=4)
    assert matches[0].stamp.entity_id == "exp_2"
    assert matches[0].score == pytest.approx(1.0, abs=1e-5)
    assert len(matches) == 4


def test_what_langchain_writes_later_is_seen(adopted: Adopted) -> None:
    """Chroma leaves our stamp beside its new text; that stamp then counts no more."""
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    old, same = adopted.written[:2]
    outdated: Written = {**old, "text": "An old text."}
    adopted.program.write([outdated, same])
    stayed = adopted.rows()[old["id"]][0]
    assert stayed["undrift_version"] == 1
    assert found(list(adopted.sides.check_all())) == {"1": {"changed": {"experience:exp_0"}}}
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    assert adopted.embedder.texts == [old["text"]]
    np.testing.assert_array_equal(
        sorted(row[1] for row in adopted.rows().values()),
        sorted(record["text"] for record in adopted.written),
    )


def test_records_that_the_fields_do_not_cover_are_left_alone(adopted: Adopted) -> None:
    """Of a user or of nobody, they are counted and never touched."""
    path = adopted.server.collection(adopted.name)
    others: list[dict[str, object]] = [{"user_id": 1}, {"exp": "exp_0"}, {"user_id": True}]
    adopted.server.ask(
        f"{path}/add",
        ids=[f"other-{number}" for number in range(len(others))],
        embeddings=[[1.0] * 16] * len(others),
        metadatas=others,
    )
    before = adopted.rows()
    adopted.remove({"2": None})
    statuses = {status.owner_id: status for status in adopted.sides.check_all()}
    assert statuses["1"].unmanaged == 1
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    after = adopted.rows()
    for id_ in before:
        if id_.startswith("other"):
            assert after[id_] == before[id_]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"owner": Field(path=("owner",))}, "none of 20 records has owner .* there are document"),
        ({"entity_id": Field(path=("id",))}, "none of 20 records has id"),
        ({"owner": Field(path=("document",))}, "owner cannot be the document"),
        ({"id": Field(path=("id",))}, "leave id out"),
        ({"vector": Field(path=("text",))}, "leave vector out"),
    ],
)
def test_fields_that_do_not_fit_are_named(
    adopted: Adopted, changes: dict[str, Field], match: str
) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        list(adopted.open(replace(adopted.fields, **changes)).check_all())  # type: ignore[arg-type]
    assert "undrift init" in caught.value.fix


def test_an_entitys_metadata_that_chroma_refuses_are_left_out(adopted: Adopted) -> None:
    """One of these names would stop the server for good."""
    odd = {"chroma:document": None, "#a": 1, "$b": 1, "": 1, "list": [1, {"a": None}], "fine": 1.5}
    written = record("exp_9", owner_id="1", metadata=odd, model=adopted.embedder.model)
    with closing(open_store(adopted.location, fields=adopted.fields)) as store:
        store.publish([written], [])
        assert written.stamp in set(store.stamps(["1"]))
    metadata = adopted.rows()[written.stamp.vector_id][0]
    assert metadata["list"] == '[1,{"a":null}]'
    assert metadata["fine"] == 1.5
    assert not {"#a", "$b", "", "chroma:document"} & metadata.keys()


def test_the_sample_for_a_guess_shows_fields_and_no_stamps(adopted: Adopted) -> None:
    """The document is one of them; undrift's own collections and those that are not there, none."""
    (sample,) = sample_collections(adopted.location)
    assert len(sample.records) == 20
    assert set(sample.records[0]) == {"user_id", "exp", "origin", "document"}
    assert (sample.dimension, sample.is_stamped, sample.url) == (16, False, adopted.location)
    list(adopted.sides.stamp())
    (sample,) = sample_collections(adopted.location)
    assert sample.is_stamped
    assert set(sample.records[0]) == {"user_id", "exp", "origin", "document"}
    own = adopted.server.new_location()
    assert sample_collections(own) == ()
    with closing(open_store(own)) as store:
        store.create(16)
        assert sample_collections(own) == ()
        store.publish(records(2), [])
    assert sample_collections(own) == ()


def test_init_proposes_the_mapping_that_fits(adopted: Adopted) -> None:
    """From what the records hold, and what the source has."""
    (sample,) = sample_collections(adopted.location)
    entities = [
        SourceEntity(owner_id=owner, kind=key.kind, entity_id=key.id, text=entity.text)
        for owner, document in documents().items()
        for key, entity in LAYOUT.entities(document).items()
    ]
    proposal = guess_fields(sample, list(documents()), entities)
    assert proposal.fields is not None
    assert proposal.fields.owner == Field(path=("user_id",))
    assert proposal.fields.entity_id == Field(path=("exp",))
    assert proposal.fields.text == Field(path=("document",))
