"""What a state in PostgreSQL remembers of whole fleets: memos by owner, and runs.

A memo's row is written in the order of the owners, by code point, so that no two writers wait for
each other. A run's row is what everybody locks who touches the run; its results lie beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import LiteralString, NoReturn, TypeVar
from uuid import uuid4

from psycopg.errors import InsufficientPrivilege, UndefinedTable

from undrift.errors import keep_first_line
from undrift.memory import Memo, Progress
from undrift.states._pg_address import MEMORY_TABLES, Address
from undrift.states._pg_errors import Doing, mapped_error
from undrift.states._pg_layout import Layout
from undrift.states._pg_session import Session, Sessions
from undrift.states._values import kept_name, kept_text, ordered, text_kept

T = TypeVar("T")

# What the memory explains otherwise than the state does.
_OWN = (InsufficientPrivilege, UndefinedTable)

_MEMOS: LiteralString = """
SELECT owner_id, raw, wanted, counts FROM {state_memo}
WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[]) AND key = %(key)s"""
_REMEMBER: LiteralString = """
INSERT INTO {state_memo} AS memo (scope, owner_id, key, raw, wanted, counts)
SELECT %(scope)s, owner_id, %(key)s, raw, wanted, counts
FROM unnest(%(owners)b::text[], %(raw)b::bytea[], %(wanted)b::bytea[], %(counts)b::text[])
    AS new (owner_id, raw, wanted, counts)
ORDER BY owner_id COLLATE "C"
ON CONFLICT (scope, owner_id) DO UPDATE SET
    key = excluded.key, raw = excluded.raw, wanted = excluded.wanted, counts = excluded.counts
WHERE (memo.key, memo.raw, memo.wanted, memo.counts)
    <> (excluded.key, excluded.raw, excluded.wanted, excluded.counts)"""
_HOLD: LiteralString = """
SELECT owner_id FROM {state_memo}
WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[])
ORDER BY owner_id FOR UPDATE"""
_FORGET: LiteralString = """
DELETE FROM {state_memo} WHERE scope = %(scope)s AND owner_id = ANY(%(owners)b::text[])"""

_BEGIN: LiteralString = """
INSERT INTO {state_run} (scope, name, run_id, position)
VALUES (%(scope)s, %(name)s, %(run_id)s, %(position)s)
ON CONFLICT (scope, name) DO UPDATE SET
    run_id = excluded.run_id, position = excluded.position, results = 0, began_at = now()"""
# Behind the lock on the run's row: whoever was adding to the one before is done.
_DROP_OTHERS: LiteralString = """
DELETE FROM {state_result} WHERE scope = %(scope)s AND name = %(name)s AND run_id <> %(run_id)s"""
_RUN: LiteralString = """
SELECT run_id, position, greatest(0, extract(epoch FROM now() - began_at))::float8
FROM {state_run} WHERE scope = %(scope)s AND name = %(name)s"""
_TAKE: LiteralString = """
UPDATE {state_run} SET run_id = %(run_id)s WHERE scope = %(scope)s AND name = %(name)s
RETURNING position, greatest(0, extract(epoch FROM now() - began_at))::float8"""
_TAKE_RESULTS: LiteralString = """
UPDATE {state_result} SET run_id = %(run_id)s WHERE scope = %(scope)s AND name = %(name)s"""
_ADVANCE: LiteralString = """
WITH run AS (
    UPDATE {state_run} SET
        position = %(position)s, results = results + cardinality(%(results)b::text[])
    WHERE scope = %(scope)s AND name = %(name)s AND run_id = %(run_id)s
    RETURNING results - cardinality(%(results)b::text[]) AS before
), added AS (
    INSERT INTO {state_result} (scope, name, run_id, number, result)
    SELECT %(scope)s, %(name)s, %(run_id)s, run.before + new.number, new.result
    FROM run, unnest(%(results)b::text[]) WITH ORDINALITY AS new (result, number)
)
SELECT FROM run"""
_RESULTS: LiteralString = """
SELECT result FROM {state_result}
WHERE scope = %(scope)s AND name = %(name)s AND run_id = %(run_id)s ORDER BY number"""
_END: LiteralString = """
DELETE FROM {state_run} WHERE scope = %(scope)s AND name = %(name)s AND run_id = %(run_id)s"""
_DROP_RESULTS: LiteralString = """
DELETE FROM {state_result} WHERE scope = %(scope)s AND name = %(name)s AND run_id = %(run_id)s"""


# A check can do without its memory, and does not wait for whoever has locked its tables.
_WAIT_BRIEFLY: LiteralString = "SELECT set_config('lock_timeout', '5s', true)"


class PostgresMemory:
    """The `FleetMemory` beside a state, in the same schema.

    Every call waits for a lock of somebody else's 5 seconds at most.
    """

    def __init__(self, address: Address, layout: Layout, sessions: Sessions) -> None:
        self._address = address
        self._layout = layout
        self._sessions = sessions

    # --- memos

    def memos(self, owners: Sequence[str], key: str) -> Mapping[str, Memo]:
        """What is remembered of *owners* under *key*."""
        asked = ordered(owners)
        if not asked:
            return {}
        rows = self._do(
            "read", lambda session: session.rows(_MEMOS, owners=asked, key=kept_text(key))
        )
        return {
            owner_id: Memo(raw, wanted, text_kept(counts)) for owner_id, raw, wanted, counts in rows
        }

    def remember(self, memos: Mapping[str, Memo], key: str) -> None:
        """Remember *memos*, in place of what there was."""
        owners = ordered(memos)
        if not owners:
            return
        columns = {
            "raw": [memos[owner_id].raw for owner_id in owners],
            "wanted": [memos[owner_id].wanted for owner_id in owners],
            "counts": [kept_text(memos[owner_id].counts) for owner_id in owners],
        }
        self._do(
            "write",
            lambda session: session.run(_REMEMBER, owners=owners, key=kept_text(key), **columns),
        )

    def forget_memos(self, owners: Sequence[str]) -> None:
        """Forget what is remembered of *owners*."""
        gone = ordered(owners)

        def work(session: Session) -> None:
            # Not what was remembered since: a delete locks in any order.
            held = [owner_id for (owner_id,) in session.rows(_HOLD, owners=gone)]
            session.run(_FORGET, owners=held)

        if gone:
            self._do("write", work)

    # --- progress

    def begin_run(self, name: str, position: str) -> Progress:
        """Begin a run; whatever was saved under *name* is forgotten."""
        run = {"name": kept_name(name), "run_id": str(uuid4())}

        def work(session: Session) -> None:
            session.run(_BEGIN, position=kept_text(position), **run)
            session.run(_DROP_OTHERS, **run)

        self._do("write", work)
        return Progress(run_id=run["run_id"], position=position, began_seconds=0.0)

    def run(self, name: str) -> Progress | None:
        """The run that was begun last and has not ended."""
        row = self._do("read", lambda session: session.row(_RUN, name=kept_name(name)))
        if row is None:
            return None
        run_id, position, seconds = row
        return Progress(run_id=run_id, position=text_kept(position), began_seconds=seconds)

    def take_run(self, name: str) -> Progress | None:
        """As `run`, under another id."""
        run = {"name": kept_name(name), "run_id": str(uuid4())}

        def work(session: Session) -> Progress | None:
            row = session.row(_TAKE, **run)
            if row is None:
                return None
            session.run(_TAKE_RESULTS, **run)
            position, seconds = row
            return Progress(
                run_id=run["run_id"], position=text_kept(position), began_seconds=seconds
            )

        return self._do("write", work)

    def advance(self, name: str, run_id: str, position: str, results: Sequence[str]) -> bool:
        """Save a run's position and add *results*, both or neither."""
        kept = {"position": kept_text(position), "results": [kept_text(each) for each in results]}
        saved = self._do(
            "write",
            lambda session: session.row(_ADVANCE, name=kept_name(name), run_id=run_id, **kept),
        )
        return saved is not None

    def results(self, name: str, run_id: str) -> Iterator[str]:
        """Everything that was added, in that order, from one snapshot."""
        try:
            with self._sessions.transaction("read", but=_OWN) as session:
                run = {"name": kept_name(name), "run_id": run_id}
                for (result,) in session.stream(_RESULTS, **run):
                    yield text_kept(result)
        except _OWN as error:
            self._explain(error, "read")

    def end_run(self, name: str, run_id: str) -> None:
        """Forget the run, its position and its results."""
        run = {"name": kept_name(name), "run_id": run_id}

        def work(session: Session) -> None:
            session.run(_END, **run)
            session.run(_DROP_RESULTS, **run)

        self._do("write", work)

    # --- sessions

    def _do(self, doing: Doing, work: Callable[[Session], T]) -> T:
        def limited(session: Session) -> T:
            session.run(_WAIT_BRIEFLY)
            return work(session)

        try:
            return self._sessions.together(doing, limited, but=_OWN)
        except _OWN as error:
            self._explain(error, doing)

    def _explain(self, error: UndefinedTable | InsufficientPrivilege, doing: Doing) -> NoReturn:
        """Tell an older state from none; who only checks needs no right but those on the memory."""
        if isinstance(error, UndefinedTable):
            self._sessions.once(
                "read", lambda session: self._layout.refuse_older(session.connection)
            )
        mapped = mapped_error(error, self._address, doing, MEMORY_TABLES)
        raise mapped from keep_first_line(error)
