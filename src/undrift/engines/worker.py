"""What checks pages on the machines of a cluster: both sides opened once in each process."""

from __future__ import annotations

import pickle
from collections.abc import Sequence

from undrift.engines.orders import Order, Values, require_release, taken
from undrift.errors import UndriftError, UnknownStateError
from undrift.model import SyncStatus
from undrift.scan.engine import Opener
from undrift.scan.page import PageCheck, PageResult

_opened: dict[bytes, PageCheck] = {}


def check_here(values: Values, owners: Sequence[str]) -> PageResult | UndriftError:
    """Check a page in this process.

    Args:
        values: an `Order`'s.

    Returns:
        The result; or why nobody can have one from here, as a value, because what is raised in a
        task arrives as something else.
    """
    try:
        require_release(values[0])
        check = _opened.get(values[1]) or _open(taken(values))
    except UnknownStateError as exc:
        return PageResult([SyncStatus.unknown(owner, exc) for owner in owners], 0)
    except UndriftError as exc:
        return exc
    return check(owners)


def _open(order: Order) -> PageCheck:
    open_check: Opener = pickle.loads(order.opener)  # noqa: S301 - our own, by Ray's hands
    check = open_check()
    _opened.clear()  # a process serves one run at a time
    _opened[order.opener] = check
    return check
