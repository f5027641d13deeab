"""Pages of owners as tasks of a Ray cluster.

A page that was under way on a machine that is lost is checked again on another one. Nothing is kept
there: how far the run is lies in the state, as with every engine.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from undrift.engines.cluster import Cluster
from undrift.engines.worker import elsewhere, order
from undrift.errors import ConfigError, UndriftError, UnknownStateError
from undrift.scan.engine import Engine, Job, Opener, in_order
from undrift.scan.feed import Page
from undrift.scan.page import PageCheck, PageResult

if TYPE_CHECKING:
    from ray import ObjectRef

MAX_RETRIES = 5
"""Times that a page is tried again when the process that had it was lost."""

LOOK_SECONDS = 1.0
"""How long the head and a count of the cluster's cores are believed: machines come and go."""


def on_ray(
    address: str | None = None, *, max_retries: int = MAX_RETRIES
) -> Callable[[PageCheck, Opener | None], Engine]:
    """What makes a `RayEngine` for `undrift.scan.options.CheckOptions.engine`."""

    def make(check: PageCheck, open_check: Opener | None) -> Engine:
        if open_check is None:
            raise ConfigError(
                "Other machines cannot open both sides",
                why="a side is an object of your own, which exists in this process only.",
                fix="give source, store and state by their URLs, or leave --engine ray out",
            )
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
        others = self._cluster.hosts() - {socket.gethostname()}
        if open_check.here_only and others:
            self._cluster.close()
            raise elsewhere(min(others), open_check.here_only)
        # A page keeps one core busy; spread, every machine has work as soon as there is any.
        self._task = self._cluster.ray.remote(
            num_cpus=1, max_retries=max_retries, scheduling_strategy="SPREAD"
        )(_task())
        self._under_way: set[ObjectRef[PageResult | UndriftError]] = set()
        self._at_once = 0
        self._counted_at = float("-inf")

    def check(self, pages: Iterator[Page]) -> Iterator[tuple[Page, PageResult]]:
        """Check *pages*, twice as many at once as the cluster has cores."""
        return in_order(pages, self._submit, self._window)

    def close(self) -> None:
        """Call back what is under way, and leave the cluster."""
        for reference in self._under_way:
            self._cluster.ray.cancel(reference)
        self._under_way.clear()
        self._cluster.close()

    def _window(self) -> int:
        if time.monotonic() - self._counted_at >= LOOK_SECONDS:
            self._cluster.require_head()
            self._at_once = 2 * max(1, self._cluster.cpus())
            self._counted_at = time.monotonic()
        return self._at_once

    def _submit(self, owners: Sequence[str]) -> Job:
        if not owners:  # as of a stretch whose owners the source has all
            return lambda: PageResult([], 0)
        reference = self._task.remote(tuple(self._order), list(owners))
        self._under_way.add(reference)

        def result() -> PageResult:
            # Nobody holds the reference any longer than this: the cluster can forget the result.
            try:
                found = self._result(reference)
            finally:
                self._under_way.discard(reference)
            if isinstance(found, UndriftError):
                raise found
            return found

        return result

    def _result(self, reference: ObjectRef[PageResult | UndriftError]) -> PageResult | UndriftError:
        ray = self._cluster.ray
        try:
            while not ray.wait([reference], timeout=LOOK_SECONDS)[0]:
                self._cluster.require_head()
            found: PageResult | UndriftError = ray.get(reference)
        except ray.exceptions.RayTaskError as exc:
            if isinstance(exc.cause, ModuleNotFoundError):
                raise _not_installed(exc.cause) from exc
            raise
        except ray.exceptions.RayError as exc:
            raise _lost(exc) from exc
        return found


def _lost(failure: BaseException) -> UnknownStateError:
    return UnknownStateError(
        "The cluster could not check a page of users",
        why=f"every process that had it was lost ({type(failure).__name__}).",
        fix="look at `ray status` and at the machines' memory, then go on with --resume",
    )


_Values = tuple[str, bytes, str | None, str]


def _task() -> Callable[[_Values, Sequence[str]], PageResult | UndriftError]:
    """The task."""
    # A function within a function travels whole, and not as a name that is imported when it
    # arrives: a machine that lacks undrift can say so.

    def check_page(values: _Values, owners: Sequence[str]) -> PageResult | UndriftError:
        from undrift.engines.worker import check_here

        return check_here(values, owners)

    return check_page


def _not_installed(failure: ModuleNotFoundError) -> ConfigError:
    return ConfigError(
        "A machine of the cluster cannot run undrift",
        why=f"{failure.name} cannot be imported there.",
        fix="install the same release of undrift, with its extras, on every machine, into the "
        "Python that runs `ray start`",
    )
