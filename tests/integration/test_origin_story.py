"""The story undrift exists for: an assistant's tool is handed an id that is gone.

Vectors go stale by SQL. Another program searches the vectors and gives out a dead id. The tool
heals and asks to retry, the retry with a candidate succeeds, and the new project is found.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import undrift
from support.layouts import document, experience
from support.sides import World, drift_of, vector_of
from support.wrappers import SteppedStore
from undrift import EntityId, Healing, HealPolicy, StoreUnavailable
from undrift.assistant import CareerAssistant, ToolDone, ToolRetry
from undrift.ports import EditableSource, Source

OWNER = "123"
BEFORE = document(
    experience("exp_old", "Glazier of the north tower"),
    experience("exp_2", "Beekeeper"),
)
AFTER = document(
    experience("exp_new", "Glazier of the north tower"),
    experience("exp_2", "Beekeeper"),
)
PROJECT = {"title": "Rose window", "description": "Lead and coloured glass."}
IN_PRODUCTION = HealPolicy(wait_seconds=60)


@pytest.fixture(autouse=True)
def _not_testing() -> Iterator[None]:
    yield
    undrift.set_testing(False)


def stale_world(world: World) -> World:
    """Both sides in sync, then an id is changed by SQL."""
    world.bring_in_sync({OWNER: BEFORE})
    world.put(OWNER, AFTER)
    return world


def search_of_another_program(world: World, query: str) -> str:
    """What a program finds that asks the vectors and nobody else: the id of the nearest."""
    (vector,) = world.embedder.embed([query], "query")
    rows = [row for row in world.store.managed().values() if row["owner_id"] == OWNER]
    nearest = max(rows, key=lambda row: float(vector_of(row) @ vector))
    return str(nearest["entity_id"])


def test_a_stale_id_is_healed_and_the_retry_with_a_candidate_succeeds(world: World) -> None:
    """From the dead id to the project that search finds."""
    stale_world(world)
    sides = world.open(heal=IN_PRODUCTION)
    tools = CareerAssistant(sides)
    dead_id = search_of_another_program(world, "Glazier of the north tower")
    assert dead_id == "exp_old"

    answer = tools.add_project_to_experience(OWNER, experience_id=dead_id, project=PROJECT)

    assert isinstance(answer, ToolRetry)
    assert (answer.code, answer.missing_id, answer.healed) == ("stale_reference", "exp_old", True)
    assert "has been synced, please retry" in answer.message
    assert [candidate.id for candidate in answer.candidates] == ["exp_new", "exp_2"]
    assert sides.check(OWNER).is_in_sync
    world.assert_store_holds({OWNER: AFTER})  # and nothing of the project was written anywhere
    assert search_of_another_program(world, "Glazier of the north tower") == "exp_new"

    chosen = answer.candidates[0]
    done = tools.add_project_to_experience(OWNER, experience_id=chosen.id, project=PROJECT)

    assert isinstance(done, ToolDone)
    assert done.vector == "written"
    best = tools.search_profile(OWNER, "rose window of coloured glass").hits[0]
    assert (best.key, best.metadata["parent.id"]) == (done.key, "exp_new")
    assert sides.check(OWNER).is_in_sync


@pytest.mark.parametrize("how", ["environment", "set_testing"])
def test_in_the_test_environment_the_answer_is_the_same_and_nothing_is_synced(
    world: World, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the stale id, nor by a search, nor behind a write; by hand it is."""
    stale_world(world)
    if how == "environment":
        monkeypatch.setenv("UNDRIFT_ENV", "test")
    else:
        undrift.set_testing(True)
    before = world.store.records()
    sides = world.open(heal=IN_PRODUCTION)
    tools = CareerAssistant(sides)

    answer = tools.add_project_to_experience(OWNER, experience_id="exp_old", project=PROJECT)

    assert isinstance(answer, ToolRetry)
    assert (answer.code, answer.missing_id) == ("stale_reference", "exp_old")
    assert (answer.healed, answer.healing) == (False, Healing.SWITCHED_OFF)
    assert [candidate.id for candidate in answer.candidates] == ["exp_new", "exp_2"]
    assert sides.search(OWNER, "glazier").healing is Healing.SWITCHED_OFF
    done = tools.add_project_to_experience(OWNER, experience_id="exp_new", project=PROJECT)
    assert isinstance(done, ToolDone)
    assert (done.vector, done.error) == ("pending", None)
    assert world.store.records() == before

    assert sides.sync(OWNER).is_in_sync
    assert sides.check(OWNER).is_in_sync


class _Down:
    """A store that does not answer while it is told not to."""

    def __init__(self) -> None:
        self.is_down = True

    def __call__(self, step: str) -> None:
        """Refuse."""
        if self.is_down:
            raise StoreUnavailable(
                "The vector store cannot be reached", why="nobody answers.", fix="start it"
            )


def test_with_the_store_down_the_answer_says_so_and_nothing_is_lost(world: World) -> None:
    """A stale id, then a good one: the source is written, the vector is pending and told."""
    stale_world(world)
    before = world.store.records()
    outage = _Down()
    sides = world.open(
        heal=HealPolicy(wait_seconds=60, cool_down_seconds=0),
        store=lambda inner: SteppedStore(inner, outage),
    )
    tools = CareerAssistant(sides)

    answer = tools.add_project_to_experience(OWNER, experience_id="exp_old", project=PROJECT)

    assert isinstance(answer, ToolRetry)
    assert (answer.healed, answer.healing) == (False, Healing.FAILED)
    assert isinstance(answer.error, StoreUnavailable)
    assert "The vector store cannot be reached" in answer.message
    assert [candidate.id for candidate in answer.candidates] == ["exp_new", "exp_2"]

    done = tools.add_project_to_experience(OWNER, experience_id="exp_new", project=PROJECT)

    assert isinstance(done, ToolDone)
    assert (done.vector, type(done.error)) == ("pending", StoreUnavailable)
    assert "search does not find it yet" in done.message
    assert world.store.records() == before
    outage.is_down = False
    drift = drift_of(sides.check(OWNER))
    assert drift == {"missing": {"experience:exp_new", done.key}, "stale": {"experience:exp_old"}}
    assert sides.sync(OWNER).is_in_sync
    assert tools.search_profile(OWNER, "rose window").hits[0].key == done.key


class _Unhealing:
    """The tool as it was before: it looks the id up, and that is all."""

    def __init__(self, source: Source) -> None:
        assert isinstance(source, EditableSource)
        self._source = source

    def add_project(self, experience_id: str) -> str:
        """Fail on an id that is gone."""
        (content,) = self._source.read([OWNER])
        ids = {element.fields.get("id") for element in content.elements()[0]}
        return "added" if experience_id in ids else "failed"


def test_control_a_tool_that_does_not_heal_fails_again_and_again(world: World) -> None:
    """The next search gives out the dead id once more."""
    stale_world(world)
    sources: list[Source] = []

    def remembered(inner: Source) -> Source:
        sources.append(inner)
        return inner

    world.open(source=remembered)
    for _ in range(3):
        dead_id = search_of_another_program(world, "Glazier of the north tower")
        assert _Unhealing(sources[0]).add_project(dead_id) == "failed"


def test_resolve_serves_any_tool_of_ones_own(world: World) -> None:
    """Found, or healed and told what there is."""
    stale_world(world)
    sides = world.open(heal=IN_PRODUCTION)

    found = sides.resolve(OWNER, "experience:exp_2")
    assert isinstance(found, undrift.Found)
    assert found.entity.key == EntityId.of("experience", "exp_2")
    assert drift_of(sides.check(OWNER))  # asking for what is there heals nothing

    retry = sides.resolve(OWNER, "experience:exp_old")
    assert isinstance(retry, undrift.Retry)
    assert (retry.code, retry.healed) == ("stale_reference", True)
    assert [candidate.key for candidate in retry.candidates] == [
        "experience:exp_new",
        "experience:exp_2",
    ]
    assert sides.check(OWNER).is_in_sync
