"""What a sync would do, and what it would cost. Writes nothing.

Of everybody it asks as a check does: whose digests agree needs nothing and is not read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from undrift.check import Checked, check_owners
from undrift.errors import UnknownStateError
from undrift.events import CheckStarted, Listener, ignore
from undrift.fleet import PageFailures, pages_of
from undrift.look import Sides
from undrift.model import Cost, Outcome, Read, SyncReport
from undrift.order import staying
from undrift.plan import Plan, cost_of, plan_owner, texts_to_embed
from undrift.scan.feed import Feed, Pace, growth
from undrift.scan.page import Agreed, PageCheck

THREADS = 2
"""While one waits for the source, another waits for the store."""

MAX_COUNTED_TEXTS = 250_000
"""Texts that are remembered to be paid for, some 40 MB; one that comes later counts each time."""


def plan_owners(
    sides: Sides, owners: Iterable[str], *, force: bool = False
) -> Iterator[SyncReport]:
    """What a sync of *owners* would do.

    Args:
        force: of one that rewrites everything.

    Order:
        That of *owners*. A text that several of them share is counted for the first.
    """
    reports = _Reports(sides, force=force)
    for page in pages_of(owners):
        for checked in check_owners(sides, page):
            yield reports.of(checked)


def plan_everybody(
    sides: Sides, check: PageCheck, *, force: bool = False, listener: Listener = ignore
) -> Iterator[SyncReport]:
    """What a sync of everybody would do, in constant memory.

    Args:
        check: tells whose digests agree; not asked where everything is rewritten.
        force: of a sync that rewrites everything.
        listener: told what is read.

    Order:
        The source's owners in its own order, then owners that only the store has. A text that
        several of them share is counted for the first.

    Raises:
        UnknownStateError: the owners could not be listed to the end, or page after page failed;
            what was yielded stands, the rest is unknown.
    """
    by_digests = check.uses_memos and not force
    listener(CheckStarted(Read.DIGESTS if by_digests else Read.FULL, {}))
    reports, failures = _Reports(sides, force=force), PageFailures()
    for looked in _looked_at(sides, None if force else check):
        for owner in looked.owners:
            agreed = looked.agreed.get(owner)
            checked = looked.checked.get(owner)
            if agreed is not None:
                yield _in_sync(agreed, against=sides.against)
            # Who is gone from both sides by now, or has unmanaged records only, is nobody.
            elif checked is not None and checked.status.outcome is not Outcome.NOT_FOUND:
                yield reports.of(checked)
        errors = [checked.status.error for checked in looked.checked.values()]
        failures.saw([*errors, *(None for _ in looked.agreed)])
        if failures.error is not None:
            raise failures.error


class _Looked(NamedTuple):
    """A page of owners: whose digests agree, and what a look at each other one showed."""

    owners: Sequence[str]
    agreed: Mapping[str, Agreed]
    checked: Mapping[str, Checked]


def _looked_at(sides: Sides, check: PageCheck | None) -> Iterator[_Looked]:
    """Pages of all owners, looked at by threads, some pages ahead."""

    def look(owners: Sequence[str]) -> _Looked:
        agreed: Mapping[str, Agreed] = {}
        if check is not None:
            with suppress(UnknownStateError):  # the look at each says why
                agreed = check.agreed(owners)
        others = [owner for owner in owners if owner not in agreed]
        found = check_owners(sides, others) if others else []
        return _Looked(owners, agreed, {one.status.owner_id: one for one in found})

    size = growth(sides.store, Pace())
    feed = Feed(sides, enough=size)
    looking: deque[Future[_Looked]] = deque()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="undrift-plan") as threads:
        try:
            for page in chain(feed.of_source(), feed.of_store_only()):
                looking.append(threads.submit(look, page.owners))
                if len(looking) > THREADS:
                    looked = looking.popleft().result()
                    size.saw(len(looked.owners), len(looked.checked))
                    yield looked
            while looking:
                yield looking.popleft().result()
        finally:
            for future in looking:
                future.cancel()


def _in_sync(agreed: Agreed, *, against: str) -> SyncReport:
    status = agreed.status()
    return SyncReport(
        owner_id=status.owner_id,
        outcome=status.outcome,
        before=status,
        skipped=True,
        dry_run=True,
        against=against,
        read=status.read,
    )


class _Reports:
    """Makes reports of what was found, and remembers which texts are paid for.

    Args:
        force: everything is rewritten.
    """

    def __init__(self, sides: Sides, *, force: bool) -> None:
        self._sides = sides
        self._force = force
        self._counted: set[str] = set()

    def of(self, checked: Checked) -> SyncReport:
        """The report of one owner."""
        cost = Cost()
        status, diff, sides = checked.status, checked.diff, self._sides
        if diff is not None and status.outcome not in (Outcome.IN_MOTION, Outcome.NOT_FOUND):
            plan = plan_owner(
                diff,
                namespace=sides.store.namespace,
                model=sides.model,
                force=self._force,
                stays=staying(diff, sides),
            )
            # Parts go once the whole record that takes their place has been read back.
            cost = self._cost(plan) + Cost(deletes=len(diff.parts))
        return SyncReport(
            owner_id=status.owner_id,
            outcome=status.outcome,
            before=status,
            skipped=status.is_in_sync and not cost.writes,
            dry_run=True,
            cost=cost,
            against=sides.against,
            error=status.error,
        )

    def _cost(self, plan: Plan) -> Cost:
        counted = self._counted
        if len(counted) >= MAX_COUNTED_TEXTS:
            counted = counted.intersection(texts_to_embed([plan]))
        return cost_of(plan, already_counted=counted)
