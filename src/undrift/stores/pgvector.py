"""Vectors in PostgreSQL with pgvector, in a table of undrift's own.

Works through transaction poolers: nothing is prepared, no session state is kept, and a transaction
is used only where two statements belong together.

Safety:
    A publish is one transaction, as durable as the server's ``synchronous_commit`` says.
"""

from __future__ import annotations

import math
import re
import selectors
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import psycopg
from psycopg import Connection, IsolationLevel
from psycopg.rows import TupleRow

from undrift.errors import DimensionMismatch
from undrift.failpoints import reach
from undrift.fingerprint import is_storable_id
from undrift.model import Stamp
from undrift.ports import (
    Capabilities,
    Deletion,
    Match,
    Record,
    StoreClass,
    StoreInfo,
    Vectors,
)
from undrift.search_index import (
    IndexParameters,
    IndexStatus,
    ProgressListener,
    ignore_progress,
)
from undrift.stores import _pg_layout as layout
from undrift.stores._pg_address import parse_address
from undrift.stores._pg_build import IndexBuilder, IndexSession
from undrift.stores._pg_errors import Doing, mapped_errors
from undrift.stores._pg_index import ask_index, expression_for
from undrift.stores._pg_rights import creating
from undrift.stores._pg_sql import APPROXIMATE_FROM_RECORDS, Statements
from undrift.stores._pg_vectors import OneVector, VectorArray, learn_vectors
from undrift.stores._pool import Pool
from undrift.stores._records import batch_of, deletions_of, stamp_of, storable

CONNECT_TIMEOUT_SECONDS = 10

STATEMENT_RECORDS = 1_000
"""Records per statement: 500 and 5,000 measured up to a quarter slower, one 0.2 ms."""

STREAM_ROWS = 1_000
"""Rows libpq hands over at once, in constant memory and a single round trip."""

# A transaction has no limit; this is what one call can reasonably hold in memory.
_ATOMIC_RECORDS = 1_000_000

# Two publishers that write each other's deletes may deadlock; one of them simply begins again.
_RETRIES = 5
_PASSING = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)

# Two processes that create the store do it one after the other ("undrift" in ASCII).
_CREATE_LOCK = 0x756E6472696674

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class _Session:
    """A connection, and where its database keeps the type `vector` once it was asked."""

    __slots__ = ("connection", "vector_schema")

    def __init__(self, connection: Connection[TupleRow]) -> None:
        self.connection = connection
        self.vector_schema: str | None = None


class PgvectorStore:
    """The `VectorStore` in one PostgreSQL table.

    Args:
        url: ``postgresql://…[?table=schema.table&search=exact|approximate&…]``; a table without a
            schema is in ``undrift``, and all other parameters are libpq's.
        namespace: whose records are managed.
        keep_text: False stores neither texts nor metadata.

    Raises:
        ConfigError: the URL is malformed.
    """

    def __init__(self, url: str, *, namespace: str = "default", keep_text: bool = True) -> None:
        self._address = parse_address(url)
        self._namespace = namespace
        self._keep_text = keep_text
        self._statements = Statements(self._address.table)
        self._pool = Pool(self._open, _close, _is_usable)

    @property
    def namespace(self) -> str:
        """The namespace whose records are managed."""
        return self._namespace

    @property
    def capabilities(self) -> Capabilities:
        """Conditional writes in one transaction, any number of processes, exact search.

        With ``search=approximate`` in the URL an index on vectors may be asked, and with the
        default parameters it found 99 % of the nearest. Without it, an index that is there changes
        no result.
        """
        why_not = {"store_class": "a publish commits by itself, not together with a state"}
        if self._address.is_approximate:
            why_not["exact_owner_search"] = (
                "?search=approximate lets an index answer for owners with "
                f"{APPROXIMATE_FROM_RECORDS} records or more"
            )
        return Capabilities(
            store_class=StoreClass.CONDITIONAL,
            atomic_records=_ATOMIC_RECORDS,
            exact_owner_search=not self._address.is_approximate,
            why_not=why_not,
        )

    # --- what is there, and creating it

    def describe(self) -> StoreInfo:
        """Say what is there; reads the catalogue only."""
        with self._session("read") as session:
            found = layout.found_layout(session.connection, self._address)
        return StoreInfo(
            location=self._address.location,
            exists=found.exists,
            dimension=found.dimension,
            change_dimension=self._another_table,
        )

    def ddl(self, dimension: int) -> Sequence[str]:
        """The statements that `create` runs, except those whose object is there already."""
        statements = (layout.CREATE_EXTENSION, *layout.ddl(self._address.table, dimension))
        return [statement.as_string(None) for statement in statements]

    def create(self, dimension: int) -> None:
        """Create what is missing in one transaction, safely in several processes at once.

        Only what is missing: ``CREATE SCHEMA IF NOT EXISTS`` needs the right to create schemas
        even where the schema exists.
        """
        table = self._address.table
        with (
            self._session("create") as session,
            creating(session.connection, self._address),
            session.connection.transaction(),
        ):
            connection = session.connection
            connection.execute("SELECT pg_advisory_xact_lock(%s)", [_CREATE_LOCK])
            if layout.found_layout(connection, self._address).exists:
                return
            if not layout.has_extension(connection):
                connection.execute(layout.CREATE_EXTENSION)
            vector_schema = learn_vectors(connection, self._address.location)
            create_schema, *others = layout.ddl(table, dimension, vector_schema=vector_schema)
            if not layout.has_schema(connection, table):
                connection.execute(create_schema)
            for statement in others:
                connection.execute(statement)

    # --- reading

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """Yield every stamp of *owners* in the namespace, all from one snapshot."""
        return self._stamps(
            self._statements.stamps_of_owners,
            {"owners": storable(owners), "namespace": self._namespace},
        )

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """Yield the stamps found under *vector_ids*, whatever owner or namespace they claim."""
        return self._stamps(
            self._statements.stamps_by_vector_id, {"vector_ids": list(filter(_is_uuid, vector_ids))}
        )

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* that are not of the namespace."""
        parameters = {"owners": storable(owners), "namespace": self._namespace}
        with self._session("read") as session:
            return dict(session.connection.execute(self._statements.unmanaged, parameters))

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """At most *limit* distinct owners of managed records, by code point, behind *after*."""
        statements = self._statements
        query = statements.first_owners if after is None else statements.next_owners
        parameters = {"after": after, "namespace": self._namespace, "limit": limit}
        with self._session("read") as session:
            return [owner_id for (owner_id,) in session.connection.execute(query, parameters)]

    def search(
        self,
        owner_id: str,
        vector: Vectors,
        *,
        model: str,
        kinds: Sequence[str] | None,
        limit: int,
    ) -> Sequence[Match]:
        """The nearest records of *owner_id* and *model*, by a scan of the owner's rows.

        With ``search=approximate`` a large owner's come from the index, if that gives as many as
        were asked for.
        """
        if limit < 1 or not is_storable_id(owner_id):
            return []
        parameters = {
            "owner_id": owner_id,
            "namespace": self._namespace,
            "model": model,
            "kinds": None if kinds is None else storable(kinds),
            "vector": OneVector(vector),
            "limit": limit,
        }
        with self._session("read") as session:
            try:
                rows = self._nearest(session, parameters, len(vector))
            except psycopg.DataError as error:
                mismatch = self._dimension_mismatch(vector, model)
                if mismatch.found == mismatch.expected:
                    raise  # something else is wrong with the data
                raise mismatch from error
        # A record that somebody gave a zero vector has no similarity.
        return [_match(row) for row in rows if not math.isnan(row[-1])]

    def _nearest(
        self, session: _Session, parameters: Mapping[str, object], dimension: int
    ) -> Sequence[TupleRow]:
        schema = self._vector_schema(session)
        if self._address.is_approximate:
            query = self._statements.approximate_search(schema, expression_for(dimension))
            large = {**parameters, "enough": APPROXIMATE_FROM_RECORDS}
            rows = ask_index(session.connection, self._statements.is_large, query, large)
            if rows is not None and len(rows) == parameters["limit"]:
                return rows
        return session.connection.execute(self._statements.search(schema), parameters).fetchall()

    # --- the search index

    def index_status(self) -> IndexStatus:
        """What there is of an HNSW index, and what an exact search costs; changes nothing."""
        return self._index_builder().status()

    def index_ddl(self, parameters: IndexParameters) -> Sequence[str]:
        """The statements that `build_index` runs, for people."""
        return self._index_builder().ddl(parameters)

    def build_index(
        self, parameters: IndexParameters, listener: ProgressListener = ignore_progress
    ) -> IndexStatus:
        """Build the index CONCURRENTLY, over a connection of its own that goes to the server."""
        builder = self._index_builder()
        said = builder.build(parameters, listener)
        status = builder.status()
        return replace(status, notes=(*said, *status.notes))

    def _index_builder(self) -> IndexBuilder:
        @contextmanager
        def sessions(doing: Doing) -> Iterator[IndexSession]:
            with self._session(doing) as session:
                yield IndexSession(session.connection, self._vector_schema(session))

        return IndexBuilder(
            address=self._address,
            statements=self._statements,
            sessions=sessions,
            connect=lambda options: self._open(options).connection,
        )

    # --- writing

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Write, then delete, in one transaction; the port says what applies."""
        batch = batch_of(writes, self._namespace, keep_text=self._keep_text)
        gone = [deletion for deletion in deletions_of(deletes) if _is_uuid(deletion.vector_id)]
        if not batch and not gone:
            return
        with mapped_errors(self._address, "write"):
            for _ in range(_RETRIES):
                with suppress(*_PASSING):
                    self._publish_once(batch, gone)
                    return
            self._publish_once(batch, gone)

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._pool.close()

    def _publish_once(self, batch: Sequence[Record], gone: Sequence[Deletion]) -> None:
        puts = [record for record in batch if record.embedding is not None]
        restamps = [record for record in batch if record.embedding is None]
        with self._pool.connection() as session:
            self._vector_schema(session)
            execute = session.connection.execute
            with session.connection.transaction():
                reach("store.publish.begun")
                for part in _parts(puts):
                    vectors = [record.embedding for record in part if record.embedding is not None]
                    execute(self._statements.put, [*_columns(part), VectorArray(vectors)])
                for part in _parts(restamps):
                    execute(self._statements.restamp, _columns(part))
                reach("store.publish.written")
                if gone:
                    execute(self._statements.delete, self._delete_parameters(gone))
                reach("store.publish.deleted")
            reach("store.publish.committed")

    def _delete_parameters(self, gone: Sequence[Deletion]) -> dict[str, object]:
        return {
            "owner_ids": [deletion.owner_id for deletion in gone],
            "vector_ids": [deletion.vector_id for deletion in gone],
            "versions": [deletion.version for deletion in gone],
            "namespace": self._namespace,
        }

    # --- connections

    @contextmanager
    def _session(self, doing: Doing) -> Iterator[_Session]:
        with mapped_errors(self._address, doing), self._pool.connection() as session:
            yield session

    def _open(self, options: str | None = None) -> _Session:
        given = psycopg.conninfo.conninfo_to_dict(self._address.conninfo)
        connection = psycopg.connect(
            self._address.conninfo,
            autocommit=True,
            prepare_threshold=None,  # a pooler may run the next statement on another server session
            application_name=given.get("application_name", "undrift"),
            connect_timeout=given.get("connect_timeout", CONNECT_TIMEOUT_SECONDS),
            client_encoding="utf-8",
            options=given.get("options") if options is None else options,
        )
        connection.isolation_level = IsolationLevel.READ_COMMITTED
        return _Session(connection)

    def _vector_schema(self, session: _Session) -> str:
        if session.vector_schema is None:
            location = self._address.location
            session.vector_schema = learn_vectors(session.connection, location)
        return session.vector_schema

    def _stamps(self, query: bytes, parameters: Mapping[str, object]) -> Iterator[Stamp]:
        with self._session("read") as session, session.connection.cursor() as cursor:
            # An older libpq streams row by row, which costs three times the CPU.
            rows_at_once = STREAM_ROWS if psycopg.capabilities.has_stream_chunked() else 1
            yield from map(stamp_of, cursor.stream(query, parameters, size=rows_at_once))

    @property
    def _another_table(self) -> str:
        return "set another ?table= in VECTOR_URL and run `undrift sync --all`"

    def _dimension_mismatch(self, vector: Vectors, model: str) -> DimensionMismatch:
        found = self.describe().dimension or 0
        return DimensionMismatch(
            expected=len(vector), found=found, model=model, fix=self._another_table
        )


def _columns(part: Sequence[Record]) -> list[list[object]]:
    """*part* column by column: the stamps', texts and metadata."""
    stamps = zip(*(record.stamp for record in part), strict=True)
    texts = [record.text for record in part]
    metadata = [record.metadata_json for record in part]
    return [*map(list, stamps), texts, metadata]


def _parts(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    for start in range(0, len(records), STATEMENT_RECORDS):
        yield records[start : start + STATEMENT_RECORDS]


def _match(row: TupleRow) -> Match:
    *stamp, text, metadata_json, score = row
    return Match(stamp_of(stamp), score, text, metadata_json)


def _is_uuid(vector_id: str) -> bool:
    return _UUID.fullmatch(vector_id) is not None


def _close(session: _Session) -> None:
    session.connection.close()


def _is_usable(session: _Session) -> bool:
    """Whether an idle session is still alive; a server speaks unasked only to say goodbye."""
    if session.connection.closed:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(session.connection.fileno(), selectors.EVENT_READ)
        return not selector.select(timeout=0)
