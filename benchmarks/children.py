"""Work that is measured in a process of its own, and what the processes around it take.

The child imports and connects, says so, waits for the word, works, and answers with one line of
JSON; the clock runs in between. Whoever waits for it looks at the memory of its whole tree.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from compileall import compile_dir
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
SHARE = 20
"""Looking at the memory takes at most one part in so many of the time."""

SHORTEST_SECONDS = 0.02

Job = Mapping[str, Any]
Told = dict[str, Any]


# --- in the child ---------------------------------------------------------------------------------


def serve(prepare: Callable[[Job], Callable[[], Mapping[str, Any]]]) -> None:
    """Do the job on stdin, measured.

    Args:
        prepare: imports and connects, and returns what does the work.
    """
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print, and not only by Python's means
    job = json.loads(sys.stdin.readline())
    work = prepare(job)
    gc.collect()
    gc.freeze()  # as the command line does; the libraries' own objects are passed over
    gc.set_threshold(100_000, 20, 100)
    print("ready", file=answers, flush=True)
    sys.stdin.readline()
    cpu, read, began = _cpu_seconds(), _read_bytes(), time.perf_counter()
    told = work()
    seconds = time.perf_counter() - began
    figures = {
        "seconds": seconds,
        "cpu_seconds": _cpu_seconds() - cpu,
        "file_bytes_read": _read_bytes() - read,
        **told,
    }
    print(json.dumps(figures), file=answers, flush=True)
    # Stays, connections and all, until the server's part has been read: a session that ends
    # between two looks would be missed by both.
    sys.stdin.read()


def _cpu_seconds() -> float:
    """Of this process with its threads, and of its children, living and dead."""
    dead = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() + dead.ru_utime + dead.ru_stime
    for child in psutil.Process().children(recursive=True):
        times = child.cpu_times()
        seconds += times.user + times.system
    return seconds


def _read_bytes() -> int:
    """By this process and its dead children, out of files; Linux alone counts them."""
    return psutil.Process().io_counters().read_chars if sys.platform == "linux" else 0


# --- around it ------------------------------------------------------------------------------------


def measured(module: str, *jobs: Job) -> list[Told]:
    """Have *jobs* done at the same time, each by a program of its own.

    Args:
        module: the program, which calls `serve`.

    Returns:
        What each of them told, with ``peak_mb``, the largest proportional set size of its tree.

    Raises:
        RuntimeError: a program did not do its job.
    """
    with ExitStack() as stack:
        programs = [stack.enter_context(child(module, job)) for job in jobs]
        peaks = [stack.enter_context(watched(program.pid)) for program in programs]
        for program in programs:
            say(program, "go")
        told = [answer(program) for program in programs]
    for figures, peak in zip(told, peaks, strict=True):
        figures["peak_mb"] = round(peak[0] / 1e6, 1)
    return told


@contextmanager
def child(
    module: str,
    job: Job,
    *,
    python: str | Path = sys.executable,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[str]]:
    """A program that is connected and waits; ends with the block.

    Its modules are compiled, as those of an installed program are.

    Args:
        python: of another environment, if the program needs one.
        environment: variables that it gets besides.
    """
    _compile()
    with tempfile.TemporaryFile("w+") as errors:
        program = subprocess.Popen(
            [str(python), "-m", module],
            cwd=ROOT,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": ""} | dict(environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        with program:
            try:
                say(program, json.dumps(job))
                assert program.stdout is not None
                if program.stdout.readline() != "ready\n":
                    raise ChildProcessError
                yield program
            except (BrokenPipeError, ChildProcessError, json.JSONDecodeError) as exc:
                program.kill()
                program.wait()
                errors.seek(0)
                raise RuntimeError(f"{job['do']!r} failed:\n{errors.read()[-4_000:]}") from exc
            except BaseException:
                program.kill()
                raise


@cache
def _compile() -> None:
    for package in ("src/undrift", "benchmarks"):
        compile_dir(ROOT / package, quiet=2)


def say(program: subprocess.Popen[str], line: str) -> None:
    """Give a program a line."""
    assert program.stdin is not None
    program.stdin.write(line + "\n")
    program.stdin.flush()


def answer(program: subprocess.Popen[str]) -> Told:
    """What a program tells, once it has done its job."""
    assert program.stdout is not None
    told: Told = json.loads(program.stdout.readline())
    return told


@contextmanager
def watched(pid: int) -> Iterator[list[int]]:
    """Look at the memory of a process and its children; the largest is in the list at the end."""
    peak, over = [pss_bytes(pid)], Event()

    def watch() -> None:
        pause = 0.0
        while not over.wait(max(SHORTEST_SECONDS, pause)):
            began = time.perf_counter()
            peak[0] = max(peak[0], pss_bytes(pid))
            pause = SHARE * (time.perf_counter() - began)

    thread = Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def pss_bytes(pid: int) -> int:
    """The proportional set size of a process and all its children; those that end count nothing."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return sum(map(_own_pss, [process, *process.children(recursive=True)]))
    return 0


def _own_pss(process: psutil.Process) -> int:
    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    with suppress(OSError, psutil.Error):
        if sys.platform != "linux":
            return int(process.memory_full_info().uss)
        for line in rollup.read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


def cpu_of_tree(pid: int) -> float:
    """What a server's processes have used, those that have ended included, in seconds."""
    root = psutil.Process(pid)
    ended = root.cpu_times()
    seconds = ended.user + ended.system + ended.children_user + ended.children_system
    for process in root.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds


def machine() -> dict[str, Any]:
    """Where this was measured, and how busy it was otherwise."""
    return {
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "python": sys.version.split()[0],
        "load": [round(load, 2) for load in os.getloadavg()],
    }
