"""A small pool of connections, for drivers that have none of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

C = TypeVar("C")


class Pool(Generic[C]):
    """Lends each connection to one borrower at a time; the one used last goes out first.

    It holds as many as were ever borrowed at once, which the caller's threads bound. No lock is
    needed: a list's `append` and `pop` are atomic.

    Args:
        connect: opens a connection.
        disconnect: closes one, and does not mind if it is broken.
        is_usable: whether an idle one may be lent, told without asking the server.
    """

    def __init__(
        self,
        connect: Callable[[], C],
        disconnect: Callable[[C], None],
        is_usable: Callable[[C], bool],
    ) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._is_usable = is_usable
        self._idle: list[C] = []
        self._inherited: list[C] = []
        self._process_id = os.getpid()

    @contextmanager
    def connection(self) -> Iterator[C]:
        """Lend a connection for the block; one that sees an exception is closed, not kept."""
        connection = self._take()
        try:
            yield connection
        except BaseException:
            self._disconnect(connection)
            raise
        self._idle.append(connection)

    def close(self) -> None:
        """Close every idle connection. The pool stays usable."""
        while self._idle:
            self._disconnect(self._idle.pop())

    def _take(self) -> C:
        if self._process_id != os.getpid():
            # After a fork these belong to the parent: using or even closing one would end its
            # session, so they are only kept from being collected.
            self._inherited, self._idle = self._idle, []
            self._process_id = os.getpid()
        while self._idle:
            connection = self._idle.pop()
            if self._is_usable(connection):
                return connection
            self._disconnect(connection)
        return self._connect()
