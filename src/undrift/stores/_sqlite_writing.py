"""What a transaction of the SQLite store writes: records, deletes, tombstones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from undrift.errors import WriteFailed
from undrift.ports import Deletion, Record
from undrift.state import Tombstone
from undrift.stores import _sqlite_sql as sql
from undrift.stores._nearest import FLOAT
from undrift.stores._sqlite_file import Connection

ANOTHER_FILE = "set VECTOR_URL to another file and run `undrift sync --all`"


class _Put(NamedTuple):
    """A write with its vector as it is stored."""

    record: Record
    embedding: bytes

    @property
    def vector_id(self) -> str:
        return self.record.stamp.vector_id


class _Standing(NamedTuple):
    """What lies under a vector_id.

    Attributes:
        entity: owner, kind and id.
    """

    namespace: str | None
    version: int
    is_tombstone: bool
    entity: tuple[str, str, str]


class Writing:
    """The statements that write, given a connection with an open transaction.

    Args:
        location: the store's address, for errors.
    """

    def __init__(self, namespace: str, location: str) -> None:
        self._namespace = namespace
        self._location = location

    def write(
        self, records: Sequence[Record], vectors: Mapping[str, bytes], connection: Connection
    ) -> None:
        """Write *records* where the stored version is older or absent.

        Args:
            vectors: theirs, by vector_id, as `encoded` gives them.
        """
        puts = [
            _Put(record, vectors[record.stamp.vector_id])
            for record in records
            if record.embedding is not None
        ]
        self._put(connection, puts)
        restamps = (
            {**record.stamp._asdict(), "text": record.text, "metadata": record.metadata_json}
            for record in records
            if record.embedding is None
        )
        connection.executemany(sql.RESTAMP, restamps)

    def delete(self, deletions: Sequence[Deletion], connection: Connection) -> None:
        """Delete records that still have the version that is named."""
        gone = self._parameters(deletions)
        connection.executemany(sql.DELETE_RECORD, gone)
        connection.executemany(sql.DELETE_EMBEDDING, gone)

    def collect(self, deletions: Sequence[Deletion], connection: Connection) -> None:
        """Delete tombstones that still have the version that is named."""
        connection.executemany(sql.COLLECT, self._parameters(deletions))

    def bury(self, tombstones: Sequence[Tombstone], connection: Connection) -> None:
        """Put *tombstones* where the stored version is older or absent."""
        standing = _standing(connection, [stone.vector_id for stone in tombstones])
        applied = self._parameters(
            stone
            for stone in tombstones
            if self._makes_way(standing.get(stone.vector_id), stone.version, stone[1:4])
        )
        connection.executemany(sql.BURY, applied)
        connection.executemany(sql.DELETE_BURIED_EMBEDDING, applied)

    def _put(self, connection: Connection, puts: Sequence[_Put]) -> None:
        if not puts:
            return
        dimension = len(puts[0].embedding) // FLOAT.itemsize
        if dimension_of(connection) not in (None, dimension):
            raise WriteFailed(
                "The store refused a batch",
                why=f"its vectors have {dimension} components, those of {self._location} have "
                f"{dimension_of(connection)}; nothing was written.",
                fix=ANOTHER_FILE,
            )
        standing = _standing(connection, [put.vector_id for put in puts])
        applied = [
            put
            for put in puts
            if self._makes_way(
                standing.get(put.vector_id), put.record.stamp.version, put.record.stamp[2:5]
            )
        ]
        connection.executemany(
            sql.PUT_RECORD,
            ((*put.record.stamp, put.record.text, put.record.metadata_json) for put in applied),
        )
        connection.executemany(
            sql.PUT_EMBEDDING, ((put.vector_id, put.embedding) for put in applied)
        )

    def _makes_way(
        self, standing: _Standing | None, version: int, entity: tuple[str, str, str]
    ) -> bool:
        """Whether a place is free for *version* of *entity*, its owner, kind and id.

        A vector_id follows from these three: a tombstone under it that names others is damaged,
        shows up with nobody whom it concerns, and so must not keep anything out.
        """
        if standing is None:
            return True
        is_anothers = standing.is_tombstone and standing.entity != entity
        return standing.namespace == self._namespace and (standing.version < version or is_anothers)

    def _parameters(self, rows: Iterable[Deletion | Tombstone]) -> list[dict[str, object]]:
        return [{**row._asdict(), "namespace": self._namespace} for row in rows]


def encoded(records: Iterable[Record]) -> dict[str, bytes]:
    """The vectors of *records* by vector_id, as they are stored."""
    return {
        record.stamp.vector_id: np.asarray(record.embedding, dtype=FLOAT).tobytes()
        for record in records
        if record.embedding is not None
    }


def dimension_of(connection: Connection) -> int | None:
    """Components per vector; None while there is none."""
    row = connection.execute(sql.DIMENSION).fetchone()
    return None if row is None else int(row[0])


def _standing(connection: Connection, vector_ids: Sequence[str]) -> dict[str, _Standing]:
    rows = connection.execute(sql.STANDING, {"vector_ids": sql.id_list(vector_ids)})
    return {row[0]: _Standing(row[1], row[2], bool(row[3]), row[4:7]) for row in rows}
