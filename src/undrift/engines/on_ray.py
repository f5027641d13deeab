"""Pages of owners as tasks of a Ray cluster.

A page that was under way on a machine that is lost is checked again on another one. Nothing is kept
there: how far the run is lies in the state, as with every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from undrift.engines.cluster import Cluster
from undrift.engines.orders import Values, order, require_reachable
from undrift.engines.tasks import MAX_RETRIES, Tasks
from undrift.errors import ConfigError, UndriftError, UnknownStateError
from undrift.scan.engine import Engine, Job, Opener, in_order
from undrift.scan.feed import Page
from undrift.scan.page import PageCheck, PageResult


def on_ray(
    address: str | None = None, *, max_retries: int = MAX_RETRIES
) -> Callable[[PageCheck, Opener | None], Engine]:
    """What makes a `RayEngine` for `undrift.scan.options.CheckOptions.engine`."""

    def make(check: PageCheck, open_check: Opener | None) -> Engine:
        if open_check is None:
            raise sides_of_ones_own()
        return RayEngine(open_check, address=address, max_retries=max_retries)

    return make


class RayEngine:
    """Checks pages on a Ray cluster.

    Args:
        address: see `Cluster`.
        max_retries: times that a page is tried again when the process that had it was lost.

    Raises:
        ConfigError: see `Cluster`; or the cluster has machines from which the sides cannot be
            reached.
        UnknownStateError: the cluster does not answer.
    """

    def __init__(
        self,
        open_check: Opener,
        *,
        address: str | None = None,
        max_retries: int = MAX_RETRIES,
    ) -> None:
        self._order = order(open_check)
        self._cluster = Cluster(address)
        try:
            require_reachable(self._cluster.hosts(), open_check.here_only)
        except ConfigError:
            self._cluster.close()
            raise
        self._tasks = Tasks(self._cluster, _task(), max_retries=max_retries, lost=_lost)

    def check(self, pages: Iterator[Page]) -> Iterator[tuple[Page, PageResult]]:
        """Check *pages*, twice as many at once as the cluster has cores."""
        return in_order(pages, self._submit, self._tasks.window)

    def close(self) -> None:
        """Call back what is under way, and leave the cluster."""
        self._tasks.call_back()
        self._cluster.close()

    def _submit(self, owners: Sequence[str]) -> Job:
        return self._tasks.submit(tuple(self._order), list(owners))


def sides_of_ones_own() -> ConfigError:
    """A side is an object."""
    return ConfigError(
        "Other machines cannot open both sides",
        why="a side is an object of your own, which exists in this process only.",
        fix="give source, store and state by their URLs, or leave --engine ray out",
    )


def _lost(failure: BaseException) -> UnknownStateError:
    return UnknownStateError(
        "The cluster could not check a page of users",
        why=f"every process that had it was lost ({type(failure).__name__}).",
        fix="look at `ray status` and at the machines' memory, then go on with --resume",
    )


def _task() -> Callable[[Values, Sequence[str]], PageResult | UndriftError]:
    """The task."""
    # A function within a function travels whole, and not as a name that is imported when it
    # arrives: a machine that lacks undrift can say so.

    def check_page(values: Values, owners: Sequence[str]) -> PageResult | UndriftError:
        from undrift.engines.worker import check_here

        return check_here(values, owners)

    return check_page
