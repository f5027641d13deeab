"""Asking an index on vectors: the settings that make its answer as good as it gets.

Both kinds of index are asked for more as long as a filter leaves too few of what they found
(``iterative_scan``). Sorting comes afterwards, over exact distances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from psycopg import Connection, sql
from psycopg.rows import TupleRow

from undrift.stores._pg_address import Table

# As far as an index goes: fewer candidates found 44 % of the nearest of random vectors at 40 and
# 97 % at 400, and owners for whom less would do are searched exactly.
_EF_SEARCH = "1000"

# How many of an ivfflat's lists are read, in square roots of their number: at once, and at most in
# search of enough. pgvector advises one root, for searches of everybody; an owner's nearest lie
# farther apart. Of 100 lists, two roots found all of the nearest where vectors lie in clusters, and
# 38 % of them where 384 components lie at random (`benchmarks.search_index`).
_PROBED_ROOTS = 2
_MOST_PROBED_ROOTS = 4

# Before the library is loaded PostgreSQL takes any value under any name, and a version that lacks
# a setting refuses it: only what the library has declared is in pg_settings, and is set.
_SET = """
WITH found AS (
    SELECT coalesce(max(coalesce((
        SELECT substring(option FROM 7)::int FROM unnest(i.reloptions) AS option
        WHERE option LIKE 'lists=%%'), 100)), 1) AS lists
    FROM pg_index x
    JOIN pg_class i ON i.oid = x.indexrelid
    JOIN pg_am a ON a.oid = i.relam AND a.amname = 'ivfflat'
    JOIN pg_class t ON t.oid = x.indrelid
    JOIN pg_namespace n ON n.oid = t.relnamespace
    WHERE n.nspname = %(schema)s AND t.relname = %(table)s AND x.indisvalid)
SELECT name, set_config(name, value, true) = value
FROM pg_settings
JOIN (VALUES ('hnsw.ef_search', %(ef_search)s),
             ('hnsw.iterative_scan', 'relaxed_order'),
             ('ivfflat.probes', (SELECT ceil(%(roots)s * sqrt(lists))::text FROM found)),
             ('ivfflat.max_probes', (SELECT ceil(%(most_roots)s * sqrt(lists))::text FROM found)),
             ('ivfflat.iterative_scan', 'relaxed_order'))
     AS wanted (wanted_name, value) ON wanted_name = name"""
_SETTINGS = 5


def ask_index(
    connection: Connection[TupleRow],
    table: Table,
    is_large: bytes,
    query: sql.Composed,
    parameters: Mapping[str, object],
) -> Sequence[TupleRow] | None:
    """What the index of *table* finds for *query*; None where an exact search is to answer.

    The settings end with the transaction, so that the connection, or the server session that a
    pooler lends, stays as it was.
    """
    wanted = {
        "schema": table.schema,
        "table": table.name,
        "ef_search": _EF_SEARCH,
        "roots": _PROBED_ROOTS,
        "most_roots": _MOST_PROBED_ROOTS,
    }
    with connection.transaction():
        ((has_many,),) = connection.execute(is_large, parameters).fetchall()
        if not has_many:
            return None
        settings: dict[str, bool] = dict(connection.execute(_SET, wanted).fetchall())
        if len(settings) < _SETTINGS or not all(settings.values()):
            return None
        return connection.execute(query, parameters).fetchall()
