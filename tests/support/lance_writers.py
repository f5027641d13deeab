"""Processes that write to one LanceDB store at the same moment, round by round.

Every one knows what the others write, as it follows from the round and its number alone: so does
the test what must be there in the end. An even version is a tombstone.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Literal

from support.behind.lancedb import open_table
from support.processes import _Child
from undrift.model import Stamp
from undrift.state import ClaimableStore
from undrift.stores import _lance_layout, open_store
from undrift.testing.builders import deletion, record, tombstone

ENTITIES = 10
WRITES = 3

Job = Literal["write", "delete"]


def versions_of(writer: int, round_number: int) -> list[int]:
    """The versions that a writer gives the round's entities, one write after the other."""
    chance = random.Random(f"{writer}/{round_number}")
    return [chance.randrange(1, 1_000) for _ in range(WRITES)]


def newest_of(writers: int, round_number: int) -> int:
    """The version that must stay."""
    return max(version for n in range(writers) for version in versions_of(n, round_number))


def entities_of(round_number: int) -> list[str]:
    """What a round is about; nobody has written it before."""
    return [f"r{round_number}-e{number}" for number in range(ENTITIES)]


class Writer(_Child):
    """One of the processes."""

    def __init__(self, location: str, job: Job, number: int, *, is_naive: bool = False) -> None:
        super().__init__("support.lance_writers")
        self._send({"location": location, "job": job, "number": number, "is_naive": is_naive})

    def begin(self, round_number: int) -> None:
        """Let it do its part of a round."""
        self._send(round_number)

    def wait(self) -> None:
        """Wait until it has done so."""
        assert self._receive() == "done"


def rounds(writers: Sequence[Writer], count: int) -> Iterator[int]:
    """Let *writers* do *count* rounds together, one with each step; end them when that is over."""
    with ExitStack() as stack:
        for writer in writers:
            stack.callback(writer.close)
        for round_number in range(count):
            for writer in writers:
                writer.begin(round_number)
            for writer in writers:
                writer.wait()
            yield round_number


def be_naive() -> None:
    """Write as LanceDB's users do, without the mark that makes a commit name its new keys."""
    _lance_layout.PRIMARY_KEY.clear()


# --- the other end


def _write(store: ClaimableStore, number: int, round_number: int) -> None:
    for version in versions_of(number, round_number):
        records = [record(id_, version=version) for id_ in entities_of(round_number)]
        if version % 2:
            store.publish(records, [])
        else:
            store.bury([tombstone(of, version=version) for of in records])


def _delete(store: ClaimableStore, number: int, round_number: int) -> None:
    """Delete just what is seen, if its version is odd."""
    del number, round_number
    for _ in range(WRITES):
        seen: list[Stamp] = [stamp for stamp in store.stamps(["1"]) if stamp.version % 2]
        store.publish([], [deletion(stamp) for stamp in seen])


def _merge_files(location: str) -> None:
    """Merge the table's files once the others let it: LanceDB gives way to whoever writes."""
    while True:
        try:
            open_table(location).optimize(cleanup_older_than=timedelta(minutes=10))
        except RuntimeError as error:
            if "Retryable commit conflict" not in str(error):
                raise
        else:
            return


def _main() -> None:
    lines: Iterator[object] = map(json.loads, sys.stdin)
    told = next(lines)
    assert isinstance(told, dict)
    if told["is_naive"]:
        be_naive()
    store = open_store(told["location"])
    assert isinstance(store, ClaimableStore)
    work: Callable[[ClaimableStore, int, int], None] = {"write": _write, "delete": _delete}[
        told["job"]
    ]
    for round_number in lines:
        assert isinstance(round_number, int)
        work(store, told["number"], round_number)
        if told["number"] == 0 and not told["is_naive"]:
            _merge_files(told["location"])
        sys.stdout.write(json.dumps("done") + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
