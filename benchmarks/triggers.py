"""What the triggers cost a bulk writer: 100,000 profiles with them and without, in turn.

Every round writes the same rows into two equal tables of one durable server, one of which has the
triggers: they are copied in, all are changed, a thousand in a statement, a column that nobody reads
is changed in all of them, and all are deleted. Prints the ratios and writes them as JSON.

    python -m benchmarks.triggers [rows]
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import psycopg

from benchmarks.profiles import profile
from undrift.changes import CapturedSource
from undrift.mapping import DocumentTable, default_entities
from undrift.mapping import Mapping as SourceMapping
from undrift.render import Renderer
from undrift.sources import open_source

ROWS = 100_000
ROUNDS = 3
BATCH = 1_000
RESULT = Path(__file__).parent / "results" / "triggers.json"

Write = Callable[[psycopg.Connection, str, list[tuple[int, str]]], None]


def copy_in(connection: psycopg.Connection, table: str, rows: list[tuple[int, str]]) -> None:
    """Write all rows by one COPY."""
    with connection.cursor().copy(f"COPY {table} (user_id, filtered_data) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def update_in_batches(
    connection: psycopg.Connection, table: str, rows: list[tuple[int, str]]
) -> None:
    """Change every document, a thousand in one statement."""
    statement = f"""UPDATE {table} SET filtered_data = filtered_data || '{{"seen": true}}'
        WHERE user_id >= %s AND user_id < %s"""
    for begin in range(0, len(rows), BATCH):
        connection.execute(statement, (begin, begin + BATCH))


def update_what_nobody_reads(
    connection: psycopg.Connection, table: str, rows: list[tuple[int, str]]
) -> None:
    """Change a column that is not mapped in every row."""
    connection.execute(f"UPDATE {table} SET visits = visits + 1")


def delete_all(connection: psycopg.Connection, table: str, rows: list[tuple[int, str]]) -> None:
    """Delete every row."""
    connection.execute(f"DELETE FROM {table}")


WRITES: Mapping[str, Write] = {
    "copy": copy_in,
    "update, 1,000 rows a statement": update_in_batches,
    "update of an unmapped column": update_what_nobody_reads,
    "delete": delete_all,
}


def main() -> None:
    """Measure, print and write the result."""
    rows = [
        (owner, json.dumps(profile(owner)))
        for owner in range(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
    ]
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from support.postgres import PostgresServer

    settings = {"max_wal_size": "8GB", "checkpoint_timeout": "1h", "shared_buffers": "512MB"}
    with PostgresServer(durable=True, settings=settings) as server, server.database() as url:
        with psycopg.connect(url) as connection:
            for table in ("profiles", "plain"):
                connection.execute(
                    f"CREATE TABLE {table} (user_id int PRIMARY KEY, filtered_data jsonb, "
                    "visits int NOT NULL DEFAULT 0)"
                )
        install(url)
        seconds = measured(url, rows)
    report(seconds, len(rows))


def install(url: str) -> None:
    """Put the triggers on the table of profiles."""
    mapping = SourceMapping(documents=DocumentTable(), entities=default_entities())
    with closing(open_source(url, mapping, Renderer(mapping).fields)) as source:
        assert isinstance(source, CapturedSource)
        with closing(source.triggers()) as triggers:
            assert triggers.install().is_fine


def measured(url: str, rows: list[tuple[int, str]]) -> dict[str, dict[str, list[float]]]:
    """Seconds of each write by table, round by round."""
    seconds: dict[str, dict[str, list[float]]] = {
        name: {"profiles": [], "plain": []} for name in WRITES
    }
    for turn in range(ROUNDS):
        # Which of them is first changes: the second finds warmer caches.
        tables = ["profiles", "plain"] if turn % 2 else ["plain", "profiles"]
        for name, write in WRITES.items():
            for table in tables:
                with psycopg.connect(url) as connection:
                    begin = time.perf_counter()
                    write(connection, table, rows)
                    connection.commit()
                    seconds[name][table].append(time.perf_counter() - begin)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("TRUNCATE profiles, plain, undrift.change")
            connection.execute("CHECKPOINT")
    return seconds


def report(seconds: dict[str, dict[str, list[float]]], rows: int) -> None:
    """Print the ratios and write them as JSON."""
    print(f"{rows} rows, {ROUNDS} rounds, median seconds without and with triggers")
    found: dict[str, dict[str, float]] = {}
    for name, by_table in seconds.items():
        ratios = [a / b for a, b in zip(by_table["profiles"], by_table["plain"], strict=True)]
        found[name] = {
            "seconds_without": round(statistics.median(by_table["plain"]), 3),
            "seconds_with": round(statistics.median(by_table["profiles"]), 3),
            "ratio": round(statistics.median(ratios), 3),
        }
    both = {
        t: sum(statistics.median(by[t]) for by in seconds.values()) for t in ("profiles", "plain")
    }
    found["all of them"] = {
        "seconds_without": round(both["plain"], 3),
        "seconds_with": round(both["profiles"], 3),
        "ratio": round(both["profiles"] / both["plain"], 3),
    }
    for name, values in found.items():
        print(
            f"  {name:<32} {values['seconds_without']:7.3f} s {values['seconds_with']:7.3f} s"
            f"   {values['ratio']:5.2f} x"
        )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        json.dumps({"rows": rows, "rounds": ROUNDS, "writes": found}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
