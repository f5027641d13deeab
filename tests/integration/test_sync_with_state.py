"""What a state adds to a sync: order, leases, parking, and knowing whose store this is."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Barrier, Thread

import pytest

from support.closing import Closing
from support.sides import World, drift_of
from undrift import Undrift, failpoints
from undrift.errors import EmbeddingFailed, SafetyStop, StateMismatch, Superseded
from undrift.events import BatchWritten, SyncEvent
from undrift.heal import NO_HEALING
from undrift.ledger import SEND_DEADLINE_SECONDS, Ledger, config_digest
from undrift.look import Sides
from undrift.mapping import EntitySpec
from undrift.mapping import Mapping as SourceMapping
from undrift.model import Outcome, SyncReport
from undrift.state import ClaimableStore, State, VersionRaise
from undrift.stores import open_store
from undrift.sync import Synchronizer, SyncOptions
from undrift.testing.memory_state import MemoryState
from undrift.watch import Watcher, WatchOptions

ANN = {"skills": ["Go", "SQL"]}
BOB = {"skills": ["C"]}


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Workshop(Closing):
    """A world whose state is elsewhere (class C), in memory and with a clock of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.clock = Clock()
        self.state = MemoryState(self.clock)
        self.state.create()
        self._stores = ExitStack()

    def close(self) -> None:
        """Close every store that was opened."""
        self._stores.close()

    def sides(self) -> Sides:
        """Both sides, and a store of their own."""
        opened = self.world.open(store=lambda store: store)
        sides = opened._connections.sides()
        if not sides.store_exists:
            sides.store.create(self.world.embedder.dimension)
        return opened._connections.sides()

    def ledger(self, sides: Sides, *, config: str = "", source: str = "here") -> Ledger:
        """A worker's view of the state, not yet entered."""
        assert isinstance(sides.store, ClaimableStore)
        return Ledger(
            state=self.state,
            store=sides.store,
            config=config or config_digest(sides.renderer.mapping, model=sides.model),
            source=source,
            clock=self.clock,
        )

    def synchronizer(self, *, retry_parked: bool = False) -> Synchronizer:
        """A run that may begin."""
        sides = self.sides()
        ledger = self.ledger(sides)
        ledger.enter()
        return Synchronizer(
            sides, self.world.embedder, SyncOptions(retry_parked=retry_parked), ledger=ledger
        )

    def watcher(self) -> Watcher:
        """A worker of a watch, without triggers."""
        sides = self.sides()
        ledger = self.ledger(sides)
        ledger.enter()
        return Watcher(sides, self.world.embedder, ledger, None, WatchOptions())


@pytest.fixture
def workshop(world: World) -> Iterator[Workshop]:
    """A workshop on each backend."""
    with Workshop(world) as workshop:
        yield workshop


def skill_id(world: World, owner: int, text: str) -> str:
    """The vector_id of the owner's record with that text."""
    found = [
        vector_id
        for vector_id, row in world.store.managed().items()
        if row["owner_id"] == str(owner) and row["text"] == text
    ]
    return found[0]


# --- parking -------------------------------------------------------------------------------------


def test_a_record_that_cannot_be_made_is_parked_and_not_paid_for_again(workshop: Workshop) -> None:
    """Its owner's others are written, and the reason is told each time."""
    world = workshop.world
    world.put(1, ANN)
    world.embedder.unusable = {"Go"}
    for paid in (["Go", "SQL"], []):
        world.embedder.texts.clear()
        (report,) = workshop.synchronizer().sync_owners(["1"])
        assert report.outcome is Outcome.FAILED
        assert isinstance(report.error, EmbeddingFailed)
        assert "not finite" in report.error.why
        assert sorted(world.embedder.texts) == paid
    (parked,) = workshop.state.parked(10)
    assert (parked.owner_id, parked.kind, parked.attempts) == ("1", "skill", 1)


def test_what_is_parked_is_tried_again_when_it_is_asked_for(workshop: Workshop) -> None:
    """And is forgotten as parked when it could be made."""
    world = workshop.world
    world.put(1, ANN)
    world.embedder.unusable = {"Go"}
    list(workshop.synchronizer().sync_owners(["1"]))
    world.embedder.unusable = set()
    (report,) = workshop.synchronizer(retry_parked=True).sync_owners(["1"])
    assert report.is_in_sync
    assert workshop.state.parked(10) == []
    world.assert_store_holds({"1": ANN})


def test_what_is_parked_is_tried_again_when_its_text_changes(workshop: Workshop) -> None:
    """Whoever mends the text need not know of any command."""
    world = workshop.world
    world.put(1, {"skills": [{"name": "Go", "level": "bad"}]})
    world.embedder.unusable = {"bad"}
    list(workshop.synchronizer().sync_owners(["1"]))
    world.put(1, {"skills": [{"name": "Go", "level": "good"}]})
    (report,) = workshop.synchronizer().sync_owners(["1"])
    assert report.is_in_sync


def test_a_parked_record_holds_up_no_delete_for_good(workshop: Workshop) -> None:
    """It does the first time: the missing one might have taken the place of what is to go."""
    world = workshop.world
    world.put(1, ANN)
    list(workshop.synchronizer().sync_owners(["1"]))
    world.put(1, {"skills": ["SQL", "Rust"]})
    world.embedder.unusable = {"Rust"}
    list(workshop.synchronizer().sync_owners(["1"]))
    assert len(world.keys(1)) == 2
    list(workshop.synchronizer().sync_owners(["1"]))
    assert len(world.keys(1)) == 1


# --- order ---------------------------------------------------------------------------------------


def test_a_plan_that_is_too_old_is_not_sent(workshop: Workshop) -> None:
    """Embedding took longer than the send deadline; the next round makes a new plan."""
    world = workshop.world
    world.put(1, ANN)
    embed = world.embedder.embed
    delays = [SEND_DEADLINE_SECONDS + 1, 0.0]

    def slow(texts: list[str], purpose: str = "document") -> object:
        workshop.clock.now += delays.pop(0) if delays else 0.0
        return embed(texts)

    world.embedder.embed = slow  # type: ignore[assignment,method-assign]
    (report,) = workshop.synchronizer().sync_owners(["1"])
    assert report.is_in_sync
    assert (report.written, report.embedded) == (2, 2)


def test_a_deleted_record_leaves_a_tombstone_that_is_collected_in_time(workshop: Workshop) -> None:
    """Not a moment before nothing of it can be on its way."""
    world = workshop.world
    world.put(1, ANN)
    list(workshop.synchronizer().sync_owners(["1"]))
    world.put(1, {"skills": ["SQL"]})
    list(workshop.synchronizer().sync_owners(["1"]))
    store = workshop.sides().store
    assert isinstance(store, ClaimableStore)
    assert len(list(store.tombstones(["1"]))) == 1
    workshop.watcher().step()
    assert len(list(store.tombstones(["1"]))) == 1
    workshop.clock.now += 3 * 86_400
    workshop.watcher().step()
    assert list(store.tombstones(["1"])) == []
    assert workshop.state.note(["1"]).owners["1"].entities.keys() == {
        (key.partition(":")[0], key.partition(":")[2]) for key in world.keys(1)
    }


# --- whose store this is -------------------------------------------------------------------------


def test_a_store_of_another_state_is_not_written(workshop: Workshop) -> None:
    """Two states would undo each other's work."""
    workshop.world.put(1, ANN)
    list(workshop.synchronizer().sync_owners(["1"]))
    workshop.state = MemoryState(workshop.clock)
    workshop.state.create()
    sides = workshop.sides()
    with pytest.raises(StateMismatch, match="undrift state adopt"):
        workshop.ledger(sides).enter()
    adopted = workshop.ledger(sides).adopt()
    assert adopted.state_id == workshop.state.standing().state_id
    workshop.world.put(1, BOB)
    (report,) = workshop.synchronizer().sync_owners(["1"])
    assert report.is_in_sync
    workshop.world.assert_store_holds({"1": BOB})


def test_a_store_of_another_source_is_not_written(workshop: Workshop) -> None:
    """A DATABASE_URL that names the wrong database would empty the store."""
    sides = workshop.sides()
    workshop.ledger(sides).enter()
    with pytest.raises(StateMismatch, match="DATABASE_URL"):
        workshop.ledger(sides, source="elsewhere").enter()
    workshop.ledger(sides, source="elsewhere").adopt()
    workshop.ledger(sides, source="elsewhere").enter()


def test_a_superseded_configuration_stands_down_in_the_middle_of_its_work(
    workshop: Workshop,
) -> None:
    """Two releases at once: the older one writes nothing from then on."""
    sides = workshop.sides()
    older = workshop.ledger(sides, config="older")
    older.enter()
    workshop.ledger(sides, config="newer").enter()
    with pytest.raises(Superseded):
        older.note(["1"])
    with pytest.raises(Superseded):
        workshop.ledger(sides, config="older").enter()
    workshop.ledger(sides, config="older").adopt()
    workshop.ledger(sides, config="older").enter()


def test_a_state_that_is_older_than_its_claim_looks_at_everybody_again(
    workshop: Workshop,
) -> None:
    """Restored from a backup, or a copy on another host: once now, once after the send deadline."""
    world = workshop.world
    world.put(1, ANN)
    list(workshop.synchronizer().sync_owners(["1"]))
    backup = workshop.state.copy()
    world.put(1, BOB)
    list(workshop.synchronizer().sync_owners(["1"]))
    workshop.state.restore(backup)
    assert workshop.state.summary().dirty == 0
    watcher = workshop.watcher()
    assert watcher.step() == 1
    world.assert_store_holds({"1": BOB})
    assert watcher.step() == 0
    workshop.clock.now += SEND_DEADLINE_SECONDS + 1
    assert watcher.step() == 1
    world.assert_store_holds({"1": BOB})


# --- who works on whom ---------------------------------------------------------------------------


def test_two_syncs_of_one_owner_embed_once(workshop: Workshop) -> None:
    """The second waits for the first one's lease, and finds nothing left to do."""
    world = workshop.world
    world.put(1, ANN)
    barrier = Barrier(2)
    reports: list[SyncReport] = []

    def sync() -> None:
        synchronizer = workshop.synchronizer()
        barrier.wait()
        reports.extend(synchronizer.sync_owners(["1"]))

    threads = [Thread(target=sync) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(report.is_in_sync for report in reports)
    assert sorted(world.embedder.texts) == ["Go", "SQL"]
    assert sorted(report.written for report in reports) == [0, 2]


def test_what_fails_is_dirty_and_what_succeeds_is_not(workshop: Workshop) -> None:
    """Whoever watches goes on where a command failed."""
    world = workshop.world
    world.put_all({"1": ANN, "2": BOB})
    world.embedder.refused = {"C"}
    reports = {r.owner_id: r for r in workshop.synchronizer().sync_all()}
    assert (reports["1"].is_in_sync, reports["2"].outcome) == (True, Outcome.FAILED)
    assert workshop.state.summary().dirty == 1
    world.embedder.refused = set()
    watcher = workshop.watcher()
    assert watcher.step() == 0  # too early for another try
    workshop.clock.now += 2
    assert watcher.step() == 1
    assert workshop.state.summary().dirty == 0
    world.assert_store_holds({"1": ANN, "2": BOB})


def test_a_watch_stops_the_deletes_of_a_source_that_is_emptied(workshop: Workshop) -> None:
    """Half of it may go within a day, and then a person has to say so."""
    world = workshop.world
    everybody = {str(n): {"skills": [f"skill {n}.{k}" for k in range(4)]} for n in range(1, 21)}
    world.put_all(everybody)
    list(workshop.synchronizer().sync_all())
    world.put_all({owner: {} for owner in everybody})
    watcher = workshop.watcher()
    for owner in everybody:
        workshop.state.mark([owner])
        watcher.step()
    assert len(world.store.managed()) == 40
    summary = workshop.state.summary()
    assert summary.deletes_waiting
    assert summary.dirty == 10
    (report,) = workshop.synchronizer().sync_owners(["20"])
    assert report.is_in_sync  # a person has named it
    with pytest.raises(SafetyStop):
        list(workshop.synchronizer().sync_all())


# --- the same through the front door -------------------------------------------------------------


@pytest.fixture
def open_elsewhere(world: World) -> Iterator[Callable[[State], Undrift]]:
    """A function that opens the world with a state that is not beside the vectors."""
    with ExitStack() as opened:

        def open_(state: State) -> Undrift:
            return opened.enter_context(
                Undrift(
                    source=world.source_url,
                    store=world.store_url,
                    state=state,
                    embedder=world.embedder,
                    heal=NO_HEALING,
                )
            )

        yield open_


def test_a_state_of_ones_own_orders_the_writes(
    world: World, open_elsewhere: Callable[[State], Undrift]
) -> None:
    """Deletes are tombstones then, which nothing shows."""
    state = MemoryState()
    sides = open_elsewhere(state)
    world.put(1, ANN)
    assert sides.sync(1).is_in_sync
    world.put(1, {"skills": ["SQL"]})
    report = sides.sync(1)
    assert (report.is_in_sync, report.deleted, report.written) == (True, 1, 0)
    status = sides.check(1)
    assert (status.in_sync, dict(status.store), drift_of(status)) == (True, {"skill": 1}, {})
    assert state.summary().entities == 1
    assert [hit.text for hit in sides.search(1, "SQL").hits] == ["SQL"]


def test_a_changed_template_supersedes_the_release_before(
    world: World, open_elsewhere: Callable[[State], Undrift]
) -> None:
    """Which says so, and still checks."""
    state = MemoryState()
    world.put(1, ANN)
    older = open_elsewhere(state)
    older.sync(1)
    newer = Undrift(
        source=world.source_url,
        store=world.store_url,
        state=state,
        embedder=world.embedder,
        heal=NO_HEALING,
        mapping=SourceMapping(
            documents=world.layout.mapping.documents,
            entities=(
                EntitySpec(
                    kind="skill", path="skills[*]", key=("value",), text="Skill: {{ value }}"
                ),
            ),
        ),
    )
    with newer:
        assert newer.sync(1).is_in_sync
        with pytest.raises(Superseded):
            older.sync(1)
        assert older.check(1).outcome is Outcome.DRIFT
        world.embedder.texts.clear()
        assert newer.sync(1).skipped
        assert world.embedder.texts == []


def test_a_store_of_ones_own_without_a_state_is_synced_as_it_is(world: World) -> None:
    """Its versions order its writes; nothing is remembered beside it."""
    world.put(1, ANN)

    class Bare:
        """A store's methods without those that a state needs."""

        def __init__(self) -> None:
            self._inner = open_store(world.store_url)

        def __getattr__(self, name: str) -> object:
            if name in {"claim", "state_address"}:
                raise AttributeError(name)
            return getattr(self._inner, name)

    bare = Bare()
    sides = Undrift(
        source=world.source_url,
        store=bare,  # type: ignore[arg-type]
        embedder=world.embedder,
        heal=NO_HEALING,
    )
    with sides:
        assert sides.sync(1).is_in_sync
        assert sides.sync(1).skipped
    world.assert_store_holds({"1": ANN})


# --- a watch that lives long ----------------------------------------------------------------------


def test_a_source_file_that_is_replaced_is_read_anew(sqlite: World, tmp_path: Path) -> None:
    """As by a restore; what a long-lived program opened before is another file's content."""
    with Workshop(sqlite) as workshop:
        sqlite.put_all({"1": ANN, "2": BOB})
        watcher = workshop.watcher()
        workshop.state.mark(["1", "2"])
        assert watcher.step() == 2
        file = Path(sqlite.source_url.removeprefix("sqlite:///"))
        restored = tmp_path / "restored.db"
        shutil.copy(file, restored)
        with closing(sqlite3.connect(restored)) as other, other:
            other.execute("UPDATE profiles SET filtered_data = ?", [json.dumps(BOB)])
        restored.replace(file)
        workshop.state.mark(["1", "2"])
        assert watcher.step() == 2
        sqlite.assert_store_holds({"1": BOB, "2": BOB})


def test_triggers_that_are_removed_end_no_watch(world: World) -> None:
    """Freshness is lost; the scrub goes on."""
    world.bring_in_sync({"1": ANN})
    with Undrift(
        source=world.source_url, store=world.store_url, embedder=world.embedder, heal=NO_HEALING
    ) as sides:
        sides.triggers.install()
        removed: list[bool] = []

        def is_over() -> bool:
            if not removed:
                sides.triggers.remove()
                removed.append(True)
                world.put(1, BOB)
            return sides.check(1).is_in_sync

        sides.watch(is_over=is_over)
    world.assert_store_holds({"1": BOB})


def test_edits_that_give_a_record_a_new_key_are_not_taken_for_deletes(workshop: Workshop) -> None:
    """Where the name is the key, every new name is a delete and a write."""
    world = workshop.world
    everybody = {str(n): {"skills": [f"skill {n}.{k}" for k in range(4)]} for n in range(1, 16)}
    world.put_all(everybody)
    list(workshop.synchronizer().sync_all())
    renamed = {o: {"skills": [f"new {o}.{k}" for k in range(4)]} for o in everybody}
    world.put_all(renamed)
    workshop.state.mark(list(everybody))
    assert workshop.watcher().step() == 15
    assert not workshop.state.summary().deletes_waiting
    world.assert_store_holds(renamed)


# --- overtaken -----------------------------------------------------------------------------------


@pytest.fixture
def at_failpoint() -> Iterator[Callable[[str, Callable[[], None]], None]]:
    """A function that lets something happen when a failpoint is reached first."""

    def happen(name: str, what: Callable[[], None]) -> None:
        def hook(reached: str) -> None:
            if reached == name:
                failpoints.install(None)
                what()

        failpoints.install(hook)

    yield happen
    failpoints.install(None)


def test_whoever_is_overtaken_before_its_raise_notes_again_and_ends_in_sync(
    workshop: Workshop, at_failpoint: Callable[[str, Callable[[], None]], None]
) -> None:
    """In the same run: what it had noted counts no more."""
    world, state = workshop.world, workshop.state
    world.put(1, {"skills": ["Go"]})
    list(workshop.synchronizer().sync_owners(["1"]))
    (stored,) = world.store.managed()
    world.store.set(stored, version=5, fingerprint="0" * 32, text_hash="0" * 32)

    def raise_it() -> None:
        (row,) = state.note(["1"]).owners["1"].entities.values()
        wish = VersionRaise(owner_id="1", observed=[row], raised=[row._replace(version=9)])
        assert state.raise_versions([wish]) == {"1"}

    at_failpoint("sync.looked", raise_it)
    (report,) = workshop.synchronizer().sync_owners(["1"])
    assert (report.outcome, report.written) == (Outcome.IN_SYNC, 1)
    world.assert_store_holds({"1": {"skills": ["Go"]}})


def test_what_others_were_quicker_with_is_not_told_as_written(
    world: World,
    without_leases: None,
    at_failpoint: Callable[[str, Callable[[], None]], None],
) -> None:
    """Only what a run wrote itself, once."""
    world.bring_in_sync({"2": {"skills": ["C"]}})
    world.put(1, {"skills": ["Go"]})
    told: list[SyncEvent] = []

    def quicker() -> None:
        assert world.open().sync(1).written == 1

    at_failpoint("sync.planned", quicker)
    (report,) = world.sides.sync_owners([1], listener=told.append)
    assert (report.outcome, report.written) == (Outcome.IN_SYNC, 0)
    assert [event for event in told if isinstance(event, BatchWritten)] == []
