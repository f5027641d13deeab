"""Milvus's protocol: the calls that the store needs, one method for each.

The messages are those of `pymilvus`, its client is not used: that repeats calls 75 times by itself,
calls a wrong password a server that cannot be reached, and prints every error to standard error.

Every read has strong consistency: it waits until the server has applied all that was acknowledged
to anybody before it began.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple, TypeAlias

import grpc
import numpy as np
from pymilvus.grpc_gen import common_pb2, milvus_pb2, milvus_pb2_grpc, schema_pb2

from undrift.errors import StoreUnavailable
from undrift.forks import after_fork, leave_to_parent
from undrift.ports import Vectors
from undrift.stores._milvus_address import DEFAULT_DATABASE, Address
from undrift.stores._milvus_errors import (
    NO_COLLECTION,
    NO_DATABASE,
    Refusal,
    errors_of,
    is_not_loaded,
)

CALL_SECONDS = 60.0
"""A read waits for the server's clock to tick, which takes a fifth of a second; no more than that
for what it does."""

LOAD_SECONDS = 600.0
"""Loading reads every vector into the server's memory."""

_POLL_SECONDS = 0.02

Row = Mapping[str, Any]
Column: TypeAlias = "Sequence[str] | Sequence[int] | Vectors"

_STRONG = common_pb2.ConsistencyLevel.Strong
_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Several channels of one process would share a connection otherwise, and a killed server's.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 10_000),  # which is how long one attempt may take
]


class Field(NamedTuple):
    """One field of a collection.

    Attributes:
        kind: Milvus's name of the type.
        size: of texts the most bytes, of a vector its dimension; 0 for others.
    """

    name: str
    kind: str
    size: int = 0
    is_primary: bool = False


class Described(NamedTuple):
    """A collection that is there."""

    number: int
    fields: tuple[Field, ...]


class Index(NamedTuple):
    """How a field is indexed."""

    kind: str
    metric: str


class Hit(NamedTuple):
    """What a search found.

    Attributes:
        key: the primary key.
        score: its similarity.
        row: the fields that were asked for.
    """

    key: str
    score: float
    row: Row


class Milvus:
    """The server at *address*, and the one collection there.

    Safety:
        May be used from several threads. A forked process opens a connection of its own.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._metadata = [("dbname", address.database)]
        if address.login:
            self._metadata.append(("authorization", address.login))
        self._lock = Lock()
        self._channel: grpc.Channel | None = None
        self._stub: Any = None
        after_fork(self, Milvus._begin_afresh)

    def close(self) -> None:
        """Close the connection. Safe to call twice; the next call opens another."""
        with self._lock:
            if self._channel is not None:
                self._channel.close()
            self._channel = self._stub = None

    # --- the collection

    def describe(self) -> Described | None:
        """The collection; None if there certainly is none."""
        request = milvus_pb2.DescribeCollectionRequest(collection_name=self._address.collection)
        with errors_of(self._address.location):
            try:
                answer = self._call("DescribeCollection", request)
            except Refusal as refusal:
                if refusal.code not in NO_COLLECTION:
                    raise
                self._refuse_absent_database()
                return None
        return Described(answer.collectionID, tuple(map(_field, answer.schema.fields)))

    def indexes(self) -> dict[str, Index]:
        """The indexes of the collection, by field."""
        request = milvus_pb2.DescribeIndexRequest(collection_name=self._address.collection)
        with errors_of(self._address.location):
            try:
                answer = self._call("DescribeIndex", request)
            except Refusal as refusal:
                if "index" in refusal.reason and refusal.code not in NO_COLLECTION:
                    return {}  # not one of them is there
                raise
        found = {}
        for described in answer.index_descriptions:
            params = {pair.key: pair.value for pair in described.params}
            metric = params.get("metric_type") or json.loads(params.get("params", "{}")).get(
                "metric_type", ""
            )
            found[described.field_name] = Index(params.get("index_type", ""), metric.upper())
        return found

    def create(self, fields: Sequence[Field]) -> None:
        """Create the collection; no error if it is there and the same."""
        schema = schema_pb2.CollectionSchema(
            name=self._address.collection, fields=[_schema_of(field) for field in fields]
        )
        self._do(
            "CreateCollection",
            milvus_pb2.CreateCollectionRequest(
                collection_name=self._address.collection,
                schema=schema.SerializeToString(),
                shards_num=1,
                consistency_level=_STRONG,
            ),
        )

    def create_index(self, field: str, index: Index) -> None:
        """Index *field*; no error if it is so already."""
        params = {"index_type": index.kind}
        if index.metric:
            params["metric_type"] = index.metric
        self._do(
            "CreateIndex",
            milvus_pb2.CreateIndexRequest(
                collection_name=self._address.collection,
                field_name=field,
                index_name=field,
                extra_params=_pairs(params),
            ),
        )

    def load(self) -> None:
        """Have the server hold the collection in memory, and wait until it does.

        Raises:
            StoreUnavailable: it takes too long.
        """
        name = self._address.collection
        self._do("LoadCollection", milvus_pb2.LoadCollectionRequest(collection_name=name))
        deadline = time.monotonic() + LOAD_SECONDS
        while time.monotonic() < deadline:
            progress = milvus_pb2.GetLoadingProgressRequest(collection_name=name)
            if self._do("GetLoadingProgress", progress).progress >= 100:
                return
            time.sleep(_POLL_SECONDS)
        raise StoreUnavailable(
            "The vector store has not loaded the collection",
            why=f"{self._address.location}: it has been loading for {LOAD_SECONDS:.0f} s.",
            fix="look at the server's memory and log, then run the same command again",
        )

    def version(self) -> str:
        """The server's version, such as ``v2.3.5``."""
        return str(self._do("GetVersion", milvus_pb2.GetVersionRequest()).version)

    # --- records

    def query(self, where: str, fields: Sequence[str], limit: int | None = None) -> list[Row]:
        """The records that *where* lets pass.

        Order:
            With a *limit*, the first of them by primary key.
        """
        # To stop for the best ends the answer where the first of several segments ends.
        params = {"reduce_stop_for_best": "False", "ignore_growing": "False"}
        if limit is not None:
            params["limit"] = str(limit)
        request = milvus_pb2.QueryRequest(
            collection_name=self._address.collection,
            expr=where,
            output_fields=fields,
            query_params=_pairs(params),
            consistency_level=_STRONG,
        )
        answer = self._read("Query", request)
        return _rows(answer.fields_data, fields)

    def search(
        self, vector: Vectors, field: str, where: str, limit: int, fields: Sequence[str] = ()
    ) -> list[Hit]:
        """The records nearest to *vector* among those that *where* lets pass, best first."""
        placeholder = common_pb2.PlaceholderValue(
            tag="$0",
            type=common_pb2.PlaceholderType.FloatVector,
            values=[np.ascontiguousarray(vector, dtype="<f4").tobytes()],
        )
        params = {
            "anns_field": field,
            "topk": str(limit),
            "metric_type": "COSINE",
            "params": "{}",
            "round_decimal": "-1",
            "ignore_growing": "False",
        }
        request = milvus_pb2.SearchRequest(
            collection_name=self._address.collection,
            dsl=where,
            dsl_type=common_pb2.DslType.BoolExprV1,
            placeholder_group=common_pb2.PlaceholderGroup(
                placeholders=[placeholder]
            ).SerializeToString(),
            output_fields=fields,
            search_params=_pairs(params),
            nq=1,
            consistency_level=_STRONG,
        )
        found = self._read("Search", request).results
        keys = found.ids.str_id.data
        rows = _rows(found.fields_data, fields) if fields else [{}] * len(keys)
        return [Hit(*hit) for hit in zip(keys, found.scores, rows, strict=True)]

    def upsert(self, fields: Sequence[Field], columns: Mapping[str, Column], rows: int) -> None:
        """Write *rows* records whole, whatever is there under their primary keys."""
        request = milvus_pb2.UpsertRequest(
            collection_name=self._address.collection,
            fields_data=[_column(field, columns[field.name]) for field in fields],
            num_rows=rows,
        )
        self._do("Upsert", request)

    def delete(self, where: str) -> None:
        """Delete the records whose primary keys *where* names."""
        request = milvus_pb2.DeleteRequest(collection_name=self._address.collection, expr=where)
        self._do("Delete", request)

    # --- calls

    def _refuse_absent_database(self) -> None:
        """Tell a database that is not there from one without the collection."""
        name = self._address.database
        if name != DEFAULT_DATABASE:
            found = self._call("ListDatabases", milvus_pb2.ListDatabasesRequest()).db_names
            if name not in found:
                raise Refusal(NO_DATABASE, f"there is no database {name}")

    def _do(self, method: str, request: Any) -> Any:  # noqa: ANN401 - protobuf's
        with errors_of(self._address.location):
            return self._call(method, request)

    def _read(self, method: str, request: Any) -> Any:  # noqa: ANN401
        """As `_do`, once the collection is loaded: somebody may have released it."""
        with errors_of(self._address.location):
            try:
                return self._call(method, request)
            except Refusal as refusal:
                if not is_not_loaded(refusal):
                    raise
        self.load()
        return self._do(method, request)

    def _call(self, method: str, request: Any) -> Any:  # noqa: ANN401
        if hasattr(request, "db_name"):
            request.db_name = self._address.database
        call = getattr(self._connected(), method)
        answer = call(request, timeout=CALL_SECONDS, metadata=self._metadata)
        status = answer if isinstance(answer, common_pb2.Status) else answer.status
        if status.code or status.error_code:
            raise Refusal(status.code or status.error_code, status.reason)
        return answer

    def _connected(self) -> Any:  # noqa: ANN401 - its methods are made at run time
        with self._lock:
            if self._stub is None:
                target = self._address.target
                if self._address.is_encrypted:
                    login = grpc.ssl_channel_credentials()
                    self._channel = grpc.secure_channel(target, login, options=_OPTIONS)
                else:
                    self._channel = grpc.insecure_channel(target, options=_OPTIONS)
                self._stub = milvus_pb2_grpc.MilvusServiceStub(self._channel)
            return self._stub

    def _begin_afresh(self) -> None:
        self._lock = Lock()
        leave_to_parent(self._channel)
        self._channel = self._stub = None


# --- messages


def _pairs(params: Mapping[str, str]) -> list[Any]:
    return [common_pb2.KeyValuePair(key=key, value=value) for key, value in params.items()]


def _schema_of(field: Field) -> Any:  # noqa: ANN401 - protobuf's
    size = "dim" if field.kind == "FloatVector" else "max_length"
    return schema_pb2.FieldSchema(
        name=field.name,
        data_type=schema_pb2.DataType.Value(field.kind),
        is_primary_key=field.is_primary,
        type_params=_pairs({size: str(field.size)} if field.size else {}),
    )


def _field(schema: Any) -> Field:  # noqa: ANN401
    params = {pair.key: pair.value for pair in schema.type_params}
    size = int(params.get("dim") or params.get("max_length") or 0)
    kind = schema_pb2.DataType.Name(schema.data_type)
    return Field(schema.name, kind, size, schema.is_primary_key)


def _column(field: Field, values: Column) -> Any:  # noqa: ANN401
    column = schema_pb2.FieldData(type=schema_pb2.DataType.Value(field.kind), field_name=field.name)
    if field.kind == "FloatVector":
        column.vectors.dim = field.size
        flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        column.vectors.float_vector.data.extend(flat.tolist())
    elif field.kind == "VarChar":
        column.scalars.string_data.data.extend(values)
    elif field.kind == "Int64":
        column.scalars.long_data.data.extend(values)
    else:
        column.scalars.int_data.data.extend(values)
    return column


def _rows(columns: Sequence[Any], fields: Sequence[str]) -> list[Row]:
    """*columns* as records; where nothing was found they have no names."""
    by_name = {column.field_name: _values(column) for column in columns}
    if set(fields) - by_name.keys():
        return []
    rows = zip(*(by_name[name] for name in fields), strict=True)
    return [dict(zip(fields, row, strict=True)) for row in rows]


def _values(column: Any) -> Sequence[Any]:  # noqa: ANN401
    of_kind = column.scalars.WhichOneof("data")
    if column.WhichOneof("field") == "vectors":
        flat = np.array(column.vectors.float_vector.data, dtype=np.float32)
        return list(flat.reshape(-1, column.vectors.dim))
    values: Sequence[Any] = getattr(column.scalars, of_kind).data if of_kind else ()
    return values
