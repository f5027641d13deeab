"""What a Qdrant server's errors, and those on the way to it, mean to a person."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import httpx
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from undrift.errors import ConfigError, DimensionMismatch, StoreUnavailable, UndriftError
from undrift.stores._meaning import REFUSED_BATCH, Meaning
from undrift.stores._qdrant_layout import CHANGE_DIMENSION
from undrift.stores._qdrant_points import MISSING

Doing = Literal["read", "write", "create"]

_KEY = Meaning(
    ConfigError,
    "The vector store refused the key",
    "correct the API key in VECTOR_URL, as in qdrant+https://:KEY@host:6333/collection or with "
    "?api_key=env:NAME",
)
_RIGHTS = Meaning(
    ConfigError,
    "The vector store's key may not do this",
    "give VECTOR_URL a key with the rights to manage the collection, or create the collection "
    "with another key and run `undrift sync` with one that may read and write it",
)
_CANNOT_CREATE = Meaning(
    ConfigError,
    "The vector store refused to create the collection",
    "mend what the message names: the collection's name in VECTOR_URL, or the server's limits",
)
_NOT_QDRANT = Meaning(
    ConfigError,
    "What answers is not a Qdrant server",
    "correct the host, port and path in VECTOR_URL; Qdrant's REST port is 6333 unless it was "
    "given another",
)
_TLS = Meaning(
    ConfigError,
    "No TLS connection to the vector store",
    "write qdrant+http:// for a server without TLS and qdrant+https:// for one with it; a "
    "certificate of one's own is trusted with SSL_CERT_FILE",
)
_NO_INDEX = Meaning(
    ConfigError,
    "The vector store lacks an index",
    "create the index that the message names (PUT /collections/NAME/index), or, in a collection "
    "that another program filled, let `undrift sync` create those that it needs",
)
_BUSY = Meaning(
    StoreUnavailable,
    "The vector store was too busy",
    "run again; what was acknowledged is kept",
)
_UNAVAILABLE = Meaning(
    StoreUnavailable,
    "The vector store did not answer",
    "check that the server runs and that VECTOR_URL's host and port lead to it, then run again",
)
_FAILED = Meaning(
    StoreUnavailable,
    "The vector store failed",
    "look into the server's log, then run again; what was acknowledged is kept",
)
NO_ANSWER = Meaning(
    StoreUnavailable,
    "The vector store gave no definite answer",
    "run again, which reads back what became of it",
)

# By status; where one is not here, undrift could not look.
_BY_STATUS = {
    401: _KEY,
    403: _RIGHTS,
    408: _UNAVAILABLE,
    429: _BUSY,
    502: _UNAVAILABLE,
    503: _UNAVAILABLE,
    504: _UNAVAILABLE,
}
_OF_THE_REQUEST = frozenset({400, 413, 422})
_OF_A_REFUSED_REQUEST: Mapping[Doing, Meaning] = {
    "read": _FAILED,
    "write": REFUSED_BATCH,
    "create": _CANNOT_CREATE,
}

_NO_COLLECTION = re.compile(r"Collection .* (doesn't exist|not found)", re.IGNORECASE)
_INVALID_KEY = re.compile(r"api[ -]key|jwt", re.IGNORECASE)
_INDEX_REQUIRED = re.compile(r"index (required|is required)|no appropriate index", re.IGNORECASE)
_DIMENSIONS = re.compile(r"expected dim: (\d+), got (\d+)")
_NUMBERS = re.compile(r"\[\s*-?\d[^\]]*\]?")
_WORDS = 300


@contextmanager
def mapped_errors(location: str, doing: Doing, *, model: str = "") -> Iterator[None]:
    """Turn what qdrant-client raises inside the block into undrift's own errors.

    Args:
        model: of a search, for a vector of another dimension.
    """
    try:
        yield
    except UnexpectedResponse as error:
        raise _meaning_of_answer(error, location, doing, model) from error
    except ResponseHandlingException as error:
        # Not `from error`: what it holds may quote an answer, and an answer texts.
        raise _meaning_of_failure(error.source, location) from None
    except ResourceExhaustedResponse as error:
        raise _BUSY.error(location, _shown(str(error))) from error
    except (httpx.HTTPError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _meaning_of_failure(error, location) from None


def already_exists(error: UnexpectedResponse) -> bool:
    """Whether somebody else has created the collection in the meantime."""
    return error.status_code == 409


def _meaning_of_answer(
    error: UnexpectedResponse, location: str, doing: Doing, model: str
) -> UndriftError:
    status, message = error.status_code or 0, _message_of(error)
    if status == 404:
        meaning = MISSING if _NO_COLLECTION.search(message) else _NOT_QDRANT
    elif _INDEX_REQUIRED.search(message):
        meaning = _NO_INDEX
    elif status in _OF_THE_REQUEST:
        dimensions = _DIMENSIONS.search(message)
        if dimensions and doing == "read":
            expected, found = int(dimensions[2]), int(dimensions[1])
            return DimensionMismatch(
                expected=expected, found=found, model=model, fix=CHANGE_DIMENSION
            )
        meaning = _OF_A_REFUSED_REQUEST[doing]
    elif status == 403 and _INVALID_KEY.search(message):
        meaning = _KEY
    else:
        meaning = _BY_STATUS.get(status, _FAILED if status >= 500 else _NOT_QDRANT)
    return meaning.error(location, f"HTTP {status}: {message}")


def _meaning_of_failure(source: Exception, location: str) -> UndriftError:
    if isinstance(source, httpx.TimeoutException):
        return _UNAVAILABLE.error(location, f"no answer in time ({type(source).__name__})")
    if isinstance(source, httpx.ConnectError) and _is_tls(source):
        return _TLS.error(location, _shown(str(source)))
    if isinstance(source, httpx.HTTPError):
        return _UNAVAILABLE.error(location, _shown(str(source)) or type(source).__name__)
    # The answer was no JSON, or none of Qdrant's.
    return _NOT_QDRANT.error(location, f"its answer cannot be read ({type(source).__name__})")


def _is_tls(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return "SSL" in str(error) or "certificate" in str(error).lower()


def _message_of(error: UnexpectedResponse) -> str:
    """The server's words; Qdrant's are in JSON, a proxy's in whatever it likes."""
    text = error.content.decode(errors="replace")
    try:
        status = json.loads(text)["status"]
        text = status["error"]
    except (ValueError, KeyError, TypeError):
        pass
    return _shown(text) or error.reason_phrase


def _shown(text: str) -> str:
    """*text* in one line, not too long, and without the vectors that it may quote."""
    return _NUMBERS.sub("[…]", " ".join(text.split()))[:_WORDS]
