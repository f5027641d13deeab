"""LangChain's `index()` over `PGVectorStore`, which it recommends."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from langchain_core.embeddings import Embeddings
from langchain_postgres import Column, PGEngine, PGVectorStore
from sqlalchemy.exc import ProgrammingError

from benchmarks.peers_children.job import DIMENSION, Job, Prepared, serve
from benchmarks.peers_children.langchain_index import Opened, prepare

TABLE = "langchain_texts"


def open_store(url: str, embeddings: Embeddings) -> Opened:
    """Connect, and create the table if it is not there."""
    engine = PGEngine.from_connection_string(url)

    def create(*, anew: bool) -> None:
        engine.init_vectorstore_table(
            TABLE,
            DIMENSION,
            id_column=Column("langchain_id", "TEXT", nullable=False),
            overwrite_existing=anew,
        )

    with suppress(ProgrammingError):  # it is there
        create(anew=False)
    store = PGVectorStore.create_sync(engine, embeddings, TABLE)
    return Opened(store, lambda: create(anew=True), lambda: asyncio.run(engine.close()))


def prepare_job(job: Job) -> Prepared:
    """Connect."""
    return prepare(job, open_store)


if __name__ == "__main__":
    serve(prepare_job)
