"""The origin's kinds: which keys of a career profile they read, and what text they make of them."""

from __future__ import annotations

import pytest

from support.rendering import entities_of, rendered, texts_of, the_entity
from undrift.mapping import default_entities

ORIGIN: dict[str, object] = {
    "experiences": [
        {
            "id": "exp_9",
            "title": "Engineer",
            "company": "Acme",
            "start": "2019-01",
            "end": None,
            "description": "Payments",
            "projects": [
                {
                    "id": "p_1",
                    "title": "Billing",
                    "description": "Invoices",
                    "technologies": ["Go"],
                    "role": "Lead",
                    "updates": [
                        {
                            "id": "u_1",
                            "title": "Launched",
                            "description": "To all",
                            "skills": ["SQL"],
                            "date": "2020-03",
                        }
                    ],
                }
            ],
        }
    ],
    "education": [
        {"school": "MIT", "degree": "BSc", "field": "Physics", "start": "2010", "end": "2014"}
    ],
    "projects": [{"title": "Sailing"}],
    "skills": ["SQL", {"name": "Go", "level": "expert"}],
}


def test_origins_document_gives_every_kind_its_text() -> None:
    """The layout of the design's example, word for word."""
    wanted = rendered(ORIGIN)
    texts = {kind: texts_of(wanted, kind) for kind in wanted.counts}
    assert texts == {
        "experience": ["Engineer at Acme from 2019-01 to present. Payments"],
        "project": [
            "Billing (Engineer at Acme), Lead. Invoices Technologies: Go.",
            "Sailing",
        ],
        "project_update": ["Launched (Billing), 2020-03. To all Skills: SQL."],
        "education": ["BSc in Physics at MIT from 2010 to 2014"],
        "skill": ["Go (expert)", "SQL"],
    }
    assert dict(wanted.counts) == {
        "experience": 1,
        "project": 2,
        "project_update": 1,
        "education": 1,
        "skill": 2,
    }
    assert wanted.without_text == 0


def test_origins_document_gives_ids_and_metadata() -> None:
    """Given ids are kept; an update knows the project around it."""
    wanted = rendered(ORIGIN)
    update = wanted.entities["project_update", "u_1"]
    assert update.key == "project_update:u_1"
    assert update.metadata == {"title": "Launched", "date": "2020-03", "parent.id": "p_1"}
    assert wanted.entities["experience", "exp_9"].metadata == {
        "title": "Engineer",
        "company": "Acme",
        "start": "2019-01",
    }
    assert all(entity.owner_id == "ann" for entity in wanted.entities.values())


def test_empty_profile_wants_nothing() -> None:
    """An object without any of the lists is an owner without entities, not an error."""
    wanted = rendered({})
    assert (wanted.entities, wanted.counts, wanted.without_text) == ({}, {}, 0)


def test_null_lists_and_null_elements_are_passed() -> None:
    """Null in a list's or an element's place is nothing."""
    wanted = rendered({"experiences": None, "skills": [None, "SQL", None], "education": []})
    assert texts_of(wanted, "skill") == ["SQL"]
    assert dict(wanted.counts) == {"skill": 1}


@pytest.mark.parametrize(
    ("experience", "text"),
    [
        ({"position": "Engineer", "organization": "Acme"}, "Engineer at Acme"),
        ({"name": "Engineer", "company": "Acme"}, "Engineer at Acme"),
        ({"position": "Engineer", "name": "Acme"}, "Engineer at Acme"),
        ({"title": {"name": "Engineer"}, "company": {"name": "Acme"}}, "Engineer at Acme"),
        ({"title": "Engineer", "position": "Ignored", "company": "Acme"}, "Engineer at Acme"),
        (
            {"title": None, "position": "Engineer", "company": "", "name": "Acme"},
            "Engineer at Acme",
        ),
        ({"title": "Engineer", "startDate": "2019"}, "Engineer from 2019 to present"),
        ({"title": "Cook", "start_date": "2019", "end_date": "2020"}, "Cook from 2019 to 2020"),
        ({"title": "Engineer", "start": "2019", "endDate": "2020"}, "Engineer from 2019 to 2020"),
        ({"title": "Engineer", "end": "2020"}, "Engineer"),
        ({"title": "Engineer", "summary": "Payments"}, "Engineer. Payments"),
        ({"position": {"name": "Engineer"}}, "Engineer"),
        ({"title": "  Engineer\n"}, "Engineer"),
    ],
)
def test_experience_is_read_by_all_its_names(experience: dict[str, object], text: str) -> None:
    """position, name, organization, startDate, summary … and objects with a name."""
    assert the_entity(rendered({"experiences": [experience]})).text == text


def test_object_without_a_name_is_no_title() -> None:
    """Its Python form would be nobody's text."""
    experience = {"title": {"level": 3}, "company": "Acme", "description": "Payments"}
    assert the_entity(rendered({"experiences": [experience]})).text == "at Acme. Payments"


@pytest.mark.parametrize(
    ("school", "text"),
    [
        ({"institution": "MIT", "studyType": "BSc", "area": "Physics"}, "BSc in Physics at MIT"),
        ({"school": {"name": "MIT"}}, "MIT"),
        ({"degree": "BSc", "school": "MIT"}, "BSc at MIT"),
        ({"field": "Physics", "institution": "MIT"}, "Physics at MIT"),
        ({"area": "Physics"}, "Physics"),
        ({"institution": "MIT", "startDate": "2010"}, "MIT from 2010 to present"),
        ({"institution": "MIT", "summary": "Optics"}, "MIT. Optics"),
    ],
)
def test_education_is_read_by_all_its_names(school: dict[str, object], text: str) -> None:
    """institution, studyType and area are the JSON Resume schema's names."""
    assert the_entity(rendered({"education": [school]})).text == text


@pytest.mark.parametrize(
    ("skill", "text"),
    [
        ("SQL", "SQL"),
        ({"name": "Go", "level": "expert"}, "Go (expert)"),
        ({"name": "Web", "keywords": ["HTML", {"name": "CSS"}, None, ""]}, "Web: HTML, CSS"),
        ({"title": "Sailing"}, "Sailing"),
        ({"name": "Go", "level": None}, "Go"),
        (7, "7"),
        (True, "True"),
    ],
)
def test_skills_are_scalars_or_objects(skill: object, text: str) -> None:
    """A scalar element is its own name."""
    entity = the_entity(rendered({"skills": [skill]}))
    assert entity.text == text


def test_skill_as_a_string_and_as_an_object_is_one_skill() -> None:
    """The natural key is the name, however the profile writes it."""
    one = the_entity(rendered({"skills": ["SQL"]}))
    other = the_entity(rendered({"skills": [{"name": "SQL"}]}))
    assert one.entity_id == other.entity_id
    assert one.metadata == other.metadata == {"name": "SQL"}


@pytest.mark.parametrize(
    ("technologies", "text"),
    [
        (["Go", "SQL"], "Billing Technologies: Go, SQL."),
        ([{"name": "Go"}, {"name": "SQL", "level": 3}], "Billing Technologies: Go, SQL."),
        (["Go", {"name": "SQL"}, {"level": 3}, None, ""], "Billing Technologies: Go, SQL."),
        ("Go", "Billing Technologies: Go."),
        ([], "Billing"),
        (None, "Billing"),
    ],
)
def test_technologies_are_strings_or_objects(technologies: object, text: str) -> None:
    """A list of either, or of both; what has no name is passed."""
    project = {"title": "Billing", "technologies": technologies}
    assert the_entity(rendered({"projects": [project]})).text == text


def test_keywords_are_technologies() -> None:
    """`keywords` is another name of a project's technologies."""
    project = {"name": "Billing", "keywords": ["Go"], "summary": "Invoices"}
    wanted = rendered({"projects": [project]})
    assert the_entity(wanted).text == "Billing. Invoices Technologies: Go."


def test_children_see_their_parents_by_all_their_names() -> None:
    """A project prints its experience's title and company, whatever they are called there."""
    update = {"name": "Launched", "summary": "To all"}
    project = {"name": "Billing", "updates": [update]}
    job = {"position": "Engineer", "organization": {"name": "Acme"}, "projects": [project]}
    wanted = rendered({"experiences": [job]})
    assert texts_of(wanted, "project") == ["Billing (Engineer at Acme)"]
    assert texts_of(wanted, "project_update") == ["Launched (Billing). To all"]


def test_project_of_an_experience_and_project_of_the_person_are_of_one_kind() -> None:
    """Equal titles in both places are two projects."""
    document = {
        "experiences": [{"id": "e", "title": "Engineer", "projects": [{"title": "Billing"}]}],
        "projects": [{"title": "Billing"}],
    }
    projects = entities_of(rendered(document), "project")
    assert sorted(p.text for p in projects) == ["Billing", "Billing (Engineer)"]
    assert len({p.entity_id for p in projects}) == 2


def test_every_default_kind_has_a_natural_key() -> None:
    """A profile without ids is the usual one."""
    assert all(spec.key and spec.text and spec.path for spec in default_entities())
