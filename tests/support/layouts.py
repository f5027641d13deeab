"""The two layouts of a source that the tests use, and what each must render to.

A document in the origin's shape describes an owner in both: one JSON column holds it as it is, or
its parts are rows of three tables. `entities` says by hand what undrift must make of it; no code
of undrift's takes part but the minting of ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from undrift import EntityId
from undrift.fingerprint import mint_id
from undrift.mapping import DocumentTable, EntitySpec, default_entities
from undrift.mapping import Mapping as SourceMapping

Document = dict[str, Any]
Inserts = Iterator[tuple[str, Sequence[Mapping[str, object]]]]


class Rendered(NamedTuple):
    """What a record must hold."""

    text: str
    metadata: Mapping[str, object]


class Layout(Protocol):
    """How a source holds its entities."""

    mapping: SourceMapping
    tables: tuple[str, ...]

    def ddl(self, *, is_postgres: bool) -> Sequence[str]:
        """The statements that create the tables."""

    def inserts(self, documents: Mapping[str, Document], *, is_postgres: bool) -> Inserts:
        """The statements, and their rows, that store *documents*, by owner."""

    def entities(self, document: Document) -> dict[EntityId, Rendered]:
        """What *document* must render to."""


class DocumentsLayout:
    """The origin's: ``profiles(user_id, filtered_data)``, default kinds and templates."""

    mapping = SourceMapping(documents=DocumentTable(), entities=default_entities())
    tables: tuple[str, ...] = ("profiles",)

    def ddl(self, *, is_postgres: bool) -> Sequence[str]:
        """One table."""
        json_type = "jsonb" if is_postgres else "text"
        return [f"CREATE TABLE profiles (user_id bigint PRIMARY KEY, filtered_data {json_type})"]

    def inserts(self, documents: Mapping[str, Document], *, is_postgres: bool) -> Inserts:
        """One row for each owner."""
        value = "CAST(:document AS jsonb)" if is_postgres else ":document"
        rows = [
            {"owner": int(owner), "document": json.dumps(document)}
            for owner, document in documents.items()
        ]
        yield f"INSERT INTO profiles (user_id, filtered_data) VALUES (:owner, {value})", rows

    def entities(self, document: Document) -> dict[EntityId, Rendered]:
        """Experiences, their projects, and skills."""
        found = {}
        for experience in document.get("experiences", []):
            title, company = experience["title"], experience["company"]
            found[EntityId.of("experience", experience["id"])] = Rendered(
                f"{title} at {company}. {experience['description']}",
                _present(title=title, company=company, end=experience.get("end")),
            )
            for project in experience.get("projects", []):
                found[EntityId.of("project", project["id"])] = Rendered(
                    f"{project['title']} ({title} at {company}). {project['description']}",
                    {"title": project["title"], "parent.id": experience["id"]},
                )
        return found | _skills(document)


class TablesLayout:
    """A row for each entity, in three tables."""

    mapping = SourceMapping(
        documents=None,
        entities=(
            EntitySpec(
                kind="experience",
                table="jobs",
                owner="user_id",
                text="{{ title }} at {{ company }}. {{ description }}",
                metadata=("title", "ended"),
            ),
            EntitySpec(
                kind="project",
                table="projects",
                owner="user_id",
                text="{{ title }}: {{ description }}",
                metadata=("title", "job"),
            ),
            EntitySpec(
                kind="skill",
                table="skills",
                owner="user_id",
                key=("name",),
                text="{{ name }}",
                metadata=("name",),
            ),
        ),
    )
    tables: tuple[str, ...] = ("jobs", "projects", "skills")

    def ddl(self, *, is_postgres: bool) -> Sequence[str]:
        """Three tables."""
        return [
            """CREATE TABLE jobs (user_id bigint, id text, title text, company text,
               description text, ended text, PRIMARY KEY (user_id, id))""",
            """CREATE TABLE projects (user_id bigint, id text, job text, title text,
               description text, PRIMARY KEY (user_id, id))""",
            "CREATE TABLE skills (user_id bigint, name text, PRIMARY KEY (user_id, name))",
        ]

    def inserts(self, documents: Mapping[str, Document], *, is_postgres: bool) -> Inserts:
        """A row for each experience, project and skill."""
        jobs: list[Mapping[str, object]] = []
        projects: list[Mapping[str, object]] = []
        skills: list[Mapping[str, object]] = []
        for owner_id, document in documents.items():
            owner = {"owner": int(owner_id)}
            for experience in document.get("experiences", []):
                jobs.append(owner | {"end": None} | experience)
                of_job = owner | {"job": experience["id"]}
                projects.extend(of_job | project for project in experience.get("projects", []))
            skills.extend(owner | {"name": name} for name in document.get("skills", []))
        yield "INSERT INTO jobs VALUES (:owner, :id, :title, :company, :description, :end)", jobs
        yield "INSERT INTO projects VALUES (:owner, :id, :job, :title, :description)", projects
        yield "INSERT INTO skills VALUES (:owner, :name)", skills

    def entities(self, document: Document) -> dict[EntityId, Rendered]:
        """One for each row."""
        found = {}
        for experience in document.get("experiences", []):
            title = experience["title"]
            found[EntityId.of("experience", experience["id"])] = Rendered(
                f"{title} at {experience['company']}. {experience['description']}",
                _present(title=title, ended=experience.get("end")),
            )
            for project in experience.get("projects", []):
                found[EntityId.of("project", project["id"])] = Rendered(
                    f"{project['title']}: {project['description']}",
                    {"title": project["title"], "job": experience["id"]},
                )
        return found | _skills(document)


def _skills(document: Document) -> dict[EntityId, Rendered]:
    return {skill_key(name): Rendered(name, {"name": name}) for name in document.get("skills", [])}


def skill_key(name: str) -> EntityId:
    """The entity of a skill, whose id comes from its name."""
    return EntityId.of("skill", mint_id((name,)))


def _present(**fields: object) -> dict[str, object]:
    return {name: value for name, value in fields.items() if value is not None}


def experience(entity_id: str, description: str = "Keeps books", **fields: object) -> Document:
    """An experience, as it stands in a document."""
    title = f"Title of {entity_id}"
    return {"id": entity_id, "title": title, "company": "Acme", "description": description} | fields


def document(*experiences: Document, skills: Sequence[str] = ()) -> Document:
    """A document of these experiences and skills."""
    return {"experiences": list(experiences), "skills": list(skills)}


ENGINEER = document(
    experience(
        "exp_1",
        "Builds ledgers",
        projects=[{"id": "p_1", "title": "Billing", "description": "Sends invoices"}],
    ),
    experience("exp_2", "Runs a kiln", end="2020-01"),
    skills=["SQL", "Go"],
)
"""Five entities of three kinds."""
