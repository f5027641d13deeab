"""A real watch under load: processes of the command, a durable PostgreSQL, and a slow service.

The server stamps every commit, so a change's freshness is the time from the commit of the profile
to the commit of its vector, without a clock of ours.
"""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psycopg

from benchmarks.load_model import Change, Costs, Crew, Line, Load, Pace
from benchmarks.load_service import DIMENSION, INSTANT, EmbeddingService
from benchmarks.profiles import profile
from benchmarks.watch import await_clean

START_SECONDS = 60.0
WARM_UP_OWNERS = 20
BURSTS = (1, 2, 5, 10, 20, 50, 100)
ROUNDS = 3
CALIBRATION_PACE = Pace(call_seconds=0.1, text_seconds=0.005)
_UNDRIFT = str(Path(sys.executable).with_name("undrift"))

# Every text is new to everybody, and says which change it is of.
_CHANGE = """
UPDATE profiles SET filtered_data = jsonb_set(
    filtered_data, '{skills,0,name}', to_jsonb(format('load %%s %%s', %(run)s::int, user_id))
) WHERE user_id BETWEEN %(first)s AND %(last)s"""
_CHANGES = """
SELECT p.user_id, extract(epoch FROM pg_xact_commit_timestamp(p.xmin))::float8,
    extract(epoch FROM pg_xact_commit_timestamp(v.xmin))::float8
FROM profiles p
JOIN undrift.vectors v ON v.owner_id = p.user_id::text AND v.kind = 'skill'
    AND v.text LIKE (p.filtered_data #>> '{skills,0,name}') || '%%'
WHERE p.user_id <= %(owners)s AND p.filtered_data #>> '{skills,0,name}' LIKE %(run)s
ORDER BY p.user_id"""


class Batch(NamedTuple):
    """What became of the users who were embedded for together; seconds by the machine's clock."""

    owners: int
    asked: float
    answered: float
    published: float
    ended: float


class Watched(NamedTuple):
    """A watch that has warmed up."""

    connection: psycopg.Connection
    log: Path


class Arena:
    """One database of users in sync, and the service that embedded them.

    Args:
        url: of an empty PostgreSQL that tracks commit timestamps.
        owners: how many users can be changed in a run.
    """

    def __init__(self, url: str, service: EmbeddingService, owners: int) -> None:
        self._url = url
        self._service = service
        self._owners = owners
        self._runs = 0
        self._environment = os.environ | {
            "DATABASE_URL": url,
            "VECTOR_URL": url,
            "UNDRIFT_EMBEDDER": "openai:slow",
            "UNDRIFT_EMBEDDER__BASE_URL": service.url,
            "UNDRIFT_EMBEDDER__DIMENSION": str(DIMENSION),
            "OPENAI_API_KEY": "none",
        }

    def prepare(self) -> None:
        """Fill the source, sync it, and install the triggers."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute(
                "CREATE TABLE profiles (user_id bigint PRIMARY KEY, filtered_data jsonb NOT NULL)"
            )
            with connection.cursor().copy("COPY profiles FROM STDIN") as copy:
                for owner in range(1, self._owners + WARM_UP_OWNERS + 1):
                    copy.write_row((owner, json.dumps(profile(owner))))
        self._service.set_pace(INSTANT)
        for command in (["sync", "--all"], ["triggers", "install"]):
            subprocess.run(
                [_UNDRIFT, *command], env=self._environment, check=True, capture_output=True
            )

    def run(self, load: Load, crew: Crew, pace: Pace) -> list[Change]:
        """Commit the changes of *load* beside a watch; when each was committed, and was fresh."""
        arrivals = load.arrivals()
        with self._watching(crew, pace) as watched:
            connection = watched.connection
            began, epoch = time.monotonic(), time.time()
            for owner, arrival in enumerate(arrivals, start=1):
                pause = began + arrival - time.monotonic()
                if pause > 0:
                    time.sleep(pause)
                self._change(connection, owner, owner)
            await_clean(connection, longest=300.0)
            found = self._changes(connection)
        assert len(found) == len(arrivals), f"{len(found)} of {len(arrivals)} changes arrived"
        return [Change(committed - epoch, fresh - epoch) for committed, fresh in found.values()]

    def calibrate(self, bursts: Sequence[int] = BURSTS, rounds: int = ROUNDS) -> Costs:
        """What a batch costs, from bursts that a worker finds whenever it is done with the last.

        A burst is committed while the one before it is being embedded, so that no wait for the next
        look comes between them.
        """
        sizes = [size for _ in range(rounds) for size in (*bursts, *reversed(bursts))]
        assert sum(sizes) <= self._owners, "there are too few users"
        with self._watching(Crew(workers=1), CALIBRATION_PACE) as watched:
            connection = watched.connection
            first = 1
            for number, size in enumerate(sizes):
                self._await_taken(number)
                self._change(connection, first, first + size - 1)
                first += size
            await_clean(connection)
            batches = self._batches(self._changes(connection), watched.log)
        assert [batch.owners for batch in batches] == sizes, "bursts were not taken one by one"
        return costs_of(batches)

    # --- a watch ------------------------------------------------------------------------------

    @contextmanager
    def _watching(self, crew: Crew, pace: Pace) -> Iterator[Watched]:
        """A watch that has warmed up; ended as a service manager ends it."""
        self._runs += 1
        command = [_UNDRIFT, "watch", "--log-format", "json", "--poll", str(crew.poll_seconds)]
        command += ["--workers", str(crew.workers)]
        with (
            tempfile.TemporaryDirectory() as folder,
            psycopg.connect(self._url, autocommit=True) as connection,
        ):
            log = Path(folder) / "watch.log"
            with log.open("wb") as out:
                process = subprocess.Popen(command, env=self._environment, stderr=out)
            try:
                _await_workers(process, log, crew.workers)
                # Nothing is sent before something is to be embedded: the client is loaded now.
                self._change(connection, self._owners + 1, self._owners + WARM_UP_OWNERS)
                await_clean(connection)
                self._service.set_pace(pace)
                yield Watched(connection, log)
            finally:
                self._service.set_pace(INSTANT)
                process.send_signal(signal.SIGTERM)
                process.wait(60)

    def _change(self, connection: psycopg.Connection, first: int, last: int) -> None:
        connection.execute(_CHANGE, {"run": self._runs, "first": first, "last": last})

    def _changes(self, connection: psycopg.Connection) -> dict[str, tuple[float, float]]:
        """By user, when the change was committed and when its vector was."""
        wanted = {"owners": self._owners, "run": f"load {self._runs} %"}
        rows = connection.execute(_CHANGES, wanted).fetchall()
        return {str(owner): (committed, fresh) for owner, committed, fresh in rows}

    def _await_taken(self, requests: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self._service.taken < requests:
            assert time.monotonic() < deadline, "the watch embeds nothing"
            time.sleep(0.005)

    def _batches(self, found: dict[str, tuple[float, float]], log: Path) -> list[Batch]:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        told = {  # the last one of each user
            line["owner"]: datetime.fromisoformat(line["ts"]).timestamp()
            for line in lines
            if line.get("action") == "watch.synced"
        }
        batches = []
        for call in self._service.calls:
            owners = {re.match(r"load \d+ (\d+)", text)[1] for text in call.texts}  # type: ignore[index]
            published = max(found[owner][1] for owner in owners)
            ended = max(told[owner] for owner in owners)
            batches.append(Batch(len(owners), call.began, call.ended, published, ended))
        return batches


def costs_of(batches: Sequence[Batch]) -> Costs:
    """What *batches* cost that followed each other at once.

    Lines through the medians of each size, and how every one of them lies to these lines.
    """
    costs = Costs(
        before=_line([(b.owners, b.asked - last.ended) for last, b in pairwise(batches)]),
        publish=_line([(b.owners, b.published - b.answered) for b in batches]),
        after=_line([(b.owners, b.ended - b.published) for b in batches]),
    )
    spread = [_times(last, batch, costs) for last, batch in pairwise(batches)]
    return replace(costs, spread=tuple(sorted(round(times, 2) for times in spread)))


def _times(last: Batch, batch: Batch, costs: Costs) -> float:
    """What *batch* took behind *last*, without the embedding, in parts of what *costs* say."""
    took = batch.ended - last.ended - (batch.answered - batch.asked)
    said = sum(part.seconds(batch.owners) for part in (costs.before, costs.publish, costs.after))
    return took / said


def _line(points: Sequence[tuple[int, float]]) -> Line:
    by_size: dict[int, list[float]] = {}
    for size, seconds in points:
        by_size.setdefault(size, []).append(seconds)
    medians = {size: statistics.median(found) for size, found in by_size.items()}
    each, fixed = statistics.linear_regression(list(medians), list(medians.values()))
    return Line(max(fixed, 0.0), max(each, 0.0))


def _await_workers(process: subprocess.Popen[bytes], log: Path, workers: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while log.read_text().count('"watch.begin"') < workers:
        assert process.poll() is None, f"the watch has ended:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"the watch did not begin:\n{log.read_text()}"
        time.sleep(0.05)
