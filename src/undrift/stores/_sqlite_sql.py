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
CREATE_CLAIMS = """\
CREATE TABLE IF NOT EXISTS undrift_store_claim (
    namespace TEXT PRIMARY KEY NOT NULL,
    source TEXT NOT NULL,
    state_id TEXT NOT NULL,
    epoch INTEGER NOT NULL
)"""
# Not WITHOUT ROWID: vectors would overflow its pages, which took twice the space and time.
_CREATE_EMBEDDINGS = """\
CREATE TABLE IF NOT EXISTS embeddings (
    vector_id TEXT PRIMARY KEY NOT NULL,
    embedding BLOB NOT NULL
)"""
# In files of before, the index lacks `deleted`; there it is read from the table.
_CREATE_INDEX = """\
CREATE INDEX IF NOT EXISTS vectors_by_owner ON vectors (
    owner_id, namespace, kind, entity_id, fingerprint, text_hash, model, version, vector_id, deleted
)"""
_CREATE_BURIED_INDEX = """\
CREATE INDEX IF NOT EXISTS vectors_buried ON vectors (
    owner_id, namespace, kind, entity_id, version, vector_id
) WHERE deleted = 1"""
CREATE = (_CREATE_VECTORS, _CREATE_EMBEDDINGS, _CREATE_INDEX, _CREATE_BURIED_INDEX, CREATE_CLAIMS)

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
WHERE owner_id IN (SELECT value FROM json_each(:owners)) AND namespace = :namespace
  AND deleted IS NOT 1"""
STAMPS_BY_VECTOR_ID = """
SELECT vector_id, namespace, owner_id, kind, entity_id, fingerprint, text_hash, model, version
FROM vectors
WHERE vector_id IN (SELECT value FROM json_each(:vector_ids)) AND deleted IS NOT 1"""
TOMBSTONES = """
SELECT vector_id, owner_id, coalesce(kind, ''), coalesce(entity_id, ''), coalesce(version, 0)
FROM vectors
WHERE deleted = 1 AND owner_id IN (SELECT value FROM json_each(:owners))
  AND namespace = :namespace"""
UNMANAGED = """
SELECT owner_id, count(*) FROM vectors
WHERE owner_id IN (SELECT value FROM json_each(:owners)) AND namespace IS NOT :namespace
  AND deleted IS NOT 1
GROUP BY owner_id"""
# What is not managed has no item. The joined items are taken as the bytes they are: of text that is
# not UTF-8 they make another digest, and no error. An aggregate's own ORDER BY is not in every
# SQLite, but group_concat keeps the order it is given.
DIGESTS = """
SELECT owner_id, count(item), CAST(group_concat(item, '') AS BLOB),
       coalesce(sum(item IS NOT NULL AND is_amiss), 0), count(*) - count(item)
FROM (
    SELECT owner_id,
           CASE WHEN namespace = :namespace
                 AND coalesce(kind, '') IN (SELECT value FROM json_each(:kinds))
                THEN coalesce(fingerprint, '') || '|' || coalesce(kind, '') || ':'
                     || length(coalesce(entity_id, '')) || ':' || coalesce(entity_id, '')
           END AS item,
           NOT coalesce(model = :model AND length(fingerprint) = :fingerprint_characters, 0)
           OR NOT EXISTS (SELECT 1 FROM embeddings e WHERE e.vector_id = v.vector_id) AS is_amiss
    FROM vectors v
    WHERE owner_id IN (SELECT value FROM json_each(:owners)) AND deleted IS NOT 1
    ORDER BY owner_id, item
)
GROUP BY owner_id"""
FIRST_OWNERS = """
SELECT DISTINCT owner_id FROM vectors WHERE namespace = :namespace AND deleted IS NOT 1
ORDER BY owner_id LIMIT :limit"""
NEXT_OWNERS = """
SELECT DISTINCT owner_id FROM vectors
WHERE owner_id > :after AND namespace = :namespace AND deleted IS NOT 1
ORDER BY owner_id LIMIT :limit"""

CANDIDATES = """
SELECT e.vector_id, e.embedding FROM vectors v JOIN embeddings e ON e.vector_id = v.vector_id
WHERE v.owner_id = :owner_id AND v.namespace = :namespace AND v.model = :model
  AND (:kinds IS NULL OR v.kind IN (SELECT value FROM json_each(:kinds)))
  AND v.deleted IS NOT 1 AND length(e.embedding) = :bytes"""
MATCHES = """
SELECT vector_id, namespace, owner_id, kind, entity_id, fingerprint, text_hash, model, version,
       coalesce(text, ''), coalesce(metadata, '{}')
FROM vectors
WHERE vector_id IN (SELECT value FROM json_each(:vector_ids))"""

# --- writing

STANDING = """
SELECT vector_id, namespace, coalesce(version, 0), deleted IS 1, owner_id, kind, entity_id
FROM vectors
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
  AND text_hash = :text_hash AND model = :model AND deleted IS NOT 1
  AND EXISTS (SELECT 1 FROM embeddings e WHERE e.vector_id = vectors.vector_id)"""
DELETE_RECORD = """
DELETE FROM vectors
WHERE vector_id = :vector_id AND owner_id = :owner_id AND coalesce(version, 0) = :version
  AND namespace = :namespace AND deleted IS NOT 1"""
DELETE_EMBEDDING = """
DELETE FROM embeddings
WHERE vector_id = :vector_id
  AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.vector_id = embeddings.vector_id)"""

BURY = """
INSERT INTO vectors (vector_id, namespace, owner_id, kind, entity_id, fingerprint, text_hash,
                     model, version, text, metadata, deleted, deleted_at)
VALUES (:vector_id, :namespace, :owner_id, :kind, :entity_id, '', '', '', :version, '', '{}', 1,
        strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
ON CONFLICT (vector_id) DO UPDATE SET
    owner_id = excluded.owner_id, kind = excluded.kind, entity_id = excluded.entity_id,
    fingerprint = '', text_hash = '', model = '', version = excluded.version, text = '',
    metadata = '{}', deleted = 1, deleted_at = excluded.deleted_at"""
DELETE_BURIED_EMBEDDING = "DELETE FROM embeddings WHERE vector_id = :vector_id"
COLLECT = """
DELETE FROM vectors
WHERE vector_id = :vector_id AND owner_id = :owner_id AND coalesce(version, 0) = :version
  AND namespace = :namespace AND deleted = 1"""

# --- whose store this is

HAS_CLAIMS = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'undrift_store_claim')"
CLAIM = "SELECT source, state_id, epoch FROM undrift_store_claim WHERE namespace = :namespace"
PUT_CLAIM = """
INSERT INTO undrift_store_claim (namespace, source, state_id, epoch)
VALUES (:namespace, :source, :state_id, :epoch)
ON CONFLICT (namespace) DO UPDATE SET
    source = excluded.source, state_id = excluded.state_id, epoch = excluded.epoch"""

_encode = JSONEncoder(ensure_ascii=False).encode


def id_list(ids: Iterable[str]) -> str:
    """*ids* as a parameter for ``json_each``."""
    return _encode(list(ids))
