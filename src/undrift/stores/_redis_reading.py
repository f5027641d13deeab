"""What the Redis store reads: always of complete indexes, and never a part of an answer."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
from redis import exceptions

from undrift.errors import ConfigError, DimensionMismatch, StoreUnavailable
from undrift.ports import Match, Vectors
from undrift.stores import _redis_queries as queries
from undrift.stores._meaning import NOT_CREATED
from undrift.stores._nearest import FLOAT
from undrift.stores._redis_address import Address
from undrift.stores._redis_errors import cut_short, mapped_errors
from undrift.stores._redis_layout import Layout, info_commands, layout_of
from undrift.stores._redis_rows import STAMP_FIELDS, Row, row_of, rows_of
from undrift.stores._redis_scripts import ROWS
from undrift.stores._redis_sessions import Command, Sessions

T = TypeVar("T")

OWNERS_AT_ONCE = 200
"""Owners that one query names; more make it longer, not the whole faster."""

ROWS_AT_ONCE = 1_000
"""Hashes that one script reads; the server does nothing else for 10 ms."""

INDEXING_SECONDS = 10.0
"""How long to wait for an index that is being built, at most."""

_POLL_SECONDS = 0.05
_KEY = b"@__key"


class Reading:
    """Asks a server, of which it believes nothing that it did not say in the same breath.

    Every question goes in one transaction with a look at the indexes: whether they are there, are
    undrift's, and know all records.
    """

    def __init__(self, address: Address, sessions: Sessions) -> None:
        self._address = address
        self._names = address.names
        self._sessions = sessions

    def layout(self) -> Layout:
        """What is there now."""
        with mapped_errors(self._address, "read"), self._sessions.session() as session:
            return layout_of(session.transaction(*info_commands(self._names)), self._address)

    def wait_until_indexed(self) -> Layout:
        """The layout, once the indexes know all records.

        Raises:
            StoreUnavailable: they do not yet.
        """
        return self._retried(self.layout, lambda layout: layout)

    # --- rows

    def rows_of_owners(
        self, owners: Iterable[str], *, tombstones: bool
    ) -> Iterator[tuple[Layout, list[Row]]]:
        """Pages of every record of *owners*, in whatever namespace, each once; and the layout."""
        for chunk in _chunks(dict.fromkeys(owners), OWNERS_AT_ONCE):
            query = queries.of_owners(chunk)
            if tombstones:
                query = queries.with_tags(query, deleted=["1"])
            wanted = frozenset(chunk)
            for keys in self._keys(query):
                for page in _chunks(keys, ROWS_AT_ONCE):
                    # A tag may find too many, and what it found may have changed since.
                    layout, answer = self._ask(_rows_command(page))
                    found = rows_of([self._vector_id(key) for key in page], answer)
                    yield (
                        layout,
                        [
                            row
                            for row in found
                            if row.owner_id in wanted and row.is_tombstone == tombstones
                        ],
                    )

    def rows_under(self, vector_ids: Iterable[str]) -> Iterator[tuple[Layout, list[Row]]]:
        """Pages of what stands under *vector_ids*, and the layout."""
        for page in _chunks(dict.fromkeys(vector_ids), ROWS_AT_ONCE):
            layout, answer = self._ask(_rows_command([self._names.prefix + id_ for id_ in page]))
            yield layout, rows_of(page, answer)

    def counts(self, owners: Iterable[str]) -> Iterator[tuple[str, str, int]]:
        """Owner, namespace and how many, of the records of *owners* that are no tombstones."""
        for chunk in _chunks(dict.fromkeys(owners), OWNERS_AT_ONCE):
            wanted = frozenset(chunk)
            fields = ("owner_id", "namespace", "deleted")
            command = queries.counts_command(
                self._names.identities, queries.of_owners(chunk), fields
            )
            for group in self._groups(command):
                owner_id, namespace, deleted = (_text(group, field) for field in fields)
                if owner_id in wanted and deleted != "1":
                    yield owner_id, namespace, int(_text(group, "n"))

    def owners(self, namespace: str) -> Iterator[str]:
        """The owners of the records of *namespace*, with repetitions."""
        index = self._names.identities
        for query in queries.in_parts("*", self._count(index, "*")):
            for group in self._groups(queries.owners_command(index, query)):
                if _text(group, "namespace") == namespace and _text(group, "deleted") != "1":
                    owners = group.get(b"owners")
                    assert isinstance(owners, list)
                    yield from (
                        owner.decode(errors="replace") for owner in owners if owner is not None
                    )

    def counted(self, at_most: int) -> Iterator[tuple[str, str, str, int]]:
        """Namespace, model, kind and how many, of about *at_most* records, no tombstones."""
        index, fields = self._names.identities, ("namespace", "model", "kind", "deleted")
        totals: Counter[tuple[str, str, str]] = Counter()
        for query in queries.in_parts("*", self._count(index, "*")):
            for group in self._groups(queries.counts_command(index, query, fields)):
                namespace, model, kind, deleted = (_text(group, field) for field in fields)
                if deleted != "1":
                    totals[namespace, model, kind] += int(_text(group, "n"))
            if totals.total() >= at_most:
                break
        for (namespace, model, kind), records in sorted(totals.items()):
            yield namespace, model, kind, records

    # --- search

    def nearest(
        self,
        query: str,
        vector: Vectors,
        *,
        model: str,
        limit: int,
        is_wanted: Callable[[Row], bool],
    ) -> list[Match]:
        """The *limit* records nearest to *vector*, of those that *query* finds and are wanted."""
        count = limit
        encoded = np.asarray(vector, dtype=FLOAT).tobytes()
        while True:
            command = queries.nearest_command(
                self._names.vectors, query, encoded, count, (*STAMP_FIELDS, "text", "metadata")
            )
            layout, answer = self._ask(command, self._same_dimension(vector, model))
            found = self._results(answer)
            matches = list(self._matches(found, layout, is_wanted))
            if len(matches) >= limit or len(found) < count:
                return matches[:limit]
            count *= 4  # the tags found records that are not wanted

    def _same_dimension(self, vector: Vectors, model: str) -> Callable[[Layout], None]:
        def check(layout: Layout) -> None:
            if layout.dimension != len(vector):
                raise DimensionMismatch(
                    expected=len(vector),
                    found=layout.dimension or 0,
                    model=model,
                    fix=another_index(self._address),
                )

        return check

    def _matches(
        self,
        found: Sequence[dict[bytes, object]],
        layout: Layout,
        is_wanted: Callable[[Row], bool],
    ) -> Iterator[Match]:
        for result in found:
            key, fields = result.get(b"id"), result.get(b"extra_attributes")
            assert isinstance(key, bytes)
            assert isinstance(fields, dict)
            score = 1.0 - float(fields.get(b"distance", math.nan))
            row = row_of(self._vector_id(key), fields, layout.vector_bytes)
            if not math.isnan(score) and is_wanted(row):
                text, metadata = (
                    fields.get(name, b"").decode(errors="replace")
                    for name in (b"text", b"metadata")
                )
                stamp = row.stamp(layout.vector_bytes)
                yield Match(stamp, max(-1.0, min(1.0, score)), text, metadata or "{}")

    # --- asking

    def _keys(self, query: str) -> Iterator[list[bytes]]:
        """The keys of the records that *query* finds, each once."""
        index = self._names.identities
        for part in queries.in_parts(query, self._count(index, query)):
            for group in self._groups(queries.keys_command(index, part)):
                keys = group.get(b"keys")
                if not isinstance(keys, list) or len(keys) != int(_text(group, "n")):
                    raise cut_short(self._address, "a list of keys is not complete")
                yield keys

    def _count(self, index: str, query: str) -> int:
        """How many records *query* finds, to decide how to ask; it may have changed since."""
        _, answer = self._ask(queries.count_command(index, query))
        assert isinstance(answer, dict)
        return int(answer[b"total_results"])

    def _vector_id(self, key: bytes) -> str:
        return key[len(self._names.prefix) :].decode(errors="replace")

    def _groups(self, command: Command) -> Iterator[dict[bytes, object]]:
        _, answer = self._ask(command)
        for result in self._results(answer):
            values = result.get(b"extra_attributes")
            assert isinstance(values, dict)
            yield values

    def _results(self, answer: object) -> list[dict[bytes, object]]:
        """What a query found.

        Raises:
            StoreUnavailable: it did not come to its end.
            ConfigError: the server keeps a part of it back.
        """
        assert isinstance(answer, dict)
        if warnings := answer.get(b"warning"):
            raise cut_short(self._address, warnings[0].decode(errors="replace"))
        results: list[dict[bytes, object]] = answer[b"results"]
        if answer[b"total_results"] > len(results):
            raise ConfigError(
                "The vector store limits its answers",
                why=f"{self._address.location}: it found {answer[b'total_results']} and sent "
                f"{len(results)}.",
                fix="let an administrator run: FT.CONFIG SET MAXAGGREGATERESULTS -1",
            )
        return results

    def _ask(
        self, command: Command, check: Callable[[Layout], None] | None = None
    ) -> tuple[Layout, object]:
        """The answer to *command*, and the layout at that moment.

        Args:
            check: raises where the layout does not fit.
        """

        def attempt() -> tuple[Layout, object]:
            with mapped_errors(self._address, "read"), self._sessions.session() as session:
                *infos, answer = session.transaction(*info_commands(self._names), command)
                layout = layout_of(infos, self._address)
                if not layout.exists:
                    raise NOT_CREATED.error(self._address.location, "there is no such index")
                if check is not None:
                    check(layout)
                if isinstance(answer, exceptions.ResponseError) and not layout.is_indexing:
                    raise answer
                return layout, answer

        return self._retried(attempt, lambda answered: answered[0])

    def _retried(self, attempt: Callable[[], T], layout_in: Callable[[T], Layout]) -> T:
        deadline = time.monotonic() + INDEXING_SECONDS
        while layout_in(found := attempt()).is_indexing:
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    "The vector store's index is still being built",
                    why=f"{self._address.location}: the index does not know all records yet.",
                    fix="run again in a minute; `FT.INFO` tells percent_indexed",
                )
            time.sleep(_POLL_SECONDS)
        return found


def another_index(address: Address) -> str:
    """What a person does to store vectors of another dimension."""
    return (
        f"set another ?index= than {address.names.vectors} in VECTOR_URL and run "
        "`undrift sync --all`"
    )


def _rows_command(keys: Sequence[str | bytes]) -> Command:
    return ("EVAL_RO", ROWS, len(keys), *keys)


def _text(group: dict[bytes, object], field: str) -> str:
    value = group.get(field.encode())
    return value.decode(errors="replace") if isinstance(value, bytes) else ""


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
