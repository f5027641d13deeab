"""LangChain's `index()`; its ledger, the record manager, in the database of the vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import psycopg
from langchain_classic.indexes import SQLRecordManager
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index
from langchain_core.vectorstores import VectorStore
from sqlalchemy import create_engine

from benchmarks.peers_children.hashing import Hashing
from benchmarks.peers_children.job import Job, Prepared, Report


class Hashed(Embeddings):
    """The hashing embedder, as LangChain calls it."""

    def __init__(self, hashing: Hashing) -> None:
        self._hashing = hashing

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._hashing.embed(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        return self._hashing.embed([text])[0].tolist()


class Opened(NamedTuple):
    """A vector store that is connected.

    Attributes:
        empty: leaves nothing in it.
    """

    store: VectorStore
    empty: Callable[[], None]
    close: Callable[[], None]


def prepare(job: Job, open_store: Callable[[str, Embeddings], Opened]) -> Prepared:
    """Connect, and create what is not there yet.

    Args:
        open_store: given the database in SQLAlchemy's spelling, and the embedder.
    """
    hashing = Hashing()
    url = job.url.replace("postgresql://", "postgresql+psycopg://", 1)
    opened = open_store(url, Hashed(hashing))
    engine = create_engine(url)
    ledger = SQLRecordManager("pgvector/texts", engine=engine)
    ledger.create_schema()
    source = psycopg.connect(job.url)

    def work() -> Report:
        if job.do == "rebuild":
            opened.empty()
            ledger.delete_keys(ledger.list_keys())
        rows = source.execute("SELECT key, owner, text FROM texts ORDER BY key")
        documents = [
            Document(page_content=text, metadata={"key": key, "owner": owner})
            for key, owner, text in rows
        ]
        told = index(
            documents,
            ledger,
            opened.store,
            cleanup="full",
            source_id_key="key",
            key_encoder="blake2b",
            force_update=job.do == "repair",
        )
        return {name: int(number) for name, number in told.items()}

    def close() -> None:
        source.close()
        engine.dispose()
        opened.close()

    return Prepared(work, hashing, close)
