"""A sync of everybody in several processes: as exact as in one, whatever happens to them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator, Mapping

import pytest
from sqlalchemy.exc import OperationalError

from support.layouts import Document, document, experience
from support.scanning import opened_by_url
from support.sides import World
from support.spawned import children_of
from support.watching import until
from undrift import SyncReport, Undrift
from undrift.embedders.hashing import HashingEmbedder
from undrift.engines import sync_in_processes as engines
from undrift.engines.sync_in_processes import sync_in_processes
from undrift.errors import (
    ConfigError,
    EmbeddingBudgetSpent,
    SafetyStop,
    UndriftError,
    UnknownStateError,
    UnsupportedError,
)
from undrift.events import BatchWritten, SyncEvent
from undrift.model import Outcome
from undrift.ports import Embedder

OWNERS = 3_000  # six pages
TWO = sync_in_processes(2)


@pytest.fixture
def sides(world: World) -> Iterator[Undrift]:
    """Both sides by their URLs, and the embedder by its name."""
    world.embedder.model = HashingEmbedder(16).model
    with opened_by_url(world) as opened:
        yield opened


def everybody(word: str = "Text", owners: int = OWNERS) -> Mapping[str, Document]:
    """One text each, and none of them twice."""
    return {str(n): document(experience("exp_1", f"{word} {n}")) for n in range(1, owners + 1)}


def synced(sides: Undrift) -> list[SyncReport]:
    """What a sync in two processes says."""
    return list(sides.sync_all(engine=TWO))


def assert_in_sync(world: World, sides: Undrift, documents: Mapping[str, Document]) -> None:
    """The store holds what *documents* render to, and a check says so."""
    world.assert_store_holds(documents)
    assert Counter(status.outcome for status in sides.check_all()) == {
        Outcome.IN_SYNC: len(documents)
    }


def workers() -> list[int]:
    """The processes of this one's pool."""
    return children_of(os.getpid())


def test_everybody_is_synced_once_and_told_in_order(world: World, sides: Undrift) -> None:
    """From nothing, after edits and deletes, and with nothing to do."""
    world.put_all(everybody())
    told: list[SyncEvent] = []
    reports = list(sides.sync_all(engine=TWO, listener=told.append))
    assert {report.outcome for report in reports} == {Outcome.IN_SYNC}
    assert sum(report.embedded for report in reports) == OWNERS
    assert sum(event.count for event in told if isinstance(event, BatchWritten)) == OWNERS
    assert [report.owner_id for report in reports] == [
        report.owner_id for report in sides.sync_all()
    ]
    assert_in_sync(world, sides, everybody())
    edited = dict(everybody()) | {"7": document(), "8": document(experience("exp_2", "New"))}
    world.put_all({owner: edited[owner] for owner in ("7", "8")})
    changed = [report for report in synced(sides) if report.written or report.deleted]
    assert {(r.owner_id, r.written, r.deleted, r.embedded) for r in changed} == {
        ("7", 0, 1, 0),
        ("8", 1, 1, 1),
    }
    assert_in_sync(world, sides, edited)
    assert workers() == []


def test_the_guard_counts_the_deletes_of_all_processes(world: World, sides: Undrift) -> None:
    """A source that seems to be emptied empties no store."""
    world.put_all(everybody(owners=1_500))
    synced(sides)
    world.put_all({str(owner): document() for owner in range(1, 1_401)})
    with pytest.raises(SafetyStop, match="1400"):
        synced(sides)
    world.assert_store_holds(everybody(owners=1_500))
    outcomes = Counter(r.deleted for r in sides.sync_all(engine=TWO, max_delete="1400"))
    assert outcomes == {1: 1_400, 0: 100}
    assert workers() == []


def kill_one(reports: Iterator[SyncReport]) -> None:
    """Kill a process of the pool behind the first page."""
    next(reports)
    victim = workers()[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in workers(), "it is gone")


def test_the_pages_of_a_killed_process_are_synced_all_the_same(
    world: World, sides: Undrift
) -> None:
    """By other ones."""
    world.put_all(everybody())
    reports = sides.sync_all(engine=TWO)
    kill_one(reports)
    assert {report.outcome for report in reports} == {Outcome.IN_SYNC}
    assert_in_sync(world, sides, everybody())
    assert workers() == []


def test_control_without_other_processes_a_killed_one_ends_the_run(
    world: World, sides: Undrift, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind the reports of whatever was begun; and what it left is found by the next."""
    monkeypatch.setattr(engines, "MAX_RETRIES", 0)
    world.put_all(everybody())
    reports, told = sides.sync_all(engine=TWO), Counter[Outcome]()
    kill_one(reports)
    with pytest.raises(UnknownStateError, match="end again and again"):
        told.update(report.outcome for report in reports)
    assert told[Outcome.UNKNOWN] == 500
    assert told.keys() <= {Outcome.UNKNOWN, Outcome.IN_SYNC}
    monkeypatch.undo()
    synced(sides)
    assert_in_sync(world, sides, everybody())


def test_a_run_that_is_given_up_leaves_no_process_and_no_lease(
    world: World, sides: Undrift
) -> None:
    """Whoever comes next waits for nobody."""
    world.put_all(everybody())
    reports = sides.sync_all(engine=TWO)
    next(reports)
    reports.close()  # type: ignore[attr-defined]
    assert workers() == []
    held = world.store.database.rows(
        f"SELECT count(*) AS n FROM {state_table(world)} WHERE lease_holder <> ''"
    )
    assert [row["n"] for row in held] == [0]
    synced(sides)
    assert_in_sync(world, sides, everybody())


def state_table(world: World) -> str:
    """Where leases are."""
    is_postgres = world.store.database.is_postgres
    return "undrift.owner_state" if is_postgres else "undrift_owner_state"


def test_a_budget_is_spent_to_the_last_text_and_no_further(world: World, sides: Undrift) -> None:
    """Whoever embeds, and the next run pays for the rest."""
    world.put_all(everybody())
    reports: list[SyncReport] = []
    run = sides.sync_all(engine=TWO, max_embeddings=1_300)
    with pytest.raises(EmbeddingBudgetSpent):
        reports.extend(run)
    assert sum(report.embedded for report in reports) == 1_300
    assert len(world.store.managed()) == 1_300
    assert sum(report.embedded for report in synced(sides)) == OWNERS - 1_300
    assert_in_sync(world, sides, everybody())


@pytest.mark.parametrize("processes", [0, -1, 1_001])
def test_impossible_numbers_of_processes_are_refused(processes: int) -> None:
    """Before anything is opened."""
    with pytest.raises(ConfigError, match=f"--processes {processes}"):
        sync_in_processes(processes)


class Unsendable(HashingEmbedder):
    """An embedder that stays where it is."""

    def __reduce__(self) -> str:
        """Refuse."""
        raise TypeError("not to be pickled")


@pytest.mark.parametrize("what", ["objects", "embedder"])
def test_what_processes_cannot_do_is_refused_before_anything_is_written(
    sqlite: World, what: str
) -> None:
    """Objects that exist here only."""
    sqlite.put_all(everybody(owners=3))
    embedder: Embedder | str = Unsendable(16) if what == "embedder" else "hashing:16"
    errors: Mapping[str, type[UndriftError]] = {
        "objects": UnsupportedError,
        "embedder": ConfigError,
    }
    opened = (
        sqlite.sides
        if what == "objects"
        else Undrift(source=sqlite.source_url, store=sqlite.store_url, embedder=embedder)
    )
    with opened, pytest.raises(errors[what]) as refused:
        list(opened.sync_all(engine=TWO))
    words = {"objects": "object of your own", "embedder": "pickled"}
    assert words[what] in str(refused.value)
    with pytest.raises(OperationalError, match="no such table"):
        sqlite.store.managed()
