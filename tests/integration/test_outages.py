"""An outage at any step of either side: never "in sync", never a delete, and always told.

Each step that undrift makes on a side (a call, a page, a row) fails once in these tests. The
control, which takes an error for an empty answer, deletes and claims success under the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from support.naive import NaiveWriter
from support.outages import (
    LIVE,
    ORPHAN,
    PUBLISHED,
    WANTED,
    Fragile,
    Outage,
    Snapshot,
    assert_only_stale_was_deleted,
    drift_away,
    publish,
    ran,
    stale_in,
    truly_in_sync,
)
from support.sides import NAMESPACE, ORIGIN, CountingEmbedder, Identity, World
from support.wrappers import SteppedSource, SteppedStore, nothing
from undrift import (
    ConfigError,
    Outcome,
    SourceUnavailable,
    StoreUnavailable,
    SyncReport,
    UnknownStateError,
)
from undrift.events import DeletesHeld, SyncEvent
from undrift.ports import SourceInfo
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.stores import open_store

OWNER = "1"
ERRORS: dict[str, UnknownStateError] = {
    "source": SourceUnavailable("The source went away", why="the test says so.", fix="wait"),
    "store": StoreUnavailable("The store went away", why="the test says so.", fix="wait"),
}
LOOKING = {
    "source": (
        "source.describe",
        "source.owner_pages",
        "source.owner_pages next",
        "source.present",
        "source.read",
        "source.read next",
    ),
    "store": (
        "store.describe",
        "store.owners",
        "store.stamps",
        "store.stamps next",
        "store.unmanaged",
    ),
}
# Owners who are in sync add up to all that the store has: the source is not asked for the others.
LOOKING_WHERE_IN_SYNC = {
    "source": tuple(step for step in LOOKING["source"] if step != "source.present"),
    "store": LOOKING["store"],
}
WRITING = {"source": (), "store": ("store.publish", "store.publish returned")}
LOOKING_AT_ONE = {
    "source": ("source.describe", "source.read"),
    "store": ("store.describe", "store.stamps", "store.stamps next", "store.unmanaged"),
}


@pytest.fixture(params=["source", "store"])
def side(request: pytest.FixtureRequest) -> str:
    """Which side fails."""
    found: str = request.param
    return found


@pytest.fixture(params=[True, False], ids=["lasting", "passing"])
def lasting(request: pytest.FixtureRequest) -> bool:
    """Whether the side stays away, or is back for the next step."""
    found: bool = request.param
    return found


@pytest.fixture
def drifted(sqlite: World) -> World:
    """A fleet in which every owner drifted: missing, changed and stale."""
    drift_away(sqlite)
    return sqlite


def test_check_of_drifted_owners_never_says_in_sync(
    drifted: World, side: str, lasting: bool
) -> None:
    """Wherever a side fails, an owner is unknown or its drift is told; the failure is told."""
    fragile = Fragile(drifted)
    for outage in fragile.outages(side, ERRORS[side], LOOKING[side], lasting=lasting):
        run = ran(fragile.sides.check_all)
        if outage.began:
            assert run.told
            assert set(run.outcomes.values()) <= {Outcome.UNKNOWN, Outcome.DRIFT}
        else:
            assert run.owners(Outcome.DRIFT) == PUBLISHED.keys()


def test_check_of_owners_in_sync_never_says_drift(sqlite: World, side: str, lasting: bool) -> None:
    """Wherever a side fails, an owner that is in sync is unknown or in sync, and never drift."""
    publish(sqlite)
    fragile = Fragile(sqlite)
    for outage in fragile.outages(side, ERRORS[side], LOOKING_WHERE_IN_SYNC[side], lasting=lasting):
        run = ran(fragile.sides.check_all)
        if outage.began:
            assert run.told
            assert set(run.outcomes.values()) <= {Outcome.UNKNOWN, Outcome.IN_SYNC}
        else:
            assert run.owners(Outcome.IN_SYNC) == PUBLISHED.keys()


def test_sync_of_the_fleet_deletes_nothing_once_a_side_fails(
    drifted: World, side: str, lasting: bool
) -> None:
    """Deletes need a run that saw everything; who is called in sync is; the next run repairs."""
    before = Snapshot(drifted)
    fragile = Fragile(drifted)
    steps = LOOKING[side] + WRITING[side]
    stale: set[Identity] = set()
    has_seen_all = False
    events: list[SyncEvent] = []

    def begin() -> None:
        nonlocal stale, has_seen_all
        stale = stale_in(drifted)
        has_seen_all = any(isinstance(event, DeletesHeld) for event in events)

    for outage in fragile.outages(side, ERRORS[side], steps, lasting=lasting, begin=begin):
        events.clear()
        run = ran(lambda: fragile.sides.sync_all(listener=events.append))
        claimed = run.owners(Outcome.IN_SYNC)
        assert truly_in_sync(drifted, claimed) == claimed
        assert_only_stale_was_deleted(drifted)
        if not outage.began:
            assert claimed == PUBLISHED.keys()
        else:
            # An answer that was lost after the commit is made up for by the read-back.
            is_made_up_for = outage.step == "store.publish returned" and not lasting
            assert run.told or (is_made_up_for and claimed == PUBLISHED.keys())
            if run.told and (lasting or not has_seen_all):
                assert stale_in(drifted) == stale
            if lasting and outage.at == 1:
                assert all(report.is_in_sync for report in drifted.sides.sync_all())
                drifted.assert_store_holds(WANTED)
        before.restore()


@pytest.mark.parametrize("owner", [OWNER, ORPHAN])
@pytest.mark.parametrize("force", [False, True], ids=["sync", "force"])
def test_sync_of_a_named_owner_claims_nothing_it_could_not_see(
    drifted: World, side: str, owner: str, force: bool
) -> None:
    """Its records are old or new wherever a side fails, and the next sync finishes."""
    before = Snapshot(drifted)
    fragile = Fragile(drifted)
    steps = LOOKING_AT_ONE[side] + WRITING[side]
    for outage in fragile.outages(side, ERRORS[side], steps):
        run = ran(lambda: [fragile.sides.sync(owner, force=force)])
        assert_only_stale_was_deleted(drifted)
        if outage.began:
            assert run.told
            assert drifted.sides.sync(owner).outcome in (Outcome.IN_SYNC, Outcome.NOT_FOUND)
        else:
            assert run.owners(Outcome.IN_SYNC) == {owner}
        assert truly_in_sync(drifted, [owner]) == {owner}
        before.restore()


def test_search_returns_no_hits_it_could_not_join(drifted: World, side: str) -> None:
    """Wherever a side fails, a search is an error."""
    fragile = Fragile(drifted)
    searching = {"source": (), "store": ("store.search",)}
    for outage in fragile.outages(side, ERRORS[side], LOOKING_AT_ONE[side] + searching[side]):
        try:
            result = fragile.sides.search(OWNER, "keeps books")
        except UnknownStateError:
            assert outage.began
        else:
            assert not outage.began
            assert len(result.hits) == 2


def test_dry_run_promises_nothing_for_what_it_could_not_see(drifted: World, side: str) -> None:
    """An owner that could not be looked at is unknown and costs nothing."""
    fragile = Fragile(drifted)
    for outage in fragile.outages(side, ERRORS[side], LOOKING[side]):
        reports: list[SyncReport] = []
        error: UnknownStateError | None = None
        try:
            reports.extend(fragile.sides.plan(None))
        except UnknownStateError as exc:
            error = exc
        unknown = [report for report in reports if report.outcome is Outcome.UNKNOWN]
        assert outage.began is bool(error or unknown)
        assert not any(report.cost.writes or report.cost.deletes for report in unknown)


class Standby(SteppedSource):
    """A source that says of itself that it may lag."""

    def describe(self) -> SourceInfo:
        """See `Source.describe`."""
        return replace(super().describe(), is_standby=True)


def test_standby_is_good_for_looking_and_never_for_a_sync(drifted: World) -> None:
    """What it does not show yet would be deleted."""
    before = drifted.store.records()
    sides = drifted.open(source=Standby)

    assert {status.outcome for status in sides.check_all()} == {Outcome.DRIFT}
    assert sides.search(OWNER, "keeps books").hits
    with pytest.raises(ConfigError, match="standby"):
        sides.sync(OWNER)
    with pytest.raises(ConfigError, match="standby"):
        list(sides.sync_all(force=True))

    assert drifted.store.records() == before


# --- the control ------------------------------------------------------------------------------


def naive(world: World, **outages: Callable[[str], None]) -> NaiveWriter:
    """The naive writer over the same adapters, with the same outages."""
    renderer = Renderer(ORIGIN)
    source = open_source(world.source_url, ORIGIN, renderer.fields)
    store = open_store(world.store_url, namespace=NAMESPACE)
    return NaiveWriter(
        SteppedSource(source, outages.get("source", nothing)),
        SteppedStore(store, outages.get("store", nothing)),
        renderer,
        CountingEmbedder(),
    )


def test_control_error_taken_for_empty_deletes_a_live_owner_and_claims_success(
    drifted: World,
) -> None:
    """An outage of the source: the naive sync removes what lives, and calls that in sync."""
    status = naive(drifted, source=Outage(ERRORS["source"], "source.read")).sync(OWNER)

    assert status.in_sync
    assert {identity for identity in LIVE if identity.owner_id == OWNER}.isdisjoint(
        drifted.store.identities()
    )


def test_control_error_taken_for_empty_reports_an_outage_as_drift(drifted: World) -> None:
    """An outage of the store: the naive check calls every entity missing."""
    status = naive(drifted, store=Outage(ERRORS["store"], "store.stamps")).check(OWNER)

    assert status.missing == drifted.layout.entities(WANTED[OWNER]).keys()


def test_control_emptied_source_is_obeyed(drifted: World) -> None:
    """What the guard refuses (`test_sync_guard`), the naive sync does."""
    drifted.remove_owners(WANTED)
    writer = naive(drifted)

    assert all(writer.sync(owner).in_sync for owner in PUBLISHED)

    assert drifted.store.identities() == {}
