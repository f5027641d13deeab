"""The guard between a fleet run and its deletes.

An emptied or half-restored source looks like a wish to delete. A fleet run therefore keeps its
deletes aside until it has seen everything, and asks here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from undrift.errors import ConfigError, SafetyStop

HARMLESS_DELETES = 20


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
            more than 20.
        managed: records seen, by kind.
        planned: records that would be deleted, by kind.
    """

    limit: DeleteLimit | None = None
    managed: Counter[str] = field(default_factory=Counter)
    planned: Counter[str] = field(default_factory=Counter)
    source_owners: int = 0

    def saw(self, store_counts: Mapping[str, int], *, in_source: bool) -> None:
        """Count an owner's records and whether the source has the owner."""
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
        allowed = max(HARMLESS_DELETES, managed // 2)
        if planned > allowed:
            raise _stop(f"{planned} of {managed} records would be deleted")
        for kind, count in sorted(self.planned.items()):
            if count > max(HARMLESS_DELETES, self.managed[kind] // 2):
                raise _stop(
                    f"{count} of {self.managed[kind]} records of kind {kind} would be deleted"
                )
        return allowed


@dataclass(slots=True)
class DeleteBudget:
    """How many deletes a run may still make, once the guard has let its plan pass.

    Both sides are read again before and after the deletes; what is found then is bound by what was
    allowed before.
    """

    remaining: int

    def take(self, deletes: int) -> SafetyStop | None:
        """Take *deletes* from what remains, or nothing; the reason if they are too many."""
        if deletes <= self.remaining:
            self.remaining -= deletes
            return None
        return SafetyStop(
            "The deletes were stopped",
            why="since they were planned the source has changed, and now more would go than the "
            "guard let pass.",
            fix="look at the source; if it is right, run the sync again",
        )


def _stop(why: str) -> SafetyStop:
    return SafetyStop(
        "Nothing was deleted",
        why=f"{why}, which looks like a damaged source rather than a wish.",
        fix="look at the source; if it is right, run again with --max-delete N or P% high enough, "
        "or name the owners with --user-id",
    )
