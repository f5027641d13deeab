"""What is read from a Milvus collection, however many records it holds.

Milvus answers at most 16,384 records of what a filter lets pass. So everything is read by primary
key: a page, then the next behind its last.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from undrift.ports import Vectors
from undrift.stores._milvus_records import (
    RECORD,
    ROLE,
    VECTOR,
    all_of,
    has_direction,
    literal,
    one_of,
    parts_of,
)
from undrift.stores._milvus_wire import Hit, Milvus, Row

WINDOW = 16_384
"""The most that one answer holds."""

PAGE_RECORDS = 10_000
_FIRST_RECORDS = 500
IDS_PER_CALL = 4_000
OWNERS_PER_CALL = 5_000
TEXTS_PER_CALL = 400
"""Texts and metadata have up to 128 KB together, and an answer up to 64 MB."""

_VECTOR_BYTES_PER_CALL = 16_000_000

IS_RECORD = f"{ROLE} == {RECORD}"


class Reading:
    """What reads from the collection of *milvus*, whose vectors have *dimension* components."""

    def __init__(self, milvus: Milvus, dimension: int) -> None:
        self._milvus = milvus
        self.dimension = dimension

    def pages(self, where: str, fields: Sequence[str]) -> Iterator[list[Row]]:
        """The records that *where* lets pass, by primary key; *fields* must hold ``vector_id``."""
        behind = where
        while True:
            page = self._milvus.query(behind, fields, PAGE_RECORDS)
            if page:
                yield page
            # Each of the server's segments gives the first of its own, so the first of them all are
            # complete, and a page that is not full is the last.
            if len(page) < PAGE_RECORDS:
                return
            behind = _behind(where, page)

    def by_id(self, ids: Sequence[str], fields: Sequence[str]) -> Iterator[Row]:
        """The records under *ids*."""
        heavy = {"text", "metadata"} & set(fields)
        for part in parts_of(ids, TEXTS_PER_CALL if heavy else IDS_PER_CALL):
            yield from self._milvus.query(one_of("vector_id", part), fields)

    def vectors(self, ids: Sequence[str]) -> dict[str, Vectors]:
        """The vectors under *ids*, those left out that no search could find."""
        most = max(1, min(IDS_PER_CALL, _VECTOR_BYTES_PER_CALL // (4 * self.dimension)))
        return {
            row["vector_id"]: row[VECTOR]
            for part in parts_of(ids, most)
            for row in self._milvus.query(one_of("vector_id", part), ["vector_id", VECTOR])
            if has_direction(row[VECTOR])
        }

    def whole_pages(
        self, where: str, fields: Sequence[str]
    ) -> Iterator[tuple[list[Row], set[str]]]:
        """As `pages`, with the ids of those whose vectors no search finds.

        The first page comes with its vectors, which saves the few records of one owner the second
        look; the next are asked for by a search.
        """
        most = max(1, min(_FIRST_RECORDS, _VECTOR_BYTES_PER_CALL // (4 * self.dimension)))
        page = self._milvus.query(where, [*fields, VECTOR], most)
        if page:
            yield page, {row["vector_id"] for row in page if not has_direction(row[VECTOR])}
        if len(page) < most:
            return
        rest = _behind(where, page)
        for page in self.pages(rest, fields):
            yield page, self._lost_among(page, rest)

    def _lost_among(self, page: Sequence[Row], where: str) -> set[str]:
        """The ids of those in *page*, of *where*, whose vectors no search finds.

        A search is asked for all of them, which is quicker than reading their vectors; those that
        it does not show are looked at, as they may just have been deleted.
        """
        ids = {row["vector_id"] for row in page}
        any_direction = np.ones(self.dimension, dtype=np.float32)
        hits = self._milvus.search(any_direction, VECTOR, _within(where, ids), WINDOW)
        unseen = sorted(ids - {hit.key for hit in hits})
        if not unseen:
            return set()
        there = {row["vector_id"] for row in self.by_id(unseen, ["vector_id"])}
        return there - self.vectors(unseen).keys()

    def nearest(
        self, vector: Vectors, where: str, limit: int, fields: Sequence[str]
    ) -> list[tuple[Row, float]]:
        """The *limit* records nearest to *vector*, best first, with their similarity."""
        if limit <= TEXTS_PER_CALL:
            hits = self._milvus.search(vector, VECTOR, where, limit, fields)
            return [(hit.row, hit.score) for hit in hits]
        hits = self._nearest_ids(vector, where, limit)
        # Who was written meanwhile may not be what was compared any more, and is let pass again.
        found = {
            row["vector_id"]: row
            for part in parts_of([hit.key for hit in hits], TEXTS_PER_CALL)
            for row in self._milvus.query(all_of(where, one_of("vector_id", part)), fields)
        }
        return [(found[hit.key], hit.score) for hit in hits if hit.key in found]

    def _nearest_ids(self, vector: Vectors, where: str, limit: int) -> list[Hit]:
        if limit <= WINDOW:
            return self._milvus.search(vector, VECTOR, where, limit)
        found: list[Hit] = []
        for page in self.pages(where, ["vector_id"]):
            within = _within(where, {row["vector_id"] for row in page})
            found += self._milvus.search(vector, VECTOR, within, WINDOW)
        return heapq.nlargest(limit, found, key=lambda hit: hit.score)


def _behind(where: str, page: Sequence[Row]) -> str:
    last = max(row["vector_id"] for row in page)
    return all_of(where, f"vector_id > {literal(last)}")


def _within(where: str, ids: set[str]) -> str:
    first, last = literal(min(ids)), literal(max(ids))
    return all_of(where, f"vector_id >= {first}", f"vector_id <= {last}")
