"""The table of claims beside the vectors: which state orders the writes of which store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import LiteralString

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from undrift.errors import ConfigError, keep_first_line
from undrift.state import Claim
from undrift.stores import _pg_layout as layout
from undrift.stores._meaning import NOT_CREATED
from undrift.stores._pg_address import DEFAULT_SCHEMA, Address, Table

_FIND = """
SELECT source, state_id, epoch FROM {claims} WHERE vectors = %(vectors)s AND namespace = %(own)s"""
_INSERT = """
INSERT INTO {claims} (vectors, namespace, source, state_id, epoch)
VALUES (%(vectors)s, %(own)s, %(source)s, %(state_id)s, %(epoch)s)
ON CONFLICT (vectors, namespace) DO NOTHING"""
_REPLACE = """
UPDATE {claims} SET source = %(source)s, state_id = %(state_id)s, epoch = %(epoch)s
WHERE vectors = %(vectors)s AND namespace = %(own)s
  AND source = %(old_source)s AND state_id = %(old_state_id)s AND epoch = %(old_epoch)s"""
_EXISTS = """
SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = %s AND c.relname = %s)"""


class ClaimTable:
    """The claims of one table of vectors."""

    def __init__(self, address: Address, namespace: str) -> None:
        self._address = address
        self._key = {"vectors": address.table.name, "own": namespace}

    def exists(self, connection: Connection[TupleRow]) -> bool:
        """Whether it has been created; in stores of before it has not."""
        names = [self._address.table.schema, self._address.table.claims_name]
        row = connection.execute(_EXISTS, names).fetchone()
        return row is not None and bool(row[0])

    def find(self, connection: Connection[TupleRow]) -> Claim | None:
        """The namespace's claim; None also where nobody has created the table."""
        with self._explained("SELECT"):
            try:
                row = connection.execute(self._ready(_FIND), self._key).fetchone()
            except psycopg.errors.UndefinedTable:
                return None
        return None if row is None else Claim(*row)

    def put(
        self, connection: Connection[TupleRow], claim: Claim, *, replacing: Claim | None
    ) -> bool | None:
        """Write the claim if it is still *replacing*, and say whether it was.

        Returns:
            None where there is no table yet.
        """
        values: dict[str, object] = {**self._key, **claim._asdict()}
        statement: LiteralString = _INSERT
        if replacing is not None:
            statement = _REPLACE
            values |= {f"old_{name}": value for name, value in replacing._asdict().items()}
        with self._explained("SELECT, INSERT, UPDATE"):
            try:
                return connection.execute(self._ready(statement), values).rowcount == 1
            except psycopg.errors.UndefinedTable:
                return None

    def create(self, connection: Connection[TupleRow]) -> None:
        """Create the table beside vectors that are there already.

        Raises:
            ConfigError: they are not, or the role may not.
        """
        if not layout.found_layout(connection, self._address).exists:
            raise NOT_CREATED.error(self._address.location, "there is no such table")
        try:
            connection.execute(layout.claims_ddl(self._address.table))
        except psycopg.errors.InsufficientPrivilege as error:
            ddl = layout.claims_ddl(self._address.table).as_string(None)
            grants = self._grants("SELECT, INSERT, UPDATE")
            raise ConfigError(
                "The vector store's role may not create the table of claims",
                why=f"{self._address.location}: {error.diag.message_primary}; without a claim two "
                "states would undo each other's writes.",
                fix=f"let the owner run: {' '.join(ddl.split())}; {grants}",
            ) from keep_first_line(error)

    @contextmanager
    def _explained(self, rights: LiteralString) -> Iterator[None]:
        try:
            yield
        except psycopg.errors.InsufficientPrivilege as error:
            raise ConfigError(
                "The vector store's role may not use the table of claims",
                why=f"{self._address.location}: {error.diag.message_primary}.",
                fix=f"let the owner run: {self._grants(rights)}",
            ) from keep_first_line(error)

    def _grants(self, rights: LiteralString) -> str:
        role = sql.Identifier(self._address.role)
        schema = sql.Identifier(self._address.table.schema)
        return (
            sql.SQL("GRANT USAGE ON SCHEMA {} TO {}; GRANT {} ON {} TO {}")
            .format(schema, role, sql.SQL(rights), self._address.table.claims, role)
            .as_string(None)
        )

    def _ready(self, statement: LiteralString) -> bytes:
        # psycopg reads a % as the beginning of a placeholder, quoted or not.
        schema, name = self._address.table.schema, self._address.table.claims_name
        claims = sql.Identifier(schema.replace("%", "%%"), name)
        return sql.SQL(statement).format(claims=claims).as_bytes(None)


class AdoptedClaims(ClaimTable):
    """The claims of a table of somebody else's, kept in undrift's own schema."""

    def __init__(self, address: Address, namespace: str) -> None:
        own = Table(schema=DEFAULT_SCHEMA, name=str(address.table))
        super().__init__(replace(address, table=own), namespace)

    def create(self, connection: Connection[TupleRow]) -> None:
        """Create schema and table of claims.

        Raises:
            ConfigError: the role may not.
        """
        statements = layout.own_schema_ddl(self._address.table)
        try:
            for statement in statements:
                connection.execute(statement)
        except psycopg.errors.InsufficientPrivilege as error:
            ddl = "; ".join(" ".join(part.as_string(None).split()) for part in statements)
            raise ConfigError(
                "The vector store's role may not create undrift's own schema",
                why=f"{self._address.location}: {error.diag.message_primary}; the other program's "
                "tables are not used for it.",
                fix=f"let an administrator run: {ddl}; {self._grants('SELECT, INSERT, UPDATE')}",
            ) from keep_first_line(error)
