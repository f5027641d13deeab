"""What goes wrong with Milvus, mapped once to what a caller can do about it.

A message of the server's is shown, cut short: it names collections, fields and numbers, never a
record. One that quotes a filter, and with it ids, is not shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from undrift.errors import ConfigError, StoreUnavailable, UndriftError, WriteFailed
from undrift.stores._meaning import NOT_CREATED, REFUSED_BATCH, Meaning

OLDEST_SERVER = (2, 3)
_SHOWN_CHARACTERS = 200

NO_COLLECTION = (4, 100)  # the number of servers of 2.3 and later, and that of the protocol before

NO_DATABASE = 800
_NOT_LOADED = (101, 103, 106)

NOT_MILVUS = Meaning(
    ConfigError,
    "What answers at the vector store's address is not Milvus",
    "correct host and port in VECTOR_URL; Milvus listens on 19530 unless told otherwise",
)
TOO_OLD = Meaning(
    ConfigError,
    "The Milvus server is too old",
    f"upgrade it to {'.'.join(map(str, OLDEST_SERVER))} or later: older ones know neither the "
    "cosine nor upsert",
)
ANOTHERS = Meaning(
    ConfigError,
    "The collection belongs to another program",
    "name another collection in VECTOR_URL, which `undrift sync` creates",
)
WRONG_METRIC = Meaning(
    ConfigError,
    "The collection measures another distance",
    "name another collection in VECTOR_URL, which `undrift sync` creates with the cosine",
)
INEXACT = Meaning(
    ConfigError,
    "The collection's index does not find every record",
    "name another collection in VECTOR_URL, which `undrift sync` creates with a FLAT index, or "
    "drop this one's index and create one of the type FLAT with the metric COSINE",
)
_NO_LOGIN = Meaning(
    ConfigError,
    "The vector store refused the password",
    "correct user and password in VECTOR_URL (milvus+http://USER:PASSWORD@host:19530/collection), "
    "or the token before the @",
)
_NO_RIGHT = Meaning(
    ConfigError,
    "The vector store's user may not do that",
    "let an administrator grant the user's role Query, Search, Upsert, Delete, Load and "
    "DescribeCollection on the collection, and CreateCollection and CreateIndex until it is there",
)
_NO_DATABASE = Meaning(
    ConfigError,
    "The vector store's database does not exist",
    "correct ?database= in VECTOR_URL; undrift creates collections, never a database",
)
_NO_TLS = Meaning(
    ConfigError,
    "The vector store's certificate is not trusted",
    "correct the host in VECTOR_URL, write milvus+http:// for a server without TLS, or name the "
    "authority's certificate in GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
)
_UNAVAILABLE = Meaning(
    StoreUnavailable,
    "The vector store did not answer",
    "check that the server runs and can be reached from here, then run again",
)
_FAILED = Meaning(
    StoreUnavailable,
    "The vector store failed",
    "read the server's log, and run again; what was acknowledged is kept",
)
_LOADING = Meaning(
    StoreUnavailable,
    "The vector store has not loaded the collection yet",
    "run again when it has: after a start that takes a while, and it needs memory for all vectors",
)
_BUSY = Meaning(
    StoreUnavailable,
    "The vector store was too busy, or out of memory or disk",
    "run again later; what was acknowledged is kept",
)

_BY_CALL = {
    grpc.StatusCode.UNAUTHENTICATED: _NO_LOGIN,
    grpc.StatusCode.PERMISSION_DENIED: _NO_RIGHT,
    grpc.StatusCode.UNAVAILABLE: _UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: _UNAVAILABLE,
    grpc.StatusCode.CANCELLED: _UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED: REFUSED_BATCH,
    grpc.StatusCode.UNIMPLEMENTED: TOO_OLD,
}

_BY_CODE = {
    1: _LOADING,
    2: _UNAVAILABLE,
    3: _BUSY,
    4: NOT_CREATED,
    8: _BUSY,
    9: _BUSY,
    100: NOT_CREATED,
    101: _LOADING,
    103: _LOADING,
    106: _LOADING,
    NO_DATABASE: _NO_DATABASE,
    1100: REFUSED_BATCH,
    1400: _NO_LOGIN,
    1401: _NO_RIGHT,
}


class Refusal(Exception):
    """The server's own answer that it did not do what it was asked.

    Attributes:
        code: Milvus's number.
        reason: in its words.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@contextmanager
def errors_of(location: str) -> Iterator[None]:
    """Turn what went wrong with a call into undrift's own errors."""
    try:
        yield
    except Refusal as refusal:
        raise _failure(location, refusal) from None
    except grpc.RpcError as error:
        # Without a cause: gRPC's text of it may quote the login.
        raise _broken_call(location, error.code(), error.details() or "") from None


def too_long(what: str, field: str, size: int, most: int) -> WriteFailed:
    """A value that no field of Milvus holds."""
    return WriteFailed(
        "The store refused a batch",
        why=f"the {field} of {what} has {size:,} bytes, and Milvus stores at most {most:,} in a "
        "field; nothing was written.",
        fix="shorten it in the source, or set keep_text = false under [store], which stores "
        "neither texts nor metadata",
    )


def refuse_too_old(version: str, location: str) -> None:
    """Refuse a server of *version*, such as ``v2.2.16``, if it cannot do what is needed.

    Raises:
        ConfigError: it is too old.
    """
    numbers = re.match(r"v?(\d+)\.(\d+)", version)
    if numbers and tuple(map(int, numbers.groups())) < OLDEST_SERVER:
        raise TOO_OLD.error(location, f"it is {version}")


def is_not_loaded(refusal: Refusal) -> bool:
    """Whether the server does not hold the collection in memory, or not yet."""
    return refusal.code in _NOT_LOADED or any(
        words in refusal.reason for words in ("not loaded", "not fully loaded")
    )


def _failure(location: str, refusal: Refusal) -> UndriftError:
    code, reason = refusal.code, refusal.reason
    # Servers of 2.3 have one number for whatever they have not numbered.
    if is_not_loaded(refusal):
        code = 101
    if "privilege" in reason.lower():
        code = 1401
    if "database not found" in reason:
        code = NO_DATABASE
    meaning = _BY_CODE.get(code, _FAILED)
    quotes = "expr" in reason or '"' in reason
    return meaning.error(location, f"error {code}" if quotes else _shown(reason) or f"error {code}")


def _broken_call(location: str, code: grpc.StatusCode, details: str) -> UndriftError:
    meaning = _BY_CALL.get(code, _FAILED)
    lower = details.lower()
    if "unknown service" in lower or "failed parsing http/2" in lower:
        meaning = NOT_MILVUS
    elif "ssl" in lower or "certificate" in lower:
        meaning = _NO_TLS
    elif "auth check failure" in lower:
        meaning = _NO_LOGIN
    said = "it did not answer in time" if code is grpc.StatusCode.DEADLINE_EXCEEDED else details
    return meaning.error(location, _shown(said) or code.name)


def _shown(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "…"
