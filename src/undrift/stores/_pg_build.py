"""Building and dropping the optional index on vectors, and saying what there is of it.

``CREATE INDEX CONCURRENTLY`` cannot run in a transaction, so what it needs of the session (no
time-outs, more memory) is asked for as the connection is opened: a pooler refuses that, or it is
read back and found missing. A ``SET`` would go to whichever server session a pooler picks, and
stay there for a stranger.

Safety:
    One build at a time: a second connection holds an advisory lock in a transaction that reads
    nothing else, so that the build does not wait for it. A pooler keeps a transaction on one
    server session, and the lock goes with the process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from threading import Event, Thread
from typing import NamedTuple

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from undrift.errors import UndriftError
from undrift.postgres import default_option
from undrift.search_index import (
    IndexParameters,
    IndexProgress,
    IndexState,
    IndexStatus,
    IndexType,
    ProgressListener,
)
from undrift.stores import _pg_index as index
from undrift.stores import _pg_index_rules as rules
from undrift.stores import _pg_layout as layout
from undrift.stores._meaning import NOT_CREATED
from undrift.stores._pg_address import Address, VectorType
from undrift.stores._pg_errors import Doing
from undrift.stores._pg_index_notes import notes
from undrift.stores._pg_sql import Statements

LOOK_EVERY_SECONDS = 1.0
NOTICED_SECONDS = 0.1
"""An exact search below this is not noticed beside reading the source and embedding the query."""

# With the table's number in the lower half ("udrx" in ASCII).
_BUILD_LOCK = 0x75647278 << 32

_SETTINGS = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
}


class IndexSession(NamedTuple):
    """A connection, the vectors' type, and the schema where the database keeps pgvector."""

    connection: Connection[TupleRow]
    vectors: VectorType
    vector_schema: str


Sessions = Callable[[Doing], AbstractContextManager[IndexSession]]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexBuilder:
    """Looks at one table's index, and builds it.

    Args:
        sessions: lends a pooled connection.
        connect: opens another with these libpq options.
    """

    address: Address
    statements: Statements
    sessions: Sessions
    connect: Callable[[str], Connection[TupleRow]]

    # --- looking

    def status(self) -> IndexStatus:
        """What there is, and what an exact search costs without it."""
        with self.sessions("read") as session:
            found, _ = self._table(session)
            indexes = index.found_indexes(session.connection, self.address.table)
            status = self._state(session.connection, found.oid, indexes)
            records, owners, most, owner_id = self._counts(session)
            seconds = self._exact_seconds(session, owner_id) if owner_id is not None else None
        status = replace(
            status,
            records=records,
            owners=owners,
            largest_owner_records=most,
            exact_search_seconds=seconds,
            is_searched=self.address.is_approximate and status.state is IndexState.VALID,
            is_worth_it=seconds is not None and seconds >= NOTICED_SECONDS,
        )
        return replace(status, notes=tuple(notes(status, self.address.table.search_index_names)))

    def ddl(self, parameters: IndexParameters) -> list[str]:
        """The statements that a build runs."""
        rules.require_sensible(parameters)
        with self.sessions("index") as session:
            _, dimension = self._table(session)
            rules.require_indexable(self.address, None, dimension)
            statements = self._creating(session, dimension, parameters)
        wanted = _SETTINGS | _memory(parameters)
        settings = [
            sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
            for name, value in wanted.items()
        ]
        return [statement.as_string(None) for statement in (*settings, *statements)]

    # --- building

    def build(self, parameters: IndexParameters, listener: ProgressListener) -> tuple[str, ...]:
        """Build the index unless it is there; what the server had to say, a sentence each."""
        rules.require_sensible(parameters)
        with self.sessions("index") as session:
            found, dimension = self._table(session)
        rules.require_indexable(self.address, found, dimension)
        with self._only_build(found.oid):
            with self.sessions("index") as session:
                ours = self._ours(session, found)
                if self._is_there(session, found, ours, parameters):
                    return ("the index was there already, so nothing was done",)
                creating = self._creating(session, dimension, parameters)
            dropping = self._dropping(ours)
            if dropping:
                # Of this the server shows no progress, and it may wait as well.
                listener(IndexProgress(phase="dropping what an earlier build left"))
            with self._watched(found.oid, listener), self._opened(parameters) as connection:
                return _run(connection, [*dropping, *creating])

    def drop(self) -> tuple[str, ...]:
        """Drop the index, an unfinished one too; what there is to say of it, a sentence each."""
        with self.sessions("index") as session:
            found, _ = self._table(session)
        with self._only_build(found.oid):
            with self.sessions("index") as session:
                ours = self._ours(session, found)
            if not ours:
                return ("undrift has built no index here, so nothing was done",)
            with self._opened(IndexParameters()) as connection:
                return _run(connection, self._dropping(ours))

    def drop_ddl(self) -> list[str]:
        """The statements that `drop` runs."""
        with self.sessions("index") as session:
            found, _ = self._table(session)
            ours = self._ours(session, found)
        return [statement.as_string(None) for statement in self._dropping(ours)]

    def _ours(self, session: IndexSession, found: index.FoundTable) -> list[index.FoundIndex]:
        """Our indexes; more than one only where a build of another type was broken off."""
        if index.is_being_built(session.connection, found.oid):
            raise rules.busy(self.address)
        names = self.address.table.search_index_names
        indexes = index.found_indexes(session.connection, self.address.table)
        return [each for each in indexes if each.name in names]

    def _is_there(
        self,
        session: IndexSession,
        found: index.FoundTable,
        ours: Sequence[index.FoundIndex],
        parameters: IndexParameters,
    ) -> bool:
        """Whether nothing is to be done; refuses what could only be done to another's index."""
        valid = next((each for each in ours if each.is_valid), None)
        if valid is not None:
            if not valid.is_as(parameters):
                raise rules.other_index(self.address, valid)
            return True
        indexes = index.found_indexes(session.connection, self.address.table)
        foreign = next((each for each in indexes if each.is_valid), None)
        if foreign is not None and not ours:
            raise rules.foreign_index(self.address, foreign.name)
        name = self.address.table.search_index_name(parameters.type)
        if name in found.names_taken and name not in [each.name for each in ours]:
            raise rules.name_taken(self.address, name)
        return False

    def _creating(
        self, session: IndexSession, dimension: int, parameters: IndexParameters
    ) -> list[sql.Composed]:
        is_learning = parameters.type is IndexType.IVFFLAT
        return index.create_statements(
            self.address.table,
            index.indexed_of(session.vectors, dimension),
            parameters,
            records=self._counts(session)[0] if is_learning else 0,
            vector_schema=session.vector_schema,
        )

    def _dropping(self, ours: Sequence[index.FoundIndex]) -> list[sql.Composed]:
        return list(map(partial(index.drop_statement, self.address.table), (o.name for o in ours)))

    @contextmanager
    def _only_build(self, oid: int) -> Iterator[None]:
        """Hold the lock that keeps a second build away; its transaction touches nothing else."""
        with self.sessions("index") as session, session.connection.transaction():
            execute = session.connection.execute
            row = execute("SELECT pg_try_advisory_xact_lock(%s)", [_BUILD_LOCK + oid]).fetchone()
            if row is None or not row[0]:
                raise rules.busy(self.address)
            # Last, as these need no snapshot: a SELECT's is kept until the next statement, and the
            # build would wait for it for ever.
            for name, value in _SETTINGS.items():
                execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), value))
            yield

    @contextmanager
    def _opened(self, parameters: IndexParameters) -> Iterator[Connection[TupleRow]]:
        """A connection that waits as long as the build takes."""
        settings = _SETTINGS | _memory(parameters)
        given = psycopg.conninfo.conninfo_to_dict(self.address.conninfo).get("options")
        asked = [f"-c {name}={value.replace(' ', '')}" for name, value in settings.items()]
        options = " ".join([str(given or default_option("options")), *asked]).strip()
        try:
            connection = self.connect(options)
        except psycopg.OperationalError as error:
            if "startup parameter" in str(error):
                raise rules.pooled(self.address, "it refuses to set them") from error
            raise
        with connection:
            for name in _SETTINGS:
                row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
                if row is None or row[0] != "0":
                    why = f"{name} is {row and row[0]}, though 0 was asked for"
                    raise rules.pooled(self.address, why)
            yield connection

    @contextmanager
    def _watched(self, oid: int, listener: ProgressListener) -> Iterator[None]:
        """Tell *listener* every second how far the build is."""
        is_over = Event()

        def look() -> None:
            while not is_over.wait(LOOK_EVERY_SECONDS):
                # Whatever keeps us from looking must not end the build.
                with suppress(UndriftError), self.sessions("read") as session:
                    progress = index.found_progress(session.connection, oid)
                    if progress is not None:
                        listener(progress)

        thread = Thread(target=look, name="undrift-index-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            is_over.set()
            thread.join()

    # --- what is found

    def _table(self, session: IndexSession) -> tuple[index.FoundTable, int]:
        found_layout = layout.found_layout(session.connection, self.address)
        found = index.found_table(session.connection, self.address.table)
        if not found_layout.exists or found is None:
            raise NOT_CREATED.error(self.address.location, "there is no such table")
        return found, found_layout.dimension or 0

    def _state(
        self, connection: Connection[TupleRow], oid: int, indexes: Sequence[index.FoundIndex]
    ) -> IndexStatus:
        status = IndexStatus(location=self.address.location, state=IndexState.NONE)
        # Ours first, unless it is invalid and another's is not.
        found = next((each for each in indexes if each.is_valid), next(iter(indexes), None))
        if found is not None:
            status = replace(
                status,
                state=IndexState.VALID if found.is_valid else IndexState.INVALID,
                name=f"{self.address.table.schema}.{found.name}",
                type=found.type,
                operator_class=found.operator_class,
                m=found.m,
                ef_construction=found.ef_construction,
                lists=found.lists,
                built_on_records=found.built_on_records,
                size_bytes=found.size_bytes,
            )
        if status.state is IndexState.VALID:
            return status
        progress = index.found_progress(connection, oid)
        if progress is not None or (found is not None and index.is_being_built(connection, oid)):
            return replace(status, state=IndexState.BUILDING, progress=progress)
        return status

    def _counts(self, session: IndexSession) -> tuple[int, int, int, str | None]:
        row = session.connection.execute(self.statements.counts, {}).fetchone()
        records, owners, most, owner_id = row if row is not None else (0, 0, 0, None)
        return int(records), int(owners), int(most), owner_id

    def _exact_seconds(self, session: IndexSession, owner_id: str) -> float:
        query = self.statements.exact_sample(session.vector_schema)
        durations = []
        for _ in range(2):  # the first one may have to read from the disk
            started = time.perf_counter()
            session.connection.execute(query, {"owner_id": owner_id}).fetchall()
            durations.append(time.perf_counter() - started)
        return min(durations)


def _run(connection: Connection[TupleRow], statements: Sequence[sql.Composed]) -> tuple[str, ...]:
    notices: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.severity_nonlocalized != "DEBUG" and diagnostic.message_primary:
            hint = f" ({diagnostic.message_hint.rstrip('.')})" if diagnostic.message_hint else ""
            notices.append(f"the server says: {diagnostic.message_primary}{hint}")

    connection.add_notice_handler(note)
    for statement in statements:
        connection.execute(statement)
    return tuple(notices)


def _memory(parameters: IndexParameters) -> dict[str, str]:
    memory = parameters.maintenance_work_mem
    return {} if memory is None else {"maintenance_work_mem": memory.replace(" ", "")}
