"""What `MemoryState` remembers of whole fleets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from uuid import uuid4

from undrift.fingerprint import is_storable_id
from undrift.memory import Memo, Progress
from undrift.testing._memory_rows import RunRecord, Tables


class MemoryFleet:
    """The `FleetMemory` of a state in memory.

    Args:
        at_once: what the state remembers and the time by its clock; nobody else gets in meanwhile.
    """

    def __init__(self, at_once: Callable[[], AbstractContextManager[tuple[Tables, float]]]) -> None:
        self._at_once = at_once

    def memos(self, owners: Sequence[str], key: str) -> Mapping[str, Memo]:
        """What is remembered of *owners* under *key*."""
        with self._at_once() as (tables, _):
            found = ((owner_id, tables.memos.get(owner_id)) for owner_id in owners)
            return {owner_id: kept[1] for owner_id, kept in found if kept and kept[0] == key}

    def remember(self, memos: Mapping[str, Memo], key: str) -> None:
        """Remember *memos*, in place of what there was."""
        with self._at_once() as (tables, _):
            for owner_id in filter(is_storable_id, memos):
                tables.memos[owner_id] = key, memos[owner_id]

    def forget_memos(self, owners: Sequence[str]) -> None:
        """Forget what is remembered of *owners*."""
        with self._at_once() as (tables, _):
            for owner_id in owners:
                tables.memos.pop(owner_id, None)

    def begin_run(self, name: str, position: str) -> Progress:
        """Begin a run; whatever was saved under *name* is forgotten."""
        with self._at_once() as (tables, now):
            tables.runs[name] = run = RunRecord(str(uuid4()), position, now)
            return Progress(run_id=run.run_id, position=position, began_seconds=0.0)

    def run(self, name: str) -> Progress | None:
        """The run that was begun last and has not ended."""
        with self._at_once() as (tables, now):
            run = tables.runs.get(name)
            if run is None:
                return None
            seconds = max(0.0, now - run.began_at)
            return Progress(run_id=run.run_id, position=run.position, began_seconds=seconds)

    def take_run(self, name: str) -> Progress | None:
        """As `run`, under another id."""
        with self._at_once() as (tables, _):
            run = tables.runs.get(name)
            if run is not None:
                run.run_id = str(uuid4())
            return self.run(name)

    def advance(self, name: str, run_id: str, position: str, results: Sequence[str]) -> bool:
        """Save a run's position and add *results*, both or neither."""
        with self._at_once() as (tables, _):
            run = tables.runs.get(name)
            if run is None or run.run_id != run_id:
                return False
            run.position = position
            run.results.extend(results)
            return True

    def results(self, name: str, run_id: str) -> Iterator[str]:
        """Everything that was added, in that order."""
        with self._at_once() as (tables, _):
            run = tables.runs.get(name)
            found = list(run.results) if run is not None and run.run_id == run_id else []
        yield from found

    def end_run(self, name: str, run_id: str) -> None:
        """Forget the run, its position and its results."""
        with self._at_once() as (tables, _):
            run = tables.runs.get(name)
            if run is not None and run.run_id == run_id:
                del tables.runs[name]
