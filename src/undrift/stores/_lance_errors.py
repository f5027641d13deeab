"""LanceDB's errors, mapped once to what a caller can do about them.

It raises Python's own kinds, mostly `RuntimeError`, so that only their messages tell them apart. A
message ends with a place in LanceDB's source, which is cut off.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from undrift.errors import ConfigError, StoreUnavailable, UndriftError
from undrift.stores._meaning import NOT_CREATED, REFUSED_BATCH, Meaning

_RAISED = (RuntimeError, ValueError, OSError)

# What becomes of a panic in LanceDB; its class is of a module that cannot be imported.
_PANIC = "RustPanic"

NO_RIGHTS = Meaning(
    ConfigError,
    "The vector store's files may not be used like that",
    "let this user read the folder and all below it, and to sync, write it too",
)
LAYOUT = Meaning(
    ConfigError,
    "The vector store's table is not one of undrift's",
    "set ?table= in VECTOR_URL to another table, which `undrift sync` creates",
)
DAMAGED = Meaning(
    StoreUnavailable,
    "The vector store's files are damaged",
    "restore the folder, or move the table's away and run `undrift sync --all`, which builds it "
    "anew; if another program may just have removed old versions, run again first",
)
_BUSY = Meaning(
    StoreUnavailable,
    "The vector store was too busy",
    "run again, with fewer writers at once; what was acknowledged is kept",
)
_CREDENTIALS = Meaning(
    ConfigError,
    "The object storage refused the login",
    "set the credentials in the environment, such as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and "
    "AWS_REGION, and let them read and write the place",
)
_NO_BUCKET = Meaning(
    ConfigError,
    "The object storage has no such bucket",
    "correct the bucket in VECTOR_URL; undrift creates tables, never a bucket",
)
_UNAVAILABLE = Meaning(
    StoreUnavailable,
    "The vector store did not answer",
    "check the disk or the object storage, and run again",
)

_REFUSED_LOGIN = (
    r"AccessDenied|InvalidAccessKeyId|SignatureDoesNotMatch|AuthenticationFailed|InvalidToken"
    r"|ExpiredToken|status(?: code)?:? 40[13]\b|credential|169\.254\.169\.254"
)

# The first whose pattern is found in the message; where none is, undrift could not look.
_MEANINGS = (
    (r"Table '.*' was not found|Not found: \S*/_versions\b", NOT_CREATED),
    (
        r"[Pp]ermission ?[Dd]enied|Read-only file system|Not a directory|os error (1|13|20|30)\b",
        NO_RIGHTS,
    ),
    (r"[Cc]ommit conflict|concurrent (transaction|writers)|Incompatible transaction", _BUSY),
    (r"No space left|os error (28|122|27)\b", REFUSED_BATCH),
    (r"NoSuchBucket|bucket does not exist|ContainerNotFound", _NO_BUCKET),
    (_REFUSED_LOGIN, _CREDENTIALS),
    (r"Not found: |Invalid range|file size is too small|magic|[Cc]orrupt|decode|panicked", DAMAGED),
)
_PATTERNS = tuple((re.compile(pattern), meaning) for pattern, meaning in _MEANINGS)
_SOURCE_PLACE = re.compile(r",? (location: Location \{|\S*\.rs:\d+).*", re.DOTALL)
# Signed addresses are as good as a key.
_QUERY = re.compile(r"(?<=://)(\S*?)\?[^\s)\"]*")
_DUMP = re.compile(r"( \{ |<\?xml).*", re.DOTALL)
# What matters in a message that is a dump of values within values.
_REASON = re.compile(
    r"<Code>(?P<code>\w+)</Code>|message: \\?\"(?P<system>[^\"\\]+)"
    r"|(?P<credentials>Failed to get \w+ credentials)"
)

_MESSAGE_CHARACTERS = 400


@contextmanager
def mapped_errors(location: str) -> Iterator[None]:
    """Turn what LanceDB raises inside the block into undrift's own errors."""
    try:
        yield
    except Exception as error:
        if not is_drivers(error):
            raise
        raise meaning_of(error).error(location, message_of(error)) from error


def is_drivers(error: Exception) -> bool:
    """Whether LanceDB or Arrow may have raised *error*."""
    return isinstance(error, _RAISED) or type(error).__name__ == _PANIC


def meaning_of(error: Exception) -> Meaning:
    """What a caller can do about *error*."""
    message = str(error)
    found = (meaning for pattern, meaning in _PATTERNS if pattern.search(message))
    return next(found, _UNAVAILABLE)


def is_conflict(error: Exception) -> bool:
    """Whether another writer's commit came in between, and a repetition may succeed."""
    return meaning_of(error) is _BUSY


def is_missing_table(error: Exception) -> bool:
    """Whether LanceDB says that there is no such table."""
    return meaning_of(error) is NOT_CREATED


def message_of(error: Exception) -> str:
    """What LanceDB says, in one line, without addresses' keys and the place in its source."""
    said = _SOURCE_PLACE.sub("", str(error))
    reason = _REASON.search(said)
    # Behind a brace or a document nothing is written for people, and much of it is long.
    said = _DUMP.sub("", said)
    if reason is not None:
        said = f"{said.rstrip(' :')} ({reason[reason.lastgroup or 0]})"
    said = _QUERY.sub(r"\1", said)
    return " ".join(said.split())[:_MESSAGE_CHARACTERS] or type(error).__name__


def layout_error(location: str, found: str) -> UndriftError:
    """The error to raise where the table is somebody else's."""
    return LAYOUT.error(location, found)
