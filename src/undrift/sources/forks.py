"""Engines in a forked process: the connections of its parent stay the parent's."""

from __future__ import annotations

from sqlalchemy.engine import Engine

from undrift.forks import after_fork, leave_to_parent


def own_after_fork(engine: Engine) -> Engine:
    """*engine*, which opens connections of its own in every process."""
    after_fork(engine, _begin_afresh)
    return engine


def _begin_afresh(engine: Engine) -> None:
    leave_to_parent(engine.pool)
    engine.dispose(close=False)
