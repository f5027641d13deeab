"""A store that writes down whom each call names, and drivers that write down every statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import psycopg
import pytest
from psycopg import sql

from support.postgres import PostgresServer
from undrift.model import Stamp
from undrift.ports import (
    Capabilities,
    Deletion,
    Match,
    Record,
    StoreInfo,
    Vectors,
    VectorStore,
)
from undrift.state import Claim, Expected, Fence, Tombstone, TransactionalStore


class Named(NamedTuple):
    """What one call to the store named.

    Attributes:
        owners: owners that were asked for, written or deleted.
        vector_ids: records that were asked for by their ids.
        given: owners of the records that came back.
    """

    call: str
    owners: frozenset[str] = frozenset()
    vector_ids: frozenset[str] = frozenset()
    given: frozenset[str] = frozenset()


class RecordingStore:
    """A `VectorStore` over a real one, which writes down what each call names.

    Attributes:
        calls: in their order.
    """

    def __init__(self, inner: VectorStore) -> None:
        self._inner = inner
        self.calls: list[Named] = []

    @property
    def namespace(self) -> str:
        """See `VectorStore.namespace`."""
        return self._inner.namespace

    @property
    def capabilities(self) -> Capabilities:
        """See `VectorStore.capabilities`."""
        return self._inner.capabilities

    def describe(self) -> StoreInfo:
        """See `VectorStore.describe`."""
        return self._inner.describe()

    def ddl(self, dimension: int) -> Sequence[str]:
        """See `VectorStore.ddl`."""
        return self._inner.ddl(dimension)

    def create(self, dimension: int) -> None:
        """See `VectorStore.create`."""
        self._inner.create(dimension)

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """See `VectorStore.stamps`."""
        found = list(self._inner.stamps(owners))
        self._named("stamps", owners, given={stamp.owner_id for stamp in found})
        yield from found

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """See `VectorStore.stamps_by_vector_id`."""
        found = list(self._inner.stamps_by_vector_id(vector_ids))
        self.calls.append(
            Named(
                "stamps_by_vector_id",
                vector_ids=frozenset(vector_ids),
                given=frozenset(stamp.owner_id for stamp in found),
            )
        )
        yield from found

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """See `VectorStore.unmanaged`."""
        found = self._inner.unmanaged(owners)
        self._named("unmanaged", owners, given=set(found))
        return found

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """See `VectorStore.owners`."""
        found = self._inner.owners(after, limit)
        self._named("owners", (), given=set(found))
        return found

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """See `VectorStore.publish`."""
        self.calls.append(
            Named(
                "publish",
                frozenset(r.stamp.owner_id for r in writes) | {d.owner_id for d in deletes},
                frozenset(r.stamp.vector_id for r in writes) | {d.vector_id for d in deletes},
            )
        )
        self._inner.publish(writes, deletes)

    def publish_fenced(
        self,
        writes: Sequence[Record],
        deletes: Sequence[Deletion],
        expected: Sequence[Expected],
        fence: Fence,
    ) -> frozenset[str]:
        """See `TransactionalStore.publish_fenced`."""
        self.calls.append(
            Named(
                "publish",
                frozenset(r.stamp.owner_id for r in writes)
                | {d.owner_id for d in deletes}
                | {e.owner_id for e in expected},
                frozenset(r.stamp.vector_id for r in writes) | {d.vector_id for d in deletes},
            )
        )
        return self._fencing.publish_fenced(writes, deletes, expected, fence)

    def state_address(self) -> tuple[str, str]:
        """See `TransactionalStore.state_address`."""
        return self._fencing.state_address()

    def claim(self) -> Claim | None:
        """See `ClaimableStore.claim`."""
        return self._fencing.claim()

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """See `ClaimableStore.put_claim`."""
        return self._fencing.put_claim(claim, replacing=replacing)

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """See `ClaimableStore.tombstones`."""
        return self._fencing.tombstones(owners)

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """See `ClaimableStore.bury`."""
        self._fencing.bury(tombstones)

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """See `ClaimableStore.collect`."""
        self._fencing.collect(tombstones)

    @property
    def _fencing(self) -> TransactionalStore:
        assert isinstance(self._inner, TransactionalStore)
        return self._inner

    def search(
        self,
        owner_id: str,
        vector: Vectors,
        *,
        model: str,
        kinds: Sequence[str] | None,
        limit: int,
    ) -> Sequence[Match]:
        """See `VectorStore.search`."""
        found = self._inner.search(owner_id, vector, model=model, kinds=kinds, limit=limit)
        self._named("search", [owner_id], given={match.stamp.owner_id for match in found})
        return found

    def close(self) -> None:
        """See `VectorStore.close`."""
        self._inner.close()

    def _named(self, call: str, owners: Sequence[str], *, given: set[str]) -> None:
        self.calls.append(Named(call, frozenset(owners), given=frozenset(given)))


# --- statements -------------------------------------------------------------------------------


@contextmanager
def sqlite_statements() -> Iterator[list[str]]:
    """The text of every statement that this process gives to SQLite, without bound values."""
    statements: list[str] = []
    connect = sqlite3.connect

    class Cursor(sqlite3.Cursor):
        def execute(self, statement: str, *values: Any) -> Self:  # noqa: ANN401
            statements.append(statement)
            return super().execute(statement, *values)

        def executemany(self, statement: str, *values: Any) -> Self:  # noqa: ANN401
            statements.append(statement)
            return super().executemany(statement, *values)

        def executescript(self, script: str) -> sqlite3.Cursor:
            statements.append(script)
            return super().executescript(script)

    class Connection(sqlite3.Connection):
        def cursor(self, *_: Any) -> Any:  # noqa: ANN401
            return super().cursor(Cursor)

        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:  # noqa: ANN401
            return Cursor(self).execute(statement, *values)

        def executemany(self, statement: str, *values: Any) -> sqlite3.Cursor:  # noqa: ANN401
            return Cursor(self).executemany(statement, *values)

        def executescript(self, script: str) -> sqlite3.Cursor:
            return Cursor(self).executescript(script)

    def recorded(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        return connect(*arguments, **{**options, "factory": Connection})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", recorded)
        yield statements


@contextmanager
def postgres_statements(server: PostgresServer, url: str) -> Iterator[list[str]]:
    """The text of every statement that the server was given, as its own log has it.

    Bound values are not logged, so whatever is found of them was part of a statement.
    """
    name = url.rpartition("/")[2]
    settings = {"log_statement": "all", "log_parameter_max_length": "0"}
    with psycopg.connect(server.admin_url, autocommit=True) as admin:
        for setting, value in settings.items():
            admin.execute(
                sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                    sql.Identifier(name), sql.Identifier(setting), sql.Literal(value)
                )
            )
    begin = server.log_path.stat().st_size
    statements: list[str] = []
    yield statements
    with server.log_path.open("rb") as log:
        log.seek(begin)
        statements.append(log.read().decode("utf-8", "replace"))
