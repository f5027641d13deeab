"""Every statement of the pgvector store that reads or writes records.

Where stamps are read, the columns are `Stamp`'s, in order. A batch travels as one array for each
column: one statement, no temporary table (which needs a right of its own, fills the catalogue, and
was slower), and nothing that a pooler could mislay between two statements. The arrays are binary
(%b): in PostgreSQL's text format psycopg escapes them string by string, at three times the CPU.
"""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from undrift.stores._pg_address import Table
from undrift.stores._pg_index import Indexed

# A record that has lost its vector is found by no search, so its stamp names no model. A small
# index knows the lost ones; looking for the vector itself would read the table, not the index. They
# are read once, into a hash (100,000 of them fit the default work_mem): joined, a planner that
# knows nothing of the table yet looks every record up again.
_STAMPS_OF_OWNERS = """
SELECT vector_id::text, namespace, owner_id, kind, entity_id, fingerprint, text_hash,
       CASE WHEN vector_id IN (
           SELECT vector_id FROM {table} WHERE embedding IS NULL AND deleted IS DISTINCT FROM 1
           AND owner_id = ANY(%(owners)s::text[])) THEN '' ELSE model END, version
FROM {table}
WHERE owner_id = ANY(%(owners)s::text[]) AND namespace = %(namespace)s
  AND deleted IS DISTINCT FROM 1"""
_STAMPS_BY_VECTOR_ID = """
SELECT vector_id::text, namespace, owner_id, kind, entity_id, fingerprint, text_hash, model, version
FROM {table}
WHERE vector_id = ANY(%(vector_ids)s::uuid[]) AND deleted IS DISTINCT FROM 1"""
_TOMBSTONES = """
SELECT vector_id::text, owner_id, coalesce(kind, ''), coalesce(entity_id, ''), coalesce(version, 0)
FROM {table}
WHERE deleted = 1 AND owner_id = ANY(%(owners)s::text[]) AND namespace = %(namespace)s"""
# For what asks for many owners and little else: until somebody has analysed what a first sync
# wrote, the planner takes them for most of the table, and reads all of it, page after page. Workers
# of the server's cost more to start than they save in some milliseconds.
BY_INDEX = (
    "SELECT set_config('enable_seqscan', 'off', true), "
    "set_config('max_parallel_workers_per_gather', '0', true)"
)
FEW_OWNERS = 10
"""For whom the planner takes the index by itself, and further round trips would cost more."""

_UNMANAGED = """
SELECT owner_id, count(*)
FROM {table}
WHERE owner_id = ANY(%(owners)s::text[]) AND namespace IS DISTINCT FROM %(namespace)s
  AND deleted IS DISTINCT FROM 1
GROUP BY owner_id"""
# Of the covering index alone. The lost vectors, which need the table, are counted for themselves
# and joined by owner: joined by record, many of them that the planner took for few cost minutes.
# OFFSET keeps what the aggregates share from being computed for each of them.
# In a database without an encoding no text can be converted, and any may be kept as it is.
_DIGESTS = """
WITH lost AS MATERIALIZED (
    SELECT owner_id, count(*) AS records
    FROM {table}
    WHERE embedding IS NULL AND deleted IS DISTINCT FROM 1 AND owner_id = ANY(%(owners)s::text[])
      AND {is_mine} AND NOT {is_amiss}
    GROUP BY owner_id
), digests AS (
    SELECT owner_id, count(*) FILTER (WHERE is_mine) AS records,
           string_agg(item, '' ORDER BY item) FILTER (WHERE is_mine) AS items,
           count(*) FILTER (WHERE is_mine AND is_amiss) AS amiss,
           count(*) FILTER (WHERE NOT is_mine) AS unmanaged
    FROM (
        SELECT owner_id, {is_mine} AS is_mine, {is_amiss} AS is_amiss,
               (coalesce(fingerprint, '') || '|' || coalesce(kind, '') || ':'
                || char_length(coalesce(entity_id, '')) || ':' || coalesce(entity_id, '')
               ) COLLATE "C" AS item
        FROM {table}
        WHERE owner_id = ANY(%(owners)s::text[]) AND deleted IS DISTINCT FROM 1
        OFFSET 0
    ) AS stored
    GROUP BY owner_id
)
SELECT owner_id, digests.records,
       sha256(convert_to(coalesce(items, ''), CASE getdatabaseencoding()
           WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)),
       amiss + coalesce(lost.records, 0), unmanaged
FROM digests LEFT JOIN lost USING (owner_id)"""
_IS_MINE = """
coalesce(namespace = %(namespace)s AND coalesce(kind, '') = ANY(%(kinds)s::text[]), false)"""
_IS_AMISS = """
coalesce(model <> %(model)s OR char_length(fingerprint) <> %(fingerprint_characters)s, true)"""
# From one owner to the next by the index, whatever the planner knows of the table: DISTINCT reads
# and sorts all that is left, page after page, until somebody has analysed what a first sync wrote.
_OWNERS = """
WITH RECURSIVE found AS (
    (SELECT owner_id FROM {table}
     WHERE {behind} AND namespace = %(namespace)s AND deleted IS DISTINCT FROM 1
     ORDER BY owner_id LIMIT 1)
    UNION ALL
    SELECT next.owner_id FROM found CROSS JOIN LATERAL (
        SELECT owner_id FROM {table} AS stored
        WHERE stored.owner_id > found.owner_id AND namespace = %(namespace)s
          AND deleted IS DISTINCT FROM 1
        ORDER BY stored.owner_id LIMIT 1) AS next
)
SELECT owner_id FROM found LIMIT %(limit)s"""
_BEHIND = "owner_id > %(after)s"

APPROXIMATE_FROM_RECORDS = 20_000
"""Owners with fewer are searched exactly whatever the URL asks for: it takes 20 ms at most."""

# Exact: an HNSW index serves only an ORDER BY of the bare distance, and filtered by owner it would
# give too few rows. NaN, the distance of a zero vector, sorts last.
_SEARCH = """
SELECT vector_id::text, namespace, owner_id, kind, entity_id, fingerprint, text_hash, model,
       version, coalesce(text, ''), coalesce(metadata::text, '{{}}'),
       1 - (embedding OPERATOR({vector_schema}.<=>) %(vector)s) AS score
FROM {table}
WHERE owner_id = %(owner_id)s AND namespace = %(namespace)s AND model = %(model)s
  AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s::text[])) AND embedding IS NOT NULL
  AND deleted IS DISTINCT FROM 1
ORDER BY 0 + (embedding OPERATOR({vector_schema}.<=>) %(vector)s), vector_id
LIMIT %(limit)s"""

# The index's order is not strict, and may be of halved vectors: what it found is sorted again.
_APPROXIMATE_SEARCH = """
WITH near AS MATERIALIZED (
    SELECT * FROM {table}
    WHERE owner_id = %(owner_id)s AND namespace = %(namespace)s AND model = %(model)s
      AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s::text[])) AND embedding IS NOT NULL
      AND deleted IS DISTINCT FROM 1
    ORDER BY {embedding} OPERATOR({vector_schema}.<=>) {vector}
    LIMIT %(limit)s
)
SELECT vector_id::text, namespace, owner_id, kind, entity_id, fingerprint, text_hash, model,
       version, coalesce(text, ''), coalesce(metadata::text, '{{}}'),
       1 - (embedding OPERATOR({vector_schema}.<=>) %(vector)s) AS score
FROM near
ORDER BY embedding OPERATOR({vector_schema}.<=>) %(vector)s, vector_id"""
# To read the vector, the server has to load the library, whose settings come next.
_IS_LARGE = """
SELECT count(*) = %(enough)s AND %(vector)s IS NOT NULL FROM (
    SELECT FROM {table} WHERE owner_id = %(owner_id)s AND namespace = %(namespace)s
      AND deleted IS DISTINCT FROM 1
    LIMIT %(enough)s
) AS first_records"""

# What a search index would be for.
_COUNTS = """
WITH owners AS (
    SELECT owner_id, count(*) AS records FROM {table} WHERE deleted IS DISTINCT FROM 1
    GROUP BY owner_id)
SELECT coalesce(sum(records), 0), count(*), coalesce(max(records), 0),
       (SELECT owner_id FROM owners ORDER BY records DESC, owner_id LIMIT 1)
FROM owners"""
_EXACT_SAMPLE = """
SELECT vector_id FROM {table}
WHERE owner_id = %(owner_id)s AND embedding IS NOT NULL
ORDER BY 0 + (embedding OPERATOR({vector_schema}.<=>) (
    SELECT embedding FROM {table}
    WHERE owner_id = %(owner_id)s AND embedding IS NOT NULL LIMIT 1)), vector_id
LIMIT 10"""

_PUT = """
INSERT INTO {table} AS stored (
    vector_id, namespace, owner_id, kind, entity_id, fingerprint, text_hash, model, version,
    text, metadata, embedding)
SELECT * FROM unnest(
    %b::text[]::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
    %b::text[], %b::bigint[], %b::text[], %b::text[]::jsonb[], %b)
ON CONFLICT (vector_id) DO UPDATE SET
    namespace = excluded.namespace, owner_id = excluded.owner_id, kind = excluded.kind,
    entity_id = excluded.entity_id, fingerprint = excluded.fingerprint,
    text_hash = excluded.text_hash, model = excluded.model, version = excluded.version,
    text = excluded.text, metadata = excluded.metadata, embedding = excluded.embedding,
    deleted = 0, deleted_at = NULL
WHERE stored.namespace = excluded.namespace AND {makes_way}"""
# The vector stays, so the row must be the one that the vector was made for.
_RESTAMP = """
UPDATE {table} AS stored SET
    owner_id = new.owner_id, kind = new.kind, entity_id = new.entity_id,
    fingerprint = new.fingerprint, version = new.version, text = new.text, metadata = new.metadata
FROM unnest(
    %b::text[]::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
    %b::text[], %b::bigint[], %b::text[], %b::text[]::jsonb[]
) AS new (vector_id, namespace, owner_id, kind, entity_id, fingerprint, text_hash, model, version,
          text, metadata)
WHERE stored.vector_id = new.vector_id AND stored.namespace = new.namespace
  AND coalesce(stored.version, 0) < new.version
  AND stored.text_hash = new.text_hash AND stored.model = new.model
  AND stored.embedding IS NOT NULL AND stored.deleted IS DISTINCT FROM 1"""
_DELETE = """
DELETE FROM {table} AS stored
USING unnest(%(owner_ids)b::text[], %(vector_ids)b::text[]::uuid[], %(versions)b::bigint[])
    AS gone (owner_id, vector_id, version)
WHERE stored.vector_id = gone.vector_id AND stored.owner_id = gone.owner_id
  AND coalesce(stored.version, 0) = gone.version AND stored.namespace = %(namespace)s
  AND stored.deleted IS DISTINCT FROM 1"""
_BURY = """
INSERT INTO {table} AS stored (
    vector_id, namespace, owner_id, kind, entity_id, fingerprint, text_hash, model, version,
    deleted, deleted_at, text, metadata, embedding)
SELECT vector_id, %(namespace)s, owner_id, kind, entity_id, '', '', '', version,
       1, now(), '', '{{}}', NULL
FROM unnest(%(vector_ids)b::text[]::uuid[], %(owner_ids)b::text[], %(kinds)b::text[],
            %(entity_ids)b::text[], %(versions)b::bigint[])
    AS buried (vector_id, owner_id, kind, entity_id, version)
ON CONFLICT (vector_id) DO UPDATE SET
    owner_id = excluded.owner_id, kind = excluded.kind, entity_id = excluded.entity_id,
    fingerprint = '', text_hash = '', model = '', version = excluded.version,
    deleted = 1, deleted_at = excluded.deleted_at, text = '', metadata = '{{}}', embedding = NULL
WHERE stored.namespace = excluded.namespace AND {makes_way}"""
_COLLECT = """
DELETE FROM {table} AS stored
USING unnest(%(owner_ids)b::text[], %(vector_ids)b::text[]::uuid[], %(versions)b::bigint[])
    AS gone (owner_id, vector_id, version)
WHERE stored.vector_id = gone.vector_id AND stored.owner_id = gone.owner_id
  AND coalesce(stored.version, 0) = gone.version AND stored.namespace = %(namespace)s
  AND stored.deleted = 1"""

# A vector_id follows from owner, kind and id: a tombstone under it that names others is damaged,
# shows up with nobody whom it concerns, and so must not keep anything out.
_MAKES_WAY = """(
    coalesce(stored.version, 0) < excluded.version
    OR stored.deleted = 1 AND (stored.owner_id, stored.kind, stored.entity_id)
        IS DISTINCT FROM (excluded.owner_id, excluded.kind, excluded.entity_id))"""


class Statements:
    """The statements for one table, ready to be executed."""

    def __init__(self, table: Table) -> None:
        # psycopg reads a % as the beginning of a placeholder, quoted or not.
        self._table = sql.Identifier(*(name.replace("%", "%%") for name in table.names))
        self.stamps_of_owners = self._ready(_STAMPS_OF_OWNERS)
        self.stamps_by_vector_id = self._ready(_STAMPS_BY_VECTOR_ID)
        self.tombstones = self._ready(_TOMBSTONES)
        self.unmanaged = self._ready(_UNMANAGED)
        self.digests = self._ready(_DIGESTS)
        self.first_owners = self._ready(_OWNERS, behind="true")
        self.next_owners = self._ready(_OWNERS, behind=_BEHIND)
        self.put = self._ready(_PUT)
        self.restamp = self._ready(_RESTAMP)
        self.delete = self._ready(_DELETE)
        self.bury = self._ready(_BURY)
        self.collect = self._ready(_COLLECT)
        self.is_large = self._ready(_IS_LARGE)
        self.counts = self._ready(_COUNTS)

    def search(self, vector_schema: str) -> sql.Composed:
        """The search; its distance operator is in the schema where pgvector is installed."""
        return self._measuring(_SEARCH, vector_schema)

    def approximate_search(self, vector_schema: str, indexed: Indexed) -> sql.Composed:
        """The same search in a form that an index over *indexed* can serve."""
        schema = vector_schema.replace("%", "%%")
        return self._measuring(
            _APPROXIMATE_SEARCH,
            vector_schema,
            embedding=indexed.of(sql.Identifier("embedding"), schema),
            vector=indexed.of(sql.SQL("%(vector)s"), schema),
        )

    def exact_sample(self, vector_schema: str) -> sql.Composed:
        """An exact search of an owner for one of its own vectors, to be timed."""
        return self._measuring(_EXACT_SAMPLE, vector_schema)

    def _measuring(
        self, statement: LiteralString, vector_schema: str, **parts: sql.Composable
    ) -> sql.Composed:
        schema = sql.Identifier(vector_schema.replace("%", "%%"))
        return sql.SQL(statement).format(table=self._table, vector_schema=schema, **parts)

    def _ready(self, statement: LiteralString, *, behind: LiteralString = "") -> bytes:
        composed = sql.SQL(statement).format(
            table=self._table,
            makes_way=sql.SQL(_MAKES_WAY),
            is_mine=sql.SQL(_IS_MINE),
            is_amiss=sql.SQL(_IS_AMISS),
            behind=sql.SQL(behind),
        )
        return composed.as_bytes(None)
