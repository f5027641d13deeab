"""Marks on their way out: owners as they print, each once."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from undrift.changes import MarkEveryone, MarkOwners
from undrift.fingerprint import is_storable_id

_log = logging.getLogger(__name__)


def hand_over(owners: Iterable[object], mark: MarkOwners, mark_everyone: MarkEveryone) -> None:
    """Tell the callbacks of *owners*, where None means everybody.

    An owner that cannot be an id in any store is passed over, as everywhere: it must not keep the
    marks behind it from being taken.
    """
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
    if is_everybody:
        mark_everyone()
    if named:
        mark(sorted(named))
