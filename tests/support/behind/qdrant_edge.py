"""A Qdrant collection in a folder as the engine reaches it, past undrift."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import qdrant_edge as edge

from support.behind.qdrant import PAGE_POINTS, BehindPoints, Stored, stored_point
from support.qdrant_engine import engine_at


class BehindQdrantEdge(BehindPoints):
    """The points of a collection in a folder, by the engine, which this process shares."""

    def __init__(self, url: str, kinds: Collection[str]) -> None:
        super().__init__(kinds)
        self._url = url

    def close(self) -> None:
        """Nothing stays open."""

    @property
    def exists(self) -> bool:
        """Whether the folder is there."""
        try:
            with engine_at(self._url):
                return True
        except AssertionError:
            return False

    def read(self) -> Iterator[Stored]:
        """Every point there is, in pages."""
        next_id: edge.PointId | None = None
        while True:
            with engine_at(self._url) as engine:
                records, next_id = engine.scroll(
                    edge.ScrollRequest(
                        offset=next_id, limit=PAGE_POINTS, with_payload=True, with_vector=True
                    )
                )
            for record in records:
                yield stored_point(str(record.id), record.payload, record.vector)
            if next_id is None:
                return

    def write(self, stored: Stored) -> None:
        """Put a point in the place of whatever has its id."""
        vector: edge.Vector = {} if stored.vector is None else stored.vector
        point = edge.Point(stored.id, vector, dict(stored.payload))
        with engine_at(self._url) as engine:
            engine.update(edge.UpdateOperation.upsert_points([point]))

    def remove(self, point_id: str) -> None:
        """Remove a point."""
        with engine_at(self._url) as engine:
            engine.update(edge.UpdateOperation.delete_points([point_id]))
