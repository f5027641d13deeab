"""What a driver's error means to the person who reads it."""

from __future__ import annotations

from dataclasses import dataclass

from undrift.errors import ConfigError, UndriftError, WriteFailed


@dataclass(frozen=True, slots=True)
class Meaning:
    """One row of an adapter's table of errors.

    Attributes:
        kind: what the caller can do about it.
        what: what happened.
        fix: the next step.
    """

    kind: type[UndriftError]
    what: str
    fix: str

    def error(self, location: str, message: str) -> UndriftError:
        """The error to raise.

        Args:
            location: the store's address without a password.
            message: the driver's, for the reason why.
        """
        return self.kind(self.what, why=f"{location}: {message.rstrip('.')}.", fix=self.fix)


NOT_CREATED = Meaning(
    ConfigError,
    "The vector store has not been created",
    "run `undrift sync`, which creates it",
)
REFUSED_BATCH = Meaning(
    WriteFailed,
    "The vector store refused a batch",
    "nothing of it was written; mend what the message names and run the same command again",
)
