"""Calls of one function on a cluster's machines, several under way at once.

What was under way on a machine that is lost is called again on another one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from undrift.engines.cluster import Cluster
from undrift.errors import ConfigError, UndriftError, UnknownStateError

if TYPE_CHECKING:
    from ray import ObjectRef

T = TypeVar("T")

MAX_RETRIES = 5
"""Times that a page is tried again when the process that had it was lost."""

LOOK_SECONDS = 1.0
"""How long the head and a count of the cluster's cores are believed: machines come and go."""


class Tasks(Generic[T]):
    """See the module.

    Args:
        function: returns an error as a value, because what is raised in a task arrives as something
            else.
        max_retries: times that a call is tried again when the process that had it was lost.
        lost: the error of a call that no process came to the end of.
    """

    def __init__(
        self,
        cluster: Cluster,
        function: Callable[..., T | UndriftError],
        *,
        max_retries: int,
        lost: Callable[[BaseException], UnknownStateError],
    ) -> None:
        self._cluster = cluster
        self._lost = lost
        # A page keeps one core busy; spread, every machine has work as soon as there is any.
        self._task = cluster.ray.remote(
            num_cpus=1, max_retries=max_retries, scheduling_strategy="SPREAD"
        )(function)
        self._under_way: set[ObjectRef[T | UndriftError]] = set()
        self._at_once = 0
        self._counted_at = float("-inf")

    def window(self) -> int:
        """How many calls are to be under way: twice as many as the cluster has cores.

        Raises:
            UnknownStateError: the cluster is lost.
        """
        if time.monotonic() - self._counted_at >= LOOK_SECONDS:
            self._cluster.require_head()
            self._at_once = 2 * max(1, self._cluster.cpus())
            self._counted_at = time.monotonic()
        return self._at_once

    def submit(self, *arguments: object) -> Callable[[], T]:
        """Call the function with *arguments*; what is returned waits for the result.

        Raises:
            UndriftError: what the function returned, when the result is waited for; or it was lost.
        """
        reference = self._task.remote(*arguments)
        self._under_way.add(reference)

        def result() -> T:
            found = self._result(reference)  # interrupted, it is still to be called back
            # Nobody holds the reference any longer than this: the cluster can forget the result.
            self._under_way.discard(reference)
            if isinstance(found, UndriftError):
                raise found
            return found

        return result

    def call_back(self, *, wait_seconds: float = 0.0) -> None:
        """Call back what is under way.

        Args:
            wait_seconds: at most so long for whoever has it to put down what is held.
        """
        references = list(self._under_way)
        self._under_way.clear()
        for reference in references:
            self._cluster.ray.cancel(reference)
        if references and wait_seconds:
            self._cluster.ray.wait(references, num_returns=len(references), timeout=wait_seconds)

    def _result(self, reference: ObjectRef[T | UndriftError]) -> T | UndriftError:
        ray = self._cluster.ray
        try:
            while not ray.wait([reference], timeout=LOOK_SECONDS)[0]:
                self._cluster.require_head()
            found: T | UndriftError = ray.get(reference)
        except ray.exceptions.RayTaskError as exc:
            if isinstance(exc.cause, ModuleNotFoundError):
                raise not_installed(exc.cause) from exc
            raise
        except ray.exceptions.RayError as exc:
            raise self._lost(exc) from exc
        return found


def not_installed(failure: ModuleNotFoundError) -> ConfigError:
    """A machine of the cluster lacks undrift, or an extra of it."""
    return ConfigError(
        "A machine of the cluster cannot run undrift",
        why=f"{failure.name} cannot be imported there.",
        fix="install the same release of undrift, with its extras, on every machine, into the "
        "Python that runs `ray start`",
    )
