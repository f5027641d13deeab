"""Vectors in a SQLite file: no server, exact search, safe between processes.

The file may be undrift's own or the application's. Stamps live in the table `vectors`, whose
covering index answers every enumeration without touching a vector; the vectors live in `embeddings`
beside it.

Safety:
    A publish is one ``BEGIN IMMEDIATE`` transaction in WAL mode with ``synchronous=FULL``: what was
    acknowledged survives the process and a loss of power. The flush made a bulk load of 50,000
    records a tenth slower (2.6 s instead of 2.3 s); losing acknowledged writes is not worth that.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from urllib.parse import unquote

from undrift.adoption import StoreFields
from undrift.digests import FINGERPRINT_CHARACTERS, RecordsDigest
from undrift.errors import ConfigError, DimensionMismatch
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
from undrift.state import Claim, Expected, Fence, Tombstone
from undrift.stores import _sqlite_sql as sql
from undrift.stores._meaning import NOT_CREATED
from undrift.stores._nearest import FLOAT, nearest
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
from undrift.stores._sqlite_file import Connection, SqliteFile, transaction
from undrift.stores._sqlite_writing import ANOTHER_FILE, Writing, dimension_of, encoded

SEARCH_ROWS = 4_096
"""Vectors compared at once: enough to keep numpy busy, few enough for constant memory."""

# A transaction has no limit; this is what one call can reasonably hold in memory.
_ATOMIC_RECORDS = 1_000_000


def open_at(
    url: str, *, namespace: str, keep_text: bool, fields: StoreFields | None
) -> SqliteStore:
    """The store at ``sqlite:///file.db[?mode=ro]``.

    Raises:
        ConfigError: the URL is malformed.
    """
    del fields  # a file is never somebody else's collection
    rest = url.partition("://")[2]
    path, _, query = rest.partition("?")
    if not path.startswith("/") or path in ("/", "/:memory:") or query not in ("", "mode=ro"):
        raise ConfigError(
            "The vector store's URL is malformed",
            why=f"sqlite://{rest} is not of the form sqlite:///file.db or sqlite:////folder/f.db "
            "(?mode=ro may follow); a database in memory would be lost with the process.",
            fix="correct VECTOR_URL",
        )
    return SqliteStore(
        unquote(path[1:]), namespace=namespace, keep_text=keep_text, read_only=query == "mode=ro"
    )


class SqliteStore:
    """The `TransactionalStore` in one SQLite file.

    Args:
        path: the file; a relative one is below the working directory.
        namespace: whose records are managed.
        keep_text: False stores neither texts nor metadata.
        read_only: open the file with ``mode=ro``.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        namespace: str = "default",
        keep_text: bool = True,
        read_only: bool = False,
    ) -> None:
        self._file = SqliteFile(path, read_only=read_only)
        self._writing = Writing(namespace, self._file.location)
        self._namespace = namespace
        self._keep_text = keep_text

    @property
    def namespace(self) -> str:
        """The namespace whose records are managed."""
        return self._namespace

    @property
    def capabilities(self) -> Capabilities:
        """One transaction with a state in the file, any number of processes, exact search."""
        return Capabilities(
            store_class=StoreClass.TRANSACTIONAL, atomic_records=_ATOMIC_RECORDS, why_not={}
        )

    # --- what is there, and creating it

    def describe(self) -> StoreInfo:
        """Say what is there; creates nothing, and opens nothing where there is no file."""
        dimension = None
        exists = self._file.exists() and self._has_layout()
        if exists:
            with self._file.connection() as connection:
                dimension = dimension_of(connection)
        return StoreInfo(
            location=self._file.location,
            exists=exists,
            dimension=dimension,
            change_dimension=ANOTHER_FILE,
        )

    def ddl(self, dimension: int) -> Sequence[str]:
        """The statements that `create` runs; the first vector fixes the dimension, not they."""
        return (sql.USE_WAL, *sql.CREATE)

    def create(self, dimension: int) -> None:
        """Create the file and what is missing in it, safely in several processes at once.

        WAL is set for the whole file, an application's tables included: without it, every
        enumeration would hold up the application's commits.
        """
        if self._file.exists() and self._has_layout() and self._has_claims():
            return
        with self._file.creation() as connection:
            for statement in sql.CREATE:
                connection.execute(statement)

    # --- reading

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """Yield every stamp of *owners* in the namespace, all from one snapshot."""
        owner_list = sql.id_list(storable(owners))
        return self._stamps(
            sql.STAMPS_OF_OWNERS, {"owners": owner_list, "namespace": self._namespace}
        )

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """Yield the stamps found under *vector_ids*, whatever owner or namespace they claim."""
        return self._stamps(
            sql.STAMPS_BY_VECTOR_ID, {"vector_ids": sql.id_list(storable(vector_ids))}
        )

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """Yield every tombstone of *owners* in the namespace, all from one snapshot."""
        parameters = {"owners": sql.id_list(storable(owners)), "namespace": self._namespace}
        with self._file.connection() as connection:
            yield from map(Tombstone._make, connection.execute(sql.TOMBSTONES, parameters))

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* that are not of the namespace."""
        owner_list = sql.id_list(storable(owners))
        parameters = {"owners": owner_list, "namespace": self._namespace}
        with self._file.connection() as connection:
            return dict(connection.execute(sql.UNMANAGED, parameters))

    def digests(
        self, owners: Sequence[str], *, model: str, kinds: Collection[str]
    ) -> Mapping[str, RecordsDigest]:
        """The digest of each of *owners*, all from one snapshot.

        SQLite sorts and joins: 3.2 s for a million records, 3.6 s where Python does it. Two thirds
        go into looking whether each still has its vector.
        """
        parameters = {
            "owners": sql.id_list(storable(owners)),
            "namespace": self._namespace,
            "model": model,
            "kinds": sql.id_list(storable(kinds)),
            "fingerprint_characters": FINGERPRINT_CHARACTERS,
        }
        with self._file.connection() as connection:
            return {
                owner_id: RecordsDigest(
                    records, hashlib.sha256(items or b"").digest(), amiss, unmanaged
                )
                for owner_id, records, items, amiss, unmanaged in connection.execute(
                    sql.DIGESTS, parameters
                )
            }

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """At most *limit* distinct owners of managed records, by code point, behind *after*."""
        query = sql.FIRST_OWNERS if after is None else sql.NEXT_OWNERS
        parameters = {"after": after, "namespace": self._namespace, "limit": limit}
        with self._file.connection() as connection:
            return [owner_id for (owner_id,) in connection.execute(query, parameters)]

    def search(
        self,
        owner_id: str,
        vector: Vectors,
        *,
        model: str,
        kinds: Sequence[str] | None,
        limit: int,
    ) -> Sequence[Match]:
        """The nearest records of *owner_id* and *model*, compared one by one with numpy."""
        if limit < 1 or not is_storable_id(owner_id):
            return []
        candidates = {
            "owner_id": owner_id,
            "namespace": self._namespace,
            "model": model,
            "kinds": None if kinds is None else sql.id_list(storable(kinds)),
            "bytes": len(vector) * FLOAT.itemsize,
        }
        with self._file.connection() as connection, transaction(connection, "DEFERRED"):
            found = dimension_of(connection)
            if found not in (None, len(vector)):
                raise DimensionMismatch(
                    expected=len(vector), found=found, model=model, fix=ANOTHER_FILE
                )
            rows = connection.execute(sql.CANDIDATES, candidates)
            chunks = iter(lambda: rows.fetchmany(SEARCH_ROWS), [])
            scores = dict(nearest(chunks, vector, limit))
            matches = connection.execute(sql.MATCHES, {"vector_ids": sql.id_list(scores)})
            by_id = {row[0]: row for row in matches}
        return [_match(by_id[vector_id], score) for vector_id, score in scores.items()]

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
        """As `publish`, in one transaction with the state; *fence* gets sqlite3's connection."""
        batch = self._batch(writes, deletes)
        if batch.is_empty and not expected:
            return frozenset()
        return self._publish(batch, Fenced(expected, fence))

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones where what is stored is older, in one transaction."""
        batch = tombstones_of(tombstones)
        if not batch:
            return
        with self._file.connection() as connection, transaction(connection, "IMMEDIATE"):
            self._writing.bury(batch, connection)

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones that are still there with that version."""
        gone = collectable(tombstones)
        if gone:
            with self._file.connection() as connection, transaction(connection, "IMMEDIATE"):
                self._writing.collect(gone, connection)

    # --- whose store this is

    def claim(self) -> Claim | None:
        """The namespace's claim; None if nobody has claimed it."""
        if not self._file.exists() or not self._has_claims():
            return None
        with self._file.connection() as connection:
            return self._claim(connection)

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*.

        Raises:
            ConfigError: the file may not be written, or the store has not been created.
        """
        if not self._file.exists() or not self._has_layout():
            raise NOT_CREATED.error(self._file.location, "there is no such table")
        with self._file.connection() as connection, transaction(connection, "IMMEDIATE"):
            if replacing is None:
                connection.execute(sql.CREATE_CLAIMS)  # in a file of before it is not there
            elif not _has_claims(connection):
                return False
            is_still = self._claim(connection) == replacing
            if is_still:
                values = {**claim._asdict(), "namespace": self._namespace}
                connection.execute(sql.PUT_CLAIM, values)
        return is_still

    def state_address(self) -> tuple[str, str]:
        """This file; the scope is the namespace, as a file has one table of vectors."""
        self._file.require_writable()
        return self._file.address, self._namespace

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._file.close()

    def _batch(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> Batch:
        return Batch(
            batch_of(writes, self._namespace, keep_text=self._keep_text), deletions_of(deletes)
        )

    def _publish(self, batch: Batch, fenced: Fenced | None) -> frozenset[str]:
        left_out: frozenset[str] = frozenset()
        vectors = encoded(batch.writes)  # what needs no lock comes before it
        with self._file.connection() as connection:
            with transaction(connection, "IMMEDIATE"):
                reach("store.publish.begun")
                if fenced is not None:
                    left_out = fenced.hold(connection)
                    reach("store.publish.held")
                part = batch.without(left_out)
                self._writing.write(part.writes, vectors, connection)
                reach("store.publish.written")
                self._writing.delete(part.deletes, connection)
                if fenced is not None:
                    fenced.published(connection, left_out)
                reach("store.publish.deleted")
            reach("store.publish.committed")
        return left_out

    def _claim(self, connection: Connection) -> Claim | None:
        row = connection.execute(sql.CLAIM, {"namespace": self._namespace}).fetchone()
        return None if row is None else Claim(*row)

    def _has_claims(self) -> bool:
        with self._file.connection() as connection:
            return _has_claims(connection)

    def _has_layout(self) -> bool:
        with self._file.connection() as connection:
            found = {
                table: {name for (name,) in connection.execute(sql.COLUMNS_OF, {"table": table})}
                for table in sql.COLUMNS
            }
        if not any(found.values()):
            return False
        for table, columns in sql.COLUMNS.items():
            if missing := sorted(columns - found[table]):
                raise ConfigError(
                    "The vector store has another layout",
                    why=f"the table {table} in {self._file.location} lacks {', '.join(missing)}.",
                    fix="set VECTOR_URL to a file of its own",
                )
        return True

    def _stamps(self, query: str, parameters: Mapping[str, str]) -> Iterator[Stamp]:
        with self._file.connection() as connection:
            yield from map(stamp_of, connection.execute(query, parameters))


def _has_claims(connection: Connection) -> bool:
    (found,) = connection.execute(sql.HAS_CLAIMS).fetchone()
    return bool(found)


def _match(row: tuple[object, ...], score: float) -> Match:
    *stamp, text, metadata_json = row
    return Match(stamp_of(stamp), score, str(text), str(metadata_json))
