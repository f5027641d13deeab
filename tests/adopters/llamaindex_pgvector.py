"""LlamaIndex's `PGVectorStore` as a program of its own; see `job`."""

from urllib.parse import urlsplit

from job import answer

from llama_index.core.schema import TextNode  # isort: skip
from llama_index.core.vector_stores.types import (  # isort: skip
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)
from llama_index.vector_stores.postgres import PGVectorStore  # isort: skip


def run(job: dict) -> object:
    """Write a table, or search it."""
    at = urlsplit(job["url"])
    store = PGVectorStore.from_params(
        host=at.hostname,
        port=str(at.port),
        user=at.username,
        password=at.password or "",
        database=at.path[1:],
        table_name=job["collection"],
        embed_dim=job["dimension"],
    )
    if job["do"] == "write":
        nodes = [
            TextNode(
                id_=record["id"],
                text=record["text"],
                metadata=record["metadata"],
                embedding=record["vector"],
            )
            for record in job["records"]
        ]
        return store.add(nodes)
    owner = MetadataFilter(key=job["owner_field"], value=job["owner"])
    found = store.query(
        VectorStoreQuery(
            query_embedding=job["vector"],
            similarity_top_k=job["limit"],
            filters=MetadataFilters(filters=[owner]),
        )
    )
    return [
        {"id": id_, "text": node.get_content(), "metadata": node.metadata}
        for id_, node in zip(found.ids, found.nodes, strict=True)
    ]


answer(run)
