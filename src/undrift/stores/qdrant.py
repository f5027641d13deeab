"""Vectors in a Qdrant server, in a collection of undrift's own.

Safety:
    Writes are applied where Qdrant finds an older version, in the order of its log, and each waits
    until it is applied. A publish is not all or nothing: of one that breaks off, a part may be
    written, and the next sync finds out.

    The calls are tested against a server of the tests' own, which speaks Qdrant's API over
    Qdrant's engine: what the engine does is Qdrant's, what the wire looks like is as qdrant-client
    has it from Qdrant's API description. No released server took part.
"""

from __future__ import annotations

from contextlib import closing

from undrift.adoption import StoreFields
from undrift.stores._qdrant_address import parse_address
from undrift.stores._qdrant_adopted import AdoptedQdrantStore
from undrift.stores._qdrant_http import HttpPoints
from undrift.stores._qdrant_sample import sample_points
from undrift.stores._qdrant_store import QdrantPointStore
from undrift.stores.collections import CollectionSample


def open_at(
    url: str, *, namespace: str, keep_text: bool, fields: StoreFields | None
) -> QdrantStore | AdoptedQdrantStore:
    """The store at ``qdrant+http(s)://…``; see `QdrantStore`."""
    if fields is not None:
        points = HttpPoints(parse_address(url))
        return AdoptedQdrantStore(points, namespace=namespace, fields=fields)
    return QdrantStore(url, namespace=namespace, keep_text=keep_text)


def sample_collection(url: str, limit: int) -> CollectionSample | None:
    """Some points of the collection at *url*; None where there is none of another program."""
    address = parse_address(url)
    with closing(HttpPoints(address)) as points:
        return sample_points(points, address.url, limit)


class QdrantStore(QdrantPointStore):
    """The `ClaimableStore` in one collection of a Qdrant server.

    Args:
        url: ``qdrant+http(s)://[:KEY@]host[:port]/[prefix/]collection[?api_key=env:NAME]``; the
            port is 6333 unless it is named.
        namespace: whose records are managed.
        keep_text: False stores neither texts nor metadata.

    Raises:
        ConfigError: the URL is malformed.
    """

    def __init__(self, url: str, *, namespace: str = "default", keep_text: bool = True) -> None:
        super().__init__(HttpPoints(parse_address(url)), namespace=namespace, keep_text=keep_text)
