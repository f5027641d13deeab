"""What the Redis store writes, by scripts within a transaction of the server's."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from redis import exceptions

from undrift.errors import WriteFailed
from undrift.failpoints import reach
from undrift.fingerprint import is_storable_id
from undrift.ports import Deletion, Record
from undrift.state import Claim, Tombstone
from undrift.stores._meaning import NOT_CREATED
from undrift.stores._nearest import FLOAT
from undrift.stores._records import Batch
from undrift.stores._redis_address import Address
from undrift.stores._redis_layout import Layout, info_commands, layout_of
from undrift.stores._redis_queries import digest, part_of
from undrift.stores._redis_reading import another_index
from undrift.stores._redis_scripts import BURY, CLAIM, DELETE, WRITE
from undrift.stores._redis_sessions import Argument, Command, Session

ATOMIC_RECORDS = 1_000
"""Records in one transaction. The server does nothing else meanwhile: 0.1 s for this many."""


class Writing:
    """The transactions that write, given a session."""

    def __init__(self, address: Address, namespace: str) -> None:
        self._address = address
        self._names = address.names
        self._namespace = namespace

    def publish(self, batch: Batch, session: Session) -> None:
        """Write, then delete, in one transaction if it is large enough.

        Raises:
            WriteFailed: the vectors have another dimension than the index.
            ResponseError: the server refused it.
        """
        layout = self._layout(session)
        self._require_dimension(batch.writes, layout)
        if len(batch.writes) + len(batch.deletes) <= ATOMIC_RECORDS:
            self._publish_whole(batch, layout, session)
            return
        reach("store.publish.begun")
        for start in range(0, len(batch.writes), ATOMIC_RECORDS):
            part = batch.writes[start : start + ATOMIC_RECORDS]
            _commit(session, self._write_command(part, layout, ""))
        reach("store.publish.written")
        self._delete(batch.deletes, session, only_stones=False)
        reach("store.publish.deleted")
        reach("store.publish.committed")

    def bury(self, tombstones: Sequence[Tombstone], session: Session) -> None:
        """Put *tombstones* where what is stored is older."""
        self._layout(session)
        for start in range(0, len(tombstones), ATOMIC_RECORDS):
            part = tombstones[start : start + ATOMIC_RECORDS]
            keys = [self._key(stone.vector_id) for stone in part]
            values = [value for stone in part for value in _stone_arguments(stone)]
            _commit(session, ("EVAL", BURY, len(keys), *keys, self._namespace, *values))

    def collect(self, gone: Sequence[Deletion], session: Session) -> None:
        """Remove tombstones that are still there with that version."""
        self._layout(session)
        self._delete(gone, session, only_stones=True)

    def put_claim(self, claim: Claim, replacing: Claim | None, session: Session) -> bool:
        """Claim the namespace, if the claim is still *replacing*."""
        self._layout(session)
        key = self._names.claim(self._namespace)
        expected = ("0", "", "", "") if replacing is None else ("1", *map(str, replacing))
        (was_put,) = _commit(session, ("EVAL", CLAIM, 1, key, *map(str, claim), *expected))
        return was_put == 1

    def _publish_whole(self, batch: Batch, layout: Layout, session: Session) -> None:
        token = secrets.token_hex(8) if batch.writes and batch.deletes else ""
        with session.begun() as transaction:
            transaction.flush()
            reach("store.publish.begun")
            if batch.writes:
                transaction.add(self._write_command(batch.writes, layout, token))
                transaction.flush()
            reach("store.publish.written")
            if batch.deletes:
                transaction.add(self._delete_command(batch.deletes, token, only_stones=False))
                transaction.flush()
            reach("store.publish.deleted")
            _require_done(transaction.commit())
        reach("store.publish.committed")

    def _delete(self, gone: Sequence[Deletion], session: Session, *, only_stones: bool) -> None:
        for start in range(0, len(gone), ATOMIC_RECORDS):
            part = gone[start : start + ATOMIC_RECORDS]
            _commit(session, self._delete_command(part, "", only_stones=only_stones))

    def _write_command(self, records: Sequence[Record], layout: Layout, token: str) -> Command:
        keys = [self._key(record.stamp.vector_id) for record in records]
        values = [value for record in records for value in arguments_of(record)]
        head = (self._namespace, layout.vector_bytes, token)
        return ("EVAL", WRITE, len(keys) + 1, *keys, self._names.transaction, *head, *values)

    def _delete_command(
        self, gone: Iterable[Deletion], token: str, *, only_stones: bool
    ) -> Command:
        storable = [deletion for deletion in gone if is_storable_id(deletion.vector_id)]
        keys = [self._key(deletion.vector_id) for deletion in storable]
        values = [value for d in storable for value in (d.owner_id, str(d.version))]
        head = (self._namespace, token, "1" if only_stones else "0")
        return ("EVAL", DELETE, len(keys) + 1, *keys, self._names.transaction, *head, *values)

    def _layout(self, session: Session) -> Layout:
        layout = layout_of(session.ask(*info_commands(self._names)), self._address)
        if not layout.exists:
            raise NOT_CREATED.error(self._address.location, "there is no such index")
        return layout

    def _require_dimension(self, records: Sequence[Record], layout: Layout) -> None:
        for record in records:
            if record.embedding is not None and len(record.embedding) != layout.dimension:
                raise WriteFailed(
                    "The store refused a batch",
                    why=f"its vectors have {len(record.embedding)} components, those of "
                    f"{self._address.location} have {layout.dimension}; nothing was written.",
                    fix=another_index(self._address),
                )

    def _key(self, vector_id: str) -> str:
        return self._names.prefix + vector_id


def arguments_of(record: Record) -> Iterator[Argument]:
    """What the script `WRITE` is told of a record."""
    stamp, embedding = record.stamp, record.embedding
    yield from (stamp.owner_id, digest(stamp.owner_id), part_of(stamp.vector_id))
    yield from (stamp.kind, stamp.entity_id, stamp.fingerprint, stamp.text_hash, stamp.model)
    yield from (str(stamp.version), record.text, record.metadata_json)
    yield b"" if embedding is None else np.asarray(embedding, dtype=FLOAT).tobytes()


def _stone_arguments(stone: Tombstone) -> Iterator[Argument]:
    yield from (stone.owner_id, digest(stone.owner_id), part_of(stone.vector_id))
    yield from (stone.kind, stone.entity_id, str(stone.version))


def _commit(session: Session, *commands: Command) -> list[object]:
    answers = session.transaction(*commands)
    _require_done(answers)
    return answers


def _require_done(answers: Iterable[object]) -> None:
    for answer in answers:
        if isinstance(answer, exceptions.ResponseError):
            raise answer
