"""How fresh a watch keeps the vectors: ``python -m benchmarks.watch [SECONDS] [CHANGES/S]``.

A process of ``undrift watch`` beside a writer that commits changes of profiles at a steady rate, on
one durable PostgreSQL with pgvector and the hashing embedder (not semantic, so that the embedding
hides nothing). The server itself stamps every commit: the freshness of a change is the time from
the commit of the profile to the commit of its vector, without any clock of ours. Once by polling,
once with ``--notify``; beside each the bare wake-up, from the commit of a mark to the moment in
which a client that does nothing else has it. Prints the table and writes it as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import psycopg

from benchmarks.profiles import profile
from undrift import Undrift

RESULT = Path(__file__).parent / "results" / "watch.json"
POLL_SECONDS = 0.05
AIMS_MS = {"polling": {"p50": 75.0, "p99": 250.0}, "notify": {"p50": 50.0, "p99": 250.0}}

CHANGE = """
UPDATE profiles SET filtered_data = jsonb_set(
    filtered_data, '{skills,0,name}', to_jsonb('skill ' || %(number)s::text)
) WHERE user_id = %(owner)s"""
FRESHNESS = """
SELECT extract(epoch FROM pg_xact_commit_timestamp(v.xmin) - pg_xact_commit_timestamp(p.xmin))
FROM profiles p
JOIN undrift.vectors v ON v.owner_id = p.user_id::text AND v.kind = 'skill'
    AND v.text LIKE (p.filtered_data #>> '{skills,0,name}') || '%%'
WHERE p.user_id <= %(changed)s"""


def main() -> None:
    """Measure both ways of waking, print the table and write it."""
    from support.postgres import PostgresServer  # with the tests on the path, as below

    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    rate = float(sys.argv[2]) if len(sys.argv) > 2 else 50.0
    results = {}
    for way in ("polling", "notify"):
        with (
            PostgresServer(durable=True, settings={"track_commit_timestamp": "on"}) as server,
            server.database() as url,
        ):
            results[way] = measure(url, way, seconds, rate)
        print_way(way, results[way])
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        json.dumps({"seconds": seconds, "changes_per_second": rate, **results}, indent=2) + "\n"
    )


def measure(url: str, way: str, seconds: float, rate: float) -> dict[str, object]:
    """Freshness and bare wake-up of one way, in milliseconds."""
    changes = int(seconds * rate)
    prepare(url, owners=changes, notify=way == "notify")
    with psycopg.connect(url, autocommit=True) as connection, watching(url):
        await_clean(connection)
        began = time.monotonic()
        for number in range(changes):
            pause = began + number / rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            connection.execute(CHANGE, {"number": number, "owner": number + 1})
        took = time.monotonic() - began
        dirty_seconds = await_clean(connection)
        rows = connection.execute(FRESHNESS, {"changed": changes}).fetchall()
    fresh = [1000.0 * float(age) for (age,) in rows]
    assert len(fresh) == changes, f"{len(fresh)} of {changes} changes were found in the vectors"
    return {
        "freshness_ms": quantiles(fresh),
        "bare_wake_up_ms": quantiles(list(bare_wake_ups(url, way, min(seconds, 20.0), rate))),
        "achieved_changes_per_second": round(changes / took, 1),
        "seconds_until_nobody_was_dirty": round(dirty_seconds, 2),
        "changes": changes,
    }


def prepare(url: str, *, owners: int, notify: bool) -> None:
    """Fill the source, sync it, and install the triggers."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE profiles (user_id bigint PRIMARY KEY, filtered_data jsonb NOT NULL)"
        )
        with connection.cursor().copy("COPY profiles FROM STDIN") as copy:
            for owner in range(1, owners + 1):
                copy.write_row((owner, json.dumps(profile(owner))))
    with Undrift(source=url, store=url, embedder="hashing") as sides:
        assert all(report.is_in_sync for report in sides.sync_all())
        sides.triggers.install(notify=notify)


@contextmanager
def watching(url: str) -> Iterator[None]:
    """A process of the command, ended as a service manager ends it."""
    environment = os.environ | {
        "DATABASE_URL": url,
        "VECTOR_URL": url,
        "UNDRIFT_EMBEDDER": "hashing",
    }
    command = [str(Path(sys.executable).with_name("undrift")), "watch"]
    command += ["--poll", str(POLL_SECONDS)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def await_clean(connection: psycopg.Connection, *, longest: float = 120.0) -> float:
    """Wait until no mark is left and no owner is dirty; how many seconds that took."""
    began = time.monotonic()
    while time.monotonic() - began < longest:
        marks = connection.execute("SELECT count(*) FROM undrift.change").fetchone()
        dirty = connection.execute(
            "SELECT count(*) FROM undrift.owner_state JOIN undrift.state_standing USING (scope) "
            "WHERE generation > synced_generation OR owner_state.round < state_standing.round"
        ).fetchone()
        if marks == dirty == (0,):
            return time.monotonic() - began
        time.sleep(0.05)
    raise AssertionError(f"owners were still dirty after {longest} s")


def bare_wake_ups(url: str, way: str, seconds: float, rate: float) -> Iterator[float]:
    """Milliseconds from a commit to a client that waits in the same way and does nothing else."""
    seen: list[float] = []
    stopped = Event()
    with psycopg.connect(url, autocommit=True) as writer:
        writer.execute("CREATE TABLE bare (id bigint GENERATED ALWAYS AS IDENTITY, at float8)")
        waiter = Thread(target=_wait_barely, args=(url, way, seen, stopped))
        waiter.start()
        time.sleep(0.5)
        for _ in range(int(seconds * rate)):
            with writer.transaction():
                writer.execute("INSERT INTO bare (at) VALUES (%s)", (time.time(),))
                if way == "notify":
                    writer.execute("NOTIFY bare")
            time.sleep(1 / rate)
        stopped.set()
        waiter.join()
    yield from seen


def _wait_barely(url: str, way: str, seen: list[float], stopped: Event) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        if way == "notify":
            connection.execute("LISTEN bare")
        while not stopped.is_set():
            if way == "notify":
                next(connection.notifies(timeout=POLL_SECONDS, stop_after=1), None)
            else:
                time.sleep(POLL_SECONDS)
            rows = connection.execute("DELETE FROM bare RETURNING at").fetchall()
            now = time.time()
            seen.extend(1000.0 * (now - at) for (at,) in rows)


def quantiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and the largest."""
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    named = {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "max": max(values)}
    return {name: round(value, 1) for name, value in named.items()}


def print_way(way: str, result: dict[str, object]) -> None:
    """One way's lines."""
    print(f"\n{way}: {result['changes']} changes, {result['achieved_changes_per_second']} a second")
    print(f"  commit to searchable  {result['freshness_ms']} ms   aim {AIMS_MS[way]}")
    print(f"  bare wake-up          {result['bare_wake_up_ms']} ms")
    print(f"  nobody dirty after    {result['seconds_until_nobody_was_dirty']} s")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    main()
