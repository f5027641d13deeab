"""What a sync promises to whoever calls it, on real stores."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from support.drift import Drift, fleet
from support.layouts import ENGINEER, document, experience
from support.postgres import PostgresServer, with_login
from support.sides import CountingEmbedder, World, drift_of
from support.wrappers import SteppedSource, SteppedStore
from undrift import (
    AsyncUndrift,
    ConfigError,
    EmbeddingBudgetSpent,
    Outcome,
    SyncReport,
)
from undrift.events import BatchDeleted, BatchWritten, StoreCreated, SyncEvent
from undrift.failpoints import install

# --- in sync, by force, again -----------------------------------------------------------------

pytestmark = pytest.mark.usefixtures("without_leases")


def test_first_sync_creates_the_store_and_says_so(world: World) -> None:
    """A check before it reports everything missing and creates nothing."""
    world.put("1", ENGINEER)
    before = world.sides.check("1")
    assert not world.store.exists
    events: list[SyncEvent] = []

    report = world.sides.sync("1", listener=events.append)

    assert drift_of(before) == {"missing": set(world.layout.entities(ENGINEER))}
    assert before.notes == ("store not created yet",)
    assert isinstance(events[0], StoreCreated)
    assert report.is_in_sync
    world.assert_store_holds({"1": ENGINEER})


def test_check_of_a_store_that_does_not_exist_creates_no_file(
    sqlite: World, tmp_path: Path
) -> None:
    """Looking leaves no trace: no file, no folder."""
    sqlite.put("1", ENGINEER)
    before = sorted(tmp_path.rglob("*"))

    sqlite.sides.check("1")
    list(sqlite.sides.check_all())
    list(sqlite.sides.plan(None))

    assert sorted(tmp_path.rglob("*")) == before


def test_owner_in_sync_is_skipped(world: World) -> None:
    """Nothing is embedded, written or deleted, and the report says so."""
    world.bring_in_sync({"1": ENGINEER})
    before = world.store.records()
    calls = world.embedder.calls

    report = world.sides.sync("1")

    assert (report.outcome, report.skipped, report.verified) == (Outcome.IN_SYNC, True, True)
    assert (report.written, report.deleted, report.embedded) == (0, 0, 0)
    assert world.embedder.calls == calls
    assert world.store.records() == before


def test_second_sync_changes_nothing(world: World) -> None:
    """Idempotence (I5): after a repair, the next run finds nothing to do."""
    world.bring_in_sync({"1": ENGINEER})
    world.put("1", document(experience("exp_1", "Edited"), skills=["SQL"]))
    assert world.sides.sync("1").is_in_sync
    before = world.store.records()
    world.embedder.texts.clear()

    again = list(world.sides.sync_all())

    assert [report.skipped for report in again] == [True]
    assert world.embedder.texts == []
    assert world.store.records() == before


def test_force_embeds_everything_anew_and_is_never_without_it(world: World) -> None:
    """At every step of a forced sync a search of another program shows every entity (I1)."""
    world.bring_in_sync({"1": ENGINEER})
    wanted = world.layout.entities(ENGINEER)
    before = world.store.records()
    reader = world.open(embedder=CountingEmbedder())
    seen: dict[str, set[str]] = {}

    def search(failpoint: str) -> None:
        result = reader.search("1", "ledgers", limit=100)
        seen[failpoint] = {hit.key for hit in result.hits}

    previous = install(search)
    try:
        report = world.sides.sync("1", force=True)
    finally:
        install(previous)

    assert report.is_in_sync
    assert (report.written, report.embedded) == (len(wanted), len(wanted))
    assert sorted(world.embedder.texts) == sorted(entity.text for entity in wanted.values())
    assert {"store.publish.begun", "store.publish.committed", "sync.verified"} <= seen.keys()
    assert all(hits == wanted.keys() for hits in seen.values())
    after = world.store.records()
    assert after.keys() == before.keys()
    assert all(after[i]["version"] > before[i]["version"] for i in after)


# --- cost -------------------------------------------------------------------------------------


def test_metadata_change_costs_no_embedding(world: World) -> None:
    """The record is rewritten and keeps its vector."""
    world.bring_in_sync({"1": ENGINEER})
    edited = document(ENGINEER["experiences"][0], experience("exp_2", "Runs a kiln", end="2021-12"))
    edited["skills"] = ENGINEER["skills"]
    world.put("1", edited)

    report = world.sides.sync("1")

    assert (report.outcome, report.written, report.embedded) == (Outcome.IN_SYNC, 1, 0)
    assert world.embedder.texts == []
    world.assert_store_holds({"1": edited})


def test_equal_texts_are_embedded_once_over_a_run(world: World) -> None:
    """Twelve owners on six pages share their skills; each text is paid for once."""
    documents = {
        str(owner): document(experience(f"exp_{owner}"), skills=["SQL", "Go"])
        for owner in range(1, 13)
    }
    world.put_all(documents)
    sides = world.open(source=lambda source: SteppedSource(source, page_owners=2))

    reports = list(sides.sync_all())

    assert all(report.is_in_sync for report in reports)
    assert sorted(world.embedder.texts) == sorted({*world.embedder.texts})
    assert len(world.embedder.texts) == 12 + 2
    assert sum(report.embedded for report in reports) == 12 + 2
    world.assert_store_holds(documents)


@pytest.mark.parametrize("force", [False, True], ids=["sync", "force"])
@pytest.mark.parametrize("named", [False, True], ids=["all", "named"])
def test_dry_run_writes_nothing_and_costs_what_the_run_then_costs(
    world: World, force: bool, named: bool
) -> None:
    """Texts, writes and deletes are those of the real run, to the last one."""
    random = Random(7)
    documents = fleet(40, random)
    world.bring_in_sync(documents)
    drift = Drift(world, documents, random)
    # A stolen record may come back by a write or be deleted first; that is not foreseeable.
    for owner, name in zip(documents, drift.on_an_entity, strict=False):
        if name != "record stolen":
            drift.on_an_entity[name](owner)
    drift.remove_owner("40")
    drift.save()
    before = world.store.records()
    owners = sorted(documents) if named else None

    planned = list(world.sides.plan(owners, force=force))

    assert world.store.records() == before
    assert world.embedder.texts == []
    assert all(report.dry_run for report in planned)
    real = (
        list(world.sides.sync_all(force=force))
        if owners is None
        else list(world.sides.sync_owners(owners, force=force))
    )
    assert all(report.is_in_sync for report in real)
    assert costs(planned) == {r.owner_id: (r.written, r.deleted) for r in real}
    assert sum(report.cost.texts for report in planned) == len(world.embedder.texts)
    estimate = sum(-(-len(text) // 4) for text in world.embedder.texts)
    assert sum(report.cost.tokens for report in planned) == estimate


def costs(planned: list[SyncReport]) -> dict[str, tuple[int, int]]:
    return {report.owner_id: (report.cost.writes, report.cost.deletes) for report in planned}


def test_spent_budget_keeps_what_was_paid_for_and_the_next_run_goes_on(world: World) -> None:
    """No text is paid for twice, and nothing is deleted before everything is written."""
    world.bring_in_sync({"1": document(experience("exp_old"))})
    world.put("1", ENGINEER)

    first = world.sides.sync("1", max_embeddings=2)

    assert isinstance(first.error, EmbeddingBudgetSpent)
    assert (first.outcome, first.written, first.embedded) == (Outcome.FAILED, 2, 2)
    paid = list(world.embedder.texts)
    second = world.sides.sync("1")
    assert second.is_in_sync
    assert len(paid) == 2
    assert len(world.embedder.texts) == len({*world.embedder.texts}) == 5
    world.assert_store_holds({"1": ENGINEER})


@pytest.mark.parametrize("named", [False, True], ids=["all", "named"])
def test_spent_budget_of_a_fleet_run_keeps_its_progress(world: World, named: bool) -> None:
    """Runs of a budget each, one after the other, finish; none deletes before the last."""
    documents = {str(n): document(experience(f"exp_{n}", f"Words {n}")) for n in range(1, 10)}
    world.bring_in_sync({"1": document(experience("exp_old"))})
    world.put_all(documents)
    sides = world.open(source=lambda source: SteppedSource(source, page_owners=2))

    spent = 0
    while spent < 10:
        world.embedder.texts.clear()
        run = (
            sides.sync_owners(sorted(documents), max_embeddings=4)
            if named
            else sides.sync_all(max_embeddings=4)
        )
        try:
            reports = list(run)
        except EmbeddingBudgetSpent:
            spent += 1
            assert len(world.embedder.texts) == 4
        else:
            break

    assert spent == 2
    assert len(world.embedder.texts) == 1
    assert all(report.is_in_sync for report in reports)
    world.assert_store_holds(documents)


def test_run_that_is_given_up_leaves_every_record_old_or_new(world: World) -> None:
    """Whoever stops asking for reports stops the run; the next one does the rest (I6)."""
    world.bring_in_sync({str(n): ENGINEER for n in range(1, 13)})
    edited = {str(n): document(experience("exp_1", f"Edited {n}")) for n in range(1, 13)}
    world.put_all(edited)
    sides = world.open(source=lambda source: SteppedSource(source, page_owners=2))

    first = next(iter(sides.sync_all()))

    assert first.owner_id in edited
    assert all("experience:exp_1" in world.keys(owner) for owner in edited)
    assert all(report.is_in_sync for report in sides.sync_all(max_delete="100%"))
    world.assert_store_holds(edited)


# --- many records, many programs --------------------------------------------------------------


def test_owner_with_many_records_is_written_in_batches_and_writes_come_first(
    world: World,
) -> None:
    """5,200 new records replace 5,200 old ones: all batches of writes, then those of deletes."""
    world.bring_in_sync({"1": document(skills=[f"Old {n}" for n in range(5_200)])})
    renewed = document(skills=[f"New {n}" for n in range(5_200)])
    world.put("1", renewed)
    stores: list[SteppedStore] = []
    events: list[SyncEvent] = []

    def stepped(store: object) -> SteppedStore:
        stores.append(SteppedStore(store))  # type: ignore[arg-type]
        return stores[-1]

    report = world.open(store=stepped).sync("1", listener=events.append)

    assert report.is_in_sync
    assert (report.written, report.deleted, report.embedded) == (5_200, 5_200, 5_200)
    assert stores[0].published == [(5_000, 0), (200, 0), (0, 5_000), (0, 200)]
    told = [event for event in events if isinstance(event, BatchWritten | BatchDeleted)]
    assert told == [
        BatchWritten("1", 1, 5_000, 5_000),
        BatchWritten("1", 2, 200, 5_200),
        BatchDeleted("1", 1, 5_000, 5_000),
        BatchDeleted("1", 2, 200, 5_200),
    ]
    world.assert_store_holds({"1": renewed})


def test_role_that_may_only_select_can_check_and_search(
    postgres_server: PostgresServer, postgres: World
) -> None:
    """A check needs SELECT on the mapped table and on the vectors, and nothing more."""
    postgres.bring_in_sync({"1": ENGINEER, "2": ENGINEER})
    postgres_server.create_role("checker", "secret")
    for grant in (
        "SELECT ON profiles TO checker",
        "USAGE ON SCHEMA undrift TO checker",
        "SELECT ON undrift.vectors TO checker",
    ):
        postgres.source.run(f"GRANT {grant}")
    url = with_login(postgres.source_url, "checker", "secret")
    sides = postgres.open(source_url=url, store_url=url)

    assert sides.check("1").is_in_sync
    with pytest.raises(ConfigError, match="GRANT"):
        sides.sync("1")
    assert len(sides.search("1", "ledgers").hits) == 5
    postgres.store.delete(postgres.vector_id("2", "experience:exp_1"))
    found = {status.owner_id: drift_of(status) for status in sides.check_all()}
    assert found == {"1": {}, "2": {"missing": {"experience:exp_1"}}}


def test_role_that_may_only_select_writes_nothing(
    postgres_server: PostgresServer, postgres: World
) -> None:
    """Its sync of an owner that drifted fails and says why; it is never taken for a success."""
    postgres.bring_in_sync({"1": ENGINEER})
    postgres_server.create_role("checker", "secret")
    for grant in ("USAGE ON SCHEMA undrift", "SELECT ON profiles, undrift.vectors"):
        postgres.source.run(f"GRANT {grant} TO checker")
    url = with_login(postgres.source_url, "checker", "secret")
    sides = postgres.open(source_url=url, store_url=url)
    postgres.put("1", document(experience("exp_1")))
    before = postgres.store.records()

    with pytest.raises(Exception, match="permission denied"):
        raise sides.sync("1").error or AssertionError("no error")

    assert postgres.store.records() == before


def test_async_face_does_the_same(world: World) -> None:
    """check, plan, sync, sync_all and search, awaited."""
    world.put_all({"1": ENGINEER, "2": ENGINEER})
    sides = AsyncUndrift(world.sides)

    async def everything() -> tuple[list[bool], int]:
        missing = await sides.check("1")
        planned = [report async for report in sides.plan(None)]
        synced = await sides.sync("1")
        rest = [report async for report in sides.sync_all()]
        statuses = [status async for status in sides.check_all()]
        named = [status async for status in sides.check_owners(["1", "2"])]
        result = await sides.search("1", "ledgers")
        assert missing.outcome is Outcome.DRIFT
        assert sum(report.cost.writes for report in planned) == 10
        in_sync = [report.is_in_sync for report in (synced, *rest)]
        in_sync += [status.is_in_sync for status in (*statuses, *named)]
        return in_sync, len(result.hits)

    assert asyncio.run(everything()) == ([True] * 7, 5)
    world.assert_store_holds({"1": ENGINEER, "2": ENGINEER})
