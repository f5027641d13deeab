"""The vector store in a PostgreSQL table that another program filled.

The other program's columns stay what they are: a record that undrift writes anew is written where
it lies, and beside the text, the vector and the fields that name its entity only a stamp is added,
in the table's own JSON. There is no DDL but for undrift's own state, in a schema of its own.

Safety:
    Class T only: what is written is one transaction with the state, which has to be in the same
    database. Writers of undrift's follow each other by an advisory lock of the transaction, since
    the table may have no unique key that a conditional insert could rely on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from undrift.adoption import Adoption, StoreFields
from undrift.errors import DimensionMismatch, UnsupportedError
from undrift.failpoints import reach
from undrift.fingerprint import is_storable_id
from undrift.model import Stamp
from undrift.pooling import Pool
from undrift.ports import (
    Capabilities,
    Deletion,
    Match,
    Record,
    StoreClass,
    StoreInfo,
    Vectors,
)
from undrift.postgres import connect, is_usable
from undrift.state import Claim, Expected, Fence, Tombstone
from undrift.stores._adopted import as_number, hash_of
from undrift.stores._pg_address import (
    DEFAULT_SCHEMA,
    HALF,
    WHOLE,
    AdoptedTable,
    Table,
    VectorType,
    parse_address,
)
from undrift.stores._pg_adopted_layout import AdoptedLayout, found_layout
from undrift.stores._pg_adopted_sql import AdoptedStatements
from undrift.stores._pg_claims import AdoptedClaims
from undrift.stores._pg_errors import Doing, mapped_errors
from undrift.stores._pg_vectors import OneVector, VectorArray, learn_vectors
from undrift.stores._pg_writing import STATEMENT_RECORDS, is_uuid
from undrift.stores._records import Batch, Fenced, batch_of, deletions_of, storable

_ATOMIC_RECORDS = 1_000_000

# By the table's name: the database is the same, however it is reached.
_LOCK_WRITERS = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"


class _Learned(NamedTuple):
    """What is known of the table once somebody has looked."""

    layout: AdoptedLayout
    statements: AdoptedStatements


class AdoptedPgvectorStore:
    """The `TransactionalStore` over a table of somebody else's.

    Args:
        url: ``postgresql://…?table=schema.table``; a table without a schema is in ``public``.
        fields: where the table holds what.

    Raises:
        ConfigError: the URL is malformed.
    """

    def __init__(self, url: str, *, namespace: str, fields: StoreFields) -> None:
        address = parse_address(url, schema="public")
        table = AdoptedTable(schema=address.table.schema, name=address.table.name)
        self._address = address = replace(address, table=table)
        self._fields = fields
        self._namespace = namespace
        self._claims = AdoptedClaims(address, namespace)
        self._pool: Pool[Connection[TupleRow]] = Pool(self._open, _close, is_usable)
        self._learned: _Learned | None = None
        self._learning = Lock()

    @property
    def namespace(self) -> str:
        """The namespace whose stamps are its own."""
        return self._namespace

    @property
    def capabilities(self) -> Capabilities:
        """One transaction with a state in the same database; records of another program."""
        return Capabilities(
            store_class=StoreClass.TRANSACTIONAL,
            atomic_records=_ATOMIC_RECORDS,
            adoption=Adoption(fields=self._fields),
            why_not={},
        )

    # --- what is there

    def describe(self) -> StoreInfo:
        """Say what is there.

        Raises:
            ConfigError: there is no such table, or it is not as the fields say.
        """
        with self._session("read"):
            layout = self._known.layout
        return StoreInfo(
            location=self._address.location,
            exists=True,
            dimension=layout.dimension,
            change_dimension=(
                "the collection was filled with vectors of another model: set embedder.name in "
                "undrift.toml to the one that filled it"
            ),
        )

    def ddl(self, dimension: int) -> Sequence[str]:
        """Nothing is created."""
        return ()

    def create(self, dimension: int) -> None:
        """See that it is there."""
        self.describe()

    # --- reading

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """Yield every stamp of *owners*; one that only its fields make has no fingerprint."""
        with self._session("read") as connection:
            parameters = {"owners": self._askable(owners), "namespace": self._namespace}
            with connection.cursor() as cursor:
                rows = cursor.stream(self._known.statements.stamps, parameters)
                yield from map(_stamp_of, rows)

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """Yield the stamps found under *vector_ids*, whatever owner or namespace they claim."""
        with self._session("read") as connection:
            parameters = {"vector_ids": self._ids(vector_ids), "namespace": self._namespace}
            rows = connection.execute(self._known.statements.stamps_by_id, parameters).fetchall()
        yield from map(_stamp_of, rows)

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """There are none: deletes are one transaction with the state."""
        yield from ()

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* that the fields do not cover, or of another namespace."""
        with self._session("read") as connection:
            parameters = {"owners": self._askable(owners), "namespace": self._namespace}
            return dict(connection.execute(self._known.statements.unmanaged, parameters))

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """At most *limit* distinct owners of managed records, by code point, behind *after*."""
        with self._session("read") as connection:
            parameters = {"after": after, "limit": limit, "namespace": self._namespace}
            rows = connection.execute(self._known.statements.owners, parameters)
            return [owner for (owner,) in rows]

    def search(
        self,
        owner_id: str,
        vector: Vectors,
        *,
        model: str,
        kinds: Sequence[str] | None,
        limit: int,
    ) -> Sequence[Match]:
        """The nearest records of *owner_id* and *model*, by a scan of the owner's rows."""
        if limit < 1 or not is_storable_id(owner_id):
            return []
        with self._session("read") as connection:
            parameters = {
                "owners": self._askable([owner_id]),
                "namespace": self._namespace,
                "model": model,
                "kinds": None if kinds is None else storable(kinds),
                "vector": OneVector(vector),
                "limit": limit,
            }
            try:
                rows = connection.execute(self._known.statements.search, parameters).fetchall()
            except psycopg.DataError as error:
                found = self._known.layout.dimension
                if found in (None, len(vector)):
                    raise
                raise DimensionMismatch(
                    expected=len(vector),
                    found=found or 0,
                    model=model,
                    fix=self.describe().change_dimension,
                ) from error
        return [_match(row) for row in rows if not math.isnan(row[-1])]

    # --- writing

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Write, then delete, in one transaction; the port says what applies."""
        batch = self._batch(writes, deletes)
        if not batch.is_empty:
            self._publish(batch, None)

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
        return self._publish(batch, Fenced(expected, fence))

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Nothing is buried in somebody else's table.

        Raises:
            UnsupportedError: there is something to bury.
        """
        if tombstones:
            raise _needs_state_beside(self._address.location)

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """There are none."""

    # --- whose store this is

    def claim(self) -> Claim | None:
        """The namespace's claim; None if nobody has claimed it."""
        with self._session("read") as connection:
            return self._claims.find(connection)

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*; in a table of undrift's own."""
        with self._session("write") as connection:
            done = self._claims.put(connection, claim, replacing=replacing)
            if done is None and replacing is None:
                with connection.transaction():
                    connection.execute(_LOCK_WRITERS, [str(self._address.table)])
                    self._claims.create(connection)
                done = self._claims.put(connection, claim, replacing=replacing)
        return done is True

    def state_address(self) -> tuple[str, str]:
        """This database, in undrift's own schema; the scope names the table."""
        own = replace(self._address, table=Table(schema=DEFAULT_SCHEMA))
        return own.state_url, f"{self._namespace}@{self._address.table}"

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._pool.close()

    # --- how

    @property
    def _known(self) -> _Learned:
        assert self._learned is not None, "a session has looked at the table"
        return self._learned

    def _open(self) -> Connection[TupleRow]:
        connection = connect(self._address.conninfo)
        try:
            with self._learning:
                layout = self._learned and self._learned.layout
                layout = layout or found_layout(connection, self._address, self._fields)
                kind: VectorType = HALF if layout.vector.type == HALF else WHOLE
                schema = learn_vectors(connection, self._address.location, kind)
                if self._learned is None:
                    statements = AdoptedStatements(self._address.table, layout, schema)
                    self._learned = _Learned(layout, statements)
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _session(self, doing: Doing) -> Iterator[Connection[TupleRow]]:
        with mapped_errors(self._address, doing), self._pool.connection() as connection:
            yield connection

    def _batch(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> Batch:
        return Batch(batch_of(writes, self._namespace, keep_text=True), deletions_of(deletes))

    def _publish(self, batch: Batch, fenced: Fenced | None) -> frozenset[str]:
        left_out: frozenset[str] = frozenset()
        with self._session("write") as connection:
            with connection.transaction():
                connection.execute(_LOCK_WRITERS, [str(self._address.table)])
                reach("store.publish.begun")
                if fenced is not None:
                    left_out = fenced.hold(connection)
                    reach("store.publish.held")
                part = batch.without(left_out)
                self._write(part.writes, connection)
                reach("store.publish.written")
                self._delete(part.deletes, connection)
                if fenced is not None:
                    fenced.published(connection, left_out)
                reach("store.publish.deleted")
            reach("store.publish.committed")
        return left_out

    def _write(self, records: Sequence[Record], connection: Connection[TupleRow]) -> None:
        statements = self._known.statements
        puts = [record for record in records if record.embedding is not None]
        for part in _parts(self._with_usable_ids(puts)):
            vectors = [record.embedding for record in part if record.embedding is not None]
            columns = [*_columns(part), VectorArray(vectors)]
            connection.execute(statements.replace, columns)
            connection.execute(statements.insert, columns)
        restamps = [record for record in records if record.embedding is None]
        for part in _parts(self._with_usable_ids(restamps)):
            fitting = self._of_the_same_text(part, connection)
            if fitting:
                connection.execute(statements.restamp, _columns(fitting))

    def _of_the_same_text(
        self, restamps: Sequence[Record], connection: Connection[TupleRow]
    ) -> list[Record]:
        """Those whose record, where it has no stamp to compare, still has the text they are of.

        The rows stay locked until the stamp is there.
        """
        by_model: dict[str, list[Record]] = {}
        for record in restamps:
            by_model.setdefault(record.stamp.model, []).append(record)
        differing: set[str] = set()
        for model, records in by_model.items():
            parameters = {
                "vector_ids": [record.stamp.vector_id for record in records],
                "namespace": self._namespace,
                "model": model,
            }
            found = connection.execute(self._known.statements.lock_texts, parameters)
            hashes = {vector_id: hash_of(text) for vector_id, text in found}
            unstamped = self._without_stamp(records, connection)
            differing.update(
                record.stamp.vector_id
                for record in records
                if record.stamp.vector_id in unstamped
                and hashes.get(record.stamp.vector_id) != record.stamp.text_hash
            )
        return [record for record in restamps if record.stamp.vector_id not in differing]

    def _without_stamp(
        self, records: Sequence[Record], connection: Connection[TupleRow]
    ) -> set[str]:
        parameters = {
            "vector_ids": [record.stamp.vector_id for record in records],
            "namespace": self._namespace,
        }
        rows = connection.execute(self._known.statements.stamps_by_id, parameters)
        stamps = map(_stamp_of, rows)
        return {stamp.vector_id for stamp in stamps if not stamp.fingerprint}

    def _delete(self, deletions: Sequence[Deletion], connection: Connection[TupleRow]) -> None:
        usable = set(self._ids(deletion.vector_id for deletion in deletions))
        gone = [deletion for deletion in deletions if deletion.vector_id in usable]
        if gone:
            parameters = {
                "owner_ids": [deletion.owner_id for deletion in gone],
                "vector_ids": [deletion.vector_id for deletion in gone],
                "versions": [deletion.version for deletion in gone],
                "namespace": self._namespace,
            }
            connection.execute(self._known.statements.delete, parameters)

    def _with_usable_ids(self, records: Sequence[Record]) -> list[Record]:
        usable = set(self._ids(record.stamp.vector_id for record in records))
        return [record for record in records if record.stamp.vector_id in usable]

    def _ids(self, vector_ids: Sequence[str] | Iterator[str]) -> list[str]:
        """Those of *vector_ids* that the id's column can hold."""
        if self._known.layout.id.column.type == "uuid":
            return [vector_id for vector_id in vector_ids if is_uuid(vector_id)]
        return storable(vector_ids)

    def _askable(self, owners: Sequence[str]) -> list[str]:
        """Those of *owners* that the owner's column can hold."""
        place = self._known.layout.owner
        if not place.keys and place.column.type in ("int2", "int4", "int8"):
            return [owner for owner in owners if as_number(owner) is not None]
        if not place.keys and place.column.type == "uuid":
            return [owner for owner in owners if is_uuid(owner)]
        return storable(owners)


def _stamp_of(row: TupleRow) -> Stamp:
    *fields, text = row
    stamp = Stamp(*fields)
    return stamp if stamp.fingerprint else stamp._replace(text_hash=hash_of(text))


def _match(row: TupleRow) -> Match:
    *fields, text, metadata_json, score = row
    stamp = _stamp_of((*fields, text))
    return Match(stamp, score, text or "", metadata_json)


def _columns(part: Sequence[Record]) -> list[list[object]]:
    stamps = zip(*(record.stamp for record in part), strict=True)
    texts = [record.text for record in part]
    return [*map(list, stamps), texts, [record.metadata_json for record in part]]


def _parts(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    for start in range(0, len(records), STATEMENT_RECORDS):
        yield records[start : start + STATEMENT_RECORDS]


def _close(connection: Connection[TupleRow]) -> None:
    connection.close()


def _needs_state_beside(location: str) -> UnsupportedError:
    return UnsupportedError(
        "An adopted table keeps its state beside it",
        why="with the state elsewhere a delete would have to leave something behind in "
        f"{location}, where other programs would find it.",
        fix="leave [state] url out of undrift.toml; the state is then a schema `undrift` in the "
        "same database",
    )
