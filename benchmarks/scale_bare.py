"""The raw limits of a fleet: what reading, rendering and loading take without anything else.

Straightforward programs over the same tables, by the same drivers. Rendering is undrift's own: one
Jinja call for each user by hand, as in `benchmarks.bare`, measured slower.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from typing import Any, Protocol

import psycopg

from benchmarks import bare
from undrift import fingerprint as hashes
from undrift.embedders.hashing import HashingEmbedder
from undrift.mapping import DocumentTable, default_entities
from undrift.mapping import Mapping as SourceMapping
from undrift.model import Wanted
from undrift.render import Renderer
from undrift.sources.documents import DocumentContent
from undrift.sources.paths import PathTree
from undrift.stores._records import STAMP_COLUMNS

MAPPING = SourceMapping(
    documents=DocumentTable(table="profiles", owner="user_id", document="filtered_data"),
    entities=default_entities(),
)
LOADED = 5_000
"""Records that are loaded in one transaction."""

ROWS_FETCHED = 2_000
PAGE_RECORDS = 10_000

# What undrift asks for, but of everybody at once: the digest, and how many records are amiss, those
# without a vector among them.
_PG_STORE = """
WITH lost AS MATERIALIZED (
    SELECT owner_id, count(*) AS records FROM undrift.vectors
    WHERE embedding IS NULL AND deleted IS DISTINCT FROM 1 AND namespace = 'default'
    GROUP BY owner_id
), digests AS (
    SELECT owner_id, count(*),
           sha256(convert_to(string_agg(
               fingerprint || '|' || kind || ':' || char_length(entity_id) || ':' || entity_id, ''
               ORDER BY fingerprint COLLATE "C"), 'UTF8')) AS digest,
           count(*) FILTER (WHERE model <> %s OR char_length(fingerprint) <> 32) AS amiss
    FROM undrift.vectors WHERE namespace = 'default' AND deleted IS DISTINCT FROM 1
    GROUP BY owner_id
)
SELECT owner_id, digest, amiss + coalesce(records, 0)
FROM digests LEFT JOIN lost USING (owner_id)"""
_PG_SOURCE = "SELECT user_id, sha256(convert_to(filtered_data::text, 'UTF8')) FROM profiles"
_SQLITE_STORE = """
SELECT owner_id, group_concat(item, ''), sum(amiss) FROM (
    SELECT owner_id,
           fingerprint || '|' || kind || ':' || length(entity_id) || ':' || entity_id AS item,
           model <> ? OR length(fingerprint) <> 32
           OR NOT EXISTS (SELECT 1 FROM embeddings e WHERE e.vector_id = v.vector_id) AS amiss
    FROM vectors v WHERE namespace = 'default' AND deleted IS NOT 1
    ORDER BY owner_id, item
) GROUP BY owner_id"""


class Floor(Protocol):
    """The same pair of sides, raw."""

    def source_digests(self) -> dict[str, bytes]:
        """A digest of every user's raw content, by one statement."""

    def store_digests(self, model: str) -> dict[str, bytes]:
        """A digest of every user's records, by one statement."""

    def documents(self, first: int, last: int) -> Iterator[tuple[object, str]]:
        """Users in a range and their documents, by one statement."""

    def load(self, batches: Iterable[tuple[list[bare.Row], Any]], model: str) -> float:
        """Load batches of rows and vectors into a new table; the seconds that this took."""


class PostgresFloor:
    """Both sides in one PostgreSQL."""

    def __init__(self, url: str) -> None:
        self._url = url

    def source_digests(self) -> dict[str, bytes]:
        """Computed by the server."""
        with psycopg.connect(self._url) as connection:
            return {str(owner): digest for owner, digest in connection.execute(_PG_SOURCE)}

    def store_digests(self, model: str) -> dict[str, bytes]:
        """Computed by the server."""
        with psycopg.connect(self._url) as connection:
            rows = connection.execute(_PG_STORE, (model,))
            return {owner: digest for owner, digest, _ in rows}

    def documents(self, first: int, last: int) -> Iterator[tuple[object, str]]:
        """A server-side cursor."""
        with psycopg.connect(self._url) as connection, connection.cursor("documents") as cursor:
            cursor.itersize = ROWS_FETCHED
            yield from cursor.execute(
                "SELECT user_id, filtered_data::text FROM profiles WHERE user_id BETWEEN %s AND %s",
                (first, last),
            )

    def load(self, batches: Iterable[tuple[list[bare.Row], Any]], model: str) -> float:
        """COPY and a conditional insert, a transaction a batch."""
        seconds = 0.0
        sides = bare.BarePostgres(self._url)
        with sides.loading() as connection:
            for rows, vectors in batches:
                began = time.perf_counter()
                sides.load_batch(connection, rows, vectors, model=model)
                seconds += time.perf_counter() - began
        return seconds


class SqliteFloor:
    """Source and store in two files."""

    def __init__(self, source: str, store: str) -> None:
        self._source, self._store = source, store

    def source_digests(self) -> dict[str, bytes]:
        """Computed here, of what SQLite gives."""
        with closing(sqlite3.connect(self._source)) as connection:
            rows = connection.execute("SELECT user_id, filtered_data FROM profiles")
            return {str(owner): _sha256(document) for owner, document in rows}

    def store_digests(self, model: str) -> dict[str, bytes]:
        """Joined by SQLite, hashed here."""
        with closing(sqlite3.connect(self._store)) as connection:
            rows = connection.execute(_SQLITE_STORE, (model,))
            return {owner: _sha256(items) for owner, items, _ in rows}

    def documents(self, first: int, last: int) -> Iterator[tuple[object, str]]:
        """One SELECT."""
        with closing(sqlite3.connect(self._source)) as connection:
            yield from connection.execute(
                "SELECT user_id, filtered_data FROM profiles WHERE user_id BETWEEN ? AND ?",
                (first, last),
            )

    def load(self, batches: Iterable[tuple[list[bare.Row], Any]], model: str) -> float:
        """Two executemany, a transaction a batch."""
        seconds = 0.0
        sides = bare.BareSqlite(self._source, self._store, f"{self._store}.bare")
        with sides.loading() as connection:
            for rows, vectors in batches:
                began = time.perf_counter()
                sides.load_batch(connection, rows, vectors, model=model)
                seconds += time.perf_counter() - began
        return seconds


def floor_of(source: str, store: str) -> Floor:
    """The floor of two sides, by undrift's URLs."""
    if source.startswith("sqlite"):
        return SqliteFloor(source.removeprefix("sqlite:///"), store.removeprefix("sqlite:///"))
    return PostgresFloor(source)


# --- the work -------------------------------------------------------------------------------------


def digests(floor: Floor, model: str) -> Mapping[str, Any]:
    """Both sides' digests, one after the other."""
    began = time.perf_counter()
    source = floor.source_digests()
    between = time.perf_counter()
    store = floor.store_digests(model)
    assert source.keys() == store.keys(), "the sides do not have the same users"
    return {
        "owners": len(source),
        "source_seconds": between - began,
        "store_seconds": time.perf_counter() - between,
    }


def stamps_reader(store: str) -> Callable[[], Mapping[str, Any]]:
    """What enumerates every record of a store without digests by its own driver; it is open."""
    scheme, _, rest = store.partition(":///")
    if scheme == "lancedb":
        folder, _, table = rest.partition("?table=")
        return _lance_reader(folder, table)
    return _qdrant_reader(rest)


def _lance_reader(folder: str, name: str) -> Callable[[], Mapping[str, Any]]:
    import lancedb

    table = lancedb.connect(folder).open_table(name)

    def read() -> Mapping[str, Any]:
        found = 0
        for batch in table.search().select(list(STAMP_COLUMNS)).to_batches():
            found += len(list(zip(*batch.to_pydict().values(), strict=True)))
        return {"records": found}

    return read


def _qdrant_reader(folder: str) -> Callable[[], Mapping[str, Any]]:
    import qdrant_edge as edge

    shard = edge.EdgeShard.load(folder)
    stamp = edge.PayloadSelector.Include(list(STAMP_COLUMNS[1:]))

    def read() -> Mapping[str, Any]:
        found, offset = 0, None
        while True:
            page, offset = shard.scroll(
                edge.ScrollRequest(
                    offset=offset, limit=PAGE_RECORDS, with_payload=stamp, with_vector=False
                )
            )
            found += len([(record.id, *(record.payload or {}).values()) for record in page])
            if offset is None:
                return {"records": found}

    return read


def rendered(floor: Floor, first: int, last: int) -> Mapping[str, Any]:
    """Read and render a part of the source."""
    owners = entities = 0
    for wanted in _wanted(floor.documents(first, last)):
        owners += 1
        entities += len(wanted.entities)
    return {"owners": owners, "entities": entities}


def read(floor: Floor, first: int, last: int) -> Mapping[str, Any]:
    """Read the source's documents and do nothing with them."""
    return {"owners": sum(1 for _ in floor.documents(first, last))}


def synced(floor: Floor, owners: int, dimension: int) -> Mapping[str, Any]:
    """Read and render, embed, and load the whole fleet; each phase is timed for itself."""
    embedder = HashingEmbedder(dimension)
    spent = {"render": 0.0, "embed": 0.0}
    loaded = 0

    def batches() -> Iterator[tuple[list[bare.Row], Any]]:
        nonlocal loaded
        rows = _rows(_wanted(floor.documents(1, owners)))
        began = time.perf_counter()
        while batch := list(islice(rows, LOADED)):
            spent["render"] += time.perf_counter() - began
            loaded += len(batch)
            began = time.perf_counter()
            # As undrift does: equal texts are embedded once.
            texts: dict[str, int] = {}
            for row in batch:
                texts.setdefault(row.text, len(texts))
            vectors = embedder.embed(list(texts))[[texts[row.text] for row in batch]]
            spent["embed"] += time.perf_counter() - began
            yield batch, vectors
            began = time.perf_counter()

    seconds = floor.load(batches(), embedder.model)
    return {
        "entities": loaded,
        "render_seconds": spent["render"],
        "embed_seconds": spent["embed"],
        "load_seconds": seconds,
    }


def _wanted(documents: Iterable[tuple[object, str]]) -> Iterator[Wanted]:
    renderer, paths = Renderer(MAPPING), PathTree(MAPPING.entities)
    for owner, document in documents:
        yield renderer.render(DocumentContent(str(owner), [document], paths))


def _rows(found: Iterable[Wanted]) -> Iterator[bare.Row]:
    for wanted in found:
        for entity in wanted.entities.values():
            owner, kind, entity_id = entity.owner_id, entity.kind, entity.entity_id
            yield bare.Row(
                hashes.vector_id("default", owner, kind, entity_id),
                owner,
                kind,
                entity_id,
                entity.fingerprint,
                entity.text_hash,
                entity.text,
                entity.metadata_json,
            )


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
