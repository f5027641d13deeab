"""Points of a Qdrant server, over its REST API."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse

from undrift.errors import ConfigError
from undrift.pooling import Pool
from undrift.ports import Vectors
from undrift.stores._qdrant_address import Address
from undrift.stores._qdrant_conditions import (
    AtLeast,
    Condition,
    Either,
    Equals,
    Every,
    HasId,
    HasVector,
    Lacks,
    Not,
    OneOf,
)
from undrift.stores._qdrant_errors import NO_ANSWER, Doing, already_exists, mapped_errors
from undrift.stores._qdrant_layout import INDEXES, ddl, index_schema
from undrift.stores._qdrant_points import (
    Change,
    Fields,
    FoundCollection,
    FoundPoint,
    FoundVector,
    Index,
    NewPoint,
    NotThere,
    Page,
    Payload,
    point_id,
    vector_named,
)

OLDEST_SERVER = (1, 16)
"""Conditional writes came with it; an earlier server takes no notice of the condition."""

TIMEOUT_SECONDS = 60

# All writes go through a shard's leader, so that its replicas see them, and their conditions, in
# one order; reads are answered by more than half of the replicas, and show what they agree on.
_ORDERING = models.WriteOrdering.STRONG
_CONSISTENCY = models.ReadConsistencyType.QUORUM

_VERSION = re.compile(r"(\d+)\.(\d+)")


class HttpPoints:
    """The `Points` of one collection of a server's.

    Safety:
        Every write waits until it is applied, on all replicas in use; Qdrant has it in its log
        before, which survives a loss of power. An answer that says less is an error.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._collection = address.collection
        self._clients = Pool(self._connect, QdrantClient.close, lambda _: True)
        self._is_new_enough = False

    @property
    def location(self) -> str:
        """The collection's URL without a key."""
        return self._address.location

    # --- the collection

    def find(self) -> FoundCollection | None:
        """The collection as it is; None if the server says that there is none."""
        try:
            with self._asking("read") as client:
                info = client.get_collection(self._collection)
        except NotThere:
            return None
        vectors = info.config.params.vectors or {}
        named = {"": vectors} if isinstance(vectors, models.VectorParams) else vectors
        strict = info.config.strict_mode_config
        return FoundCollection(
            vectors={
                name: FoundVector(vector.size, vector.distance.value)
                for name, vector in named.items()
            },
            indexes={field: index.data_type.value for field, index in info.payload_schema.items()},
            is_strict=strict is not None
            and bool(strict.enabled)
            and strict.unindexed_filtering_update is False,
        )

    def is_empty(self) -> bool:
        """Whether there is no point at all."""
        with self._asking("read") as client:
            return client.count(self._collection, exact=True).count == 0

    def ddl(self, dimension: int) -> Sequence[str]:
        """What `create` does, as calls of Qdrant's API."""
        return ddl(self._collection, dimension)

    def create(self, dimension: int) -> None:
        """Create the collection and its indexes, whoever else is doing it."""
        vectors = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
        with self._asking("create") as client:
            try:
                client.create_collection(self._collection, vectors_config=vectors)
            except UnexpectedResponse as error:
                if not already_exists(error):
                    raise
        self.create_indexes(INDEXES)

    def create_indexes(self, indexes: Mapping[str, Index]) -> None:
        """Create *indexes* on the fields that they are named by."""
        with self._asking("create") as client:
            for field, index in indexes.items():
                schema = _SCHEMAS[index.kind](**index_schema(index))
                done = client.create_payload_index(
                    self._collection, field, schema, wait=True, ordering=_ORDERING
                )
                self._require_completed([done])

    # --- writing

    def upsert(self, points: Sequence[NewPoint], where: Condition) -> None:
        """Replace the points that hold *where*, insert those that do not exist."""
        new = [
            models.PointStruct(
                id=point_id(point.vector_id),
                vector=_vectors(point.vectors),
                payload=dict(point.payload),
            )
            for point in points
        ]
        with self._asking("write") as client:
            done = client.upsert(
                self._collection, new, wait=True, ordering=_ORDERING, update_filter=_filter(where)
            )
            self._require_completed([done])

    def change(self, changes: Sequence[Change]) -> None:
        """Change the payload of points that exist, in one request."""
        operations = [_operation(change) for change in changes]
        with self._asking("write") as client:
            done = client.batch_update_points(
                self._collection, operations, wait=True, ordering=_ORDERING
            )
            self._require_completed(done)

    def delete(self, where: Condition) -> None:
        """Delete the points that hold *where*."""
        with self._asking("write") as client:
            done = client.delete(
                self._collection,
                models.FilterSelector(filter=_filter(where)),
                wait=True,
                ordering=_ORDERING,
            )
            self._require_completed([done])

    def settle(self) -> None:
        """Nothing is left to be done: every write waited for it."""

    # --- reading

    def page(
        self,
        where: Condition | None,
        fields: Fields,
        first_id: str | None,
        limit: int,
        *,
        vector: str | None = None,
    ) -> Page:
        """At most *limit* points that hold *where*, from *first_id* on."""
        with self._asking("read") as client:
            records, next_id = client.scroll(
                self._collection,
                scroll_filter=None if where is None else _filter(where),
                limit=limit,
                offset=None if first_id is None else point_id(first_id),
                with_payload=_selection(fields),
                with_vectors=_wanted(vector),
                consistency=_CONSISTENCY,
            )
        return Page(_found(records, vector), None if next_id is None else str(next_id))

    def payloads(
        self, where: Condition, fields: Sequence[str], first_id: str | None, limit: int
    ) -> tuple[Sequence[Payload], str | None]:
        """As `page`; the ids come with them."""
        page = self.page(where, fields, first_id, limit)
        return [point.payload for point in page.points], page.next_id

    def retrieve(self, vector_ids: Sequence[str], fields: Fields) -> Sequence[FoundPoint]:
        """Those of *vector_ids* that exist."""
        with self._asking("read") as client:
            records = client.retrieve(
                self._collection,
                [point_id(vector_id) for vector_id in vector_ids],
                with_payload=_selection(fields),
                with_vectors=False,
                consistency=_CONSISTENCY,
            )
        return _found(records)

    def nearest(
        self,
        vector: Vectors,
        where: Condition,
        fields: Fields,
        limit: int,
        *,
        using: str = "",
    ) -> Sequence[FoundPoint]:
        """The nearest points that hold *where*, compared one by one with what was written."""
        parameters = models.SearchParams(
            exact=True, quantization=models.QuantizationSearchParams(ignore=True)
        )
        with self._asking("read") as client:
            answer = client.query_points(
                self._collection,
                query=vector.tolist(),
                query_filter=_filter(where),
                search_params=parameters,
                using=using or None,
                limit=limit,
                with_payload=_selection(fields),
                consistency=_CONSISTENCY,
            )
        return [FoundPoint(str(hit.id), hit.payload or {}, hit.score) for hit in answer.points]

    def facet(self, field: str, where: Condition, limit: int) -> Mapping[str, int]:
        """Count the points that hold *where* by the values of *field*."""
        with self._asking("read") as client:
            answer = client.facet(
                self._collection,
                field,
                facet_filter=_filter(where),
                limit=limit,
                exact=True,
                consistency=_CONSISTENCY,
            )
        return {str(hit.value): hit.count for hit in answer.hits}

    def close(self) -> None:
        """Close every connection; the next call opens another."""
        self._clients.close()

    # --- the server

    def _connect(self) -> QdrantClient:
        client = QdrantClient(
            url=self._address.server,
            timeout=TIMEOUT_SECONDS,
            # As a header: the client warns of a key that it sends without TLS, which is for
            # whoever writes the URL to judge.
            metadata={"api-key": self._address.key} if self._address.key else {},
            check_compatibility=False,
        )
        try:
            if not self._is_new_enough:
                self._require_version(client.info().version)
                self._is_new_enough = True
        except BaseException:
            client.close()
            raise
        return client

    def _require_version(self, version: str) -> None:
        found = _VERSION.match(version)
        if found is not None and (int(found[1]), int(found[2])) >= OLDEST_SERVER:
            return
        oldest = ".".join(map(str, OLDEST_SERVER))
        raise ConfigError(
            "The Qdrant server is too old",
            why=f"{self.location} is Qdrant {version}, which takes no notice of the condition of a "
            f"conditional write; Qdrant {oldest} is the first that does.",
            fix=f"upgrade the server to Qdrant {oldest} or later, one minor version at a time",
        )

    def _require_completed(self, done: Iterable[models.UpdateResult]) -> None:
        for result in done:
            if result.status is not models.UpdateStatus.COMPLETED:
                raise NO_ANSWER.error(self.location, f"a write is only {result.status.value}")

    @contextmanager
    def _asking(self, doing: Doing) -> Iterator[QdrantClient]:
        # A client each: of one that threads share, one thread may close a connection in the moment
        # when another is answered on it, since httpcore takes it for idle and at its end.
        errors = mapped_errors(self.location, doing, model="the given model")
        with errors, self._clients.connection() as client:
            yield client


_SCHEMAS = {
    "keyword": models.KeywordIndexParams,
    "integer": models.IntegerIndexParams,
    "uuid": models.UuidIndexParams,
}


def _operation(change: Change) -> models.UpdateOperation:
    payload = models.SetPayload(
        payload=dict(change.payload), filter=_filter(change.where), key=change.into or None
    )
    if change.into is None:
        return models.OverwritePayloadOperation(overwrite_payload=payload)
    return models.SetPayloadOperation(set_payload=payload)


def _vectors(vectors: Mapping[str, Vectors]) -> models.VectorStruct:
    if list(vectors) == [""]:
        nameless: list[float] = vectors[""].tolist()
        return nameless
    return {name: vector.tolist() for name, vector in vectors.items()}


def _selection(fields: Fields) -> list[str] | bool:
    return True if fields is None else list(fields) or False


def _wanted(vector: str | None) -> list[str] | bool:
    return [vector] if vector else vector is not None  # the nameless one comes with all there are


def _found(records: Sequence[models.Record], vector: str | None = None) -> list[FoundPoint]:
    return [
        FoundPoint(
            str(record.id),
            record.payload or {},
            vector=None if vector is None else vector_named(vector, record.vector),
        )
        for record in records
    ]


def _filter(condition: Condition) -> models.Filter:
    if not isinstance(condition, Every):
        condition = Every([condition])
    must = [_translated(part) for part in condition.conditions if not isinstance(part, Not)]
    must_not = [
        _translated(part.condition) for part in condition.conditions if isinstance(part, Not)
    ]
    return models.Filter(must=must or None, must_not=must_not or None)


def _translated(condition: Condition) -> models.Condition:
    match condition:
        case Equals(field, value):
            return models.FieldCondition(key=field, match=models.MatchValue(value=value))
        case OneOf(field, values):
            return models.FieldCondition(key=field, match=models.MatchAny(any=values))
        case AtLeast(field, number):
            return models.FieldCondition(key=field, range=models.Range(gte=number))
        case Lacks(field):
            return models.IsEmptyCondition(is_empty=models.PayloadField(key=field))
        case HasId(vector_ids):
            ids: list[models.ExtendedPointId] = [point_id(vector_id) for vector_id in vector_ids]
            return models.HasIdCondition(has_id=ids)
        case HasVector(name):
            return models.HasVectorCondition(has_vector=name)
        case Either(conditions):
            return models.Filter(should=[_translated(part) for part in conditions])
        case Every() | Not():
            return _filter(condition)
