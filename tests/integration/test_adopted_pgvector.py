"""Tables that LangChain, LlamaIndex and Mastra filled are adopted, checked and repaired.

Each is written by that very program, and its own search is asked afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import psycopg
import pytest

from support.adopters import Program, Written
from support.layouts import DocumentsLayout
from support.postgres import PostgresServer, with_login
from support.sides import CountingEmbedder, Database
from undrift import Field, Outcome, StoreFields, SyncStatus, Undrift, UnsupportedError
from undrift.errors import ConfigError
from undrift.heal import NO_HEALING
from undrift.ports import Deletion, Record
from undrift.stores import open_store

LAYOUT = DocumentsLayout()
COLLECTION = "careers"
OWNER_FIELD = "user_id"

Document = dict[str, Any]


def documents() -> dict[str, Document]:
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


class Adopted:
    """A source, a collection that another program filled from it, and raw access to both.

    Args:
        fill: the database is empty, and both are to be filled.
    """

    def __init__(self, url: str, writer: str, *, fill: bool = False) -> None:
        self.url = url
        self.writer = writer
        self.embedder = CountingEmbedder()
        script = f"{writer}_pgvector{'.mjs' if writer == 'mastra' else '.py'}"
        self.program = Program(script, url, COLLECTION, owner_field=OWNER_FIELD)
        self.written: list[Written] = [
            {
                "id": f"{writer}-{owner}-{key.id}",
                "text": entity.text,
                "vector": self.embedder.embed([entity.text])[0].tolist(),
                "metadata": {"user_id": int(owner), "exp": key.id, "origin": "import"},
            }
            for owner, document in documents().items()
            for key, entity in LAYOUT.entities(document).items()
        ]
        self.embedder.texts.clear()
        if fill:
            self._fill()
        self.sides = self.open()

    def _fill(self) -> None:
        with closing(Database(self.url)) as source:
            for statement in LAYOUT.ddl(is_postgres=True):
                source.run(statement)
            for statement, rows in LAYOUT.inserts(documents(), is_postgres=True):
                source.run_many(statement, rows)
        self.program.write(self.written)

    @property
    def table(self) -> str:
        return {
            "langchain": "langchain_pg_embedding",
            "llamaindex": f"data_{COLLECTION}",
            "mastra": COLLECTION,
        }[self.writer]

    @property
    def metadata(self) -> str:
        names = {"langchain": "cmetadata", "llamaindex": "metadata_", "mastra": "metadata"}
        return names[self.writer]

    @property
    def id(self) -> str:
        return {"langchain": "id", "llamaindex": "node_id", "mastra": "vector_id"}[self.writer]

    def fields(self) -> StoreFields:
        text = {
            "langchain": ("document",),
            "llamaindex": ("text",),
            "mastra": ("metadata", "text"),
        }[self.writer]
        fixed = {}
        if self.writer == "langchain":
            with psycopg.connect(self.url) as connection:
                row = connection.execute(
                    "SELECT uuid::text FROM langchain_pg_collection"
                ).fetchone()
            assert row is not None
            fixed["collection_id"] = row[0]
        return StoreFields(
            owner=Field(path=(self.metadata, "user_id")),
            kind=Field(value="experience"),
            entity_id=Field(path=(self.metadata, "exp")),
            text=Field(path=text),
            model=Field(value=self.embedder.model),
            id=Field(path=(self.id,)),
            fixed=fixed,
        )

    def open(self, fields: StoreFields | None = None, *, state: str | None = None) -> Undrift:
        return Undrift(
            source=self.url,
            store=f"{self.url}?table=public.{self.table}",
            fields=fields or self.fields(),
            embedder=self.embedder,
            mapping=LAYOUT.mapping,
            heal=NO_HEALING,
            state=state,
        )

    def close(self) -> None:
        self.sides.close()

    def run(self, statement: str) -> list[Any]:
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> dict[str, tuple[str, str]]:
        """Each record's metadata and vector, by its own id."""
        query = f"SELECT {self.id}, {self.metadata}::jsonb::text, embedding::text FROM {self.table}"
        return {row[0]: row[1:] for row in self.run(query)}

    def drift(self) -> None:
        """One changed, one gone, one owner gone, one new in the source; one lost in the store."""
        changes = {
            1: "jsonb_set(filtered_data, '{experiences,0,title}', '\"Director\"')",
            2: "filtered_data #- '{experiences,3}'",
            4: 'jsonb_set(filtered_data, \'{experiences,4}\', \'{"id": "exp_new", '
            '"title": "Founder", "company": "Own", "description": "began"}\')',
        }
        for owner, changed in changes.items():
            self.run(f"UPDATE profiles SET filtered_data = {changed} WHERE user_id = {owner}")
        self.run("DELETE FROM profiles WHERE user_id = 3")
        lost = f"{self.writer}-5-exp_1"
        self.run(f"DELETE FROM {self.table} WHERE {self.id} = '{lost}'")


@pytest.fixture(scope="module", params=["langchain", "llamaindex", "mastra"])
def template(
    request: pytest.FixtureRequest, postgres_server: PostgresServer
) -> Iterator[tuple[str, str]]:
    """A database that the program has filled, to be copied: starting it takes seconds."""
    with postgres_server.database() as url:
        Adopted(url, request.param, fill=True).close()
        yield request.param, url


@pytest.fixture
def adopted(template: tuple[str, str], postgres_server: PostgresServer) -> Iterator[Adopted]:
    """A collection of the program's, as it was filled."""
    writer, url = template
    copy = postgres_server.copy_database(url)
    with closing(Adopted(copy, writer)) as found:
        yield found
    postgres_server.drop_database(copy)


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
    before = adopted.rows()
    statuses = list(adopted.sides.check_all())
    assert found(statuses) == {}
    assert [status.unstamped for status in statuses] == [4] * 5
    assert adopted.rows() == before
    assert adopted.run("SELECT count(*) FROM pg_namespace WHERE nspname = 'undrift'") == [(0,)]


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
    fields = adopted.fields()
    untold = StoreFields(
        owner=fields.owner,
        kind=fields.kind,
        entity_id=fields.entity_id,
        id=fields.id,
        model=fields.model,
        fixed=fields.fixed,
    )
    with adopted.open(untold) as sides:
        statuses = {status.owner_id: status for status in sides.check_all()}
    assert {o: s.outcome for o, s in statuses.items()} == {
        "1": Outcome.UNKNOWN,
        "2": Outcome.DRIFT,
        "3": Outcome.DRIFT,
        "4": Outcome.DRIFT,
        "5": Outcome.DRIFT,
    }
    assert {o: len(s.unknown_ids) for o, s in statuses.items()} == {
        "1": 4,
        "2": 3,
        "3": 0,
        "4": 4,
        "5": 3,
    }
    assert statuses["2"].stale_ids == ("experience:exp_3",)
    assert statuses["1"].in_sync is None


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
    assert found([each.status for each in stamped.values()]) == DRIFT
    assert adopted.embedder.texts == []
    after = adopted.rows()
    assert {id_: row[1] for id_, row in after.items()} == {id_: r[1] for id_, r in before.items()}
    changed = {id_ for id_ in after if after[id_] != before[id_]}
    assert len(changed) == 13
    assert all('"undrift"' in after[id_][0] for id_ in changed)
    assert [each.stamped for each in adopted.sides.stamp()] == [0] * 5


def test_a_sync_repairs_just_what_differs_and_their_own_search_goes_on(adopted: Adopted) -> None:
    """At the cost of the difference; records keep their ids, and the program its fields."""
    adopted.drift()
    reports = {report.owner_id: report for report in adopted.sides.sync_all()}
    assert all(report.is_in_sync and report.verified for report in reports.values())
    assert sorted(adopted.embedder.texts) == [
        "Director at Acme 1. built 1-0",
        "Engineer 1 at Acme 5. built 5-1",
        "Founder at Own. began",
    ]
    assert sum(report.deleted for report in reports.values()) == 5
    assert found(list(adopted.sides.check_all())) == {}

    vector = adopted.embedder.embed(["Director at Acme 1. built 1-0"])[0]
    seen = adopted.program.search(1, vector)
    assert (seen[0].id, seen[0].text) == (
        f"{adopted.writer}-1-exp_0",
        "Director at Acme 1. built 1-0",
    )
    assert seen[0].metadata["origin"] == "import"
    assert len(seen) == 4
    new = {each.text for each in adopted.program.search(4, vector)}
    assert "Founder at Own. began" in new
    assert adopted.program.search(3, vector) == []
    assert len(adopted.program.search(2, vector)) == 3


def test_what_the_program_writes_later_is_seen(adopted: Adopted) -> None:
    """Its record takes our stamp with it; an old text is then a change, the right one is none."""
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    if adopted.writer == "llamaindex":
        ids = ", ".join(f"'{record['id']}'" for record in adopted.written[:2])
        adopted.run(f"DELETE FROM {adopted.table} WHERE {adopted.id} IN ({ids})")
    old, same = adopted.written[:2]
    outdated: Written = {**old, "text": "An old text."}
    adopted.program.write([outdated, same])
    assert found(list(adopted.sides.check_all())) == {"1": {"changed": {"experience:exp_0"}}}
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    assert adopted.embedder.texts == [old["text"]]


def test_records_that_the_fields_do_not_cover_are_left_alone(adopted: Adopted) -> None:
    """Of a user or of nobody, they are counted and never touched."""
    for metadata in ('{"user_id": 1}', '{"exp": "exp_0"}', "{}"):
        id_ = "other" + metadata.translate(str.maketrans("", "", '{}": ,'))
        column, rest = {
            "langchain": (", collection_id", ", (SELECT uuid FROM langchain_pg_collection)"),
            "llamaindex": (", text", ", ''"),
            "mastra": ("", ""),
        }[adopted.writer]
        adopted.run(
            f"INSERT INTO {adopted.table} ({adopted.id}, {adopted.metadata}{column}) "
            f"SELECT '{id_}', '{metadata}'{rest}"
        )
    before = adopted.rows()
    adopted.run("DELETE FROM profiles WHERE user_id = 2")
    statuses = {status.owner_id: status for status in adopted.sides.check_all()}
    assert statuses["1"].unmanaged == 1
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    after = adopted.rows()
    assert {id_: after[id_] for id_ in before if id_.startswith("other")} == {
        id_: row for id_, row in before.items() if id_.startswith("other")
    }


def test_the_state_has_to_be_beside_an_adopted_table(adopted: Adopted, postgres_url: str) -> None:
    """Elsewhere, deletes would leave something behind for other programs to find."""
    with adopted.open(state=postgres_url) as sides, pytest.raises(ConfigError, match="beside it"):
        list(sides.sync_all())


def test_only_adopted_collections_are_stamped(postgres_url: str) -> None:
    with (
        Undrift(source=postgres_url, store=postgres_url, embedder=CountingEmbedder()) as sides,
        pytest.raises(UnsupportedError, match="nothing to stamp"),
    ):
        list(sides.stamp())


def set_text(adopted: Adopted, id_: str, expression: str) -> None:
    """Change a record's text alone, as SQL does; *expression* says how, of ``text``."""
    if adopted.writer == "mastra":
        old = "(metadata ->> 'text')"
        value = (
            f"jsonb_set(metadata, '{{text}}', to_jsonb(({expression.replace('text', old)})::text))"
        )
        column = "metadata"
    else:
        column = {"langchain": "document", "llamaindex": "text"}[adopted.writer]
        value = expression.replace("text", column)
    adopted.run(f"UPDATE {adopted.table} SET {column} = {value} WHERE {adopted.id} = '{id_}'")


def texts(adopted: Adopted) -> dict[str, str]:
    column = {
        "langchain": "document",
        "llamaindex": "text",
        "mastra": "metadata ->> 'text'",
    }[adopted.writer]
    return dict(adopted.run(f"SELECT {adopted.id}, {column} FROM {adopted.table}"))


def test_a_text_that_is_changed_beside_its_stamp_is_seen(adopted: Adopted) -> None:
    """The stamp stays where it was, and counts no more."""
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    set_text(adopted, f"{adopted.writer}-1-exp_0", "'Another' || text")
    assert found(list(adopted.sides.check_all())) == {"1": {"changed": {"experience:exp_0"}}}
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    assert texts(adopted)[f"{adopted.writer}-1-exp_0"] == "Engineer 0 at Acme 1. built 1-0"
    assert found(list(adopted.sides.check_all())) == {}


def test_a_stamp_leaves_blanks_long_texts_and_the_programs_own_metadata_alone(
    adopted: Adopted,
) -> None:
    """Undrift compares the beginning of a text, and writes none."""
    long = "x" * 30_000
    adopted.run(
        "UPDATE profiles SET filtered_data = jsonb_set(filtered_data, "
        f"'{{experiences,1,description}}', '\"{long}\"') WHERE user_id = 1"
    )
    set_text(adopted, f"{adopted.writer}-1-exp_0", "'  ' || text || E'\\n'")
    set_text(adopted, f"{adopted.writer}-1-exp_1", f"'Engineer 1 at Acme 1. {long}'")
    adopted.run(
        f"UPDATE {adopted.table} SET {adopted.metadata} = "
        f'({adopted.metadata}::jsonb || \'{{"title": "its own"}}\')'
    )
    before = texts(adopted)
    assert [stamped.stamped for stamped in adopted.sides.stamp()] == [4] * 5
    assert texts(adopted) == before
    assert len(before[f"{adopted.writer}-1-exp_1"]) > 30_000
    assert all('"title": "its own"' in metadata for metadata, _ in adopted.rows().values())


def test_a_record_that_is_given_to_another_user_meanwhile_is_not_taken_back(
    adopted: Adopted,
) -> None:
    """Neither by a stamp nor by a write that was planned before."""
    id_ = f"{adopted.writer}-1-exp_0"
    given = {"user_id": 2, "exp": "exp_9"}
    store = adopted.sides._connections.store
    (planned,) = [stamp for stamp in store.stamps(["1"]) if stamp.vector_id == id_]
    adopted.run(
        f"UPDATE {adopted.table} SET {adopted.metadata} = "
        f"({adopted.metadata}::jsonb || '{json.dumps(given)}')"
        f" WHERE {adopted.id} = '{id_}'"
    )
    before = adopted.rows()
    stamp = planned._replace(fingerprint="f" * 32, version=1)
    vector = adopted.embedder.embed(["anything"])[0]
    store.publish([Record(stamp, adopted.written[0]["text"], "{}", None)], [])
    store.publish([Record(stamp, "anything", "{}", vector)], [])
    assert adopted.rows() == before


def test_a_role_that_may_not_write_is_told_what_its_owner_has_to_run(
    adopted: Adopted, postgres_server: PostgresServer
) -> None:
    """And that is all that was missing: the claims lie in undrift's own schema."""
    assert all(report.is_in_sync for report in adopted.sides.sync_all())
    role = f"reader_{adopted.writer}"
    postgres_server.create_role(role, "secret")
    adopted.run(f"GRANT SELECT ON {adopted.table} TO {role}")
    url = f"{with_login(adopted.url, role, 'secret')}?table=public.{adopted.table}"
    (stamp, *_) = adopted.sides._connections.store.stamps(["1"])
    gone = Deletion("1", stamp.vector_id, stamp.version)
    with closing(open_store(url, fields=adopted.fields())) as store:
        with pytest.raises(ConfigError, match="may not write") as caught:
            store.publish([], [gone])
        for statement in caught.value.fix.removeprefix("let the owner run: ").split("; "):
            adopted.run(statement)
        store.publish([], [gone])
    assert stamp.vector_id not in adopted.rows()
