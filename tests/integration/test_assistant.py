"""The assistant's tools on real databases: what they write, refuse, and never lose."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event
from typing import Any

import pytest
import sqlalchemy as sa

from support.layouts import ENGINEER, TablesLayout, document, experience
from support.postgres import PostgresServer
from support.sides import World
from undrift import (
    ConfigError,
    InvalidDocument,
    OwnerNotFound,
    TransientError,
    Undrift,
    UnsupportedError,
    WriteFailed,
)
from undrift.assistant import CareerAssistant, ToolDone, ToolRetry
from undrift.assistant.draft import Draft
from undrift.sources import editing

NewWorld = Callable[..., World]

PROJECT = {"title": "Rose window", "description": "Lead and coloured glass."}


def stored(world: World, owner: str = "1") -> dict[str, Any]:
    """The owner's document as the source holds it."""
    (row,) = world.source.rows(
        "SELECT CAST(filtered_data AS text) AS raw FROM profiles WHERE user_id = :owner",
        owner=int(owner),
    )
    decoded: dict[str, Any] = json.loads(row["raw"])
    return decoded


@pytest.fixture
def tools(world: World) -> CareerAssistant:
    """The tools over an engineer's profile that is in sync."""
    world.bring_in_sync({"1": ENGINEER, "2": document(experience("exp_1"))})
    return CareerAssistant(world.sides)


# --- what they write --------------------------------------------------------------------------


def test_a_project_is_added_to_the_experience_and_to_the_vectors(
    world: World, tools: CareerAssistant
) -> None:
    """And to nothing else: every other value of the document is as it was."""
    done = tools.add_project_to_experience("1", experience_id="exp_2", project=PROJECT)

    assert isinstance(done, ToolDone)
    assert (done.vector, done.key.kind) == ("written", "project")
    expected = json.loads(json.dumps(ENGINEER))
    expected["experiences"][1]["projects"] = [{**PROJECT, "id": done.id}]
    assert stored(world) == expected
    assert stored(world, "2") == document(experience("exp_1"))
    world.assert_store_holds({"1": expected, "2": document(experience("exp_1"))})


def test_an_experience_is_found_by_its_title(world: World, tools: CareerAssistant) -> None:
    """Whatever its case and spaces, alone or with the company."""
    for number, title in enumerate(["title of exp_2", "  Title  of EXP_2 at acme"]):
        project = {"title": f"Project {number}", "description": "x"}
        done = tools.add_project_to_experience("1", experience_title=title, project=project)
        assert isinstance(done, ToolDone)
    assert [p["title"] for p in stored(world)["experiences"][1]["projects"]] == [
        "Project 0",
        "Project 1",
    ]


def test_an_ambiguous_title_writes_nothing_and_names_the_candidates(
    world: World, tools: CareerAssistant
) -> None:
    """A guess would put the project into the wrong job."""
    twice = document(
        experience("exp_1", title="Engineer", start="2019"),
        experience("exp_2", title="engineer", start="2022"),
    )
    world.put("1", twice)
    answer = tools.add_project_to_experience("1", experience_title="Engineer", project=PROJECT)
    assert isinstance(answer, ToolRetry)
    assert answer.code == "ambiguous_reference"
    assert [(c.id, c.text) for c in answer.candidates] == [
        ("exp_1", "Engineer, Acme, 2019"),
        ("exp_2", "engineer, Acme, 2022"),
    ]
    assert stored(world) == twice


def test_an_experience_is_added_and_changed(world: World, tools: CareerAssistant) -> None:
    """What is not named stays as it is."""
    added = tools.add_experience("1", {"title": "Baker", "company": "Oven", "description": "Rye."})
    assert isinstance(added, ToolDone)
    changed = tools.update_experience("1", added.id, {"description": "Rye and spelt.", "end": None})
    assert isinstance(changed, ToolDone)
    assert (changed.key, changed.vector) == (added.key, "written")
    *others, baker = stored(world)["experiences"]
    assert others == ENGINEER["experiences"]
    assert baker == {
        "id": added.id,
        "title": "Baker",
        "company": "Oven",
        "description": "Rye and spelt.",
        "end": None,
    }
    best = tools.search_profile("1", "rye and spelt").hits[0]
    assert best.key == added.key


def test_a_profile_without_any_experience_gets_its_first(world: World) -> None:
    """The list is created where it belongs."""
    world.bring_in_sync({"1": {"skills": ["SQL"]}})
    done = CareerAssistant(world.sides).add_experience("1", {"id": "first", "title": "Baker"})
    assert isinstance(done, ToolDone)
    assert stored(world) == {"skills": ["SQL"], "experiences": [{"id": "first", "title": "Baker"}]}


def test_experiences_are_listed_with_their_ids_and_projects(tools: CareerAssistant) -> None:
    """Minted ids included, so that every one can be named."""
    first, second = tools.get_experiences("1")
    assert (first.id, [project.id for project in first.projects]) == ("exp_1", ["p_1"])
    assert (second.id, second.projects) == ("exp_2", ())
    assert first.text.startswith("Title of exp_1 at Acme")
    with pytest.raises(OwnerNotFound, match="No such user: 77"):
        tools.get_experiences("77")


def test_an_experience_without_an_id_is_named_by_its_minted_one(
    world: World, tools: CareerAssistant
) -> None:
    """A change of its key gives it another id, which the answer tells."""
    world.put("1", {"experiences": [{"title": "Baker", "company": "Oven"}]})
    (listed,) = tools.get_experiences("1")
    done = tools.update_experience("1", listed.id, {"title": "Master baker"})
    assert isinstance(done, ToolDone)
    assert done.id != listed.id
    assert [one.id for one in tools.get_experiences("1")] == [done.id]


def test_the_rest_of_a_document_keeps_its_spelling(sqlite: World) -> None:
    """Numbers that Python would round or shorten, the order of keys, other scripts."""
    raw = (
        '{"z": 1.10, "a": [1e400, -0, 0.1234567890123456789012, 123456789012345678901234567890],'
        ' "experiences": [{"id": "exp_1", "title": "Bäcker 🥖", "pay": 1.50}], "n": null}'
    )
    sqlite.source.run("INSERT INTO profiles VALUES (1, :raw)", raw=raw)
    sqlite.sides.sync("1")
    tools = CareerAssistant(sqlite.sides)
    done = tools.add_project_to_experience(
        "1", experience_id="exp_1", project={"id": "p", "title": "Brot"}
    )
    assert isinstance(done, ToolDone)
    (row,) = sqlite.source.rows("SELECT filtered_data FROM profiles")
    expected = raw.replace('"pay": 1.50}', '"pay": 1.50, "projects": [{"id":"p","title":"Brot"}]}')
    assert row["filtered_data"].replace(" ", "") == expected.replace(" ", "")


@pytest.mark.parametrize("json_type", ["json", "jsonb", "text"])
def test_every_type_of_column_is_written(json_type: str, new_postgres_world: NewWorld) -> None:
    """And stays of that type."""
    world = new_postgres_world()
    world.source.run("DROP TABLE profiles")
    world.source.run(f"CREATE TABLE profiles (user_id text, filtered_data {json_type})")
    value = f"CAST(:raw AS {json_type})"
    world.source.run(
        f"INSERT INTO profiles VALUES ('Ann', {value})",
        raw='{"experiences": [{"id": "exp_1", "title": "Baker"}]}',
    )
    world.sides.sync("Ann")
    done = CareerAssistant(world.sides).add_project_to_experience(
        "Ann", experience_id="exp_1", project=PROJECT
    )
    assert isinstance(done, ToolDone)
    assert done.vector == "written"


# --- many at once -----------------------------------------------------------------------------


def test_concurrent_calls_for_one_profile_lose_nothing(
    world: World, tools: CareerAssistant
) -> None:
    """Each is written under the row's lock, one after the other."""
    count = 12
    everybody = Barrier(count)

    def add(number: int) -> ToolDone | ToolRetry:
        everybody.wait(60)
        project = {"id": f"new_{number}", "title": f"Project {number}", "description": "x"}
        return tools.add_project_to_experience("1", experience_id="exp_2", project=project)

    with ThreadPoolExecutor(count) as threads:
        answers = list(threads.map(add, range(count)))

    assert all(isinstance(answer, ToolDone) for answer in answers)
    projects = stored(world)["experiences"][1]["projects"]
    assert {project["id"] for project in projects} == {f"new_{n}" for n in range(count)}
    assert world.sides.sync("1").is_in_sync


def test_control_without_the_lock_concurrent_writes_are_lost(sqlite: World) -> None:
    """Read, change, write: two that have read the same document, and the last one wins."""
    sqlite.bring_in_sync({"1": ENGINEER})
    both_have_read = Barrier(2)

    def add(number: int) -> None:
        changed = stored(sqlite)
        both_have_read.wait(60)
        changed["experiences"][1].setdefault("projects", []).append({"id": f"new_{number}"})
        sqlite.source.run("UPDATE profiles SET filtered_data = :raw", raw=json.dumps(changed))

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(add, range(2)))
    assert len(stored(sqlite)["experiences"][1]["projects"]) == 1


def test_a_row_that_another_program_holds_is_told_and_nothing_is_written(
    world: World, tools: CareerAssistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After waiting a while; the application's transaction is never disturbed."""
    monkeypatch.setattr(editing, "LOCK_SECONDS", 0.2)
    held, release = Event(), Event()

    def hold() -> None:
        with world.source.connection() as connection:
            if world.source.is_postgres:
                connection.exec_driver_sql("SELECT 1 FROM profiles WHERE user_id = 1 FOR UPDATE")
            else:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            held.set()
            assert release.wait(60)

    with ThreadPoolExecutor(1) as threads:
        holding = threads.submit(hold)
        assert held.wait(60)
        try:
            with pytest.raises(TransientError, match="changed by another program"):
                tools.add_project_to_experience("1", experience_id="exp_2", project=PROJECT)
        finally:
            release.set()
        holding.result(60)
    assert stored(world) == ENGINEER


# --- what they refuse -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("project", "says"),
    [
        ({}, "empty"),
        ({"description": ""}, "no text"),
        ({"title": "a\0b"}, "NUL"),
        ({"title": float("nan")}, "no JSON"),
        ({"title": object()}, "no JSON"),
        ({"title": "\ud800"}, "no JSON"),
        ({"id": "p_1", "title": "Again"}, "already"),
        ({"id": ["p"], "title": "Odd"}, "id"),
        ("Rose window", "no object"),
    ],
    ids=["empty", "no-text", "nul", "nan", "foreign", "surrogate", "taken", "odd-id", "text"],
)
def test_arguments_that_make_no_sense_are_answered_and_write_nothing(
    world: World, tools: CareerAssistant, project: dict[str, object], says: str
) -> None:
    """For the model to put right; nothing is raised."""
    answer = tools.add_project_to_experience("1", experience_id="exp_2", project=project)
    assert isinstance(answer, ToolRetry)
    assert answer.code == "invalid_arguments"
    assert says in answer.message
    assert stored(world) == ENGINEER
    assert world.sides.check("1").is_in_sync


@pytest.mark.parametrize("both", [True, False])
def test_an_experience_is_named_in_one_way(tools: CareerAssistant, both: bool) -> None:
    """Not in two, and not in none."""
    names = {"experience_id": "exp_1", "experience_title": "x"} if both else {}
    answer = tools.add_project_to_experience("1", project=PROJECT, **names)
    assert isinstance(answer, ToolRetry)
    assert "either experience_id or experience_title" in answer.message


@pytest.mark.parametrize("changes", [{"id": "exp_3"}, {"projects": []}, {}])
def test_an_update_keeps_ids_and_projects(
    world: World, tools: CareerAssistant, changes: dict[str, object]
) -> None:
    """A model that hands back half an object must not delete what is inside it."""
    answer = tools.update_experience("1", "exp_1", changes)
    assert isinstance(answer, ToolRetry)
    assert answer.code == "invalid_arguments"
    assert stored(world) == ENGINEER


def test_an_experience_that_is_a_plain_text_has_no_fields(world: World) -> None:
    """It is told, not turned into something else."""
    plain = {"experiences": ["Pilot", {"id": "exp_2", "title": "Nurse"}]}
    world.put("1", plain)
    world.sides.sync("1")
    tools = CareerAssistant(world.sides)
    plain_id = (
        Draft("1", json.dumps(plain), world.sides.renderer).entries("experience")[0].entity_id
    )
    answer = tools.add_project_to_experience("1", experience_id=plain_id, project=PROJECT)
    assert isinstance(answer, ToolRetry)
    assert "plain text" in answer.message
    assert stored(world) == plain


def test_another_owners_id_is_no_id(world: World, tools: CareerAssistant) -> None:
    """The same id under another owner is another experience."""
    answer = tools.add_project_to_experience("2", experience_id="exp_2", project=PROJECT)
    assert isinstance(answer, ToolRetry)
    assert [candidate.id for candidate in answer.candidates] == ["exp_1"]
    assert stored(world, "2") == document(experience("exp_1"))
    assert stored(world) == ENGINEER


def test_unknown_owner_is_raised(tools: CareerAssistant) -> None:
    """The owner is the program's affair, not the model's."""
    with pytest.raises(OwnerNotFound, match="77"):
        tools.add_experience("77", {"title": "Baker"})


@pytest.mark.parametrize("raw", ["null", "[]", '"text"', "7"])
def test_a_document_that_is_no_object_is_left_alone(postgres: World, raw: str) -> None:
    """Nothing is guessed into it."""
    postgres.bring_in_sync({"1": ENGINEER})
    postgres.source.run("UPDATE profiles SET filtered_data = CAST(:raw AS jsonb)", raw=raw)
    with pytest.raises(InvalidDocument):
        CareerAssistant(postgres.sides).add_experience("1", {"title": "Baker"})
    (row,) = postgres.source.rows("SELECT CAST(filtered_data AS text) AS raw FROM profiles")
    assert row["raw"] == raw


def test_tables_are_not_written(new_world: NewWorld) -> None:
    """Which column a field belongs into, only the application knows; reading works."""
    world = new_world(TablesLayout())
    world.bring_in_sync({"1": ENGINEER})
    tools = CareerAssistant(world.sides)
    calls: list[Callable[[], object]] = [
        lambda: tools.add_experience("1", {"title": "Baker"}),
        lambda: tools.update_experience("1", "exp_1", {"title": "Baker"}),
        lambda: tools.add_project_to_experience("1", experience_id="exp_1", project=PROJECT),
    ]
    for call in calls:
        with pytest.raises(UnsupportedError, match="your own SQL, then call sync"):
            call()
    assert [one.id for one in tools.get_experiences("1")] == ["exp_1", "exp_2"]
    assert tools.search_profile("1", "builds ledgers").hits


def test_a_role_that_may_only_read_is_told_what_to_grant(
    postgres: World, postgres_server: PostgresServer
) -> None:
    """And nothing is written."""
    postgres.bring_in_sync({"1": ENGINEER})
    postgres_server.create_role("reader_of_profiles", "secret-of-reader")
    postgres.source.run("GRANT SELECT ON profiles TO reader_of_profiles")
    url = sa.make_url(postgres.source_url).set(
        username="reader_of_profiles", password="secret-of-reader"
    )
    sides = postgres.open(source_url=url.render_as_string(hide_password=False))
    with pytest.raises(ConfigError, match="GRANT SELECT, UPDATE") as raised:
        CareerAssistant(sides).add_experience("1", {"title": "Baker"})
    assert "secret-of-reader" not in str(raised.value)
    assert stored(postgres) == ENGINEER


def test_a_constraint_of_the_table_is_told_without_the_row(world: World) -> None:
    """The database's own message may quote the document."""
    world.bring_in_sync({"1": ENGINEER})
    if world.source.is_postgres:
        world.source.run(
            "ALTER TABLE profiles ADD CHECK (CAST(filtered_data AS text) NOT LIKE '%Zeppelin%')"
        )
    else:
        world.source.run(
            "CREATE TRIGGER no_zeppelins BEFORE UPDATE ON profiles"
            " WHEN new.filtered_data LIKE '%Zeppelin%'"
            " BEGIN SELECT RAISE(ABORT, 'constraint: no Zeppelin'); END"
        )
    with pytest.raises(WriteFailed, match="refused the new document") as raised:
        CareerAssistant(world.sides).add_experience("1", {"title": "Zeppelin pilot"})
    assert "Zeppelin" not in str(raised.value)
    assert stored(world) == ENGINEER


def test_several_rows_of_one_owner_are_not_guessed_at(postgres: World) -> None:
    """Which of them is meant is not known."""
    postgres.source.run("ALTER TABLE profiles DROP CONSTRAINT profiles_pkey")
    for number in range(2):
        postgres.source.run(
            "INSERT INTO profiles VALUES (1, CAST(:raw AS jsonb))",
            raw=json.dumps(document(experience(f"exp_{number}"))),
        )
    with pytest.raises(UnsupportedError, match="2 rows"):
        CareerAssistant(postgres.sides).add_experience("1", {"title": "Baker"})


def test_a_view_is_not_written(postgres: World) -> None:
    """One that PostgreSQL cannot write through."""
    postgres.bring_in_sync({"1": ENGINEER})
    postgres.source.run("ALTER TABLE profiles RENAME TO people")
    postgres.source.run(
        "CREATE VIEW profiles AS SELECT DISTINCT user_id, filtered_data FROM people"
    )
    with pytest.raises(UnsupportedError, match="cannot be edited"):
        CareerAssistant(postgres.sides).add_experience("1", {"title": "Baker"})


# --- for frameworks ---------------------------------------------------------------------------


def test_bound_tools_look_like_functions_without_an_owner(
    world: World, tools: CareerAssistant
) -> None:
    """Name, docstring, parameters and annotations, as frameworks read them; JSON in and out."""
    by_name = {tool.__name__: tool for tool in tools.tools_for("1")}
    assert list(by_name) == [
        "search_profile",
        "get_experiences",
        "add_experience",
        "update_experience",
        "add_project_to_experience",
    ]
    for tool in by_name.values():
        assert "owner" not in inspect.signature(tool).parameters
        assert tool.__annotations__["return"] == dict[str, object]
        assert tool.__doc__
        assert "owner" not in tool.__doc__
    answers = [
        by_name["search_profile"]("ledgers"),
        by_name["get_experiences"](),
        by_name["add_experience"]({"title": "Baker"}),
        by_name["update_experience"]("gone", {"title": "Baker"}),
        by_name["add_project_to_experience"](experience_id="exp_2", project=PROJECT),
    ]
    assert json.loads(json.dumps(answers)) == answers
    assert answers[3]["code"] == "stale_reference"
    assert stored(world, "2") == document(experience("exp_1"))


def test_tools_need_a_place_to_write_to(sqlite: World) -> None:
    """A mapping without experiences is told what is missing."""
    from undrift.mapping import KIND_DEFAULTS, DocumentTable, Mapping

    mapping = Mapping(documents=DocumentTable(), entities=(KIND_DEFAULTS["skill"],))
    sqlite.bring_in_sync({"1": ENGINEER})
    with (
        Undrift(
            source=sqlite.source_url,
            store=sqlite.store_url,
            embedder=sqlite.embedder,
            mapping=mapping,
        ) as sides,
        pytest.raises(UnsupportedError, match="no place for a experience"),
    ):
        CareerAssistant(sides).add_experience("1", {"title": "Baker"})
