"""A table of another program's keeps the contract of adopted collections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import psycopg
import pytest

from support.postgres import PostgresServer
from undrift.adoption import Field, StoreFields
from undrift.state import ClaimableStore
from undrift.testing._store_adoption import KIND, OWNER, AdoptionContract, ForeignRecord
from undrift.testing.builders import DIMENSION, MODEL, vectors

COLLECTION = "11111111-1111-1111-1111-111111111111"


class Table(AdoptionContract):
    """One table in a database for all tests of the class."""

    ddl: str
    embedding = "embedding"

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, postgres_server: PostgresServer) -> Iterator[Callable[[], str]]:
        numbers = count(1)
        with postgres_server.database() as url:
            yield lambda: f"{url}?table=public.foreign_{next(numbers)}"

    def searchable(self, location: str) -> set[str]:
        return {id_ for id_, record in self.raw(location).items() if record.vector is not None}

    def _run(
        self, location: str, statement: str, rows: Sequence[Sequence[object]] = ()
    ) -> list[tuple[object, ...]]:
        url, _, table = location.partition("?table=")
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            ready = statement.format(table=table).encode()
            if rows:
                cursor.executemany(ready, rows)
                return []
            cursor.execute(ready)
            return cursor.fetchall() if cursor.description else []


class TestJsonTable(Table):
    """As LangChain's: the owner in JSON, several collections in one table."""

    def fields(self, location: str) -> StoreFields:
        return StoreFields(
            owner=Field(path=("cmetadata", "user", "id")),
            kind=Field(value=KIND),
            entity_id=Field(path=("cmetadata", "exp%id")),
            text=Field(path=("document",)),
            model=Field(value=MODEL),
            fixed={"collection_id": COLLECTION},
        )

    def _create(self, location: str) -> None:
        self._run(
            location,
            "CREATE TABLE IF NOT EXISTS {table} (id varchar PRIMARY KEY, collection_id uuid, "
            "embedding vector, document varchar, cmetadata jsonb)",
        )

    def write_foreign(self, location: str, records: Sequence[ForeignRecord]) -> None:
        self._create(location)
        rows = [
            (r.id, COLLECTION, _text(r), r.text, json.dumps(self._metadata(r))) for r in records
        ]
        self._run(
            location,
            "INSERT INTO {table} VALUES (%s, %s, %s, %s, %s) ON CONFLICT (id) DO UPDATE SET "
            "embedding = excluded.embedding, document = excluded.document, "
            "cmetadata = excluded.cmetadata",
            rows,
        )

    def raw(self, location: str) -> Mapping[str, ForeignRecord]:
        rows = self._run(location, "SELECT id, embedding::text, document, cmetadata FROM {table}")
        found = {}
        for id_, vector, text, metadata in rows:
            assert isinstance(metadata, dict)
            found[str(id_)] = ForeignRecord(
                id=str(id_),
                owner=(metadata.get("user") or {}).get("id"),
                entity_id=metadata.get("exp%id"),
                text=None if text is None else str(text),
                vector=_vector(vector),
                extra=metadata.get("extra"),
            )
        return found

    def _metadata(self, record: ForeignRecord) -> dict[str, object]:
        user = {} if record.owner is None else {"id": record.owner, "name": "x"}
        found: dict[str, object] = {"user": user, "extra": record.extra}
        if record.entity_id is not None:
            found["exp%id"] = record.entity_id
        return found

    def test_another_collection_of_the_table_says_nothing_of_this_one(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """Its vectors may have other components, and its owners be text."""
        other = "22222222-2222-2222-2222-222222222222"
        self._create(location)
        self._run(
            location,
            "INSERT INTO {table} VALUES ('other', %s, '[1,2,3]', 'text', "
            '\'{{"user": {{"id": "7"}}, "exp%%id": "e9"}}\')',
            [(other,)],
        )
        self.write_foreign(location, [self.foreign(1)])
        store = opened()
        assert store.describe().dimension == DIMENSION
        store.publish([self.wanted(self.foreign(2))], [])
        found = self.raw(location)
        assert {record.owner for record in found.values() if record.id != "other"} == {7}
        assert store.unmanaged(["7"]) == {"7": 1}

    def test_a_vector_of_other_components_counts_as_lost(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """No search could compare it."""
        odd = replace(self.foreign(2), vector=np.ones(3, dtype=np.float32))
        self.write_foreign(location, [self.foreign(1), self.foreign(3), odd])
        store = opened()
        lost = {stamp.entity_id for stamp in store.stamps([OWNER]) if not stamp.model}
        assert lost == {"e2"}
        query = vectors(1)[0]
        found = store.search(OWNER, query, model=MODEL, kinds=None, limit=9)
        assert {match.stamp.entity_id for match in found} == {"e1", "e3"}


class TestColumnsTable(Table):
    """Everything in columns, a serial key beside the record's own id, JSON without binary form."""

    def fields(self, location: str) -> StoreFields:
        return StoreFields(
            owner=Field(path=("user_id",)),
            kind=Field(value=KIND),
            entity_id=Field(path=("exp",)),
            text=Field(path=("meta", "text")),
            model=Field(value=MODEL),
            id=Field(path=("node_id",)),
        )

    def write_foreign(self, location: str, records: Sequence[ForeignRecord]) -> None:
        self._run(
            location,
            "CREATE TABLE IF NOT EXISTS {table} (id bigserial PRIMARY KEY, node_id varchar, "
            "user_id bigint, exp text, extra text, meta json, embedding vector(16))",
        )
        self._run(location, "DELETE FROM {table} WHERE node_id = %s", [(r.id,) for r in records])
        rows = [
            (r.id, r.owner, r.entity_id, r.extra, json.dumps({"text": r.text}), _text(r))
            for r in records
        ]
        self._run(
            location,
            "INSERT INTO {table} (node_id, user_id, exp, extra, meta, embedding) "
            "VALUES (%s, %s, %s, %s, %s, %s)",
            rows,
        )

    def raw(self, location: str) -> Mapping[str, ForeignRecord]:
        rows = self._run(
            location,
            "SELECT node_id, user_id, exp, extra, meta ->> 'text', embedding::text FROM {table}",
        )
        found: dict[str, ForeignRecord] = {}
        for id_, owner, entity_id, extra, text, vector in rows:
            assert owner is None or isinstance(owner, int)
            found[str(id_)] = ForeignRecord(
                id=str(id_),
                owner=owner,
                entity_id=None if entity_id is None else str(entity_id),
                text=None if text is None else str(text),
                vector=_vector(vector),
                extra=None if extra is None else str(extra),
            )
        assert len(found) == len(rows)
        return found

    def test_json_that_is_no_object_is_never_overwritten(
        self, location: str, opened: Callable[..., ClaimableStore]
    ) -> None:
        """There is no place for a stamp in it, so that the record is not managed."""
        self.write_foreign(location, [self.foreign(1)])
        self._run(location, "UPDATE {table} SET meta = '[1, 2]'")
        store = opened()
        assert list(store.stamps([OWNER])) == []
        assert store.unmanaged([OWNER]) == {OWNER: 1}
        store.publish([self.stamped(self.foreign(1))], [])
        assert self._run(location, "SELECT meta::text FROM {table}") == [("[1, 2]",)]


def _text(record: ForeignRecord) -> str | None:
    return None if record.vector is None else json.dumps(record.vector.tolist())


def _vector(text: object) -> np.ndarray | None:
    return None if text is None else np.array(json.loads(str(text)), dtype=np.float32)
