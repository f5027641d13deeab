"""Connections of the Redis store: requests and transactions, and what a server must be.

The driver's connections are used, not its clients: a transaction is sent piece by piece, and no
request is repeated behind the store's back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeAlias, cast

from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.retry import Retry

from undrift.errors import ConfigError
from undrift.pooling import Pool
from undrift.stores._redis_address import Address
from undrift.stores._redis_errors import MODULE_NEEDED

CONNECT_SECONDS = 10.0
"""Until a server is given up that cannot be reached, or lets nobody log in."""

ANSWER_SECONDS = 120.0
"""Until a server is given up that does not answer; a query gives up by itself before."""

OLDEST_MODULE = 21_000
"""RediSearch 2.10, as the server tells it; the older ones were not tried."""

Argument: TypeAlias = str | bytes | int | float
Command: TypeAlias = Sequence[Argument]


class Wire(Protocol):
    """What is used of the driver's connections, which declare no types."""

    @property
    def is_connected(self) -> bool:
        """Whether it has a socket."""

    @property
    def handshake_metadata(self) -> Mapping[bytes, object]:
        """The answer to ``HELLO``."""

    def connect(self) -> None:
        """Connect and log in."""

    def update_current_socket_timeout(self, timeout: float) -> None:
        """Wait so long for an answer from now on."""

    def disconnect(self) -> None:
        """Close the socket."""

    def can_read(self, timeout: float = 0) -> bool:
        """Whether the server has said something, or hung up."""

    def pack_commands(self, commands: Iterable[Command]) -> Sequence[bytes]:
        """Commands as they are sent."""

    def send_packed_command(self, command: Sequence[bytes]) -> None:
        """Send them."""

    def read_response(self) -> object:
        """The next answer; raises a `ResponseError` where it is one."""


class Session:
    """A connection to a server that can hold the store."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Wire) -> None:
        self._connection = connection

    def ask(self, *commands: Command) -> list[object]:
        """The answers to *commands*, sent together; an answer may be a `ResponseError`."""
        self._send(commands)
        return [self._receive() for _ in commands]

    def transaction(self, *commands: Command) -> list[object]:
        """The answers to *commands*, between which nobody else's run."""
        with self.begun() as transaction:
            for command in commands:
                transaction.add(command)
            return transaction.commit()

    @contextmanager
    def begun(self) -> Iterator[Transaction]:
        """A transaction; nothing of it is done unless it is committed."""
        yield Transaction(self._send, self._receive)

    def _send(self, commands: Sequence[Command]) -> None:
        self._connection.send_packed_command(self._connection.pack_commands(commands))

    def _receive(self) -> object:
        try:
            answer: object = self._connection.read_response()
        except exceptions.ResponseError as error:
            return error
        return answer


class Transaction:
    """Commands that the server keeps until they are committed, and forgets with the connection.

    The first command takes ``MULTI`` along, the commit saves a round trip where nobody waits.
    """

    def __init__(
        self, send: Callable[[Sequence[Command]], None], receive: Callable[[], object]
    ) -> None:
        self._send = send
        self._receive = receive
        self._unsent: list[Command] = [("MULTI",)]
        self._unanswered = 0
        self._refused: exceptions.ResponseError | None = None

    def add(self, command: Command) -> None:
        """Let *command* be a part of it."""
        self._unsent.append(command)

    def flush(self) -> None:
        """Return when the server holds all that was added.

        Raises:
            ResponseError: it refused a command, and so all of them.
        """
        self._hand_over()
        self._read_answers()
        if self._refused is not None:
            raise self._refused

    def commit(self) -> list[object]:
        """Do all of it, and return the answers; an answer may be a `ResponseError`.

        Raises:
            ResponseError: the server refused a command, and so all of them.
        """
        self._unsent.append(("EXEC",))
        self._hand_over()
        self._unanswered -= 1
        self._read_answers()
        answers = self._receive()
        if self._refused is not None:
            raise self._refused
        if isinstance(answers, exceptions.ResponseError):
            raise answers
        assert isinstance(answers, list)
        return answers

    def _hand_over(self) -> None:
        self._send(self._unsent)
        self._unanswered += len(self._unsent)
        self._unsent = []

    def _read_answers(self) -> None:
        while self._unanswered:
            answer = self._receive()
            self._unanswered -= 1
            if isinstance(answer, exceptions.ResponseError) and self._refused is None:
                self._refused = answer


class Sessions:
    """A pool of them."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._pool = Pool(self._open, _close, _is_usable)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Lend a session for the block.

        Raises:
            ConfigError: the server is not one that can hold the store.
        """
        with self._pool.connection() as connection:
            yield Session(connection)

    def close(self) -> None:
        """Close every connection. Safe to call twice."""
        self._pool.close()

    def _open(self) -> Wire:
        address = self._address
        kind: Callable[..., object] = Connection if address.tls is None else SSLConnection
        opened = kind(
            host=address.host,
            port=address.port,
            username=address.user,
            password=address.password,
            protocol=3,  # the older one does not tell that an answer was cut short
            client_name="undrift",
            socket_connect_timeout=CONNECT_SECONDS,
            socket_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
            **(address.tls or {}),
        )
        connection = cast("Wire", opened)
        try:
            connection.connect()
            connection.update_current_socket_timeout(ANSWER_SECONDS)
            _require(_Server.of(connection.handshake_metadata), address)
        except BaseException:
            connection.disconnect()
            raise
        return connection


class _Server:
    """What a server says of itself when it is greeted; no right is needed for that."""

    def __init__(self, name: str, version: str, mode: str, role: str, module: int | None) -> None:
        self.name = f"{name.capitalize()} {version}"
        self.is_cluster = mode == "cluster"
        self.is_replica = role not in ("master", "")
        self.module = module

    @classmethod
    def of(cls, greeting: Mapping[bytes, object]) -> _Server:
        modules = greeting.get(b"modules")
        found = [
            module.get(b"ver")
            for module in (modules if isinstance(modules, list) else [])
            if isinstance(module, dict) and module.get(b"name") in (b"search", b"searchlight")
        ]
        name, version, mode, role = (
            value.decode() if isinstance(value, bytes) else ""
            for value in map(greeting.get, (b"server", b"version", b"mode", b"role"))
        )
        module = found[0] if found else None
        return cls(name, version, mode, role, module if isinstance(module, int) else None)


def _require(server: _Server, address: Address) -> None:
    if server.module is None:
        raise ConfigError(
            "The vector store's server has no search module",
            why=f"{address.location}: {server.name} knows no command FT.SEARCH.",
            fix=f"use a server with {MODULE_NEEDED}",
        )
    if server.module < OLDEST_MODULE:
        raise ConfigError(
            "The vector store's search module is not one that undrift works with",
            why=f"{address.location}: {server.name} has a search module of version "
            f"{server.module}; RediSearch 2.10 is {OLDEST_MODULE}, and valkey-search, which "
            "counts from 10000, is another module.",
            fix=f"use a server with {MODULE_NEEDED}",
        )
    if server.is_cluster:
        raise ConfigError(
            "The vector store is a cluster",
            why=f"{address.location}: {server.name} runs in cluster mode, on which undrift is not "
            "proved.",
            fix="point VECTOR_URL at a server that is not part of a cluster",
        )
    if server.is_replica:
        raise ConfigError(
            "The vector store is a replica",
            why=f"{address.location}: {server.name} copies another server, takes no writes and "
            "may show what is outdated.",
            fix="point VECTOR_URL at the primary",
        )


def _close(connection: Wire) -> None:
    connection.disconnect()


def _is_usable(connection: Wire) -> bool:
    """Whether an idle connection is still alive; a server speaks unasked only to say goodbye."""
    try:
        return connection.is_connected and not connection.can_read(timeout=0)
    except (exceptions.RedisError, OSError):
        return False
