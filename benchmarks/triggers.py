"""What the triggers cost a bulk writer: 100,000 profiles with them and without, in turn.

Every round writes the same rows into three equal tables of one durable server: one with the
triggers, one without, and one with triggers that do nothing, which is what PostgreSQL takes to keep
the rows of a statement for any trigger of statement level. The rows are copied in, all are changed,
a thousand in a statement, a column that nobody reads is changed in all of them, and all are
deleted. Prints the ratios and writes them as JSON; *rows written* sums up what a bulk writer writes
of mapped content, the first two. The server writes what is dirty to the disk between the writes and
vacuums nothing, so that no write pays for the one before it.

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
from typing import Any

import psycopg

from benchmarks.profiles import profile
from undrift.changes import CapturedSource
from undrift.mapping import DocumentTable, default_entities
from undrift.mapping import Mapping as SourceMapping
from undrift.render import Renderer
from undrift.sources import open_source

ROWS = 100_000
ROUNDS = 5
BATCH = 1_000
TABLES = {"with": "profiles", "without": "plain", "captured": "captured"}
ROWS_WRITTEN = ("copy", "update, 1,000 rows a statement")
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

    settings = {
        "max_wal_size": "8GB",
        "checkpoint_timeout": "1h",
        "shared_buffers": "1GB",
        "autovacuum": "off",
    }
    with PostgresServer(durable=True, settings=settings) as server, server.database() as url:
        with psycopg.connect(url) as connection:
            for table in TABLES.values():
                connection.execute(
                    f"CREATE TABLE {table} (user_id int PRIMARY KEY, filtered_data jsonb, "
                    "visits int NOT NULL DEFAULT 0)"
                )
            put_idle_triggers(connection, TABLES["captured"])
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


def put_idle_triggers(connection: psycopg.Connection, table: str) -> None:
    """Triggers that are given every row, and do nothing."""
    connection.execute(
        "CREATE FUNCTION idle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    )
    for event, given in (
        ("INSERT", "NEW TABLE AS written"),
        ("UPDATE", "OLD TABLE AS replaced NEW TABLE AS written"),
        ("DELETE", "OLD TABLE AS replaced"),
    ):
        connection.execute(
            f"CREATE TRIGGER idle_{event} AFTER {event} ON {table} REFERENCING {given} "
            "FOR EACH STATEMENT EXECUTE FUNCTION idle()"
        )


def measured(url: str, rows: list[tuple[int, str]]) -> dict[str, dict[str, list[float]]]:
    """Seconds of each write by kind of table, round by round."""
    seconds: dict[str, dict[str, list[float]]] = {
        name: {kind: [] for kind in TABLES} for name in WRITES
    }
    for turn in range(ROUNDS):
        # Which of them is first changes: the second finds warmer caches.
        first = turn % len(TABLES)
        kinds = list(TABLES)[first:] + list(TABLES)[:first]
        for name, write in WRITES.items():
            for kind in kinds:
                _settle(url)
                with psycopg.connect(url) as connection:
                    begin = time.perf_counter()
                    write(connection, TABLES[kind], rows)
                    connection.commit()
                    seconds[name][kind].append(time.perf_counter() - begin)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(f"TRUNCATE {', '.join(TABLES.values())}, undrift.change")
    return seconds


def _settle(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")


def table(result: Mapping[str, Any]) -> str:
    """The table of docs/how-to/change-capture.md."""
    lines = [
        f"| {result['rows']:,} profiles | without | with idle triggers | with undrift's |",
        "| --- | --- | --- | --- |",
    ]
    for name, figures in result["writes"].items():
        lines.append(
            f"| {name} | {figures['seconds_without']:.2f} s | {figures['ratio_captured']:.2f} × | "
            f"{figures['ratio']:.2f} × |"
        )
    return "\n".join(lines)


def report(seconds: dict[str, dict[str, list[float]]], rows: int) -> None:
    """Print the ratios and write them as JSON."""
    print(f"{rows} rows, {ROUNDS} rounds, median seconds; ratios to those without a trigger")
    print(f"  {'':<32} {'without':>9} {'idle':>9} {'with':>9} {'idle':>8} {'with':>8}")
    found: dict[str, dict[str, float]] = {}
    sums = {"rows written": ROWS_WRITTEN, "all of them": tuple(WRITES)}
    for name, parts in {**{name: (name,) for name in WRITES}, **sums}.items():
        median = {
            kind: sum(statistics.median(seconds[part][kind]) for part in parts) for kind in TABLES
        }
        found[name] = {
            **{f"seconds_{kind}": round(value, 3) for kind, value in median.items()},
            "ratio": round(median["with"] / median["without"], 3),
            "ratio_captured": round(median["captured"] / median["without"], 3),
        }
        print(
            f"  {name:<32} {median['without']:7.3f} s {median['captured']:7.3f} s "
            f"{median['with']:7.3f} s {found[name]['ratio_captured']:6.2f} x "
            f"{found[name]['ratio']:6.2f} x"
        )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(
        json.dumps({"rows": rows, "rounds": ROUNDS, "writes": found}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
