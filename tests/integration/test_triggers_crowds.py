"""Change capture under many writers: no deadlocks, no slow writes, nothing lost."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import psycopg
import pytest

from support.capture import Capture, of_tables
from support.sources import SourceDatabase

WRITERS = 8
DRAINERS = 3
MARKS = 1_000_000


@pytest.fixture
def notes(postgres_url: str) -> Iterator[Capture]:
    """Triggers on a table of notes, two for each of a and b."""
    database = SourceDatabase(postgres_url)
    database.execute(
        "CREATE TABLE notes (uid text, id int PRIMARY KEY, text text)",
        "INSERT INTO notes VALUES ('a', 1, 'x'), ('a', 2, 'x'), ('b', 3, 'x'), ('b', 4, 'x')",
    )
    with of_tables(database) as capture:
        capture.install()
        yield capture


def in_threads(works: Sequence[Callable[[], None]]) -> list[BaseException]:
    """Run all of *works* at once; what went wrong in them."""
    failures: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as exc:  # noqa: BLE001  handed to the test
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def crossing(url: str) -> list[BaseException]:
    """Two transactions that touch rows of a and b, and of b and a; they share no row."""
    meeting = threading.Barrier(2, timeout=30)

    def transaction(first: int, second: int) -> Callable[[], None]:
        def work() -> None:
            with psycopg.connect(url) as app:
                app.execute("SET deadlock_timeout = '50ms'")
                app.execute("UPDATE notes SET text = text || 'y' WHERE id = %s", (first,))
                meeting.wait()
                app.execute("UPDATE notes SET text = text || 'y' WHERE id = %s", (second,))

        return work

    return in_threads([transaction(1, 3), transaction(4, 2)])


def test_transactions_that_touch_owners_in_crossing_order_never_deadlock(notes: Capture) -> None:
    """Marks are appended, so that nobody waits for anybody."""
    for _ in range(5):
        assert crossing(notes.database.url) == []
    assert notes.marked() == ["a", "b"]


def test_a_counter_for_each_owner_would_deadlock(notes: Capture) -> None:
    """The control of the test above."""
    notes.triggers.remove()
    notes.database.execute(
        "CREATE TABLE counters (uid text PRIMARY KEY, generation bigint)",
        "CREATE FUNCTION count_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO counters SELECT DISTINCT uid, 1 FROM touched "
        "ON CONFLICT (uid) DO UPDATE SET generation = counters.generation + 1; "
        "RETURN NULL; END $$",
        "CREATE TRIGGER count_up AFTER UPDATE ON notes REFERENCING NEW TABLE AS touched "
        "FOR EACH STATEMENT EXECUTE FUNCTION count_up()",
        "INSERT INTO counters VALUES ('a', 0), ('b', 0)",
    )
    (failure,) = crossing(notes.database.url)
    assert isinstance(failure, psycopg.errors.DeadlockDetected)


def test_mark_of_a_slow_transaction_is_not_overtaken(notes: Capture) -> None:
    """Its id is smaller, and seen later; the control is a cursor, which never sees it."""
    url = notes.database.url
    seen_by_cursor: list[str] = []
    last_seen = 0

    def read_on() -> None:
        nonlocal last_seen
        with psycopg.connect(url) as worker:
            query = "SELECT id, owner_id FROM undrift.change WHERE id > %s ORDER BY id"
            for mark_id, owner in worker.execute(query, (last_seen,)).fetchall():
                seen_by_cursor.append(owner)
                last_seen = mark_id

    with psycopg.connect(url) as slow, psycopg.connect(url) as quick:
        slow.execute("UPDATE notes SET text = 'slow' WHERE id = 1")
        quick.execute("UPDATE notes SET text = 'quick' WHERE id = 3")
        quick.commit()
        read_on()
        first: list[str] = []
        assert notes.feed.drain(10, first.extend, lambda: None) == 1
        slow.commit()
    read_on()
    assert first == ["b"]
    assert notes.marked() == ["a"]
    assert seen_by_cursor == ["b"]


def test_nothing_is_lost_with_many_writers_and_drainers(notes: Capture) -> None:
    """Whoever is marked is looked at; after the last write everybody's last state has been seen."""
    url = notes.database.url
    notes.database.execute(
        "INSERT INTO notes SELECT 'u' || n, n, '0' FROM generate_series(10, 29) AS n"
    )
    notes.marked()
    seen: dict[str, int] = {}
    seen_lock = threading.Lock()
    is_over = threading.Event()

    def look(owners: Sequence[str]) -> None:
        with psycopg.connect(url) as worker:
            query = "SELECT uid, text FROM notes WHERE uid = ANY(%s)"
            for owner, text in worker.execute(query, (list(owners),)).fetchall():
                with seen_lock:
                    seen[owner] = max(seen.get(owner, -1), int(text))

    def write(writer: int) -> Callable[[], None]:
        def work() -> None:
            with psycopg.connect(url) as app:
                for turn in range(60):
                    numbers = sorted({10 + (writer * 3 + turn * step) % 20 for step in (1, 7)})
                    for number in numbers:  # in one order, as rows would deadlock by themselves
                        app.execute(
                            "UPDATE notes SET text = (text::int + 1)::text WHERE id = %s", (number,)
                        )
                    if turn % 5 == 4:
                        app.rollback()
                    app.commit()

        return work

    def drain() -> None:
        while not is_over.is_set() or notes.feed.pending().marks:
            if notes.feed.drain(7, look, lambda: None) == 0:
                notes.feed.wait(0.005)

    failures: list[BaseException] = []
    draining = threading.Thread(target=lambda: failures.extend(in_threads([drain] * DRAINERS)))
    draining.start()
    failures += in_threads([write(number) for number in range(WRITERS)])
    is_over.set()
    draining.join()
    assert failures == []
    with psycopg.connect(url) as server:
        rows = server.execute("SELECT uid, text::int FROM notes WHERE id >= 10").fetchall()
    assert sum(count for _, count in rows) > WRITERS * 60
    assert seen == dict(rows)


def test_two_drainers_take_different_marks(notes: Capture) -> None:
    """What one has locked the other passes by, and does not wait for."""
    notes.database.execute(
        "UPDATE notes SET text = 'y' WHERE uid = 'a'", "UPDATE notes SET text = 'y' WHERE uid = 'b'"
    )
    taken: list[str] = []

    def first(owners: Sequence[str]) -> None:
        taken.extend(owners)
        assert notes.feed.drain(10, taken.extend, lambda: None) == 1

    assert notes.feed.drain(1, first, lambda: None) == 1
    assert taken == ["a", "b"]


def seconds_of_writes(url: str, count: int = 300) -> float:
    """The median of so many small writes."""
    taken = []
    with psycopg.connect(url, autocommit=True) as app:
        for turn in range(count):
            begin = time.perf_counter()
            app.execute("UPDATE notes SET text = %s WHERE id = 1", (f"turn {turn}",))
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def test_a_million_unread_marks_slow_nobody_down_and_are_drained(notes: Capture) -> None:
    """No watcher for a long time: the application notices nothing."""
    url = notes.database.url
    seconds_of_writes(url)
    without = seconds_of_writes(url)
    notes.database.execute(
        "INSERT INTO undrift.change (owner_id) "
        f"SELECT 'u' || n % 5000 FROM generate_series(1, {MARKS}) AS n"
    )
    with_marks = seconds_of_writes(url)
    assert with_marks < 3 * without, (with_marks, without)
    assert notes.feed.pending().marks > MARKS
    owners: set[str] = set()
    taken = 0
    while count := notes.feed.drain(50_000, owners.update, lambda: None):
        taken += count
    assert taken >= MARKS
    assert len(owners) == 5_001
    assert notes.feed.pending().marks == 0
