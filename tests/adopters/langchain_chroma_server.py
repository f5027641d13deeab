"""LangChain's `Chroma` over a server, as a program of its own; see `job`."""

from urllib.parse import urlsplit

from job import Given, answer

import chromadb  # isort: skip
from langchain_chroma import Chroma  # isort: skip


def run(job: dict) -> object:
    """Write a collection, or search it."""
    at = urlsplit(job["url"])
    store = Chroma(
        collection_name=job["collection"],
        embedding_function=Given(job),
        client=chromadb.HttpClient(
            host=at.hostname,
            port=at.port,
            settings=chromadb.Settings(anonymized_telemetry=False),
        ),
    )
    if job["do"] == "write":
        return store.add_texts(
            [record["text"] for record in job["records"]],
            metadatas=[record["metadata"] for record in job["records"]],
            ids=[record["id"] for record in job["records"]],
        )
    found = store.similarity_search_by_vector(
        job["vector"], k=job["limit"], filter={job["owner_field"]: job["owner"]}
    )
    return [
        {"id": document.id, "text": document.page_content, "metadata": document.metadata}
        for document in found
    ]


answer(run)
