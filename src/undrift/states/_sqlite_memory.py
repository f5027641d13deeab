"""What a state in SQLite remembers of whole fleets: memos by owner, and runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from uuid import uuid4

from undrift.memory import Memo, Progress
from undrift.states import _sqlite_layout as layout
from undrift.states._sqlite_session import Session, Sessions, id_list
from undrift.states._values import kept_name, kept_text, ordered, text_kept

_MEMOS = """
SELECT owner_id, raw, wanted, counts FROM undrift_state_memo
WHERE scope = :scope AND owner_id IN (SELECT value FROM json_each(:owners)) AND key = :key"""
_REMEMBER = """
INSERT INTO undrift_state_memo AS memo (scope, owner_id, key, raw, wanted, counts)
VALUES (:scope, :owner_id, :key, :raw, :wanted, :counts)
ON CONFLICT (scope, owner_id) DO UPDATE SET
    key = excluded.key, raw = excluded.raw, wanted = excluded.wanted, counts = excluded.counts
WHERE (memo.key, memo.raw, memo.wanted, memo.counts)
    <> (excluded.key, excluded.raw, excluded.wanted, excluded.counts)"""
_FORGET = """
DELETE FROM undrift_state_memo
WHERE scope = :scope AND owner_id IN (SELECT value FROM json_each(:owners))"""

_OF_NAME = "scope = :scope AND name = :name"
_OF_RUN = f"{_OF_NAME} AND run_id = :run_id"
_BEGIN = """
INSERT INTO undrift_state_run (scope, name, run_id, position, began_at)
VALUES (:scope, :name, :run_id, :position, :now)
ON CONFLICT (scope, name) DO UPDATE SET
    run_id = excluded.run_id, position = excluded.position, results = 0,
    began_at = excluded.began_at"""
_DROP_ALL = f"DELETE FROM undrift_state_result WHERE {_OF_NAME}"  # noqa: S608 - a constant
_RUN = f"""
SELECT run_id, position, max(0.0, :now - began_at)
FROM undrift_state_run WHERE {_OF_NAME}"""  # noqa: S608 - a constant
_TAKE = f"UPDATE undrift_state_run SET run_id = :run_id WHERE {_OF_NAME}"  # noqa: S608 - a constant
_TAKE_RESULTS = f"""
UPDATE undrift_state_result SET run_id = :run_id WHERE {_OF_NAME}"""  # noqa: S608 - a constant
_SAVED = f"SELECT results FROM undrift_state_run WHERE {_OF_RUN}"  # noqa: S608 - a constant
_SAVE = f"""
UPDATE undrift_state_run SET position = :position, results = :results
WHERE {_OF_RUN}"""  # noqa: S608 - a constant
_ADD = """
INSERT INTO undrift_state_result (scope, name, run_id, number, result)
VALUES (:scope, :name, :run_id, :number, :result)"""
_RESULTS = f"""
SELECT result FROM undrift_state_result
WHERE {_OF_RUN} ORDER BY number"""  # noqa: S608 - a constant
_END = f"DELETE FROM undrift_state_run WHERE {_OF_RUN}"  # noqa: S608 - a constant
_DROP_RESULTS = f"DELETE FROM undrift_state_result WHERE {_OF_RUN}"  # noqa: S608 - a constant


class SqliteMemory:
    """The `FleetMemory` beside a state, in the same file.

    Args:
        location: the file as a URL.
    """

    def __init__(self, location: str, sessions: Sessions) -> None:
        self._location = location
        self._sessions = sessions

    # --- memos

    def memos(self, owners: Sequence[str], key: str) -> Mapping[str, Memo]:
        """What is remembered of *owners* under *key*."""
        asked = ordered(owners)
        if not asked:
            return {}
        with self._reading() as session:
            rows = session.rows(_MEMOS, owners=id_list(asked), key=kept_text(key))
        return {
            owner_id: Memo(raw, wanted, text_kept(counts)) for owner_id, raw, wanted, counts in rows
        }

    def remember(self, memos: Mapping[str, Memo], key: str) -> None:
        """Remember *memos*, in place of what there was."""
        kept_key = kept_text(key)
        rows = [
            {
                "owner_id": owner_id,
                "key": kept_key,
                "raw": memos[owner_id].raw,
                "wanted": memos[owner_id].wanted,
                "counts": kept_text(memos[owner_id].counts),
            }
            for owner_id in ordered(memos)  # neighbours lie in one page
        ]
        if rows:
            with self._writing() as session:
                session.run_each(_REMEMBER, rows)

    def forget_memos(self, owners: Sequence[str]) -> None:
        """Forget what is remembered of *owners*."""
        gone = ordered(owners)
        if gone:
            with self._writing() as session:
                session.run(_FORGET, owners=id_list(gone))

    # --- progress

    def begin_run(self, name: str, position: str) -> Progress:
        """Begin a run; whatever was saved under *name* is forgotten."""
        kept, run_id = kept_name(name), str(uuid4())
        with self._writing() as session:
            session.run(_BEGIN, name=kept, run_id=run_id, position=kept_text(position))
            session.run(_DROP_ALL, name=kept)
        return Progress(run_id=run_id, position=position, began_seconds=0.0)

    def run(self, name: str) -> Progress | None:
        """The run that was begun last and has not ended."""
        with self._reading() as session:
            row = session.row(_RUN, name=kept_name(name))
        if row is None:
            return None
        run_id, position, seconds = row
        return Progress(run_id=run_id, position=text_kept(position), began_seconds=seconds)

    def take_run(self, name: str) -> Progress | None:
        """As `run`, under another id."""
        run = {"name": kept_name(name), "run_id": str(uuid4())}
        with self._writing() as session:
            session.run(_TAKE, **run)
            session.run(_TAKE_RESULTS, **run)
            row = session.row(_RUN, name=run["name"])
        if row is None:
            return None
        run_id, position, seconds = row
        return Progress(run_id=run_id, position=text_kept(position), began_seconds=seconds)

    def advance(self, name: str, run_id: str, position: str, results: Sequence[str]) -> bool:
        """Save a run's position and add *results*, both or neither."""
        run = {"name": kept_name(name), "run_id": run_id}
        with self._writing() as session:
            saved = session.row(_SAVED, **run)
            if saved is None:
                return False
            rows = [
                {**run, "number": number, "result": kept_text(result)}
                for number, result in enumerate(results, saved[0] + 1)
            ]
            session.run(_SAVE, position=kept_text(position), results=saved[0] + len(rows), **run)
            session.run_each(_ADD, rows)
        return True

    def results(self, name: str, run_id: str) -> Iterator[str]:
        """Everything that was added, in that order, from one snapshot."""
        with self._reading() as session:
            for (result,) in session.stream(_RESULTS, name=kept_name(name), run_id=run_id):
                yield text_kept(result)

    def end_run(self, name: str, run_id: str) -> None:
        """Forget the run, its position and its results."""
        run = {"name": kept_name(name), "run_id": run_id}
        with self._writing() as session:
            session.run(_END, **run)
            session.run(_DROP_RESULTS, **run)

    # --- sessions

    def _reading(self) -> AbstractContextManager[Session]:
        return self._current(self._sessions.reading)

    def _writing(self) -> AbstractContextManager[Session]:
        return self._current(self._sessions.writing)

    @contextmanager
    def _current(self, begin: Callable[[], AbstractContextManager[Session]]) -> Iterator[Session]:
        """A call that an older state refuses by its name: it has no memory yet."""
        with begin() as session:
            layout.refuse_older(session.connection, self._location)
            yield session
