"""Vectors in LanceDB: an embedded database in a folder or in object storage, for many processes.

Safety:
    Writes are conditional in the database (class C): a commit's condition is checked against the
    version that the commit goes on top of, and a commit that meets another one on the same rows,
    or inserts the same new keys, is planned again from there. Writes and deletes are commits of
    their own, so a batch is not all or nothing.

    Every call reads the newest version, whoever committed it. LanceDB itself does not flush what
    it writes; in a folder of this machine, `publish` does so before it returns, so that what was
    acknowledged survives a loss of power too. Object storage is durable by itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.query import LanceVectorQueryBuilder

from undrift.adoption import StoreFields
from undrift.digests import RecordsDigest
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
from undrift.state import Claim, ClaimableStore, Tombstone
from undrift.stores import _lance_layout as layout
from undrift.stores._lance_address import Address, parse
from undrift.stores._lance_claims import Claims
from undrift.stores._lance_database import STAMPS_AT_ONCE, Database
from undrift.stores._lance_digests import PAGE_OWNERS, Digests
from undrift.stores._lance_errors import mapped_errors
from undrift.stores._lance_upkeep import Upkeep
from undrift.stores._lance_writing import ANOTHER_TABLE, Writing
from undrift.stores._listing import OwnerListing
from undrift.stores._records import (
    STAMP_COLUMNS,
    batch_of,
    collectable,
    deletions_of,
    stamp_of,
    storable,
    tombstones_of,
)
from undrift.stores.collections import CollectionSample

# Older ones have not been tested, and what keeps two writers of a key apart is young.
_OLDEST = (0, 40)

_WHY_NOT = {
    "store_class": "LanceDB shares no transaction with a database that could hold the state; a "
    "write's condition is checked at its commit",
    "atomic_records": "LanceDB commits writes and deletes one after the other",
}


def open_at(
    url: str, *, namespace: str, keep_text: bool, fields: StoreFields | None
) -> ClaimableStore:
    """The store at ``lancedb:///folder[?table=…]`` or ``lancedb+s3://bucket/folder[?table=…]``.

    Raises:
        ConfigError: the URL is malformed, or LanceDB is too old.
    """
    _refuse_old_driver()
    if fields is not None:
        from undrift.stores.lancedb_adopted import AdoptedLanceDbStore

        return AdoptedLanceDbStore(parse(url), namespace=namespace, fields=fields)
    return LanceDbStore(parse(url), namespace=namespace, keep_text=keep_text)


def sample_collection(url: str, limit: int) -> CollectionSample | None:
    """Some rows of the table at *url*; None where there is none of another program."""
    from undrift.stores._lance_sample import sample_table

    _refuse_old_driver()
    return sample_table(parse(url), limit)


def _refuse_old_driver() -> None:
    found = version("lancedb")
    if tuple(int(part) for part in re.findall(r"\d+", found)[:2]) < _OLDEST:
        raise ConfigError(
            "LanceDB is too old",
            why=f"lancedb {found} is installed; that two writers of one new record do not double "
            f"it is proved from {'.'.join(map(str, _OLDEST))} on.",
            fix="pip install --upgrade 'undrift[lancedb]'",
        )


class LanceDbStore:
    """The `ClaimableStore` in a LanceDB table.

    Args:
        address: where the table is.
        namespace: whose records are managed.
        keep_text: False stores neither texts nor metadata.
    """

    def __init__(
        self, address: Address, *, namespace: str = "default", keep_text: bool = True
    ) -> None:
        self._database = Database(address)
        self._writing = Writing(self._database, namespace)
        self._claims = Claims(self._database, namespace)
        self._upkeep = Upkeep(address)
        self._digests = Digests(self._database, namespace)
        self._listing = OwnerListing(self._all_owners)
        self._namespace = namespace
        self._keep_text = keep_text

    @property
    def namespace(self) -> str:
        """The namespace whose records are managed."""
        return self._namespace

    @property
    def capabilities(self) -> Capabilities:
        """Conditional writes, any number of processes, exact search."""
        return Capabilities(store_class=StoreClass.CONDITIONAL, atomic_records=0, why_not=_WHY_NOT)

    @property
    def page_owners(self) -> int:
        """Many: every read opens all files of the table, and many owners are one read."""
        return PAGE_OWNERS

    # --- what is there, and creating it

    def describe(self) -> StoreInfo:
        """Say what is there; creates nothing, not even the folder."""
        table = self._database.find_records()
        return StoreInfo(
            location=self._database.location,
            exists=table is not None,
            dimension=None if table is None else layout.dimension_of(table.schema),
            change_dimension=ANOTHER_TABLE,
        )

    def ddl(self, dimension: int) -> Sequence[str]:
        """What `create` does, for people; LanceDB has no such statements."""
        address = self._database.address
        return (
            layout.ddl(layout.CLAIMS_SCHEMA, address.claims),
            layout.ddl(layout.records_schema(dimension), address.table),
            f"create index on {address.table} ({layout.OWNER}) using BTREE",
        )

    def create(self, dimension: int) -> None:
        """Create the folder and the tables that are missing, safely in several processes."""
        self._database.create_claims()
        self._database.create_records(dimension)
        self._upkeep.flush()

    # --- reading

    def stamps(self, owners: Sequence[str]) -> Iterator[Stamp]:
        """Yield every stamp of *owners* in the namespace."""
        for where in self._of_owners(owners, layout.IS_RECORD):
            yield from self._stamps(where)

    def stamps_by_vector_id(self, vector_ids: Sequence[str]) -> Iterator[Stamp]:
        """Yield the stamps found under *vector_ids*, whatever owner or namespace they claim."""
        for part in layout.parts(storable(vector_ids)):
            yield from self._stamps(f"{layout.IS_RECORD} AND {layout.any_of('vector_id', part)}")

    def tombstones(self, owners: Sequence[str]) -> Iterator[Tombstone]:
        """Yield every tombstone of *owners* in the namespace."""
        for where in self._of_owners(owners, layout.IS_TOMBSTONE):
            for batch in self._rows(where, Tombstone._fields):
                yield from map(Tombstone._make, _filled(batch, Tombstone._fields))

    def unmanaged(self, owners: Sequence[str]) -> Mapping[str, int]:
        """Count the records of *owners* that are not of the namespace."""
        is_ours = layout.any_of("namespace", [self._namespace])
        counts: Counter[str] = Counter()
        for part in layout.parts(storable(owners)):
            where = (
                f"{layout.any_of(layout.OWNER, part)} AND {layout.IS_RECORD} "
                f"AND (namespace IS NULL OR NOT {is_ours})"
            )
            for batch in self._rows(where, [layout.OWNER]):
                counts.update(batch.column(layout.OWNER).to_pylist())
        return counts

    def digests(
        self, owners: Sequence[str], *, model: str, kinds: Collection[str]
    ) -> Mapping[str, RecordsDigest]:
        """The digest of each of *owners*, from one version of the table."""
        return self._digests.of(storable(owners), model=model, kinds=kinds)

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
        """The nearest records of *owner_id* and *model*, compared one by one.

        An index on the vectors that somebody else made is passed by, as it would be approximate.
        """
        wanted = None if kinds is None else storable(kinds)
        if limit < 1 or not is_storable_id(owner_id) or wanted == []:
            return []
        table = self._database.records()
        found = layout.dimension_of(table.schema)
        if found != len(vector):
            raise DimensionMismatch(
                expected=len(vector), found=found, model=model, fix=ANOTHER_TABLE
            )
        conditions = [
            layout.any_of(layout.OWNER, [owner_id]),
            layout.any_of("namespace", [self._namespace]),
            layout.any_of("model", [model]),
            layout.IS_RECORD,
        ]
        if wanted is not None:
            conditions.append(layout.any_of("kind", wanted))
        nearest = table.search(np.asarray(vector, dtype=np.float32), layout.VECTOR, "vector")
        assert isinstance(nearest, LanceVectorQueryBuilder)
        query = (
            nearest.distance_type("cosine")
            .where(" AND ".join(conditions), prefilter=True)
            .bypass_vector_index()
            .select([*STAMP_COLUMNS, *layout.TEXTS, "_distance"])
        )
        asked = limit + 1  # one more shows whether the last one has equals that are left out
        while True:
            with mapped_errors(self._database.location):
                rows = query.limit(asked).to_arrow()
            matches = _matches(rows)
            is_all = rows.num_rows < asked
            if is_all or (len(matches) > limit and matches[limit - 1].score > matches[-1].score):
                return matches[:limit]
            asked *= 4

    # --- writing

    def publish(self, writes: Sequence[Record], deletes: Sequence[Deletion]) -> None:
        """Write, then delete; the port says what applies."""
        batch = batch_of(writes, self._namespace, keep_text=self._keep_text)
        gone = deletions_of(deletes)
        if not batch and not gone:
            return
        table = self._database.records()
        reach("store.publish.begun")
        self._writing.write(table, batch)
        reach("store.publish.written")
        self._writing.delete(table, gone)
        reach("store.publish.deleted")
        self._upkeep.flush()
        reach("store.publish.committed")
        self._upkeep.tidy(table)

    def bury(self, tombstones: Sequence[Tombstone]) -> None:
        """Put tombstones where what is stored is older."""
        batch = tombstones_of(tombstones)
        if batch:
            table = self._database.records()
            self._writing.bury(table, batch)
            self._upkeep.flush()
            self._upkeep.tidy(table)

    def collect(self, tombstones: Sequence[Tombstone]) -> None:
        """Remove tombstones that are still there with that version."""
        gone = collectable(tombstones)
        if gone:
            table = self._database.records()
            self._writing.collect(table, gone)
            self._upkeep.flush()
            self._upkeep.tidy(table)

    # --- whose store this is

    def claim(self) -> Claim | None:
        """The namespace's claim; None if nobody has claimed it."""
        return self._claims.read()

    def put_claim(self, claim: Claim, *, replacing: Claim | None) -> bool:
        """Claim the namespace, if the claim is still *replacing*.

        Raises:
            ConfigError: the store has not been created.
        """
        self._database.records()
        was_still = self._claims.put(claim, replacing=replacing)
        self._upkeep.flush()
        return was_still

    def close(self) -> None:
        """Give back the connection. Safe to call twice."""
        self._database.close()

    # --- reading, in parts

    def _of_owners(self, owners: Sequence[str], kind: str) -> Iterator[str]:
        """Conditions for the managed rows of *owners*, one for each part of them."""
        is_ours = layout.any_of("namespace", [self._namespace])
        for part in layout.parts(storable(owners)):
            yield f"{layout.any_of(layout.OWNER, part)} AND {is_ours} AND {kind}"

    def _rows(self, where: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return self._database.rows(self._database.records(), where, columns)

    def _stamps(self, where: str) -> Iterator[Stamp]:
        columns = {name: name for name in STAMP_COLUMNS} | {"is_lost": layout.IS_LOST}
        for batch in self._database.rows(self._database.records(), where, columns):
            yield from map(stamp_of, _filled(_without_lost_models(batch), STAMP_COLUMNS))

    def _all_owners(self) -> Iterator[str]:
        is_ours = layout.any_of("namespace", [self._namespace])
        table, where = self._database.records(), f"{is_ours} AND {layout.IS_RECORD}"
        for batch in self._database.rows(table, where, [layout.OWNER], at_once=STAMPS_AT_ONCE):
            yield from pc.unique(batch.column(layout.OWNER)).drop_null().to_pylist()


def _without_lost_models(batch: pa.RecordBatch) -> pa.RecordBatch:
    """*batch* with an empty model where the vector is gone."""
    is_lost = batch.column("is_lost")
    if not pc.any(is_lost).as_py():
        return batch
    position = batch.schema.get_field_index("model")
    return batch.set_column(position, "model", pc.if_else(is_lost, "", batch.column(position)))


def _filled(batch: pa.RecordBatch, names: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """The rows of *batch*; what is lost reads as empty, a version as 0."""
    columns = []
    for name in names:
        column = batch.column(name)
        if column.null_count:
            column = column.fill_null(0 if name == "version" else "")
        # Half the time of `to_pylist`, which makes an object of each value on its way.
        columns.append(column.to_numpy(zero_copy_only=False).tolist())
    return zip(*columns, strict=True)


def _matches(found: pa.Table) -> list[Match]:
    """What a search found, best first; of equally near ones, by vector_id.

    No two have the same vector_id: where somebody else doubled a row, the newest counts.
    """
    matches: dict[str, Match] = {}
    for batch in found.to_batches():
        stamps = map(stamp_of, _filled(batch, STAMP_COLUMNS))
        texts = (batch.column(name).to_pylist() for name in (*layout.TEXTS, "_distance"))
        for stamp, text, metadata, distance in zip(stamps, *texts, strict=True):
            score = max(-1.0, min(1.0, 1.0 - distance))
            other = matches.get(stamp.vector_id)
            if other is None or other.stamp.version < stamp.version:
                matches[stamp.vector_id] = Match(stamp, score, text or "", metadata or "{}")
    return sorted(matches.values(), key=lambda match: (-match.score, match.stamp.vector_id))
