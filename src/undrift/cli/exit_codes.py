"""What a command's exit code says, and which of several wins."""

from __future__ import annotations

from collections.abc import Iterable

from undrift.errors import (
    ConfigError,
    EmbeddingBudgetSpent,
    EmbeddingFailed,
    SafetyStop,
    UndriftError,
    UnsupportedError,
    WriteFailed,
)
from undrift.model import Outcome

IN_SYNC = 0
"""In sync, or repaired and verified, or only in motion."""
DRIFT = 1
"""Drift found or left, or a write failed."""
USAGE = 2
"""Usage or configuration, an unknown user among them."""
UNKNOWN = 3
"""Could not look."""
SAFETY_STOP = 4
"""A run would have deleted suspiciously much."""
BUDGET_SPENT = 5
"""``--max-embeddings`` is used up; progress is kept."""
INTERRUPTED = 130
"""SIGINT; progress is kept."""
BROKEN_PIPE = 141
"""Nobody reads the answer any more, as in ``undrift check … | head``."""
TERMINATED = 143
"""SIGTERM; progress is kept."""

_STRONGEST_FIRST = (
    INTERRUPTED,
    TERMINATED,
    BROKEN_PIPE,
    SAFETY_STOP,
    BUDGET_SPENT,
    UNKNOWN,
    USAGE,
    DRIFT,
    IN_SYNC,
)

_OF_OUTCOME = {
    Outcome.IN_SYNC: IN_SYNC,
    Outcome.IN_MOTION: IN_SYNC,
    Outcome.DRIFT: DRIFT,
    Outcome.FAILED: DRIFT,
    Outcome.NOT_FOUND: USAGE,
    Outcome.UNKNOWN: UNKNOWN,
}

_OF_ERROR: tuple[tuple[type[UndriftError], int], ...] = (
    (SafetyStop, SAFETY_STOP),
    (EmbeddingBudgetSpent, BUDGET_SPENT),
    (ConfigError, USAGE),
    (UnsupportedError, USAGE),
    (WriteFailed, DRIFT),
    (EmbeddingFailed, DRIFT),
)


def strongest(codes: Iterable[int]) -> int:
    """The code that wins; 0 if there are none."""
    return min(codes, key=_STRONGEST_FIRST.index, default=IN_SYNC)


def of_outcomes(outcomes: Iterable[Outcome], *, are_named: bool = True) -> int:
    """The code for a run that ended with *outcomes*.

    Args:
        are_named: a person named the owners. An owner that vanished from both sides in the middle
            of a run over everybody is no mistake of the command.
    """
    return strongest(
        _OF_OUTCOME[outcome]
        for outcome in outcomes
        if are_named or outcome is not Outcome.NOT_FOUND
    )


def of_error(error: UndriftError) -> int:
    """The code for a run that *error* ended; whatever has no better name could not look."""
    return next((code for kind, code in _OF_ERROR if isinstance(error, kind)), UNKNOWN)
