"""Tables with vectors as LangChain, LlamaIndex and Mastra create and fill them, by SQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID, uuid5

import psycopg

from undrift.embedders.hashing import HashingEmbedder

DIMENSION = 16
WRITERS = ("LangChain", "LlamaIndex", "Mastra")
_SPACE = UUID("9d0b0d5e-3f0c-4c0e-8a0e-5a6e6f0f6a11")


class Foreign(NamedTuple):
    """A record as another program has it.

    Attributes:
        metadata: what the program wrote beside the text, without its own keys.
    """

    id: str
    text: str
    metadata: Mapping[str, object]


@dataclass(frozen=True)
class ForeignTable:
    """Another program's table.

    Attributes:
        metadata: the column with the metadata.
        text: the path of the text.
        id: the column that tells records apart.
    """

    url: str
    writer: str
    name: str
    metadata: str
    text: str
    id: str
    fixed: Mapping[str, str] = field(default_factory=dict)

    def run(self, statement: str) -> list[tuple[object, ...]]:
        """Run SQL, as anybody can."""
        with psycopg.connect(self.url) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def metadata_of(self, record_id: str) -> Mapping[str, object]:
        """What the table holds beside the record's text."""
        with psycopg.connect(self.url) as connection:
            row = connection.execute(
                f"SELECT {self.metadata}::jsonb FROM {self.name} WHERE {self.id} = %s".encode(),
                [record_id],
            ).fetchone()
        assert row is not None
        found: Mapping[str, object] = row[0]
        return found

    def everything(self) -> list[tuple[object, ...]]:
        """Every row, vectors included."""
        return self.run(f"SELECT {self.name}::text FROM {self.name} ORDER BY 1")


def fill(url: str, writer: str, records: Sequence[Foreign], *, name: str = "jobs") -> ForeignTable:
    """Create the table as *writer* does, or another collection in it, and fill it.

    Args:
        name: what the program's user calls the collection.
    """
    vectors = HashingEmbedder(DIMENSION).embed([record.text for record in records])
    spelled = [str(vector.tolist()) for vector in vectors]
    with psycopg.connect(url) as connection:
        fill_as = {"LangChain": _langchain, "LlamaIndex": _llamaindex, "Mastra": _mastra}[writer]
        return fill_as(connection, url, name, records, spelled)


_Connection = psycopg.Connection[tuple[object, ...]]


def _langchain(
    connection: _Connection, url: str, name: str, records: Sequence[Foreign], vectors: Sequence[str]
) -> ForeignTable:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS langchain_pg_collection (uuid UUID NOT NULL, name VARCHAR NOT "
        "NULL, cmetadata JSON, PRIMARY KEY (uuid), UNIQUE (name))"
    )
    connection.execute(
        "CREATE TABLE IF NOT EXISTS langchain_pg_embedding (id VARCHAR NOT NULL, collection_id "
        "UUID, embedding VECTOR, document VARCHAR, cmetadata JSONB, PRIMARY KEY (id), FOREIGN KEY"
        "(collection_id) REFERENCES langchain_pg_collection (uuid) ON DELETE CASCADE)"
    )
    collection = uuid5(_SPACE, name)
    connection.execute(
        "INSERT INTO langchain_pg_collection (uuid, name) VALUES (%s, %s)", [collection, name]
    )
    for record, vector in zip(records, vectors, strict=True):
        connection.execute(
            "INSERT INTO langchain_pg_embedding VALUES (%s, %s, %s, %s, %s)",
            [record.id, collection, vector, record.text, json.dumps(record.metadata)],
        )
    return ForeignTable(
        url,
        "LangChain",
        "langchain_pg_embedding",
        metadata="cmetadata",
        text="document",
        id="id",
        fixed={"collection_id": str(collection)},
    )


def _llamaindex(
    connection: _Connection, url: str, name: str, records: Sequence[Foreign], vectors: Sequence[str]
) -> ForeignTable:
    table = f"data_{name}"
    connection.execute(
        f"CREATE TABLE {table} (id BIGSERIAL NOT NULL, text VARCHAR NOT NULL, metadata_ JSON, "
        f"node_id VARCHAR, embedding VECTOR({DIMENSION}), PRIMARY KEY (id))".encode()
    )
    for record, vector in zip(records, vectors, strict=True):
        node = {"id_": record.id, "metadata": dict(record.metadata), "text": ""}
        metadata = {
            **record.metadata,
            "_node_content": json.dumps(node),
            "_node_type": "TextNode",
            "document_id": "None",
            "doc_id": "None",
            "ref_doc_id": "None",
        }
        connection.execute(
            f"INSERT INTO {table} (text, metadata_, node_id, embedding) VALUES (%s, %s, %s, %s)"
            "".encode(),
            [record.text, json.dumps(metadata), record.id, vector],
        )
    return ForeignTable(url, "LlamaIndex", table, metadata="metadata_", text="text", id="node_id")


def _mastra(
    connection: _Connection, url: str, name: str, records: Sequence[Foreign], vectors: Sequence[str]
) -> ForeignTable:
    connection.execute(
        f"CREATE TABLE {name} (id SERIAL PRIMARY KEY, vector_id TEXT UNIQUE NOT NULL, embedding "
        f"vector({DIMENSION}), metadata JSONB DEFAULT '{{}}'::jsonb)".encode()
    )
    for record, vector in zip(records, vectors, strict=True):
        connection.execute(
            f"INSERT INTO {name} (vector_id, embedding, metadata) VALUES (%s, %s, %s)".encode(),
            [record.id, vector, json.dumps({**record.metadata, "text": record.text})],
        )
    return ForeignTable(
        url, "Mastra", name, metadata="metadata", text="metadata.text", id="vector_id"
    )
