"""Statements for the tables of one state in PostgreSQL, and the parts that several share."""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from undrift.states._pg_address import TABLES, Address

_PARTS: dict[str, sql.Composable] = {
    # Entities that were given column by column, and the row of each.
    "given": sql.SQL("""unnest(
    %(owner_id)b::text[], %(kind)b::text[], %(entity_id)b::text[], %(version)b::bigint[])
    AS given (owner_id, kind, entity_id, version)"""),
    "same": sql.SQL("""entity.scope = %(scope)s
  AND (entity.owner_id, entity.kind, entity.entity_id)
      = (given.owner_id, given.kind, given.entity_id)"""),
    # An owner that may be given out, were it dirty.
    "free": sql.SQL("owner.scope = %(scope)s AND owner.lease_until <= now()"),
    # The end of an UPDATE of owners: the holder's lease, and nobody else's.
    "give_up_lease": sql.SQL("""lease_until = CASE WHEN owner.lease_holder = %(holder)s
                       THEN '-infinity' ELSE owner.lease_until END,
    lease_holder = CASE WHEN owner.lease_holder = %(holder)s
                        THEN '' ELSE owner.lease_holder END"""),
}


class Statements:
    """The statements for one place's tables, each made ready when it is first used."""

    def __init__(self, address: Address) -> None:
        # psycopg reads a % as the beginning of a placeholder, quoted or not.
        schema = address.schema.replace("%", "%%")
        tables = {name: sql.Identifier(schema, address.prefix + name) for name in TABLES}
        self._parts = {**_PARTS, **tables}
        self._ready: dict[str, bytes] = {}

    def ready(self, statement: LiteralString) -> bytes:
        """*statement* with the tables' names and the shared parts in it."""
        found = self._ready.get(statement)
        if found is None:
            found = sql.SQL(statement).format(**self._parts).as_bytes(None)
            self._ready[statement] = found
        return found
