"""What PostgreSQL's catalogue says of mapped tables and of the triggers on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from undrift.errors import ConfigError
from undrift.sources.changes.postgres_sql import FUNCTION_PREFIX, SCHEMA, KeyColumn, quoted
from undrift.sources.changes.tracked import UNTIL_LOOKED_AT, TrackedTable

_SERVER = sa.text("""
SELECT pg_is_in_recovery() AS is_standby, current_user AS role,
       to_regnamespace(:schema) IS NOT NULL AS has_schema,
       EXISTS (SELECT FROM pg_class WHERE relname = 'change'
               AND relnamespace = to_regnamespace(:schema)) AS has_changes,
       EXISTS (SELECT FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
               WHERE c.relname = 'change' AND c.relnamespace = to_regnamespace(:schema)
               AND a.attname = 'owner_ids' AND NOT a.attisdropped) AS has_owner_ids,
       obj_description(CAST(to_regnamespace(:schema) AS oid), 'pg_namespace') AS comment""")

# Partitions of partitions too, and tables that inherit: what is written to them directly fires no
# trigger of the table above.
_RELATIONS = sa.text("""
WITH RECURSIVE tree AS (
    SELECT CAST(to_regclass(:name) AS oid) AS oid
    UNION
    SELECT i.inhrelid FROM pg_inherits AS i JOIN tree ON i.inhparent = tree.oid
)
SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind,
       EXISTS (SELECT FROM pg_subscription_rel AS s WHERE s.srrelid = c.oid) AS is_subscribed,
       array(SELECT p.inhparent::regclass::text FROM pg_inherits AS p
             WHERE p.inhrelid = c.oid ORDER BY 1) AS parents,
       c.oid = CAST(to_regclass(:name) AS oid) AS is_mapped
FROM tree JOIN pg_class AS c ON c.oid = tree.oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY is_mapped DESC, n.nspname, c.relname""")

_KEY = sa.text("""
SELECT a.attname AS name,
       t.typnamespace = CAST('pg_catalog' AS regnamespace) AND EXISTS (
           SELECT FROM pg_opclass AS o JOIN pg_am AS m ON m.oid = o.opcmethod
           WHERE m.amname = 'hash' AND o.opcdefault AND o.opcintype = t.oid) AS is_hashed
FROM pg_index AS i
CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, position)
JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
JOIN pg_type AS t ON t.oid = a.atttypid
WHERE i.indrelid = :oid AND i.indisprimary AND i.indimmediate AND k.position <= i.indnkeyatts
ORDER BY k.position""")

_FUNCTIONS = sa.text("""
SELECT p.proname AS name, p.prosrc AS body, p.prosecdef AS is_definer,
       coalesce(p.proconfig, '{}') AS settings
FROM pg_proc AS p
WHERE p.pronamespace = to_regnamespace(:schema)
  AND p.prorettype = CAST('trigger' AS regtype) AND starts_with(p.proname, :prefix)
ORDER BY p.proname""")

_TRIGGERS = sa.text("""
SELECT t.tgrelid AS relation, t.tgname AS name, p.proname AS function, t.tgenabled AS enabled
FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = t.tgfoid
WHERE p.pronamespace = to_regnamespace(:schema) AND starts_with(p.proname, :prefix)
  AND NOT t.tgisinternal""")

_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}


class Server(NamedTuple):
    """The server, and undrift's schema in it.

    Attributes:
        has_changes: the table of marks is there, of whatever undrift.
        has_owner_ids: it is as this undrift makes it.
    """

    is_standby: bool
    role: str
    has_schema: bool
    has_changes: bool
    has_owner_ids: bool
    comment: str | None


class Relation(NamedTuple):
    """A mapped table, or one below it.

    Attributes:
        kind: as ``pg_class.relkind`` says it.
        parents: the tables that it is a partition of, or inherits from.
        is_mapped: the mapping names it.
    """

    oid: int
    schema: str
    name: str
    kind: str
    is_subscribed: bool
    parents: Sequence[str]
    is_mapped: bool

    @property
    def title(self) -> str:
        """Its name for people."""
        return f"{self.schema}.{self.name}"


class FoundFunction(NamedTuple):
    """A trigger function as it is."""

    name: str
    body: str
    is_definer: bool
    settings: Sequence[str]


class FoundTrigger(NamedTuple):
    """A trigger as it is."""

    relation: int
    name: str
    function: str
    enabled: str

    @property
    def is_on(self) -> bool:
        """It fires for an ordinary session."""
        return self.enabled in ("O", "A")


class Catalogue(NamedTuple):
    """All that is there of change capture."""

    server: Server
    functions: Mapping[str, FoundFunction]
    triggers: Mapping[tuple[int, str], FoundTrigger]


def read_catalogue(connection: Connection) -> Catalogue:
    """What is there."""
    names = {"schema": quoted(SCHEMA), "prefix": FUNCTION_PREFIX}
    server = connection.execute(_SERVER, {"schema": names["schema"]}).one()
    functions = [FoundFunction(*row) for row in connection.execute(_FUNCTIONS, names)]
    triggers = [FoundTrigger(*row) for row in connection.execute(_TRIGGERS, names)]
    return Catalogue(
        Server(*server),
        {function.name: function for function in functions},
        {(trigger.relation, trigger.name): trigger for trigger in triggers},
    )


def read_relations(connection: Connection, table: TrackedTable) -> list[Relation]:
    """The table, first, and every one below it.

    Raises:
        ConfigError: it is gone.
    """
    schema, _, name = table.name.rpartition(".")
    address = ".".join(quoted(part) for part in (schema, name) if part)
    relations = [Relation(*row) for row in connection.execute(_RELATIONS, {"name": address})]
    if not relations:
        raise ConfigError(
            f"No table {table.name!r}",
            why="it was there a moment ago.",
            fix="run the command again",
        )
    return relations


def read_key(connection: Connection, relation: Relation) -> tuple[KeyColumn, ...]:
    """The primary key; empty if there is none, or it may be violated for a while."""
    return tuple(KeyColumn(*row) for row in connection.execute(_KEY, {"oid": relation.oid}))


def refusal(table: TrackedTable, relations: Sequence[Relation]) -> str | None:
    """Why *table* cannot have triggers that see its changes; None if it can."""
    kind = _KINDS.get(relations[0].kind)
    if kind is not None:
        return f"{table.name} is {kind}, which changes without a trigger; {UNTIL_LOOKED_AT}"
    for relation in relations:
        if relation.kind == "f":
            return (
                f"{table.name}: {relation.title} is a foreign table, and what is written to it "
                f"fires no trigger here; {UNTIL_LOOKED_AT}"
            )
        if relation.is_subscribed:
            return (
                f"{table.name}: a subscription writes to {relation.title}, and logical replication "
                f"fires no trigger; {UNTIL_LOOKED_AT}"
            )
    return None


def unseen_by_parents(table: TrackedTable, relations: Sequence[Relation]) -> list[str]:
    """Writes that reach the table through one above it."""
    parents = relations[0].parents
    if not parents:
        return []
    return [f"{table.name}: what is written to it through {', '.join(parents)}; map that one"]
