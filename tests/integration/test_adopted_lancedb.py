"""A LanceDB table that another program filled is adopted, checked and repaired.

The other program is LanceDB's own client, which knows its schema and insists on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import lancedb
import pyarrow as pa
import pytest
from lancedb.table import Table

from support.closing import Closing
from support.layouts import DocumentsLayout
from support.sides import DIMENSION, CountingEmbedder, Database
from undrift import Field, Outcome, StoreFields, SyncStatus, Undrift
from undrift.errors import ConfigError
from undrift.heal import NO_HEALING
from undrift.ports import Vectors
from undrift.stores import open_store
from undrift.stores.collections import sample_collections

LAYOUT = DocumentsLayout()
SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("vector", pa.list_(pa.float32(), DIMENSION)),
        pa.field("text", pa.string()),
        pa.field(
            "metadata",
            pa.struct(
                [
                    pa.field("user_id", pa.int64()),
                    pa.field("exp", pa.string()),
                    pa.field("origin", pa.string()),
                ]
            ),
        ),
    ]
)
_SPACE = UUID("3a8f1c61-7d0e-4c3b-9b52-0b7f2f8a6b10")

Row = dict[str, Any]


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


class Adopted(Closing):
    """A source, a table that a program filled from it, and undrift between them."""

    def __init__(self, folder: Path) -> None:
        self.embedder = CountingEmbedder()
        self.url = f"lancedb:///{folder / 'db'}?table=careers"
        self._folder = folder
        self.source = Database(f"sqlite:///{folder / 'app.db'}")
        for statement in LAYOUT.ddl(is_postgres=False):
            self.source.run(statement)
        for statement, rows in LAYOUT.inserts(documents(), is_postgres=False):
            self.source.run_many(statement, rows)
        self.write(
            [
                self.row(int(owner), key.id, entity.text)
                for owner, document in documents().items()
                for key, entity in LAYOUT.entities(document).items()
            ]
        )
        self.embedder.texts.clear()
        self._opened: list[Undrift] = []
        self.sides = self.open()

    def close(self) -> None:
        for sides in self._opened:
            sides.close()
        self.source.close()

    def open(self, fields: StoreFields | None = None) -> Undrift:
        sides = Undrift(
            source=f"sqlite:///{self._folder / 'app.db'}",
            store=self.url,
            fields=fields or self.fields(),
            embedder=self.embedder,
            mapping=LAYOUT.mapping,
            heal=NO_HEALING,
            state=f"sqlite:///{self._folder / 'state.db'}",
        )
        self._opened.append(sides)
        return sides

    def fields(self, **changes: Field | None) -> StoreFields:
        named: dict[str, Any] = {
            "owner": Field(path=("metadata", "user_id")),
            "kind": Field(value="experience"),
            "entity_id": Field(path=("metadata", "exp")),
            "text": Field(path=("text",)),
            "model": Field(value=self.embedder.model),
        }
        return StoreFields(**(named | changes))

    # --- the other program

    def table(self) -> Table:
        """The program's way to its table, which fails where the schema is another."""
        return lancedb.connect(self._folder / "db").create_table(
            "careers", schema=SCHEMA, exist_ok=True
        )

    def write(self, rows: Sequence[Row]) -> None:
        merge = self.table().merge_insert("id").when_matched_update_all()
        merge.when_not_matched_insert_all().execute(pa.Table.from_pylist(rows, schema=SCHEMA))

    def rows(self) -> dict[str, Row]:
        return {row["id"]: row for row in self.table().search().to_list()}

    def search(self, owner: int, vector: Vectors) -> list[Row]:
        of_user = f"metadata.user_id = {owner}"
        return self.table().search(vector).where(of_user).limit(50).to_list()

    def row(self, owner: int, exp: str, text: str) -> Row:
        return {
            "id": self.id_of(owner, exp),
            "vector": self.embedder.embed([text])[0].tolist(),
            "text": text,
            "metadata": {"user_id": owner, "exp": exp, "origin": "import"},
        }

    def id_of(self, owner: int, exp: str) -> str:
        return str(uuid5(_SPACE, f"{owner}-{exp}"))

    # --- drift

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
        self.table().delete(f"id = '{self.id_of(5, 'exp_1')}'")


DRIFT = {
    "1": {"changed": {"experience:exp_0"}},
    "2": {"stale": {"experience:exp_3"}},
    "3": {"stale": {f"experience:exp_{number}" for number in range(4)}},
    "4": {"missing": {"experience:exp_new"}},
    "5": {"missing": {"experience:exp_1"}},
}


def found(statuses: Sequence[SyncStatus]) -> Mapping[str, Mapping[str, set[str]]]:
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


@pytest.fixture
def adopted(tmp_path: Path) -> Iterator[Adopted]:
    with Adopted(tmp_path) as found:
        yield found


def test_check_finds_just_what_differs_and_writes_nothing(adopted: Adopted) -> None:
    """Before anything has a stamp."""
    assert found(list(adopted.sides.check_all())) == {}
    adopted.drift()
    before = adopted.table().version
    assert found(list(adopted.sides.check_all())) == DRIFT
    assert adopted.table().version == before
    assert lancedb.connect(adopted._folder / "db").list_tables().tables == ["careers"]
    assert adopted.embedder.texts == []


def test_without_texts_content_is_unknown_and_never_in_sync(adopted: Adopted) -> None:
    sides = adopted.open(adopted.fields(text=None))
    statuses = list(sides.check_all())
    assert {status.outcome for status in statuses} == {Outcome.UNKNOWN}
    assert {len(status.unknown_ids) for status in statuses} == {4}


def test_stamps_are_added_without_embedding_and_without_touching_the_table(
    adopted: Adopted,
) -> None:
    """They lie beside it, and only where the text is still the source's."""
    adopted.drift()
    before = adopted.table().version
    stamped = {each.owner_id: each.stamped for each in adopted.sides.stamp()}
    assert stamped == {"1": 3, "2": 3, "3": 0, "4": 4, "5": 3}
    assert adopted.table().version == before
    assert adopted.embedder.texts == []
    assert [each.stamped for each in adopted.sides.stamp()] == [0] * 5


def test_a_sync_repairs_just_what_differs_and_their_own_search_goes_on(adopted: Adopted) -> None:
    """At the cost of the difference; the program finds its fields, and the new text."""
    adopted.drift()
    kept = adopted.id_of(5, "exp_0")
    before = adopted.rows()[kept]
    reports = list(adopted.sides.sync_all())
    assert all(report.is_in_sync and report.verified for report in reports)
    assert sorted(adopted.embedder.texts) == [
        "Director at Acme 1. built 1-0",
        "Engineer 1 at Acme 5. built 5-1",
        "Founder at Own. began",
    ]
    assert found(list(adopted.sides.check_all())) == {}
    assert adopted.rows()[kept] == before

    vector = adopted.embedder.embed(["Director at Acme 1. built 1-0"])[0]
    seen = adopted.search(1, vector)
    assert seen[0]["text"] == "Director at Acme 1. built 1-0"
    assert seen[0]["metadata"] == {"user_id": 1, "exp": "exp_0", "origin": "import"}
    assert len(seen) == 4
    assert "Founder at Own. began" in {row["text"] for row in adopted.search(4, vector)}
    assert adopted.search(3, vector) == []
    assert len(adopted.search(2, vector)) == 3
    assert all(report.skipped for report in adopted.sides.sync_all())


def test_what_the_program_writes_later_is_seen(adopted: Adopted) -> None:
    """A stamp counts for the row that it was put to: an old text is a change, the same is none."""
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    text = adopted.rows()[adopted.id_of(1, "exp_0")]["text"]
    same = adopted.rows()[adopted.id_of(1, "exp_1")]
    adopted.write([adopted.row(1, "exp_0", "An old text."), same])
    assert found(list(adopted.sides.check_all())) == {"1": {"changed": {"experience:exp_0"}}}
    adopted.embedder.texts.clear()
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    assert adopted.embedder.texts == [text]
    texts = [row["text"] for row in adopted.search(1, adopted.embedder.embed([text])[0])]
    assert len(texts) == 4
    assert "An old text." not in texts


def test_a_vector_that_the_program_replaced_voids_the_stamp(adopted: Adopted) -> None:
    """Though the text beside it is the same: nobody knows any more what made it."""
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    assert adopted.sides.check("1").unstamped == 0
    row = adopted.rows()[adopted.id_of(1, "exp_0")]
    adopted.write([{**row, "vector": [0.5] * DIMENSION}])
    assert adopted.sides.check("1").unstamped == 1


def test_rows_that_the_fields_do_not_cover_are_left_alone(adopted: Adopted) -> None:
    """Of a user or of nobody, they are counted and never touched."""
    vector = [1.0] + [0.0] * (DIMENSION - 1)
    others: list[Row] = [
        {"id": f"other-{number}", "vector": vector, "text": "x", "metadata": metadata}
        for number, metadata in enumerate(({"user_id": 1}, {"exp": "exp_0"}, None))
    ]
    adopted.write(others)
    adopted.change(2, None)
    before = adopted.rows()
    assert adopted.sides.check("1").unmanaged == 1
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    after = adopted.rows()
    assert all(after[row["id"]] == before[row["id"]] for row in others)


def test_a_search_joins_what_the_program_wrote_with_the_source(adopted: Adopted) -> None:
    result = adopted.sides.search("2", "Engineer 1 at Acme 2. built 2-1", limit=2)
    assert (result.hits[0].key, result.hits[0].changed) == ("experience:exp_1", False)
    assert result.hits[0].score == pytest.approx(1.0, abs=1e-5)


def test_the_sample_for_a_guess_shows_fields_and_no_vectors(adopted: Adopted) -> None:
    (sample,) = sample_collections(adopted.url)
    assert len(sample.records) == 20
    assert set(sample.records[0]) == {
        "id",
        "text",
        "metadata.user_id",
        "metadata.exp",
        "metadata.origin",
    }
    assert (sample.dimension, sample.writer, sample.is_stamped) == (DIMENSION, "LangChain", False)
    list(adopted.sides.stamp())
    (sample,) = sample_collections(adopted.url)
    assert sample.is_stamped


def test_undrifts_own_tables_are_nobodys_collection(tmp_path: Path) -> None:
    url = f"lancedb:///{tmp_path / 'db'}"
    assert sample_collections(url) == ()
    open_store(url).create(DIMENSION)
    assert sample_collections(url) == ()


@pytest.mark.parametrize(
    ("changes", "why", "name"),
    [
        ({"owner": Field(path=("userId",))}, r"no userId; there are id, .*metadata\.exp", "owner"),
        ({"entity_id": Field(path=("metadata", "e"))}, r"there is no metadata\.e;", "entity_id"),
        ({"text": Field(path=("metadata",))}, "metadata is struct", "text"),
        ({"vector": Field(path=("text",))}, "columns of float32 vectors are vector", "vector"),
        ({"id": Field(path=("key",))}, "no column key of text", "id"),
    ],
)
def test_a_wrong_field_is_named_with_what_there_is(
    adopted: Adopted, changes: dict[str, Field], why: str, name: str
) -> None:
    store = open_store(adopted.url, fields=adopted.fields(**changes))
    with pytest.raises(ConfigError, match=why) as caught:
        store.describe()
    assert f"correct {name} in [store.fields]" in caught.value.fix
