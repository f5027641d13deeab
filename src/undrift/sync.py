"""Sync: repair named owners, or the whole fleet, and prove it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

from undrift.check import Checked, check_all, check_owners
from undrift.embedding import TextEmbedder
from undrift.errors import (
    EmbeddingBudgetSpent,
    ProfileOutdated,
    SafetyStop,
    UndriftError,
    UnknownStateError,
)
from undrift.events import CheckStarted, DeletesHeld, Listener, RepairStarted, SyncEvent, ignore
from undrift.fleet import PAGE_OWNERS, PageFailures, fleet_pages, is_outage, pages_of
from undrift.guard import (
    HARMLESS_DELETES,
    Budget,
    DeleteBudget,
    DeleteGuard,
    DeleteLimit,
    ReaderBudget,
    RollingBudget,
)
from undrift.ledger import Ledger
from undrift.look import Sides
from undrift.model import Cost, Outcome, Read, SyncReport
from undrift.order import Order, StoreOrder, staying
from undrift.plan import cost_of, plan_owner
from undrift.ports import Embedder, OwnerContent
from undrift.repair import Repair, Repairer, Settled
from undrift.state_order import StateOrder

PAGES_AHEAD = 2
"""Pages that are read while earlier ones are embedded and written; bounds a run's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncOptions:
    """How a sync goes about it.

    Attributes:
        force: rewrite and re-embed everything, in sync or not.
        max_embeddings: texts this run may embed; None means any number.
        max_delete: deletes this run may make; None means the default guard for a fleet, and no
            limit for owners that a person named.
        retry_parked: try again what could not be made before.
        listener: told about every batch.
    """

    force: bool = False
    max_embeddings: int | None = None
    max_delete: DeleteLimit | None = None
    retry_parked: bool = False
    listener: Listener = ignore


_Stages = Callable[[Iterator[Sequence[str]], Repairer], Iterator[list[Repair]]]


class Synchronizer:
    """One run of a sync.

    Args:
        sides: both sides; the store must exist.
        ledger: entered; None for a store of one's own that has no state.
        settled: tells a sync of everybody who needs nothing; None looks at each.
    """

    def __init__(
        self,
        sides: Sides,
        embedder: Embedder,
        options: SyncOptions,
        *,
        ledger: Ledger | None = None,
        settled: Settled | None = None,
    ) -> None:
        self._settled = settled
        self._sides = sides
        self._options = options
        self._ledger = ledger
        self._order: Order = StoreOrder(sides)
        if ledger is not None:
            self._order = StateOrder(sides, ledger, retry_parked=options.retry_parked)
        self._embedder = TextEmbedder(
            embedder,
            max_embeddings=options.max_embeddings,
            before_batch=self._order.working,
        )
        # Of what another program wrote, nothing is harmless: its fields may be named wrongly.
        is_adopted = sides.store.capabilities.adoption is not None
        self._guard = DeleteGuard(options.max_delete, 0 if is_adopted else HARMLESS_DELETES)
        self._outage: UndriftError | None = None

    def sync_owners(self, owners: Iterable[str]) -> Iterator[SyncReport]:
        """Sync *owners*, each in both directions at once unless a delete limit is set.

        Order:
            That of *owners*; with a delete limit, owners whose deletes had to wait come last.

        Raises:
            SafetyStop: the delete limit; writes were made.
            EmbeddingBudgetSpent: after the reports of everything that was done.
        """
        if self._options.max_delete is not None:
            yield from self._guarded(pages_of(owners), _pipelined)
            return
        with closing(self._order):
            repairer = self._repairer(with_deletes=True)
            for repairs in _in_turn(pages_of(owners), repairer):
                yield from self._reports(repairs)
                if repairer.is_budget_spent:
                    raise self._budget_spent()

    def sync_all(self) -> Iterator[SyncReport]:
        """Sync every owner of either side; deletes wait until everything has been seen.

        Order:
            The source's owners, those that only the store has, then those whose deletes waited.

        Raises:
            SafetyStop: the guard refuses the deletes; writes were made.
            EmbeddingBudgetSpent: writes were made up to the budget; an owner that lacks a write
                has lost nothing.
            UnknownStateError: the owners could not be listed to the end, or page after page
                failed; nothing was deleted.
        """
        if self._settled is not None:
            self._options.listener(CheckStarted(Read.DIGESTS, {}))
        pages = chain(fleet_pages(self._sides), self._gone())
        for report in self._guarded(pages, _pipelined, settled=self._settled):
            # Who is gone from both sides by now, or has unmanaged records only, is nobody.
            if report.outcome is not Outcome.NOT_FOUND:
                yield report

    def _gone(self) -> Iterator[Sequence[str]]:
        """Owners who are to be synced and whom neither side has any more: nobody lists them."""
        if self._ledger is None:
            return
        after: str | None = None
        while dirty := self._ledger.state.dirty_owners(PAGE_OWNERS, after):
            after = dirty[-1]
            present = self._sides.source.present(dirty)
            absent = [owner for owner in dirty if owner not in present]
            stored = self._sides.read_store(absent)[0] if absent else {}
            gone = [owner for owner in absent if owner not in stored]
            if gone:
                yield gone

    def sync_guarded(self, owner_id: str) -> SyncReport:
        """Sync one owner on a program's behalf: the default guard stands before its deletes.

        Only a person who names an owner may have it emptied. A source that lists nobody else
        either is taken for damaged.
        """
        if self._ledger is not None:
            return self._sync_within_budget(owner_id, self._ledger)
        source = self._sides.source
        if not source.present([owner_id]) and any(source.owner_pages(1)):
            self._guard.source_owners += 1
        with closing(self._guarded(iter([[owner_id]]), _in_turn)) as reports:
            return next(reports)

    def sync_given(self, owner_id: str, content: OwnerContent) -> SyncReport:
        """Sync one owner whose profile the caller has at hand.

        Raises:
            ProfileOutdated: the source holds something else; nothing was written.
            InvalidDocument: the profile cannot be read as entities; nothing was written.
        """
        with closing(self._order):
            repairer = self._repairer(with_deletes=True)
            repairs = repairer.start([owner_id], waits=True)
            look = repairs[0].look
            if look.error is None:
                given = self._sides.renderer.render(content)
                if look.wanted is None or dict(look.wanted.entities) != dict(given.entities):
                    raise ProfileOutdated(owner_id)
            repairer.run(repairs)
            return repairs[0].report(against=self._sides.against)

    def _sync_within_budget(self, owner_id: str, ledger: Ledger) -> SyncReport:
        rolling = RollingBudget(ledger.state, lambda: any(self._sides.source.owner_pages(1)))
        budget = ReaderBudget(rolling)
        with closing(self._order):
            repairer = self._repairer(with_deletes=True, budget=budget)
            repairs = repairer.start([owner_id], waits=True)
            budget.managed = repairs[0].before.store
            repairer.run(repairs)
            return repairs[0].report(against=self._sides.against)

    # --- the guarded run ----------------------------------------------------------------------

    def _guarded(
        self,
        pages: Iterator[Sequence[str]],
        through: _Stages,
        *,
        settled: Settled | None = None,
    ) -> Generator[SyncReport, None, None]:
        with closing(self._order):
            yield from self._in_two_passes(pages, through, settled)

    def _in_two_passes(
        self, pages: Iterator[Sequence[str]], through: _Stages, settled: Settled | None
    ) -> Iterator[SyncReport]:
        held: dict[str, Repair] = {}
        repairer = self._repairer(with_deletes=False, settled=settled)
        try:
            for repairs in through(pages, repairer):
                for repair in repairs:
                    self._note(repair)
                    if repair.held_deletes and repair.outcome is Outcome.DRIFT:
                        held[repair.owner_id] = repair
                yield from self._reports(r for r in repairs if r.owner_id not in held)
        except UnknownStateError as exc:
            yield from self._not_deleted(held, _outage_in_between(exc))
            raise
        if repairer.is_budget_spent:
            yield from self._not_deleted(held, self._budget_spent())
            raise self._budget_spent()
        if self._outage is not None:
            yield from self._not_deleted(held, _outage_in_between(self._outage))
        elif held:
            yield from self._delete_held(held)

    def _note(self, repair: Repair) -> None:
        """Count for the guard what the first pass showed of an owner."""
        in_source = repair.look.wanted is not None or repair.look.error is not None
        self._guard.saw(repair.before.store, in_source=in_source)
        self._guard.planned.update(repair.held_deletes)
        if is_outage(repair.error):
            self._outage = repair.error

    def _delete_held(self, held: Mapping[str, Repair]) -> Iterator[SyncReport]:
        planned, managed = self._guard.planned.total(), self._guard.managed.total()
        self._options.listener(DeletesHeld(len(held), planned, managed))
        try:
            allowed = self._guard.require()
        except SafetyStop as stop:
            yield from self._not_deleted(held, stop)
            raise
        repairer = self._repairer(with_deletes=True, budget=DeleteBudget(allowed))
        waiting = dict(held)
        # Both sides are read again: what was seen when the delete was planned may be past.
        for repairs in _in_turn(pages_of(held), repairer):
            for repair in repairs:
                _add_first_pass(repair, waiting.pop(repair.owner_id))
            yield from self._reports(repairs)
            ended = repairer.stop or (self._budget_spent() if repairer.is_budget_spent else None)
            if ended is not None:
                yield from self._not_deleted(waiting, ended)
                raise ended

    def _not_deleted(self, held: Mapping[str, Repair], why: UndriftError) -> Iterator[SyncReport]:
        for repair in held.values():
            repair.end(Outcome.DRIFT, why)
        yield from self._reports(held.values())

    def _repairer(
        self,
        *,
        with_deletes: bool,
        budget: Budget | None = None,
        settled: Settled | None = None,
    ) -> Repairer:
        """A repairer; one with a `DeleteBudget` is a fleet run's second pass."""
        listener, is_second_pass = self._options.listener, isinstance(budget, DeleteBudget)
        return Repairer(
            self._sides,
            self._embedder,
            self._order,
            # An owner's repair is announced once; what is forced is rewritten once.
            listener=_without_starts(listener) if is_second_pass else listener,
            force=self._options.force and not is_second_pass,
            with_deletes=with_deletes,
            budget=budget,
            max_embeddings=self._options.max_embeddings,
            settled=settled,
        )

    def _budget_spent(self) -> EmbeddingBudgetSpent:
        return EmbeddingBudgetSpent(self._options.max_embeddings or 0)

    def _reports(self, repairs: Iterable[Repair]) -> Iterator[SyncReport]:
        for repair in repairs:
            yield repair.report(against=self._sides.against)


def _add_first_pass(second: Repair, first: Repair) -> None:
    """Make the second pass's result speak for both."""
    second.before = first.before
    second.skipped = False
    second.written += first.written
    second.embedded += first.embedded
    second.truncated += first.truncated


def _without_starts(listener: Listener) -> Listener:
    def tell(event: SyncEvent) -> None:
        if not isinstance(event, RepairStarted):
            listener(event)

    return tell


def _outage_in_between(cause: UndriftError) -> UnknownStateError:
    return UnknownStateError(
        "Nothing was deleted",
        why=f"part of the run could not look, and deletes wait for a run that sees everything "
        f"({cause.what}).",
        fix=cause.fix,
    )


def _in_turn(pages: Iterator[Sequence[str]], repairer: Repairer) -> Iterator[list[Repair]]:
    """Do everything in this thread.

    A single owner leaves nothing to do at the same time. And its heal may outlive the main thread,
    after which Python begins no work in other threads: what was embedded would be lost.
    """
    for page in pages:
        repairs = repairer.start(page)
        repairer.run(repairs)
        yield repairs
    yield from _behind_others(repairer)


def _behind_others(repairer: Repairer) -> Iterator[list[Repair]]:
    """Sync those owners at last that somebody else was at work on; nothing is held meanwhile."""
    while repairer.busy:
        waiting, repairer.busy = repairer.busy, []
        repairer.tell_busy(len(waiting))
        for page in pages_of(waiting):
            repairs = repairer.start(page, waits=True)
            repairer.run(repairs)
            yield repairs


def _pipelined(pages: Iterator[Sequence[str]], repairer: Repairer) -> Iterator[list[Repair]]:
    """Read pages ahead in one thread, embed here, publish and verify in another.

    Order:
        That of *pages*.

    Raises:
        UnknownStateError: several pages in a row could not be read.
    """
    failures = PageFailures()
    failure: UnknownStateError | None = None
    writing: Future[list[Repair]] | None = None
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        try:
            for repairs in _read_ahead(pages, repairer, reader):
                repairer.embed(repairs)
                failures.saw([repair.error for repair in repairs])
                if writing is not None:
                    yield writing.result()
                writing = writer.submit(_finished, repairer, repairs)
                if repairer.is_budget_spent or failures.error is not None:
                    break
        except UnknownStateError as exc:
            failure = exc  # raised when everything that was begun has been reported
        if writing is not None:
            yield writing.result()
    failure = failure or failures.error
    if failure is not None:
        raise failure
    if not repairer.is_budget_spent:
        yield from _behind_others(repairer)


def _read_ahead(
    pages: Iterator[Sequence[str]], repairer: Repairer, reader: ThreadPoolExecutor
) -> Iterator[list[Repair]]:
    reading: deque[Future[list[Repair]]] = deque()
    failure: UnknownStateError | None = None
    while failure is None:
        try:
            page = next(pages, None)
        except UnknownStateError as exc:
            failure = exc
            break
        if page is None:
            break
        reading.append(reader.submit(repairer.start, page))
        if len(reading) == PAGES_AHEAD:
            yield reading.popleft().result()
    while reading:
        yield reading.popleft().result()
    if failure is not None:
        raise failure


def _finished(repairer: Repairer, repairs: list[Repair]) -> list[Repair]:
    repairer.finish(repairs)
    return repairs


# --- dry run ----------------------------------------------------------------------------------


def plan_sync(
    sides: Sides, owners: Iterable[str] | None, *, force: bool = False
) -> Iterator[SyncReport]:
    """What a sync would do, and what it would cost; writes nothing.

    Args:
        owners: None for every owner of either side.

    Order:
        As a check's. A text that several owners share is counted for the first.
    """
    counted: set[str] = set()
    if owners is None:
        checked = check_all(sides)
    else:
        checked = (result for page in pages_of(owners) for result in check_owners(sides, page))
    for result in checked:
        yield _dry_report(sides, result, counted, force=force)


def _dry_report(sides: Sides, checked: Checked, counted: set[str], *, force: bool) -> SyncReport:
    cost = Cost()
    status, diff = checked.status, checked.diff
    if diff is not None and status.outcome not in (Outcome.IN_MOTION, Outcome.NOT_FOUND):
        plan = plan_owner(
            diff,
            namespace=sides.store.namespace,
            model=sides.model,
            force=force,
            stays=staying(diff, sides),
        )
        # Parts go once the whole record that takes their place has been read back.
        cost = cost_of(plan, already_counted=counted) + Cost(deletes=len(diff.parts))
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
