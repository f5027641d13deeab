"""Several syncs of the same users at the same time pay for each text once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from random import Random
from threading import Barrier, local

import pytest

from support.layouts import Document, document
from support.sides import World
from undrift import SyncReport, Undrift
from undrift.ports import Purpose, Vectors

OWNERS = 1_000
WORKERS = 8
MAX_RATIO = 1.02

Run = Callable[[Undrift, int], Iterator[SyncReport]]


def profiles(owners: int) -> Mapping[str, Document]:
    """Two texts each, and none of them twice."""
    return {
        str(owner): document(skills=[f"skill {owner} a", f"skill {owner} b"])
        for owner in range(1, owners + 1)
    }


def everybody(sides: Undrift, _: int) -> Iterator[SyncReport]:
    """``undrift sync --all``."""
    return sides.sync_all()


def named(sides: Undrift, number: int) -> Iterator[SyncReport]:
    """``undrift sync --user-id …``, all of them in an order of the worker's own."""
    owners = sorted(profiles(OWNERS))
    Random(number).shuffle(owners)
    return sides.sync_owners(owners)


def either(sides: Undrift, number: int) -> Iterator[SyncReport]:
    """Half of the workers do the one, half the other."""
    return (everybody, named)[number % 2](sides, number)


def paid_over_needed(world: World, run: Run, *, workers: int = WORKERS) -> float:
    """Let all workers begin at once; how many texts were paid for, by how many had to be."""
    wanted = profiles(OWNERS)
    world.bring_in_sync({"1": document()})  # so that nobody finds the store half made
    world.put_all(wanted)
    barrier = Barrier(workers)

    def work(number: int) -> None:
        sides = world.open()
        barrier.wait()
        for report in run(sides, number):
            assert report.is_in_sync, report.error

    with ThreadPoolExecutor(workers) as threads:
        list(threads.map(work, range(workers)))
    world.assert_store_holds(wanted)
    return len(world.embedder.texts) / (2 * len(wanted))


@pytest.mark.parametrize("run", [everybody, named, either])
def test_eight_workers_on_a_thousand_users_pay_each_text_once(world: World, run: Run) -> None:
    """``--all`` eight times, named users eight times, and the one beside the other."""
    assert paid_over_needed(world, run) <= MAX_RATIO


def test_two_syncs_of_the_same_users_pay_each_text_once(world: World) -> None:
    """They begin at the same moment, and in the same order."""

    def same(sides: Undrift, _: int) -> Iterator[SyncReport]:
        return named(sides, 0)

    assert paid_over_needed(world, same, workers=2) <= MAX_RATIO


def test_control_without_leases_texts_are_paid_for_again_and_again(
    world: World, without_leases: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same measurement finds more; what is written is right all the same.

    Nobody pays before everybody has looked; else a quick worker is done before the others begin.
    """
    everybody_has_looked, embed, began = Barrier(WORKERS), world.embedder.embed, local()

    def embed_together(texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        if len(texts) > 1 and not hasattr(began, "is_behind"):
            began.is_behind = True
            everybody_has_looked.wait(60)
        return embed(texts, purpose)

    monkeypatch.setattr(world.embedder, "embed", embed_together)
    assert paid_over_needed(world, named) > 1.2
