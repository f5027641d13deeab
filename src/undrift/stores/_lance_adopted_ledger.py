"""What undrift keeps beside a LanceDB table of another program's: stamps, tombstones, a claim."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from undrift.model import Stamp
from undrift.ports import Deletion, Record
from undrift.state import Tombstone
from undrift.stores import _lance_layout as layout
from undrift.stores._lance_address import Address
from undrift.stores._lance_adopted_rows import Known
from undrift.stores._lance_database import Database
from undrift.stores._lance_writing import Writing
from undrift.stores._records import STAMP_COLUMNS, stamp_of
from undrift.stores.lancedb import LanceDbStore

SUFFIX = "_undrift"
"""What the table's name has behind that of the other program's."""

# The layout is that of undrift's own records, which want one.
_VECTOR = np.ones(1, dtype=np.float32)


class Ledger:
    """A table of undrift's own, created when it is first needed.

    A row is under the id of the other program's row that it is about; its text is a digest of that.

    Attributes:
        store: of the tombstones and the claim.
    """

    def __init__(self, address: Address, namespace: str) -> None:
        beside = replace(address, table=address.table + SUFFIX)
        self.store = LanceDbStore(beside, namespace=namespace)
        self._database = Database(beside)
        self._writing = Writing(self._database, namespace)

    def create(self) -> None:
        """Create what is missing."""
        self.store.create(len(_VECTOR))

    def of_owners(self, owners: Sequence[str]) -> Mapping[str, Known]:
        """What is known of the rows of *owners*, by their ids."""
        return self._known(layout.any_of(layout.OWNER, part) for part in layout.parts(owners))

    def under(self, ids: Sequence[str]) -> Mapping[str, Known]:
        """What is known of the rows under *ids*."""
        return self._known(layout.any_of("vector_id", part) for part in layout.parts(ids))

    def of_others(self) -> Mapping[str, Known]:
        """What other namespaces know, by the rows' ids."""
        return self._known([f"NOT {layout.any_of('namespace', [self.store.namespace])}"])

    def put(self, stamps: Sequence[tuple[Stamp, str]]) -> None:
        """Put stamps with their digests, where what is known is older."""
        self.create()
        records = [Record(stamp, seen, "{}", _VECTOR) for stamp, seen in stamps]
        self._writing.write(self._database.records(), records)

    def remove(self, known: Sequence[Known]) -> None:
        """Remove what is still known at just that version."""
        if known:
            stamps = [one.stamp for one in known]
            gone = [Deletion(one.owner_id, one.vector_id, one.version) for one in stamps]
            self._writing.delete(self._database.records(), gone)

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """Those of *owners*."""
        if self._database.find_records() is not None:
            yield from self.store.tombstones(owners)

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove those that are still there."""
        if tombstones and self._database.find_records() is not None:
            self.store.collect(tombstones)

    def close(self) -> None:
        """Give back the connections."""
        self.store.close()
        self._database.close()

    def _known(self, conditions: Iterable[str]) -> dict[str, Known]:
        table = self._database.find_records()
        found: dict[str, Known] = {}
        if table is None:
            return found
        for where in conditions:
            names = (*STAMP_COLUMNS, "text", "deleted")
            for batch in self._database.rows(table, where, names):
                for *stamp, seen, deleted in zip(*batch.to_pydict().values(), strict=True):
                    known = Known(stamp_of(stamp), seen or "", deleted == 1)
                    found[known.stamp.vector_id] = known
        return found
