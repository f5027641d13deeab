"""What check and sync cost beside the bare work: ``python -m benchmarks.sync_cost [ENTITIES]``.

On SQLite and on PostgreSQL with pgvector, with the hashing embedder (not semantic, so that the
embedding hides nothing): initial sync, check and sync with nothing to do, one change, and the
repair of 100 lost vectors. Each is timed in turn with the bare work, five times; the ratio is the
median of the pairs.
"""

from __future__ import annotations

import gc
import json
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psycopg

from benchmarks import bare
from benchmarks.profiles import profile
from undrift import Undrift
from undrift.embedders.hashing import HashingEmbedder
from undrift.ports import Purpose, Vectors

ENTITIES_PER_OWNER = 10
ROUNDS = 5


class CountingEmbedder(HashingEmbedder):
    """The hashing embedder, counting the texts it is paid for."""

    paid = 0

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed and count."""
        self.paid += len(texts)
        return super().embed(texts, purpose)


class Backend(NamedTuple):
    """One pair of source and store, raw and through undrift."""

    name: str
    sides: bare.BareSides
    open: Callable[[CountingEmbedder], Undrift]
    execute_source: Callable[[str], None]
    execute_store: Callable[[str], None]
    empty_store: Callable[[], None]
    empty_scratch: Callable[[], None]


def main() -> None:
    """Measure both backends and print the table."""
    entities = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    owners = entities // ENTITIES_PER_OWNER
    print(f"{entities} entities of {owners} owners, hashing embedder (not semantic)")
    with sqlite_backend(owners) as backend:
        measure(backend, entities)
    with postgres_backend(owners) as backend:
        measure(backend, entities)


def measure(backend: Backend, entities: int) -> None:
    """Print one backend's lines."""
    print(f"\n{backend.name}")
    embedder = CountingEmbedder()
    with backend.open(embedder) as undrift:
        list(undrift.sync_all())  # creates the store; the bare load copies its layout
        gc.collect()
        gc.freeze()  # as the command line does; the libraries' own objects are passed over

        def initial() -> None:
            backend.empty_store()
            list(undrift.sync_all())

        def bare_initial() -> None:
            backend.empty_scratch()
            rows = bare.with_vector_ids(bare.rendered(backend.sides.documents()))
            texts = [row.text for row in rows]
            batches = [texts[start : start + 256] for start in range(0, len(texts), 256)]
            vectors = np.concatenate([HashingEmbedder().embed(batch) for batch in batches])
            backend.sides.load(rows, vectors, model=embedder.model)

        def check() -> None:
            assert all(status.is_in_sync for status in undrift.check_all())

        def loop() -> None:
            assert bare.compared(backend.sides) == entities

        def reads() -> None:
            bare.read_only(backend.sides)

        line("initial sync", initial, bare_initial, "bare render + embed + load", embedder)
        line("no-op check", check, loop, "bare loop", embedder)
        line("no-op check", check, reads, "raw reads", embedder)
        line("no-op sync", lambda: noop(undrift), loop, "bare loop", embedder)

        def one_change() -> None:
            change(backend)
            assert sum(r.embedded for r in undrift.sync_all()) == 1

        def lost() -> None:
            backend.execute_store(LOSE_100)
            reports = list(undrift.sync_all())
            assert sum(r.written for r in reports) == 100
            assert all(r.is_in_sync for r in reports)

        change(backend)
        list(undrift.sync_all())
        line("one change, synced", one_change, loop, "bare loop", embedder)
        line("100 lost, repaired", lost, loop, "bare loop", embedder)


LOSE_100 = (
    "DELETE FROM {vectors} WHERE vector_id IN (SELECT vector_id FROM {vectors}"
    " WHERE kind = 'experience' ORDER BY vector_id LIMIT 100)"
)


def noop(undrift: Undrift) -> None:
    """A sync with nothing to do."""
    assert all(report.skipped for report in undrift.sync_all())


_changes = iter(range(10**9))


def change(backend: Backend) -> None:
    """Edit one owner's row by SQL."""
    document = profile(1)
    juggling = {"id": "s_0", "name": f"Juggling {next(_changes)}"}
    document["skills"] = [juggling, {"id": "s_1", "name": "SQL"}]
    text = json.dumps(document).replace("'", "''")
    backend.execute_source(f"UPDATE profiles SET filtered_data = '{text}' WHERE user_id = 1")


def line(
    name: str,
    work: Callable[[], None],
    floor: Callable[[], None],
    what: str,
    paid: CountingEmbedder,
) -> None:
    """Time *work* and *floor* in turn and print the ratio."""
    works, floors, ratios = [], [], []
    before = paid.paid
    for _ in range(ROUNDS):
        floors.append(timed(floor))
        works.append(timed(work))
        ratios.append(works[-1] / floors[-1])
    embeddings = (paid.paid - before) // ROUNDS
    print(
        f"  {name:<20} {statistics.median(works):7.3f} s   {statistics.median(ratios):5.2f} x "
        f"{what} ({statistics.median(floors):.3f} s)   embeddings paid: {embeddings}"
    )


def timed(work: Callable[[], None]) -> float:
    """Seconds that *work* takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def sqlite_backend(owners: int) -> Iterator[Backend]:
    """Source and store in two files of a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        source, store, scratch = (str(Path(name) / f) for f in ("app.db", "vectors.db", "bare.db"))
        with closing(sqlite3.connect(source)) as connection, connection:
            connection.execute(
                "CREATE TABLE profiles (user_id INTEGER PRIMARY KEY, filtered_data TEXT)"
            )
            connection.executemany(
                "INSERT INTO profiles VALUES (?, ?)",
                ((owner, json.dumps(profile(owner))) for owner in range(1, owners + 1)),
            )

        def execute(path: str, statement: str) -> None:
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute(statement)

        def lose(statement: str) -> None:
            execute(store, statement.format(vectors="vectors"))

        def empty_store() -> None:
            lose("DELETE FROM embeddings")
            lose("DELETE FROM vectors")

        def empty_scratch() -> None:
            for path in Path(name).glob("bare.db*"):
                path.unlink()

        yield Backend(
            "SQLite source, SQLite store",
            bare.BareSqlite(source, store, scratch),
            lambda embedder: Undrift(
                source=f"sqlite:///{source}", store=f"sqlite:///{store}", embedder=embedder
            ),
            lambda statement: execute(source, statement),
            lose,
            empty_store,
            empty_scratch,
        )


@contextmanager
def postgres_backend(owners: int) -> Iterator[Backend]:
    """Source and store in one database of a real server."""
    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from support.postgres import PostgresServer

    with PostgresServer() as server, server.database() as url:
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE profiles (user_id bigint PRIMARY KEY, filtered_data jsonb)"
            )
            with cursor.copy("COPY profiles FROM STDIN") as copy:
                for owner in range(1, owners + 1):
                    copy.write_row((owner, json.dumps(profile(owner))))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ANALYZE profiles")

        def execute(statement: str) -> None:
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(statement.format(vectors="undrift.vectors").encode())

        yield Backend(
            "PostgreSQL source, pgvector store",
            bare.BarePostgres(url),
            lambda embedder: Undrift(source=url, store=url, embedder=embedder),
            lambda statement: execute(statement.replace("{", "{{").replace("}", "}}")),
            execute,
            lambda: execute("TRUNCATE undrift.vectors"),
            lambda: None,
        )


if __name__ == "__main__":
    main()
