"""The vector store in a LanceDB table that another program filled.

The other program's table stays what it is, column for column. A record whose text changed is
written under an id of undrift's own, takes over the columns that undrift knows nothing of, and the
old one is deleted behind it. Stamps, tombstones and claims lie in tables beside, so that the other
program neither finds nor counts them.

Safety:
    Class N: LanceDB makes one of two writers of a new record look again only where the table has a
    primary key, which another program's mostly lacks. So a batch reads, compares and writes, one
    batch at a time in this process; against other processes there are leases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from threading import Lock

from lancedb.table import Table

from undrift.adoption import Adoption, StoreFields
from undrift.errors import ConfigError, DimensionMismatch
from undrift.failpoints import reach
from undrift.fingerprint import is_storable_id
from undrift.model import Stamp
from undrift.ports import (
    Capabilities,
    Deletion,
    Match,
    Record,
    StoreClass,
    StoreInfo,
    Vectors,
)
from undrift.state import Claim, Tombstone
from undrift.stores import _lance_layout as layout
from undrift.stores._lance_address import Address
from undrift.stores._lance_adopted_ledger import Ledger
from undrift.stores._lance_adopted_rows import AdoptedRows, Found, Known, adopted_rows
from undrift.stores._lance_adopted_writing import AdoptedWriting
from undrift.stores._lance_database import Database
from undrift.stores._lance_upkeep import Upkeep
from undrift.stores._listing import OwnerListing
from undrift.stores._nearest import nearest
from undrift.stores._records import batch_of, deletions_of, storable, tombstones_of

SEARCH_ROWS = 4_096
"""Vectors compared at once."""

CHANGE_DIMENSION = (
    "the collection was filled with vectors of another model: set embedder.name in undrift.toml to "
    "the one that filled it"
)
_WHY_NOT = {
    "store_class": "LanceDB keeps two writers of a new record apart only in a table with a primary "
    "key, which another program's mostly lacks",
    "atomic_records": "LanceDB commits writes and deletes one after the other",
}


class AdoptedLanceDbStore:
    """The `ClaimableStore` over a table of somebody else's.

    Args:
        address: where the table is.
        namespace: whose stamps are its own.
        fields: where the table holds what.
    """

    def __init__(self, address: Address, *, namespace: str, fields: StoreFields) -> None:
        self._database = Database(address)
        self._ledger = Ledger(address, namespace)
        self._writing = AdoptedWriting(self._database, self._ledger)
        self._upkeep = Upkeep(address)
        self._listing = OwnerListing(self._all_owners)
        self._fields = fields
        self._namespace = namespace
        self._one_at_a_time = Lock()

    @property
    def namespace(self) -> str:
        """The namespace whose stamps are its own."""
        return self._namespace

    @property
    def capabilities(self) -> Capabilities:
        """Class N, exact search; records of another program."""
        return Capabilities(
            store_class=StoreClass.NEITHER,
            atomic_records=0,
            adoption=Adoption(fields=self._fields),
            why_not=_WHY_NOT,
        )

    # --- what is there

    def describe(self) -> StoreInfo:
        """Say what is there.

        Raises:
            ConfigError: there is no such table, or it is not as the fields say.
        """
        _, rows = self._open()
        return StoreInfo(
            location=self._database.location,
            exists=True,
            dimension=rows.dimension,
            change_dimension=CHANGE_DIMENSION,
        )

    def ddl(self, dimension: int) -> Sequence[str]:
        """Nothing is created before something is written."""
        return ()

    def create(self, dimension: int) -> None:
        """See that it is there."""
        self.describe()

    # --- reading

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """Yield every stamp of *owners*; one that only its columns make has no fingerprint."""
        for rows, found, known in self._of_owners(owners):
            if rows.is_managed(found, known):
                yield rows.stamp_of(found, known)

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """Yield the stamps found under *vector_ids*, whatever owner or namespace they claim."""
        table, rows = self._open()
        for part in layout.parts(storable(vector_ids)):
            known = self._ledger.under(part)
            for batch in self._database.rows(table, rows.under(part), rows.named):
                for found in rows.read(batch):
                    yield rows.stamp_of(found, known.get(rows.id_of(found)))

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* that the fields do not cover, or of another namespace."""
        return Counter(
            rows.entity(found)[0]
            for rows, found, known in self._of_owners(owners)
            if not rows.is_managed(found, known)
        )

    def owners(self, after: str | None, limit: int) -> Sequence[str]:
        """At most *limit* distinct owners of managed records, by code point, behind *after*."""
        return self._listing.page(after, limit)

    def search(
        self,
        owner_id: str,
        vector: Vectors,
        *,
        model: str,
        kinds: Sequence[str] | None,
        limit: int,
    ) -> Sequence[Match]:
        """The nearest records of *owner_id* and *model* by cosine, compared one by one."""
        if limit < 1 or not is_storable_id(owner_id):
            return []
        rows = self._open()[1]
        if rows.dimension != len(vector):
            raise DimensionMismatch(
                expected=len(vector), found=rows.dimension, model=model, fix=CHANGE_DIMENSION
            )
        candidates: dict[str, Match] = {}
        chunks = self._candidates(owner_id, model, kinds, candidates)
        best = nearest(chunks, vector, limit)
        return [candidates[id_]._replace(score=score) for id_, score in best]

    # --- writing

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Write, then delete; the port says what applies."""
        batch = batch_of(writes, self._namespace, keep_text=True)
        gone = deletions_of(deletes)
        if not batch and not gone:
            return
        with self._one_at_a_time:
            table, rows = self._open()
            reach("store.publish.begun")
            if batch:
                self._writing.write(table, rows, batch)
            reach("store.publish.written")
            self._writing.delete(table, rows, gone)
            reach("store.publish.deleted")
            self._upkeep.flush()
        reach("store.publish.committed")

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones beside where what is stored is older, and remove that."""
        batch = tombstones_of(tombstones)
        if not batch:
            return
        with self._one_at_a_time:
            table, rows = self._open()
            self._writing.bury(table, rows, batch)
            self._upkeep.flush()

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """Yield every tombstone of *owners* in the namespace."""
        return self._ledger.tombstones(owners)

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones that are still there with that version."""
        self._ledger.collect(tombstones)

    # --- whose store this is

    def claim(self) -> Claim | None:
        """The namespace's claim; None if nobody has claimed it."""
        return self._ledger.store.claim()

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*; in a table beside."""
        self._open()
        self._ledger.create()
        return self._ledger.store.put_claim(claim, replacing=replacing)

    def close(self) -> None:
        """Give back the connections. Safe to call twice."""
        self._database.close()
        self._ledger.close()

    # --- how

    def _open(self) -> tuple[Table, AdoptedRows]:
        location = self._database.location
        table = self._database.find_any()
        if table is None:
            raise ConfigError(
                "There is no such collection",
                why=f"[store.fields] says that another program filled {location}, and there is no "
                "such table.",
                fix="correct the folder or ?table= in VECTOR_URL, or leave [store.fields] out of "
                "undrift.toml and run `undrift sync --all`, which creates a table of undrift's own",
            )
        rows = adopted_rows(
            table.schema, self._fields, namespace=self._namespace, location=location
        )
        return table, rows

    def _of_owners(
        self, owners: Sequence[str]
    ) -> Iterator[tuple[AdoptedRows, Found, Known | None]]:
        table, rows = self._open()
        for part in layout.parts(storable(owners)):
            if where := rows.of_owners(part):
                known = self._ledger.of_owners(part)
                for batch in self._database.rows(table, where, rows.named):
                    for found in rows.read(batch):
                        yield rows, found, known.get(rows.id_of(found))

    def _candidates(
        self,
        owner_id: str,
        model: str,
        kinds: Sequence[str] | None,
        matches: dict[str, Match],
    ) -> Iterator[Sequence[tuple[str, bytes]]]:
        """Yield ids with their vectors, and note in *matches* what they are."""
        chunk = []
        for rows, found, known in self._of_owners([owner_id]):
            stamp = rows.stamp_of(found, known)
            is_asked = stamp.model == model and (kinds is None or stamp.kind in kinds)
            if is_asked and found.vector is not None and rows.is_managed(found, known):
                text = rows.text_of(found) or ""
                matches[stamp.vector_id] = Match(stamp, 0.0, text, rows.metadata_of(found))
                chunk.append((stamp.vector_id, found.vector.tobytes()))
            if len(chunk) == SEARCH_ROWS:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    def _all_owners(self) -> Iterator[str]:
        table, rows = self._open()
        others = self._ledger.of_others()
        where = f"{rows.owner.name} IS NOT NULL"
        for batch in self._database.rows(table, where, rows.named):
            for found in rows.read(batch):
                if rows.is_managed(found, others.get(rows.id_of(found))):
                    yield rows.entity(found)[0]
