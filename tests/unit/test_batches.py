"""Batches are checked in pieces, and the record that spoils one is named wherever it stands."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from undrift.errors import WriteFailed
from undrift.model import Stamp
from undrift.ports import MAX_VERSION, Record
from undrift.stores._records import batch_of

GOOD = np.array([3.0, 4.0], np.float32)


def record(number: int, embedding: object = GOOD, **stamp: str | int) -> Record:
    own = Stamp(f"v{number:04}", "n", "7", "job", str(number), "f", "h", "m", 1)._replace(**stamp)  # type: ignore[arg-type]
    return Record(own, f"text {number}", "{}", embedding)  # type: ignore[arg-type]


BAD = {
    "not a number": record(300, np.array([np.nan, 1], np.float32)),
    "infinite": record(300, np.array([np.inf, 1], np.float32)),
    "too long to square": record(300, np.array([1e30, 1], np.float32)),
    "too short to square": record(300, np.array([1e-30, 0], np.float32)),
    "zero": record(300, np.zeros(2, np.float32)),
    "longer": record(300, np.ones(3, np.float32)),
    "a matrix": record(300, np.ones((2, 2), np.float32)),
    "of another type, and too long for it": record(300, np.array([300, 1], np.float16)),
    "of another namespace": record(300, namespace="other"),
    "with a NUL": record(300, entity_id="300\x00"),
    "with a lone surrogate": record(300, entity_id="300\ud800"),
    "of a negative version": record(300, version=-1),
    "of a version without end": record(300, version=MAX_VERSION),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
@pytest.mark.parametrize("place", [0, 255, 256, 600])
def test_a_bad_record_is_named_wherever_it_stands(bad: Record, place: int) -> None:
    records = [record(number) for number in range(1_000, 1_600)]
    assert len(batch_of(records, "n", keep_text=True)) == 600
    records.insert(place, bad)
    with pytest.raises(WriteFailed, match=r"300|of namespace|has the shape") as caught:
        batch_of(records, "n", keep_text=True)
    assert "nothing was written" in str(caught.value)


def test_records_without_a_vector_and_no_records_at_all_are_a_batch() -> None:
    assert batch_of([], "n", keep_text=True) == []
    assert [
        r.embedding is None for r in batch_of([record(1), record(2, None)], "n", keep_text=True)
    ]


def test_the_check_takes_little_memory_however_long_the_texts_are() -> None:
    long = [record(number)._replace(text="x" * 20_000) for number in range(2_000)]
    long[7] = long[7]._replace(text="😀" + "x" * 20_000)  # four bytes a character from here on
    tracemalloc.start()
    batch_of(long, "n", keep_text=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 60e6  # all of it in one piece would take 320 MB
