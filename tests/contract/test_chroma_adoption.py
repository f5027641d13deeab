"""A Chroma collection of another program's keeps the contract of adopted collections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from support.chroma_server import ChromaServer, collection_of
from undrift.adoption import Field, StoreFields
from undrift.testing._store_adoption import KIND, AdoptionContract, ForeignRecord
from undrift.testing.builders import MODEL

_PAGE = 2_000


class ForeignCollection(AdoptionContract):
    """Collections on one server, of the program's own making."""

    server: ChromaServer

    space: str
    text_field: str
    """Empty for the document."""

    @pytest.fixture(scope="class")
    @classmethod
    def new_location(cls, chroma_server: ChromaServer) -> Callable[[], str]:
        cls.server = chroma_server
        return chroma_server.new_location

    def fields(self, location: str) -> StoreFields:
        return StoreFields(
            owner=Field(path=("user", "id")),
            kind=Field(value=KIND),
            entity_id=Field(path=("exp",)),
            text=Field(path=(self.text_field or "document",)),
            model=Field(value=MODEL),
            fixed={"app": "careers"},
        )

    def write_foreign(self, location: str, records: Sequence[ForeignRecord]) -> None:
        name = collection_of(location)
        path = self.server.collection(name) or self.server.create_collection(
            name, metadata={"hnsw:space": self.space}
        )
        for start in range(0, len(records), _PAGE):
            part = records[start : start + _PAGE]
            self.server.ask(
                f"{path}/upsert",
                ids=[record.id for record in part],
                documents=[None if self.text_field else record.text for record in part],
                embeddings=[_vector(record) for record in part],
                metadatas=[self._metadata(record) for record in part],
            )

    def raw(self, location: str) -> Mapping[str, ForeignRecord]:
        path = self.server.collection(collection_of(location))
        found = self.server.ask(f"{path}/get", include=["metadatas", "documents", "embeddings"])
        parts = (found[name] for name in ("ids", "metadatas", "documents", "embeddings"))
        return {
            id_: ForeignRecord(
                id=id_,
                owner=metadata.get("user.id"),
                entity_id=metadata.get("exp"),
                text=metadata.get(self.text_field) if self.text_field else document,
                vector=np.array(vector, dtype=np.float32),
                extra=metadata.get("extra"),
            )
            for id_, metadata, document, vector in zip(*parts, strict=True)
        }

    def searchable(self, location: str) -> set[str]:
        path = self.server.collection(collection_of(location))
        found = self.server.ask(
            f"{path}/query", query_embeddings=[[1.0] * 16], n_results=100, include=[]
        )
        return set(found["ids"][0])

    def _metadata(self, record: ForeignRecord) -> dict[str, object]:
        fields = {"user.id": record.owner, "exp": record.entity_id, "extra": record.extra}
        if self.text_field:
            fields[self.text_field] = record.text
        return {**fields, "app": "careers"}


class TestDocuments(ForeignCollection):
    """As LangChain's: the text is the document, and the distance is Chroma's usual one."""

    space = "l2"
    text_field = ""


class TestTextsInMetadata(ForeignCollection):
    """Without documents, by cosine."""

    space = "cosine"
    text_field = "content"


def _vector(record: ForeignRecord) -> list[float]:
    assert record.vector is not None
    vector: list[float] = record.vector.tolist()
    return vector
