"""What others do to store, state and source behind undrift's back is found, and mended exactly.

Exactly: the store is what the source is, by SQL, and not one text more is embedded than has to be.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.classed import Classed, Copy
from support.layouts import Document, document, experience
from support.postgres import PostgresServer, with_login
from support.sides import World
from support.watching import until
from support.wrappers import SteppedSource
from undrift import Undrift
from undrift.errors import (
    IncompleteRead,
    StateMismatch,
    StoreUnavailable,
    Superseded,
    UnknownStateError,
)
from undrift.mapping import EntitySpec
from undrift.mapping import Mapping as SourceMapping

ANN = document(experience("exp_1"), experience("exp_2", "Bakes"), skills=["SQL", "Go"])
BOB = document(experience("exp_1", "Sails"), skills=["C"])
EVERYBODY = {"1": ANN, "2": BOB}
TEXTS = 6

LATER = {
    "1": document(experience("exp_1"), experience("exp_2", "Brews"), skills=["SQL", "Rust"]),
    "2": document(experience("exp_1", "Sails"), skills=["C"]),
    "3": document(skills=["Ada"]),
}
"""One text changed, two new ones, one gone."""


@pytest.fixture(params=["T", "C"])
def classed(
    request: pytest.FixtureRequest,
    world: World,
    tmp_path: Path,
    new_postgres_url: Callable[[], str],
) -> Iterator[Classed]:
    """A world in each class."""
    state_url = None
    if request.param == "C":
        is_postgres = world.store.database.is_postgres
        state_url = new_postgres_url() if is_postgres else f"sqlite:///{tmp_path}/state.db"
    with Classed(world, state_url) as classed:
        yield classed


def begin(classed: Classed) -> Undrift:
    """A worker that has everybody in sync, at versions that are not all the first."""
    sides = classed.open()
    classed.world.put_all({"1": document(experience("exp_1", "Naps")), "2": BOB})
    assert all(report.is_in_sync for report in sides.sync_all())
    make(classed, sides, EVERYBODY)
    classed.world.embedder.texts.clear()
    return sides


def make(classed: Classed, sides: Undrift, documents: dict[str, Document]) -> None:
    """Change the source to *documents* and sync."""
    gone = {str(row["user_id"]) for row in classed.world.source.rows("SELECT * FROM profiles")}
    classed.world.remove_owners(sorted(gone - documents.keys()))
    classed.world.put_all(documents)
    mend(classed, sides, documents)


def mend(classed: Classed, sides: Undrift, documents: dict[str, Document]) -> None:
    """Sync everybody, and see that it is right, and that nothing is left to do."""
    for report in sides.sync_all():
        assert report.is_in_sync, report.error
    classed.world.assert_store_holds(documents)
    paid = len(classed.world.embedder.texts)
    assert all(report.skipped for report in sides.sync_all())
    assert all(status.in_sync for status in sides.check_all())
    assert len(classed.world.embedder.texts) == paid


def paid(classed: Classed) -> list[str]:
    """Texts that were embedded since the last time, sorted."""
    found = sorted(classed.world.embedder.texts)
    classed.world.embedder.texts.clear()
    return found


NEW_TEXTS = ["Ada", "Rust", "Title of exp_2 at Acme. Brews"]
"""What *LATER* has and *EVERYBODY* has not."""


# --- the store ------------------------------------------------------------------------------------


def test_a_wiped_store_is_filled_again(classed: Classed) -> None:
    """Its tombstones are put back too."""
    sides = begin(classed)
    for table in reversed(classed.tables_of_store):
        classed.world.store.database.run(f"DELETE FROM {table}")
    assert not any(status.in_sync for status in sides.check_all())
    mend(classed, sides, EVERYBODY)
    assert len(paid(classed)) == TEXTS


def test_a_store_that_is_restored_from_an_old_copy_costs_what_changed_since(
    classed: Classed,
) -> None:
    sides = begin(classed)
    copy = Copy(classed.world.store.database, classed.tables_of_store)
    make(classed, sides, LATER)
    assert paid(classed) == NEW_TEXTS
    copy.restore()
    assert not all(status.in_sync for status in sides.check_all())
    mend(classed, sides, LATER)
    assert paid(classed) == NEW_TEXTS


@pytest.mark.parametrize(
    ("changes", "embedded"),
    [
        ({"fingerprint": "0" * 32}, 0),
        ({"fingerprint": "0" * 32, "text_hash": "0" * 32, "text": "tampered"}, 1),
        ({"fingerprint": "0" * 32, "text_hash": "0" * 32, "version": 5_000}, 1),
        ({"fingerprint": "0" * 32, "text_hash": "0" * 32, "version": 0}, 1),
        ({"version": 5_000}, 0),
        ({"version": 0}, 0),
        ({"model": "another"}, 1),
        ({"owner_id": "2"}, 1),
        ({"owner_id": "77"}, 1),
        ({"entity_id": "exp_77"}, 1),
        ({"kind": "skill"}, 1),
        ({"deleted": 1, "version": 5_000}, 1),
    ],
    ids=str,
)
def test_tampered_records_are_mended_at_the_cost_of_their_texts(
    classed: Classed, changes: dict[str, object], embedded: int
) -> None:
    """Two of six, the versions of the one kind and the other too."""
    sides = begin(classed)
    world = classed.world
    for owner, key in (("1", "experience:exp_2"), ("1", "experience:exp_1")):
        world.store.set(world.vector_id(owner, key), **changes)
        if changes.get("entity_id") or changes.get("kind"):
            break  # two of them would be one entity
    mend(classed, sides, EVERYBODY)
    mended = 1 if changes.get("entity_id") or changes.get("kind") else 2
    assert len(paid(classed)) == embedded * mended
    make(classed, sides, LATER)
    assert paid(classed) == NEW_TEXTS


def test_records_of_others_are_told_of_and_left_alone(classed: Classed) -> None:
    sides = begin(classed)
    store = classed.world.store
    kept = classed.world.vector_id("1", "experience:exp_1")
    theirs = {
        store.copy(kept, namespace="theirs"),
        store.copy(kept, kind="a kind that is not configured", owner_id="2"),
    }
    before = {vector_id: row for vector_id, row in store.records().items() if vector_id in theirs}
    assert {s.owner_id: s.unmanaged for s in sides.check_all()} == {"1": 1, "2": 1}
    make(classed, sides, LATER)
    after = {vector_id: row for vector_id, row in store.records().items() if vector_id in theirs}
    assert before == after
    assert paid(classed) == NEW_TEXTS


# --- the state ------------------------------------------------------------------------------------


def test_a_lost_state_stops_writers_until_it_is_adopted(classed: Classed) -> None:
    """Nothing is embedded for it: what the store holds is found to be right."""
    begin(classed)
    for table in classed.tables_of_state:
        classed.state.run(f"DROP TABLE {table}")
    classed.world.put_all(LATER)
    with pytest.raises(StateMismatch, match="undrift state adopt"):
        list(classed.open().sync_all())
    classed.world.assert_store_holds(EVERYBODY)
    sides = classed.open()
    sides.adopt_state()
    mend(classed, sides, LATER)
    assert paid(classed) == NEW_TEXTS


def test_a_state_that_is_restored_to_an_older_copy_is_caught_up_with(classed: Classed) -> None:
    """The same versions come again with other contents, and none of the old ones wins."""
    sides = begin(classed)
    copy = Copy(classed.state, classed.tables_of_state)
    make(classed, sides, LATER)
    make(classed, classed.open(), EVERYBODY)
    paid(classed)
    copy.restore()
    classed.world.put_all(LATER)
    assert classed.open().status().summary is not None
    mend(classed, classed.open(), LATER)
    assert paid(classed) == NEW_TEXTS
    make(classed, sides, EVERYBODY)  # whoever was at work all the time goes on


def test_a_watch_finds_by_itself_what_a_restored_state_does_not_know(classed: Classed) -> None:
    """Everybody is looked at again as soon as the first worker begins."""
    sides = begin(classed)
    copy = Copy(classed.state, classed.tables_of_state)
    classed.open()  # a worker later raises the epoch above the copy's
    make(classed, classed.open(), LATER)
    paid(classed)
    copy.restore()
    classed.world.store.delete(classed.world.vector_id("2", "experience:exp_1"))
    sides = classed.open()
    watcher = classed.watcher(sides)
    while watcher.step():
        pass
    classed.world.assert_store_holds(LATER)
    assert paid(classed) == ["Title of exp_1 at Acme. Sails"]


def test_two_copies_of_a_state_that_write_in_turn_both_end_exact(
    world: World, tmp_path: Path
) -> None:
    """A second host was set up from the first one's disk, state included."""
    first, second = tmp_path / "state.db", tmp_path / "copy.db"
    with Classed(world, f"sqlite:///{first}") as classed:
        begin(classed)
        classed.close()
        shutil.copy(first, second)
    with (
        Classed(world, f"sqlite:///{first}") as here,
        Classed(world, f"sqlite:///{second}") as there,
    ):
        hosts = [(here, here.open()), (there, there.open())]
        rounds = [sides.state_info().standing for _, sides in hosts]
        for documents in (LATER, EVERYBODY, LATER, EVERYBODY):
            for classed, sides in hosts:
                make(classed, sides, documents)
                make(classed, sides, documents | {"1": document(skills=[str(len(rounds))])})
        for (_, sides), before in zip(hosts, rounds, strict=True):
            after = sides.state_info().standing
            assert before is not None
            assert after is not None
            assert after.round > before.round, "nobody noticed"


# --- the source -----------------------------------------------------------------------------------


def test_a_source_that_is_restored_to_an_hour_ago_is_followed(classed: Classed) -> None:
    """What was is written again, under new versions."""
    sides = begin(classed)
    copy = Copy(classed.world.source, ["profiles"])
    make(classed, sides, LATER)
    paid(classed)
    copy.restore()
    mend(classed, sides, EVERYBODY)
    assert paid(classed) == ["Go", "Title of exp_2 at Acme. Bakes"]


def test_an_application_that_empties_every_profile_is_stopped_by_the_budget(
    classed: Classed,
) -> None:
    """Half goes, the other half waits for a person; what is new is written all the same."""
    world = classed.world
    sides = classed.open()
    everybody = {str(n): document(skills=[f"{n}.{k}" for k in range(4)]) for n in range(1, 21)}
    make(classed, sides, everybody)
    world.put_all({owner: document() for owner in everybody})
    world.put_all({"21": document(skills=["written meanwhile"])})
    watcher = classed.watcher(sides)
    state = sides._connections.states.state
    for owner in (*everybody, "21"):
        state.mark([owner])
        watcher.step()
    assert len(world.store.managed()) == 41
    assert world.keys("21")
    status = sides.status()
    assert status.summary is not None
    assert status.summary.deletes_waiting
    assert any("Deletes wait" in warning for warning in status.warnings)
    for owner in everybody:
        assert sides.sync(owner).is_in_sync  # a person has named it
    assert len(world.store.managed()) == 1


# --- false success --------------------------------------------------------------------------------


def test_whichever_page_of_the_store_fails_nothing_wrong_is_called_in_sync(
    classed: Classed,
) -> None:
    """The enumeration breaks before its first record, its second, and so on to its last."""
    begin(classed)
    classed.world.put_all(LATER)
    failures = 0
    for failing in range(1, 40):
        steps = 0

        def before(step: str, failing: int = failing) -> None:
            nonlocal steps
            if step.startswith("store.stamps"):
                steps += 1
                if steps == failing:
                    raise StoreUnavailable("The page failed", why="planted.", fix="none")

        # In turn, so that there is something to do each time.
        documents = LATER if failing % 2 else EVERYBODY
        classed.world.put_all(documents)
        classed.world.remove_owners(sorted(LATER.keys() - documents.keys()))
        sides = classed.open(before)
        reports = list(sides.sync_owners(["1"]))
        if steps < failing:
            assert reports[0].is_in_sync
            break
        failures += 1
        assert not reports[0].is_in_sync
        assert not sides.check("1").in_sync or classed.world.keys("1")
        summary = sides.status().summary
        assert summary is not None
        assert summary.dirty == 1, "nobody would look again"
        mend(classed, sides, documents)
    assert failures > 8


# --- other places, other releases, other roles ---------------------------------------------------


def test_a_state_that_moves_beside_the_vectors_rises_above_what_is_buried_there(
    world: World, tmp_path: Path
) -> None:
    """Class C has left tombstones; in class T what they stand for comes back."""
    with Classed(world, f"sqlite:///{tmp_path}/state.db") as elsewhere:
        sides = begin(elsewhere)
        make(elsewhere, sides, LATER)
    with Classed(world, None) as beside:
        sides = beside.open()
        with pytest.raises(StateMismatch):
            sides.sync("1")
        sides.adopt_state()
        world.embedder.texts.clear()
        make(beside, sides, EVERYBODY)
        assert paid(beside) == ["Go", "Title of exp_2 at Acme. Bakes"]


def test_two_releases_at_once_embed_each_text_once_and_the_older_stands_down(
    classed: Classed,
) -> None:
    """It is the newer one's configuration that counts, however often the older one tries."""
    begin(classed)
    world = classed.world
    skills_only = SourceMapping(
        documents=world.layout.mapping.documents,
        entities=(
            EntitySpec(kind="skill", path="skills[*]", key=("value",), text="Skill: {{ value }}"),
        ),
    )
    older = classed.watcher(classed.open())
    newer = classed.watcher(classed.open(mapping=skills_only))
    synced = 0
    for _ in range(5):
        with pytest.raises(Superseded):
            older._order.look(["1"], {})
        synced += newer.step()
    assert synced == len(EVERYBODY)
    assert paid(classed) == ["Skill: C", "Skill: Go", "Skill: SQL"]
    assert {row["text"] for row in world.store.managed().values() if row["kind"] == "skill"} == {
        "Skill: C",
        "Skill: Go",
        "Skill: SQL",
    }


def test_an_observation_that_was_overtaken_while_it_waited_is_made_again(
    new_postgres_world: Callable[[], World],
) -> None:
    """Another observer holds the user's row; the snapshot from before its commit does not count."""
    world = new_postgres_world()
    reads: list[str] = []
    with Classed(world, None) as classed, classed.state.connection() as other:
        begin(classed)

        def observe_meanwhile(step: str) -> None:
            reads.append(step)
            if step == "source.read next" and reads.count(step) == 1:
                other.exec_driver_sql(
                    "UPDATE undrift.owner_state SET observation = observation + 1 "
                    "WHERE owner_id = '1'"
                )

        late = classed.open(source=lambda source: SteppedSource(source, observe_meanwhile))
        world.put_all(LATER)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(late.sync, "1")
            waits = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            until(lambda: bool(world.source.rows(waits)), "the sync waits")
            world.put_all({"1": BOB})
            before = reads.count("source.read")
            other.commit()
            report = waiting.result()
    assert before == 1
    assert reads.count("source.read") == 3, "once more to observe, and once to verify"
    assert (report.is_in_sync, report.written) == (True, 2)
    assert world.keys("1") == set(world.layout.entities(BOB))
    assert "Title of exp_2 at Acme. Brews" not in world.embedder.texts, "of the old snapshot"


def test_a_role_from_which_rows_are_hidden_deletes_nothing(
    new_postgres_world: Callable[[], World], postgres_server: PostgresServer
) -> None:
    """Row-level security answers with less, not with an error; the read is refused instead."""
    world = new_postgres_world()
    with Classed(world, None) as classed:
        begin(classed)
        postgres_server.create_role("half_blind", "secret")
        for statement in (
            "ALTER TABLE profiles ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY ours ON profiles USING (user_id = 1)",
            "GRANT SELECT ON profiles TO half_blind",
        ):
            world.source.run(statement)
        sides = world.open(source_url=with_login(world.source_url, "half_blind", "secret"))
        for report in sides.sync_owners(["1", "2"]):
            assert report.outcome == "unknown"
        with pytest.raises(UnknownStateError):
            list(sides.sync_all())
        watcher = classed.watcher(sides)
        sides._connections.states.state.mark(["1", "2"])
        with pytest.raises(IncompleteRead):
            watcher.step()  # the two are seen to, and then everybody is to be listed
        world.assert_store_holds(EVERYBODY)
        summary = sides.status().summary
        assert summary is not None
        assert summary.dirty == 2
