"""Both passes of a sync of everybody, its pages carried by other processes, here or elsewhere.

Every page is synced by the protocol, under leases in the state, so a page that is begun again, or
by two at once, does no harm; it costs what was on its way to be written. Nothing is kept here: who
is done is found to be done by the next run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple, Protocol

from undrift.engines.budget import TextBudget
from undrift.errors import EmbeddingBudgetSpent, UndriftError, UnknownStateError
from undrift.events import Listener, OwnersBusy, SyncEvent
from undrift.fleet import PageFailures, pages_of
from undrift.guarded import PageOfRun, Stop, add_before
from undrift.look import Look
from undrift.model import Outcome, SyncStatus
from undrift.ports import Embedder
from undrift.repair import Repair
from undrift.sync import Synchronizer


class SyncOpener(Protocol):
    """Opens a sync of pages in another process; must be picklable."""

    @property
    def here_only(self) -> Sequence[str]:
        """The sides whose addresses mean another database on another machine, for people."""

    def __call__(self, embedder: Embedder, listener: Listener) -> Synchronizer:
        """Open both sides and the state; vectors come from *embedder*."""


class Share(NamedTuple):
    """A page to be synced.

    Attributes:
        deletes: see `Synchronizer.sync_page` for this and what follows.
    """

    owners: Sequence[str]
    deletes: int | None = None
    texts: int | None = None
    waits: bool = False


class Carried(NamedTuple):
    """A page that was synced, and what was told meanwhile."""

    page: PageOfRun
    events: Sequence[SyncEvent] = ()


class Carriers(Protocol):
    """Those who carry pages, several at once."""

    def window(self) -> int:
        """How many pages are to be under way.

        Raises:
            UnknownStateError: nobody is left to carry any.
        """

    def submit(self, share: Share) -> Callable[[], Carried]:
        """Have *share* carried; what is returned waits for the result.

        Raises:
            UndriftError: what ends the run, when the result is waited for.
        """


_UnderWay = tuple[Share, Callable[[], Carried]]


class PassesElsewhere:
    """See the module, and `undrift.guarded.Passes`.

    Args:
        max_embeddings: texts that the run may embed; None for any number.
        listener: told what happened within a page when the page is done.
    """

    def __init__(
        self, carriers: Carriers, listener: Listener, *, max_embeddings: int | None = None
    ) -> None:
        self._carriers = carriers
        self._listener = listener
        self._budget = TextBudget(max_embeddings)
        self._later: list[Share] = []
        self._unpaid: dict[str, Repair] = {}
        self.stop: Stop | None = None

    def write(self, pages: Iterator[Sequence[str]]) -> Iterator[list[Repair]]:
        """See `Passes.write`.

        Order:
            That of *pages*, whoever is done first; who was busy comes last.
        """
        yield from self._through(Share(list(page)) for page in pages)

    def delete(self, held: Mapping[str, Repair], allowed: int) -> Iterator[list[Repair]]:
        """See `Passes.delete`.

        Of what is allowed every page gets its part, by what it is to delete: nobody can count for
        all of them while they delete at once. A page that is begun again begins with its whole
        part.
        """
        planned = sum(len(repair.held_deletes) for repair in held.values())

        def part(page: Sequence[str]) -> int:
            return allowed * sum(len(held[owner].held_deletes) for owner in page) // planned

        yield from self._through(Share(page, part(page)) for page in pages_of(held))

    def _through(self, shares: Iterator[Share]) -> Iterator[list[Repair]]:
        self._later = []
        try:
            yield from self._carry(shares)
            while self._later and self.stop is None:
                again, self._later = self._later, []
                busy = sum(len(share.owners) for share in again if share.waits)
                if busy:
                    self._listener(OwnersBusy(busy))
                yield from self._carry(iter(again))
        except UnknownStateError:
            yield self._left_unpaid()
            raise
        yield self._left_unpaid()

    def _carry(self, shares: Iterator[Share]) -> Iterator[list[Repair]]:
        """Have *shares* carried, several at once; who has to come again is kept for later."""
        failures, failure = PageFailures(), None
        under_way: deque[_UnderWay] = deque()
        is_fed = True
        while is_fed or under_way:
            try:
                while is_fed and len(under_way) < self._carriers.window():
                    if self._budget.is_out:
                        break
                    share = next(shares, None)
                    if share is None:
                        is_fed = False
                    else:
                        under_way.append(self._submit(share))
            except UnknownStateError as exc:
                is_fed, failure = False, exc  # raised when what was begun has been reported
            if not under_way:
                break
            share, result = under_way.popleft()
            try:
                page, events = result()
            except UnknownStateError as exc:
                page, events = unknown_page(share, exc)
                failure = failure or exc
            for event in events:
                self._listener(event)
            yield self._taken(share, page)
            failures.saw([repair.error for repair in page.repairs])
            failure = failure or failures.error
            is_fed = is_fed and self.stop is None and failure is None
        if failure is not None:
            raise failure

    def _submit(self, share: Share) -> _UnderWay:
        share = share._replace(texts=self._budget.part(self._carriers.window()))
        return share, self._carriers.submit(share)

    def _left_unpaid(self) -> list[Repair]:
        """Whoever was to come again, and does not any more."""
        left = list(self._unpaid.values())
        self._unpaid.clear()
        return left

    def _taken(self, share: Share, page: PageOfRun) -> list[Repair]:
        """The repairs of *page* that are done; whoever is not comes again."""
        self._budget.settle(share.texts, page.embedded)
        self.stop = self.stop or page.stop
        if page.is_budget_spent:
            self.stop = self.stop or self._budget.stop
        for repair in page.repairs:
            if repair.owner_id in self._unpaid:
                add_before(repair, self._unpaid.pop(repair.owner_id))
        left = None if share.deletes is None else page.deletes_left
        if page.busy:
            self._later.append(Share(list(page.busy), left, waits=True))
        if self.stop is not None:
            return page.repairs
        # What others have not spent of their parts may do for them.
        unpaid = [r for r in page.repairs if isinstance(r.error, EmbeddingBudgetSpent)]
        if unpaid:
            self._unpaid.update((repair.owner_id, repair) for repair in unpaid)
            self._later.append(Share([repair.owner_id for repair in unpaid], left))
        return [repair for repair in page.repairs if repair.owner_id not in self._unpaid]


def carried(
    synchronizer: Synchronizer, events: list[SyncEvent], share: Share
) -> Carried | UndriftError:
    """Sync the page of *share* in the process that carries it.

    Args:
        events: where the synchronizer's listener puts them; emptied.

    Returns:
        The result; or what ends the run, as a value, because what is raised may arrive as something
        else. What was leased is given up then.
    """
    try:
        page = synchronizer.sync_page(
            share.owners, deletes=share.deletes, texts=share.texts, waits=share.waits
        )
    except UndriftError as exc:
        with suppress(UnknownStateError):  # then the leases end by themselves
            synchronizer.close()
        return exc
    told = tuple(events)
    events.clear()
    return Carried(page, told)


def unknown_page(share: Share, error: UnknownStateError) -> Carried:
    """The page of *share*, of which nothing can be said."""
    repairs = []
    for owner in share.owners:
        status = SyncStatus.unknown(owner, error)
        repair = Repair(owner, status, Look(owner_id=owner, error=error))
        repair.end(Outcome.UNKNOWN, error)
        repairs.append(repair)
    return Carried(PageOfRun(repairs=repairs))
