"""A dry run over everybody: what a sync would do, at the cost of a check, and nothing written."""

from __future__ import annotations

import pytest

from support.layouts import Document, document, experience
from support.sides import World
from undrift import dry_run
from undrift.cli.forecast import Forecast, look_ahead
from undrift.cli.streams import Stream, Terminal
from undrift.errors import SafetyStop, StoreUnavailable
from undrift.events import CheckStarted, SyncEvent, TextsEmbedded
from undrift.look import Sides
from undrift.model import Cost, Read, SyncReport
from undrift.scan.page import PageCheck


def working(title: str) -> Document:
    """A document with two experiences, the second of which everybody has."""
    return document(experience("exp_1", title), experience("exp_2", "Intern"))


EVERYBODY = {str(number): working(f"Job {number}") for number in range(1, 13)}


@pytest.fixture
def synced(world: World) -> World:
    """Everybody in sync, and known by their digests."""
    world.bring_in_sync(EVERYBODY)
    list(world.sides.check_all())
    return world


@pytest.fixture
def drifted(synced: World) -> World:
    """One user changed, one lost a vector, one is new, one is gone."""
    synced.put(3, working("Another job"))
    synced.store.database.run(
        f"DELETE FROM {synced.store.vectors} WHERE owner_id = '5' AND entity_id = 'exp_1'"
    )
    synced.put(99, working("A first job"))
    synced.remove_owners(["7"])
    return synced


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Owners whose stamps are read from here on."""
    found: set[str] = set()
    read_store = Sides.read_store

    def noted(self: Sides, owners: list[str]) -> object:
        found.update(owners)
        return read_store(self, owners)

    monkeypatch.setattr(Sides, "read_store", noted)
    return found


def costs(reports: list[SyncReport]) -> dict[str, tuple[int, int, int]]:
    """Texts, writes and deletes of whoever would be synced."""
    return {
        report.owner_id: (report.cost.texts, report.cost.writes, report.cost.deletes)
        for report in reports
        if not report.skipped
    }


# --- plans ------------------------------------------------------------------------------------


def test_whoever_agrees_by_digests_is_not_read(drifted: World, looked_at: set[str]) -> None:
    """And the reports say so; those of the others are those of a dry run that names them."""
    events: list[SyncEvent] = []
    reports = list(drifted.sides.plan(None, listener=events.append))
    assert events == [CheckStarted(Read.DIGESTS, {})]
    assert looked_at == {"3", "5", "7", "99"}
    assert costs(reports) == {"3": (1, 1, 0), "5": (1, 1, 0), "7": (0, 0, 2), "99": (2, 2, 0)}
    by_owner = {report.owner_id: report for report in reports}
    assert by_owner.keys() == {*EVERYBODY, "99"}
    assert {r.read for r in reports if r.skipped} == {Read.DIGESTS}
    assert all(r.is_in_sync and r.dry_run and not r.written for r in reports if r.skipped)
    assert by_owner["1"].before.source == by_owner["1"].before.store == {"experience": 2}
    named = list(drifted.sides.plan(["3", "5", "7", "99"]))
    assert [by_owner[report.owner_id] for report in named] == named


def test_plan_is_what_the_sync_then_does(drifted: World) -> None:
    """Text for text; and not before."""
    before = drifted.store.records()
    planned = sum((report.cost for report in drifted.sides.plan(None)), Cost())
    assert drifted.store.records() == before
    paid: list[SyncEvent] = []
    reports = list(drifted.sides.sync_all(listener=paid.append))
    assert all(report.is_in_sync for report in reports)
    assert planned.writes == sum(report.written for report in reports) == 4
    assert planned.deletes == sum(report.deleted for report in reports) == 2
    told = [event for event in paid if isinstance(event, TextsEmbedded)]
    assert planned.texts == sum(event.texts for event in told) == 4
    assert planned.tokens == sum(event.tokens for event in told) > 0
    assert planned.texts == sum(report.embedded for report in reports)


def test_plan_of_a_forced_sync_believes_no_digest(synced: World) -> None:
    """Everything would be rewritten, a text that all share is paid for once."""
    reports = list(synced.sides.plan(None, force=True))
    assert {report.owner_id for report in reports if not report.skipped} == EVERYBODY.keys()
    assert sum((report.cost for report in reports), Cost()).writes == 24
    assert sum((report.cost for report in reports), Cost()).texts == 13


def test_plan_remembers_no_more_texts_than_it_may(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is seen first is remembered; beyond that a text may count twice, and none is missed."""
    world.put_all(EVERYBODY)
    assert sum((report.cost for report in world.sides.plan(None)), Cost()).texts == 13
    monkeypatch.setattr(dry_run, "MAX_COUNTED_TEXTS", 1)
    assert sum((report.cost for report in world.sides.plan(None)), Cost()).texts == 13
    monkeypatch.setattr(dry_run, "MAX_COUNTED_TEXTS", 0)
    assert sum((report.cost for report in world.sides.plan(None)), Cost()).texts == 24


def test_digests_that_cannot_be_read_are_no_reason_to_give_up(
    drifted: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look at each says what there is to say."""
    expected = costs(list(drifted.sides.plan(None)))

    def broken(self: PageCheck, owners: list[str]) -> object:
        raise StoreUnavailable("The store broke off", why="it does.", fix="mend it")

    monkeypatch.setattr(PageCheck, "agreed", broken)
    assert costs(list(drifted.sides.plan(None))) == expected


# --- what a person is told of it ----------------------------------------------------------------


def forecast(world: World, *, seconds: float = 60.0, max_delete: str | None = None) -> Forecast:
    """The forecast of a sync of everybody."""
    terminal = Terminal(Stream(None), Stream(None))
    return look_ahead(terminal, world.sides, max_delete=max_delete, seconds=seconds)


def told(found: Forecast, *, max_embeddings: int | None = None) -> list[str]:
    """Its lines."""
    return [line.text for line in found.lines(max_embeddings=max_embeddings)]


def test_forecast_tells_what_the_sync_does(drifted: World) -> None:
    """Of everybody, users included whom only the store has."""
    found = forecast(drifted)
    assert not found.is_nothing
    assert found.texts == 4
    tokens = found.cost.tokens
    assert told(found) == [
        "🔍 What this sync does, by a look at all 13 users:",
        "  - Users to sync: 4",
        f"  - Texts to embed: 4 (about {tokens} tokens)",
        "  - Vectors to write: 4",
        "  - Vectors to delete: 2 of 23",
    ]
    assert told(found, max_embeddings=3)[-1] == "  - Ends after 3 texts, by --max-embeddings"
    assert told(found, max_embeddings=4) == told(found)


def test_forecast_knows_that_the_deletes_are_going_to_be_stopped(drifted: World) -> None:
    """By the limit, or by the guard where nobody is left; the sync then says the same."""
    (stopped,) = [line for line in told(forecast(drifted, max_delete="1")) if "Stops" in line]
    with pytest.raises(SafetyStop) as caught:
        list(drifted.sides.sync_all(max_delete="1"))
    assert stopped == f"  - Stops before the deletes: {caught.value.why}"
    drifted.source.run("DELETE FROM profiles")
    (stopped,) = [line for line in told(forecast(drifted)) if "Stops" in line]
    with pytest.raises(SafetyStop) as caught:
        list(drifted.sides.sync_all())
    assert stopped == f"  - Stops before the deletes: {caught.value.why}"


def test_fleet_in_sync_has_nothing_to_be_asked_about(synced: World, looked_at: set[str]) -> None:
    """Nobody is read for it, either."""
    assert forecast(synced).is_nothing
    assert looked_at == set()


def test_user_who_cannot_be_looked_at_is_something(synced: World) -> None:
    """Unknown is not in sync."""
    synced.source.run("UPDATE profiles SET filtered_data = '[]' WHERE user_id = 4")
    found = forecast(synced)
    assert not found.is_nothing
    assert "  - Users unknown: 1" in told(found)
    assert "  - Users to sync: 0" in told(found)


def test_forecast_of_a_part_says_of_which_part_it_is(world: World) -> None:
    """What is told of everybody is an estimate then, and even of nothing nobody is sure."""
    world.put_all({str(number): working(f"Job {number}") for number in range(1, 41)})
    found = forecast(world, seconds=0.0)
    assert (found.users, found.is_whole, found.total) == (1, False, 40)
    assert found.texts == 80
    tokens = 40 * found.cost.tokens
    assert told(found) == [
        "🔍 What this sync does, by a look at 1 of 40 users (2.5 %):",
        "  - Users to sync: about 40",
        f"  - Texts to embed: about 80 (about {float(f'{tokens:.2g}'):.0f} tokens)",
        "  - Vectors to write: about 80",
        "  - Vectors to delete: about 0 of about 0",
        "  - Not looked at yet: the other users, and those whom only the vector store has",
    ]
    list(world.sides.sync_all())
    assert not forecast(world, seconds=0.0).is_nothing


def test_forecast_without_a_total_tells_the_least() -> None:
    """Nobody is to take the first users for everybody."""
    found = Forecast(
        users=500, differing=40, records=1_960, cost=Cost(texts=40, writes=41), is_whole=False
    )
    assert found.texts is None
    assert told(found, max_embeddings=10) == [
        "🔍 What this sync does, by a look at the first 500 users:",
        "  - Users to sync: at least 40",
        "  - Texts to embed: at least 40",
        "  - Vectors to write: at least 41",
        "  - Vectors to delete: at least 0 of at least 1960",
        "  - Ends after 10 texts, by --max-embeddings",
        "  - Not looked at yet: the other users, and those whom only the vector store has",
    ]


def test_estimates_have_no_more_digits_than_they_are_worth() -> None:
    """Two; and what was estimated from an estimate says so."""
    found = Forecast(
        users=3_000,
        differing=1_234,
        cost=Cost(texts=4_567, tokens=98_765, writes=4_600, deletes=1),
        records=12_000,
        total=1_000_000,
        is_about=True,
        is_whole=False,
    )
    assert told(found)[:5] == [
        "🔍 What this sync does, by a look at 3000 of about 1000000 users (0.3 %):",
        "  - Users to sync: about 410000",
        "  - Texts to embed: about 1500000 (about 33000000 tokens)",
        "  - Vectors to write: about 1500000",
        "  - Vectors to delete: about 330 of about 4000000",
    ]
