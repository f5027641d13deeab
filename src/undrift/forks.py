"""What a forked process must not use of its parent's: locks, threads and connections.

A lock may have been held by a thread that the child does not have. Two processes that speak through
one connection get each other's answers, and the one that closes it ends the other's session.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")

_shared: WeakKeyDictionary[object, Callable[[Any], None]] = WeakKeyDictionary()
_of_the_parent: list[object] = []


def after_fork(instance: T, begin_afresh: Callable[[T], None]) -> None:
    """Call *begin_afresh* with *instance* in every forked child, before anything else runs there.

    Args:
        begin_afresh: a plain function or method of the class; one that holds the instance would
            keep it from being collected.
    """
    _shared[instance] = begin_afresh


def leave_to_parent(connection: object) -> None:
    """Neither use nor close *connection* in this process; collecting it would close it."""
    _of_the_parent.append(connection)


def _begin_afresh() -> None:
    for instance, begin_afresh in list(_shared.items()):
        begin_afresh(instance)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_afresh)
