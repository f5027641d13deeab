"""A sync whose deletes wait: a first pass writes, the guard decides, a second pass deletes.

Who carries the pages, threads of this process, other processes or the machines of a cluster, is the
`Passes`'; what is counted, decided and told is done here, in one place and for the whole run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from undrift.errors import EmbeddingBudgetSpent, SafetyStop, UndriftError, UnknownStateError
from undrift.events import DeletesHeld, Listener, ignore
from undrift.fleet import is_outage
from undrift.guard import DeleteGuard
from undrift.model import Outcome, SyncReport
from undrift.repair import Repair

Stop = SafetyStop | EmbeddingBudgetSpent


class Passes(Protocol):
    """Carries pages of owners through the two passes.

    Attributes:
        stop: why the latest pass was ended early; None if it went to its end.
    """

    stop: Stop | None

    def write(self, pages: Iterator[Sequence[str]]) -> Iterator[list[Repair]]:
        """Sync *pages*, but keep every delete aside and count it in ``Repair.held_deletes``.

        Raises:
            UnknownStateError: the owners could not be listed to the end, or page after page failed;
                after everything that was begun was yielded.
        """

    def delete(self, held: Mapping[str, Repair], allowed: int) -> Iterator[list[Repair]]:
        """Sync the owners of *held*, with at most so many deletes in all.

        Both sides are read again: what was seen when the delete was planned may be past.

        Raises:
            UnknownStateError: nobody can tell what became of some; after everything else that was
                begun was yielded.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOfRun:
    """What became of a page that another process carried; pickled, it is without all content.

    Attributes:
        repairs: of all of its owners but the busy ones.
        busy: owners who were left to somebody else.
        embedded: texts that were paid for.
        is_budget_spent: more was needed than might be embedded.
        deletes_left: what remains of what the page might delete.
        stop: why some of its deletes were not made.
    """

    repairs: list[Repair]
    busy: Sequence[str] = ()
    embedded: int = 0
    is_budget_spent: bool = False
    deletes_left: int = 0
    stop: SafetyStop | None = None


@dataclass(slots=True, kw_only=True)
class GuardedRun:
    """One run in two passes.

    Attributes:
        against: what the reports were verified against.
        listener: told what the guard is to decide on.
    """

    passes: Passes
    guard: DeleteGuard
    against: str
    listener: Listener = ignore
    _outage: UndriftError | None = None

    def reports(self, pages: Iterator[Sequence[str]]) -> Iterator[SyncReport]:
        """Sync *pages*.

        Order:
            That of the passes; owners whose deletes had to wait come last.

        Raises:
            SafetyStop: the guard refuses the deletes; writes were made.
            EmbeddingBudgetSpent: after the reports of everything that was done.
            UnknownStateError: see `Passes.write`, behind which nothing was deleted, and
                `Passes.delete`.
        """
        held: dict[str, Repair] = {}
        try:
            for repairs in self.passes.write(pages):
                for repair in repairs:
                    self._note(repair)
                    if repair.held_deletes and repair.outcome is Outcome.DRIFT:
                        held[repair.owner_id] = repair
                yield from self._reports(r for r in repairs if r.owner_id not in held)
        except UnknownStateError as exc:
            yield from self._not_deleted(held, _outage_in_between(exc))
            raise
        if self.passes.stop is not None:
            yield from self._not_deleted(held, self.passes.stop)
            raise self.passes.stop
        if self._outage is not None:
            yield from self._not_deleted(held, _outage_in_between(self._outage))
        elif held:
            yield from self._delete(held)

    def _note(self, repair: Repair) -> None:
        """Count for the guard what the first pass showed of an owner."""
        in_source = repair.look.wanted is not None or repair.look.error is not None
        self.guard.saw(repair.before.store, in_source=in_source)
        if repair.held_deletes:
            self.guard.planned.update(repair.held_deletes)
        if is_outage(repair.error):
            self._outage = repair.error

    def _delete(self, held: Mapping[str, Repair]) -> Iterator[SyncReport]:
        planned, managed = self.guard.planned.total(), self.guard.managed.total()
        self.listener(DeletesHeld(len(held), planned, managed))
        try:
            allowed = self.guard.require()
        except SafetyStop as stop:
            yield from self._not_deleted(held, stop)
            raise
        waiting = dict(held)
        try:
            for repairs in self.passes.delete(held, allowed):
                for repair in repairs:
                    add_before(repair, waiting.pop(repair.owner_id))
                yield from self._reports(repairs)
        except UnknownStateError as exc:
            for repair in waiting.values():
                repair.end(Outcome.UNKNOWN, exc)  # nobody can tell what became of the last ones
            yield from self._reports(waiting.values())
            raise
        if self.passes.stop is not None:
            yield from self._not_deleted(waiting, self.passes.stop)
            raise self.passes.stop

    def _not_deleted(self, held: Mapping[str, Repair], why: UndriftError) -> Iterator[SyncReport]:
        for repair in held.values():
            repair.end(Outcome.DRIFT, why)
        yield from self._reports(held.values())

    def _reports(self, repairs: Iterable[Repair]) -> Iterator[SyncReport]:
        for repair in repairs:
            yield repair.report(against=self.against)


def add_before(second: Repair, first: Repair) -> None:
    """Make the result of an owner who was gone over a second time speak for both."""
    second.before = first.before
    second.skipped = False
    second.written += first.written
    second.deleted += first.deleted
    second.embedded += first.embedded
    second.truncated += first.truncated


def _outage_in_between(cause: UndriftError) -> UnknownStateError:
    return UnknownStateError(
        "Nothing was deleted",
        why=f"part of the run could not look, and deletes wait for a run that sees everything "
        f"({cause.what}).",
        fix=cause.fix,
    )
