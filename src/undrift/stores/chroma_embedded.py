"""Vectors in a folder of Chroma's, opened by this process: for one program that is alone with it.

See `undrift.stores._chroma_folder` for who may open it, and `undrift.stores.chroma` for how the
records lie in it, which is as on a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any
from uuid import UUID

import numpy as np
from chromadb.api import ServerAPI
from chromadb.api.client import Client
from chromadb.api.collection_configuration import (
    CreateCollectionConfiguration,
    CreateHNSWConfiguration,
)
from chromadb.config import Settings
from chromadb.errors import ChromaError, NotFoundError

from undrift.adoption import StoreFields
from undrift.errors import ConfigError
from undrift.forks import leave_to_parent
from undrift.stores._chroma_address import FolderAddress, parse_folder
from undrift.stores._chroma_adopted import AdoptedChromaStore
from undrift.stores._chroma_api import Collection, Put, Row, Where, space_of
from undrift.stores._chroma_errors import failure
from undrift.stores._chroma_folder import DATABASE_FILE, FolderLock, require_consent
from undrift.stores._chroma_sample import sample_of
from undrift.stores.chroma import ChromaStore
from undrift.stores.collections import CollectionSample

_ALONE = (
    "Chroma's engine keeps vectors in memory: a second process would go on finding what this one "
    "deletes. undrift locks the folder; `chroma run` serves any number of programs"
)


def open_at(
    url: str, *, namespace: str, keep_text: bool, fields: StoreFields | None
) -> ChromaStore:
    """The store at ``chroma+file:////folder/collection?sole_process=yes``.

    Raises:
        ConfigError: the URL is malformed, or lacks what it says of other programs.
    """
    address = parse_folder(url)
    require_consent(address)
    folder = ChromaFolder(address)
    if fields is not None:
        return AdoptedChromaStore(
            folder, address, namespace=namespace, fields=fields, why_not_many_processes=_ALONE
        )
    return ChromaStore(
        folder, address, namespace=namespace, keep_text=keep_text, why_not_many_processes=_ALONE
    )


def sample_collection(url: str, limit: int) -> CollectionSample | None:
    """Some records of the collection at *url*; None where there is none of another program."""
    address = parse_folder(url)
    require_consent(address)
    with closing(ChromaFolder(address)) as folder:
        return sample_of(folder, address, f"{address.location}?sole_process=yes", limit)


class ChromaFolder:
    """The `Chroma` that is a folder, opened when it is first needed and there.

    Safety:
        May be used from several threads. A forked process is another one, and locked out.
    """

    def __init__(self, address: FolderAddress) -> None:
        self._address = address
        self._opening = Lock()
        self._opened: tuple[FolderLock, Client] | None = None

    def find(self, name: str) -> Collection | None:
        """The collection called *name*; None if there is none, or not even the folder."""
        if not (self._address.folder / DATABASE_FILE).is_file():
            return None
        tenant, database = self._address.tenant, self._address.database
        with engine_errors(self._address.location):
            engine = self._engine()
            try:
                found = engine.get_collection(name, tenant=tenant, database=database)
            except NotFoundError:
                return None
        return FolderCollection(
            engine=engine,
            location=self._address.location,
            id=found.id,
            tenant=tenant,
            database=database,
            space=space_of(found.configuration_json, found.metadata),
            dimension=found.dimension,
        )

    def create(self, name: str) -> None:
        """Create a collection that measures the cosine, and the folder."""
        try:
            self._address.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise ConfigError(
                "Chroma's folder cannot be made",
                why=f"{self._address.location}: {error.strerror}.",
                fix="correct VECTOR_URL, or the rights on the folder above",
            ) from error
        with engine_errors(self._address.location):
            self._engine().create_collection(
                name,
                configuration=CreateCollectionConfiguration(
                    hnsw=CreateHNSWConfiguration(space="cosine")
                ),
                get_or_create=True,
                tenant=self._address.tenant,
                database=self._address.database,
            )

    def close(self) -> None:
        """Let go of the folder. Safe to call twice."""
        opened, self._opened = self._opened, None
        if opened is not None:
            lock, client = opened
            if lock.is_ours:
                client.close()
            else:
                leave_to_parent(client)
            lock.release()

    def _engine(self) -> ServerAPI:
        if self._opened is not None and not self._opened[0].is_ours:
            self.close()
            self._opening = Lock()
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            lock, client = self._opened
        lock.require_alone()
        return client._server

    def _open(self) -> tuple[FolderLock, Client]:
        lock = FolderLock(self._address)
        try:
            lock.require_alone()
            settings = Settings(
                _env_file=None,  # type: ignore[call-arg]  # pydantic-settings' own
                anonymized_telemetry=False,
                is_persistent=True,
                persist_directory=str(self._address.folder),
            )
            client = Client(
                tenant=self._address.tenant,
                database=self._address.database,
                settings=settings,
            )
        except BaseException:
            lock.release()
            raise
        return lock, client


@contextmanager
def engine_errors(location: str) -> Iterator[None]:
    """Turn what the engine raises inside the block into undrift's own errors."""
    try:
        yield
    except ChromaError as error:
        raise failure(location, error.code(), str(error)) from error
    except ValueError as error:  # that of another client in this process, or of a tenant
        raise ConfigError(
            "Chroma's folder cannot be opened",
            why=f"{location}: {str(error).splitlines()[0].rstrip('.')}.",
            fix="correct VECTOR_URL; where this program opens the folder itself, let it close that "
            "client first, or run a server (`chroma run`) for both",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderCollection:
    """The `Collection` of an engine in this process.

    By the interface that Chroma's client has for all its engines, not by its class `Collection`:
    that one checks every field of every record in Python, and cannot change a document without
    embedding it.
    """

    engine: ServerAPI = field(repr=False)
    location: str
    id: UUID
    tenant: str
    database: str
    space: str
    dimension: int | None

    def count(self) -> int:
        """How many records there are."""
        with engine_errors(self.location):
            return self.engine._count(self.id, tenant=self.tenant, database=self.database)

    def rows(
        self,
        *,
        ids: Sequence[str] | None = None,
        where: Where | None = None,
        limit: int | None = None,
        with_documents: bool = False,
    ) -> list[Row]:
        """The records under *ids*, or those that *where* lets pass, by one consistent read."""
        include = ["metadatas", "documents"] if with_documents else ["metadatas"]
        found = self._get(include, ids=ids, where=where, limit=limit)
        documents = found["documents"] if with_documents else [None] * len(found["ids"])
        return [
            Row(id_, metadata or {}, document or "")
            for id_, metadata, document in zip(
                found["ids"], found["metadatas"], documents, strict=True
            )
        ]

    def ids(self, where: Where | None) -> list[str]:
        """The ids of the records that *where* lets pass, by one consistent read."""
        found: list[str] = self._get([], where=where)["ids"]
        return found

    def embeddings(self, ids: Sequence[str]) -> list[tuple[str, Sequence[float]]]:
        """The vectors under *ids*."""
        if not ids:
            return []
        found = self._get(["embeddings"], ids=ids)
        return list(zip(found["ids"], found["embeddings"], strict=True))

    def require_vectors(self, ids: Sequence[str]) -> None:
        """Look whether the records under *ids* have their vectors, by a query without one."""
        with engine_errors(self.location):
            self.engine._query(
                self.id,
                [],
                ids=list(ids),
                n_results=1,
                include=[],
                tenant=self.tenant,
                database=self.database,
            )

    def add(self, put: Put) -> None:
        """Write a record, if none has its id."""
        self._write(self.engine._add, [put])

    def upsert(self, puts: Sequence[Put]) -> None:
        """Write records, whatever has their ids."""
        self._write(self.engine._upsert, puts)

    def update(self, puts: Sequence[Put]) -> None:
        """Change fields and documents of records that are there; their vectors stay."""
        self._write(self.engine._update, puts)

    def delete(self, ids: Sequence[str]) -> None:
        """Remove records; one that is not there is no error."""
        with engine_errors(self.location):
            self.engine._delete(self.id, ids=list(ids), tenant=self.tenant, database=self.database)

    def _write(self, write: Callable[..., object], puts: Sequence[Put]) -> None:
        vectors = [
            np.asarray(put.embedding, dtype=np.float32).tolist()
            for put in puts
            if put.embedding is not None
        ]
        with engine_errors(self.location):
            write(
                collection_id=self.id,
                ids=[put.id for put in puts],
                embeddings=vectors or None,
                metadatas=[put.metadata for put in puts],
                documents=[put.document for put in puts],
                tenant=self.tenant,
                database=self.database,
            )

    def _get(self, include: Sequence[str], **chosen: object) -> Mapping[str, Any]:
        get: Callable[..., Mapping[str, Any]] = self.engine._get
        with engine_errors(self.location):
            return get(
                self.id,
                **chosen,
                include=list(include),
                tenant=self.tenant,
                database=self.database,
            )
