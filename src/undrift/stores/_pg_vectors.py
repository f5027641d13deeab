"""Vectors on PostgreSQL's wire.

Vectors go to the server in batches: one parameter of type ``vector[]`` whose bytes numpy makes in
one piece. psycopg with the adapters of the `pgvector` package, which make them one by one, took 1.0
instead of 0.35 CPU seconds for 50,000 vectors of 384 components.

Source:
    ``array_recv`` in PostgreSQL's arrayfuncs.c, ``vector_recv`` in pgvector's vector.c and
    ``halfvec_recv`` in its halfvec.c.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.rows import TupleRow

from undrift.errors import ConfigError
from undrift.ports import Vectors
from undrift.stores._pg_address import HALF, WHOLE, VectorType

# number of dimensions of the array, flags, oid of the elements, elements, lowest index
_ARRAY_HEADER = struct.Struct(">iiIii")

_TYPE_QUERY = """
SELECT n.nspname, t.oid, t.typarray
FROM pg_extension e
JOIN pg_namespace n ON n.oid = e.extnamespace
JOIN pg_type t ON t.typnamespace = n.oid AND t.typname = %s
WHERE e.extname = 'vector'"""
_HAS_EXTENSION = "SELECT FROM pg_extension WHERE extname = 'vector'"

# In a half a component is right to 1 in 2,048; a vector that comes out worse has components below
# the smallest half, and points elsewhere.
_MOST_LOST = 0.01


@dataclass(frozen=True, slots=True)
class VectorArray:
    """Vectors of one dimension, to be sent as one parameter: an array of the column's type."""

    vectors: Sequence[Vectors]


@dataclass(frozen=True, slots=True)
class OneVector:
    """A direction to compare vectors with, to be sent as a parameter of the column's type."""

    vector: Vectors


class _VectorArrayDumper(Dumper):
    format = Format.BINARY
    component = ">f4"
    element_oid = 0

    def dump(self, obj: VectorArray) -> bytes:
        elements = _elements(np.stack(obj.vectors), self.component)
        header = _ARRAY_HEADER.pack(1, 0, self.element_oid, len(elements), 1)
        return header + elements.tobytes()


class _HalfArrayDumper(_VectorArrayDumper):
    component = ">f2"


class _OneVectorDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: OneVector) -> bytes:
        return _elements(obj.vector[np.newaxis], ">f4")["vector"].tobytes()


class _OneHalfDumper(Dumper):
    format = Format.BINARY

    def dump(self, obj: OneVector) -> bytes:
        # A cosine does not ask for the length, and a half cannot hold every one.
        length = float(np.linalg.norm(obj.vector.astype(np.float64)))
        scaled = obj.vector / length if 0.0 < length < np.inf else obj.vector
        return _elements(scaled[np.newaxis], ">f2")["vector"].tobytes()


_DUMPERS: dict[VectorType, tuple[type[_VectorArrayDumper], type[Dumper]]] = {
    WHOLE: (_VectorArrayDumper, _OneVectorDumper),
    HALF: (_HalfArrayDumper, _OneHalfDumper),
}


def learn_vectors(connection: Connection[TupleRow], location: str, kind: VectorType = WHOLE) -> str:
    """Teach *connection* to send vectors, and return the schema where pgvector is installed.

    Args:
        location: the store's address, for the error.
        kind: the column's type, as which they are sent.

    Raises:
        ConfigError: the database lacks pgvector, or has one without that type.
    """
    row = connection.execute(_TYPE_QUERY, [kind]).fetchone()
    if row is None and connection.execute(_HAS_EXTENSION).fetchone() is not None:
        raise ConfigError(
            f"The server's pgvector has no {kind}",
            why=f"{location} has a version older than 0.7.0.",
            fix="update it, and let its administrator run: ALTER EXTENSION vector UPDATE; or leave "
            "?vectors= out of VECTOR_URL",
        )
    if row is None:
        raise ConfigError(
            "pgvector is not installed in the database",
            why=f"{location} has no extension named vector.",
            fix="let an administrator of the database run: CREATE EXTENSION vector",
        )
    schema, oid, array_oid = row
    # psycopg takes a parameter's type from its dumper's class, and the types' numbers differ from
    # one database to another.
    array, one = _DUMPERS[kind]
    array_dumper = type("", (array,), {"oid": array_oid, "element_oid": oid})
    connection.adapters.register_dumper(VectorArray, array_dumper)
    connection.adapters.register_dumper(OneVector, type("", (one,), {"oid": oid}))
    return str(schema)


def why_not_halved(vectors: Sequence[Vectors]) -> tuple[int, str] | None:
    """The number of one of *vectors* that cannot be stored as halves, and why; None if all can.

    A record must stay findable: rounded, its vector has a length and points where it did.
    """
    whole = np.stack(vectors).astype(np.float64)
    with np.errstate(over="ignore"):
        rounded = whole.astype(np.float16).astype(np.float64)
    beyond = ~np.isfinite(rounded).all(axis=1)
    if beyond.any():
        return int(beyond.argmax()), "has a component beyond 65504, the largest half"
    lost = np.linalg.norm(rounded - whole, axis=1) > _MOST_LOST * np.linalg.norm(whole, axis=1)
    if lost.any():
        return int(lost.argmax()), "is so short that halves round its components away"
    return None


def _elements(matrix: Vectors, component: str) -> np.ndarray:
    """*matrix* as elements of an array: each row behind its length in bytes."""
    rows, dimension = matrix.shape
    vector = np.dtype(
        [("dimension", ">i2"), ("unused", ">i2"), ("components", component, dimension)]
    )
    elements = np.zeros(rows, dtype=[("bytes", ">i4"), ("vector", vector)])
    elements["bytes"] = vector.itemsize
    elements["vector"]["dimension"] = dimension
    elements["vector"]["components"] = matrix
    return elements
