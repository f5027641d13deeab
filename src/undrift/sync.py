"""Sync: repair named owners, or the whole fleet, and prove it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain

from undrift.embedding import TextEmbedder
from undrift.errors import (
    EmbeddingBudgetSpent,
    ProfileOutdated,
)
from undrift.events import CheckStarted, Listener, RepairStarted, SyncEvent, ignore
from undrift.fleet import PAGE_OWNERS, fleet_pages, pages_of
from undrift.guard import (
    Budget,
    DeleteBudget,
    DeleteGuard,
    DeleteLimit,
    ReaderBudget,
    RollingBudget,
)
from undrift.guarded import GuardedRun, PageOfRun, Passes
from undrift.ledger import Ledger
from undrift.look import Sides
from undrift.metering import MeteredEmbedder
from undrift.model import Outcome, Read, SyncReport
from undrift.order import Order, StoreOrder
from undrift.ports import Embedder, OwnerContent
from undrift.repair import Repair, Repairer, Settled
from undrift.stages import PassesHere, Stages, in_turn, pipelined
from undrift.state_order import StateOrder


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
            self._order = StateOrder(
                sides, ledger, retry_parked=options.retry_parked, observes_with_publish=True
            )
        self._embedder = TextEmbedder(
            MeteredEmbedder(embedder, options.listener),
            max_embeddings=options.max_embeddings,
            before_batch=self._order.working,
        )
        is_adopted = sides.store.capabilities.adoption is not None
        self._guard = DeleteGuard.of(options.max_delete, is_adopted=is_adopted)

    def sync_owners(self, owners: Iterable[str]) -> Iterator[SyncReport]:
        """Sync *owners*, each in both directions at once unless a delete limit is set.

        Order:
            That of *owners*; with a delete limit, owners whose deletes had to wait come last.

        Raises:
            SafetyStop: the delete limit; writes were made.
            EmbeddingBudgetSpent: after the reports of everything that was done.
        """
        if self._options.max_delete is not None:
            yield from self._guarded(pages_of(owners), self._here(pipelined))
            return
        with closing(self._order):
            repairer = self._repairer(with_deletes=True)
            for repairs in in_turn(pages_of(owners), repairer):
                yield from self._reports(repairs)
                if repairer.is_budget_spent:
                    raise self._budget_spent()

    def sync_all(self, passes: Passes | None = None) -> Iterator[SyncReport]:
        """Sync every owner of either side; deletes wait until everything has been seen.

        Args:
            passes: who carries the pages; None for threads of this process.

        Order:
            The source's owners, those that only the store has, then those whose deletes waited.

        Raises:
            SafetyStop: the guard refuses the deletes; writes were made.
            EmbeddingBudgetSpent: writes were made up to the budget; an owner that lacks a write
                has lost nothing.
            UnknownStateError: the owners could not be listed to the end, or page after page
                failed. In the first pass nothing was deleted; in the second some may be.
        """
        if self._settled is not None:
            self._options.listener(CheckStarted(Read.DIGESTS, {}))
        pages = chain(fleet_pages(self._sides), self._gone())
        if passes is None:
            passes = self._here(pipelined, settled=self._settled)
        for report in self._guarded(pages, passes):
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

    def sync_page(
        self,
        owners: Sequence[str],
        *,
        deletes: int | None = None,
        texts: int | None = None,
        waits: bool = False,
    ) -> PageOfRun:
        """Carry a page of another process's run over everybody, whose deletes wait for it.

        Args:
            deletes: None for the first pass; in the second one, how many this page may make.
            texts: how many it may embed; None for any number.
            waits: for owners that somebody else is at work on, until there is one to start with.

        Safety:
            May be called for page after page, and for a page that is begun again: what was done
            of it before is found to be done.
        """
        second = None if deletes is None else DeleteBudget(deletes)
        embedded = self._embedder.embedded
        if texts is not None:
            self._embedder.allow(texts)
        repairer = self._repairer(
            with_deletes=second is not None,
            budget=second,
            settled=self._settled if second is None else None,
        )
        repairs = repairer.start(owners, waits=waits)
        repairer.run(repairs)
        return PageOfRun(
            repairs=repairs,
            busy=repairer.busy,
            embedded=self._embedder.embedded - embedded,
            is_budget_spent=repairer.is_budget_spent,
            deletes_left=0 if second is None else second.remaining,
            stop=repairer.stop,
        )

    def working(self) -> None:
        """Say that the work goes on, so that nobody takes it over; for whoever waits meanwhile."""
        self._order.working()

    def close(self) -> None:
        """Give up what is held after a `sync_page` that ended early. Safe to call twice."""
        self._order.close()

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
        with closing(self._guarded(iter([[owner_id]]), self._here(in_turn))) as reports:
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
        passes: Passes,
    ) -> Generator[SyncReport, None, None]:
        run = GuardedRun(
            passes=passes,
            guard=self._guard,
            against=self._sides.against,
            listener=self._options.listener,
        )
        with closing(self._order):
            yield from run.reports(pages)

    def _here(self, through: Stages, *, settled: Settled | None = None) -> PassesHere:
        return PassesHere(
            through,
            self._repairer(with_deletes=False, settled=settled),
            lambda allowed: self._repairer(with_deletes=True, budget=DeleteBudget(allowed)),
            self._budget_spent,
        )

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


def _without_starts(listener: Listener) -> Listener:
    def tell(event: SyncEvent) -> None:
        if not isinstance(event, RepairStarted):
            listener(event)

    return tell
