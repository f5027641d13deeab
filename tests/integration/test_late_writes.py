"""A worker is held right before it sends, another finishes first: what comes late changes nothing.

In both classes, on both databases, and on every other store of class C. The control, a plain upsert
held at the same step, does let the late write through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest

from support.classed import Classed
from support.every_store import CONDITIONAL, world_on
from support.layouts import Document, document, experience
from support.sides import World
from support.wrappers import Before, nothing
from undrift import Undrift, publish
from undrift.fingerprint import vector_id
from undrift.model import Stamp
from undrift.ports import Deletion, Record

KEPT = experience("exp_kept")
MANY = [experience(f"exp_{number}") for number in range(12)]


class Scenario(NamedTuple):
    """What the source holds.

    Attributes:
        before: when everything is in sync.
        late: when the late worker looks.
        last: when the other one does, and at rest.
    """

    before: Mapping[str, Document]
    late: Mapping[str, Document]
    last: Mapping[str, Document]


HERE, ELSEWHERE = (
    {"1": document(KEPT, *MANY[:1]), "2": document()},
    {
        "1": document(KEPT),
        "2": document(*MANY[:1]),
    },
)
SCENARIOS = {
    "delete and re-insert": Scenario(
        {"1": document(KEPT, *MANY[:1])},
        {"1": document(KEPT)},
        {"1": document(KEPT, *MANY[:1])},
    ),
    "delete and re-insert of another text": Scenario(
        {"1": document(KEPT, *MANY[:1])},
        {"1": document(KEPT)},
        {"1": document(KEPT, experience("exp_0", "another text"))},
    ),
    "insert and delete": Scenario(
        {"1": document(KEPT)},
        {"1": document(KEPT, *MANY[:1])},
        {"1": document(KEPT)},
    ),
    "first seen, and gone since": Scenario(
        {"2": document(KEPT)},
        {"1": document(*MANY[:2]), "2": document(KEPT)},
        {"1": document(), "2": document(KEPT)},
    ),
    "first seen, and another text since": Scenario(
        {"2": document(KEPT)},
        {"1": document(experience("exp_0", "A")), "2": document(KEPT)},
        {"1": document(experience("exp_0", "B")), "2": document(KEPT)},
    ),
    "owner move there and back": Scenario(HERE, ELSEWHERE, HERE),
    "owner move": Scenario(HERE, HERE | {"1": document(KEPT, experience("exp_0", "B"))}, ELSEWHERE),
    "A, B, A with a late B": Scenario(
        {"1": document(KEPT, experience("exp_0", "A"))},
        {"1": document(KEPT, experience("exp_0", "B"))},
        {"1": document(KEPT, experience("exp_0", "A"))},
    ),
    "a slow bulk delete": Scenario(
        {"1": document(KEPT, *MANY)},
        {"1": document(KEPT)},
        {"1": document(KEPT, *MANY)},
    ),
}


SQL = ("sqlite", "pgvector")


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """A world on the store that the test names; see `classed`."""
    name = request.param
    if name in SQL:
        new = {"sqlite": "new_sqlite_world", "pgvector": "new_postgres_world"}[name]
        yield request.getfixturevalue(new)()
        return
    with world_on(name, request, tmp_path) as found:
        yield found


@pytest.fixture
def classed(
    request: pytest.FixtureRequest,
    world: World,
    tmp_path: Path,
    new_postgres_url: Callable[[], str],
    without_leases: None,
) -> Iterator[Classed]:
    """A world in the class that the test names, in which nobody waits for anybody."""
    state_url = world.state_url
    if request.param == "C" and state_url is None:
        is_postgres = world.store.database.is_postgres
        state_url = new_postgres_url() if is_postgres else f"sqlite:///{tmp_path}/state.db"
    with Classed(world, state_url) as classed:
        yield classed


in_every_class = pytest.mark.parametrize(
    ("classed", "world"),
    [
        *((letter, store) for letter in "TC" for store in SQL),
        *(("C", store) for store in CONDITIONAL),
    ],
    indirect=True,
)


@pytest.fixture(params=sorted(SCENARIOS))
def scenario(request: pytest.FixtureRequest) -> Scenario:
    """Each of them."""
    return SCENARIOS[request.param]


def outrun(world: World, scenario: Scenario, then: Callable[[], None], *, at_send: int) -> Before:
    """A hook that lets *then* happen at the late worker's so-manieth send.

    Behind every send from then on the store must hold what it holds at rest.
    """
    sends = count(1)
    is_over = False

    def before(step: str) -> None:
        nonlocal is_over
        if step == "store.publish" and next(sends) == at_send:
            world.put_all(scenario.last)
            then()
            world.assert_store_holds(scenario.last)
            is_over = True
        if step == "store.publish returned" and is_over:
            world.assert_store_holds(scenario.last)

    return before


def sync(sides: Undrift, scenario: Scenario) -> None:
    """Sync everybody, as two commands for named users would."""
    for report in sides.sync_owners(scenario.last):
        assert report.is_in_sync or report.outcome == "not_found", report


@in_every_class
@pytest.mark.parametrize("at_send", [1, 2])
def test_what_is_sent_late_changes_nothing(
    classed: Classed, scenario: Scenario, at_send: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither at once nor at rest; with batches of four, a bulk delete is overtaken half way."""
    monkeypatch.setattr(publish, "BATCH_RECORDS", 4)
    world, quick = classed.world, classed.open()
    world.put_all(scenario.before)
    sync(quick, scenario)
    world.put_all(scenario.late)
    late = classed.open(outrun(world, scenario, lambda: sync(quick, scenario), at_send=at_send))
    sync(late, scenario)
    world.put_all(scenario.last)  # where there was no second send
    sync(late, scenario)
    world.assert_store_holds(scenario.last)
    for owner in scenario.last:
        assert classed.open().check(owner).in_sync


@pytest.mark.parametrize(
    ("classed", "world"),
    [*((letter, store) for letter in "TC" for store in SQL), ("C", "redis")],
    indirect=True,
)
def test_the_watcher_of_a_late_write_ends_right_too(classed: Classed, scenario: Scenario) -> None:
    """It reads the store back only, and leaves the owner to whoever was quicker."""
    world, quick = classed.world, classed.open()
    world.put_all(scenario.before)
    sync(quick, scenario)
    world.put_all(scenario.late)
    late = classed.open(outrun(world, scenario, lambda: sync(quick, scenario), at_send=1))
    watcher = classed.watcher(late)
    late._connections.states.state.mark(list(scenario.last))
    assert watcher.step() == len(scenario.last)
    world.assert_store_holds(scenario.last)


class PlainUpsert:
    """The control: plans from what it read, then writes and deletes whatever is there by then."""

    def __init__(self, sides: Undrift, before: Before = nothing) -> None:
        self._connections = sides._connections
        self._before = before
        self._versions = count(1_000_000)  # a later write is a newer one

    def sync(self, scenario: Scenario) -> None:
        """Make the store what the source is now, or was when this began."""
        store, source = self._connections.store, self._connections.source
        assert source is not None
        owners = list(scenario.last)
        stamps = {stamp.vector_id: stamp for stamp in store.stamps(owners)}
        writes, wanted = [], set()
        for content in source.read(owners):
            for entity in self._connections.renderer.render(content).entities.values():
                under = vector_id(store.namespace, entity.owner_id, entity.kind, entity.entity_id)
                wanted.add(under)
                found = stamps.get(under)
                if found is None or found.fingerprint != entity.fingerprint:
                    writes.append((under, entity))
        gone = stamps.keys() - wanted
        if writes or gone:
            self._before("store.publish")
        embed, model = self._connections.embedder.embed, self._connections.embedder.model
        store.publish(
            [
                Record(
                    Stamp(
                        under,
                        store.namespace,
                        entity.owner_id,
                        entity.kind,
                        entity.entity_id,
                        entity.fingerprint,
                        entity.text_hash,
                        model,
                        next(self._versions),
                    ),
                    entity.text,
                    entity.metadata_json,
                    embed([entity.text])[0],
                )
                for under, entity in writes
            ],
            [
                Deletion(s.owner_id, s.vector_id, s.version)
                for s in store.stamps(owners)
                if s.vector_id in gone
            ],
        )


@pytest.mark.parametrize(
    ("world", "name"),
    [
        *((store, name) for store in SQL for name in sorted(SCENARIOS)),
        *((store, "A, B, A with a late B") for store in CONDITIONAL),
    ],
    indirect=["world"],
)
def test_control_a_plain_upsert_lets_the_late_write_through(world: World, name: str) -> None:
    """The same measurement finds the store wrong at rest."""
    scenario = SCENARIOS[name]
    world.put_all(scenario.before)
    for report in world.sides.sync_owners(scenario.before):
        assert report.is_in_sync
    world.put_all(scenario.late)
    quick = PlainUpsert(world.sides)
    late = PlainUpsert(
        world.sides,
        outrun(world, scenario, lambda: quick.sync(scenario), at_send=1),
    )
    late._versions = count(2_000_000)
    late.sync(scenario)
    with pytest.raises(AssertionError):
        world.assert_store_holds(scenario.last)
