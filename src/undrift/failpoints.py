"""Named places where a test can stop the world: crash the process, raise, or look.

A crash between two steps is the case that matters most and happens least, so the code itself says
where its steps end. Nothing is installed in production, where passing a failpoint costs one
comparison. `undrift.testing.faults` installs the usual faults.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches

FAILPOINTS: frozenset[str] = frozenset(
    {
        # one call of a store's `publish`, in this order
        "store.publish.begun",  # the transaction is open, nothing is written
        "store.publish.held",  # the owners are locked, with a state beside the vectors only
        "store.publish.written",  # writes are made, deletes are not
        "store.publish.deleted",  # deletes are made too, nothing is committed
        "store.publish.committed",  # durable, but the caller does not know it yet
        # one page of owners in a sync, in this order
        "sync.leased",
        "sync.noted",  # what is remembered of them is read, the source is not
        "sync.read",  # the source's snapshot is read
        "sync.observed",  # versions are assigned to what it showed
        "sync.looked",  # the store is enumerated too
        "sync.raised",  # versions are above all that the store was found to hold
        "sync.planned",
        "sync.embedded",
        "sync.published",
        "sync.verified",
        "sync.acknowledged",
    }
)
"""Every name in a sync. A store without transactions passes its four in the same order."""

SCAN_FAILPOINTS: frozenset[str] = frozenset(
    {
        # a check of everybody, page after page
        "scan.page_read",  # who comes next is read, nobody has looked at them
        "scan.page_checked",  # a page's owners are looked at, nothing is saved
        "scan.saving",  # before a checkpoint
        "scan.saved",  # behind it
    }
)
"""Every name in a check of everybody, which writes nothing but how far it is."""

Hook = Callable[[str], None]

_hook: Hook | None = None


def reach(name: str) -> None:
    """Tell the installed hook, if there is one, that the failpoint *name* is reached."""
    if _hook is not None:
        _hook(name)


def install(hook: Hook | None) -> Hook | None:
    """Make *hook* hear of every failpoint reached in this process, and return the previous one.

    None removes it. One hook at a time: faults that need several compose them.
    """
    global _hook
    previous, _hook = _hook, hook
    return previous


def known(name: str) -> str:
    """Return *name* if it is a failpoint.

    Raises:
        ValueError: it is not, and a fault installed there would never happen.
    """
    names = FAILPOINTS | SCAN_FAILPOINTS
    if name not in names:
        nearest = get_close_matches(name, names, n=1)
        raise ValueError(f"no failpoint {name!r}; the nearest is {nearest or sorted(names)}")
    return name
