"""A fleet of users with plausible profiles of very different sizes; any of them can be made alone.

Most users have 2 to 15 entities, some have none but one, a few have hundreds; the mean is 10. What
a user has depends on nothing but their number and the seed.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import psycopg

from benchmarks.profiles import COMPANIES, SKILLS, TITLES, sentence

MEAN_ENTITIES = 10
SEED = 1

_MEDIAN_LOG, _SPREAD = 1.795, 0.9  # 1 + a log-normal of these has the mean 10, and a heavy tail
_MAX_ENTITIES = 2_000

Document = dict[str, object]
EntityName = tuple[str, str]
"""Kind and id."""


class Fleet(NamedTuple):
    """So many users, numbered from 1."""

    owners: int
    seed: int = SEED

    def documents(self, first: int = 1, last: int | None = None) -> Iterator[tuple[int, str]]:
        """The users' numbers and documents."""
        for owner in range(first, (last or self.owners) + 1):
            yield owner, json.dumps(document(owner, seed=self.seed))

    def entities(self) -> int:
        """How many entities all of them have."""
        return sum(size(owner, seed=self.seed) for owner in range(1, self.owners + 1))


def size(owner: int, *, seed: int = SEED) -> int:
    """How many entities *owner* has."""
    rng = random.Random(f"{seed}/{owner}/size")
    return min(_MAX_ENTITIES, 1 + round(rng.lognormvariate(_MEDIAN_LOG, _SPREAD)))


def document(owner: int, *, seed: int = SEED, entities: int | None = None) -> Document:
    """The profile of *owner*.

    Args:
        entities: how many of the default kinds, some 150 characters each; None for `size`.
    """
    rng = random.Random(f"{seed}/{owner}")
    entities = size(owner, seed=seed) if entities is None else entities
    skills = entities * 3 // 10
    education = min(entities // 4, 2)
    updates = entities // 5
    projects = entities // 4
    experiences = [
        _experience(rng, number)
        for number in range(entities - skills - education - updates - projects)
    ]
    made = [_project(rng, number) for number in range(projects)]
    for project in made:
        _append(rng.choice(experiences), "projects", project)
    for number in range(updates):
        _append(rng.choice(made), "updates", _update(rng, number))
    return {
        "experiences": experiences,
        "education": [_education(rng, owner, number) for number in range(education)],
        "skills": [_skill(rng, number) for number in range(skills)],
    }


def entity_names(owner: int, *, seed: int = SEED) -> list[EntityName]:
    """The kind and id of every entity that `document` gives *owner*."""
    made: Any = document(owner, seed=seed)
    projects = [p for e in made["experiences"] for p in e.get("projects", ())]
    of_kind = {
        "experience": made["experiences"],
        "project": projects,
        "project_update": [u for p in projects for u in p.get("updates", ())],
        "education": made["education"],
        "skill": made["skills"],
    }
    return [(kind, item["id"]) for kind, items in of_kind.items() for item in items]


def load_postgres(url: str, fleet: Fleet) -> None:
    """The table of the profiles, filled by COPY, as a server has it after a while."""
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE profiles (user_id bigint PRIMARY KEY, filtered_data jsonb NOT NULL)"
        )
        with cursor.copy("COPY profiles FROM STDIN") as copy:
            for row in fleet.documents():
                copy.write_row(row)
        cursor.execute("VACUUM ANALYZE profiles")


def load_sqlite(path: str, fleet: Fleet) -> None:
    """The table of the profiles in a file."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(
            "CREATE TABLE profiles (user_id INTEGER PRIMARY KEY, filtered_data TEXT NOT NULL)"
        )
        connection.executemany("INSERT INTO profiles VALUES (?, ?)", fleet.documents())


# --- entities -------------------------------------------------------------------------------------

_Item = dict[str, Any]


def _experience(rng: random.Random, number: int) -> _Item:
    began = rng.randint(1990, 2024)
    return {
        "id": f"exp_{number}",
        "title": rng.choice(TITLES),
        "company": rng.choice(COMPANIES),
        "start": f"{began}-0{rng.randint(1, 9)}",
        "end": None if number == 0 else f"{began + 1}-0{rng.randint(1, 9)}",
        "description": sentence(rng, rng.randint(4, 40)),
    }


def _project(rng: random.Random, number: int) -> _Item:
    return {
        "id": f"p_{number}",
        "title": sentence(rng, 3),
        "description": sentence(rng, rng.randint(4, 36)),
        "technologies": rng.sample(SKILLS, rng.randint(1, 4)),
        "role": "lead" if rng.random() < 0.5 else "member",
    }


def _update(rng: random.Random, number: int) -> _Item:
    return {
        "id": f"u_{number}",
        "title": sentence(rng, 3),
        "description": sentence(rng, rng.randint(4, 30)),
        "date": f"20{rng.randint(10, 25)}-05",
    }


def _education(rng: random.Random, owner: int, number: int) -> _Item:
    return {
        "id": f"edu_{number}",
        "school": f"{rng.choice(COMPANIES)} College {owner}",
        "degree": rng.choice(("BSc", "MSc", "Diploma")),
        "field": sentence(rng, 2),
        "start": "2008",
        "end": "2012",
    }


def _skill(rng: random.Random, number: int) -> _Item:
    return {
        "id": f"s_{number}",
        "name": rng.choice(SKILLS),
        "level": rng.choice(("basic", "good", "expert")),
    }


def _append(to: _Item, name: str, item: _Item) -> None:
    to.setdefault(name, []).append(item)
