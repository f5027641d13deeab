"""Both databases of a test, the `Undrift` between them, and raw SQL access to either.

What a test plants or looks at goes through SQL and never through undrift, so that a fault of
undrift's cannot hide itself.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import sqlalchemy as sa

from support.behind import Behind
from support.closing import Closing
from support.layouts import Document, DocumentsLayout, Layout
from undrift import EntityId, SyncStatus, Undrift
from undrift.embedders.hashing import HashingEmbedder
from undrift.heal import NO_HEALING, HealPolicy
from undrift.mapping import DocumentTable, default_entities
from undrift.mapping import Mapping as SourceMapping
from undrift.ports import Embedder, Purpose, Source, Vectors, VectorStore
from undrift.render import Renderer
from undrift.sources import open_source
from undrift.stores import open_store

DIMENSION = 16
ORIGIN = SourceMapping(documents=DocumentTable(), entities=default_entities())
NAMESPACE = "default"

Row = Mapping[str, Any]


class CountingEmbedder:
    """The hashing embedder, which remembers every text it was asked for.

    Attributes:
        texts: documents in the order they were embedded, repetitions included.
        calls: how many times it was asked for documents.
        unusable: a text that holds one of these gets a vector of NaN.
        refused: a batch with a text that holds one of these fails as a whole.
    """

    def __init__(self, name: str = "counting", dimension: int = DIMENSION) -> None:
        self._inner = HashingEmbedder(dimension)
        self.model = f"test/{name}:{dimension}:l2"
        self.dimension = dimension
        self.texts: list[str] = []
        self.calls = 0
        self.unusable: set[str] = set()
        self.refused: set[str] = set()

    def embed(self, texts: Sequence[str], purpose: Purpose = "document") -> Vectors:
        """Embed *texts* by hashing, or fail as it was told to."""
        if purpose == "query":
            return self._inner.embed(texts, purpose)
        self.calls += 1
        if any(word in text for word in self.refused for text in texts):
            raise ConnectionError("the embedding service hung up")
        self.texts.extend(texts)
        vectors = self._inner.embed(texts)
        for row, text in enumerate(texts):
            if any(word in text for word in self.unusable):
                vectors[row] = np.nan
        return vectors

    def count_truncated(self, texts: Sequence[str]) -> int:
        """It reads every text to its end."""
        return 0


class Database:
    """A database as anybody with SQL reaches it."""

    def __init__(self, url: str) -> None:
        parsed = sa.make_url(url)
        self.is_postgres = parsed.get_backend_name() == "postgresql"
        if self.is_postgres:
            parsed = parsed.set(drivername="postgresql+psycopg")
        self._engine = sa.create_engine(parsed, pool_pre_ping=True)

    def close(self) -> None:
        """Close every connection; the next statement opens another."""
        self._engine.dispose()

    def connection(self) -> sa.Connection:
        """A connection, for a test that holds a transaction open."""
        return self._engine.connect()

    def run(self, statement: str, **values: object) -> int:
        """Execute and commit one statement; return how many rows it touched."""
        with self._engine.begin() as connection:
            return connection.execute(sa.text(statement), values).rowcount

    def run_many(self, statement: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Execute one statement for each of *rows*, in one transaction."""
        if rows:
            with self._engine.begin() as connection:
                connection.execute(sa.text(statement), list(rows))

    def rows(self, query: str, **values: object) -> list[Row]:
        """The rows of *query*, by column name."""
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(sa.text(query), values).mappings()]


class Identity(NamedTuple):
    """What a record claims to stand for."""

    owner_id: str
    key: EntityId


class StoreTables:
    """The store's tables, by SQL.

    Args:
        kinds: the configured ones; a record of another kind is not managed.
    """

    def __init__(self, database: Database, kinds: Collection[str]) -> None:
        self.database = database
        self._kinds = kinds
        self.vectors = "undrift.vectors" if database.is_postgres else "vectors"

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    @property
    def exists(self) -> bool:
        """Whether the table of the records has been created."""
        if self.database.is_postgres:
            query = "SELECT to_regclass('undrift.vectors') IS NOT NULL AS found"
        else:
            query = "SELECT count(*) AS found FROM sqlite_master WHERE name = 'vectors'"
        return bool(self.database.rows(query)[0]["found"])

    def records(self) -> dict[str, Row]:
        """Every record, managed or not, with its vector, by vector_id."""
        if self.database.is_postgres:
            query = f"SELECT *, embedding::text AS embedding FROM {self.vectors}"
        else:
            query = f"SELECT * FROM {self.vectors} LEFT JOIN embeddings USING (vector_id)"
        return {str(row["vector_id"]): row for row in self.database.rows(query)}

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
        assignments = ", ".join(f"{column} = :{column}" for column in changes)
        touched = self.database.run(
            f"UPDATE {self.vectors} SET {assignments} WHERE vector_id = {self._id}",
            vector_id=vector_id,
            **changes,
        )
        assert touched == 1

    def delete(self, vector_id: str) -> None:
        """Delete one record."""
        if not self.database.is_postgres:
            self.database.run("DELETE FROM embeddings WHERE vector_id = :v", v=vector_id)
        touched = self.database.run(
            f"DELETE FROM {self.vectors} WHERE vector_id = {self._id}", vector_id=vector_id
        )
        assert touched == 1

    def lose_vector(self, vector_id: str) -> None:
        """Take the vector from one record."""
        if self.database.is_postgres:
            self.set(vector_id, embedding=None)
        else:
            self.database.run("DELETE FROM embeddings WHERE vector_id = :v", v=vector_id)

    def move(self, vector_id: str, to: str | None = None) -> str:
        """Put one record under another vector_id, by default a new one, and return that."""
        new_id = to or str(uuid.uuid5(uuid.UUID(vector_id), "moved"))
        for table in [self.vectors] if self.database.is_postgres else [self.vectors, "embeddings"]:
            self.database.run(
                f"UPDATE {table} SET vector_id = {self._new_id} WHERE vector_id = {self._id}",
                vector_id=vector_id,
                new_id=new_id,
            )
        return new_id

    def copy(self, vector_id: str, **changes: object) -> str:
        """Copy one record, vector included, with *changes* under a new vector_id; return that."""
        new_id = str(uuid.uuid5(uuid.UUID(vector_id), json.dumps(changes, sort_keys=True)))
        query = f"SELECT * FROM {self.vectors} LIMIT 1"
        columns = [name for name in self.database.rows(query)[0] if name != "vector_id"]
        chosen = [f"CAST(:{name} AS text)" if name in changes else name for name in columns]
        self.database.run(
            f"INSERT INTO {self.vectors} (vector_id, {', '.join(columns)}) "
            f"SELECT {self._new_id}, {', '.join(chosen)} "
            f"FROM {self.vectors} WHERE vector_id = {self._id}",
            vector_id=vector_id,
            new_id=new_id,
            **changes,
        )
        if not self.database.is_postgres:
            self.database.run(
                "INSERT INTO embeddings (vector_id, embedding) "
                "SELECT :new_id, embedding FROM embeddings WHERE vector_id = :vector_id",
                vector_id=vector_id,
                new_id=new_id,
            )
        return new_id

    @property
    def _id(self) -> str:
        return "CAST(:vector_id AS uuid)" if self.database.is_postgres else ":vector_id"

    @property
    def _new_id(self) -> str:
        return "CAST(:new_id AS uuid)" if self.database.is_postgres else ":new_id"


def identity_of(row: Row) -> Identity:
    """The entity that a record claims to stand for."""
    return Identity(row["owner_id"], EntityId.of(row["kind"], row["entity_id"]))


def metadata_of(row: Row) -> object:
    """A record's metadata, decoded."""
    stored = row["metadata"]
    return json.loads(stored) if isinstance(stored, str) else stored


def vector_of(row: Row) -> Vectors:
    """A record's vector."""
    stored = row["embedding"]
    if isinstance(stored, str):
        return np.array(json.loads(stored), dtype=np.float32)
    return np.frombuffer(stored, dtype="<f4")


class World(Closing):
    """A source, a store, and what stands between them.

    Args:
        layout: how the source holds its entities; the origin's documents by default.
        create: whether the source's tables are still to be created.
        behind: raw access to a store that is no SQL database.
        state_url: where the state is; None means beside the vectors.
    """

    def __init__(
        self,
        source_url: str,
        store_url: str,
        *,
        layout: Layout | None = None,
        create: bool = True,
        behind: Behind | None = None,
        state_url: str | None = None,
    ) -> None:
        self.source_url = source_url
        self.store_url = store_url
        self.state_url = state_url
        self.layout: Layout = layout or DocumentsLayout()
        self.embedder = CountingEmbedder()
        self.source = Database(source_url)
        # Any other has the same methods; only tests of SQL stores ask for their database.
        self.store = (
            StoreTables(Database(store_url), self.layout.mapping.kinds)
            if behind is None
            else cast("StoreTables", behind)
        )
        self._opened: list[Undrift] = []
        for statement in self.layout.ddl(is_postgres=self.source.is_postgres) if create else ():
            self.source.run(statement)
        self.sides = self.open()

    def close(self) -> None:
        """Close every connection."""
        for sides in self._opened:
            sides.close()
        self.source.close()
        self.store.close()

    def open(
        self,
        *,
        source: Callable[[Source], Source] = lambda source: source,
        store: Callable[[VectorStore], VectorStore] = lambda store: store,
        embedder: Embedder | None = None,
        source_url: str | None = None,
        store_url: str | None = None,
        heal: HealPolicy = NO_HEALING,
    ) -> Undrift:
        """An `Undrift` over these databases, closed with the world.

        Args:
            source: wraps the source.
            store: wraps the store.
            embedder: in place of the world's own.
            source_url: the same source under another login.
            store_url: the same store under another login.
            heal: when a search may set off a repair; most tests look at what drifted, and at rest.
        """
        mapping = self.layout.mapping
        opened = Undrift(
            source=source(
                open_source(
                    source_url or self.source_url, mapping, _renderer(type(self.layout)).fields
                )
            ),
            store=store(open_store(store_url or self.store_url, namespace=NAMESPACE)),
            state=self.state_url,
            embedder=embedder or self.embedder,
            mapping=mapping,
            heal=heal,
        )
        self._opened.append(opened)
        return opened

    @property
    def stores_exact_vectors(self) -> bool:
        """Whether vectors are kept bit for bit."""
        with closing(open_store(self.store_url)) as store:
            return store.capabilities.exact_vectors

    # --- the source ---------------------------------------------------------------------------

    def put(self, owner_id: str | int, document: Document) -> None:
        """Make *document* the owner's content, by SQL."""
        self.put_all({str(owner_id): document})

    def put_all(self, documents: Mapping[str, Document]) -> None:
        """Make each owner's content what *documents* say, by SQL."""
        self.remove_owners(documents)
        for statement, rows in self.layout.inserts(documents, is_postgres=self.source.is_postgres):
            self.source.run_many(statement, rows)

    def bring_in_sync(self, documents: Mapping[str, Document]) -> None:
        """Make *documents* the content of both sides, and forget what that cost."""
        self.put_all(documents)
        assert all(report.is_in_sync for report in self.sides.sync_all())
        self.embedder.texts.clear()

    def remove_owners(self, owners: Sequence[str] | Mapping[str, object]) -> None:
        """Delete *owners* from the source."""
        for table in self.layout.tables:
            self.source.run_many(
                f"DELETE FROM {table} WHERE user_id = :owner",
                [{"owner": int(owner)} for owner in owners],
            )

    # --- the store ----------------------------------------------------------------------------

    def vector_id(self, owner_id: str | int, key: str) -> str:
        """Where the owner's entity *key* (``kind:id``) lives."""
        return self.store.identities()[Identity(str(owner_id), EntityId(key))]

    def keys(self, owner_id: str | int) -> set[str]:
        """What the store holds of the owner, as ``kind:id``."""
        return {i.key for i in self.store.identities() if i.owner_id == str(owner_id)}

    def assert_store_holds(self, documents: Mapping[str, Document]) -> None:
        """Compare every managed record with what *documents* render to, vectors included.

        Nothing of undrift's is asked: not its fingerprints, not its check.
        """
        managed = self.store.managed()
        found = {
            identity_of(row): (row["text"], metadata_of(row), row["model"])
            for row in managed.values()
        }
        assert len(found) == len(managed), "an entity has more than one record"
        wanted = {
            Identity(owner, key): (entity.text, entity.metadata, self.embedder.model)
            for owner, document in documents.items()
            for key, entity in self.layout.entities(document).items()
        }
        assert found == wanted
        vectors = np.array([vector_of(row) for row in managed.values()])
        texts = [row["text"] for row in managed.values()]
        if texts:
            expected = HashingEmbedder(DIMENSION).embed(texts)
            if self.stores_exact_vectors:
                np.testing.assert_array_equal(vectors, expected)
            else:
                np.testing.assert_allclose(vectors, expected, atol=1e-3)


@cache
def _renderer(layout: type[Layout]) -> Renderer:
    """A layout's renderer, made once: compiling its templates costs more than a whole sync."""
    return Renderer(layout.mapping)


def sqlite_world(folder: Path, *, layout: Layout | None = None, create: bool = True) -> World:
    """A world of two SQLite files in *folder*."""
    return World(
        f"sqlite:///{folder / 'app.db'}",
        f"sqlite:///{folder / 'vectors.db'}",
        layout=layout,
        create=create,
    )


def postgres_world(url: str, *, layout: Layout | None = None) -> World:
    """A world in one PostgreSQL database."""
    return World(url, url, layout=layout)


def drift_of(status: SyncStatus) -> dict[str, set[str]]:
    """A status' ids by kind of drift, without the kinds that have none."""
    found: dict[str, set[str]] = {
        "missing": set(status.missing_ids),
        "stale": set(status.stale_ids),
        "changed": set(status.changed_ids),
        "wrong_model": set(status.wrong_model_ids),
        "duplicate": set(status.duplicate_ids),
    }
    return {kind: ids for kind, ids in found.items() if ids}
