"""Every statement of the SQLite store. Where stamps are read, the columns are `Stamp`'s, in order.

Lists of ids travel as one JSON array: their number has no limit, and the statement's text is always
the same, so that the driver keeps it prepared.
"""

from __future__ import annotations

from collections.abc import Iterable
from json import JSONEncoder

from undrift.stores._records import STAMP_COLUMNS

# --- layout

USE_WAL = "PRAGMA journal_mode = WAL"
_CREATE_VECTORS = """\
CREATE TABLE IF NOT EXISTS vectors (
    vector_id TEXT PRIMARY KEY NOT NULL,
    namespace TEXT,
    owner_id TEXT NOT NULL,
    kind TEXT,
    entity_id TEXT,
    fingerprint TEXT,
    text_hash TEXT,
    model TEXT,
    version INTEGER,
    deleted INTEGER DEFAULT 0,
    deleted_at TEXT,
    text TEXT,
    metadata TEXT
)"""
# Not WITHOUT ROWID: vectors would overflow its pages, which took twice the space and time.
_CREATE_EMBEDDINGS = """\
CREATE TABLE IF NOT EXISTS embeddings (
    vector_id TEXT PRIMARY KEY NOT NULL,
    embedding BLOB NOT NULL
)"""
_CREATE_INDEX = """\
CREATE INDEX IF NOT EXISTS vectors_by_owner ON vectors (
    owner_id, namespace, kind, entity_id, fingerprint, text_hash, model, version, vector_id
)"""
CREATE = (_CREATE_VECTORS, _CREATE_EMBEDDINGS, _CREATE_INDEX)

COLUMNS = {
    "vectors": {*STAMP_COLUMNS, "deleted", "deleted_at", "text", "metadata"},
    "embeddings": {"vector_id", "embedding"},
}
COLUMNS_OF = "SELECT name FROM pragma_table_info(:table)"

# The commonest of the first hundred: one damaged vector must not be taken for the store's measure.
DIMENSION = """
SELECT bytes / 4 FROM (SELECT length(embedding) AS bytes FROM embeddings LIMIT 100)
GROUP BY bytes ORDER BY count(*) DESC LIMIT 1"""

# --- reading

# A record that has lost its vector is found by no search, so its stamp names no model.
STAMPS_OF_OWNERS = """
SELECT vector_id, namespace, owner_id, kind, entity_id, fingerprint, text_hash,
       CASE WHEN EXISTS (SELECT 1 FROM embeddings e WHERE e.vector_id = v.vector_id)
            THEN model ELSE '' END,
       version
FROM vectors v
WHERE owner_id IN (SELECT value FROM json_each(:owners)) AND namespace = :namespace"""
STAMPS_BY_VECTOR_ID = """
SELECT vector_id, namespace, owner_id, kind, entity_id, fingerprint, text_hash, model, version
FROM vectors
WHERE vector_id IN (SELECT value FROM json_each(:vector_ids))"""
UNMANAGED = """
SELECT owner_id, count(*) FROM vectors
WHERE owner_id IN (SELECT value FROM json_each(:owners)) AND namespace IS NOT :namespace
GROUP BY owner_id"""
FIRST_OWNERS = """
SELECT DISTINCT owner_id FROM vectors WHERE namespace = :namespace
ORDER BY owner_id LIMIT :limit"""
NEXT_OWNERS = """
SELECT DISTINCT owner_id FROM vectors WHERE owner_id > :after AND namespace = :namespace
ORDER BY owner_id LIMIT :limit"""

CANDIDATES = """
SELECT e.vector_id, e.embedding FROM vectors v JOIN embeddings e ON e.vector_id = v.vector_id
WHERE v.owner_id = :owner_id AND v.namespace = :namespace AND v.model = :model
  AND (:kinds IS NULL OR v.kind IN (SELECT value FROM json_each(:kinds)))
  AND length(e.embedding) = :bytes"""
MATCHES = """
SELECT vector_id, namespace, owner_id, kind, entity_id, fingerprint, text_hash, model, version,
       coalesce(text, ''), coalesce(metadata, '{}')
FROM vectors
WHERE vector_id IN (SELECT value FROM json_each(:vector_ids))"""

# --- writing

VERSIONS = """
SELECT vector_id, namespace, coalesce(version, 0) FROM vectors
WHERE vector_id IN (SELECT value FROM json_each(:vector_ids))"""
PUT_RECORD = """
INSERT INTO vectors (vector_id, namespace, owner_id, kind, entity_id, fingerprint, text_hash,
                     model, version, text, metadata)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (vector_id) DO UPDATE SET
    namespace = excluded.namespace, owner_id = excluded.owner_id, kind = excluded.kind,
    entity_id = excluded.entity_id, fingerprint = excluded.fingerprint,
    text_hash = excluded.text_hash, model = excluded.model, version = excluded.version,
    text = excluded.text, metadata = excluded.metadata, deleted = 0, deleted_at = NULL"""
PUT_EMBEDDING = """
INSERT INTO embeddings (vector_id, embedding) VALUES (?, ?)
ON CONFLICT (vector_id) DO UPDATE SET embedding = excluded.embedding"""
# The vector stays, so the row must be the one that the vector was made for.
RESTAMP = """
UPDATE vectors SET
    owner_id = :owner_id, kind = :kind, entity_id = :entity_id, fingerprint = :fingerprint,
    version = :version, text = :text, metadata = :metadata
WHERE vector_id = :vector_id AND namespace = :namespace AND coalesce(version, 0) < :version
  AND text_hash = :text_hash AND model = :model
  AND EXISTS (SELECT 1 FROM embeddings e WHERE e.vector_id = vectors.vector_id)"""
DELETE_RECORD = """
DELETE FROM vectors
WHERE vector_id = :vector_id AND owner_id = :owner_id AND coalesce(version, 0) = :version
  AND namespace = :namespace"""
DELETE_EMBEDDING = """
DELETE FROM embeddings
WHERE vector_id = :vector_id
  AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.vector_id = embeddings.vector_id)"""

_encode = JSONEncoder(ensure_ascii=False).encode


def id_list(ids: Iterable[str]) -> str:
    """*ids* as a parameter for ``json_each``."""
    return _encode(list(ids))
