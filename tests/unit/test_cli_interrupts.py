"""Signals: the first lets the run end well, the second ends it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest

from undrift.cli.interrupts import Interrupted, Interrupts


@contextmanager
def handler(number: int, chosen: signal.Handlers) -> Iterator[None]:
    previous = signal.signal(number, chosen)
    try:
        yield
    finally:
        signal.signal(number, previous)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_raises_and_carries_the_exit_code(number: signal.Signals, code: int) -> None:
    """And the handlers from before are back afterwards."""
    before = signal.getsignal(number)
    interrupts = Interrupts()
    with pytest.raises(Interrupted) as caught, interrupts.caught(), interrupts.raised():
        signal.raise_signal(number)
    assert (caught.value.exit_code, caught.value.name) == (code, number.name)
    assert signal.getsignal(number) is before


def test_second_signal_ends_the_process_at_once() -> None:
    """For whoever does not want to wait for the batch under way."""
    code = (
        "import signal\n"
        "from undrift.cli.interrupts import Interrupts\n"
        "interrupts = Interrupts(clock=iter([0.0, 0.6]).__next__)\n"
        "with interrupts.caught(), interrupts.raised():\n"
        "    try:\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "    finally:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 143
    assert done.stderr == "Stopping after what is under way; once more stops at once.\n"


def test_signal_that_arrives_twice_is_one_signal() -> None:
    """`timeout` sends the one it gets to its child and then to the child's group."""
    interrupts = Interrupts(clock=iter([0.0, 0.4]).__next__)
    with interrupts.caught():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
    assert interrupts.received == signal.SIGTERM


def test_lost_exception_is_raised_again_before_the_next_item() -> None:
    """An exception out of a handler can vanish, in a destructor for instance."""
    interrupts = Interrupts()
    seen = []

    def use() -> None:
        for item in interrupts.watched([1, 2, 3]):
            seen.append(item)
            if item == 2:
                with suppress(Interrupted):
                    signal.raise_signal(signal.SIGINT)

    with interrupts.caught(), interrupts.raised(), pytest.raises(Interrupted):
        use()
    assert seen == [1, 2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_outside_the_work_is_noted_and_does_not_raise(number: signal.Signals) -> None:
    """While the answer is being written: an exception would cut it off."""
    interrupts = Interrupts()
    with interrupts.caught():
        with interrupts.raised():
            pass
        signal.raise_signal(number)
        assert interrupts.received == number
    with interrupts.caught():
        assert interrupts.received == number


def test_signal_before_the_work_is_raised_when_it_begins() -> None:
    """It asked for an end, and nothing has been begun."""
    interrupts = Interrupts()
    with interrupts.caught():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted) as caught, interrupts.raised():
            raise AssertionError("the work must not begin")
    assert caught.value.exit_code == 143


def test_second_signal_ends_the_process_while_the_answer_waits_for_its_reader() -> None:
    """The first only notes itself there, and a reader that has stopped reading may never go on."""
    code = (
        "import signal\n"
        "from undrift.cli.interrupts import Interrupts\n"
        "with Interrupts(clock=iter([0.0, 0.6]).__next__).caught():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "print('unreached')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (143, "")


def test_ignored_signal_stays_ignored() -> None:
    """``nohup`` and shells that start jobs in the background mean it."""
    with handler(signal.SIGINT, signal.SIG_IGN):
        interrupts = Interrupts()
        with interrupts.caught(), interrupts.raised():
            signal.raise_signal(signal.SIGINT)


def test_thread_that_may_not_handle_signals_runs_all_the_same() -> None:
    """Handlers belong to the main thread."""
    ran = []

    def run() -> None:
        interrupts = Interrupts()
        with interrupts.caught(), interrupts.raised():
            ran.append(True)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    assert ran == [True]
