"""Points in Qdrant's engine, which runs in this process."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import qdrant_edge as edge

from undrift.errors import DimensionMismatch, StoreUnavailable, UndriftError
from undrift.forks import after_fork
from undrift.ports import Vectors
from undrift.stores._meaning import REFUSED_BATCH, Meaning
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
from undrift.stores._qdrant_folder import Folder, OpenShard
from undrift.stores._qdrant_layout import CHANGE_DIMENSION, INDEXES, ddl
from undrift.stores._qdrant_points import (
    MISSING,
    Change,
    Fields,
    FoundCollection,
    FoundPoint,
    FoundVector,
    Index,
    NewPoint,
    Page,
    Payload,
    point_id,
    vector_named,
)

_UNREADABLE = Meaning(
    StoreUnavailable,
    "The vector store failed",
    "check the disk and the folder, and run again; `undrift sync --all` fills another collection "
    "anew if this one stays damaged",
)

# What the engine says of an operation that it will not do, whoever asks again.
_REFUSED = re.compile(r"dimension error|failed to parse|Wrong input|validation", re.IGNORECASE)
_DIMENSIONS = re.compile(r"expected dim: (\d+), got (\d+)")
_LOCKED = "WouldBlock"

_KINDS = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "uuid": edge.PayloadSchemaType.Uuid,
}


class EnginePoints:
    """The `Points` of one collection in a folder.

    Args:
        path: the collection's folder.

    Safety:
        `settle` flushes the engine's files. Writes of this process follow one another; other
        processes are kept out.
    """

    def __init__(self, path: Path) -> None:
        self._folder = Folder(path)
        self._shard: OpenShard | None = None
        self._opening = Lock()
        after_fork(self, EnginePoints._begin_afresh)

    @property
    def location(self) -> str:
        """The folder as a URL."""
        return self._folder.location

    # --- the collection

    def find(self) -> FoundCollection | None:
        """The collection as it is; None if there is no folder, and none is made."""
        with self._errors():
            shard = self._open()
            if shard is None:
                return None
            info = shard.engine.info()
            config = json.loads((self._folder.path / "edge_config.json").read_bytes())
        names = {str(kind): name for name, kind in _KINDS.items()}
        return FoundCollection(
            vectors={
                name: FoundVector(vector["size"], vector["distance"])
                for name, vector in config["vectors"].items()
            },
            indexes={
                field: names.get(str(index.data_type), "")
                for field, index in info.payload_schema.items()
            },
        )

    def is_empty(self) -> bool:
        """Whether there is no point at all."""
        with self._engine() as engine:
            return engine.count(edge.CountRequest()) == 0

    def ddl(self, dimension: int) -> Sequence[str]:
        """What `create` does, as the calls that a server would get."""
        return ddl(self._folder.path.name, dimension)

    def create(self, dimension: int) -> None:
        """Create the folder with all that belongs to it, in one step.

        There is no index on the vectors: every search compares an owner's one by one.
        """
        config = edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine),
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=0),
        )
        with self._errors():
            self._folder.create(config, _create_indexes)

    def create_indexes(self, indexes: Mapping[str, Index]) -> None:
        """Create *indexes* on the fields that they are named by."""
        for field, index in indexes.items():
            self._update(edge.UpdateOperation.create_field_index(field, _index_params(index)))
        self.settle()

    # --- writing

    def upsert(self, points: Sequence[NewPoint], where: Condition) -> None:
        """Replace the points that hold *where*, insert those that do not exist."""
        with self._errors():
            new = [
                edge.Point(
                    point_id(point.vector_id),
                    _vectors(point.vectors),
                    dict(point.payload),
                )
                for point in points
            ]
        self._update(edge.UpdateOperation.upsert_points(new, _filter(where)))

    def change(self, changes: Sequence[Change]) -> None:
        """Change the payload of points that exist."""
        for payload, where, into in changes:
            if into is None:
                operation = edge.UpdateOperation.overwrite_payload_by_filter(
                    _filter(where), dict(payload)
                )
            else:
                operation = edge.UpdateOperation.set_payload_by_filter(
                    _filter(where), dict(payload), into or None
                )
            self._update(operation)

    def delete(self, where: Condition) -> None:
        """Delete the points that hold *where*."""
        self._update(edge.UpdateOperation.delete_points_by_filter(_filter(where)))
        if self._shard is not None:
            self._shard.has_deleted = True

    def settle(self) -> None:
        """Flush what was written to the disk."""
        with self._engine() as engine:
            engine.flush()

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
        records, next_id = self._scroll(where, fields, first_id, limit, vector)
        return Page(_found(records, vector), next_id)

    def payloads(
        self, where: Condition, fields: Sequence[str], first_id: str | None, limit: int
    ) -> tuple[Sequence[Payload], str | None]:
        """As `page`, in two thirds of its time: of each id it makes an object, then a text."""
        records, next_id = self._scroll(where, fields, first_id, limit, None)
        return [record.payload or {} for record in records], next_id

    def retrieve(self, vector_ids: Sequence[str], fields: Fields) -> Sequence[FoundPoint]:
        """Those of *vector_ids* that exist."""
        with self._engine() as engine:
            ids: list[edge.PointId] = [point_id(vector_id) for vector_id in vector_ids]
            return _found(engine.retrieve(ids, _selection(fields), False))

    def nearest(
        self,
        vector: Vectors,
        where: Condition,
        fields: Fields,
        limit: int,
        *,
        using: str = "",
    ) -> Sequence[FoundPoint]:
        """The nearest points that hold *where*, compared one by one."""
        request = edge.QueryRequest(
            limit=limit,
            query=edge.Query.Nearest(vector.tolist(), using or None),
            filter=_filter(where),
            with_payload=_selection(fields),
            params=edge.SearchParams(exact=True),
        )
        with self._engine(model="the given model") as engine:
            scored = engine.query(request)
        return [FoundPoint(str(hit.id), hit.payload or {}, hit.score) for hit in scored]

    def facet(self, field: str, where: Condition, limit: int) -> Mapping[str, int]:
        """Count the points that hold *where* by the values of *field*."""
        request = edge.FacetRequest(key=field, limit=limit, exact=True, filter=_filter(where))
        with self._engine() as engine:
            return {str(hit.value): hit.count for hit in engine.facet(request).hits}

    def close(self) -> None:
        """Let go of the folder; the last store of this process to do so lets others in."""
        with self._opening:
            shard, self._shard = self._shard, None
        if shard is not None:
            with self._errors():
                self._folder.give_back(shard)

    # --- the engine

    def _scroll(
        self,
        where: Condition | None,
        fields: Fields,
        first_id: str | None,
        limit: int,
        vector: str | None,
    ) -> tuple[Sequence[edge.Record], str | None]:
        request = edge.ScrollRequest(
            offset=None if first_id is None else point_id(first_id),
            limit=limit,
            filter=None if where is None else _filter(where),
            with_payload=_selection(fields),
            with_vector=_wanted(vector),
        )
        with self._engine() as engine:
            records, next_id = engine.scroll(request)
        return records, None if next_id is None else str(next_id)

    def _update(self, operation: edge.UpdateOperation) -> None:
        with self._engine(is_write=True) as engine:
            assert self._shard is not None
            with self._shard.writing:
                engine.update(operation)

    @contextmanager
    def _engine(self, *, is_write: bool = False, model: str = "") -> Iterator[edge.EdgeShard]:
        with self._errors(is_write=is_write, model=model):
            shard = self._open()
            if shard is None:
                raise MISSING.error(self.location, "there is no such folder")
            yield shard.engine

    def _open(self) -> OpenShard | None:
        with self._opening:
            if self._shard is None:
                self._shard = self._folder.take()
            return self._shard

    @contextmanager
    def _errors(self, *, is_write: bool = False, model: str = "") -> Iterator[None]:
        """The engine raises nothing narrower than `Exception`; what it means is in the words."""
        try:
            yield
        except UndriftError:
            raise
        except Exception as error:
            raise self._meaning_of(str(error), is_write=is_write, model=model) from error

    def _meaning_of(self, message: str, *, is_write: bool, model: str) -> UndriftError:
        if _LOCKED in message:
            return self._folder.in_use("")
        dimensions = _DIMENSIONS.search(message)
        if dimensions and not is_write:
            expected, found = int(dimensions[2]), int(dimensions[1])
            return DimensionMismatch(
                expected=expected, found=found, model=model, fix=CHANGE_DIMENSION
            )
        is_refused = is_write and _REFUSED.search(message)
        first_line = message.splitlines()[0] if message else "no reason given"
        return (REFUSED_BATCH if is_refused else _UNREADABLE).error(self.location, first_line)

    def _begin_afresh(self) -> None:
        self._shard = None
        self._opening = Lock()


def _create_indexes(engine: edge.EdgeShard) -> None:
    for field, index in INDEXES.items():
        engine.update(edge.UpdateOperation.create_field_index(field, _index_params(index)))


def _index_params(
    index: Index,
) -> edge.KeywordIndexParams | edge.IntegerIndexParams | edge.UuidIndexParams:
    if index.kind == "keyword":
        return edge.KeywordIndexParams(is_tenant=index.is_tenant)
    if index.kind == "integer":
        return edge.IntegerIndexParams(lookup=True, range=True)
    return edge.UuidIndexParams()


def _vectors(vectors: Mapping[str, Vectors]) -> edge.Vector:
    if list(vectors) == [""]:
        nameless: list[float] = vectors[""].tolist()
        return nameless
    return {name: vector.tolist() for name, vector in vectors.items()}


def _wanted(vector: str | None) -> list[str] | bool:
    return [vector] if vector else vector is not None  # the nameless one comes with all there are


def _found(records: Sequence[edge.Record], vector: str | None = None) -> list[FoundPoint]:
    return [
        FoundPoint(
            str(record.id),
            record.payload or {},
            vector=None if vector is None else vector_named(vector, record.vector),
        )
        for record in records
    ]


def _selection(fields: Fields) -> edge.PayloadSelector | bool:
    if fields is None:
        return True
    return edge.PayloadSelector.Include(list(fields)) if fields else False


def _filter(condition: Condition) -> edge.Filter:
    if not isinstance(condition, Every):
        condition = Every([condition])
    return edge.Filter(
        must=[_translated(part) for part in condition.conditions if not isinstance(part, Not)],
        must_not=[
            _translated(part.condition) for part in condition.conditions if isinstance(part, Not)
        ],
    )


def _translated(condition: Condition) -> edge.ConditionType:
    match condition:
        case Equals(field, value):
            return edge.FieldCondition(field, match=edge.MatchValue(value))
        case OneOf(field, values):
            return edge.FieldCondition(field, match=edge.MatchAny(values))
        case AtLeast(field, number):
            return edge.FieldCondition(field, range=edge.RangeFloat(gte=number))
        case Lacks(field):
            return edge.IsEmptyCondition(field)
        case HasId(vector_ids):
            return edge.HasIdCondition({point_id(vector_id) for vector_id in vector_ids})
        case HasVector(name):
            return edge.HasVectorCondition(name)
        case Either(conditions):
            return edge.Filter(should=[_translated(part) for part in conditions])
        case Every() | Not():
            return _filter(condition)
