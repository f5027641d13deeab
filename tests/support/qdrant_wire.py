"""Qdrant's REST requests, as qdrant-client's models describe them, for the engine in this process.

The models are generated from Qdrant's API description and forbid what they do not know. What is
here translates those parts that are used, and says no to all others: a test that sends something
else fails, where a lenient server would ignore it and answer as if nothing were wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import qdrant_edge as edge
from qdrant_client.http import models as wire

Json = Any

DISTANCES = {
    "Cosine": edge.Distance.Cosine,
    "Dot": edge.Distance.Dot,
    "Euclid": edge.Distance.Euclid,
    "Manhattan": edge.Distance.Manhattan,
}
KINDS = {
    edge.PayloadSchemaType.Keyword: "keyword",
    edge.PayloadSchemaType.Integer: "integer",
    edge.PayloadSchemaType.Uuid: "uuid",
    edge.PayloadSchemaType.Float: "float",
    edge.PayloadSchemaType.Bool: "bool",
    edge.PayloadSchemaType.Datetime: "datetime",
}

Indexes = Mapping[str, str]
"""Field → the type of its index."""


class Refused(Exception):
    """A request that is answered with an error.

    Attributes:
        status: the HTTP status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def not_known(what: object) -> Refused:
    """The answer to what Qdrant would understand and nobody here has use for yet."""
    name = what if isinstance(what, str) else type(what).__name__
    return Refused(400, f"Wrong input: the tests' server does not know {name}")


def require_only(model: Any, *allowed: str) -> None:  # noqa: ANN401  any of the models
    """Refuse fields that are set and not among *allowed*."""
    if unknown := model.model_fields_set - set(allowed):
        raise not_known(f"{type(model).__name__}.{sorted(unknown)[0]}")


# --- filters


def filter_of(found: wire.Filter | None, indexes: Indexes | None) -> edge.Filter | None:
    """A filter for the engine.

    Args:
        indexes: fields that a condition may name, as in Qdrant's strict mode; None allows all.
    """
    if found is None:
        return None
    require_only(found, "must", "must_not", "should")
    return edge.Filter(
        must=_conditions(found.must, indexes),
        must_not=_conditions(found.must_not, indexes),
        should=_conditions(found.should, indexes),
    )


def _conditions(found: Json, indexes: Indexes | None) -> list[edge.ConditionType] | None:
    if found is None:
        return None
    listed = found if isinstance(found, list) else [found]
    return [_condition(condition, indexes) for condition in listed]


def _condition(found: wire.Condition, indexes: Indexes | None) -> edge.ConditionType:
    match found:
        case wire.Filter():
            nested = filter_of(found, indexes)
            assert nested is not None
            return nested
        case wire.HasIdCondition():
            return edge.HasIdCondition(set(found.has_id))
        case wire.HasVectorCondition():
            return edge.HasVectorCondition(found.has_vector)
        case wire.IsEmptyCondition():
            _require_index(found.is_empty.key, indexes, set(KINDS.values()))
            return edge.IsEmptyCondition(found.is_empty.key)
        case wire.FieldCondition():
            return _field_condition(found, indexes)
    raise not_known(found)


def _field_condition(found: wire.FieldCondition, indexes: Indexes | None) -> edge.FieldCondition:
    require_only(found, "key", "match", "range")
    if found.range is not None:
        if not isinstance(found.range, wire.Range):
            raise not_known(found.range)
        _require_index(found.key, indexes, {"integer", "float"})
        return edge.FieldCondition(found.key, range=edge.RangeFloat(**found.range.model_dump()))
    match found.match:
        case wire.MatchValue():
            value = found.match.value
            _require_index(found.key, indexes, _index_kinds(value))
            return edge.FieldCondition(found.key, match=edge.MatchValue(value))
        case wire.MatchAny():
            values = found.match.any
            _require_index(found.key, indexes, _index_kinds(*values))
            return edge.FieldCondition(found.key, match=edge.MatchAny(values))
    raise not_known(found.match)


def _index_kinds(*values: object) -> set[str]:
    return {"integer"} if any(isinstance(value, int) for value in values) else {"keyword", "uuid"}


def _require_index(field: str, indexes: Indexes | None, kinds: set[str]) -> None:
    if indexes is not None and indexes.get(field) not in kinds:
        raise Refused(
            400,
            f'Bad request: Index required but not found for "{field}" of one of the following '
            f"types: [{', '.join(sorted(kinds))}]. Help: Create an index for this key or use a "
            "different filter.",
        )


# --- collections


def engine_config(found: wire.CreateCollection) -> edge.EdgeConfig:
    """What the engine is created with."""
    require_only(found, "vectors")
    vectors = found.vectors
    if isinstance(vectors, wire.VectorParams):
        return edge.EdgeConfig(vectors=_vector(vectors), optimizers=_NO_GRAPH)
    if isinstance(vectors, dict):
        named = {name: _vector(vector) for name, vector in vectors.items()}
        return edge.EdgeConfig(vectors=named, optimizers=_NO_GRAPH)
    raise not_known(vectors)


_NO_GRAPH = edge.EdgeOptimizersConfig(indexing_threshold=0)


def _vector(found: wire.VectorParams) -> edge.EdgeVectorParams:
    require_only(found, "size", "distance")
    return edge.EdgeVectorParams(size=found.size, distance=DISTANCES[found.distance.value])


def index_of(found: wire.CreateFieldIndex) -> Json:
    """The engine's parameters for an index."""
    schema = found.field_schema
    match schema:
        case wire.KeywordIndexParams():
            require_only(schema, "type", "is_tenant")
            return edge.KeywordIndexParams(is_tenant=schema.is_tenant)
        case wire.IntegerIndexParams():
            require_only(schema, "type", "lookup", "range")
            return edge.IntegerIndexParams(lookup=schema.lookup, range=schema.range)
        case wire.UuidIndexParams():
            require_only(schema, "type")
            return edge.UuidIndexParams()
        case wire.PayloadSchemaType():
            return {name: kind for kind, name in KINDS.items()}[schema.value]
    raise not_known(schema)


def collection_info(vectors: Json, info: edge.ShardInfo, *, is_strict: bool) -> Json:
    """The answer to what a collection is like.

    Args:
        vectors: as they were given when it was created.
        is_strict: whether conditions may only name fields with an index.
    """
    return {
        "status": "green",
        "optimizer_status": "ok",
        "indexed_vectors_count": info.indexed_vectors_count,
        "points_count": info.points_count,
        "segments_count": info.segments_count,
        "config": {
            "params": {
                "vectors": vectors,
                "shard_number": 1,
                "replication_factor": 1,
                "write_consistency_factor": 1,
                "on_disk_payload": True,
            },
            "hnsw_config": {
                "m": 16,
                "ef_construct": 100,
                "full_scan_threshold": 10_000,
                "max_indexing_threads": 0,
                "on_disk": False,
            },
            "optimizer_config": {
                "deleted_threshold": 0.2,
                "vacuum_min_vector_number": 1000,
                "default_segment_number": 0,
                "flush_interval_sec": 5,
            },
            "wal_config": {"wal_capacity_mb": 32, "wal_segments_ahead": 0},
            "quantization_config": None,
            "strict_mode_config": {
                "enabled": is_strict,
                "unindexed_filtering_retrieve": False,
                "unindexed_filtering_update": False,
            },
        },
        "payload_schema": {
            field: {"data_type": KINDS[index.data_type], "points": index.points}
            for field, index in info.payload_schema.items()
        },
    }


# --- points


def points_of(found: Sequence[wire.PointStruct]) -> list[edge.Point]:
    """Points for the engine."""
    return [edge.Point(point.id, vector_of(point.vector), point.payload) for point in found]


def vector_of(found: Json) -> Json:
    """A vector, or several by name, or none."""
    listed = found.values() if isinstance(found, dict) else [found]
    if not all(isinstance(vector, list) for vector in listed):
        raise not_known(found)
    return found


def selection_of(found: Json) -> Json:
    """Which fields of a payload are wanted."""
    if found is None or isinstance(found, bool):
        return bool(found)
    if isinstance(found, list):
        return edge.PayloadSelector.Include(found)
    raise not_known(found)


def records_json(records: Sequence[edge.Record], *, with_vector: bool) -> list[Json]:
    """Points as they are answered."""
    shown = []
    for record in records:
        answer: dict[str, Json] = {"id": record.id, "payload": record.payload}
        if with_vector:
            answer["vector"] = record.vector
        shown.append(answer)
    return shown


def query_of(found: Json) -> list[float]:
    """The vector that the nearest are wanted to."""
    if isinstance(found, wire.NearestQuery):
        require_only(found, "nearest")
        found = found.nearest
    if not isinstance(found, list) or not all(isinstance(number, float) for number in found):
        raise not_known(found)
    return found


def scored_json(points: Sequence[edge.ScoredPoint]) -> list[Json]:
    """What a search found, as it is answered."""
    return [
        {"id": point.id, "version": point.version, "score": point.score, "payload": point.payload}
        for point in points
    ]


def operations_of(found: wire.UpdateOperations) -> Iterator[Callable[[Indexes | None], Json]]:
    """The engine's operations of a batch, each to be made when the one before is done."""
    for operation in found.operations:
        if isinstance(operation, wire.OverwritePayloadOperation):
            yield overwrite_of(operation.overwrite_payload)
        elif isinstance(operation, wire.SetPayloadOperation):
            yield merge_of(operation.set_payload)
        else:
            raise not_known(operation)


def overwrite_of(found: wire.SetPayload) -> Callable[[Indexes | None], Json]:
    """The operation that replaces payloads."""
    require_only(found, "payload", "filter")

    def operation(indexes: Indexes | None) -> Json:
        condition = _required(filter_of(found.filter, indexes))
        return edge.UpdateOperation.overwrite_payload_by_filter(condition, dict(found.payload))

    return operation


def merge_of(found: wire.SetPayload) -> Callable[[Indexes | None], Json]:
    """The operation that merges fields into payloads."""
    require_only(found, "payload", "filter", "points", "key")

    def operation(indexes: Indexes | None) -> Json:
        payload = dict(found.payload)
        if found.points is not None:  # which Qdrant prefers to a filter
            return edge.UpdateOperation.set_payload(list(found.points), payload, found.key)
        condition = _required(filter_of(found.filter, indexes))
        return edge.UpdateOperation.set_payload_by_filter(condition, payload, found.key)

    return operation


def _required(condition: edge.Filter | None) -> edge.Filter:
    if condition is None:
        raise not_known("a payload for every point")
    return condition
