"""Digests of owners' records in LanceDB: one pass over a stretch of the table, in columns.

LanceDB finds a stretch of owners four times as fast as a list of them, so a page of owners is read
from the first of them to the last, and whoever else lies in between is left out here. Where too
many do, as between the owners 9 and 10, the list is asked for after all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.table import Table
from numpy.typing import NDArray

from undrift.digests import FINGERPRINT_CHARACTERS, RecordsDigest
from undrift.stores import _lance_layout as layout
from undrift.stores._lance_database import ROWS_AT_ONCE, STAMPS_AT_ONCE, Columns, Database
from undrift.stores._lance_errors import mapped_errors

_COLUMNS = ("owner_id", "namespace", "kind", "entity_id", "fingerprint", "model")
_WITH_VECTORS = {name: name for name in _COLUMNS} | {"is_lost": layout.IS_LOST}

PAGE_OWNERS = 10_000
"""Owners whose digests are best asked for at once; twice as many took no less time for each."""

_ROWS_PER_OWNER = 50
"""Rows in a stretch for each owner asked for, above which a list of owners is less to read."""

_PART_READ = 100
"""One part in so many of the table is looked through by stretches for vectors that are lost, and
then all of it at once, which takes as long as some twentieth of it by stretches."""

_KEY_BYTES = 8
_NO_KEY = b"\x00" * FINGERPRINT_CHARACTERS


class Digests:
    """Computes digests of owners' records.

    Safety:
        May be used from several threads.
    """

    def __init__(self, database: Database, namespace: str) -> None:
        self._database = database
        self._namespace = namespace
        self._losses = _Losses(database)

    def of(
        self, owners: Sequence[str], *, model: str, kinds: Collection[str]
    ) -> Mapping[str, RecordsDigest]:
        """What `DigestingStore.digests` returns.

        Args:
            owners: that a store can hold.
        """
        asked = list(dict.fromkeys(owners))
        if not asked:
            return {}
        database, table = self._database, self._database.records()
        with mapped_errors(database.location):
            table.checkout(table.version)  # several reads of it are then of one state
        columns: Columns = _COLUMNS
        at_once = STAMPS_AT_ONCE
        if self._losses.may_concern(table, asked):
            columns, at_once = _WITH_VECTORS, ROWS_AT_ONCE  # they are read, though not given
        page, rows = _Page(self._namespace, model, kinds), 0
        for where, meant in self._stretches(table, asked):
            page.expect(meant)
            where = f"{where} AND {layout.IS_RECORD}"
            for batch in database.rows(table, where, columns, at_once=at_once):
                page.add(batch)
                rows += batch.num_rows
        self._losses.saw(table, rows)
        return page.digests()

    def _stretches(self, table: Table, owners: Sequence[str]) -> Iterator[_Stretch]:
        """What to read; every one of *owners* is in one of them."""
        if self._is_dense(table, owners):
            yield _between(owners), owners
            return
        # Numbers follow one another as texts only among those that are equally long.
        sparse: list[str] = []
        for _, equal in groupby(sorted(owners, key=len), key=len):
            part = list(equal)
            if len(part) < len(owners) and self._is_dense(table, part):
                yield _between(part), part
            else:
                sparse.extend(part)
        for listed in layout.parts(sparse):
            yield layout.any_of(layout.OWNER, listed), listed

    def _is_dense(self, table: Table, owners: Sequence[str]) -> bool:
        """Whether there is little else in the table from the first of *owners* to the last."""
        most = _ROWS_PER_OWNER * len(owners)
        with mapped_errors(self._database.location):
            return table.count_rows() <= most or table.count_rows(_between(owners)) <= most


_Stretch = tuple[str, Sequence[str]]
"""A condition, and those whose rows are meant of all for which it holds."""


def _between(owners: Sequence[str]) -> str:
    # LanceDB compares texts by their bytes, which is by code point.
    first, last = layout.quoted(min(owners)), layout.quoted(max(owners))
    return f"{layout.OWNER} >= {first} AND {layout.OWNER} <= {last}"


class _Losses:
    """Who has records without a vector.

    To tell, LanceDB reads the vectors, and those of everybody at once in a third of the time that
    it takes by stretches. What was found is of one version of the table, which never changes, and
    holds for that one alone.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._state: object = None
        self._rows_seen = 0
        self._owners: frozenset[str] | None = None

    def may_concern(self, table: Table, owners: Sequence[str]) -> bool:
        """Whether any of *owners* may have lost a vector, so that theirs are to be looked at."""
        with self._lock:
            rows = self._begin(table)
            if self._owners is None:
                # Of the owners it is not known yet how many rows they have: at least one, mostly.
                if (self._rows_seen + len(owners)) * _PART_READ < rows:
                    return True
                self._owners = frozenset(self._read(table))
            return not self._owners.isdisjoint(owners)

    def saw(self, table: Table, rows: int) -> None:
        """So many rows of *table* were looked at."""
        with self._lock:
            self._begin(table)
            self._rows_seen += rows

    def _begin(self, table: Table) -> int:
        """Forget what is of another state than that of *table*; return its rows."""
        with mapped_errors(self._database.location):
            rows = table.count_rows()
            state = (table.version, rows, self._versions_folder())
        if state != self._state:
            self._state, self._rows_seen, self._owners = state, 0, None
        return rows

    def _versions_folder(self) -> tuple[int, int] | None:
        """Tells a table on this machine from one that was restored in its place."""
        address = self._database.address
        folder = address.folder_of(address.table)
        if folder is None:
            return None
        found = (folder / "_versions").stat()
        return found.st_ino, found.st_mtime_ns

    def _read(self, table: Table) -> Iterator[str]:
        where = f"{layout.IS_LOST} AND {layout.IS_RECORD}"
        for batch in self._database.rows(table, where, [layout.OWNER]):
            yield from pc.unique(batch.column(layout.OWNER)).drop_null().to_pylist()


class _Page:
    """The records of a page of owners, gathered batch by batch."""

    def __init__(self, namespace: str, model: str, kinds: Collection[str]) -> None:
        self._owners: list[str] = []
        self._meant = pa.array([], pa.string())
        self._first = 0
        self._namespace = namespace
        self._model = model
        self._kinds = pa.array(kinds, pa.string())
        self._owner_of: list[NDArray[np.int32]] = []
        self._items: list[pa.Array] = []
        self._keys: list[NDArray[np.uint64]] = []
        self._amiss: NDArray[np.int64] = np.zeros(0, np.int64)
        self._unmanaged: NDArray[np.int64] = np.zeros(0, np.int64)
        # Whose items are to be sorted whole: by their first bytes they are not told apart.
        self._is_odd: NDArray[np.bool_] = np.zeros(0, np.bool_)

    def expect(self, owners: Sequence[str]) -> None:
        """From now on batches are read for *owners*, of whom none was meant before."""
        self._first = len(self._owners)
        self._owners.extend(owners)
        self._meant = pa.array(owners, pa.string())
        more = len(owners)
        self._amiss = np.append(self._amiss, np.zeros(more, np.int64))
        self._unmanaged = np.append(self._unmanaged, np.zeros(more, np.int64))
        self._is_odd = np.append(self._is_odd, np.zeros(more, np.bool_))

    def add(self, batch: pa.RecordBatch) -> None:
        """Take what is of the owners that are meant."""
        place = pc.index_in(batch.column(layout.OWNER), value_set=self._meant)
        if place.null_count:
            batch, place = batch.filter(place.is_valid()), place.drop_null()
        place = pc.add(place, pa.scalar(self._first, pa.int32()))
        kind = batch.column("kind").fill_null("")
        is_ours = pc.and_(
            pc.equal(batch.column("namespace").fill_null(""), self._namespace),
            pc.is_in(kind, value_set=self._kinds),
        )
        if not pc.all(is_ours, min_count=0).as_py():
            self._count(self._unmanaged, place.filter(pc.invert(is_ours)))
            batch, place = batch.filter(is_ours), place.filter(is_ours)
            kind = kind.filter(is_ours)
        if not len(place):
            return
        print_ = batch.column("fingerprint").fill_null("")
        is_amiss = pc.or_(
            pc.not_equal(batch.column("model").fill_null(""), self._model),
            pc.not_equal(pc.utf8_length(print_), FINGERPRINT_CHARACTERS),
        )
        if "is_lost" in batch.schema.names:
            is_amiss = pc.or_(is_amiss, batch.column("is_lost"))
        self._count(self._amiss, place.filter(is_amiss))
        self._owner_of.append(place.to_numpy(zero_copy_only=False))
        self._items.append(_items(print_, kind, batch.column("entity_id").fill_null("")))
        self._keys.append(self._keys_of(print_, place))

    def digests(self) -> dict[str, RecordsDigest]:
        """By owner, of those who have records."""
        found = {}
        hashes = self._hashes()
        empty = hashlib.sha256().digest()
        counts = zip(self._owners, self._amiss.tolist(), self._unmanaged.tolist(), strict=True)
        for place, (owner_id, amiss, unmanaged) in enumerate(counts):
            records, digest = hashes.get(place, (0, empty))
            if records or unmanaged:
                found[owner_id] = RecordsDigest(records, digest, amiss, unmanaged)
        return found

    def _keys_of(self, print_: pa.Array, place: pa.Array) -> NDArray[np.uint64]:
        """The first bytes of each fingerprint, as a number of the same order."""
        binary = print_.cast(pa.binary())
        is_odd = pc.not_equal(pc.binary_length(binary), FINGERPRINT_CHARACTERS)
        if pc.any(is_odd).as_py():
            self._is_odd[place.filter(is_odd).to_numpy(zero_copy_only=False)] = True
            binary = pc.if_else(is_odd, _NO_KEY, binary)
        fixed = binary.cast(pa.binary(FINGERPRINT_CHARACTERS))
        whole = np.frombuffer(fixed.buffers()[1], np.uint8)
        start = fixed.offset * FINGERPRINT_CHARACTERS
        rows = whole[start : start + len(fixed) * FINGERPRINT_CHARACTERS]
        first = rows.reshape(len(fixed), FINGERPRINT_CHARACTERS)[:, :_KEY_BYTES]
        return np.ascontiguousarray(first).view(">u8").ravel().astype(np.uint64)

    def _hashes(self) -> dict[int, tuple[int, bytes]]:
        """How many items an owner has, and what their sorted whole hashes to, by its place."""
        if not self._items:
            return {}
        owner_of, keys = np.concatenate(self._owner_of), np.concatenate(self._keys)
        order = np.lexsort((keys, owner_of))
        owner_of, keys = owner_of[order], keys[order]
        items = pa.concat_arrays(self._items).take(pa.array(order))
        is_same_owner = owner_of[1:] == owner_of[:-1]
        self._is_odd[owner_of[1:][is_same_owner & (keys[1:] == keys[:-1])]] = True
        starts = np.concatenate(([0], np.flatnonzero(~is_same_owner) + 1))
        ends = np.concatenate((starts[1:], [len(items)]))
        offsets = np.frombuffer(items.buffers()[1], np.int64)[: len(items) + 1]
        joined = memoryview(items.buffers()[2])
        places = owner_of[starts]
        odd = self._is_odd[places].tolist()
        stretches = zip(
            places.tolist(),
            starts.tolist(),
            ends.tolist(),
            offsets[starts].tolist(),
            offsets[ends].tolist(),
            odd,
            strict=True,
        )
        sha256 = hashlib.sha256
        hashes = {}
        for place, start, end, first, last, is_odd in stretches:
            content: bytes | memoryview = joined[first:last]
            if is_odd:
                content = b"".join(sorted(items[start:end].to_pylist()))
            hashes[place] = (end - start, sha256(content).digest())
        return hashes

    @staticmethod
    def _count(counts: NDArray[np.int64], places: pa.Array) -> None:
        found = places.to_numpy(zero_copy_only=False)
        if len(found):
            counts += np.bincount(found, minlength=len(counts))


def _items(print_: pa.Array, kind: pa.Array, id_: pa.Array) -> pa.Array:
    """What `records_digest` joins, of each record; its order is that of the bytes."""
    length = pc.utf8_length(id_).cast(pa.string())
    joined = pc.binary_join_element_wise(print_, "|", kind, ":", length, ":", id_, "")
    return joined.cast(pa.large_binary())
