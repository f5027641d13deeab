"""How a test speaks with a program of another environment: a job on stdin, an answer on stdout.

A job has ``do`` (write or search), ``url``, ``collection``, and ``records`` of ``id``, ``text``,
``vector``, ``metadata``, or ``vector``, ``owner_field``, ``owner``, ``limit``. Vectors come with
it, so that both programs embed alike.
"""

import json
import sys
import warnings
from collections.abc import Callable


class Given:
    """LangChain's embeddings of the job's texts, and of no others."""

    def __init__(self, job: dict) -> None:
        self._vectors = {record["text"]: record["vector"] for record in job.get("records", ())}

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self._vectors[text] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self._vectors[text]


def answer(run: Callable[[dict], object]) -> None:
    """Do the job on stdin."""
    warnings.simplefilter("ignore")
    stdout, sys.stdout = sys.stdout, sys.stderr  # libraries print
    result = run(json.load(sys.stdin))
    json.dump(result, stdout)
    stdout.flush()
