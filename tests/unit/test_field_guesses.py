"""Which field of another program's records holds what is told by values, whatever the names."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undrift.adoption import Field, StoreFields
from undrift.config.fields import store_fields_of
from undrift.config.sections import File
from undrift.proposal.collections import (
    Embedding,
    FieldsProposal,
    SourceEntity,
    guess_fields,
    owner_values,
)
from undrift.proposal.model import Proposal, ProposedEntity
from undrift.proposal.toml import written
from undrift.stores.collections import CollectionSample, flattened

EMBEDDING = Embedding("openai/text-embedding-3-small@api.openai.com:1536:l2", 1536)
KINDS = ("note", "talk")

Record = dict[str, str]


@dataclass(frozen=True)
class Planted:
    """A source, a collection made of it, and where in the collection everything is."""

    records: Sequence[Record]
    entities: Sequence[SourceEntity]
    paths: Mapping[str, str]

    @property
    def owners(self) -> frozenset[str]:
        return frozenset(entity.owner_id for entity in self.entities)

    @property
    def sample(self) -> CollectionSample:
        return sample_of(self.records, record_id=self.paths["id"])

    @property
    def guess(self) -> FieldsProposal:
        return guess_fields(self.sample, self.owners, self.entities, embedding=EMBEDDING)


def sample_of(records: Sequence[Mapping[str, str]], **more: object) -> CollectionSample:
    sample = CollectionSample(location="here", url="there", name="jobs", records=records)
    return replace(sample, **more)  # type: ignore[arg-type]


def note(
    owner: str, entity_id: str, text: str = "", kind: str = "note", **fields: str
) -> SourceEntity:
    text = text or f"Note {entity_id} of {owner}"
    return SourceEntity(owner_id=owner, kind=kind, entity_id=entity_id, text=text, fields=fields)


_NAMES = st.lists(
    st.from_regex(r"[a-z]{3,8}(\.[a-z]{3,8})?", fullmatch=True), min_size=9, max_size=9, unique=True
)
_PARTS = ("id", "owner", "kind", "entity_id", "text", "part", "lang", "page", "junk")


@st.composite
def planted(draw: st.DrawFn, *, in_parts: bool = False) -> Planted:
    """Users and entities of any number, under fields of any name, beside fields of no meaning."""
    paths = dict(zip(_PARTS, draw(_NAMES), strict=True))
    entities: list[SourceEntity] = []
    records: list[Record] = []
    for owner in draw(st.lists(st.uuids().map(str), min_size=1, max_size=4, unique=True)):
        for number in range(draw(st.integers(2, 4))):
            kind = KINDS[number % 2]
            entity = note(owner, f"{kind}-{number}", f"{kind} {number} of {owner}", kind)
            entities.append(entity)
            for part in range(2 if in_parts else 1):
                text = f"{entity.text[: 20 + 5 * part]} …{part}" if in_parts else entity.text
                records.append(
                    {
                        paths["id"]: f"record {len(records)}",
                        paths["owner"]: owner,
                        paths["kind"]: kind,
                        paths["entity_id"]: entity.entity_id,
                        paths["text"]: text,
                        paths["lang"]: "en",
                        paths["junk"]: draw(st.text(max_size=9)),
                        **({paths["part"]: str(part)} if in_parts else {}),
                    }
                )
    return Planted(records, entities, paths)


# --- properties ---------------------------------------------------------------------------------


@given(planted())
def test_every_field_is_found_whatever_it_is_called(world: Planted) -> None:
    fields = world.guess.fields
    assert fields is not None
    found = {name: getattr(fields, name) for name in ("owner", "kind", "entity_id", "text")}
    assert {name: str(field) for name, field in found.items()} == {
        name: world.paths[name] for name in found
    }
    assert fields.part is None
    assert fields.model == Field(value=EMBEDDING.model)


@given(planted(in_parts=True))
def test_parts_are_found_whatever_they_are_called(world: Planted) -> None:
    fields = world.guess.fields
    assert fields is not None
    assert str(fields.part) == world.paths["part"]


@given(planted(), st.randoms(use_true_random=False))
def test_the_order_of_the_records_and_entities_does_not_matter(
    world: Planted, random: Random
) -> None:
    shuffled = replace(
        world,
        records=random.sample(world.records, len(world.records)),
        entities=random.sample(world.entities, len(world.entities)),
    )
    assert shuffled.guess.found == world.guess.found
    assert shuffled.guess.equal_texts == world.guess.equal_texts


@given(planted(), st.integers(0, 20))
def test_records_of_nobody_do_not_disturb_the_guess(world: Planted, strangers: int) -> None:
    """They are counted, and the confidence says so."""
    records = [*world.records, *({world.paths["owner"]: f"x{n}"} for n in range(strangers))]
    guess = replace(world, records=records).guess
    assert guess.found == world.guess.found
    of_all = f"{len(world.records)} of {len(records)} sampled records"
    assert guess.reasons["owner"].startswith(of_all)


@given(st.lists(st.dictionaries(st.text(min_size=1, max_size=5), st.text(max_size=9)), max_size=5))
def test_a_collection_of_anything_is_never_adopted_for_somebody_elses_users(
    records: list[Record],
) -> None:
    """No user of the source is named in it, so there is nothing to adopt; and no error either."""
    guess = guess_fields(sample_of(records), [], [], embedding=EMBEDDING)
    assert guess.fields is None
    assert "owner" in guess.missing
    assert tomllib.loads(file_of(guess))["store"].keys() == {"url", "namespace"}


@given(planted())
def test_what_is_written_is_read_back_as_what_was_guessed(world: Planted) -> None:
    guess = world.guess
    parsed = File.model_validate(tomllib.loads(file_of(guess)))
    assert store_fields_of(parsed.store) == guess.fields


@given(planted())
def test_neither_a_text_nor_an_id_is_written(world: Planted) -> None:
    text = file_of(world.guess)
    for entity in world.entities:
        assert entity.text not in text
        assert entity.owner_id not in text


def file_of(guess: FieldsProposal) -> str:
    entity = ProposedEntity(kind="note", table="notes", owner="user_id", text="{{ title }}")
    return written(
        Proposal(documents=None, entities=(entity,), chosen="as it is"),
        source_url="env:DATABASE_URL",
        store_url="env:VECTOR_URL",
        embedder="local",
        namespace="default",
        adopted=guess,
    )


# --- each writer's layout -----------------------------------------------------------------------

ENTITIES = [note(str(owner), f"n{owner}{n}") for owner in (7, 8) for n in (1, 2)]


def metadata_of(entity: SourceEntity) -> dict[str, object]:
    return {"user_id": int(entity.owner_id), "note": entity.entity_id}


LAYOUTS: Mapping[str, tuple[CollectionSample, StoreFields]] = {
    "LangChain in PostgreSQL": (
        sample_of(
            [
                flattened({"id": f"r{n}", "document": e.text, "cmetadata": metadata_of(e)})
                for n, e in enumerate(ENTITIES)
            ],
            record_id="id",
            stamp_places=("cmetadata",),
            fixed={"collection_id": "c1"},
        ),
        StoreFields(
            owner=Field(path=("cmetadata", "user_id")),
            kind=Field(value="note"),
            entity_id=Field(path=("cmetadata", "note")),
            text=Field(path=("document",)),
            fixed={"collection_id": "c1"},
        ),
    ),
    "LlamaIndex in PostgreSQL": (
        sample_of(
            [
                flattened(
                    {
                        "text": e.text,
                        "node_id": f"r{n}",
                        "metadata_": {**metadata_of(e), "_node_content": '{"text": ""}'},
                    }
                )
                for n, e in enumerate(ENTITIES)
            ],
            record_id="node_id",
            id_is_usual=False,
            stamp_places=("metadata_",),
        ),
        StoreFields(
            owner=Field(path=("metadata_", "user_id")),
            kind=Field(value="note"),
            entity_id=Field(path=("metadata_", "note")),
            text=Field(path=("text",)),
            id=Field(path=("node_id",)),
        ),
    ),
    "Mastra in PostgreSQL": (
        sample_of(
            [
                flattened({"vector_id": f"r{n}", "metadata": {**metadata_of(e), "text": e.text}})
                for n, e in enumerate(ENTITIES)
            ],
            record_id="vector_id",
            stamp_places=("metadata",),
        ),
        StoreFields(
            owner=Field(path=("metadata", "user_id")),
            kind=Field(value="note"),
            entity_id=Field(path=("metadata", "note")),
            text=Field(path=("metadata", "text")),
        ),
    ),
    "LangChain in Qdrant": (
        sample_of(
            [flattened({"page_content": e.text, "metadata": metadata_of(e)}) for e in ENTITIES]
        ),
        StoreFields(
            owner=Field(path=("metadata", "user_id")),
            kind=Field(value="note"),
            entity_id=Field(path=("metadata", "note")),
            text=Field(path=("page_content",)),
        ),
    ),
    "a Qdrant client": (
        sample_of([flattened({**metadata_of(e), "text": e.text}) for e in ENTITIES]),
        StoreFields(
            owner=Field(path=("user_id",)),
            kind=Field(value="note"),
            entity_id=Field(path=("note",)),
            text=Field(path=("text",)),
        ),
    ),
    "columns": (
        sample_of(
            [
                {"id": f"r{n}", "owner": e.owner_id, "note": e.entity_id, "body": e.text}
                for n, e in enumerate(ENTITIES)
            ],
            record_id="id",
            stamp_places=("extra", "more"),
        ),
        StoreFields(
            owner=Field(path=("owner",)),
            kind=Field(value="note"),
            entity_id=Field(path=("note",)),
            text=Field(path=("body",)),
            stamp=Field(path=("extra",)),
        ),
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_writers_layout_is_read(layout: str) -> None:
    sample, expected = LAYOUTS[layout]
    guess = guess_fields(sample, ["7", "8"], ENTITIES, embedding=None)
    assert guess.fields == expected
    assert guess.matched == guess.equal_texts == 4
    assert "4 of 4" in guess.reasons["owner"]


def test_what_the_source_is_asked_for_are_the_values_that_may_be_owners() -> None:
    records = [{"a": "7", "b": "7", "c": "x" * 3_000}, {"a": "8", "b": "nul\x00"}]
    assert owner_values(sample_of(records)) == ["7", "8"]


def test_nested_fields_are_flattened_and_stamps_left_out() -> None:
    record = {
        "a": {"b": {"c": 1}, "undrift": {"version": 1}},
        "with.dot": "x",
        "flag": True,
        "none": None,
        "list": [1],
        "empty": "",
    }
    assert flattened(record) == {"a.b.c": "1", "flag": "true"}


# --- what may agree by chance -------------------------------------------------------------------


def test_small_numbers_under_names_that_tell_nothing_are_left_to_a_person() -> None:
    """Control: under a name that says whose it is they are taken."""
    entities = [note(str(owner), str(n)) for owner in (1, 2, 3) for n in (1, 2, 3)]
    records = [{"page": str(n), "chunk": str(n % 3 + 1)} for n in (1, 2, 3)]
    guess = guess_fields(sample_of(records), ["1", "2", "3"], entities)
    assert guess.fields is None
    assert "by chance" in guess.missing["entity_id"]
    records = [{"user_id": str(n), "note_id": str(n % 3 + 1)} for n in (1, 2, 3)]
    assert guess_fields(sample_of(records), ["1", "2", "3"], entities).fields is not None


def test_an_entity_id_has_to_be_that_very_users() -> None:
    """A field with other users' ids is no better than one with none."""
    swapped = [
        {"user": "ann", "ref": "of-bob", "note": "of-ann"},
        {"user": "bob", "ref": "of-ann", "note": "of-bob"},
    ]
    guess = guess_fields(
        sample_of(swapped), ["ann", "bob"], [note("ann", "of-ann"), note("bob", "of-bob")]
    )
    assert str(guess.found["entity_id"]) == "note"


def test_the_fields_own_name_decides_between_equal_values() -> None:
    records = [{"uid": "ann", "created_by": "ann", "user_id": "ann", "note": "n1"}]
    guess = guess_fields(sample_of(records), ["ann"], [note("ann", "n1")])
    assert str(guess.found["owner"]) in ("uid", "user_id")


# --- kinds --------------------------------------------------------------------------------------


def test_ids_that_several_kinds_have_need_a_field_that_tells() -> None:
    """Or texts that do; else a person has to say."""
    entities = [note("ann", n, f"{kind} text {n}", kind) for kind in KINDS for n in ("1", "2")]
    bare = [{"user_id": "ann", "note_id": n} for n in ("1", "2")]
    guess = guess_fields(sample_of(bare), ["ann"], entities)
    assert guess.fields is None
    assert guess.missing["kind"] == "the ids may be of kind note or talk, and no field tells which"
    told = [{**record, "text": f"talk text {record['note_id']}"} for record in bare]
    assert guess_fields(sample_of(told), ["ann"], entities).found["kind"] == Field(value="talk")
    both = [{**bare[0], "type": "notes"}, {**bare[1], "type": "talks"}]
    guess = guess_fields(sample_of(both), ["ann"], entities)
    assert (str(guess.found["kind"]), guess.renamed) == (
        "type",
        {"note": "notes", "talk": "talks"},
    )


# --- parts --------------------------------------------------------------------------------------

LONG = note("ann", "n1", " ".join(f"word{n}" for n in range(40)))


def test_records_that_differ_and_are_not_numbered_are_parts_all_the_same() -> None:
    """As duplicates all but one would be deleted."""
    records = [
        {"id": f"r{n}", "user_id": "ann", "note": "n1", "text": LONG.text[n * 90 :][:90]}
        for n in range(3)
    ]
    guess = guess_fields(sample_of(records, record_id="id"), ["ann"], [LONG])
    assert str(guess.found["part"]) == "id"
    assert "taken for parts" in guess.notes[0]
    assert guess.reasons["text"] == "3 of 3 texts in text are pieces of what the source renders"


def test_records_of_equal_content_are_duplicates() -> None:
    record = {"user_id": "ann", "note": "n1", "text": LONG.text}
    records = [{**record, "id": f"r{n}"} for n in range(2)]
    guess = guess_fields(sample_of(records, record_id="id"), ["ann"], [LONG])
    assert "part" not in guess.found
    assert "duplicates" in guess.notes[0]


# --- model --------------------------------------------------------------------------------------


def model_of(records: Sequence[Record], **more: object) -> tuple[Field | None, str]:
    named = [{"user_id": "ann", "note": "n1", **record} for record in records]
    guess = guess_fields(
        sample_of(named, **more), ["ann"], [note("ann", "n1")], embedding=EMBEDDING
    )
    told = guess.reasons.get("model") or guess.missing.get("model", "")
    return guess.found.get("model"), told


def test_a_field_with_the_models_identity_is_read() -> None:
    field, reason = model_of([{"made_by": EMBEDDING.model}])
    assert field == Field(path=("made_by",))
    assert reason == "1 of 1 sampled records name the model in made_by"


def test_another_spelling_of_the_model_is_its_identity_for_all() -> None:
    field, reason = model_of([{"embedding_model": "text-embedding-3-small"}])
    assert field == Field(value=EMBEDDING.model)
    assert reason == "embedding_model names it text-embedding-3-small"


def test_another_model_is_said_and_not_written() -> None:
    field, reason = model_of([{"model": "all-MiniLM-L6-v2"}])
    assert field is None
    assert "model names all-MiniLM-L6-v2" in reason
    assert "[embedder] name" in reason


def test_vectors_of_another_dimension_are_of_another_model() -> None:
    field, reason = model_of([{}], dimension=384)
    assert field is None
    assert reason.startswith("the vectors have 384 components")
    field, _ = model_of([{}], vectors={"small": 384, "large": 1536})
    assert field == Field(value=EMBEDDING.model)


# --- words --------------------------------------------------------------------------------------


def test_a_wording_is_found_that_makes_most_of_the_texts() -> None:
    """Control: with one that makes hardly any, none is proposed."""
    entities = [
        note("ann", f"n{n}", f"{n}: rendered", title=f"Title {n}", body=f"Body of {n}.")
        for n in range(5)
    ]
    records = [
        {
            "user_id": "ann",
            "note": e.entity_id,
            "text": f"# {e.fields['title']}\n{e.fields['body']}",
        }
        for e in entities
    ]
    guess = guess_fields(sample_of(records), ["ann"], entities)
    assert guess.texts == {"note": "# {{ title }}\n{{ body }}"}
    odd = [{**record, "text": f"{record['text']} {n}{n}{n}"} for n, record in enumerate(records)]
    assert guess_fields(sample_of(odd), ["ann"], entities).texts == {}


def test_a_difference_is_told_by_the_names_of_fields() -> None:
    entity = note("ann", "n1", "Rye. Flour, water.", title="Rye bread", steps="Flour, water")
    records = [{"user_id": "ann", "note": "n1", "text": "Rye bread, a long story of rye."}]
    guess = guess_fields(sample_of(records), ["ann"], [entity])
    assert guess.notes[-1] == (
        "note:n1 differs: only the stored text holds title; only the template renders steps"
    )
