"""Several processes that write to one LanceDB store: the newest stays, and each record once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from support.behind.lancedb import rows_of, vector_at
from support.lance_writers import Writer, be_naive, entities_of, newest_of, rounds
from undrift.ports import Record
from undrift.stores import _lance_layout, open_store
from undrift.stores._lance_writing import Writing
from undrift.testing.builders import DIMENSION, record, restamp, vectors

WRITERS = 3
ROUNDS = 8
MANY_ROUNDS = 100  # the first is mostly enough


@pytest.fixture
def location(tmp_path: Path) -> str:
    return f"lancedb:///{tmp_path / 'folder'}"


def doubled(location: str) -> int:
    """How many vector_ids have more than one row."""
    counts = Counter(row["vector_id"] for row in rows_of(location))
    return sum(count > 1 for count in counts.values())


def test_processes_that_write_and_bury_the_same_new_records_agree_on_the_newest(
    location: str,
) -> None:
    """While one of them merges the files in between."""
    store = open_store(location)
    store.create(DIMENSION)
    writers = [Writer(location, "write", number) for number in range(WRITERS)]
    assert len(list(rounds(writers, ROUNDS))) == ROUNDS
    newest = {id_: newest_of(WRITERS, n) for n in range(ROUNDS) for id_ in entities_of(n)}
    found = {row["entity_id"]: (row["version"], row["deleted"]) for row in rows_of(location)}
    assert found == {id_: (version, 1 - version % 2) for id_, version in newest.items()}
    assert doubled(location) == 0


def test_without_the_mark_on_the_key_they_double_records(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the same processes, as LanceDB's users write."""
    monkeypatch.setattr(_lance_layout, "PRIMARY_KEY", dict(_lance_layout.PRIMARY_KEY))
    be_naive()
    open_store(location).create(DIMENSION)
    writers = [Writer(location, "write", number, is_naive=True) for number in range(WRITERS)]
    assert any(doubled(location) for _ in rounds(writers, MANY_ROUNDS))


def test_a_delete_of_what_was_seen_spares_what_is_newer(location: str) -> None:
    """One process writes growing versions, another deletes each odd one that it sees."""
    store = open_store(location)
    store.create(DIMENSION)
    deleter = Writer(location, "delete", 1)
    for round_number in range(ROUNDS):
        deleter.begin(round_number)
        for version in range(2 * round_number + 1, 2 * round_number + 3):
            store.publish([record(f"e{n}", version=version) for n in range(5)], [])
        deleter.wait()
        assert [row["version"] for row in rows_of(location)] == [version] * 5
    deleter.close()


def test_a_write_that_keeps_the_vector_keeps_the_one_that_came_in_between(
    location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the vector before it writes; its commit is then refused, and made anew."""
    store, other = open_store(location), open_store(location)
    store.create(DIMENSION)
    first = record(text="text", version=1)
    again = record(text="text", version=2, embedding=vectors(1, seed=9)[0])
    store.publish([first], [])
    read_vectors = Writing._kept_vectors
    intruders = [again]

    def read_then_let_others_write(self: Writing, table: object, records: list[Record]) -> object:
        kept = read_vectors(self, table, records)  # type: ignore[arg-type]
        while intruders:
            other.publish([intruders.pop()], [])
        return kept

    monkeypatch.setattr(Writing, "_kept_vectors", read_then_let_others_write)
    new = restamp(first, version=3, metadata={"title": "new"})
    store.publish([new], [])
    assert list(store.stamps(["1"])) == [new.stamp]
    assert again.embedding is not None
    assert vector_at(location, first.stamp.vector_id).tobytes() == again.embedding.tobytes()
