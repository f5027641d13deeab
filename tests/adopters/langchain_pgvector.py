"""LangChain's `PGVector` as a program of its own; see `job`."""

from job import Given, answer

from langchain_postgres import PGVector  # isort: skip


def run(job: dict) -> object:
    """Write a collection, or search it."""
    store = PGVector(
        embeddings=Given(job),
        collection_name=job["collection"],
        connection=job["url"].replace("postgresql://", "postgresql+psycopg://", 1),
        use_jsonb=True,
    )
    if job["do"] == "write":
        return store.add_texts(
            [record["text"] for record in job["records"]],
            metadatas=[record["metadata"] for record in job["records"]],
            ids=[record["id"] for record in job["records"]],
        )
    found = store.similarity_search_with_score_by_vector(
        job["vector"], k=job["limit"], filter={job["owner_field"]: job["owner"]}
    )
    return [
        {"id": document.id, "text": document.page_content, "metadata": document.metadata}
        for document, _ in found
    ]


answer(run)
