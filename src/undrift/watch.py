"""Watch: sync whoever was touched, continuously, and look at everybody within a deadline.

Any number of watchers share one state. Each takes dirty owners under a lease, syncs them as a
command would, and gives them back; one that dies leaves its leases to run out. Triggers only make
it faster: what they miss, the scrub finds.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b

from undrift.changes import ChangeFeed
from undrift.embedding import TextEmbedder
from undrift.errors import ConfigError, Superseded, UndriftError, UnknownStateError
from undrift.events import Listener, ignore
from undrift.fingerprint import vector_id
from undrift.fleet import PAGE_OWNERS
from undrift.guard import RollingBudget
from undrift.ledger import RETENTION_SECONDS, SCRUB_SECONDS, Ledger
from undrift.look import Sides
from undrift.model import Outcome
from undrift.ports import Embedder
from undrift.repair import Repair, Repairer
from undrift.state import Tombstone, WorkerReport
from undrift.state_order import StateOrder

_log = logging.getLogger(__name__)

REPORT_SECONDS = 10.0
HOUSEKEEPING_SECONDS = 300.0
STOOD_DOWN_SECONDS = 30.0
MAX_MARKS = 10_000
MAX_COLLECTED = 1_000
_FIRST_OUTAGE_SECONDS = 0.5
_MAX_OUTAGE_SECONDS = 30.0
_SCRUB_BUCKETS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchOptions:
    """How a watcher goes about it.

    Attributes:
        batch_owners: owners that are synced, and embedded for, together.
        poll_seconds: how often marks and dirty owners are looked for when there are none.
        scrub_seconds: within which everybody is looked at.
        scrub_pause_seconds: between two pages of the scrub at least.
        listener: told about every batch.
    """

    batch_owners: int = 100
    poll_seconds: float = 0.05
    scrub_seconds: float = SCRUB_SECONDS
    scrub_pause_seconds: float = 1.0
    listener: Listener = ignore


DEFAULT_WATCH = WatchOptions()


class Watcher:
    """One worker of a watch.

    Args:
        sides: both sides; the store must exist.
        ledger: entered, its holder this worker's alone.
        feed: the marks of the source's triggers; None where there are none.
        is_over: asked between two batches; True ends the watch.

    Safety:
        For one thread. It may end or be killed at any point; what it was at is done by the next.
    """

    def __init__(
        self,
        sides: Sides,
        embedder: Embedder,
        ledger: Ledger,
        feed: ChangeFeed | None = None,
        options: WatchOptions = DEFAULT_WATCH,
        *,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._sides = sides
        self._ledger = ledger
        self._feed = feed
        self._options = options
        self._is_over = is_over
        self._order = StateOrder(sides, ledger, observes_with_publish=True)
        self._embedder = TextEmbedder(embedder, before_batch=self._order.working)
        self._budget = RollingBudget(ledger.state, lambda: any(sides.source.owner_pages(1)))
        self._report = WorkerReport(worker_id=ledger.holder)
        self._next_report = self._next_housekeeping = self._next_scrub = ledger.clock()
        self._outages = 0
        self._is_stood_down = False

    @property
    def report(self) -> WorkerReport:
        """What it has done since it began."""
        return self._report

    def run(self) -> None:
        """Watch until it is over.

        Raises:
            ConfigError: a side or the state is not what the configuration says.
        """
        _log.info("watching", extra={"action": "watch.begin", "worker": self._ledger.holder})
        try:
            while not self._is_over():
                self._wait(self._guarded_step())
        finally:
            self._leave()

    def step(self) -> int:
        """Take the marks, sync the owners that are due, and look after the rest.

        Returns:
            How many owners were synced.

        Raises:
            Superseded: a newer configuration is the current one.
            ConfigError: a side or the state is not what the configuration says.
            UnknownStateError: the state or the source's marks cannot be reached.
        """
        state, ledger = self._ledger.state, self._ledger
        if self._feed is not None:
            self._take_marks(self._feed)
        dirty = state.claim_dirty(ledger.holder, self._options.batch_owners, ledger.lease_seconds)
        if dirty:
            self._sync({owner.owner_id: owner.attempts for owner in dirty})
        self._look_after(is_idle=not dirty)
        return len(dirty)

    def _take_marks(self, feed: ChangeFeed) -> None:
        state = self._ledger.state
        try:
            feed.drain(MAX_MARKS, state.mark, state.mark_everyone)
        except ConfigError as exc:
            # Freshness is lost and nothing else; a service that ended would not come back.
            _log.warning(
                "%s: %s From now on changes are found by the scrub alone. Fix: %s",
                exc.what,
                exc.why,
                exc.fix,
                extra={"action": "watch.no_triggers"},
            )
            self._feed = None
            state.mark_everyone()

    # --- one step -----------------------------------------------------------------------------

    def _guarded_step(self) -> float:
        """One step; how long to wait behind it, 0 to go on at once."""
        try:
            if self._is_stood_down:
                self._ledger.note([])  # nobody is taken before this one may write again
            synced = self.step()
        except Superseded as exc:
            # Two releases must not fight, and a service that ends would only be started again.
            _log.warning("standing down: %s", exc.why, extra={"action": "watch.superseded"})
            self._is_stood_down = True
            with suppress(UnknownStateError):  # the leases run out by themselves
                self._order.close()
            return STOOD_DOWN_SECONDS
        except UnknownStateError as exc:
            self._outages += 1
            longest = _FIRST_OUTAGE_SECONDS * 2.0 ** min(self._outages, 10)
            wait = min(_MAX_OUTAGE_SECONDS, longest) * (0.5 + self._ledger.chance() / 2)
            _log.warning(
                "%s: %s Trying again in %.1f s.",
                exc.what,
                exc.why,
                wait,
                extra={"action": "watch.outage"},
            )
            return wait
        self._outages, self._is_stood_down = 0, False
        return 0.0 if synced else self._options.poll_seconds

    def _wait(self, seconds: float) -> None:
        if seconds <= 0 or self._is_over():
            return
        if seconds <= self._options.poll_seconds and self._feed is not None:
            self._feed.wait(seconds)
            return
        end = self._ledger.clock() + seconds
        while (left := end - self._ledger.clock()) > 0 and not self._is_over():
            self._ledger.sleep(min(left, 1.0))

    def _sync(self, attempts: dict[str, int]) -> None:
        owners = list(attempts)
        self._ledger.took(owners)
        self._embedder.forget_rejections()  # what is parked is tried again, when it is due
        repairer = Repairer(
            self._sides,
            self._embedder,
            self._order,
            listener=self._options.listener,
            budget=self._budget,
            reads_source_again=False,
        )
        repairs = repairer.start_leased(owners)
        for repair in repairs:
            repair.attempts = attempts[repair.owner_id]
        repairer.run(repairs)
        self._tell(repairs)

    def _tell(self, repairs: Sequence[Repair]) -> None:
        for repair in repairs:
            self._report = replace(
                self._report,
                owners=self._report.owners + 1,
                failures=self._report.failures + (repair.error is not None),
                embedded=self._report.embedded + repair.embedded,
                written=self._report.written + repair.written,
                deleted=self._report.deleted + repair.deleted,
            )
            if repair.outcome is Outcome.NOT_FOUND or repair.skipped:
                continue
            extra = {
                "action": "watch.synced",
                "owner": repair.owner_id,
                "outcome": str(repair.outcome),
                "written": repair.written,
                "deleted": repair.deleted,
                "embedded": repair.embedded,
            }
            if repair.error is None:
                _log.info("user %s: %s", repair.owner_id, repair.outcome, extra=extra)
            else:
                what, why = repair.error.what, repair.error.why
                _log.warning("user %s: %s: %s", repair.owner_id, what, why, extra=extra)

    # --- besides ------------------------------------------------------------------------------

    def _look_after(self, *, is_idle: bool) -> None:
        now = self._ledger.clock()
        if now >= self._next_report:
            self._next_report = now + REPORT_SECONDS
            self._ledger.state.report_worker(self._report)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + HOUSEKEEPING_SECONDS
            collect(self._ledger)
        if now >= self._next_scrub:
            found = self._scrub_page()
            hurry = found and is_idle
            self._next_scrub = now + (0.0 if hurry else self._options.scrub_pause_seconds)

    def _scrub_page(self) -> bool:
        """Mark those of the next page of owners who have not been looked at for long.

        Returns:
            Whether there may be another page to go on with.
        """
        state, holder = self._ledger.state, self._ledger.holder
        turn = state.scrub_turn(holder, self._ledger.lease_seconds)
        if turn is None:
            return False
        is_new = turn.after is None and not turn.is_second_side
        if is_new and turn.began_seconds < self._pass_pause:
            return False  # the last one has only just ended
        page, orphans_only = self._page_behind(turn.after, is_second_side=turn.is_second_side)
        if page:
            owners = page
            if orphans_only:
                present = self._sides.source.present(page)
                owners = [owner for owner in page if owner not in present]
            self._mark_stale(owners)
            state.scrubbed(holder, page[-1], is_second_side=turn.is_second_side)
            return True
        if not turn.is_second_side and self._sides.store_exists:
            state.scrubbed(holder, None, is_second_side=True)
            return True
        state.scrubbed(holder, None, is_second_side=False)
        return False

    @property
    def _pass_pause(self) -> float:
        """Between two passes over the lists of owners."""
        return self._options.scrub_seconds / 24

    def _page_behind(self, after: str | None, *, is_second_side: bool) -> tuple[list[str], bool]:
        if is_second_side:
            return list(self._sides.store.owners(after, PAGE_OWNERS)), True
        return list(next(iter(self._sides.source.owner_pages(PAGE_OWNERS, after)), ())), False

    def _mark_stale(self, owners: Sequence[str]) -> None:
        """Mark those of *owners* whose turn it is, spread over the second half of the deadline.

        Everybody who was looked at in the same hour would be due in the same hour again.
        """
        buckets: dict[int, list[str]] = {}
        for owner in owners:
            buckets.setdefault(_bucket(owner), []).append(owner)
        state = self._ledger.state
        for bucket, members in buckets.items():
            share = 0.5 + 0.4 * bucket / (_SCRUB_BUCKETS - 1)
            stale = state.stale_owners(members, self._options.scrub_seconds * share)
            if stale:
                overdue = set(state.stale_owners(stale, self._options.scrub_seconds * 0.95))
                state.mark([o for o in stale if o not in overdue], priority=-1)
                state.mark([o for o in stale if o in overdue])

    def _leave(self) -> None:
        try:
            self._order.close()
            self._ledger.state.worker_left(self._ledger.holder)
        except UndriftError as exc:
            _log.warning("leaving without a word: %s", exc.what, extra={"action": "watch.end"})
        else:
            _log.info("ended", extra={"action": "watch.end", "worker": self._ledger.holder})


def collect(ledger: Ledger) -> int:
    """Forget entities that were deleted so long ago that no write of them can be on its way.

    Returns:
        How many.
    """
    rows = ledger.state.buried(RETENTION_SECONDS, MAX_COLLECTED)
    if not rows:
        return 0
    namespace = ledger.store.namespace
    ledger.store.collect(
        [
            Tombstone(vector_id(namespace, row.owner_id, row.kind, row.entity_id), *row)
            for row in rows
        ]
    )
    ledger.state.forget(rows)
    return len(rows)


def _bucket(owner_id: str) -> int:
    return blake2b(owner_id.encode("utf-8", "surrogatepass"), digest_size=1).digest()[0] % (
        _SCRUB_BUCKETS
    )
