"""Connections in a forked process: those of its parent stay the parent's.

Two processes that speak through one connection get each other's answers.
"""

from __future__ import annotations

import os
from weakref import WeakSet

from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

_engines: WeakSet[Engine] = WeakSet()
_inherited: list[Pool] = []


def own_after_fork(engine: Engine) -> Engine:
    """*engine*, which opens connections of its own in every process."""
    _engines.add(engine)
    return engine


def _begin_afresh() -> None:
    for engine in list(_engines):
        # Kept from being collected: closing one would end the parent's session.
        _inherited.append(engine.pool)
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_afresh)
