"""LangChain's `index()` over `PGVector`, which is deprecated and writes faster."""

from __future__ import annotations

from langchain_core.embeddings import Embeddings
from langchain_postgres import PGVector
from sqlalchemy import create_engine

from benchmarks.peers_children.job import Job, Prepared, serve
from benchmarks.peers_children.langchain_index import Opened, prepare


def open_store(url: str, embeddings: Embeddings) -> Opened:
    """Connect, and create the tables if they are not there."""
    engine = create_engine(url)
    store = PGVector(embeddings, connection=engine, collection_name="texts", use_jsonb=True)

    def empty() -> None:
        store.delete_collection()
        store.create_collection()

    return Opened(store, empty, engine.dispose)


def prepare_job(job: Job) -> Prepared:
    """Connect."""
    return prepare(job, open_store)


if __name__ == "__main__":
    serve(prepare_job)
