"""A check while profiles are written and synced: it reports what is wrong, and nothing else.

An application writes 50 profiles a second, a loop syncs them, and `check --all` runs again and
again. Twenty quiet owners hold a planted difference each: they are to be reported, every time. The
others differ only between a write and the sync after it, and both sides of that are in the
journals. A report of theirs is false if at some moment between its two looks the owner was in sync
according to the journals: then the difference that it names did not stand.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

from support.drift import Drift, fleet
from support.layouts import Document, document, experience
from support.sides import ORIGIN, World, drift_of
from support.wrappers import SteppedSource
from undrift import Outcome, Undrift
from undrift.ports import OwnerContent, Source, VectorStore
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.stores import open_store

SECONDS = 60
WRITES_PER_SECOND = 50
BUSY = [str(owner) for owner in range(101, 161)]
QUIET = [str(owner) for owner in range(1, 21)]
TESTS = Path(__file__).parents[1]


# --- the load ---------------------------------------------------------------------------------


class Journals(NamedTuple):
    """What was written and synced, and when."""

    writes: list[tuple[str, float, float]]
    syncs: list[tuple[str, float, float, str]]

    def out_of_sync(self) -> dict[str, list[tuple[float, float]]]:
        """For each owner, the intervals in which its sides may have differed; disjoint, in order.

        One begins with a write and ends with the first sync that began after the write's commit
        and found or made both sides equal, unless another write has begun by then.
        """
        proofs: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for owner, began, ended, outcome in self.syncs:
            if outcome == Outcome.IN_SYNC:
                proofs[owner].append((began, ended))
        found: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for owner, began, committed in self.writes:
            ended = next((e for b, e in proofs[owner] if b > committed), float("inf"))
            intervals = found[owner]
            if intervals and began <= intervals[-1][1]:
                began, ended = intervals[-1][0], max(ended, intervals[-1][1])
                intervals.pop()
            intervals.append((began, ended))
        return found


class Load:
    """A writing and a syncing process over one database.

    Attributes:
        journals: what they did; once they have ended.
    """

    journals: Journals

    def __init__(self, processes: Mapping[str, subprocess.Popen[str]]) -> None:
        self._processes = processes
        self._end = time.monotonic() + SECONDS

    @property
    def goes_on(self) -> bool:
        """Whether both still work."""
        return time.monotonic() < self._end

    def end(self) -> None:
        """Wait for both, and read their journals."""
        found: dict[str, Any] = {}
        for name, process in self._processes.items():
            answer, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            found[name] = [tuple(row) for row in json.loads(answer)]
        self.journals = Journals(found["writes"], found["syncs"])


@contextmanager
def load(world: World, documents: Mapping[str, Document]) -> Iterator[Load]:
    """Write and sync *documents* in the background for `SECONDS`."""
    job = {
        "url": world.source_url,
        "owners": list(documents),
        "documents": documents,
        "seconds": SECONDS,
        "fields": None,
    }
    processes = {}
    try:
        for name, per_second in (("syncs", 0), ("writes", WRITES_PER_SECOND)):
            processes[name] = subprocess.Popen(
                [sys.executable, "-m", "support.busy_child"],
                cwd=TESTS,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            stdin, stdout = processes[name].stdin, processes[name].stdout
            assert stdin is not None
            assert stdout is not None
            stdin.write(json.dumps(job | {"per_second": per_second}) + "\n")
            stdin.flush()
            assert stdout.readline() == "ready\n"
        yield Load(processes)
    finally:
        for process in processes.values():
            with process:
                process.kill()


# --- the checks -------------------------------------------------------------------------------


class Claim(NamedTuple):
    """A busy owner was reported to differ, throughout these moments."""

    owner: str
    begin: float
    end: float


def false_claims(claims: Iterable[Claim], journals: Journals) -> list[Claim]:
    """Those that a moment in sync disproves."""
    differing = journals.out_of_sync()
    return [
        claim
        for claim in claims
        if not any(b <= claim.begin and claim.end <= e for b, e in differing[claim.owner])
    ]


class TimedSource(SteppedSource):
    """A source that notes when each read began and ended, and of whom.

    Attributes:
        reads: owners, begin and end of each read, in their order.
    """

    def __init__(self, inner: Source) -> None:
        super().__init__(inner)
        self.reads: list[tuple[frozenset[str], float, float]] = []

    def read(self, owners: Sequence[str]) -> Iterator[OwnerContent]:
        """See `Source.read`."""
        began = time.monotonic()
        yield from super().read(owners)
        self.reads.append((frozenset(owners), began, time.monotonic()))


class Checks:
    """`check_all`, again and again, and what each said.

    Attributes:
        planted: what each check reported of the quiet owners.
        claims: what they reported of busy owners.
        settled: how many times a busy owner differed at first and was not reported.
    """

    def __init__(self, world: World) -> None:
        self._sources: list[TimedSource] = []
        self._sides: Undrift = world.open(source=self._timed)
        self.planted: list[dict[str, dict[str, set[str]]]] = []
        self.claims: list[Claim] = []
        self.settled = 0

    def run(self) -> None:
        """Check everybody once."""
        (source,) = self._sources
        source.reads.clear()
        planted: dict[str, dict[str, set[str]]] = {}
        reported = set()
        for status in self._sides.check_all():
            assert status.outcome in (Outcome.IN_SYNC, Outcome.DRIFT, Outcome.IN_MOTION)
            if status.owner_id in QUIET:
                planted[status.owner_id] = drift_of(status)
            elif status.outcome is Outcome.DRIFT:
                reported.add(status.owner_id)
        self.planted.append(planted)
        # Everybody by digests, then whoever differs there in two looks.
        (everybody, _, _), (differing, _, first_ended), (again, second_began, _) = source.reads
        assert everybody == {*BUSY, *QUIET}
        assert again <= differing
        self.settled += len(differing - {*QUIET} - reported)
        self.claims.extend(Claim(owner, first_ended, second_began) for owner in reported)

    def _timed(self, inner: Source) -> Source:
        self._sources.append(TimedSource(inner))
        return self._sources[-1]


class NaiveChecks:
    """The control: both sides' ids, read once each, one after the other.

    Attributes:
        claims: what it reported of busy owners.
    """

    def __init__(self, source: Source, store: VectorStore, renderer: Renderer) -> None:
        self._source = source
        self._store = store
        self._renderer = renderer
        self.claims: list[Claim] = []

    def run(self) -> None:
        """Check the busy owners once."""
        found: dict[str, set[tuple[str, str]]] = defaultdict(set)
        for stamp in self._store.stamps(BUSY):
            found[stamp.owner_id].add((stamp.kind, stamp.entity_id))
        begin = time.monotonic()
        for content in self._source.read(BUSY):
            wanted = self._renderer.render(content).entities
            if set(wanted) != found[content.owner_id]:
                self.claims.append(Claim(content.owner_id, begin, begin))


@pytest.fixture
def naive(postgres: World) -> Iterator[NaiveChecks]:
    """The control, over the same two sides."""
    renderer = Renderer(ORIGIN)
    source = open_source(postgres.source_url, ORIGIN, renderer.fields)
    store = open_store(postgres.store_url, namespace="default")
    yield NaiveChecks(source, store, renderer)
    source.close()
    store.close()


# --- the experiment ---------------------------------------------------------------------------


def plant(world: World, documents: dict[str, Document]) -> dict[str, dict[str, set[str]]]:
    """One difference for each quiet owner, four of each of five kinds, by SQL."""
    drift = Drift(world, documents, Random(11))
    quiet = iter(QUIET)
    kinds = (
        [drift.lose_record, drift.lose_vector] * 2,
        [drift.invent_record, drift.remove_entity] * 2,
        [drift.tamper, drift.edit_text] * 2,
        [drift.change_model] * 4,
        [drift.copy_record] * 4,
    )
    for kind in kinds:
        for plant_one in kind:
            plant_one(next(quiet))
    drift.save()
    return {owner: dict(found) for owner, found in drift.expected.items()}


@pytest.mark.long
def test_check_under_writes_and_syncs_reports_what_is_planted_and_nothing_false(
    postgres: World, naive: NaiveChecks
) -> None:
    """For a minute at 50 writes a second; the control, which looks once, reports false drift."""
    busy = {owner: document(experience("exp_1"), experience("exp_2")) for owner in BUSY}
    quiet = fleet(len(QUIET), Random(5))
    postgres.bring_in_sync({**busy, **quiet})
    planted = plant(postgres, quiet)
    assert sum(len(ids) for found in planted.values() for ids in found.values()) == 20
    checks = Checks(postgres)

    with load(postgres, busy) as background:
        while background.goes_on:
            checks.run()
            naive.run()
        background.end()
    journals = background.journals

    rate = len(journals.writes) / (journals.writes[-1][2] - journals.writes[0][1])
    figures = f"{rate:.1f} writes/s, {len(journals.syncs)} syncs, {len(checks.planted)} checks, "
    figures += f"{len(checks.claims)} claims of drift, {checks.settled} settled"
    figures += f", {len(naive.claims)} claims of the control"
    print(figures)
    assert rate >= 45, figures
    assert len(checks.planted) >= 20, figures
    assert checks.settled > 0, figures
    assert all(found == planted for found in checks.planted)
    assert false_claims(checks.claims, journals) == []
    assert false_claims(naive.claims, journals), "the control found nothing, nor would the test"

    assert all(report.is_in_sync for report in postgres.sides.sync_owners(BUSY))
    after = {s.owner_id: drift_of(s) for s in postgres.sides.check_all() if not s.is_in_sync}
    assert after == planted


def test_claim_is_false_only_where_a_moment_in_sync_disproves_it() -> None:
    """The judge itself: writes that overlap are one interval, an unproved sync ends none."""
    journals = Journals(
        writes=[("a", 1.0, 1.1), ("a", 2.0, 2.1), ("a", 2.5, 2.6), ("b", 5.0, 5.1)],
        syncs=[
            ("a", 1.05, 1.2, "in_sync"),  # began before the commit: proves nothing
            ("a", 1.3, 1.4, "in_sync"),
            ("a", 2.2, 2.7, "in_sync"),
            ("a", 2.8, 2.9, "in_motion"),
            ("a", 3.0, 3.1, "in_sync"),
        ],
    )
    assert journals.out_of_sync() == {"a": [(1.0, 1.4), (2.0, 3.1)], "b": [(5.0, float("inf"))]}
    true = [Claim("a", 1.1, 1.3), Claim("a", 2.1, 3.0), Claim("b", 6.0, 9.0)]
    false = [Claim("a", 1.5, 1.5), Claim("a", 1.3, 2.2), Claim("b", 4.0, 6.0), Claim("c", 1.0, 1.0)]
    assert false_claims([*true, *false], journals) == false
