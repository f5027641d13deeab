"""The guard between a fleet run and its deletes, and what a run may be limited to.

An emptied or half-restored source looks like a wish to delete. A fleet run therefore keeps its
deletes aside until it has seen everything, and asks here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from undrift.errors import ConfigError, SafetyStop
from undrift.state import DeleteUsage, State

HARMLESS_DELETES = 20


def require_budget(max_embeddings: int | None) -> None:
    """See that a run can have so many embeddings.

    Raises:
        ConfigError: they are fewer than none.
    """
    if max_embeddings is not None and max_embeddings < 0:
        raise ConfigError(
            f"{max_embeddings} is not an embedding budget",
            why="a run can embed no text or some, not fewer than none.",
            fix="give --max-embeddings 0 or more, or leave it out to embed whatever is needed",
        )


@dataclass(frozen=True, slots=True)
class DeleteLimit:
    """How many deletes a run may make: a count, or a percentage of the managed records."""

    value: float
    is_percentage: bool

    @classmethod
    def parse(cls, text: str) -> DeleteLimit:
        """Read ``50`` or ``2.5%``.

        Raises:
            ConfigError: it is neither.
        """
        number = text.strip().removesuffix("%")
        is_percentage = text.strip().endswith("%")
        try:
            value = float(number) if is_percentage else int(number)
        except ValueError:
            value = -1
        if value < 0 or value != value or (is_percentage and value > 100):
            raise ConfigError(
                f"--max-delete {text} is not a limit",
                why="it takes a number of records or a percentage of the managed ones.",
                fix="write it like --max-delete 50 or --max-delete 10%",
            )
        return cls(value, is_percentage)

    def records(self, managed: int) -> int:
        """The limit in records, of *managed* in all."""
        return int(managed * self.value / 100) if self.is_percentage else int(self.value)


@dataclass(slots=True)
class DeleteGuard:
    """Counts what a run has seen and would delete, and decides.

    Attributes:
        limit: what a person allowed; None for the default rule: stop when the source lists no
            owner, or when more than half of all managed records, or of one kind's, would go, and
            more than *harmless*.
        harmless: deletes that are never too many.
        managed: records seen, by kind.
        planned: records that would be deleted, by kind.
    """

    limit: DeleteLimit | None = None
    harmless: int = HARMLESS_DELETES
    managed: Counter[str] = field(default_factory=Counter)
    planned: Counter[str] = field(default_factory=Counter)
    source_owners: int = 0

    @classmethod
    def of(cls, limit: DeleteLimit | None, *, is_adopted: bool) -> DeleteGuard:
        """The guard of a store, which another program filled or not.

        Of what another program wrote nothing is harmless: its fields may be named wrongly.
        """
        return cls(limit, 0 if is_adopted else HARMLESS_DELETES)

    def saw(self, store_counts: Mapping[str, int], *, in_source: bool) -> None:
        """Count an owner's records and whether the source has the owner."""
        if store_counts:
            self.managed.update(store_counts)
        self.source_owners += in_source

    def require(self) -> int:
        """Let the planned deletes pass.

        Returns:
            How many deletes the run may make in all.

        Raises:
            SafetyStop: they are suspiciously many.
        """
        planned, managed = self.planned.total(), self.managed.total()
        if self.limit is not None:
            allowed = self.limit.records(managed)
            if planned > allowed:
                raise SafetyStop(
                    "Nothing was deleted",
                    why=f"{planned} of {managed} records would be deleted, and --max-delete allows "
                    f"{allowed}.",
                    fix="look at the source; if it is right, run again with a higher --max-delete",
                )
            return allowed
        if planned and not self.source_owners:
            raise _stop(f"the source lists no owner at all, the store holds {managed} records")
        allowed = max(self.harmless, managed // 2)
        if planned > allowed:
            raise _stop(f"{planned} of {managed} records would be deleted")
        for kind, count in sorted(self.planned.items()):
            if count > max(self.harmless, self.managed[kind] // 2):
                raise _stop(
                    f"{count} of {self.managed[kind]} records of kind {kind} would be deleted"
                )
        return allowed


class Budget(Protocol):
    """Decides on deletes right before they are made."""

    @property
    def counts_replaced(self) -> bool:
        """Whether a record counts whose owner gets another one of its kind for it."""

    def take(self, deletes: Mapping[str, Mapping[str, int]]) -> Mapping[str, SafetyStop]:
        """Take *deletes* from what remains.

        Args:
            deletes: records by kind, by owner.

        Returns:
            The owners whose deletes must not be made, with the reason.
        """


@dataclass(slots=True)
class DeleteBudget:
    """How many deletes a run may still make, once the guard has let its plan pass.

    Both sides are read again before and after the deletes; what is found then is bound by what was
    allowed before. All of a page's deletes are made, or none.
    """

    remaining: int
    counts_replaced: ClassVar[bool] = True

    def take(self, deletes: Mapping[str, Mapping[str, int]]) -> Mapping[str, SafetyStop]:
        """See `Budget.take`."""
        wanted = sum(sum(kinds.values()) for kinds in deletes.values())
        if wanted <= self.remaining:
            self.remaining -= wanted
            return {}
        stop = SafetyStop(
            "The deletes were stopped",
            why="since they were planned the source has changed, and now more would go than the "
            "guard let pass.",
            fix="look at the source; if it is right, run the sync again",
        )
        return dict.fromkeys(deletes, stop)


@dataclass(frozen=True, slots=True)
class RollingBudget:
    """What programs may delete within 24 hours, all of them together; kept in the state.

    More than half of the managed records, or of one kind's, and more than 20, wait for a person. So
    does every delete while the source lists nobody at all. A record that another one of its kind
    takes the place of is an edit: where a name is the key, every new name is one.

    Attributes:
        has_owners: whether the source lists anybody; asked when there is something to delete.
    """

    state: State
    has_owners: Callable[[], bool]
    counts_replaced: ClassVar[bool] = False

    def take(self, deletes: Mapping[str, Mapping[str, int]]) -> Mapping[str, SafetyStop]:
        """See `Budget.take`. Where not all of a page may go, each owner is asked for alone."""
        together: Counter[str] = Counter()
        for kinds in deletes.values():
            together.update(kinds)
        if not together.total():
            return {}
        is_empty = not self.has_owners()
        why_not = self._spend(together, "the source lists no owner at all" if is_empty else None)
        if why_not is None:
            return {}
        if len(deletes) == 1 or is_empty:
            return {owner: _waiting(why_not) for owner in deletes}
        alone = {owner: self._spend(Counter(kinds)) for owner, kinds in deletes.items()}
        return {owner: _waiting(why) for owner, why in alone.items() if why is not None}

    def _spend(self, planned: Counter[str], why_not: str | None = None) -> str | None:
        # Also where it is clear that they must wait: the state is to know that some do.
        return self.state.spend_deletes(
            planned, lambda usage: why_not or allow_deletes(usage, planned)
        )


@dataclass(slots=True)
class ReaderBudget:
    """What a heal may delete of its one owner: the rolling budget's, and half of what there is.

    Attributes:
        managed: the owner's records by kind, before.
    """

    rolling: RollingBudget
    managed: Mapping[str, int] = field(default_factory=dict)
    counts_replaced: ClassVar[bool] = False

    def take(self, deletes: Mapping[str, Mapping[str, int]]) -> Mapping[str, SafetyStop]:
        """See `Budget.take`."""
        usage = DeleteUsage(spent={}, managed=self.managed)
        alone = {owner: allow_deletes(usage, kinds) for owner, kinds in deletes.items()}
        refused = {owner: _waiting(why) for owner, why in alone.items() if why is not None}
        return refused or self.rolling.take(deletes)


def allow_deletes(usage: DeleteUsage, planned: Mapping[str, int]) -> str | None:
    """Why *planned* deletes, by kind, must wait; None lets them pass.

    Args:
        usage: of the last 24 hours.
    """
    spent, managed = Counter(usage.spent), Counter(usage.managed)
    after = spent + Counter(planned)
    if after.total() > max(HARMLESS_DELETES, managed.total() // 2):
        return f"{after.total()} of {managed.total()} records would be deleted within 24 hours"
    for kind in sorted(planned):
        if planned[kind] and after[kind] > max(HARMLESS_DELETES, managed[kind] // 2):
            return (
                f"{after[kind]} of {managed[kind]} records of kind {kind} would be deleted "
                "within 24 hours"
            )
    return None


def _waiting(why: str) -> SafetyStop:
    return SafetyStop(
        "The deletes wait",
        why=f"{why}, which looks like a damaged source rather than a wish; writes were made.",
        fix="look at the source; if it is right, name the user (undrift sync --user-id …), or run "
        "`undrift sync --all` with a --max-delete that is high enough",
    )


def _stop(why: str) -> SafetyStop:
    return SafetyStop(
        "Nothing was deleted",
        why=f"{why}, which looks like a damaged source rather than a wish.",
        fix="look at the source; if it is right, run again with --max-delete N or P% high enough, "
        "or name the owners with --user-id",
    )
