"""What goes wrong with Chroma, mapped once to what a caller can do about it.

A message of the server's is shown, cut short: it names collections and numbers, never a record.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import orjson

from undrift.errors import ConfigError, StoreUnavailable, UndriftError
from undrift.stores._meaning import NOT_CREATED, REFUSED_BATCH, Meaning

OLDEST_SERVER = "1.0"
_SHOWN_CHARACTERS = 200

NOT_CHROMA = Meaning(
    ConfigError,
    "What answers at the vector store's address is not Chroma",
    "correct host and port in VECTOR_URL; `chroma run --path FOLDER --port 8000` starts a server",
)
TOO_OLD = Meaning(
    ConfigError,
    "The Chroma server is too old",
    f"upgrade it to {OLDEST_SERVER} or later: pip install --upgrade chromadb, then `chroma run`",
)
ANOTHERS = Meaning(
    ConfigError,
    "The collection belongs to another program",
    "name another collection in VECTOR_URL, which `undrift sync` creates, or let `undrift init` "
    "write [store.fields], which says where this one's records keep their owner, kind and id",
)
WRONG_METRIC = Meaning(
    ConfigError,
    "The collection measures another distance",
    "name another collection in VECTOR_URL, which `undrift sync` creates with the cosine",
)
_NO_KEY = Meaning(
    ConfigError,
    "The vector store refused the key",
    "correct the key in VECTOR_URL (chroma+https://KEY@host/collection, or user:password@ for a "
    "proxy that asks for one), or let an administrator give it the right",
)
_NO_DATABASE = Meaning(
    ConfigError,
    "The vector store's tenant or database does not exist",
    "correct ?tenant= and ?database= in VECTOR_URL; undrift creates collections, never a database",
)
_NO_TLS = Meaning(
    ConfigError,
    "The vector store's certificate is not trusted",
    "correct the host in VECTOR_URL, or name the authority's certificate in SSL_CERT_FILE",
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
_BUSY = Meaning(
    StoreUnavailable,
    "The vector store was too busy",
    "run again later; what was acknowledged is kept",
)
LOST = Meaning(
    StoreUnavailable,
    "The vector store has lost vectors of its records",
    "run `undrift sync`, which writes them again; if it persists, name another collection in "
    "VECTOR_URL",
)

_OF_PROXIES = (401, 403, 407, 413, 429)

_BY_STATUS = {
    401: _NO_KEY,
    403: _NO_KEY,
    407: _NO_KEY,
    400: REFUSED_BATCH,
    409: _BUSY,
    410: TOO_OLD,
    413: REFUSED_BATCH,
    422: REFUSED_BATCH,
    429: _BUSY,
}


class LostVector(StoreUnavailable):
    """A record is there, and its vector is not in the index."""


@contextmanager
def transport_errors(location: str) -> Iterator[None]:
    """Turn what keeps an answer from arriving into undrift's own errors."""
    try:
        yield
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL, UnicodeError) as error:
        # A message of httpx may quote a header, and with it the key, where that is no ASCII.
        if isinstance(error, (httpx.LocalProtocolError, UnicodeError)):
            raise _NO_KEY.error(location, "it cannot be sent as it is written") from None
        untrusted = isinstance(error.__cause__, ssl.SSLCertVerificationError) or (
            "CERTIFICATE_VERIFY_FAILED" in str(error)
        )
        meaning = _NO_TLS if untrusted else _UNAVAILABLE
        raise meaning.error(location, _shown(str(error) or type(error).__name__)) from error


def refusal(location: str, status: int, body: bytes) -> UndriftError:
    """What an answer that is no success means."""
    name, message = _said(body)
    if name:
        return failure(location, status, message)
    # It is a proxy's, or no Chroma's.
    meaning = _BY_STATUS[status] if status in _OF_PROXIES else _unnamed(status)
    return meaning.error(location, f"HTTP status {status}")


def failure(location: str, status: int, message: str) -> UndriftError:
    """What an error of Chroma's means, by its number and its words."""
    message = _shown(message)
    if "Error finding id" in message:
        return LostVector(LOST.what, why=f"{location}: {message}.", fix=LOST.fix)
    if message.startswith(("Database [", "Tenant [")):
        meaning = _NO_DATABASE
    elif status == 404:
        meaning = NOT_CREATED if "ollection" in message else _NO_DATABASE
    else:
        meaning = _BY_STATUS.get(status, _FAILED)
    return meaning.error(location, message or f"error {status}")


def _unnamed(status: int) -> Meaning:
    return NOT_CHROMA if status < 500 else _FAILED


def _said(body: bytes) -> tuple[str, str]:
    """The name of Chroma's error and its message; empty where it is not one of Chroma's."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    if not isinstance(answer, dict) or not isinstance(answer.get("error"), str):
        return "", ""
    return answer["error"], str(answer.get("message", ""))


def _shown(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[:_SHOWN_CHARACTERS] + "…"
