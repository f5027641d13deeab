"""The healer: one repair in flight per owner, a cool-down, and nobody waits for ever."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from threading import Barrier, Event, Lock

import pytest

from undrift import Heal, HealPolicy, Outcome, StoreUnavailable, SyncReport, SyncStatus
from undrift.embedders.hashing import HashingEmbedder
from undrift.errors import EmbeddingFailed, OwnerNotFound, SafetyStop, UndriftError
from undrift.heal import HEAL_WORKERS, NO_HEALING, Healer, InterruptibleEmbedder
from undrift.model import Healing

PATIENT = HealPolicy(wait_seconds=60)
DOWN = StoreUnavailable("The store is down", why="it does not answer.", fix="start it")


def report(
    outcome: Outcome = Outcome.IN_SYNC, *, skipped: bool = False, error: UndriftError | None = None
) -> SyncReport:
    """A sync's report."""
    before = SyncStatus(owner_id="1", outcome=Outcome.DRIFT)
    return SyncReport(owner_id="1", outcome=outcome, before=before, skipped=skipped, error=error)


class Repairs:
    """Counts repairs, which wait for `go` if they are told to."""

    def __init__(self, answer: Callable[[], SyncReport] = report, *, waits: bool = False) -> None:
        self._answer = answer
        self._lock = Lock()
        self.owners: list[str] = []
        self.begun = Event()
        self.go = Event()
        if not waits:
            self.go.set()

    def __call__(self, owner_id: str) -> SyncReport:
        """Repair."""
        with self._lock:
            self.owners.append(owner_id)
        self.begun.set()
        assert self.go.wait(60)
        return self._answer()


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def failing(error: Exception) -> Callable[[], SyncReport]:
    """A repair that raises *error*."""

    def answer() -> SyncReport:
        raise error

    return answer


# --- one in flight ----------------------------------------------------------------------------


class UnjoinedHealer(Healer):
    """The control: it takes every caller's owner for another one, so nobody joins anybody."""

    def __init__(self, repair: Callable[[str], SyncReport], policy: HealPolicy) -> None:
        super().__init__(repair, policy)
        self._callers = count()

    def _begun(self, owner_id: str) -> Future[Heal] | Heal:
        return super()._begun(f"{owner_id}, caller {next(self._callers)}")


@pytest.mark.parametrize(("kind", "repaired"), [(Healer, 1), (UnjoinedHealer, 1_000)])
def test_a_thousand_concurrent_callers_set_off_one_repair_and_all_hear_of_it(
    kind: type[Healer], repaired: int
) -> None:
    """They join the one that runs; without that, each of them sets off its own."""
    repairs = Repairs(waits=True)
    healer = kind(repairs, PATIENT)
    callers = 1_000
    everybody = Barrier(callers + 1)

    def call() -> Heal:
        everybody.wait(60)
        return healer.heal("1")

    with ThreadPoolExecutor(callers) as threads:
        calls = [threads.submit(call) for _ in range(callers)]
        everybody.wait(60)
        assert repairs.begun.wait(60)
        repairs.go.set()
        states = [call.result().healing for call in calls]

    assert len(repairs.owners) == repaired
    # Who was too late to join was told so; nobody began another.
    assert set(states) <= {Healing.HEALED, Healing.COOLING_DOWN}
    assert Healing.HEALED in states
    healer.close()


@pytest.mark.parametrize(
    ("workers", "patience_seconds", "healing"),
    [(HEAL_WORKERS, 30, Healing.HEALED), (1, 0.1, Healing.FAILED)],
    ids=["side-by-side", "control-one-after-the-other"],
)
def test_owners_are_healed_side_by_side(
    monkeypatch: pytest.MonkeyPatch, workers: int, patience_seconds: float, healing: Healing
) -> None:
    """One that takes long holds up no other: neither of these ends before both have begun."""
    monkeypatch.setattr("undrift.heal.HEAL_WORKERS", workers)
    both_have_begun = Barrier(2)

    def repair(owner_id: str) -> SyncReport:
        both_have_begun.wait(patience_seconds)
        return report()

    healer = Healer(repair, PATIENT)
    healer.mark("1")
    assert healer.heal("2").healing is healing
    healer.close()


# --- waiting ----------------------------------------------------------------------------------


def test_a_repair_that_takes_long_goes_on_without_its_caller() -> None:
    """The caller hears "pending", the next one the result."""
    repairs = Repairs(waits=True)
    healer = Healer(repairs, HealPolicy(wait_seconds=0.01))

    first = healer.heal("1")
    repairs.go.set()
    healer.close()

    assert (first.healing, first.healed) == (Healing.PENDING, "pending")
    assert repairs.owners == ["1"]


def test_a_mark_waits_for_nothing() -> None:
    """A search must not take longer because something drifted."""
    repairs = Repairs(waits=True)
    healer = Healer(repairs, PATIENT)
    assert healer.mark("1").healed == "pending"
    assert healer.mark("1").healed == "pending"
    repairs.go.set()
    healer.close()
    assert repairs.owners == ["1"]


# --- cool-down --------------------------------------------------------------------------------


def test_within_the_cool_down_nothing_begins_and_the_answer_says_so() -> None:
    """And tells how long ago the last one ended."""
    repairs, clock = Repairs(), Clock()
    healer = Healer(repairs, PATIENT, clock=clock)
    assert healer.heal("1").healing is Healing.HEALED

    clock.now += 29
    again = healer.heal("1")
    assert (again.healing, again.healed, again.seconds_ago) == (Healing.COOLING_DOWN, False, 29)
    assert healer.heal("2").healing is Healing.HEALED  # another owner's is its own affair

    clock.now += 1
    assert healer.heal("1").healing is Healing.HEALED
    assert repairs.owners == ["1", "2", "1"]
    healer.close()


def test_a_failure_cools_down_too_and_is_told_again() -> None:
    """A store that is down must not be asked by every search."""
    repairs, clock = Repairs(failing(DOWN)), Clock()
    healer = Healer(repairs, PATIENT, clock=clock)
    assert healer.heal("1").error is DOWN
    again = healer.heal("1")
    assert (again.healing, again.error) == (Healing.COOLING_DOWN, DOWN)
    assert repairs.owners == ["1"]
    healer.close()


def test_owners_that_have_cooled_down_are_forgotten() -> None:
    """A process that runs for months must not remember everybody it ever healed."""
    clock = Clock()
    healer = Healer(Repairs(), PATIENT, clock=clock)
    for number in range(100):
        healer.heal(str(number))
        clock.now += 31
    assert len(healer._ended) <= 2
    healer.close()


# --- outcomes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ended", "healing"),
    [
        (report(), Healing.HEALED),
        (report(skipped=True), Healing.NOT_NEEDED),
        (report(Outcome.FAILED, error=DOWN), Healing.FAILED),
        (report(Outcome.UNKNOWN, error=DOWN), Healing.FAILED),
        (report(Outcome.IN_MOTION), Healing.FAILED),
        (report(Outcome.NOT_FOUND, error=OwnerNotFound("1")), Healing.FAILED),
        (
            report(Outcome.DRIFT, error=SafetyStop("Nothing was deleted", why="much.", fix="look")),
            Healing.FAILED,
        ),
    ],
    ids=["repaired", "in-sync", "failed", "unknown", "in-motion", "not-found", "stopped"],
)
def test_only_a_verified_repair_counts_as_healed(ended: SyncReport, healing: Healing) -> None:
    """Unknown is not in sync."""
    healer = Healer(Repairs(lambda: ended), PATIENT)
    heal = healer.heal("1")
    assert (heal.healing, heal.healed) == (healing, healing is Healing.HEALED)
    assert (heal.report, heal.error) == (ended, ended.error)
    healer.close()


def test_a_bug_in_the_background_becomes_an_answer_and_a_log_without_the_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nobody else would hear of it, and its message may quote a profile."""
    healer = Healer(Repairs(failing(RuntimeError("SECRET-PROFILE-TEXT"))), PATIENT)
    with caplog.at_level(logging.DEBUG, "undrift"):
        heal = healer.heal("1")
    assert heal.healing is Healing.FAILED
    assert heal.error is not None
    assert "RuntimeError" in heal.error.why
    assert "SECRET" not in str(heal.error) + caplog.text
    assert [record.levelname for record in caplog.records] == ["INFO", "WARNING"]
    healer.close()


# --- off --------------------------------------------------------------------------------------


def test_switched_off_nothing_is_repaired() -> None:
    """By the policy."""
    repairs = Repairs()
    healer = Healer(repairs, NO_HEALING)
    assert healer.heal("1").healing is Healing.SWITCHED_OFF
    assert healer.mark("1").healing is Healing.SWITCHED_OFF
    assert repairs.owners == []
    healer.close()


def test_closing_waits_for_what_runs_and_begins_nothing_more() -> None:
    """Connections may go when it returns."""
    repairs = Repairs(waits=True)
    healer = Healer(repairs, PATIENT)
    healer.mark("1")
    assert repairs.begun.wait(60)
    assert not healer.is_over
    with ThreadPoolExecutor(1) as threads:
        closing = threads.submit(healer.close)
        repairs.go.set()
        closing.result(60)
    assert healer.heal("2").healing is Healing.SWITCHED_OFF
    assert repairs.owners == ["1"]
    healer.close()


def test_closing_answers_those_whose_heal_has_not_begun() -> None:
    """At once, and without an exception: all workers are busy, and nobody will get to it."""
    repairs = Repairs(waits=True)
    healer = Healer(repairs, HealPolicy(wait_seconds=60))
    for number in range(HEAL_WORKERS):
        healer.mark(f"busy {number}")
    with ThreadPoolExecutor(2) as threads:
        waiting = threads.submit(healer.heal, "queued")
        while "queued" not in healer._running:
            pass
        closing = threads.submit(healer.close)
        assert waiting.result(30).healing is Healing.SWITCHED_OFF
        assert not closing.done()  # it waits for what runs
        repairs.go.set()
        closing.result(30)
    assert "queued" not in repairs.owners
    assert healer.is_over


def test_a_heal_that_outlasts_its_close_is_told_to_end() -> None:
    """Its connections are gone; embedding what can not be written would be paid for nothing."""
    repairs = Repairs(waits=True)
    healer = Healer(repairs, HealPolicy(wait_seconds=0.01))
    embedder = InterruptibleEmbedder(HashingEmbedder(4), lambda: healer.is_over)
    healer.mark("1")
    assert embedder.embed(["a"]).shape == (1, 4)
    healer.close()
    with pytest.raises(EmbeddingFailed, match="cut off"):
        embedder.embed(["a"])
    repairs.go.set()


def test_thousands_of_owners_are_healed_by_a_few_threads() -> None:
    """A wave of stale hits must not take over the process."""
    lock, at_once, most = Lock(), 0, 0

    def repair(owner_id: str) -> SyncReport:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        with lock:
            at_once -= 1
        return report()

    healer = Healer(repair, PATIENT)
    owners = [str(number) for number in range(3_000)]
    for owner in owners:
        healer.mark(owner)
    states = {healer.heal(owner).healing for owner in owners}
    assert states <= {Healing.HEALED, Healing.COOLING_DOWN}
    assert len(healer._ended) == len(owners)
    assert 1 <= most <= HEAL_WORKERS
    healer.close()


# --- no thread ----------------------------------------------------------------------------------


@contextmanager
def no_more_threads() -> Iterator[None]:
    """The system refuses every new thread, as at its limit: no stack is that large."""
    before = threading.stack_size(1 << 47)
    try:
        yield
    finally:
        threading.stack_size(before)


def test_control_without_a_thread_nothing_can_be_begun() -> None:
    """What would come out of a search."""
    with no_more_threads(), pytest.raises(RuntimeError, match="thread"):
        threading.Thread(target=print).start()


def test_a_heal_that_gets_no_thread_is_answered_as_failed(caplog: pytest.LogCaptureFixture) -> None:
    """The search that met the drift has good hits to return; the next one tries again."""
    repairs, clock = Repairs(), Clock()
    healer = Healer(repairs, PATIENT, clock=clock)
    with no_more_threads():
        failed = [healer.mark("1"), healer.heal("2")]
        assert healer.mark("1").healing is Healing.COOLING_DOWN
    for found in failed:
        assert found.healing is Healing.FAILED
        assert found.error is not None
        assert "thread" in found.error.why
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2
    clock.now += 30
    assert healer.heal("1").healing is Healing.HEALED
    assert repairs.owners == ["1"]
    healer.close()


def test_a_heal_that_gets_no_thread_of_its_own_waits_for_one_that_runs() -> None:
    """It comes later, but it comes."""
    repairs = Repairs(waits=True)
    healer = Healer(repairs, PATIENT)
    healer.mark("1")
    with no_more_threads():
        assert healer.mark("2").healing is Healing.PENDING
    repairs.go.set()
    assert healer.heal("2").healing in (Healing.HEALED, Healing.COOLING_DOWN)
    assert repairs.owners == ["1", "2"]
    healer.close()
