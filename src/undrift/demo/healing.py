"""The step in which an assistant's tool meets an id that is gone, heals, and is called again."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from undrift.api import Undrift
from undrift.assistant import CareerAssistant, ToolDone, ToolRetry
from undrift.demo.database import SOURCE_FILE, STORE_FILE
from undrift.demo.telling import Teller
from undrift.demo.wording import hit_line
from undrift.ports import Embedder

OWNER = "105"
OLD_ID = "exp_1"
PROJECT = {
    "title": "Tide-pool classroom",
    "description": "Took school groups to the rock pools and taught them to name what lives there.",
}
QUERY = "lessons for children by the sea"

_RENAME = """UPDATE profiles
SET filtered_data = json_set(filtered_data, '$.experiences[0].id', 'exp_2019a')
WHERE user_id = 105;"""

_FOUND_BY_OTHERS = """SELECT entity_id FROM vectors
WHERE owner_id = '105' AND kind = 'experience' AND text LIKE 'Marine Biologist%'"""


def tell_healing(teller: Teller, folder: Path, embedder: Embedder, *, is_semantic: bool) -> None:
    """Let an assistant's tool heal itself in *folder*, and judge how that came out.

    Args:
        is_semantic: whether the last search can be held to what it finds first.
    """
    teller.headline("An assistant's tool meets an id that is gone, and heals")
    with closing(sqlite3.connect(folder / SOURCE_FILE)) as source, source:
        source.execute(_RENAME)
    with closing(sqlite3.connect(folder / STORE_FILE)) as store:
        ((found,),) = store.execute(_FOUND_BY_OTHERS)
    teller.say(f"A migration gives a job another id (user {OWNER}):", "")
    teller.say(*(f"      {line}" for line in _RENAME.splitlines()), "")
    teller.say(f"A program that asks the vectors alone still gets {found!r}. The assistant calls:")
    teller.require(found == OLD_ID, f"the vectors gave out {found!r}, not the dead {OLD_ID!r}")
    with Undrift(
        source=f"sqlite:///{folder / SOURCE_FILE}",
        store=f"sqlite:///{folder / STORE_FILE}",
        embedder=embedder,
    ) as sides:
        _call_twice(teller, sides, is_semantic=is_semantic)


def _call_twice(teller: Teller, sides: Undrift, *, is_semantic: bool) -> None:
    tools = CareerAssistant(sides)
    answer = tools.add_project_to_experience(OWNER, experience_id=OLD_ID, project=PROJECT)
    _show_call(teller, OLD_ID)
    if sides.is_testing:
        teller.say("", "(UNDRIFT_ENV=test: nothing heals by itself here.)")
        teller.require(isinstance(answer, ToolRetry), "a dead id was not answered with a retry")
        return
    if not isinstance(answer, ToolRetry) or answer.healed is not True or not answer.candidates:
        teller.require(False, "a dead id was not healed")
        return
    teller.say(f"  ToolRetry(code={answer.code!r}, healed={answer.healed},")
    teller.say(f"            candidates={[candidate.id for candidate in answer.candidates]},")
    teller.say(f"            message={answer.message!r})")
    teller.say("", "The assistant calls again, with a candidate:")
    chosen = answer.candidates[0].id
    done = tools.add_project_to_experience(OWNER, experience_id=chosen, project=PROJECT)
    _show_call(teller, chosen)
    if not isinstance(done, ToolDone):
        teller.require(False, f"the retry with {chosen!r} was refused: {done.message}")
        return
    teller.say(f"  ToolDone(key={str(done.key)!r}, vector={done.vector!r})")
    teller.require(done.vector == "written", "the new project has no vector")
    teller.command(f'undrift search --user-id {OWNER} "{QUERY}"')
    hits = sides.search(OWNER, QUERY).hits
    teller.say(*(f"     {hit_line(hit)}" for hit in hits[:2]))
    is_first = bool(hits) and hits[0].key == done.key
    teller.require(is_first or not is_semantic, "the search did not find the new project")
    teller.require(sides.check(OWNER).is_in_sync, f"user {OWNER} is not in sync after the heal")


def _show_call(teller: Teller, experience_id: str) -> None:
    project = json.dumps({"title": PROJECT["title"]})[:-1] + ", …}"
    teller.say(
        "",
        f"  add_project_to_experience({OWNER!r}, experience_id={experience_id!r},",
        f"                            project={project})",
    )
