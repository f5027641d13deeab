"""The repair of a group of owners: plan, embed, publish, verify, and again where things moved.

This is the sync without kept state. Versions come from the store itself: a write carries the
enumerated version plus one, a delete applies only where the version is still the enumerated one.
A refused write is no error; the verification reads both sides again and decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Lock

from undrift.diff import OwnerDiff, Pair, standing
from undrift.embedding import EmbeddingResult, TextEmbedder
from undrift.errors import (
    EmbeddingBudgetSpent,
    EmbeddingFailed,
    OwnerNotFound,
    SafetyStop,
    UndriftError,
    UnknownStateError,
    WriteFailed,
)
from undrift.events import Listener, RepairStarted, ignore
from undrift.failpoints import reach
from undrift.guard import DeleteBudget
from undrift.look import Look, Sides
from undrift.model import Outcome, Stamp, SyncReport, SyncStatus
from undrift.occupancy import Occupants
from undrift.plan import Plan, plan_owner, texts_to_embed
from undrift.publish import Publication, publication_of, publish

MAX_REPEATS = 3
"""How often a repair is repeated when the verification finds a difference again."""


@dataclass(slots=True, eq=False)
class Repair:
    """One owner on its way through a sync.

    Attributes:
        before: what the first look showed.
        look: the latest look; diff: what it differs in.
        plan: what is to be done about it; None when nothing is.
        is_done: nothing more will be tried; the rest says how it ended.
        held_deletes: deletes that are kept aside for the guard.
    """

    owner_id: str
    before: SyncStatus
    look: Look
    diff: OwnerDiff | None = None
    plan: Plan | None = None
    publication: Publication | None = None
    is_done: bool = False
    skipped: bool = False
    outcome: Outcome = Outcome.UNKNOWN
    verified: bool = False
    written: int = 0
    deleted: int = 0
    embedded: int = 0
    truncated: int = 0
    held_deletes: tuple[str, ...] = ()
    error: UndriftError | None = None

    def end(self, outcome: Outcome, error: UndriftError | None = None) -> None:
        """Close the repair with *outcome*."""
        self.is_done = True
        self.outcome = outcome
        self.error = error
        self.verified = outcome is Outcome.IN_SYNC

    def report(self, *, against: str) -> SyncReport:
        """The repair as the caller sees it."""
        return SyncReport(
            owner_id=self.owner_id,
            outcome=self.outcome,
            before=self.before,
            skipped=self.skipped,
            written=self.written,
            deleted=self.deleted,
            embedded=self.embedded,
            truncated=self.truncated,
            verified=self.verified,
            against=against,
            error=self.error,
        )


class Repairer:
    """Carries groups of owners from a look to a verified result.

    Args:
        force: rewrite and re-embed everything, in the first round.
        with_deletes: False keeps every delete aside and counts it in ``Repair.held_deletes``.
        budget: deletes that may be made, over all rounds; None for any number.
        max_embeddings: the budget that ``embedder`` was given, for the error.

    Safety:
        `start`, `embed` and `finish` of different groups may run in different threads.
    """

    def __init__(
        self,
        sides: Sides,
        embedder: TextEmbedder,
        *,
        listener: Listener = ignore,
        force: bool = False,
        with_deletes: bool = True,
        budget: DeleteBudget | None = None,
        max_embeddings: int | None = None,
    ) -> None:
        self._sides = sides
        self._embedder = embedder
        self._embedding = Lock()
        self._listener = listener
        self._force = force
        self._with_deletes = with_deletes
        self._budget = budget
        self._max_embeddings = max_embeddings
        self._occupants = Occupants(sides, self._embed_texts, listener)
        self.is_budget_spent = False
        self.stop: SafetyStop | None = None

    def start(self, owners: Sequence[str]) -> list[Repair]:
        """Look at *owners* and plan what to do; the store is enumerated before the source is read.

        Order:
            That of *owners*.
        """
        looks = self._sides.look(owners, first="store", before={})
        reach("sync.looked")
        repairs = [self._begin(looks[owner]) for owner in owners]
        reach("sync.planned")
        return repairs

    def run(self, repairs: Sequence[Repair]) -> None:
        """Embed for and finish *repairs*, in this thread."""
        self.embed(repairs)
        self.finish(repairs)

    def embed(self, repairs: Iterable[Repair]) -> None:
        """Turn the plans of the open *repairs* into publications."""
        open_repairs = [repair for repair in repairs if not repair.is_done]
        with self._embedding:
            try:
                self._embed_together(open_repairs)
            except EmbeddingFailed as exc:
                if len(open_repairs) == 1:
                    open_repairs[0].end(Outcome.FAILED, exc)
                    return
                # One owner's text must not fail its neighbours; what was embedded is remembered.
                for repair in open_repairs:
                    self._embed_alone(repair)
        reach("sync.embedded")

    def finish(self, repairs: Sequence[Repair]) -> None:
        """Publish, verify, and repeat where a difference is found again."""
        for repeat in range(MAX_REPEATS + 1):
            self._publish(repairs)
            reach("sync.published")
            self._verify(repairs, is_last=repeat == MAX_REPEATS)
            reach("sync.verified")
            if all(repair.is_done for repair in repairs):
                return
            self.embed(repairs)

    # --- look and plan ----------------------------------------------------------------------

    def _begin(self, look: Look) -> Repair:
        if look.error is not None:
            repair = Repair(look.owner_id, SyncStatus.unknown(look.owner_id, look.error), look)
            repair.end(Outcome.UNKNOWN, look.error)
            return repair
        diff = self._sides.diff(look)
        repair = Repair(look.owner_id, self._sides.status(diff, look), look, diff)
        if diff.is_unknown_to_both:
            repair.end(Outcome.NOT_FOUND, OwnerNotFound(look.owner_id))
        elif diff.is_clean and not (self._force and diff.wanted is not None):
            repair.skipped = True
            repair.end(Outcome.IN_SYNC)
        else:
            self._plan(repair, force=self._force)
            self._listener(RepairStarted(look.owner_id))
        return repair

    def _plan(
        self, repair: Repair, *, force: bool = False, occupied: Mapping[str, int] | None = None
    ) -> None:
        assert repair.diff is not None
        repair.plan = plan_owner(
            repair.diff,
            namespace=self._sides.store.namespace,
            model=self._sides.model,
            force=force,
            occupied=occupied,
        )

    def _embed_texts(self, texts: Mapping[str, str]) -> EmbeddingResult:
        with self._embedding:
            return self._embedder.embed(texts)

    # --- embed --------------------------------------------------------------------------------

    def _embed_alone(self, repair: Repair) -> None:
        try:
            self._embed_together([repair])
        except EmbeddingFailed as exc:
            repair.end(Outcome.FAILED, exc)

    def _embed_together(self, repairs: Sequence[Repair]) -> None:
        plans = [repair.plan for repair in repairs if repair.plan is not None]
        result = self._embedder.embed(texts_to_embed(plans))
        if result.unpaid:
            self.is_budget_spent = True
        paid = set(result.newly_embedded)
        for repair in repairs:
            if repair.plan is None:
                continue
            hashes = {w.stamp.text_hash for w in repair.plan.writes if w.needs_embedding}
            repair.embedded += len(hashes & paid)
            repair.truncated += len(hashes & paid & result.truncated)
            paid -= hashes
            repair.publication = publication_of(
                repair.plan, result.vectors, with_deletes=self._with_deletes
            )
            repair.error = self._lacking(repair, hashes, result)

    def _lacking(
        self, repair: Repair, hashes: set[str], result: EmbeddingResult
    ) -> UndriftError | None:
        """Why some of the owner's entities have no vector, if some have none."""
        if hashes & result.unpaid:
            return EmbeddingBudgetSpent(self._max_embeddings or 0)
        assert repair.plan is not None
        for write in repair.plan.writes:
            reason = result.rejected.get(write.stamp.text_hash) if write.needs_embedding else None
            if reason is not None:
                return EmbeddingFailed(
                    f"No usable vector for {write.entity.key} of user {repair.owner_id}",
                    why=f"{self._sides.model}: {reason}.",
                    fix="shorten or correct the text in the source, or use another model; the "
                    "owner's other entities were written",
                )
        return None

    # --- publish and verify -------------------------------------------------------------------

    def _publish(self, repairs: Iterable[Repair]) -> None:
        publications = {
            repair: repair.publication
            for repair in repairs
            if not repair.is_done and repair.publication is not None
        }
        deletes = sum(len(publication.deletes) for publication in publications.values())
        stop = self._budget.take(deletes) if self._budget is not None else None
        if stop is not None:
            self.stop = stop
            for repair, publication in publications.items():
                if publication.deletes:
                    publication.deletes.clear()
                    repair.error = stop
        publish(self._sides.store, publications.values(), self._listener)

    def _verify(self, repairs: Iterable[Repair], *, is_last: bool) -> None:
        repairs = [repair for repair in repairs if not repair.is_done]
        if not repairs:
            return
        before = {repair.owner_id: repair.look for repair in repairs}
        looks = self._sides.look(list(before), first="store", before=before)
        for repair in repairs:
            self._judge(repair, looks[repair.owner_id], is_last=is_last)

    def _judge(self, repair: Repair, look: Look, *, is_last: bool) -> None:
        if look.error is not None:
            repair.end(Outcome.UNKNOWN, _unverified_because(look.error))
            return
        publication, previous = repair.publication, repair.diff
        assert publication is not None
        assert previous is not None
        is_proved = self._count(repair, publication, look)
        diff = self._sides.diff(look)
        repair.look, repair.diff = look, diff
        if not self._with_deletes:
            repair.held_deletes = tuple(stamp.kind for stamp in diff.deletes)
        if publication.error is not None and not is_proved:
            # An answer that was lost on the way is no failure if everything is found to be done.
            repair.end(Outcome.FAILED, publication.error)
        elif repair.error is not None:
            # Even where the two sides agree: a forced repair that lacks vectors is none.
            stopped = isinstance(repair.error, SafetyStop)
            repair.end(Outcome.DRIFT if stopped else Outcome.FAILED, repair.error)
        elif self._is_repaired(diff):
            # Deletes that are kept aside leave the owner open for the second pass.
            repair.end(Outcome.DRIFT if repair.held_deletes else Outcome.IN_SYNC)
        elif is_last:
            self._give_up(repair, previous, diff)
        else:
            self._plan_again(repair, diff)

    def _is_repaired(self, diff: OwnerDiff) -> bool:
        if self._with_deletes:
            return diff.is_clean
        return not (diff.missing or diff.changed or diff.wrong_model)

    def _count(self, repair: Repair, publication: Publication, look: Look) -> bool:
        """Count what the read-back proves: version, fingerprint and model, or absence (I3).

        Returns:
            Whether it proves everything that was sent.
        """
        present = {stamp.vector_id: stamp for stamp in look.stamps}
        written = sum(present.get(r.stamp.vector_id) == r.stamp for r in publication.writes)
        deleted = sum(d.vector_id not in present for d in publication.deletes)
        repair.written += written
        repair.deleted += deleted
        return written + deleted == publication.size

    def _plan_again(self, repair: Repair, diff: OwnerDiff) -> None:
        assert repair.publication is not None
        refused = [
            record.stamp.vector_id
            for record in repair.publication.writes
            if (record.stamp.kind, record.stamp.entity_id) not in diff.kept
        ]
        try:
            occupied = self._occupants.versions_under(repair.owner_id, refused)
        except UnknownStateError as exc:
            repair.end(Outcome.UNKNOWN, _unverified_because(exc))
            return
        except (WriteFailed, EmbeddingFailed) as exc:
            repair.end(Outcome.FAILED, exc)
            return
        self._plan(repair, occupied=occupied)

    def _give_up(self, repair: Repair, previous: OwnerDiff, diff: OwnerDiff) -> None:
        if self._is_repaired(_unmoved(previous, diff)):
            repair.end(Outcome.IN_MOTION, _not_verified(repair.owner_id, moving=True))
        else:
            repair.end(Outcome.FAILED, _not_verified(repair.owner_id, moving=False))


def _unmoved(previous: OwnerDiff, diff: OwnerDiff) -> OwnerDiff:
    """What differs in both, though it was written in between.

    Versions do not count: our own writes raise them, and a store that never shows what was written
    would look as if it moved.
    """
    return standing(_without_versions(previous), _without_versions(diff))


def _without_versions(diff: OwnerDiff) -> OwnerDiff:
    def pairs(found: Sequence[Pair]) -> tuple[Pair, ...]:
        return tuple(Pair(pair.entity, _anonymous(pair.stamp)) for pair in found)

    return replace(
        diff,
        stale=tuple(stamp._replace(version=0) for stamp in diff.stale),
        duplicates=tuple(stamp._replace(version=0) for stamp in diff.duplicates),
        changed=pairs(diff.changed),
        wrong_model=pairs(diff.wrong_model),
    )


def _anonymous(stamp: Stamp) -> Stamp:
    return stamp._replace(version=0, fingerprint="", text_hash="", model="")


def _unverified_because(cause: UndriftError) -> UndriftError:
    error = UnknownStateError(
        "The result could not be verified",
        why=f"{cause.what}: {cause.why}",
        fix=f"{cause.fix}; then run `undrift check`",
    )
    error.__cause__ = cause
    return error


def _not_verified(owner_id: str, *, moving: bool) -> WriteFailed:
    why = (
        f"source or store changed in each of {MAX_REPEATS + 1} rounds"
        if moving
        else f"the same difference was found again after {MAX_REPEATS + 1} rounds of writing"
    )
    return WriteFailed(
        f"The sync of user {owner_id} is not verified",
        why=f"{why}.",
        fix="check that no other program writes these records, then run the sync again with "
        "--force, and look at the store's own log if it persists",
    )
