"""From what a sample looks like to names, texts and a file, without a database."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from undrift.mapping import DocumentTable, EntitySpec, Mapping
from undrift.proposal import Proposal, ProposedEntity
from undrift.proposal.naming import TemplateNames, is_readable, kind_of, owner_in
from undrift.proposal.toml import quoted, written
from undrift.render import Renderer
from undrift.survey import Look, survey, survey_rows

# TOML holds every character but half a surrogate pair.
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


# --- what a sample is made of -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "look"),
    [
        ("Engineer", Look.SHORT_TEXT),
        ("word " * 30, Look.LONG_TEXT),
        ("2019-01", Look.DATE),
        ("2019-01-31T10:00:00Z", Look.DATE),
        ("https://acme.example/x", Look.LINK),
        ("ann@acme.example", Look.LINK),
        ("7b1c9e52-52a5-4f3c-9d0e-0a1b2c3d4e5f", Look.CODE),
        ("12.5", Look.NUMBER),
        (12, Look.NUMBER),
        (True, Look.FLAG),
        (["Go", "SQL"], Look.NAMES),
        ([{"name": "Go"}], Look.NAMES),
        ([{"level": 3}], Look.OBJECT),
        ({"city": "Bern"}, Look.OBJECT),
        ("", Look.NOTHING),
        (None, Look.NOTHING),
    ],
)
def test_a_value_is_told_by_its_look(value: object, look: Look) -> None:
    assert survey_rows([{"field": value}]).fields["field"].look is look


def test_lists_are_found_at_every_depth_and_nothing_else_is() -> None:
    found = survey(
        [
            {"jobs": [{"id": "a", "tasks": [{"t": "x"}]}], "deep": {"notes": ["n"]}, "name": "Ann"},
            {"jobs": None, "a.b": [{"t": "x"}]},
            {"jobs": "none"},
            ["no", "object"],
        ]
    )
    assert (found.documents, found.unreadable) == (3, 1)
    assert set(found.places) == {"$", "jobs[*]", "jobs[*].tasks[*]", "deep.notes[*]"}
    assert found.unaddressable == {"a.b"}
    jobs = found.places["jobs[*]"]
    assert (jobs.documents, jobs.elements, jobs.unlike) == (1, 1, 1)
    assert found.places["jobs[*].tasks[*]"].parent == "jobs[*]"


@pytest.mark.parametrize(
    ("ids", "is_id"),
    [(["a", "b"], True), ([1, 2], True), (["a", "a"], False), ([1.5], False), ([True], False)],
)
def test_a_field_is_an_id_if_no_owner_has_it_twice(ids: list[object], is_id: bool) -> None:
    document = {"jobs": [{"id": value} for value in ids]}
    found = survey([document, {"jobs": [{"id": "a"}]}])
    assert found.places["jobs[*]"].fields["id"].is_id is is_id


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("experiences", "experience"),
        ("work", "experience"),
        ("workExperiences", "experience"),
        ("education", "education"),
        ("categories", "category"),
        ("addresses", "address"),
        ("boxes", "box"),
        ("status", "status"),
        ("my notes", "my_note"),
        ("Größen", "größen"),
    ],
)
def test_a_kind_is_the_singular(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_an_owner_column_is_found_by_name_or_by_what_it_points_at() -> None:
    assert owner_in(["id", "userId", "title"], {}) == "userId"
    assert owner_in(["account_id", "user_id"], {}) == "user_id"
    assert owner_in(["id", "belongs_to"], {"belongs_to": "users"}) == "belongs_to"
    assert owner_in(["id", "invoice"], {"invoice": "invoices"}) is None


@pytest.mark.parametrize("name", ["title", "größe", "type", "value", "_x"])
def test_a_plain_name_is_read_as_it_is(name: str) -> None:
    assert is_readable(name)
    assert TemplateNames([name]).name(name) == name


@pytest.mark.parametrize(
    "name", ["", "two words", "a.b", "is", "class", "loop", "parent", "range", "none", "{{", "1st"]
)
def test_a_name_that_templates_cannot_hold_gets_another(name: str) -> None:
    assert not is_readable(name)
    names = TemplateNames([name, "two_words"])
    found = names.name(name)
    assert is_readable(found)
    assert found != "two_words"
    assert names.aliases == {found: (name,)}
    assert names.name(name) == found


@given(st.lists(NAMES, min_size=1, max_size=6, unique=True))
def test_whatever_fields_are_called_their_templates_compile(fields: list[str]) -> None:
    names = TemplateNames(fields)
    text = "".join(f"{{{{ {names.name(field)} }}}}" for field in fields)
    spec = EntitySpec(kind="note", path="$", key=(), text=text, aliases=names.aliases)
    Renderer(Mapping(documents=DocumentTable(), entities=(spec,)))
    assert len({names.name(field) for field in fields}) == len(fields)


# --- the file -----------------------------------------------------------------------------------


@given(NAMES)
def test_any_name_survives_the_file(name: str) -> None:
    assert tomllib.loads(f"name = {quoted(name)}") == {"name": name}


@given(NAMES, NAMES, NAMES)
def test_no_name_breaks_out_of_the_file(table: str, field: str, note: str) -> None:
    """Comments hold names, too, and a line's end in one must not begin a line."""
    proposal = Proposal(
        documents=DocumentTable(table=table, owner=field, document="data"),
        entities=(
            ProposedEntity(
                kind="note",
                path="notes[*]",
                id=field,
                key=(field,),
                text="{{ a }}",
                metadata=(field,),
                aliases={"a": (field,)},
                seen=note,
                left_out=(field,),
            ),
        ),
        chosen=note,
        notes=(note,),
    )
    text = written(
        proposal, source_url="env:A", store_url="env:B", embedder="hashing", namespace="default"
    )
    parsed = tomllib.loads(text)
    assert parsed["source"]["documents"]["table"] == table
    (entity,) = parsed["entity"]
    assert entity["aliases"] == {"a": [field]}
    assert entity["metadata"] == [field]
    assert set(parsed) == {"source", "entity", "store", "embedder"}
