"""``python -m kill_loop``: kill workers at work, and see whether anything is ever lost."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from kill_loop.actors import LEASE_SECONDS
from kill_loop.arena import Arena, Other, places
from kill_loop.loop import WORKERS, Round, run_rounds
from support.behind.qdrant import BehindQdrant
from support.behind.redis import BehindRedis
from support.postgres import PostgresServer
from support.qdrant_server import QdrantServer
from support.redis_server import RedisServer
from support.sides import ORIGIN


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the loop and its control; 1 if one shows a fault, or if the control shows none."""
    options = _parser().parse_args(arguments)
    with (
        tempfile.TemporaryDirectory() as folder,
        _databases(options.databases) as databases,
        _others(options.stores) as others,
    ):
        found = _run(options, Path(folder) / "loop", databases[:3], others, is_naive=False)
        control = _run(options, Path(folder) / "control", databases[3:], (), is_naive=True)
    answer = {"seed": options.seed, **_figures(found), "control": _figures(control)}
    if options.output is not None:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(answer, indent=2) + "\n")
    print(json.dumps(answer, indent=2))
    is_right = not any(r.has_diverged or r.gaps or r.older or r.broken for r in found)
    shows_faults = any(r.has_diverged or r.gaps for r in control)
    return 0 if is_right and shows_faults else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="kill_loop", description=__doc__)
    parser.add_argument("--kills", type=int, default=1000, help="workers to kill, at least")
    parser.add_argument("--rounds", type=int, default=100, help="rests at which is compared")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6))
    parser.add_argument("--output", type=Path, help="a file for the figures, as JSON")
    parser.add_argument(
        "--stores",
        nargs="*",
        choices=sorted(_OTHERS),
        default=sorted(_OTHERS),
        help="in class C besides SQLite and pgvector",
    )
    parser.add_argument("--databases", nargs=6, help="empty ones with pgvector; or a new server")
    return parser


@contextmanager
def _redis() -> Iterator[Other]:
    with RedisServer() as server:
        url = f"{server.url}?index=kill_loop"
        yield Other("redis", url, lambda: BehindRedis(url, ORIGIN.kinds))


@contextmanager
def _qdrant() -> Iterator[Other]:
    with QdrantServer() as server:
        url = server.url("kill-loop")
        yield Other("qdrant", url, lambda: BehindQdrant(url, ORIGIN.kinds))


# LanceDB's threads outlive no fork; its kills are those of processes that were started for it.
_OTHERS = {"redis": _redis, "qdrant": _qdrant}


@contextmanager
def _others(names: Sequence[str]) -> Iterator[Sequence[Other]]:
    with ExitStack() as opened:
        yield [opened.enter_context(_OTHERS[name]()) for name in names]


@contextmanager
def _databases(given: Sequence[str] | None) -> Iterator[Sequence[str]]:
    if given:
        yield given
        return
    with PostgresServer() as server:
        yield [server.create_database() for _ in range(6)]


def _run(
    options: argparse.Namespace,
    folder: Path,
    databases: Sequence[str],
    others: Sequence[Other],
    *,
    is_naive: bool,
) -> list[Round]:
    folder.mkdir()
    one, two, three = databases
    with ExitStack() as opened:
        found = places(folder, (one, two, three), others)
        # What the control does is the same whether there is a state beside it or elsewhere.
        arenas = [
            opened.enter_context(Arena(place)) for place in (found[:2] if is_naive else found)
        ]
        return run_rounds(
            arenas,
            kills=max(60, min(options.kills, 100)) if is_naive else options.kills,
            rounds=max(6, min(options.rounds, 10)) if is_naive else options.rounds,
            seed=options.seed,
            is_naive=is_naive,
            tell=_tell,
        )


def _tell(ended: Round) -> None:
    clean = "never" if ended.clean_seconds is None else f"{ended.clean_seconds:.1f} s"
    print(
        f"{ended.place}: {ended.kills.total()} kills, {ended.writes} writes, clean after {clean}, "
        f"{ended.gaps} gaps in {ended.looks} looks, {ended.older} older, {ended.broken} broken"
        + (f", diverged: {asdict(ended.difference)}" if ended.difference else ""),
        file=sys.stderr,
        flush=True,
    )


def _figures(rounds: Sequence[Round]) -> Mapping[str, object]:
    kills: Counter[str] = sum((r.kills for r in rounds), Counter())
    by_place = {
        place: _of_place([r for r in rounds if r.place == place])
        for place in dict.fromkeys(r.place for r in rounds)
    }
    return {
        "rounds": len(rounds),
        "kills": kills.total(),
        "kills_at": dict(sorted(kills.items())),
        "diverged_rounds": sum(r.has_diverged for r in rounds),
        "writes": sum(r.writes for r in rounds),
        "looks": sum(r.looks for r in rounds),
        "gaps": sum(r.gaps for r in rounds),
        "older_content": sum(r.older for r in rounds),
        "broken_workers": sum(r.broken for r in rounds),
        "workers": WORKERS,
        "lease_seconds": LEASE_SECONDS,
        "processors": os.cpu_count(),
        "places": by_place,
    }


def _of_place(rounds: Sequence[Round]) -> Mapping[str, object]:
    recovered = [seconds for r in rounds for seconds in r.recovered_seconds]
    clean = [r.clean_seconds for r in rounds if r.clean_seconds is not None]
    return {
        "rounds": len(rounds),
        "kills": sum(r.kills.total() for r in rounds),
        "diverged_rounds": sum(r.has_diverged for r in rounds),
        "interrupted_syncs": len(recovered),
        "recovery_seconds": _percentiles(recovered),
        "clean_seconds": _percentiles(clean),
    }


def _percentiles(seconds: Sequence[float]) -> Mapping[str, float]:
    if not seconds:
        return {}
    p50, p99 = np.percentile(seconds, [50, 99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "max": round(max(seconds), 3)}


if __name__ == "__main__":
    sys.exit(main())
