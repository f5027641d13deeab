"""Source, store and state behind a line that is slow, breaks or swallows an answer, at any message.

Whatever breaks, and wherever: "in sync" is said of nobody who is not, nothing that lives is absent,
no driver's exception comes out, and behind it one sync makes both sides equal without paying twice.
The control, which clears and imports, leaves a gap under the same cut.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from itertools import count
from random import Random

import pytest

from support.closing import Closing
from support.naive import NaiveWriter
from support.outages import (
    LIVE,
    ORPHAN,
    PUBLISHED,
    WANTED,
    assert_only_stale_was_deleted,
    truly_in_sync,
)
from support.proxy import Fault, FaultProxy, Kind, Part
from support.sides import NAMESPACE, ORIGIN, CountingEmbedder, World
from undrift import Outcome, Undrift, UndriftError
from undrift.heal import NO_HEALING
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.stores import open_store
from undrift.sync import SyncOptions
from undrift.watch import Watcher, WatchOptions

SEED = 20
PLACES = 3  # how many places of a run each kind of fault strikes

FAULTS: dict[str, tuple[Kind, Part, bool]] = {
    "delay": ("delay", "answer", False),
    "request cut": ("cut", "request", False),
    "answer cut": ("cut", "answer", False),
    "request reset": ("reset", "request", False),
    "answer reset": ("reset", "answer", False),
    "answer reset for long": ("reset", "answer", True),
    "COMMIT unanswered": ("swallow", "commit", False),
    "COMMIT unanswered, then down": ("swallow", "commit", True),
}


class Line(Closing):
    """A world, and an `Undrift` over it of which every part is behind one line.

    Args:
        state_url: where the state is in class C; None means class T.

    Attributes:
        embedder: the one of the `Undrift`, and its bill.
    """

    def __init__(self, world: World, state_url: str | None) -> None:
        self.world = world
        self.embedder = CountingEmbedder()
        with ExitStack() as opened:
            self.proxy = opened.enter_context(FaultProxy(world.source_url, seed=SEED))
            url = self.proxy.through(world.source_url)
            state = None if state_url is None else self.proxy.through(state_url)
            self.sides = opened.enter_context(
                Undrift(
                    source=open_source(url, ORIGIN, Renderer(ORIGIN).fields),
                    store=open_store(url, namespace=NAMESPACE),
                    state=state,
                    embedder=self.embedder,
                    mapping=ORIGIN,
                    heal=NO_HEALING,
                )
            )
            self._opened = opened.pop_all()

    def close(self) -> None:
        """Close the connections, then the line."""
        self._opened.close()

    def drift_away(self) -> None:
        """Bring both sides in sync, then let every owner drift; forget what that cost."""
        self.world.put_all(PUBLISHED)
        assert all(report.is_in_sync for report in self.sides.sync_all())
        self.world.put_all(WANTED)
        self.world.remove_owners([ORPHAN])
        self.embedder.texts.clear()

    def published(self) -> set[str]:
        """The texts that have their vector in the store, by SQL."""
        return {row["text"] for row in self.world.store.managed().values()}


@pytest.fixture(params=["T", "C"])
def line(
    request: pytest.FixtureRequest,
    new_postgres_url: Callable[[], str],
    postgres: World,
    without_leases: None,
) -> Iterator[Line]:
    """A line in each class; nobody waits for the lease of a run that broke off."""
    with Line(postgres, new_postgres_url() if request.param == "C" else None) as line:
        yield line


# --- what runs behind the line ----------------------------------------------------------------

Run = Callable[[Line], None]
"""Works on the drifted sides, and fails the test if "in sync" is said of somebody who is not."""


def sync(line: Line) -> None:
    """A sync of everybody."""
    for report in line.sides.sync_all():
        if report.is_in_sync:
            assert truly_in_sync(line.world, [report.owner_id]) == {report.owner_id}


class Said(logging.Handler):
    """Who a watch says to be in sync, looked at by SQL when it says so."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world
        self.in_sync: list[str] = []
        self.untrue: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of an owner that was synced."""
        if vars(record).get("outcome") == str(Outcome.IN_SYNC):
            owner = vars(record)["owner"]
            self.in_sync.append(owner)
            if not truly_in_sync(self._world, [owner]):
                self.untrue.append(owner)


def watch(line: Line) -> None:
    """Everybody is marked, and a watch takes a step."""
    log, said = logging.getLogger("undrift.watch"), Said(line.world)
    level = log.level
    log.addHandler(said)
    log.setLevel(logging.INFO)
    try:
        sides, ledger = line.sides._connections.writing(SyncOptions())
        assert ledger is not None
        ledger.state.mark(list(PUBLISHED))
        watcher = Watcher(sides, line.embedder, ledger, None, WatchOptions())
        watcher.step()
    finally:
        log.removeHandler(said)
        log.setLevel(level)
        assert not said.untrue
    assert said.in_sync or line.proxy.has_struck


RUNS: dict[str, Run] = {"sync": sync, "watch": watch}


def ran(run: Run, line: Line) -> bool:
    """Whether a run came to its end; only an error of undrift's may keep it from that."""
    try:
        run(line)
    except UndriftError:
        return False
    return True


def places(line: Line, run: Run, kind: Kind, part: Part) -> list[int]:
    """Where to strike: the places that a run without faults has, the first one first.

    Not the last ones: on a slow machine a run asks more often whether a connection still lives.
    """
    line.drift_away()
    line.proxy.order(Fault(kind, part, at=1_000_000))
    assert ran(run, line)
    found = line.proxy.seen(part)
    line.proxy.mend()
    line.world.assert_store_holds(WANTED)
    behind = list(range(2, found * 4 // 5 + 1))
    assert len(behind) >= PLACES
    Random(f"{SEED} {kind} {part}").shuffle(behind)
    return [1, *behind]


# --- the behaviour ----------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
@pytest.mark.parametrize("name", FAULTS)
def test_fault_at_any_message_ends_in_no_lie_no_gap_and_nothing_paid_twice(
    line: Line, name: str, run: Run
) -> None:
    """And the connections that broke are replaced without anybody's help."""
    kind, part, stays_down = FAULTS[name]
    needs_no_harm = kind in ("delay", "swallow")
    harmed = 0
    for struck, at in enumerate(places(line, run, kind, part)):
        # A cut may hit nothing but the question whether a connection lives; then more are tried.
        if struck >= PLACES and (harmed or needs_no_harm):
            break
        line.drift_away()
        line.proxy.order(Fault(kind, part, at, stays_down=stays_down))

        came_to_its_end = ran(run, line)

        assert line.proxy.has_struck, f"no fault at {part} {at}"
        assert came_to_its_end or kind != "delay"
        assert_only_stale_was_deleted(line.world)
        harmed += not came_to_its_end or truly_in_sync(line.world, PUBLISHED) != PUBLISHED.keys()
        line.proxy.mend()
        paid = line.published()
        line.embedder.texts.clear()
        assert all(report.is_in_sync for report in line.sides.sync_all())
        line.world.assert_store_holds(WANTED)
        assert paid.isdisjoint(line.embedder.texts)
    assert harmed or needs_no_harm, "no fault has done any harm"


def test_commit_without_an_answer_has_been_made(line: Line) -> None:
    """The fault is what it says: what a client cannot know of is in the store."""
    line.drift_away()
    before = line.published()
    unanswered = 0
    for at in count(1):
        line.proxy.order(Fault("swallow", "commit", at, stays_down=True))
        came_to_its_end = ran(sync, line)
        struck = line.proxy.has_struck
        line.proxy.mend()
        unanswered += not came_to_its_end and line.published() != before
        if not struck or unanswered:
            break
        line.drift_away()

    assert unanswered


# --- the control ------------------------------------------------------------------------------


def test_control_clear_then_import_under_the_same_cut_leaves_a_gap(postgres: World) -> None:
    """Some cut falls between the two, and what lives is absent then."""
    postgres.bring_in_sync(PUBLISHED)
    gaps = 0
    with FaultProxy(postgres.source_url, seed=SEED) as proxy:
        url = proxy.through(postgres.source_url)
        renderer = Renderer(ORIGIN)
        source = open_source(url, ORIGIN, renderer.fields)
        store = open_store(url, namespace=NAMESPACE)
        writer = NaiveWriter(source, store, renderer, CountingEmbedder())
        writer.sync("1")
        for at in count(1):
            proxy.order(Fault("cut", "request", at, stays_down=True))
            with suppress(UndriftError):
                writer.sync("1")
            struck = proxy.has_struck
            proxy.mend()
            gaps += not postgres.store.identities().keys() >= LIVE
            if gaps or not struck:
                break
            writer.sync("1")
        source.close()
        store.close()

    assert gaps
