"""Who goes on next: one task at a time, chosen by the seed, in simulated time.

A task is a thread, since what runs in it is the real code, which knows nothing of all this. Only
the one that holds the baton runs. It hands the baton on at its steps, which are the calls that
leave the worker's process; between two steps nobody else can do anything, and so no more steps are
needed to see every interleaving that matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from threading import Lock, Thread

LONGEST_LINGER_STEPS = 60
"""What two tasks do while a third one is between two of its steps."""


class Crashed(BaseException):
    """The process of the running task has died. Not an error: nothing may catch it."""


class Ended(BaseException):
    """The simulation is over, because something was found."""


class Stuck(BaseException):
    """The tasks do not come to an end."""


@dataclass(slots=True, eq=False)
class Task:
    """One thread with a turn now and then.

    Attributes:
        wakes_at: before which it is not given a turn.
        lingers_until: the step before which others go first, if there are any.
        is_crashed: its process is dead; every further call out of it raises.
        is_doomed: it crashes at its next step.
    """

    name: str
    body: Callable[[], None]
    gate: Lock = field(default_factory=Lock)
    wakes_at: float = 0.0
    lingers_until: int = 0
    is_over: bool = False
    is_crashed: bool = False
    is_doomed: bool = False


class Scheduler:
    """Runs tasks to their ends, deterministically.

    Args:
        random: decides who goes on.
        between: called at each step, by whoever holds the baton: the world goes on too.
        max_steps: after so many the tasks count as stuck.

    Attributes:
        now: seconds; grows with every step, and whenever everybody waits.
        steps: taken so far; the order of everything that happens.
        lingering: how likely a task is to fall far behind the others at a step. With evenly drawn
            turns alone, nobody ever does much between two neighbouring steps of somebody else.
    """

    def __init__(
        self, random: Random, between: Callable[[], None], *, max_steps: int = 20_000
    ) -> None:
        self._random = random
        self._between = between
        self._max_steps = max_steps
        self._tasks: list[Task] = []
        self._main = Lock()
        self._failure: BaseException | None = None
        self.now = 1_000_000.0
        self.steps = 0
        self.lingering = 0.0
        self.current: Task | None = None

    def run(self, bodies: dict[str, Callable[[], None]]) -> None:
        """Run *bodies*, by name, until all have ended.

        Raises:
            Stuck: they do not end.
            Exception: whatever the first of them raised.
        """
        self._tasks = [Task(name, body) for name, body in bodies.items()]
        self._failure = None
        threads = [Thread(target=self._thread, args=(t,), daemon=True) for t in self._tasks]
        self._main.acquire()
        for task, thread in zip(self._tasks, threads, strict=True):
            task.gate.acquire()
            thread.start()
        self._hand_on(None)
        self._main.acquire()
        for thread in threads:
            thread.join()
        self._main.release()
        self.current = None
        if self._failure is not None:
            raise self._failure

    # --- for the running task

    def step(self) -> None:
        """Let time pass and others run; the place where the running task may die.

        Raises:
            Crashed: it did.
        """
        task = self.current
        if task is None:
            self.steps += 1
            return
        if self._failure is not None:
            raise Ended
        if task.is_crashed:
            raise Crashed
        self.steps += 1
        if self.steps > self._max_steps:
            raise Stuck(f"no end after {self.steps} steps")
        self._between()
        if self.lingering and self._random.random() < self.lingering:
            task.lingers_until = self.steps + self._random.randrange(LONGEST_LINGER_STEPS)
        self._hand_on(task)
        self.crash_if_doomed()

    def sleep(self, seconds: float) -> None:
        """Wait in simulated time."""
        task = self.current
        if task is None:
            self.now += seconds
            return
        task.wakes_at = max(task.wakes_at, self.now + seconds)
        self.step()

    def clock(self) -> float:
        """Seconds of the simulated time; the worker's own clock."""
        return self.now

    def crash_if_doomed(self) -> None:
        """Die here if it was decided so.

        Raises:
            Crashed: it was.
        """
        task = self.current
        if task is not None and task.is_doomed:
            task.is_doomed, task.is_crashed = False, True
            raise Crashed

    def restart(self) -> None:
        """The running task's process is a new one."""
        if self.current is not None:
            self.current.is_crashed = False
            self.current.is_doomed = False

    def stall(self, seconds: float) -> None:
        """Give the running task no turn for so long, whatever it is in the middle of."""
        if self.current is not None:
            self.current.wakes_at = self.now + seconds

    def doom_all(self) -> None:
        """Let everybody die at the next step."""
        for task in self._tasks:
            task.is_doomed = not task.is_over

    def wake_all(self) -> None:
        """Let everybody who hangs or waits go on."""
        for task in self._tasks:
            task.wakes_at = self.now

    # --- handing on

    def _hand_on(self, task: Task | None) -> None:
        """Give the baton to the next one, and wait for one's own next turn."""
        chosen = self._choose()
        if chosen is task:
            return
        self.current = chosen
        if chosen is None:
            self._main.release()
        else:
            chosen.gate.release()
        if task is not None and not task.is_over:
            task.gate.acquire()
            if self._failure is not None:
                raise Ended

    def _choose(self) -> Task | None:
        alive = [task for task in self._tasks if not task.is_over]
        if not alive:
            return None
        ready = [task for task in alive if task.wakes_at <= self.now]
        while not ready:
            self.now = min(task.wakes_at for task in alive)
            self._between()
            ready = [task for task in alive if task.wakes_at <= self.now]
        if len(ready) == 1:
            return ready[0]
        prompt = [task for task in ready if task.lingers_until <= self.steps]
        return self._random.choice(prompt or ready)

    def _thread(self, task: Task) -> None:
        task.gate.acquire()
        try:
            if self._failure is None:
                task.body()
        except Ended:
            pass
        except BaseException as exc:  # noqa: BLE001 - whatever it is, the main thread raises it
            self._failure = self._failure or exc
        task.is_over = True
        if self._failure is not None:
            for other in self._tasks:
                other.wakes_at = 0.0
        self._hand_on(task)
