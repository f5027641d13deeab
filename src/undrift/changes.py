"""The optional door to a source's change capture: who was touched since somebody looked last.

Triggers in the source append a mark for every owner whose content a statement touched. Marks only
say where to look: what an owner holds is always read from the rows themselves, so a mark too many
costs a look and a lost one costs freshness until everybody is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from undrift.ports import Source

UNWATCHED_SECONDS = 86_400.0
"""Marks that are older were left by everybody: no watcher runs."""

LOCK_SECONDS = 3.0
"""How long an installation waits for a table, while the application's writes wait behind it."""

MarkOwners = Callable[[Sequence[str]], None]
"""Told distinct owners, sorted, spelled as the source spells them."""

MarkEveryone = Callable[[], None]
"""Told that anybody may have been touched, such as by TRUNCATE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeStatus:
    """What there is of change capture, and what it cannot see.

    Attributes:
        location: the source's address without a password.
        tables: the mapped tables that triggers watch, or are to watch.
        refused: the other ones, a sentence each that says why; looking at everybody finds what
            changes there.
        is_installed: anything of it is there.
        problems: triggers that are missing, switched off or outdated, a sentence each.
        unseen: changes that leave no mark, a sentence each.
        is_notified: every mark wakes the listeners.
        marks: marks that nobody has taken.
        oldest_seconds: the age of the oldest of them; None without any.
    """

    location: str
    tables: tuple[str, ...]
    refused: tuple[str, ...] = ()
    is_installed: bool = False
    problems: tuple[str, ...] = ()
    unseen: tuple[str, ...] = ()
    is_notified: bool = False
    marks: int = 0
    oldest_seconds: float | None = None

    @property
    def is_fine(self) -> bool:
        """Every change of the watched tables leaves a mark, but for the unseen ones."""
        return self.is_installed and not self.problems

    @property
    def is_unwatched(self) -> bool:
        """Marks lie there for more than a day, so nobody takes them."""
        return self.oldest_seconds is not None and self.oldest_seconds > UNWATCHED_SECONDS


class Peeked(NamedTuple):
    """Whom marks name that nobody has taken.

    Attributes:
        owners: distinct, by code point, spelled as the source spells them.
        is_everybody: there is a mark for everybody.
        next_after: behind whom to go on; None where nobody comes behind these.
    """

    owners: Sequence[str]
    is_everybody: bool
    next_after: str | None


class Triggers(Protocol):
    """Puts change capture into a source, looks after it, and takes it away.

    Safety:
        May be used from several threads.
    """

    def ddl(self, *, notify: bool = False) -> Sequence[str]:
        """The statements that `install` runs where nothing is installed, and the rights to drain.

        Raises:
            UnsupportedError: see `install`.
        """

    def removal_ddl(self) -> Sequence[str]:
        """The statements that `remove` runs; none where nothing is installed.

        A schema that was made for the marks is left to whoever runs them.
        """

    def install(
        self, *, notify: bool = False, lock_timeout_seconds: float = LOCK_SECONDS
    ) -> ChangeStatus:
        """Put in what is missing, renew what is outdated, take out what no mapped table needs.

        Whatever was not seen until then is answered by a mark for everybody.

        Args:
            notify: let every mark wake the listeners.
            lock_timeout_seconds: how long to wait for each table.

        Raises:
            UnsupportedError: no mapped table can have triggers.
            ConfigError: a right is missing, or the source is read-only.
            TransientError: a table was not free in time.
            SourceUnavailable: no definite answer.

        Safety:
            Idempotent. One transaction for each table; what an installation that broke off has
            left is completed by the next.
        """

    def remove(self, *, lock_timeout_seconds: float = LOCK_SECONDS) -> None:
        """Take everything out again, marks included. Idempotent; raises as `install` does."""

    def status(self) -> ChangeStatus:
        """Say what there is; changes nothing.

        Raises:
            ConfigError: the source is not what the mapping says, or may not be looked at.
            SourceUnavailable: it could not be looked at.
        """

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""


class ChangeFeed(Protocol):
    """The marks, as a worker takes them.

    Safety:
        May be used from any number of threads and processes.
    """

    def pending(self) -> ChangeStatus:
        """As `Triggers.status`."""

    def drain(self, limit: int, mark: MarkOwners, mark_everyone: MarkEveryone) -> int:
        """Take *limit* marks, oldest first; a mark counts once for each owner that it names.

        Args:
            limit: go on until so many are taken or none is left. What one statement left in one
                piece, some forty owners at most, is taken in one piece.
            mark: must have made the owners known for good when it returns.
            mark_everyone: likewise for everybody; called before *mark*.

        Returns:
            How many marks were taken. Fewer than *limit* means that no more were free.

        Raises:
            ConfigError: nothing is installed, or the role may not take marks.
            SourceUnavailable: no definite answer; the marks may come again.

        Safety:
            At least once: marks are removed after *mark* has returned, exactly those that were
            read. Whatever it raises goes through, and the marks stay.
        """

    def peek(self, limit: int, after: str | None = None) -> Peeked:
        """Whom the marks name that nobody has taken; takes, locks and writes nothing.

        Args:
            limit: at most so many owners.
            after: only those behind this one, by code point; a mark for everybody is told always.

        Raises:
            ConfigError: nothing is installed, or the role may not look at marks.
            SourceUnavailable: no definite answer.
        """

    def wait(self, seconds: float) -> None:
        """Return when there may be marks again, at the latest after so long.

        Where marks notify, they wake; else this is a pause. Never fails: a source that cannot be
        reached is a pause, and the next `drain` says so.
        """

    def close(self) -> None:
        """Give back every connection. Safe to call twice."""


@runtime_checkable
class CapturedSource(Source, Protocol):
    """A source that can have change capture."""

    def triggers(self) -> Triggers:
        """Its triggers; connects when it is first asked."""

    def change_feed(self) -> ChangeFeed:
        """Its marks; connects when it is first asked."""
