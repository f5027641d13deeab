"""Stamps for what another program wrote: only where text and model agree, nothing embedded.

The smallest sync there is. Whatever differs is left as it was found, and told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

from undrift.diff import OwnerDiff
from undrift.errors import UndriftError, UnknownStateError
from undrift.events import Listener, ignore
from undrift.fleet import PageFailures, pages_of
from undrift.look import Look, Sides
from undrift.model import Outcome, SyncStatus
from undrift.order import Conclusion, Order, PlanRequest
from undrift.publish import Publication, publication_of, publish
from undrift.versions import OrderedPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamped:
    """What stamping came to for one owner.

    Attributes:
        stamped: records that carry a stamp now and did not before.
        status: how the two sides compare afterwards.
        error: why the owner could not be looked at, or a stamp not be written.
    """

    owner_id: str
    stamped: int
    status: SyncStatus
    error: UndriftError | None = None


class Stamper:
    """Stamps the records of an adopted collection.

    Args:
        order: what puts the writes in order.

    Safety:
        Idempotent. No vector, text or field of the other program's is changed, and nothing is
        deleted; a record whose text changes in the midst of it gets no stamp.
    """

    def __init__(self, sides: Sides, order: Order, *, listener: Listener = ignore) -> None:
        self._sides = sides
        self._order = order
        self._listener = listener

    def stamp(self, pages: Iterable[Sequence[str]]) -> Iterator[Stamped]:
        """Stamp the owners of *pages*; those that another worker has come last.

        Raises:
            UnknownStateError: page after page could not be read.
        """
        failures = PageFailures()
        busy: list[str] = []
        with closing(self._order):
            for page in pages:
                own = self._order.begin(page)
                busy.extend(owner for owner in page if owner not in set(own))
                results = self._stamped(own)
                yield from results
                failures.saw([result.error for result in results])
                if failures.error is not None:
                    raise failures.error
            while busy:
                own = self._order.await_some(busy)
                busy = [owner for owner in busy if owner not in set(own)]
                for page in pages_of(own):
                    yield from self._stamped(page)

    def _stamped(self, owners: Sequence[str]) -> list[Stamped]:
        before = self._order.look(owners, {}) if owners else {}
        diffs = {o: self._sides.diff(look) for o, look in before.items() if look.error is None}
        found = {owner: diff for owner, diff in diffs.items() if diff.unstamped}
        requests = [PlanRequest(look=before[owner], diff=diff) for owner, diff in found.items()]
        plans = self._order.plans(requests) if requests else {}
        publications = {
            owner: _publication(plan, found[owner], before[owner])
            for owner, plan in plans.items()
            if isinstance(plan, OrderedPlan)
        }
        publish(self._order.send, publications.values(), self._listener)
        after = self._order.look_back({owner: before[owner] for owner in publications})
        results, conclusions = [], []
        for owner in owners:
            plan, publication = plans.get(owner), publications.get(owner)
            refused = plan if isinstance(plan, UndriftError) else None
            error = publication.error if publication is not None else refused
            result = self._result(after.get(owner, before[owner]), publication, error)
            results.append(result)
            conclusions.append(_conclusion(after.get(owner, before[owner]), result))
        self._order.conclude(conclusions)
        return results

    def _result(
        self, look: Look, publication: Publication | None, error: UndriftError | None
    ) -> Stamped:
        if look.error is not None:
            return Stamped(
                owner_id=look.owner_id,
                stamped=0,
                status=SyncStatus.unknown(look.owner_id, look.error),
                error=look.error,
            )
        present = set(look.stamps)
        sent = publication.writes if publication is not None else []
        return Stamped(
            owner_id=look.owner_id,
            stamped=sum(record.stamp in present for record in sent),
            status=self._sides.status(self._sides.diff(look), look),
            error=error,
        )


def _publication(ordered: OrderedPlan, diff: OwnerDiff, look: Look) -> Publication:
    """The stamps of *ordered*, and nothing else of it."""
    wanted = {(pair.entity.kind, pair.entity.entity_id) for pair in diff.unstamped}
    writes = tuple(
        write
        for write in ordered.plan.writes
        if not write.needs_embedding and (write.stamp.kind, write.stamp.entity_id) in wanted
    )
    stamps = replace(ordered, plan=replace(ordered.plan, writes=writes, deletes=()), tombstones=())
    publication = publication_of(stamps, {}, with_deletes=False)
    publication.planned_at = look.noted_at
    return publication


def _conclusion(look: Look, result: Stamped) -> Conclusion:
    outcome = result.status.outcome
    is_unknown = isinstance(result.error, UnknownStateError)
    return Conclusion(
        look=look,
        outcome=outcome,
        error=result.error,
        # What differs was never to be repaired here; the owner is only given up.
        is_held=outcome not in (Outcome.IN_SYNC, Outcome.NOT_FOUND) and not is_unknown,
        parked={},
    )
