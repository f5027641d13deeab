"""Documents and mappings that the assistant's tools must not break, lose or misread."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from support.layouts import ENGINEER, document, experience
from support.sides import World
from undrift import InvalidDocument, OwnerNotFound, Undrift, UnsupportedError
from undrift.assistant import CareerAssistant, ToolDone, ToolRetry
from undrift.mapping import KIND_DEFAULTS, DocumentTable, EntitySpec, default_entities
from undrift.mapping import Mapping as SourceMapping

EXPERIENCE, PROJECT_KIND = KIND_DEFAULTS["experience"], KIND_DEFAULTS["project"]
PROJECT = {"id": "p_new", "title": "Rose window"}

NewWorld = Callable[..., World]
Mapped = Callable[..., CareerAssistant]


def raw_of(world: World, owner: str = "1") -> str:
    """The owner's document, letter by letter."""
    query = "SELECT CAST(filtered_data AS text) AS raw FROM profiles WHERE user_id = :owner"
    return str(world.source.rows(query, owner=int(owner))[0]["raw"])


def put_raw(world: World, raw: str, owner: str = "1") -> None:
    """Make *raw* the owner's document, letter by letter."""
    world.remove_owners([owner])
    as_json = "CAST(:raw AS json)" if world.source.is_postgres else ":raw"
    world.source.run(f"INSERT INTO profiles VALUES (:owner, {as_json})", owner=int(owner), raw=raw)


@pytest.fixture(params=["text", "json"])
def verbatim(request: pytest.FixtureRequest) -> World:
    """A world whose column keeps every letter: SQLite's text, PostgreSQL's json."""
    if request.param == "text":
        found: World = request.getfixturevalue("sqlite")
        return found
    world: World = request.getfixturevalue("postgres")
    world.source.run("ALTER TABLE profiles ALTER filtered_data TYPE json")
    return world


@pytest.fixture
def mapped(sqlite: World) -> Iterator[Mapped]:
    """A function that opens the tools over owner 1's document with a mapping of its own."""
    with ExitStack() as opened:

        def tools(found: object, *entities: EntitySpec) -> CareerAssistant:
            put_raw(sqlite, json.dumps(found))
            sides = Undrift(
                source=sqlite.source_url,
                store=sqlite.store_url,
                embedder=sqlite.embedder,
                mapping=SourceMapping(documents=DocumentTable(), entities=entities),
            )
            opened.enter_context(sides)
            assert sides.sync("1").is_in_sync
            return CareerAssistant(sides)

        yield tools


# --- documents --------------------------------------------------------------------------------


def test_what_is_not_touched_keeps_its_spelling(verbatim: World) -> None:
    """Numbers beyond any type, NUL escapes, keys with dots, blanks and nothing in them."""
    rest = (
        '"n": [1e999, -0, 0.10, 12345678901234567890123, 1E+2], "a.b": {"": null},'
        ' "nul\\u0000": "x\\u0000y", "$": "{{ x }}", "é": "e\u0301"'
    )
    put_raw(verbatim, f'{{{rest}, "experiences": [{{"id": "exp_1", "title": "Baker"}}]}}')
    verbatim.sides.sync("1")
    tools = CareerAssistant(verbatim.sides)
    done = tools.add_project_to_experience("1", experience_id="exp_1", project=PROJECT)
    assert isinstance(done, ToolDone)
    inside = (
        '[{"id": "exp_1", "title": "Baker", "projects": [{"id": "p_new", "title": "Rose window"}]}]'
    )
    expected = f'{{{rest}, "experiences": {inside}}}'
    assert raw_of(verbatim).replace(" ", "") == expected.replace(" ", "")


@pytest.mark.parametrize(
    "rest",
    [
        '"twice": 1, "twice": 2',
        '"inside": {"a": [{"twice": 1, "twice": 1}]}',
        '"half": "\\ud800"',
        f'"deep": {"[" * 600}{"]" * 600}',
        f'"skills": [{{"name": "x", "a": {"[" * 450}{"]" * 450}}}, {{"name": "x"}}]',
        '"projects": [{"id": "p", "title": "a"}, {"id": "p", "title": "b"}]',
    ],
    ids=["key-twice", "key-twice-inside", "surrogate", "deep", "deep-minted", "id-twice"],
)
def test_a_document_that_cannot_be_written_back_whole_is_left_alone(
    verbatim: World, rest: str
) -> None:
    """It is the document's fault, and not laid at the model's door."""
    raw = f'{{"experiences": [{{"id": "exp_1", "title": "Baker"}}], {rest}}}'
    put_raw(verbatim, raw)
    tools = CareerAssistant(verbatim.sides)
    calls: list[Callable[[], object]] = [
        lambda: tools.add_experience("1", {"title": "Nurse"}),
        lambda: tools.update_experience("1", "exp_1", {"title": "Nurse"}),
        lambda: tools.add_project_to_experience("1", experience_id="exp_1", project=PROJECT),
    ]
    for call in calls:
        with pytest.raises(InvalidDocument):
            call()
    assert raw_of(verbatim) == raw


@pytest.mark.parametrize(
    "raw",
    [
        '\ufeff{"experiences": []}',
        '{"experiences": {}}',
        '{"experiences": "text"}',
        '{"experiences": [[]]}',
        '{"experiences": [{"title": "a", "projects": {}}]}',
        '{"experiences": [NaN]}',
        "{",
        "",
    ],
    ids=["bom", "object", "text", "list-in-list", "projects", "nan", "cut", "empty"],
)
def test_a_document_of_another_shape_is_left_alone(sqlite: World, raw: str) -> None:
    """Nothing is guessed into it."""
    put_raw(sqlite, raw)
    with pytest.raises(InvalidDocument):
        CareerAssistant(sqlite.sides).add_experience("1", {"title": "Nurse"})
    assert raw_of(sqlite) == raw


def test_a_nesting_that_is_the_models_own_is_answered(verbatim: World) -> None:
    """Just as deep as an object may be by itself, and too deep where it is put."""
    put_raw(verbatim, json.dumps(ENGINEER))
    value: object = []
    for _ in range(250):
        value = [value]
    tools = CareerAssistant(verbatim.sides)
    answer = tools.add_project_to_experience(
        "1", experience_id="exp_1", project={"title": "x", "more": value}
    )
    assert isinstance(answer, ToolRetry)
    assert answer.code == "invalid_arguments"
    assert json.loads(raw_of(verbatim)) == ENGINEER


def test_a_large_document_is_written_whole(world: World) -> None:
    """Ten megabytes of it."""
    large = document(experience("exp_1", "x" * 10_000_000))
    world.bring_in_sync({"1": large})
    done = CareerAssistant(world.sides).add_project_to_experience(
        "1", experience_id="exp_1", project=PROJECT
    )
    assert isinstance(done, ToolDone)
    assert done.vector == "written"
    large["experiences"][0]["projects"] = [PROJECT]
    assert json.loads(raw_of(world)) == large


# --- mappings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [{}, {"cv": None}, {"cv": {}}, {"cv": {"jobs": None}}])
def test_lists_that_are_not_there_yet_are_created_where_the_path_says(
    mapped: Mapped, sqlite: World, before: dict[str, Any]
) -> None:
    """Null is as good as nothing."""
    tools = mapped(
        before,
        replace(EXPERIENCE, path="cv.jobs[*]"),
        replace(PROJECT_KIND, path="cv.jobs[*].works[*]"),
    )
    done = tools.add_experience("1", {"id": "exp_1", "title": "Baker"})
    assert isinstance(done, ToolDone)
    done = tools.add_project_to_experience("1", experience_title="baker", project=PROJECT)
    assert isinstance(done, ToolDone)
    job = {"id": "exp_1", "title": "Baker", "works": [PROJECT]}
    assert json.loads(raw_of(sqlite)) == {"cv": {"jobs": [job]}}


def test_a_path_from_the_root_is_the_same_path(mapped: Mapped, sqlite: World) -> None:
    """``$.experiences[*]`` creates no field of the name ``$``."""
    tools = mapped(
        {},
        replace(EXPERIENCE, path="$.experiences[*]"),
        replace(PROJECT_KIND, path="experiences[*].projects[*]"),
    )
    assert isinstance(tools.add_experience("1", {"id": "exp_1", "title": "Baker"}), ToolDone)
    done = tools.add_project_to_experience("1", experience_id="exp_1", project=PROJECT)
    assert isinstance(done, ToolDone)
    job = {"id": "exp_1", "title": "Baker", "projects": [PROJECT]}
    assert json.loads(raw_of(sqlite)) == {"experiences": [job]}


def test_of_several_lists_of_experiences_one_has_projects(mapped: Mapped, sqlite: World) -> None:
    """New ones go there; a project for another's is refused, an update is not."""
    found = {
        "volunteer": [{"id": "vol_1", "title": "Fire brigade"}],
        "work": [{"id": "exp_1", "title": "Baker"}],
    }
    tools = mapped(
        found,
        replace(EXPERIENCE, path="volunteer[*]"),
        replace(EXPERIENCE, path="work[*]"),
        replace(PROJECT_KIND, path="work[*].projects[*]"),
    )
    answer = tools.add_project_to_experience("1", experience_id="vol_1", project=PROJECT)
    assert isinstance(answer, ToolRetry)
    assert answer.code == "invalid_arguments"
    done = tools.add_project_to_experience("1", experience_id="exp_1", project=PROJECT)
    assert isinstance(done, ToolDone)
    done = tools.update_experience("1", "vol_1", {"title": "Lifeboat"})
    assert (isinstance(done, ToolDone), done.message[:5]) == (True, "The e")
    assert isinstance(tools.add_experience("1", {"id": "exp_2", "title": "Nurse"}), ToolDone)
    assert json.loads(raw_of(sqlite)) == {
        "volunteer": [{"id": "vol_1", "title": "Lifeboat"}],
        "work": [
            {"id": "exp_1", "title": "Baker", "projects": [PROJECT]},
            {"id": "exp_2", "title": "Nurse"},
        ],
    }


def test_no_update_removes_what_stands_below_an_experience_of_any_list(
    mapped: Mapped, sqlite: World
) -> None:
    """Each list has its own field for projects, and only there is it protected."""
    found = {
        "work": [{"id": "a", "title": "Baker", "projects": [PROJECT], "works": ["bread"]}],
        "archive": {
            "jobs": [{"id": "b", "title": "Mason", "works": [{"id": "p", "title": "Arch"}]}]
        },
    }
    tools = mapped(
        found,
        replace(EXPERIENCE, path="work[*]"),
        replace(PROJECT_KIND, path="work[*].projects[*]"),
        replace(EXPERIENCE, path="archive.jobs[*]"),
        replace(PROJECT_KIND, path="archive.jobs[*].works[*]"),
    )
    for experience_id, field in (("a", "projects"), ("b", "works")):
        answer = tools.update_experience("1", experience_id, {field: []})
        assert isinstance(answer, ToolRetry)
        assert (answer.code, field in answer.message) == ("invalid_arguments", True)
    assert json.loads(raw_of(sqlite)) == found
    # In the other list the name stands for nothing but itself.
    assert isinstance(tools.update_experience("1", "a", {"works": ["rolls"]}), ToolDone)
    assert isinstance(tools.update_experience("1", "b", {"projects": 3}), ToolDone)


def test_no_update_changes_an_id_by_way_of_an_alias(mapped: Mapped, sqlite: World) -> None:
    """The document's name for the field may be the field that names the entry."""
    found = {"work": [{"name": "Baker", "company": "Crust"}]}
    tools = mapped(found, replace(EXPERIENCE, path="work[*]", id="name"))
    answer = tools.update_experience("1", "Baker", {"title": "Miller"})
    assert isinstance(answer, ToolRetry)
    assert "Ids stay as they are" in answer.message
    assert json.loads(raw_of(sqlite)) == found


def test_without_a_place_for_projects_experiences_are_written_all_the_same(
    mapped: Mapped,
) -> None:
    """What is missing is told when it is asked for."""
    tools = mapped({"experiences": [{"id": "exp_1", "title": "Baker"}]}, EXPERIENCE)
    assert isinstance(tools.update_experience("1", "exp_1", {"title": "Nurse"}), ToolDone)
    assert isinstance(tools.add_experience("1", {"title": "Baker"}), ToolDone)
    with pytest.raises(UnsupportedError, match="no place for a project"):
        tools.add_project_to_experience("1", experience_id="exp_1", project=PROJECT)


@pytest.mark.parametrize("id_field", ["meta.id", "{{ title }}-{{ start }}"])
def test_ids_that_no_field_holds_are_not_made_up(
    mapped: Mapped, sqlite: World, id_field: str
) -> None:
    """A dotted name or a template is no place to write an id to."""
    tools = mapped({"experiences": []}, replace(EXPERIENCE, id=id_field))
    with pytest.raises(UnsupportedError, match="plain id"):
        tools.add_experience("1", {"title": "Baker"})
    assert json.loads(raw_of(sqlite)) == {"experiences": []}


def test_a_field_is_changed_under_the_name_that_the_document_gives_it(sqlite: World) -> None:
    """An application that reads ``position`` must not go on showing the old one."""
    before = [
        {"id": "a", "position": "Engineer", "name": "Acme", "startDate": "2019", "summary": "x"},
        {"id": "b", "title": "Engineer", "organization": "Acme"},
        {"id": "c", "name": "Acme"},  # stands for title and company at once
    ]
    sqlite.bring_in_sync({"1": {"experiences": before}})
    tools = CareerAssistant(sqlite.sides)
    changes = {"title": "Nurse", "company": "St. Mary", "start": "2020", "description": "y"}
    for entity_id in "abc":
        assert isinstance(tools.update_experience("1", entity_id, changes), ToolDone)
    assert json.loads(raw_of(sqlite))["experiences"] == [
        {"id": "a", "position": "Nurse", "name": "St. Mary", "startDate": "2020", "summary": "y"},
        {"id": "b", "title": "Nurse", "organization": "St. Mary", "start": "2020",
         "description": "y"},
        {"id": "c", "name": "Acme", **changes},
    ]  # fmt: skip
    titles = {one.metadata["title"] for one in tools.get_experiences("1")}
    companies = {one.metadata["company"] for one in tools.get_experiences("1")}
    assert (titles, companies) == ({"Nurse"}, {"St. Mary"})


def test_a_where_condition_of_several_parts_binds_together(sqlite: World) -> None:
    """``a OR b`` must not let the tools reach another owner's row, or a row that is left out."""
    sqlite.source.run("ALTER TABLE profiles ADD deleted text")
    for owner in ("1", "2", "3"):
        sqlite.put(owner, document(experience("exp_1")))
    sqlite.source.run("UPDATE profiles SET deleted = 'yes' WHERE user_id = 3")
    mapping = SourceMapping(
        documents=DocumentTable(where="deleted IS NULL OR deleted LIKE 'n%:no'"),
        entities=default_entities(),
    )
    with Undrift(
        source=sqlite.source_url,
        store=sqlite.store_url,
        embedder=sqlite.embedder,
        mapping=mapping,
    ) as sides:
        tools = CareerAssistant(sides)
        done = tools.add_project_to_experience("1", experience_id="exp_1", project=PROJECT)
        assert isinstance(done, ToolDone)
        with pytest.raises(OwnerNotFound, match="No such user: 3"):
            tools.add_experience("3", {"title": "x"})
    for owner in ("2", "3"):
        assert json.loads(raw_of(sqlite, owner)) == document(experience("exp_1"))
