"""Vectors in PostgreSQL with pgvector, in a table of undrift's own.

Works through transaction poolers: nothing is prepared, no session state is kept, and a transaction
is used only where two statements belong together.

Safety:
    A publish is one transaction, as durable as the server's ``synchronous_commit`` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from undrift.adoption import StoreFields
from undrift.digests import FINGERPRINT_CHARACTERS, RecordsDigest
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
from undrift.state import Claim, Expected, Fence, Tombstone
from undrift.stores import _pg_layout as layout
from undrift.stores._pg_address import HALF, WHOLE, parse_address
from undrift.stores._pg_asking import ask_index
from undrift.stores._pg_build import IndexBuilder, IndexSession
from undrift.stores._pg_claims import ClaimTable
from undrift.stores._pg_errors import Doing, mapped_errors
from undrift.stores._pg_index import indexed_of
from undrift.stores._pg_rights import creating
from undrift.stores._pg_sessions import Session, Sessions
from undrift.stores._pg_sql import APPROXIMATE_FROM_RECORDS, BY_INDEX, FEW_OWNERS, Statements
from undrift.stores._pg_vectors import OneVector
from undrift.stores._pg_writing import Writing, is_uuid, require_halves
from undrift.stores._records import (
    Batch,
    Fenced,
    batch_of,
    collectable,
    deletions_of,
    stamp_of,
    storable,
    tombstones_of,
)
from undrift.stores.pgvector_adopted import AdoptedPgvectorStore

T = TypeVar("T")

STREAM_ROWS = 1_000
"""Rows libpq hands over at once, in constant memory and a single round trip."""

# A transaction has no limit; this is what one call can reasonably hold in memory.
_ATOMIC_RECORDS = 1_000_000

# Two publishers that write each other's deletes may deadlock; one of them simply begins again.
_RETRIES = 5
_PASSING = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure)

# Two processes that create the store do it one after the other ("undrift" in ASCII).
_LOCK_CREATION = f"SELECT pg_advisory_xact_lock({0x756E6472696674})"


def open_at(
    url: str, *, namespace: str, keep_text: bool, fields: StoreFields | None
) -> PgvectorStore | AdoptedPgvectorStore:
    """The store at ``postgresql://…``, with *fields* over a table that another program filled."""
    if fields is not None:
        return AdoptedPgvectorStore(url, namespace=namespace, fields=fields)
    return PgvectorStore(url, namespace=namespace, keep_text=keep_text)


class PgvectorStore:
    """The `TransactionalStore` in one PostgreSQL table.

    Args:
        url: ``postgresql://…[?table=schema.table&search=exact|approximate&vectors=halfvec&…]``; a
            table without a schema is in ``undrift``, and all other parameters are libpq's.
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
        self._writing = Writing(self._statements, namespace)
        self._claims = ClaimTable(self._address, namespace)
        self._sessions = Sessions(self._address)
        self._vectors = self._address.vectors or WHOLE

    @property
    def namespace(self) -> str:
        """The namespace whose records are managed."""
        return self._namespace

    @property
    def capabilities(self) -> Capabilities:
        """One transaction with a state in the same database, any number of processes, exact search.

        With ``search=approximate`` in the URL an index on vectors may be asked; of vectors in
        clusters, as embeddings are, it found all of the nearest. Without it, an index that is there
        changes no result. Whether vectors are halved says the address, or the table, once
        `describe` has looked.
        """
        why_not = {}
        if self._vectors == HALF:
            why_not["exact_vectors"] = (
                "halfvec rounds every component to 11 bits, and a search compares what it stores"
            )
        if self._address.is_approximate:
            why_not["exact_owner_search"] = (
                "?search=approximate lets an index answer for owners with "
                f"{APPROXIMATE_FROM_RECORDS} records or more"
            )
        return Capabilities(
            store_class=StoreClass.TRANSACTIONAL,
            atomic_records=_ATOMIC_RECORDS,
            exact_owner_search=not self._address.is_approximate,
            exact_vectors=self._vectors == WHOLE,
            why_not=why_not,
        )

    # --- what is there, and creating it

    def describe(self) -> StoreInfo:
        """Say what is there; reads the catalogue only."""
        with self._session("read") as session:
            found = layout.found_layout(session.connection, self._address)
        self._vectors = found.vectors or self._vectors
        return StoreInfo(
            location=self._address.location,
            exists=found.exists,
            dimension=found.dimension,
            change_dimension=self._another_table,
        )

    def ddl(self, dimension: int) -> Sequence[str]:
        """The statements that `create` runs, except those whose object is there already."""
        statements = (layout.CREATE_EXTENSION, *layout.ddl(self._address, dimension))
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
            connection.execute(_LOCK_CREATION)
            if layout.found_layout(connection, self._address).exists:
                if not self._claims.exists(connection):
                    self._claims.create(connection)
                return
            if not layout.has_extension(connection):
                connection.execute(layout.CREATE_EXTENSION)
            schema = session.vector_schema()
            create_schema, *others = layout.ddl(self._address, dimension, vector_schema=schema)
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
            self._statements.stamps_by_vector_id, {"vector_ids": list(filter(is_uuid, vector_ids))}
        )

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """Yield every tombstone of *owners* in the namespace, all from one snapshot."""
        parameters = {"owners": storable(owners), "namespace": self._namespace}
        yield from map(Tombstone._make, self._stream(self._statements.tombstones, parameters))

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* that are not of the namespace."""
        parameters = {"owners": storable(owners), "namespace": self._namespace}
        return dict(self._asked_by_index(self._statements.unmanaged, parameters, owners))

    def digests(
        self, owners: Sequence[str], *, model: str, kinds: Collection[str]
    ) -> Mapping[str, RecordsDigest]:
        """The digest of each of *owners*, computed in the server, all from one snapshot."""
        parameters = {
            "owners": storable(owners),
            "namespace": self._namespace,
            "model": model,
            "kinds": storable(kinds),
            "fingerprint_characters": FINGERPRINT_CHARACTERS,
        }
        rows = self._asked_by_index(self._statements.digests, parameters, owners)
        return {owner_id: RecordsDigest(*digest) for owner_id, *digest in rows}

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
        self, session: Session, parameters: Mapping[str, object], dimension: int
    ) -> Sequence[TupleRow]:
        kind, schema = session.vectors()
        if self._address.is_approximate:
            statements, table = self._statements, self._address.table
            query = statements.approximate_search(schema, indexed_of(kind, dimension))
            large = {**parameters, "enough": APPROXIMATE_FROM_RECORDS}
            rows = ask_index(session.connection, table, statements.is_large, query, large)
            if rows is not None and len(rows) == parameters["limit"]:
                return rows
        return session.connection.execute(self._statements.search(schema), parameters).fetchall()

    # --- the search index

    def index_status(self) -> IndexStatus:
        """What there is of an index, and what an exact search costs; changes nothing."""
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

    def drop_index_ddl(self) -> Sequence[str]:
        """The statements that `drop_index` runs, for people."""
        return self._index_builder().drop_ddl()

    def drop_index(self) -> IndexStatus:
        """Drop the index CONCURRENTLY, over a connection of its own that goes to the server."""
        builder = self._index_builder()
        said = builder.drop()
        status = builder.status()
        return replace(status, notes=(*said, *status.notes))

    def _index_builder(self) -> IndexBuilder:
        @contextmanager
        def sessions(doing: Doing) -> Iterator[IndexSession]:
            with self._session(doing) as session:
                yield IndexSession(session.connection, *session.vectors())

        return IndexBuilder(
            address=self._address,
            statements=self._statements,
            sessions=sessions,
            connect=self._sessions.connect,
        )

    # --- writing

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Write, then delete, in one transaction; the port says what applies."""
        batch = self._batch(writes, deletes)
        if not batch.is_empty:
            self._retried(partial(self._publish_once, batch, None))

    def publish_fenced(
        self,
        writes: Sequence[Record],
        deletes: Sequence[Deletion],
        expected: Sequence[Expected],
        fence: Fence,
    ) -> frozenset[str]:
        """As `publish`, in one transaction with the state; *fence* gets psycopg's connection."""
        batch = self._batch(writes, deletes)
        if batch.is_empty and not expected:
            return frozenset()
        return self._retried(partial(self._publish_once, batch, Fenced(expected, fence)))

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones where what is stored is older, in one transaction."""
        batch = tombstones_of(tombstones)
        if batch:
            self._retried(partial(self._change, partial(self._writing.bury, batch)))

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones that are still there with that version."""
        batch = [gone for gone in collectable(tombstones) if is_uuid(gone.vector_id)]
        if batch:
            self._retried(partial(self._change, partial(self._writing.collect, batch)))

    # --- whose store this is

    def claim(self) -> Claim | None:
        """The namespace's claim; None if nobody has claimed it."""
        with self._session("read") as session:
            return self._claims.find(session.connection)

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*.

        Raises:
            ConfigError: the role may not, or the store has not been created.
        """
        with self._session("write") as session:
            done = self._claims.put(session.connection, claim, replacing=replacing)
            if done is None and replacing is None:
                with session.connection.transaction():
                    session.connection.execute(_LOCK_CREATION)
                    self._claims.create(session.connection)
                done = self._claims.put(session.connection, claim, replacing=replacing)
        return done is True

    def state_address(self) -> tuple[str, str]:
        """This database, in the schema of the vectors; the scope names their table."""
        return self._address.state_url, f"{self._namespace}@{self._address.table}"

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._sessions.close()

    def _batch(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> Batch:
        return Batch(
            batch_of(writes, self._namespace, keep_text=self._keep_text),
            [deletion for deletion in deletions_of(deletes) if is_uuid(deletion.vector_id)],
        )

    def _retried(self, attempt: Callable[[], T]) -> T:
        with mapped_errors(self._address, "write"):
            for _ in range(_RETRIES):
                with suppress(*_PASSING):
                    return attempt()
            return attempt()

    def _publish_once(self, batch: Batch, fenced: Fenced | None) -> frozenset[str]:
        left_out: frozenset[str] = frozenset()
        with self._sessions.session() as session:
            if session.vectors().type == HALF:
                require_halves(batch.writes)
            connection = session.connection
            with connection.transaction():
                reach("store.publish.begun")
                if fenced is not None:
                    left_out = fenced.hold(connection)
                    reach("store.publish.held")
                part = batch.without(left_out)
                self._writing.write(part.writes, connection)
                reach("store.publish.written")
                self._writing.delete(part.deletes, connection)
                if fenced is not None:
                    fenced.published(connection, left_out)
                reach("store.publish.deleted")
            reach("store.publish.committed")
        return left_out

    def _change(self, change: Callable[[Connection[TupleRow]], None]) -> None:
        with self._sessions.session() as session, session.connection.transaction():
            change(session.connection)

    @contextmanager
    def _session(self, doing: Doing) -> Iterator[Session]:
        with mapped_errors(self._address, doing), self._sessions.session() as session:
            yield session

    def _stamps(self, query: bytes, parameters: Mapping[str, object]) -> Iterator[Stamp]:
        yield from map(stamp_of, self._stream(query, parameters))

    def _stream(self, query: bytes, parameters: Mapping[str, object]) -> Iterator[TupleRow]:
        with self._session("read") as session, session.connection.cursor() as cursor:
            # An older libpq streams row by row, which costs three times the CPU.
            rows_at_once = STREAM_ROWS if psycopg.capabilities.has_stream_chunked() else 1
            yield from cursor.stream(query, parameters, size=rows_at_once)

    def _asked_by_index(
        self, query: bytes, parameters: Mapping[str, object], owners: Sequence[str]
    ) -> Sequence[TupleRow]:
        with self._session("read") as session, ExitStack() as stack:
            if len(owners) > FEW_OWNERS:
                stack.enter_context(session.connection.transaction())
                session.connection.execute(BY_INDEX)
            return session.connection.execute(query, parameters).fetchall()

    @property
    def _another_table(self) -> str:
        return "set another ?table= in VECTOR_URL and run `undrift sync --all`"

    def _dimension_mismatch(self, vector: Vectors, model: str) -> DimensionMismatch:
        found = self.describe().dimension or 0
        return DimensionMismatch(
            expected=len(vector), found=found, model=model, fix=self._another_table
        )


def _match(row: TupleRow) -> Match:
    *stamp, text, metadata_json, score = row
    return Match(stamp_of(stamp), score, text, metadata_json)
