"""Ages, for people and for programs."""

from __future__ import annotations

import time

from undrift.cli.logs import timestamp

_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "min"))


def duration(seconds: float) -> str:
    """*seconds* in the largest unit of which there are two, rounded down: ``90 min``, ``3 d``."""
    for length, unit in _UNITS:
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def moment(seconds_from_now: float) -> str:
    """That moment as RFC 3339 has it, in UTC; negative is in the past."""
    return timestamp(time.time() + seconds_from_now)


def rounded(seconds: float | None) -> float | None:
    """*seconds* as the JSON has them."""
    return None if seconds is None else round(seconds, 3)
