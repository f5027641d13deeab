"""Commits to LanceDB beside other writers.

LanceDB commits optimistically: a commit that meets another one on the same rows is planned again
from the newest version, its conditions too, ten times within; what is still in the way after that
is an error, which is tried again here.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from undrift.stores._lance_errors import is_conflict

T = TypeVar("T")

_ATTEMPTS = 8
_FIRST_PAUSE_SECONDS = 0.02


def committed(commit: Callable[[], T]) -> T:
    """Do *commit*, again where others' commits come in between; at most for some seconds."""
    for attempt in range(_ATTEMPTS - 1):
        try:
            return commit()
        except Exception as error:
            if not is_conflict(error):
                raise
        # At random, so that writers that met once do not meet again.
        time.sleep(random.uniform(0, _FIRST_PAUSE_SECONDS * 2**attempt))  # noqa: S311
    return commit()


def is_taken(error: Exception) -> bool:
    """Whether what was to be created is there already."""
    return "already exists" in str(error)
