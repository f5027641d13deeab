"""A check of everybody whose store is read in one pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from threading import enumerate as running
from typing import NoReturn

import pytest

from support.every_store import world_on
from support.layouts import document
from support.scanning import checked, small_pages, warm
from support.sides import World
from undrift.digests import RecordsDigest
from undrift.errors import StoreUnavailable, UnknownStateError
from undrift.model import Outcome
from undrift.scan.options import CheckOptions
from undrift.scan.sweep import Sweep
from undrift.stores import _qdrant_digests
from undrift.stores._qdrant_store import QdrantPointStore

OWNERS = [str(number) for number in range(1, 31)]


@pytest.fixture
def world(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[World]:
    """Users in sync, in pages of four; one whom only the store knows; one who was changed."""
    with world_on("qdrant engine", request, tmp_path) as found:
        small_pages(monkeypatch, 4)
        found.bring_in_sync({owner: document(skills=["SQL", owner]) for owner in OWNERS})
        warm(found)
        found.remove_owners(["7"])
        found.put("12", document(skills=["SQL", "Go"]))
        yield found


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """How the store is read for digests from now on."""
    asked: list[str] = []

    def noting(name: str) -> None:
        inner = getattr(QdrantPointStore, name)

        def noted(*arguments: object, **named: object) -> object:
            asked.append(name)
            return inner(*arguments, **named)

        monkeypatch.setattr(QdrantPointStore, name, noted)

    for name in ("sweep", "digests", "owners"):
        noting(name)
    return asked


def amiss(world: World, options: CheckOptions) -> dict[str, Outcome]:
    """Who is not in sync."""
    found = checked(world.sides, options)
    assert len(found) >= len(OWNERS) / 3
    return {owner: status.outcome for owner, status in found.items() if not status.is_in_sync}


DRIFTED = {"7": Outcome.DRIFT, "12": Outcome.DRIFT}


def test_everybody_is_read_in_one_pass(world: World, passes: list[str]) -> None:
    """Also who has the records of nobody, and nothing is listed or asked for page by page."""
    assert amiss(world, CheckOptions()) == DRIFTED
    assert passes == ["sweep"]


@pytest.mark.parametrize(
    "options",
    [
        CheckOptions(shard="1/1"),
        CheckOptions(sample="99.9%"),
        CheckOptions(owners_per_second=1e6),
    ],
)
def test_part_or_a_slow_check_reads_page_by_page(
    world: World, passes: list[str], options: CheckOptions
) -> None:
    """For it a pass would read too much, or show what is long gone."""
    found = amiss(world, options)
    assert found.items() <= DRIFTED.items()
    assert "sweep" not in passes
    assert passes.count("digests") > 3


def test_store_that_is_too_large_is_read_page_by_page(
    world: World, passes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one pass reads has to be held until its end."""
    monkeypatch.setattr(_qdrant_digests, "MOST_SWEPT", 50)
    assert amiss(world, CheckOptions()) == DRIFTED
    assert passes.count("sweep") == 1
    assert passes.count("digests") > 3
    assert passes.count("owners") > 1


def test_pass_that_breaks_off_is_no_drift(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody was looked at, whatever the source says."""

    def broken(self: QdrantPointStore, **_: object) -> NoReturn:
        raise StoreUnavailable("The store is gone", why="it is.", fix="wait")

    monkeypatch.setattr(QdrantPointStore, "sweep", broken)
    told: list[Outcome] = []
    with pytest.raises(UnknownStateError, match="could not be read"):
        told.extend(status.outcome for status in world.sides.check_all())
    assert set(told) == {Outcome.UNKNOWN}


def test_what_is_written_after_the_pass_is_looked_at_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An owner who changed on both sides meanwhile is in sync, and no drift."""
    inner = QdrantPointStore.sweep

    def then_changed(
        self: QdrantPointStore,
        *,
        model: str,
        kinds: Collection[str],
        is_over: Callable[[], bool],
    ) -> Mapping[str, RecordsDigest] | None:
        swept = inner(self, model=model, kinds=kinds, is_over=is_over)
        monkeypatch.setattr(QdrantPointStore, "sweep", inner)
        world.put("20", document(skills=["Rust"]))
        assert world.sides.sync("20").is_in_sync
        return swept

    monkeypatch.setattr(QdrantPointStore, "sweep", then_changed)
    assert amiss(world, CheckOptions()) == DRIFTED


def test_check_that_nobody_reads_on_ends_its_pass(world: World) -> None:
    """And leaves no thread behind."""
    statuses = world.sides.check_all()
    next(iter(statuses))
    statuses.close()  # type: ignore[attr-defined]  # a generator
    assert not [thread for thread in running() if thread.name.startswith("undrift-sweep")]


def test_pass_ends_when_it_is_closed() -> None:
    """Whoever reads is told, and whoever waits gets what there is."""

    def read(is_over: Callable[[], bool]) -> None:
        while not is_over():
            pass

    sweep = Sweep(read)
    sweep.close()
    assert sweep.digests() is None
    assert sweep.owners(None, 10) is None


def test_owners_of_a_pass_are_listed_like_a_stores() -> None:
    """By code point, in pages, without those of whom there is nothing undrift manages."""
    none, some = RecordsDigest(0, b"", 0, 1), RecordsDigest(1, b"", 0, 0)
    sweep = Sweep(lambda _: {"b": some, "a": some, "Z": some, "c": none, "é": some})
    assert sweep.owners(None, 2) == ["Z", "a"]
    assert sweep.owners("a", 2) == ["b", "é"]
    assert sweep.owners("aa", 9) == ["b", "é"]
    assert sweep.owners("é", 9) == []
    sweep.close()
