"""Vectors in Redis or Valkey with the search module, as hashes that its indexes follow.

A record is a hash ``{index}:v:<vector_id>``; a tombstone is one without vector and text. Two
indexes follow the hashes as they are written: one says which records there are, one is searched.
The hashes have the last word.

Safety:
    A publish is a transaction of scripts, each of which compares and writes in the server. It is
    visible to every later read when it returns, and as durable as the server's append-only file:
    with ``appendonly yes`` it outlives the server's process, with ``appendfsync always`` a loss of
    power too; ``everysec`` may lose the last two seconds then, and no file all since the last
    snapshot. `check` shows what was lost, and `sync` writes it again. ``WAITAOF`` is not waited
    for: without a replica, Valkey 9.1 was seen to answer it before the file was flushed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from redis import exceptions

from undrift.adoption import StoreFields
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
from undrift.state import Claim, Tombstone
from undrift.stores import _redis_queries as queries
from undrift.stores._listing import OwnerListing
from undrift.stores._records import (
    Batch,
    batch_of,
    collectable,
    deletions_of,
    storable,
    tombstones_of,
)
from undrift.stores._redis_address import parse_address
from undrift.stores._redis_errors import Doing, mapped_errors
from undrift.stores._redis_layout import create_commands, info_commands, layout_of
from undrift.stores._redis_notices import tell_notices
from undrift.stores._redis_reading import Reading, another_index
from undrift.stores._redis_rows import Row, version_of
from undrift.stores._redis_sessions import Command, Session, Sessions
from undrift.stores._redis_writing import ATOMIC_RECORDS, Writing


def open_at(url: str, *, namespace: str, keep_text: bool, fields: StoreFields | None) -> RedisStore:
    """The store at ``redis[s]://…``; see `RedisStore`."""
    del fields  # collections of other programs are not managed here
    return RedisStore(url, namespace=namespace, keep_text=keep_text)


class RedisStore:
    """The `ClaimableStore` in the hashes of one Redis or Valkey server.

    Args:
        url: ``redis[s]://[user:password@]host[:port]/0[?index=undrift&ssl_ca_certs=FILE&…]``;
            ``valkey[s]://`` means the same.
        namespace: whose records are managed.
        keep_text: False stores neither texts nor metadata.

    Raises:
        ConfigError: the URL is malformed.
    """

    def __init__(self, url: str, *, namespace: str = "default", keep_text: bool = True) -> None:
        self._address = parse_address(url)
        self._namespace = namespace
        self._keep_text = keep_text
        self._sessions = Sessions(self._address)
        self._reading = Reading(self._address, self._sessions)
        self._writing = Writing(self._address, namespace)
        self._owners = OwnerListing(lambda: self._reading.owners(namespace))

    @property
    def namespace(self) -> str:
        """The namespace whose records are managed."""
        return self._namespace

    @property
    def capabilities(self) -> Capabilities:
        """Conditional writes in the server, any number of processes, exact search."""
        return Capabilities(
            store_class=StoreClass.CONDITIONAL,
            atomic_records=ATOMIC_RECORDS,
            why_not={
                "store_class": "Redis shares no transaction with the database of a state; writes "
                "and deletes are conditional on the stored version, by scripts in the server"
            },
        )

    # --- what is there, and creating it

    def describe(self) -> StoreInfo:
        """Say what is there; creates nothing."""
        layout = self._reading.layout()
        return StoreInfo(
            location=self._address.location,
            exists=layout.exists,
            dimension=layout.dimension,
            change_dimension=another_index(self._address),
        )

    def ddl(self, dimension: int) -> Sequence[str]:
        """The commands that `create` runs, except those whose index is there already."""
        commands = create_commands(self._address.names, dimension).values()
        return [" ".join(map(_shown, command)) for command in commands]

    def create(self, dimension: int) -> None:
        """Create the indexes that are missing, safely in several processes at once.

        Returns when they know the records that were there before.
        """
        with self._session("create") as session:
            infos = session.ask(*info_commands(self._address.names))
            layout_of(infos, self._address)
            commands = create_commands(self._address.names, dimension).values()
            for info, command in zip(infos, commands, strict=True):
                if isinstance(info, exceptions.ResponseError):
                    _create_once(session, command)
            if any(isinstance(info, exceptions.ResponseError) for info in infos):
                tell_notices(session, self._address)
        self._reading.wait_until_indexed()

    # --- reading

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """Yield every stamp of *owners* in the namespace.

        Of each some hundred owners it is decided at once which records they have, and then read
        what those hold.
        """
        for layout, rows in self._reading.rows_of_owners(storable(owners), tombstones=False):
            for row in rows:
                if row.namespace == self._namespace:
                    yield row.stamp(layout.vector_bytes)

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """Yield the stamps found under *vector_ids*, whatever owner or namespace they claim."""
        for layout, rows in self._reading.rows_under(storable(vector_ids)):
            yield from (row.stamp(layout.vector_bytes) for row in rows if not row.is_tombstone)

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """Yield every tombstone of *owners* in the namespace; found as `stamps` are."""
        for _, rows in self._reading.rows_of_owners(storable(owners), tombstones=True):
            for row in rows:
                if row.namespace == self._namespace:
                    yield Tombstone(
                        row.vector_id, row.owner_id, row.kind, row.entity_id, row.version
                    )

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* that are not of the namespace."""
        counted: dict[str, int] = {}
        for owner_id, namespace, records in self._reading.counts(storable(owners)):
            if namespace != self._namespace:
                counted[owner_id] = counted.get(owner_id, 0) + records
        return counted

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """At most *limit* distinct owners of managed records, by code point, behind *after*."""
        return self._owners.page(after, limit)

    def search(
        self,
        owner_id: str,
        vector: Vectors,
        *,
        model: str,
        kinds: Sequence[str] | None,
        limit: int,
    ) -> Sequence[Match]:
        """The nearest records of *owner_id* and *model*, all of which are compared."""
        wanted_kinds = None if kinds is None else storable(kinds)
        if limit < 1 or not is_storable_id(owner_id) or wanted_kinds == []:
            return []
        query = queries.with_tags(
            queries.of_owners([owner_id]), namespace=[self._namespace], model=[model]
        )
        if wanted_kinds is not None:
            query = queries.with_tags(query, kind=wanted_kinds)

        def is_wanted(row: Row) -> bool:
            return (
                (row.owner_id, row.namespace, row.model) == (owner_id, self._namespace, model)
                and not row.is_tombstone
                and (wanted_kinds is None or row.kind in wanted_kinds)
            )

        return self._reading.nearest(query, vector, model=model, limit=limit, is_wanted=is_wanted)

    # --- writing

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Write, then delete, in one transaction; the port says what applies."""
        batch = Batch(
            batch_of(writes, self._namespace, keep_text=self._keep_text), deletions_of(deletes)
        )
        if not batch.is_empty:
            with self._session("write") as session:
                self._writing.publish(batch, session)

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones where what is stored is older."""
        batch = tombstones_of(tombstones)
        if batch:
            with self._session("write") as session:
                self._writing.bury(batch, session)

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones that are still there with that version."""
        gone = collectable(tombstones)
        if gone:
            with self._session("write") as session:
                self._writing.collect(gone, session)

    # --- whose store this is

    def claim(self) -> Claim | None:
        """The namespace's claim; None if nobody has claimed it."""
        with self._session("read") as session:
            (found,) = session.ask(("HGETALL", self._address.names.claim(self._namespace)))
            if isinstance(found, exceptions.ResponseError):
                raise found
        assert isinstance(found, dict)
        if not found:
            return None
        source, state_id, epoch = (
            found.get(name, b"").decode(errors="replace")
            for name in (b"source", b"state_id", b"epoch")
        )
        return Claim(source, state_id, version_of(epoch))

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*.

        Raises:
            ConfigError: the user may not, or the store has not been created.
        """
        with self._session("write") as session:
            return self._writing.put_claim(claim, replacing, session)

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._sessions.close()

    @contextmanager
    def _session(self, doing: Doing) -> Iterator[Session]:
        with mapped_errors(self._address, doing), self._sessions.session() as session:
            yield session


def _create_once(session: Session, command: Command) -> None:
    (answer,) = session.ask(command)
    if isinstance(answer, exceptions.ResponseError) and "already exists" not in str(answer):
        raise answer


def _shown(argument: object) -> str:
    """An argument as redis-cli takes it."""
    text = str(argument)
    return text if text.isprintable() else '"' + text.encode("unicode_escape").decode() + '"'
