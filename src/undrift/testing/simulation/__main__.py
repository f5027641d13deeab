"""``python -m undrift.testing.simulation``: many seeds over all cores, or one with its trace."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib import import_module
from itertools import repeat
from pathlib import Path

from undrift.ports import StoreClass
from undrift.testing.simulation.run import Run, simulate
from undrift.testing.simulation.worker import WriterFactory

REAL_WRITER = "undrift.testing.simulation.undrift:Undrift"

_CHUNK_SEEDS = 25
_SHOWN = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the seeds that *arguments* ask for.

    Returns:
        The exit code: 0 if no promise was broken, otherwise 1.
    """
    options = _parser().parse_args(arguments)
    if options.seed is not None:
        return _run_one(options)
    began = time.monotonic()
    seeds = range(options.first, options.first + options.seeds)
    broken: list[Run] = []
    classes: Counter[str] = Counter()
    steps = 0
    for run in _runs(seeds, options):
        classes[run.store_class.value] += 1
        steps += run.steps
        if run.promise and options.promise in ("", run.promise):
            broken.append(run)
            if len(broken) <= _SHOWN:
                _say(f"seed {run.seed}, class {run.store_class}: {run.what}")
            if options.first_only:
                break
    seconds = time.monotonic() - began
    of_classes = ", ".join(f"{classes[each.value]} {each.value}" for each in StoreClass)
    _say(
        f"{options.writer.partition(':')[2]}: {classes.total()} seeds ({of_classes}), "
        f"{steps} steps, {len(broken)} with a broken promise, {seconds:.1f} s"
    )
    if options.output is not None:
        _keep(options, classes, steps, broken, seconds)
    if broken:
        _say(f"Replay: {_replay(options, broken[0].seed)}")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m undrift.testing.simulation")
    parser.add_argument("--seeds", type=int, default=500, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--verbose", action="store_true", help="with --seed: print every step")
    parser.add_argument("--store-class", type=StoreClass, choices=list(StoreClass))
    parser.add_argument(
        "--writer", default=REAL_WRITER, help="another program to run, as module:name"
    )
    parser.add_argument("--first-only", action="store_true", help="stop at the first that fails")
    parser.add_argument("--promise", default="", help="count breaks of this one alone, like I4")
    parser.add_argument("--output", type=Path, help="keep the figures in this file, as JSON")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser


def _keep(
    options: argparse.Namespace,
    classes: Counter[str],
    steps: int,
    broken: Sequence[Run],
    seconds: float,
) -> None:
    figures = {
        "writer": options.writer,
        "first_seed": options.first,
        "seeds": dict(sorted(classes.items())),
        "steps": steps,
        "broken": [[run.seed, run.promise] for run in broken],
        "seconds": round(seconds, 1),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(figures, indent=2) + "\n")


def _run_one(options: argparse.Namespace) -> int:
    run = simulate(
        options.seed,
        writer=_writer(options.writer),
        store_class=options.store_class,
        trace=_say if options.verbose else None,
    )
    _say(run.what or f"seed {run.seed}, class {run.store_class}: every promise was kept")
    return 1 if run.promise else 0


def _runs(seeds: Iterable[int], options: argparse.Namespace) -> Iterator[Run]:
    if options.jobs == 1:
        yield from (_run(seed, options.writer, options.store_class) for seed in seeds)
        return
    with ProcessPoolExecutor(options.jobs) as pool, _ending(pool):
        yield from pool.map(
            _run,
            seeds,
            repeat(options.writer),
            repeat(options.store_class),
            chunksize=_CHUNK_SEEDS,
        )


@contextmanager
def _ending(pool: ProcessPoolExecutor) -> Iterator[None]:
    """Begin nothing more once the caller has heard enough."""
    try:
        yield
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _run(seed: int, writer: str, store_class: StoreClass | None) -> Run:
    return simulate(seed, writer=_writer(writer), store_class=store_class)


def _writer(name: str) -> WriterFactory:
    module, _, function = name.partition(":")
    writer: WriterFactory = getattr(import_module(module), function)
    return writer


def _replay(options: argparse.Namespace, seed: int) -> str:
    words = ["python -m undrift.testing.simulation", f"--seed {seed} --verbose"]
    if options.writer != REAL_WRITER:
        words.append(f"--writer {options.writer}")
    if options.store_class is not None:
        words.append(f"--store-class {options.store_class}")
    return " ".join(words)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        # The order of a set of strings is another one in every process; a seed's run must not be.
        os.environ["PYTHONHASHSEED"] = "0"
        again = [sys.executable, "-m", "undrift.testing.simulation", *sys.argv[1:]]
        os.execv(sys.executable, again)  # noqa: S606 - itself, with what it was given
    sys.exit(main())
