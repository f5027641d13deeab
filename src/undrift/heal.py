"""Heal: the repair that a reader sets off, once per owner and not again too soon.

A search or a tool that meets something stale asks here. However many ask at once, one repair runs;
each of them waits a moment for it, and it goes on without them if it takes longer.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, replace
from threading import Lock, Thread, main_thread
from typing import Protocol, runtime_checkable

from undrift.errors import EmbeddingFailed, UndriftError, UnknownStateError
from undrift.forks import after_fork
from undrift.model import Heal, Healing, Outcome, SyncReport
from undrift.ports import Embedder, Purpose, Vectors

HEAL_WORKERS = 4
"""Owners that are healed at the same time; a wave of stale hits must not take over the database."""

_log = logging.getLogger(__name__)

_is_testing = False


def set_testing(is_on: bool) -> None:
    """Switch healing off for this process, or back on.

    What a person or a program asks for by name, such as ``sync``, is done all the same. The
    environment variable ``UNDRIFT_ENV=test`` does the same from outside, and is not undone by this.
    """
    global _is_testing
    _is_testing = is_on


def is_testing() -> bool:
    """Whether `set_testing` has switched healing off."""
    return _is_testing


@dataclass(frozen=True, slots=True, kw_only=True)
class HealPolicy:
    """When a reader may set off a repair.

    Attributes:
        is_enabled: whether it may at all.
        wait_seconds: how long a reader waits for the repair; it goes on in the background.
        cool_down_seconds: how long after a heal of an owner no other one of it begins.
    """

    is_enabled: bool = True
    wait_seconds: float = 5.0
    cool_down_seconds: float = 30.0


DEFAULT_POLICY = HealPolicy()

NO_HEALING = HealPolicy(is_enabled=False)
"""The policy of those who repair by themselves, such as a person at the command line."""


@dataclass(frozen=True, slots=True)
class _Ended:
    heal: Heal
    at: float


class Healer:
    """Sets off repairs for readers: one in flight per owner, with a cool-down.

    Args:
        repair: syncs one owner under the guard; raises what `UndriftError` it must.
        clock: seconds that only grow.

    Safety:
        Any number of threads may ask at once. A forked process begins with no heal in flight.
    """

    def __init__(
        self,
        repair: Callable[[str], SyncReport],
        policy: HealPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repair = repair
        self._policy = policy
        self._clock = clock
        self._ended: dict[str, _Ended] = {}
        self._is_closed = False
        self._is_cut_off = False
        self._begin_afresh()
        after_fork(self, Healer._begin_afresh)

    def _begin_afresh(self) -> None:
        """Know of no thread: none has been started, or a fork has left them in the parent."""
        self._lock = Lock()
        self._running: dict[str, Future[Heal]] = {}
        self._waiting: deque[str] = deque()
        self._workers = 0

    @property
    def is_on(self) -> bool:
        """Whether a reader would set off a repair."""
        return self._policy.is_enabled and not self._is_closed

    @property
    def is_over(self) -> bool:
        """Whether a heal that still runs is to end: nobody waits for it any more."""
        return self._is_cut_off or not main_thread().is_alive()

    def heal(self, owner_id: str) -> Heal:
        """Repair *owner_id* if it is out of sync, and wait for it as long as the policy says."""
        running = self._begun(owner_id)
        if isinstance(running, Heal):
            return running
        try:
            return running.result(timeout=self._policy.wait_seconds)
        except NotYet:
            return Heal(owner_id=owner_id, healing=Healing.PENDING)

    def mark(self, owner_id: str) -> Heal:
        """Set off the repair of *owner_id* and wait for nothing."""
        running = self._begun(owner_id)
        if isinstance(running, Heal):
            return running
        return Heal(owner_id=owner_id, healing=Healing.PENDING)

    def close(self) -> None:
        """Begin no more heals, and give those that run a moment to end. Safe to call twice."""
        with self._lock:
            self._is_closed = True
            given_up = {owner: self._running.pop(owner) for owner in self._waiting}
            self._waiting.clear()
            running = list(self._running.values())
        for owner_id, future in given_up.items():
            future.set_result(Heal(owner_id=owner_id, healing=Healing.SWITCHED_OFF))
        wait_for(running, timeout=self._policy.wait_seconds)
        self._is_cut_off = True

    def _begun(self, owner_id: str) -> Future[Heal] | Heal:
        """The repair of *owner_id* that runs now, or why none does."""
        if not self.is_on:
            return Heal(owner_id=owner_id, healing=Healing.SWITCHED_OFF)
        try:
            with self._lock:
                return self._joined_or_begun(owner_id)
        except RuntimeError as exc:  # a search has found what it was asked for all the same
            failed = Heal(owner_id=owner_id, healing=Healing.FAILED, error=_no_thread(exc))
            return self._concluded(owner_id, failed)

    def _joined_or_begun(self, owner_id: str) -> Future[Heal] | Heal:
        running = self._running.get(owner_id)
        if running is not None:
            return running
        last = self._ended.get(owner_id)
        if last is not None:
            age = self._clock() - last.at
            if age < self._policy.cool_down_seconds:
                return replace(last.heal, healing=Healing.COOLING_DOWN, seconds_ago=age)
        if self._is_closed:
            return Heal(owner_id=owner_id, healing=Healing.SWITCHED_OFF)
        running = Future()
        self._give_to_a_worker(owner_id, running)
        self._running[owner_id] = running
        return running

    def _give_to_a_worker(self, owner_id: str, future: Future[Heal]) -> None:
        """Begin the repair, or queue it behind others.

        Raises:
            RuntimeError: there is no worker, and the system gives no thread for one.
        """
        if self._workers < HEAL_WORKERS:
            worker = Thread(target=self._work, args=(owner_id, future), name="undrift-heal")
            try:
                worker.start()
            except RuntimeError:
                if not self._workers:
                    raise
            else:
                self._workers += 1
                return
        self._waiting.append(owner_id)

    def _work(self, owner_id: str, future: Future[Heal]) -> None:
        """Repair this owner, then those that wait."""
        while True:
            heal = self._run(owner_id)
            with self._lock:
                del self._running[owner_id]
                more = self._waiting.popleft() if self._waiting else None
                if more is None:
                    self._workers -= 1
                else:
                    owner_id, following = more, self._running[more]
            future.set_result(heal)
            if more is None:
                return
            future = following

    def _run(self, owner_id: str) -> Heal:
        _log.info("a reader met drift, healing begins", extra={"action": "heal.begin"})
        try:
            heal = _heal_of(self._repair(owner_id))
        except UndriftError as exc:
            heal = Heal(owner_id=owner_id, healing=Healing.FAILED, error=exc)
        except Exception as exc:  # noqa: BLE001  in the background nobody else would hear of it
            error = unforeseen("A heal failed unexpectedly", exc)
            heal = Heal(owner_id=owner_id, healing=Healing.FAILED, error=error)
        return self._concluded(owner_id, heal)

    def _concluded(self, owner_id: str, heal: Heal) -> Heal:
        """*heal*, logged and remembered."""
        is_news = heal.error is not None and not self.is_over
        level = logging.WARNING if is_news else logging.INFO
        why = "" if heal.error is None else f": {heal.error.what}"
        _log.log(level, "healing ended, %s%s", heal.healing, why, extra={"action": "heal.end"})
        with self._lock:
            now = self._clock()
            cooling = self._policy.cool_down_seconds
            # Owners that are healed once in a while must not be remembered for ever.
            self._ended = {o: e for o, e in self._ended.items() if now - e.at < cooling}
            self._ended[owner_id] = _Ended(heal, now)
        return heal


@runtime_checkable
class PatientEmbedder(Protocol):
    """An `Embedder` that may take long over one batch, since it waits and tries again."""

    def impatient(self, go_on: Callable[[], None]) -> Embedder:
        """The same embedder for somebody who may lose interest.

        Args:
            go_on: to be called before each attempt and several times a second while waiting for
                the next; it raises when the answer is not wanted any more.
        """


class InterruptibleEmbedder:
    """An embedder that refuses to go on when its heal is over.

    A process that ends waits for its threads, and embedding is what may take minutes. Threads that
    do not hold it up are no way out: native code that they are in the middle of aborts the process.

    Args:
        is_over: asked before each batch, and within one by a `PatientEmbedder`.
    """

    def __init__(self, inner: Embedder, is_over: Callable[[], bool]) -> None:
        self._is_over = is_over
        self._inner = inner
        if isinstance(inner, PatientEmbedder):
            self._inner = inner.impatient(self._require_wanted)

    @property
    def model(self) -> str:
        """See `Embedder.model`."""
        return self._inner.model

    @property
    def dimension(self) -> int:
        """See `Embedder.dimension`."""
        return self._inner.dimension

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """See `Embedder.embed`.

        Raises:
            EmbeddingFailed: the heal is over; what was published stays.
        """
        self._require_wanted()
        return self._inner.embed(texts, purpose)

    def count_truncated(self, texts: Sequence[str]) -> int:
        """See `Embedder.count_truncated`."""
        return self._inner.count_truncated(texts)

    def _require_wanted(self) -> None:
        if self._is_over():
            raise EmbeddingFailed(
                "The heal was cut off",
                why="its process ends, or has closed what it works on.",
                fix="nothing is lost; run `undrift sync`, or let the next search heal",
            )


def _heal_of(report: SyncReport) -> Heal:
    if report.outcome is Outcome.IN_SYNC:
        healing = Healing.NOT_NEEDED if report.skipped else Healing.HEALED
    else:
        healing = Healing.FAILED
    return Heal(owner_id=report.owner_id, healing=healing, report=report, error=report.error)


def _no_thread(exc: RuntimeError) -> UndriftError:
    error = UnknownStateError(
        "The heal could not begin",
        why="the system gives this process no further thread.",
        fix="raise the limit on threads (ulimit -u, or the container's pids limit), or run "
        "`undrift sync`",
    )
    error.__cause__ = exc
    return error


def unforeseen(what: str, exc: Exception) -> UndriftError:
    """An exception that nobody foresaw, as an error; only its kind is told.

    Its message may quote a profile.
    """
    error = UnknownStateError(
        what,
        why=f"{type(exc).__name__} was raised; what became of the owner is not known.",
        fix="run `undrift check` for this user, and report the error",
    )
    error.__cause__ = exc
    return error
