"""The line to a store's server breaks in the midst of a sync: no lie, no gap, nothing paid twice.

It breaks behind so many bytes of what the server sends, so that a request may or may not have been
done. The control, which clears before it imports, shows the gap under the same cuts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from random import Random

import pytest

from support.cut_proxy import CutProxy
from support.every_store import STORES
from support.layouts import Document, document, experience
from support.naive import NaiveWriter
from support.sides import ORIGIN, World, identity_of
from undrift import Outcome, Undrift
from undrift.errors import UndriftError
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.stores import open_store

OWNERS = ("1", "2", "3")
KEPT = experience("exp_kept")
BEFORE: Mapping[str, Document] = {
    owner: document(KEPT, experience("exp_edited"), experience("exp_gone"), skills=["SQL"])
    for owner in OWNERS
}
AFTER: Mapping[str, Document] = {
    owner: document(KEPT, experience("exp_edited", f"anew {owner}"), experience("exp_new"))
    for owner in OWNERS
}
CUTS = 6


class Line:
    """A world whose store is behind a line that can break."""

    def __init__(self, world: World, proxy: CutProxy, sides: Undrift) -> None:
        self.world = world
        self.proxy = proxy
        self.sides = sides

    def drift_away(self) -> None:
        """Bring both sides in sync, then change the source; forget what that cost."""
        self.world.put_all(BEFORE)
        assert all(report.is_in_sync for report in self.sides.sync_all())
        self.world.put_all(AFTER)
        self.world.embedder.texts.clear()

    def texts(self) -> set[str]:
        """What the store holds, past undrift."""
        return {row["text"] for row in self.world.store.managed().values()}

    def is_exact(self, owner: str) -> bool:
        """Whether the store holds what the owner's document renders to, past undrift."""
        rows = {
            identity_of(row).key: row["text"]
            for row in self.world.store.managed().values()
            if row["owner_id"] == owner
        }
        wanted = self.world.layout.entities(AFTER[owner])
        return rows == {key: entity.text for key, entity in wanted.items()}

    def lacks_a_kept_one(self) -> bool:
        """Whether an entity is gone that was published and stays."""
        kept = {
            row["owner_id"]
            for row in self.world.store.managed().values()
            if row["entity_id"] == "exp_kept" and row["embedding"] is not None
        }
        return kept != set(OWNERS)


@pytest.fixture(params=["qdrant", "redis", "chroma"])
def line(request: pytest.FixtureRequest, tmp_path: Path, without_leases: None) -> Iterator[Line]:
    """A line to each server; nobody waits for the lease of a run that broke off."""
    store = STORES[request.param](request, tmp_path)
    with (
        CutProxy(store.url) as proxy,
        World(
            f"sqlite:///{tmp_path / 'app.db'}",
            proxy.url,
            behind=store.behind(frozenset(ORIGIN.kinds)),
            state_url=f"sqlite:///{tmp_path / 'state.db'}",
        ) as world,
    ):
        yield Line(world, proxy, world.sides)


def sent_in_a_sync(line: Line) -> int:
    """Bytes that the server sends in a sync of what has drifted."""
    line.drift_away()
    before = line.proxy.forwarded
    assert all(report.is_in_sync for report in line.sides.sync_all())
    return line.proxy.forwarded - before


def test_a_line_that_breaks_anywhere_ends_in_no_lie_no_gap_and_nothing_paid_twice(
    line: Line,
) -> None:
    """Wherever it breaks; and as soon as it is mended the next sync ends exact."""
    whole, random = sent_in_a_sync(line), Random(11)
    harmed = 0
    for cut in sorted(random.sample(range(whole), k=CUTS)):
        line.drift_away()
        line.proxy.cut_after_more(cut)
        outcomes: dict[str, Outcome] = {}
        with suppress(UndriftError):
            for report in line.sides.sync_all():
                outcomes[report.owner_id] = report.outcome
                assert not report.is_in_sync or line.is_exact(report.owner_id)
        harmed += any(outcomes.get(owner) is not Outcome.IN_SYNC for owner in OWNERS)
        assert not line.lacks_a_kept_one()
        line.proxy.mend()

        paid = line.texts()
        line.world.embedder.texts.clear()
        assert all(report.is_in_sync for report in line.sides.sync_all())
        line.world.assert_store_holds(AFTER)
        assert paid.isdisjoint(line.world.embedder.texts)
    assert harmed, "no cut has done any harm"


def test_control_clear_then_import_under_the_same_cuts_leaves_a_gap(line: Line) -> None:
    """The same measurement finds what was published to be gone."""
    world = line.world
    line.drift_away()
    with closing(open_store(line.proxy.url)) as store:
        naive = NaiveWriter(
            open_source(world.source_url, ORIGIN, Renderer(ORIGIN).fields),
            store,
            Renderer(ORIGIN),
            world.embedder,
        )
        before = line.proxy.forwarded
        naive.sync("1")
        whole = line.proxy.forwarded - before
        gaps = 0
        for cut in range(whole // 12, whole, whole // 12):
            line.drift_away()
            line.proxy.cut_after_more(cut)
            with suppress(UndriftError):
                naive.sync("1")
            gaps += line.lacks_a_kept_one()
            line.proxy.mend()
            assert all(report.is_in_sync for report in line.sides.sync_all())
    assert gaps
