"""What a DBA runs in place of undrift: the DDL of store and state, and their roles' rights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from undrift.ports import Embedder, VectorStore
from undrift.state import TransactionalStore
from undrift.states import open_state
from undrift.states.rights import grants_of as state_grants_of
from undrift.stores import open_store
from undrift.stores.probe import grants_of, login_of


def sql_for_dba(
    store_url: str,
    embedder: Embedder,
    tables: Sequence[str],
    *,
    source_url: str | None,
    state_url: str | None = None,
) -> list[str]:
    """The lines of a script. Connects to nothing.

    Rights are statements for roles that the URLs name, else comments to be completed.

    Args:
        tables: those of the source that the mapping reads; empty where nobody knows.
        state_url: None means beside the vectors.
    """
    with closing(open_store(store_url)) as store:
        statements = store.ddl(embedder.dimension)
        state = _state_lines(store, state_url)
    lines = [f"-- The vector store, for vectors of {embedder.dimension} components."]
    for statement in statements:
        lines.extend(f"{statement};".splitlines())
    lines.extend(["", *grants_of(store_url), "", *state, ""])
    login = None if source_url is None else login_of(source_url)
    if login is None:
        if source_url is None:
            lines.append("-- In the source database, for both:")
            lines.extend(_comments(_source_grants(tables, "undrift_reader, undrift_writer")))
        return lines
    grants = _source_grants(tables, _identifier(login.role) if login.role else "undrift_reader")
    store_login = login_of(store_url)
    if tables and login.role and store_login is not None and login.place == store_login.place:
        return [*lines, "-- For the role of DATABASE_URL, to read the source:", *grants]
    lines.append("-- In the source database, for the role of DATABASE_URL:")
    return [*lines, *_comments(grants)]


def _state_lines(store: VectorStore, given: str | None) -> list[str]:
    if given is not None or not isinstance(store, TransactionalStore):
        return [
            "-- The state is elsewhere (state.url). Let its role create a schema there, or look at",
            "-- what the first sync would run with -v.",
        ]
    url, scope = store.state_address()
    with closing(open_state(url, scope=scope)) as state:
        statements = state.ddl()
    lines = ["-- What undrift remembers of its own writes."]
    for statement in statements:
        lines.extend(f"{statement};".splitlines())
    return [*lines, "", *state_grants_of(url)]


def _comments(statements: Sequence[str]) -> list[str]:
    # A line's end in a name would make the rest of a comment a statement.
    return [f"-- {' '.join(statement.splitlines())}" for statement in statements]


def _source_grants(tables: Sequence[str], roles: str) -> list[str]:
    if not tables:
        return [f"GRANT SELECT ON every table that undrift.toml names TO {roles};"]
    schemas = dict.fromkeys(name.rpartition(".")[0] or "public" for name in tables)
    grants = [f"GRANT USAGE ON SCHEMA {_identifier(schema)} TO {roles};" for schema in schemas]
    return [*grants, *(f"GRANT SELECT ON {_quoted(table)} TO {roles};" for table in tables)]


def _quoted(table: str) -> str:
    schema, _, name = table.rpartition(".")
    return ".".join(_identifier(part) for part in (schema, name) if part)


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
