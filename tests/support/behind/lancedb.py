"""A LanceDB store as its driver reaches it, past undrift."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path

import lancedb
import numpy as np
from lancedb.table import Table

from support.closing import Closing
from support.sides import NAMESPACE, Identity, Row, identity_of
from undrift.ports import Vectors


def folder_of(location: str) -> Path:
    """Where the files of the table at *location* are, on this machine."""
    folder, table = _place(location)
    return Path(folder) / f"{table}.lance"


def open_table(location: str) -> Table:
    """The table of the store at *location*, which always shows the newest version."""
    folder, table = _place(location)
    return lancedb.connect(folder, read_consistency_interval=timedelta(0)).open_table(table)


def rows_of(location: str) -> list[dict[str, object]]:
    """Every row of the table, repetitions of a vector_id too."""
    rows: list[dict[str, object]] = open_table(location).search().to_list()
    return rows


def set_columns(location: str, vector_id: str, **changes: object) -> None:
    """Tamper with one record."""
    values = {
        name: np.frombuffer(value, dtype="<f4").tolist() if isinstance(value, bytes) else value
        for name, value in changes.items()
    }
    result = open_table(location).update(where=f"vector_id = '{vector_id}'", values=values)
    assert result.rows_updated == 1


def vector_at(location: str, vector_id: str) -> Vectors:
    """The vector that is stored under *vector_id*, bit for bit."""
    found = open_table(location).search().where(f"vector_id = '{vector_id}'").to_arrow()
    (stored,) = found.column("embedding").to_pylist()
    return np.array(stored, dtype=np.float32)


class BehindLanceDb(Closing):
    """The store's table.

    Args:
        url: the store's.
        kinds: the configured ones; a record of another kind is not managed.
    """

    def __init__(self, url: str, kinds: Collection[str]) -> None:
        self._url = url
        self._kinds = kinds

    def close(self) -> None:
        """There is nothing to close: every call opens the table anew."""

    @property
    def exists(self) -> bool:
        """Whether the table of the records has been created."""
        return (folder_of(self._url) / "_versions").is_dir()

    def records(self) -> dict[str, Row]:
        """Every record, managed or not, with its vector, by vector_id."""
        return {str(row["vector_id"]): _encoded(row) for row in rows_of(self._url)}

    def managed(self) -> dict[str, Row]:
        """The records of the namespace and the configured kinds, no tombstones, by vector_id."""
        return {
            vector_id: row
            for vector_id, row in self.records().items()
            if row["namespace"] == NAMESPACE and row["kind"] in self._kinds and not row["deleted"]
        }

    def identities(self) -> dict[Identity, str]:
        """The vector_id of each managed record; the test fails where there are duplicates."""
        managed = self.managed()
        by_identity = {identity_of(row): vector_id for vector_id, row in managed.items()}
        assert len(by_identity) == len(managed), "an entity has more than one record"
        return by_identity

    def set(self, vector_id: str, **changes: object) -> None:
        """Tamper with one record."""
        set_columns(self._url, vector_id, **changes)

    def delete(self, vector_id: str) -> None:
        """Delete one record."""
        table = open_table(self._url)
        rows = table.count_rows()
        table.delete(f"vector_id = '{vector_id}'")
        assert table.count_rows() == rows - 1

    def lose_vector(self, vector_id: str) -> None:
        """Take the vector from one record."""
        self.set(vector_id, embedding=None)

    def move(self, vector_id: str, to: str | None = None) -> str:
        """Put one record under another vector_id, by default a new one, and return that."""
        new_id = to or str(uuid.uuid5(uuid.UUID(vector_id), "moved"))
        where, moved = f"vector_id = '{vector_id}'", {"vector_id": new_id}
        assert open_table(self._url).update(where=where, values=moved).rows_updated == 1
        return new_id

    def copy(self, vector_id: str, **changes: object) -> str:
        """Copy one record, vector included, with *changes* under a new vector_id; return that."""
        new_id = str(uuid.uuid5(uuid.UUID(vector_id), json.dumps(changes, sort_keys=True)))
        table = open_table(self._url)
        (row,) = table.search().where(f"vector_id = '{vector_id}'").to_list()
        table.add([{**row, **changes, "vector_id": new_id}])
        return new_id


def _place(location: str) -> tuple[str, str]:
    """LanceDB's own address of the database, and the table."""
    place, _, table = location.partition("?table=")
    return place.removeprefix("lancedb:///").removeprefix("lancedb+"), table or "vectors"


def _encoded(row: Row) -> Row:
    vector = row["embedding"]
    stored = None if vector is None else np.array(vector, dtype="<f4").tobytes()
    return {**row, "embedding": stored}
