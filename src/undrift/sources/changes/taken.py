"""Marks as others are told of them: owners as they print, each once."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from undrift.changes import MarkEveryone, MarkOwners, Peeked
from undrift.fingerprint import is_storable_id

_log = logging.getLogger(__name__)


def hand_over(owners: Iterable[object], mark: MarkOwners, mark_everyone: MarkEveryone) -> None:
    """Tell the callbacks of *owners*, where None means everybody.

    An owner that cannot be an id in any store is passed over, as everywhere: it must not keep the
    marks behind it from being taken.
    """
    named, is_everybody = _read(owners)
    if is_everybody:
        mark_everyone()
    if named:
        mark(sorted(named))


def peeked(owners: Iterable[object], limit: int, after: str | None) -> Peeked:
    """At most *limit* of *owners* behind *after*, where None means everybody.

    Args:
        owners: those behind *after*, or more.
    """
    named, is_everybody = _read(owners)
    behind = sorted(owner for owner in named if after is None or owner > after)
    page = behind[:limit]
    return Peeked(page, is_everybody, page[-1] if len(behind) > limit else None)


def _read(owners: Iterable[object]) -> tuple[set[str], bool]:
    """Distinct owners, and whether everybody is among them."""
    named: set[str] = set()
    is_everybody = False
    for owner in owners:
        if owner is None:
            is_everybody = True
            continue
        printed = str(owner)
        if isinstance(owner, bytes) or not is_storable_id(printed):
            _log.warning(
                "a mark was passed over: no store can hold its owner's id",
                extra={"action": "changes.skip"},
            )
            continue
        named.add(printed)
    return named, is_everybody
