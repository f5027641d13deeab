"""What could become an entity: a mapping proposed from what a database holds.

Reads the catalogue and a sample of each table that may be meant. Names of fields end up in the
proposal, never their values.
"""

from __future__ import annotations

from collections.abc import Sequence

from undrift.errors import ConfigError, UndriftError
from undrift.proposal import naming
from undrift.proposal.documents import (
    Candidate,
    document_candidates,
    is_usual,
    propose_documents,
    without_sample,
)
from undrift.proposal.model import Proposal, ProposedEntity
from undrift.proposal.rows import propose_entity, propose_rows
from undrift.sources.database import Database
from undrift.sources.inspection import (
    SAMPLE_ROWS,
    FoundTable,
    Type,
    inspect_tables,
    parsed,
    sample_rows,
)

__all__ = ["NothingToPropose", "Proposal", "ProposedEntity", "propose"]

MAX_SAMPLED_TABLES = 100
MAX_LISTED_TABLES = 10


class NothingToPropose(ConfigError):
    """No table looks as if it held what belongs to users.

    Attributes:
        example: the lines that a person would write.
    """

    def __init__(self, location: str, seen: Sequence[str]) -> None:
        listed = "; ".join(seen[:MAX_LISTED_TABLES]) or "no table at all"
        more = f" and {len(seen) - MAX_LISTED_TABLES} more" if len(seen) > MAX_LISTED_TABLES else ""
        super().__init__(
            "No table was recognised",
            why=f"{location} holds {listed}{more}; none of them has a JSON document per owner, or "
            "an owner column such as user_id beside columns of text.",
            fix="write undrift.toml yourself; the lines below show how",
        )

    @property
    def example(self) -> Sequence[str]:
        """The lines of a mapping to be completed by hand."""
        return (
            "[[entity]]",
            'kind = "note"',
            'table = "notes"       # or schema.notes',
            'owner = "user_id"     # the column that says whose a row is',
            'id = "id"',
            'text = "{{ title }}. {{ body }}"',
            'metadata = ["title"]',
        )


def propose(url: str) -> Proposal:
    """A mapping for the database at *url*.

    Raises:
        NothingToPropose: no table is suitable.
        ConfigError: the address or the login is wrong.
        SourceUnavailable: the database cannot be read.
    """
    database = Database(url)
    try:
        return _proposed(database)
    finally:
        database.close()


def _proposed(database: Database) -> Proposal:
    tables = inspect_tables(database)
    usual = next((table for table in tables if is_usual(table)), None)
    if usual is not None and usual.why_not:
        return without_sample(usual)
    # The likeliest first: of very many tables the last are not sampled.
    readable = sorted((table for table in tables if not table.why_not), key=_unlikeliness)
    documents: list[Candidate] = []
    entities: list[ProposedEntity] = []
    passed: list[str] = [f"{table.name}: {table.why_not}" for table in tables if table.why_not]
    if len(readable) > MAX_SAMPLED_TABLES:
        passed.append(f"{len(readable) - MAX_SAMPLED_TABLES} tables beyond {MAX_SAMPLED_TABLES}")
    for table in readable[:MAX_SAMPLED_TABLES]:
        try:
            rows = _sampled(database, table)
        except UndriftError as error:
            if not isinstance(error, ConfigError):
                raise
            passed.append(f"{table.name}: {error.what}")
            continue
        documents.extend(document_candidates(table, rows))
        entity = propose_entity(table, rows, {entity.kind for entity in entities})
        if entity is not None:
            entities.append(entity)
        elif naming.is_machinery(table.name):
            passed.append(f"{table.name}: it looks like the application's own works")
    return _chosen(database, documents, entities, tables, passed)


def _unlikeliness(table: FoundTable) -> tuple[bool, bool]:
    has_owner = naming.owner_in(table.column_names, table.references) is not None
    return not is_usual(table), not has_owner


def _chosen(
    database: Database,
    documents: Sequence[Candidate],
    entities: Sequence[ProposedEntity],
    tables: Sequence[FoundTable],
    passed: Sequence[str],
) -> Proposal:
    best = max(documents, key=lambda candidate: candidate.rank, default=None)
    if best is not None and (best.is_likely or not entities):
        others = [c for c in documents if c is not best]
        also = [f"{c.table.name}({c.owner}, {c.document})" for c in others]
        also.extend(entity.place for entity in entities if entity.place != best.table.name)
        proposal = propose_documents(best)
    elif entities:
        also = [f"{c.table.name}({c.owner}, {c.document})" for c in documents]
        proposal = propose_rows(entities)
    else:
        raise NothingToPropose(
            database.location,
            [f"{table.name}({', '.join(table.column_names[:8])})" for table in tables],
        )
    notes = list(proposal.notes)
    if also:
        more = f" and {len(also) - MAX_LISTED_TABLES} more" if len(also) > MAX_LISTED_TABLES else ""
        listed = ", ".join(also[:MAX_LISTED_TABLES])
        notes.append(f"also seen, and not chosen: {listed}{more}")
    if passed:
        notes.append(f"left out: {'; '.join(passed)}")
    return Proposal(
        documents=proposal.documents,
        entities=proposal.entities,
        chosen=proposal.chosen,
        notes=tuple(notes),
    )


def _sampled(database: Database, table: FoundTable) -> list[dict[str, object]]:
    """Rows of *table*, JSON decoded; numbers and flags are not asked for."""
    wanted = [
        column.name
        for column in table.columns
        if column.type in (Type.JSON, Type.TEXT, Type.TIME, Type.OTHER)
        or naming.is_reference(column.name)
        or column.name in table.primary_key
    ]
    rows = sample_rows(database, table.name, wanted)
    return [
        {name: _value(value) for name, value in zip(wanted, row, strict=True)}
        for row in rows[:SAMPLE_ROWS]
    ]


def _value(raw: object) -> object:
    if isinstance(raw, str | bytes) and raw.lstrip()[:1] in ("{", "[", b"{", b"["):
        return parsed(raw)
    return "" if isinstance(raw, bytes) else raw
