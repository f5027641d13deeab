"""What a DBA runs in place of undrift: the store's DDL, and the rights of its roles."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from undrift.ports import Embedder
from undrift.stores import open_store
from undrift.stores.probe import grants_of


def sql_for_dba(store_url: str, embedder: Embedder, tables: Sequence[str]) -> list[str]:
    """The lines of a script. Connects to nothing.

    Args:
        tables: those of the source that the mapping reads; empty where nobody knows.
    """
    with closing(open_store(store_url)) as store:
        statements = store.ddl(embedder.dimension)
    lines = [f"-- The vector store, for vectors of {embedder.dimension} components."]
    for statement in statements:
        lines.extend(f"{statement};".splitlines())
    lines.extend(["", "-- Replace the roles' names by yours.", *grants_of(store_url)])
    if not store_url.startswith("sqlite"):
        lines.append("-- In the source database, for both:")
        lines.extend(f"-- {grant}" for grant in _source_grants(tables))
    return lines


def _source_grants(tables: Sequence[str]) -> list[str]:
    if not tables:
        return ["GRANT SELECT ON every table that undrift.toml names TO both;"]
    schemas = dict.fromkeys(name.rpartition(".")[0] or "public" for name in tables)
    roles = "undrift_reader, undrift_writer"
    grants = [f"GRANT USAGE ON SCHEMA {_identifier(schema)} TO {roles};" for schema in schemas]
    return [*grants, *(f"GRANT SELECT ON {_quoted(table)} TO {roles};" for table in tables)]


def _quoted(table: str) -> str:
    schema, _, name = table.rpartition(".")
    return ".".join(_identifier(part) for part in (schema, name) if part)


def _identifier(name: str) -> str:
    """*name* in one line of a comment: a line's end would make the rest a statement."""
    plain = " ".join(name.splitlines())
    return '"' + plain.replace('"', '""') + '"'
