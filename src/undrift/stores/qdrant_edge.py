"""Vectors in a folder, kept by Qdrant's engine, which runs in this process: no server.

The engine is the one of Qdrant's server; `undrift.stores.qdrant` does the same over the network.

Safety:
    One process at a time: the engine keeps the others out, and undrift says who is in. A publish
    returns when the engine's files are flushed; of one that breaks off, a part may be written.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from urllib.parse import unquote

from undrift.adoption import StoreFields
from undrift.errors import ConfigError
from undrift.stores._qdrant_adopted import AdoptedQdrantStore
from undrift.stores._qdrant_engine import EnginePoints
from undrift.stores._qdrant_sample import sample_points
from undrift.stores._qdrant_store import QdrantPointStore
from undrift.stores.collections import CollectionSample

ONE_PROCESS = (
    "Qdrant's engine opens a folder for one process at a time; a Qdrant server takes any number"
)


def open_at(
    url: str, *, namespace: str, keep_text: bool, fields: StoreFields | None
) -> QdrantEdgeStore | AdoptedQdrantStore:
    """The store at ``qdrant+file:///folder/collection``.

    Raises:
        ConfigError: the URL is malformed.
    """
    path = path_of(url)
    if fields is None:
        return QdrantEdgeStore(path, namespace=namespace, keep_text=keep_text)
    return AdoptedQdrantStore(
        EnginePoints(path.absolute()),
        namespace=namespace,
        fields=fields,
        why_not_many_processes=ONE_PROCESS,
    )


def sample_collection(url: str, limit: int) -> CollectionSample | None:
    """Some points of the collection at *url*; None where there is none of another program."""
    with closing(EnginePoints(path_of(url).absolute())) as points:
        return sample_points(points, url, limit)


def path_of(url: str) -> Path:
    """The folder that ``qdrant+file:///folder/collection`` names.

    Raises:
        ConfigError: the URL is malformed.
    """
    rest = url.partition("://")[2]
    path = unquote(rest[1:])
    if not rest.startswith("/") or "?" in rest or not Path(path).name:
        raise ConfigError(
            "The vector store's URL is malformed",
            why=f"qdrant+file://{rest} is not of the form qdrant+file:///folder/collection, or "
            "qdrant+file:////folder/collection for an absolute path.",
            fix="correct VECTOR_URL; write a ? in a name as %3F",
        )
    return Path(path)


class QdrantEdgeStore(QdrantPointStore):
    """The `ClaimableStore` in one folder of Qdrant's engine.

    Args:
        path: the collection's folder; a relative one is below the working directory.
        namespace: whose records are managed.
        keep_text: False stores neither texts nor metadata.
    """

    def __init__(
        self, path: str | Path, *, namespace: str = "default", keep_text: bool = True
    ) -> None:
        super().__init__(
            EnginePoints(Path(path).absolute()),
            namespace=namespace,
            keep_text=keep_text,
            why_not_many_processes=ONE_PROCESS,
        )
