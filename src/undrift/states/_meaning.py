"""What a driver's error means to the person who reads it."""

from __future__ import annotations

from dataclasses import dataclass

from undrift.errors import ConfigError, StateUnavailable, UndriftError


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
            location: the state's address without a password.
            message: the driver's, for the reason why.
        """
        return self.kind(self.what, why=f"{location}: {message.rstrip('.')}.", fix=self.fix)


NOT_CREATED = Meaning(
    ConfigError,
    "The state has not been created",
    "run `undrift sync`, which creates it",
)
OLDER_LAYOUT = Meaning(
    ConfigError,
    "The state is of an older undrift",
    "run `undrift sync`, which brings it up to date",
)
NEWER_LAYOUT = Meaning(
    ConfigError,
    "The state is of a newer undrift",
    "upgrade this one: pip install --upgrade undrift",
)
FOREIGN = Meaning(
    ConfigError,
    "Something else lies where the state should be",
    "set the state's URL to another place",
)
REFUSED = Meaning(
    StateUnavailable,
    "The state refused a write",
    "nothing of it was written; mend what the message names and run the same command again",
)
UNUSABLE_VALUE = Meaning(
    ConfigError,
    "The state cannot hold a value",
    "correct the id that the source delivers: it must be text without NUL characters",
)
