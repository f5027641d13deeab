"""LlamaIndex's `IngestionPipeline` over pgvector; its ledger, the docstore, in a file as usual."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.schema import (
    BaseNode,
    Document,
    NodeRelationship,
    TextNode,
    TransformComponent,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.vector_stores.postgres import PGVectorStore

from benchmarks.peers_children.hashing import Hashing
from benchmarks.peers_children.job import DIMENSION, Job, Prepared, Report, serve

BATCH = 256


class Hashed(BaseEmbedding):
    """The hashing embedder, as LlamaIndex calls it."""

    _hashing: Hashing = PrivateAttr()

    def __init__(self, hashing: Hashing) -> None:
        super().__init__(model_name="hashing", embed_batch_size=BATCH)
        self._hashing = hashing

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._hashing.embed(texts).tolist()

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class Whole(TransformComponent):
    """One node for each document: the texts are short, there is nothing to split."""

    def __call__(self, nodes: list[BaseNode], **kwargs: object) -> list[BaseNode]:
        return [
            TextNode(
                text=node.text,
                metadata=node.metadata,
                excluded_embed_metadata_keys=["key", "owner"],
                relationships={NodeRelationship.SOURCE: node.as_related_node_info()},
            )
            for node in nodes
        ]


def prepare(job: Job) -> Prepared:
    """Connect, create what is not there yet, and read the docstore."""
    hashing = Hashing()
    at = urlsplit(job.url)
    store = PGVectorStore.from_params(
        host=at.hostname,
        port=str(at.port),
        user=at.username,
        password=at.password,
        database=at.path.removeprefix("/"),
        table_name="texts",
        embed_dim=DIMENSION,
        use_jsonb=True,
    )
    store.get_nodes(node_ids=["none"])  # it connects with the first call
    source = psycopg.connect(job.url)
    ledger = Path(job.folder) / "docstore.json"

    def work() -> Report:
        if job.do == "rebuild":
            store.clear()
            ledger.unlink()
        kept = ledger.exists()
        docstore = (
            SimpleDocumentStore.from_persist_path(str(ledger)) if kept else SimpleDocumentStore()
        )
        pipeline = IngestionPipeline(
            transformations=[Whole(), Hashed(hashing)],
            vector_store=store,
            docstore=docstore,
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
            disable_cache=True,  # it would write every vector into a file of its own
        )
        before = len(docstore.docs)
        rows = source.execute("SELECT key, owner, text FROM texts ORDER BY key")
        nodes = pipeline.run(
            documents=[
                Document(doc_id=key, text=text, metadata={"key": key, "owner": owner})
                for key, owner, text in rows
            ]
        )
        docstore.persist(str(ledger))
        return {"nodes": len(nodes), "documents": len(docstore.docs) - before}

    def close() -> None:
        source.close()

    return Prepared(work, hashing, close)


if __name__ == "__main__":
    serve(prepare)
