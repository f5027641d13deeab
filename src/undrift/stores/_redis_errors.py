"""The errors of Redis and of its search module, mapped once to what a caller can do about them.

A message names what the server says in its first line, and never the arguments that it quotes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from redis import exceptions

from undrift.errors import ConfigError, StoreUnavailable, UndriftError, WriteFailed
from undrift.stores._meaning import NOT_CREATED, REFUSED_BATCH, Meaning
from undrift.stores._redis_address import Address

Doing = Literal["read", "write", "create"]

MODULE_NEEDED = "RediSearch 2.10 (Redis Stack 7.4, Redis 8, or redisearch.so in a Valkey)"

_LOGIN = Meaning(
    ConfigError,
    "The vector store refused the login",
    "correct the user and password in VECTOR_URL",
)
_TLS = Meaning(
    ConfigError,
    "The vector store's encryption cannot be agreed on",
    "write redis:// where the server does not encrypt; else name the certificate of its authority "
    "with ?ssl_ca_certs=FILE in VECTOR_URL",
)
_READ_ONLY = Meaning(
    ConfigError,
    "The vector store is read-only",
    "point VECTOR_URL at the primary; a replica also shows what is outdated",
)
_CLUSTER = Meaning(
    ConfigError,
    "The vector store is a cluster",
    "point VECTOR_URL at a server that is not part of a cluster; undrift is not proved on one",
)
_NO_MODULE = Meaning(
    ConfigError,
    "The vector store's server has no search module",
    f"use a server with {MODULE_NEEDED}",
)
_OLD_SERVER = Meaning(
    ConfigError,
    "The vector store's server is too old",
    f"use a server with {MODULE_NEEDED}",
)
_FULL = Meaning(
    WriteFailed,
    "The vector store is out of memory",
    "nothing of the batch was written; raise maxmemory or remove other keys, and run the same "
    "command again",
)
_DISK = Meaning(
    WriteFailed,
    "The vector store cannot save to its disk and takes no writes",
    "nothing of the batch was written; look into the server's log, make room on its disk, and run "
    "the same command again",
)
_LOADING = Meaning(
    StoreUnavailable,
    "The vector store is still loading its data",
    "run again when the server has started",
)
_BUSY = Meaning(
    StoreUnavailable,
    "The vector store was too busy",
    "run again; what was acknowledged is kept",
)
_NO_HOST = Meaning(
    StoreUnavailable,
    "The vector store's host is not known",
    "correct the host in VECTOR_URL, or check the name service, and run again",
)
_UNAVAILABLE = Meaning(
    StoreUnavailable,
    "The vector store did not answer",
    "check that the server runs and can be reached from here (by rediss:// where it encrypts, by "
    "redis:// where it does not), then run again",
)
_TIME_OUT = Meaning(
    StoreUnavailable,
    "The vector store did not finish its answer in time",
    "run again when the server is less busy; what it sent is not all and was not used",
)
_WINDOW = Meaning(
    ConfigError,
    "The vector store limits its answers",
    "let an administrator run: FT.CONFIG SET MAXSEARCHRESULTS 1000000",
)
_NO_ANSWER = Meaning(
    StoreUnavailable,
    "The vector store refused to answer",
    "mend what the message names and run again",
)

_BY_CLASS: tuple[tuple[type[exceptions.RedisError], Meaning], ...] = (
    (exceptions.BusyLoadingError, _LOADING),
    (exceptions.AuthenticationError, _LOGIN),
    (exceptions.AuthorizationError, _LOGIN),
    (exceptions.ReadOnlyError, _READ_ONLY),
    (exceptions.OutOfMemoryError, _FULL),
    (exceptions.ClusterError, _CLUSTER),
    (exceptions.MovedError, _CLUSTER),
    (exceptions.ClusterCrossSlotError, _CLUSTER),
)

# A script's own words for it.
_NO_RIGHT = re.compile(r"^NOPERM|ACL failure in script")

# What the driver has no class for, by the server's words.
_BY_WORDS = (
    (re.compile(r"^(WRONGPASS|NOAUTH)"), _LOGIN),
    (re.compile(r"SSL|certificate", re.IGNORECASE), _TLS),
    (re.compile(r"^MISCONF|^NOREPLICAS"), _DISK),
    (re.compile(r"^(BUSY|TRYAGAIN)"), _BUSY),
    (re.compile(r"^LOADING"), _LOADING),
    (re.compile(r"unknown command .?FT\.", re.IGNORECASE), _NO_MODULE),
    (re.compile(r"unknown command .?(HELLO|EVAL_RO)|NOPROTO", re.IGNORECASE), _OLD_SERVER),
    (re.compile(r"no such index|unknown index name", re.IGNORECASE), NOT_CREATED),
    (re.compile(r"timeout limit was reached", re.IGNORECASE), _TIME_OUT),
    (re.compile(r"LIMIT exceeds maximum"), _WINDOW),
    (re.compile(r"Name or service not known|nodename nor servname|name resolution"), _NO_HOST),
)


@contextmanager
def mapped_errors(address: Address, doing: Doing) -> Iterator[None]:
    """Turn what redis-py raises inside the block into undrift's own errors."""
    try:
        yield
    except exceptions.RedisError as error:
        mapped = mapped_error(error, address, doing)
        error.args = (_message(error),)  # a cause is printed too, and may quote what was sent
        raise mapped from error


def mapped_error(error: exceptions.RedisError, address: Address, doing: Doing) -> UndriftError:
    """What redis-py's *error* means."""
    if isinstance(error, exceptions.NoPermissionError) or _NO_RIGHT.search(_message(error)):
        return _missing_right(address, _message(error), doing)
    return _meaning_of(error, doing).error(address.location, _message(error))


def cut_short(address: Address, why: str) -> StoreUnavailable:
    """The error of an answer that is not all, however it was cut."""
    return StoreUnavailable(
        _TIME_OUT.what, why=f"{address.location}: {why.rstrip('.')}.", fix=_TIME_OUT.fix
    )


def is_unknown_index(error: exceptions.RedisError) -> bool:
    """Whether *error* says that there is no such index."""
    return _meaning_of(error, "read") is NOT_CREATED


def _meaning_of(error: exceptions.RedisError, doing: Doing) -> Meaning:
    for kind, meaning in _BY_CLASS:
        if isinstance(error, kind):
            return meaning
    message = _message(error)
    for words, meaning in _BY_WORDS:
        if words.search(message):
            return meaning
    if isinstance(error, exceptions.ResponseError):
        return REFUSED_BATCH if doing == "write" else _NO_ANSWER
    return _UNAVAILABLE


def _message(error: exceptions.RedisError) -> str:
    message = str(error).strip().splitlines()[:1] or [type(error).__name__]
    return re.sub(r",? with args beginning with:.*", "", message[0])


def _missing_right(address: Address, message: str, doing: Doing) -> ConfigError:
    user = address.user or "default"
    return ConfigError(
        f"The vector store's user may not {doing}",
        why=f"{address.location}: {message.rstrip('.')}.",
        fix=f"let an administrator run: {acl_of(user, address.names.vectors, doing)}",
    )


def acl_of(user: str, index: str, doing: Doing) -> str:
    """The command that lets *user* do what undrift does; all of it at once, unless it only reads.

    Args:
        index: the name of the index that is searched.
    """
    rights = ["+@connection", "+multi", "+exec", "+eval_ro", "+hmget", "+hstrlen", "+hgetall"]
    rights += ["+type", "+exists", "+ft.info", "+ft.search", "+ft.aggregate"]
    if doing != "read":
        rights += ["+eval", "+hset", "+hdel", "+del", "+get", "+set", "+ft.create", "+info"]
    # An index is a key as well, where search commands declare keys.
    keys = f"~{{{index}}}:* ~{index} ~{index}:owners"
    return f"ACL SETUSER {user} {keys} {' '.join(rights)}"
