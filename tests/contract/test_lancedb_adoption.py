"""A LanceDB table of another program's keeps the contract of adopted collections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from support.behind.lancedb import open_table, rows_of
from undrift.adoption import Field, StoreFields
from undrift.testing._store_adoption import KIND, AdoptionContract, ForeignRecord
from undrift.testing.builders import DIMENSION, MODEL, vectors

Row = dict[str, Any]


class Table(AdoptionContract):
    """A table in a folder of its own for each test."""

    schema: pa.Schema
    vector = "vector"

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
        folder, numbers = tmp_path_factory.mktemp("collections"), count(1)
        return lambda: f"lancedb:///{folder / str(next(numbers))}?table=careers"

    def write_foreign(self, location: str, records: Sequence[ForeignRecord]) -> None:
        folder = Path(location.removeprefix("lancedb:///").partition("?")[0])
        table = lancedb.connect(folder).create_table("careers", schema=self.schema, exist_ok=True)
        rows = pa.Table.from_pylist([self.row(record) for record in records], schema=self.schema)
        merge = table.merge_insert(self.id).when_matched_update_all().when_not_matched_insert_all()
        merge.execute(rows)

    def raw(self, location: str) -> Mapping[str, ForeignRecord]:
        rows = rows_of(location)
        found = {str(row[self.id]): self.record(row) for row in rows}
        assert len(found) == len(rows)
        return found

    def searchable(self, location: str) -> set[str]:
        found = open_table(location).search(vectors(1)[0], self.vector).limit(1_000).to_list()
        return {row[self.id] for row in found}

    id = "id"

    def row(self, record: ForeignRecord) -> Row:
        raise NotImplementedError

    def record(self, row: Row) -> ForeignRecord:
        raise NotImplementedError


class TestColumns(Table):
    """Everything in columns, the owner a number, another vector beside."""

    id = "doc id"
    vector = "embedding"
    schema = pa.schema(
        [
            pa.field("doc id", pa.string()),
            pa.field("user_id", pa.int64()),
            pa.field("exp", pa.string()),
            pa.field("content", pa.large_string()),
            pa.field("extra", pa.string()),
            pa.field("app", pa.string()),
            pa.field("embedding", pa.list_(pa.float32(), DIMENSION)),
            pa.field("image", pa.list_(pa.float32(), 3)),
        ]
    )

    def fields(self, location: str) -> StoreFields:
        return StoreFields(
            owner=Field(path=("user_id",)),
            kind=Field(value=KIND),
            entity_id=Field(path=("exp",)),
            text=Field(path=("content",)),
            model=Field(value=MODEL),
            id=Field(path=("doc id",)),
            vector=Field(path=("embedding",)),
            fixed={"app": "careers"},
        )

    def row(self, record: ForeignRecord) -> Row:
        return {
            "doc id": record.id,
            "user_id": record.owner,
            "exp": record.entity_id,
            "content": record.text,
            "extra": record.extra,
            "app": "careers",
            "embedding": None if record.vector is None else record.vector.tolist(),
        }

    def record(self, row: Row) -> ForeignRecord:
        return ForeignRecord(
            id=row["doc id"],
            owner=row["user_id"],
            entity_id=row["exp"],
            text=row["content"],
            vector=_vector(row["embedding"]),
            extra=row["extra"],
        )


class TestMetadata(Table):
    """As LangChain and LlamaIndex have it: the metadata in a struct."""

    schema = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("text", pa.string()),
            pa.field("vector", pa.list_(pa.float32(), DIMENSION)),
            pa.field(
                "metadata",
                pa.struct(
                    [
                        pa.field("user id", pa.int32()),
                        pa.field("exp", pa.string()),
                        pa.field("extra", pa.string()),
                    ]
                ),
            ),
        ]
    )

    def fields(self, location: str) -> StoreFields:
        return StoreFields(
            owner=Field(path=("metadata", "user id")),
            kind=Field(value=KIND),
            entity_id=Field(path=("metadata", "exp")),
            text=Field(path=("text",)),
            model=Field(value=MODEL),
        )

    def row(self, record: ForeignRecord) -> Row:
        metadata = {"user id": record.owner, "exp": record.entity_id, "extra": record.extra}
        vector = None if record.vector is None else record.vector.tolist()
        return {"id": record.id, "text": record.text, "vector": vector, "metadata": metadata}

    def record(self, row: Row) -> ForeignRecord:
        return ForeignRecord(
            id=row["id"],
            owner=row["metadata"]["user id"],
            entity_id=row["metadata"]["exp"],
            text=row["text"],
            vector=_vector(row["vector"]),
            extra=row["metadata"]["extra"],
        )


def _vector(stored: object) -> np.ndarray | None:
    return None if stored is None else np.array(stored, dtype=np.float32)
