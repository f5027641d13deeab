"""A small pool of connections, for drivers that have none of their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

from undrift.forks import leave_to_parent

C = TypeVar("C")


class _Opened(NamedTuple, Generic[C]):
    connection: C
    process_id: int


class Pool(Generic[C]):
    """Lends each connection to one borrower at a time; the one used last goes out first.

    It holds as many as were ever borrowed at once, which the caller's threads bound.

    Args:
        connect: opens a connection.
        disconnect: closes one, and does not mind if it is broken.
        is_usable: whether an idle one may be lent, told without asking the server.

    Safety:
        Any number of threads may share one. No lock is needed, which a fork could leave locked: a
        list's `append` and `pop` are atomic. A forked process neither uses nor closes what its
        parent opened, also where it was lent when the process forked.
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
        self._idle: list[_Opened[C]] = []
        self._is_closed = False

    @contextmanager
    def connection(self) -> Iterator[C]:
        """Lend a connection for the block; one that sees an exception is closed, not kept."""
        lent = self._take()
        try:
            yield lent.connection
        except BaseException:
            self._end(lent)
            raise
        self._idle.append(lent)
        # Asked behind the append: either this thread sees the close, or the close sees this one.
        if self._is_closed:
            self._end_idle()

    def close(self) -> None:
        """Close every connection: those that are idle now, those that are lent when they return.

        The pool stays usable, but keeps nothing any more: what outlasts its owner's close, such as
        a heal, must leave nothing open. Safe to call twice.
        """
        self._is_closed = True
        self._end_idle()

    def _take(self) -> _Opened[C]:
        while (idle := self._pop()) is not None:
            if idle.process_id == os.getpid() and self._is_usable(idle.connection):
                return idle
            self._end(idle)
        return _Opened(self._connect(), os.getpid())

    def _pop(self) -> _Opened[C] | None:
        try:
            return self._idle.pop()
        except IndexError:  # looking before would leave room for another thread in between
            return None

    def _end_idle(self) -> None:
        while (idle := self._pop()) is not None:
            self._end(idle)

    def _end(self, opened: _Opened[C]) -> None:
        if opened.process_id == os.getpid():
            self._disconnect(opened.connection)
        else:
            leave_to_parent(opened.connection)
