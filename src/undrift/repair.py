"""The repair of a group of owners: plan, embed, publish, verify, and again where things moved.

Which versions the writes carry, and how they are kept in order, is the `Order`'s. A refused write
is no error; the verification reads again and decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
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
from undrift.events import Listener, OwnersBusy, RepairStarted, ignore
from undrift.failpoints import reach
from undrift.guard import Budget
from undrift.look import Look, Sides
from undrift.model import Outcome, Read, Stamp, SyncReport, SyncStatus, Wanted
from undrift.occupancy import Occupants
from undrift.order import Conclusion, Order, PlanRequest
from undrift.plan import texts_to_embed
from undrift.publish import Publication, publication_of, publish
from undrift.versions import OrderedPlan

Settled = Callable[[Sequence[str]], Mapping[str, SyncStatus]]
"""Those of some owners who need nothing, with what is known of them."""

MAX_REPEATS = 3
"""How often a repair is repeated when the verification finds a difference again."""


@dataclass(slots=True, eq=False)
class Repair:
    """One owner on its way through a sync.

    Attributes:
        before: what the first look showed.
        look: the latest look; diff: what it differs in.
        ordered: what is to be done about it; None when nothing is.
        parked: by ``(kind, entity_id)``, why a record cannot be made.
        is_only_parked: all the rest is done.
        attempts: failures in a row before this one.
        is_done: nothing more will be tried; the rest says how it ended.
        held_deletes: the kind of each delete that is kept aside for the guard.
        is_settled: it needed nothing, and nobody was asked for it: neither leased nor noted.
    """

    owner_id: str
    before: SyncStatus
    look: Look
    diff: OwnerDiff | None = None
    ordered: OrderedPlan | None = None
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
    parked: dict[tuple[str, str], str] = field(default_factory=dict)
    is_only_parked: bool = False
    is_settled: bool = False
    attempts: int = 0
    error: UndriftError | None = None

    @classmethod
    def of_settled(cls, status: SyncStatus) -> Repair:
        """The repair of an owner who needs none."""
        owner_id = status.owner_id
        wanted = Wanted(owner_id, {}, status.source, status.without_text)
        repair = cls(owner_id, status, Look(owner_id=owner_id, wanted=wanted))
        repair.is_settled = repair.skipped = True
        repair.end(Outcome.IN_SYNC)
        return repair

    def __reduce__(self) -> tuple[object, ...]:
        """As far as a run and its report need it: no text, record or vector leaves the process.

        A copy has no more.
        """
        told = (self.look.wanted is not None, self.look.error, *_TOLD(self))
        return _received, (self.owner_id, self.before, *told)

    def conclusion(self) -> Conclusion:
        """The repair as its order remembers it."""
        return Conclusion(
            look=self.look,
            outcome=self.outcome,
            error=self.error,
            is_held=bool(self.held_deletes) and self.error is None,
            parked=self.parked,
            is_only_parked=self.is_only_parked,
            attempts=self.attempts,
            sent=self.publication.accepted if self.publication is not None else (),
        )

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
            read=self.before.read if self.is_settled else Read.FULL,
            error=self.error,
        )


_TOLD_NAMES = tuple(
    each.name
    for each in fields(Repair)
    if each.name
    not in ("owner_id", "before", "look", "diff", "ordered", "publication", "parked", "attempts")
)
_TOLD = attrgetter(*_TOLD_NAMES)


def _received(
    owner_id: str,
    before: SyncStatus,
    is_in_source: bool,
    look_error: UnknownStateError | None,
    *told: object,
) -> Repair:
    """A repair that another process has made."""
    wanted = Wanted(owner_id, {}, {}) if is_in_source else None
    repair = Repair(owner_id, before, Look(owner_id=owner_id, wanted=wanted, error=look_error))
    for name, value in zip(_TOLD_NAMES, told, strict=True):
        setattr(repair, name, value)
    return repair


class Repairer:
    """Carries groups of owners from a look to a verified result.

    Args:
        order: what puts the writes in order.
        force: rewrite and re-embed everything, in the first round.
        with_deletes: False keeps every delete aside and counts it in ``Repair.held_deletes``.
        budget: decides on deletes, over all rounds; None lets them all pass.
        max_embeddings: the budget that ``embedder`` was given, for the error.
        settled: tells of owners that need nothing, without a look at each; None looks at all.
        reads_source_again: whether the verification reads both sides; otherwise it reads the store
            back, and what changes in the source meanwhile is found by whoever is told of it.

    Attributes:
        busy: owners that somebody else is at work on, and who were left to them.

    Safety:
        `start`, `embed` and `finish` of different groups may run in different threads.
    """

    def __init__(
        self,
        sides: Sides,
        embedder: TextEmbedder,
        order: Order,
        *,
        listener: Listener = ignore,
        force: bool = False,
        with_deletes: bool = True,
        budget: Budget | None = None,
        max_embeddings: int | None = None,
        settled: Settled | None = None,
        reads_source_again: bool = True,
    ) -> None:
        self._sides = sides
        self._embedder = embedder
        self._order = order
        self._embedding = Lock()
        self._listener = listener
        self._force = force
        self._with_deletes = with_deletes
        self._budget = budget
        self._max_embeddings = max_embeddings
        self._settled = settled
        self._reads_source_again = reads_source_again
        self._occupants = Occupants(sides, order, self._embed_texts, listener)
        self.busy: list[str] = []
        self.is_budget_spent = False
        self.stop: SafetyStop | None = None

    def start(self, owners: Sequence[str], *, waits: bool = False) -> list[Repair]:
        """Look at *owners* and plan what to do.

        Args:
            waits: for owners that somebody else is at work on, until there is one to start with;
                not to be asked for while other groups are under way, which somebody else may be
                waiting for.

        Order:
            That of *owners*, those that need nothing first, without those that are `busy`.
        """
        settled = {} if self._settled is None else self._settled(owners)
        if settled:
            # While one waited for them, others may have done all there was to do.
            owners = [owner for owner in owners if owner not in settled]
            if not owners:
                return [*map(Repair.of_settled, settled.values())]
        own = self._order.await_some(owners) if waits else self._order.begin(owners)
        if len(own) < len(owners):
            begun = set(own)
            self.busy.extend(owner for owner in owners if owner not in begun)
        return [*map(Repair.of_settled, settled.values()), *self.start_leased(own)]

    def tell_busy(self, owners: int) -> None:
        """Say that the run waits for other workers."""
        self._listener(OwnersBusy(owners))

    def start_leased(self, owners: Sequence[str]) -> list[Repair]:
        """As `start`, for owners whose leases were taken before."""
        looks = self._order.look(owners, {}) if owners else {}
        repairs = [self._begin(looks[owner]) for owner in owners]
        self._plan([repair for repair in repairs if not repair.is_done], force=self._force)
        for repair in repairs:
            if not repair.is_done:
                self._listener(RepairStarted(repair.owner_id))
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
        repairs = [repair for repair in repairs if not repair.is_settled]
        for repeat in range(MAX_REPEATS + 1):
            if all(repair.is_done for repair in repairs):
                break
            if repeat:
                self.embed(repairs)
            self._publish(repairs)
            reach("sync.published")
            self._verify(repairs, is_last=repeat == MAX_REPEATS)
            reach("sync.verified")
        self._order.conclude([repair.conclusion() for repair in repairs])

    # --- look and plan ----------------------------------------------------------------------

    def _begin(self, look: Look) -> Repair:
        if look.error is not None:
            repair = Repair(look.owner_id, SyncStatus.unknown(look.owner_id, look.error), look)
            repair.end(Outcome.UNKNOWN, look.error)
            return repair
        diff = self._sides.diff(look)
        repair = Repair(look.owner_id, self._sides.status(diff, look), look, diff)
        is_settled = diff.is_complete and self._order.is_settled(look)
        if diff.is_unknown_to_both and is_settled:
            repair.end(Outcome.NOT_FOUND, OwnerNotFound(look.owner_id))
        elif is_settled and not (self._force and diff.wanted is not None):
            repair.skipped = True
            repair.end(Outcome.IN_SYNC)
        return repair

    def _plan(self, repairs: Sequence[Repair], *, force: bool = False) -> None:
        requests = [
            PlanRequest(look=repair.look, diff=repair.diff, force=force)
            for repair in repairs
            if repair.diff is not None
        ]
        plans = self._order.plans(requests) if requests else {}
        for repair in repairs:
            self._take_plan(repair, plans[repair.owner_id])

    def _take_plan(self, repair: Repair, ordered: OrderedPlan | UndriftError) -> None:
        assert repair.diff is not None
        if isinstance(ordered, UndriftError):
            is_unknown = isinstance(ordered, UnknownStateError)
            repair.end(Outcome.UNKNOWN if is_unknown else Outcome.FAILED, ordered)
            return
        repair.ordered = ordered
        if repair.diff.is_clean and ordered.is_empty_for_store:
            # There was only something to remember.
            repair.skipped = repair.publication is None
            if repair.diff.is_unknown_to_both:
                repair.end(Outcome.NOT_FOUND, OwnerNotFound(repair.owner_id))
            else:
                repair.end(Outcome.IN_SYNC)

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
        plans = [repair.ordered.plan for repair in repairs if repair.ordered is not None]
        result = self._embedder.embed(texts_to_embed(plans))
        if result.unpaid:
            self.is_budget_spent = True
        paid = set(result.newly_embedded)
        for repair in repairs:
            if repair.ordered is None:
                continue
            writes = repair.ordered.plan.writes
            hashes = {w.stamp.text_hash for w in writes if w.needs_embedding}
            repair.embedded += len(hashes & paid)
            repair.truncated += len(hashes & paid & result.truncated)
            paid -= hashes
            repair.publication = publication_of(
                repair.ordered, result.vectors, with_deletes=self._with_deletes
            )
            repair.publication.planned_at = repair.look.noted_at
            repair.publication.observation = repair.look.observation
            repair.error = self._lacking(repair, repair.ordered, hashes, result)

    def _lacking(
        self, repair: Repair, ordered: OrderedPlan, hashes: set[str], result: EmbeddingResult
    ) -> UndriftError | None:
        """Why some of the owner's entities have no vector, if some have none."""
        for write in ordered.plan.writes if result.rejected else ():
            reason = result.rejected.get(write.stamp.text_hash) if write.needs_embedding else None
            if reason is not None:
                repair.parked[(write.stamp.kind, write.stamp.entity_id)] = reason
        if hashes & result.unpaid:
            return EmbeddingBudgetSpent(self._max_embeddings or 0)
        for (kind, entity_id), reason in repair.parked.items():
            return self._parked(repair, f"{kind}:{entity_id}", f"{reason}.")
        for row in ordered.parked:
            name = f"{row.kind}:{row.entity_id}"
            return self._parked(repair, name, f"{row.parked_reason}; it was not tried again yet.")
        return None

    def _parked(self, repair: Repair, name: str, why: str) -> EmbeddingFailed:
        return EmbeddingFailed(
            f"No usable vector for {name} of user {repair.owner_id}",
            why=f"{self._sides.model}: {why}",
            fix="shorten or correct the text in the source, use another model, or, if the model "
            "was at fault, sync with --retry-parked; the owner's other entities were written",
        )

    # --- publish and verify -------------------------------------------------------------------

    def _publish(self, repairs: Iterable[Repair]) -> None:
        publications = {
            repair.owner_id: (repair, repair.publication)
            for repair in repairs
            if not repair.is_done and repair.publication is not None
        }
        self._order.working()
        for owner, stop in self._refused(publications).items():
            repair, publication = publications[owner]
            publication.keep_deletes()
            repair.error = self.stop = stop
        sent = [publication for _, publication in publications.values()]
        publish(self._order.send, sent, self._listener)

    def _refused(
        self, publications: Mapping[str, tuple[Repair, Publication]]
    ) -> Mapping[str, SafetyStop]:
        """The owners whose deletes the budget does not let pass."""
        if self._budget is None:
            return {}
        deletes = {}
        for owner, (repair, publication) in publications.items():
            if publication.gone and repair.diff is not None:
                kinds = {stamp.vector_id: stamp.kind for stamp in repair.diff.deletes}
                deletes[owner] = Counter(kinds[gone] for gone in publication.gone)
                if not self._budget.counts_replaced:
                    deletes[owner] -= Counter(entity.kind for entity in repair.diff.missing)
        return self._budget.take(deletes) if deletes else {}

    def _verify(self, repairs: Iterable[Repair], *, is_last: bool) -> None:
        repairs = [repair for repair in repairs if not repair.is_done]
        if not repairs:
            return
        before = {repair.owner_id: repair.look for repair in repairs if _is_first(repair)}
        again = self._order.look_again if self._reads_source_again else self._order.look_back
        looks = again(before) if before else {}
        overtaken = {r.owner_id: r.look for r in repairs if r.owner_id not in before}
        if overtaken:
            looks |= self._order.look(list(overtaken), overtaken)
        for repair in repairs:
            self._judge(repair, looks[repair.owner_id], is_last=is_last)

    def _judge(self, repair: Repair, look: Look, *, is_last: bool) -> None:
        if look.error is not None:
            repair.end(Outcome.UNKNOWN, _unverified_because(look.error))
            return
        publication, previous = repair.publication, repair.diff
        assert publication is not None
        assert previous is not None
        # What others were quicker with is theirs, though it looks the same.
        is_proved = not publication.was_left_out and self._count(repair, publication, look)
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
            repair.is_only_parked = self._is_only_parked(repair, diff)
            repair.end(Outcome.DRIFT if stopped else Outcome.FAILED, repair.error)
        elif self._is_repaired(diff, look):
            # Deletes that are kept aside leave the owner open for the second pass.
            repair.end(Outcome.DRIFT if repair.held_deletes else Outcome.IN_SYNC)
        elif is_last:
            self._give_up(repair, previous, diff)
        else:
            self._plan_again(repair, publication, diff)

    def _is_only_parked(self, repair: Repair, diff: OwnerDiff) -> bool:
        """Whether all that is left of *diff* are records that cannot be made."""
        if repair.ordered is None or isinstance(repair.error, SafetyStop | EmbeddingBudgetSpent):
            return False
        parked = {*repair.parked, *(row.identity for row in repair.ordered.parked)}
        left = {(entity.kind, entity.entity_id) for entity in diff.missing}
        pairs = (*diff.changed, *diff.wrong_model, *diff.unknown, *diff.unstamped)
        left.update((pair.entity.kind, pair.entity.entity_id) for pair in pairs)
        return not diff.deletes and left <= parked

    def _is_repaired(self, diff: OwnerDiff, look: Look | None = None) -> bool:
        if self._with_deletes:
            return diff.is_complete and (look is None or self._order.is_settled(look))
        return not (
            diff.missing or diff.changed or diff.wrong_model or diff.unknown or diff.unstamped
        )

    def _count(self, repair: Repair, publication: Publication, look: Look) -> bool:
        """Count what the read-back proves: version, fingerprint and model, or absence (I3).

        Returns:
            Whether it proves everything that was sent.
        """
        present = {stamp.vector_id: stamp for stamp in look.stamps}
        written = sum(present.get(r.stamp.vector_id) == r.stamp for r in publication.writes)
        deleted = sum(gone not in present for gone in publication.gone)
        repair.written += written
        repair.deleted += deleted
        is_all = written + deleted == len(publication.writes) + len(publication.gone)
        return is_all and self._order.is_proved(publication.tombstones, look)

    def _plan_again(self, repair: Repair, publication: Publication, diff: OwnerDiff) -> None:
        refused = [
            record.stamp.vector_id
            for record in publication.writes
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
        was_overtaken = repair.ordered is not None and repair.ordered.is_overtaken
        request = PlanRequest(
            look=repair.look, diff=diff, force=self._force and was_overtaken, occupied=occupied
        )
        self._take_plan(repair, self._order.plans([request])[repair.owner_id])

    def _give_up(self, repair: Repair, previous: OwnerDiff, diff: OwnerDiff) -> None:
        if self._is_repaired(_unmoved(previous, diff)):
            repair.end(Outcome.IN_MOTION, _not_verified(repair.owner_id, moving=True))
        else:
            repair.end(Outcome.FAILED, _not_verified(repair.owner_id, moving=False))


def _is_first(repair: Repair) -> bool:
    """Whether nobody is known to have been quicker than *repair*, so that its note still counts."""
    publication = repair.publication
    if repair.ordered is not None and repair.ordered.is_overtaken:
        return False
    if publication is None or publication.observation is None:
        return publication is None or not publication.was_left_out
    # What was never observed is only if the publish that was to do it has certainly gone through.
    return bool(publication.accepted)


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
        unknown=pairs(diff.unknown),
        unstamped=(),
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
