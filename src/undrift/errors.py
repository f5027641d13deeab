"""Every error undrift raises, in one tree.

    UndriftError                    what happened, why, and how to mend it
    ├── ConfigError                 fix the configuration and run again (exit 2)
    │   ├── OwnerNotFound           neither side knows this user
    │   ├── ProfileOutdated         the given profile is not what the source holds
    │   ├── DimensionMismatch       the store holds vectors of another dimension
    │   ├── StateMismatch           the store belongs to another state or source
    │   └── Superseded              a newer configuration writes this store
    ├── UnknownStateError           could not look: neither "in sync" nor "drift" (exit 3)
    │   ├── SourceUnavailable
    │   ├── StoreUnavailable
    │   ├── StateUnavailable
    │   ├── IncompleteRead          the source hides something from this role
    │   └── InvalidDocument         one owner's document cannot be read
    ├── TransientError              worth another try
    ├── WriteFailed                 the store refused a write (exit 1)
    ├── EmbeddingFailed             the embedder gave no usable vector (exit 1)
    ├── EmbeddingBudgetSpent        --max-embeddings is used up, progress is kept (exit 5)
    ├── SafetyStop                  too many deletes at once (exit 4)
    └── UnsupportedError            this adapter cannot do that

The branches follow what a caller can do about them, not where they came from. Drivers' own errors
are mapped to these once, in the adapter, with the original as ``__cause__``.
"""

from __future__ import annotations

import re


class UndriftError(Exception):
    """The root of the tree; its message has three parts.

    Attributes:
        what: what happened, one sentence without a full stop.
        why: what was found, and where.
        fix: the next step, a command where there is one.

    Safety:
        No part ever holds a password, a profile's text or a vector.
    """

    def __init__(self, what: str, *, why: str, fix: str) -> None:
        super().__init__(what, why, fix)
        self.what = what
        self.why = why
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.what}: {self.why} Fix: {self.fix}"

    def __reduce__(self) -> tuple[object, ...]:
        # Exceptions pickle by positional arguments; ours are keyword-only, and results that hold
        # an error cross process boundaries.
        return _rebuild, (type(self), self.what, self.why, self.fix, self.__dict__)


def keep_first_line(failure: BaseException) -> BaseException:
    """Cut the message of a driver's *failure*, which is about to become a cause, to its first line.

    The lines behind it quote rows, and a cause is printed with whatever it led to.
    """
    lines = str(failure.args[0] if failure.args else "").strip().splitlines()
    failure.args = (without_quotation(failure, lines[0] if lines else ""), *failure.args[1:])
    return failure


def without_quotation(failure: BaseException, message: str) -> str:
    """A driver's *message*, without the value that it quotes where one could not be converted."""
    state = getattr(failure, "sqlstate", None) or ""
    if state.startswith("P0"):
        return f"a function of the database's own refused it (SQLSTATE {state})"
    return re.sub(r'".*"', '"…"', message) if state.startswith("22") else message


def _rebuild(
    kind: type[UndriftError], what: str, why: str, fix: str, state: dict[str, object]
) -> UndriftError:
    error = kind.__new__(kind)
    UndriftError.__init__(error, what, why=why, fix=fix)
    error.__dict__.update(state)
    return error


class ConfigError(UndriftError):
    """The configuration or the call is wrong; the same call fails again until it is mended."""


class OwnerNotFound(ConfigError):
    """Neither the source nor the store has this owner."""

    def __init__(self, owner_id: str, *, in_source_only: bool = False) -> None:
        """Say so.

        Args:
            in_source_only: the store was not asked.
        """
        store = "" if in_source_only else ", and the store has no vectors of it"
        super().__init__(
            f"No such user: {owner_id}",
            why=f"a complete read of the source does not show this owner{store}.",
            fix="check the id's spelling; it must be printed exactly as the owner column prints it",
        )
        self.owner_id = owner_id


class ProfileOutdated(ConfigError):
    """The profile handed to ``sync`` is not what the source holds; nothing was written."""

    def __init__(self, owner_id: str) -> None:
        super().__init__(
            f"The given profile of user {owner_id} is outdated",
            why="it yields other entities than the row in the source, and the source is the truth.",
            fix="read the profile again and retry, or call sync without profile=",
        )
        self.owner_id = owner_id


class DimensionMismatch(ConfigError):
    """The store holds vectors of another dimension than the embedder makes.

    Attributes:
        expected: components the embedder makes.
        found: components the store holds.
    """

    def __init__(self, *, expected: int, found: int, model: str, fix: str) -> None:
        super().__init__(
            "The store's vectors have another dimension",
            why=f"the store holds vectors of {found} components, {model} makes {expected}.",
            fix=fix,
        )
        self.expected = expected
        self.found = found


class StateMismatch(ConfigError):
    """The store is claimed by another state or for another source; nothing was written."""


class Superseded(ConfigError):
    """Another configuration became the current one; this one only reads from now on."""


class UnknownStateError(UndriftError):
    """undrift could not look. It is never "in sync" and never "drift"."""


class SourceUnavailable(UnknownStateError):
    """The source could not be reached, or failed in the middle of a read."""


class StoreUnavailable(UnknownStateError):
    """The vector store could not be reached, or failed in the middle of a call."""


class StateUnavailable(UnknownStateError):
    """The state could not be reached, or gave no definite answer."""


class IncompleteRead(UnknownStateError):
    """The source does not show everything to this role, so absence proves nothing (I8)."""


class InvalidDocument(UnknownStateError):
    """One owner's content cannot be read as entities; the other owners are not concerned."""

    def __init__(self, owner_id: str, *, why: str, fix: str) -> None:
        super().__init__(f"The document of user {owner_id} cannot be read", why=why, fix=fix)
        self.owner_id = owner_id


class TransientError(UndriftError):
    """A passing fault; the same call may succeed when tried again."""


class WriteFailed(UndriftError):
    """The store refused a write or did not show it afterwards."""


class EmbeddingFailed(UndriftError):
    """The embedder failed, or gave a vector that cannot be searched.

    Attributes:
        retry_after_seconds: how long the embedder asks to be left alone; None if it does not say.
    """

    retry_after_seconds: float | None = None


class EmbeddingBudgetSpent(UndriftError):
    """``max_embeddings`` is used up; what was written stays written."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            "The embedding budget is spent",
            why=f"this run may embed {limit} texts, and more are needed.",
            fix="run the same command again to go on from here, or raise --max-embeddings",
        )
        self.limit = limit


class SafetyStop(UndriftError):
    """A run would delete suspiciously much; those deletes were not made, writes were."""


class UnsupportedError(UndriftError):
    """This adapter or layout cannot do what was asked."""
